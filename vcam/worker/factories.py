"""How the child makes its engine, by name; the only file here that imports the engine, and late."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from core.settings import EngineSettings, Look, Lora, Runtime
from vcam.frames import Picture

if TYPE_CHECKING:
    from core.plans import TensorRtState

CORE_ENGINE = "vcam.worker.factories:core_engine"
BUILDING_ENGINE = "vcam.worker.factories:building_engine"
ReportProgress = Callable[[str, float], None]


class EngineProtocol(Protocol):
    """What the child needs of core.engine.Engine."""

    @property
    def settings(self) -> EngineSettings:
        """The settings that it was built with."""

    @property
    def trouble(self) -> str:
        """Why the TensorRT engine that is on the disk does not run; "" if it runs or there is none."""

    @property
    def tensorrt(self) -> TensorRtState:
        """What TensorRT has for the settings."""

    @property
    def delay(self) -> int:
        """Frames between a picture and its translation."""

    @property
    def provider(self) -> str:
        """On whose hardware ONNX Runtime runs the model, in words; "" for the CPU and for other runtimes."""

    @property
    def bank_bytes(self) -> int:
        """Size of the feature bank."""

    @property
    def refreshes(self) -> int:
        """How often the bank was made anew by itself."""

    def translate(self, picture: Picture) -> Picture | None:
        """Do as core.engine.Engine does."""

    def imagine(self) -> Picture | None:
        """Do as core.engine.Engine does."""

    def set_look(self, look: Look, frames: int = 0) -> None:
        """Do as core.engine.Engine does."""

    @property
    def changes_loras(self) -> bool:
        """Whether it takes other LoRAs without being built anew."""

    def use_loras(self, given: tuple[Lora, ...], frames: int = 0) -> None:
        """Do as core.engine.Engine does."""

    def prepare(self, prompts: Iterable[str], /) -> None:
        """Do as core.engine.Engine does."""

    def forget(self) -> None:
        """Do as core.engine.Engine does."""

    def another(self, look: Look) -> EngineProtocol:
        """Do as core.engine.Engine does."""

    def check_streams(self, count: int) -> int:
        """Do as core.engine.Engine does."""


def core_engine(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> EngineProtocol:
    """Fetch the model if need be and load the real engine, with `threads` CPU threads; raises core's errors."""
    report("loading PyTorch", 0.1)
    import torch

    torch.set_num_threads(threads)
    from core.engine import Engine as CoreEngine
    from core.models.catalogue import in_gb
    from core.models.hub import DownloadProgress, ensure
    from core.provider_trial import try_provider
    from core.runtimes.choice import on_runtime, resolve

    told = -1

    def fetched(progress: DownloadProgress) -> None:
        nonlocal told
        share = progress.done / max(1, progress.total)
        if (percent := int(100 * share)) != told:
            told = percent
            text = f"fetching the model {settings.model}: {percent} % of {in_gb(progress.total)}"
            report(text, 0.1 + 0.4 * share)

    ensure(settings.model, fetched)
    try_provider(settings, report)
    report(f"loading the model: {settings.model}", 0.5)
    resolved = resolve(settings)
    compiled = resolved.asked is Runtime.AUTO and resolved.runtime is Runtime.COMPILED
    if compiled and resolved.tensorrt.to_build:  # compiling takes as long as that build
        resolved = on_runtime(resolved, Runtime.EAGER, "it shows pictures at once, until TensorRT's engine is built")
    return CoreEngine(resolved, look, report)


def building_engine(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> EngineProtocol:
    """Load the real engine with TensorRT; if its engine file is not there yet, build it first, which takes minutes."""
    report("loading PyTorch", 0.1)
    import threading

    import torch
    from tqdm import tqdm

    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared by processes, and Python warns at its loss
    from core.errors import PlanError
    from core.runtimes.choice import for_plan
    from core.verify import ensure_plan

    built = for_plan(settings)
    ensure_plan(built, report)
    again = for_plan(settings)
    if again.tensorrt.key != built.tensorrt.key:  # it takes no LoRAs: another has them in it
        ensure_plan(again, report)
    engine = core_engine(settings, look, threads, report)
    if engine.settings.runtime is not Runtime.TENSORRT:  # what runs already would take its own place
        raise PlanError(engine.trouble or "the TensorRT engine was built, but is not there; vcam engines list")
    return engine


def check_served(settings: EngineSettings, streams: int, copies: int) -> None:
    """Raise MemoryShort where this machine's memory is too small for a model with so many streams; ModelError.

    copies: of the model that are loaded here. Fetches the model if need be, and loads none.
    """
    from core.models.hub import ensure
    from core.models.stream_memory import check_with_streams
    from core.runtimes.choice import resolve
    from core.runtimes.load import expected

    ensure(settings.model, lambda progress: None)
    resolved = resolve(settings)
    expected(resolved)
    check_with_streams(resolved, streams, copies)


def give_memory_back() -> None:
    """Give the system back what engines held that nobody holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what is kept for later counts as taken where the next engine's memory is looked at


def instead(settings: EngineSettings, engine: EngineProtocol) -> tuple[str, bool]:
    """Return what to tell the user where another runtime runs than was asked for, and whether a build would help."""
    runs = engine.settings.runtime
    if runs is Runtime.TENSORRT or settings.runtime not in (Runtime.TENSORRT, Runtime.AUTO):
        return "", False
    trouble = f"the TensorRT engine cannot be used: {engine.trouble}" if engine.trouble else ""
    from core.plans import BUILD

    if settings.runtime is Runtime.AUTO:
        if engine.tensorrt.to_build:
            return f"{trouble or 'there is no TensorRT engine yet'}; running {runs} until it is built", True
        if failed := engine.tensorrt.failed:
            return f"the TensorRT engine was not built: {failed}; running {runs}; {BUILD} tries it again", False
        if engine.tensorrt.quick and (wrong := engine.tensorrt.found_wrong):
            return f"the TensorRT engine is {wrong}; running {runs}; {BUILD} --again makes another", False
        return (f"{trouble}; running {runs}" if trouble else ""), False
    if why := engine.tensorrt.unusable:
        return f"TensorRT cannot be used here: {why}; running {runs}", False
    if wrong := engine.tensorrt.found_wrong:  # another build would most likely be as wrong
        return f"the TensorRT engine is {wrong}; running {runs}; {BUILD} --again makes another", False
    return f"{trouble or 'there is no TensorRT engine yet'}; running {runs} until it is built", True


def builds_loras(settings: EngineSettings, engine: EngineProtocol) -> bool:
    """Return whether a TensorRT engine is built for other LoRAs; for `auto` only where that takes about a minute."""
    runs = engine.settings.runtime is Runtime.TENSORRT
    return runs and not engine.changes_loras and (settings.runtime is Runtime.TENSORRT or engine.tensorrt.quick)


def remove_unfinished() -> None:
    """Remove what builds that were ended too early have left on the disk."""
    from core.runtimes.tensorrt import cache as engines

    engines.sweep()
