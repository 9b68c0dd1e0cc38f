"""A model's TensorRT engine: exported, built, put into the cache, and compared with the eager runtime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from core.algorithm.net import Picture
from core.errors import PlanError
from core.models import host_memory as host
from core.models import loading as models
from core.models.catalogue import in_gb
from core.models.description import ModelDescription, describe
from core.models.loading import Report
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache as engines
from core.runtimes.tensorrt import graphs, readiness
from core.runtimes.tensorrt import runtime as tensorrt
from core.runtimes.tensorrt.cache import Entry, Verdict
from core.runtimes.tensorrt.runtime import FRAME, MERGE
from core.settings import EngineSettings, Guidance, Look, Policy, Runtime

FRAMES = 12  # of a comparison
_LEAST_PSNR = {"float32": 40.0, "float16": 30.0, "bfloat16": 25.0}  # dB, of the worst frame


def ensure(settings: EngineSettings, report: Report, wanted: Callable[[], bool] = lambda: True) -> Entry:
    """The engine for those settings, built and verified if it was not.

    Raises PlanError, ModelError, SettingsError.
    """
    settings, description = _settled(settings)
    found = engines.find(readiness.key(description, settings))
    if found is None or found.problem or engines.changed(found):
        found = build(settings, report, wanted)
    if found.manifest is not None and found.manifest.verdict is Verdict.UNVERIFIED:
        found = verify(found, settings, report)
    if found.problem:
        raise PlanError(f"the engine of {description.name} is {found.problem}; use --runtime auto, and report this")
    return found


def there(settings: EngineSettings) -> Entry:
    """The engine for those settings that was built. Raises PlanError, ModelError, SettingsError."""
    settings, description = _settled(settings)
    found = engines.find(readiness.key(description, settings))
    if found is None:
        raise PlanError(f"there is no TensorRT engine for these settings; {readiness.BUILD} makes it")
    return found


def _settled(settings: EngineSettings) -> tuple[EngineSettings, ModelDescription]:
    description = describe(settings.model)
    settings = models.resolve(replace(settings, runtime=Runtime.EAGER, loras=()), description)
    if why := readiness.why_not(settings.device, settings.dtype):
        raise PlanError(f"TensorRT cannot be used here: {why}")
    return replace(settings, runtime=Runtime.TENSORRT), description


def build(settings: EngineSettings, report: Report, wanted: Callable[[], bool] = lambda: True) -> Entry:
    """A new engine for those settings; minutes. Raises PlanError, ModelError, SettingsError."""
    settings, description = _settled(settings)
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise PlanError(f"to build an engine {' and '.join(missing)} must be installed: {readiness.INSTALL}")
    models.expected(replace(settings, runtime=Runtime.EAGER))  # which it is exported from, and compared with
    cache = engines.cache_folder()
    needed = host.check_making(description, settings, host.free_ram(), engines.free_disk(cache), cache)
    wanted_key, start_s = readiness.key(description, settings), time.perf_counter()
    report(f"loading the model; it takes up to {in_gb(needed.ram)} of RAM, {in_gb(needed.disk)} of the disk", 0.0)
    with models.on(settings.device), engines.scratch(cache) as folder:
        with models.quiet():
            made = _export(description, settings, folder, report)
        dtype, timing = getattr(torch, settings.dtype), engines.timing_cache(wanted_key.machine, cache)
        files = {}
        for name, graph in made.items():
            files[name] = building.build(graph.path, dtype, timing, report, wanted)
            graph.remove()
        return engines.keep(
            wanted_key,
            description.name,
            files,
            made[FRAME].constants,
            time.perf_counter() - start_s,
            cache,
        )


def _export(
    description: ModelDescription, settings: EngineSettings, folder: Path, report: Report
) -> dict[str, graphs.Graph]:
    loaded, version = models.load_parts(description, settings), readiness.version()
    shape = tensorrt.plan_shape(loaded, settings, version)
    report("exporting the graph", 0.05)
    frame = tensorrt.frame_module(loaded, description, settings)
    example = tensorrt.example_tensors(loaded, frame, settings, shape)
    with graphs.graph_attention(frame.net, in_place=shape.in_place) as reading, torch.inference_mode(False):
        module = graphs.FrameGraph(frame, list(example), reading)
        outputs = graphs.frame_outputs(shape.layout)
        made = {FRAME: graphs.export(module, example, outputs, folder / "frame.onnx", version, loaded.weights)}
    if settings.policy is Policy.MERGE and shape.layout:
        given = graphs.merge_inputs(shape.layout, loaded.dtype, loaded.device)
        outputs = [f"merged.{name}" for name in shape.layout]
        merge = graphs.MergeGraph(shape.layout)
        made[MERGE] = graphs.export(merge, given, outputs, folder / "merge.onnx", version, {})
    return made


def verify(entry: Entry, settings: EngineSettings, report: Report, frames: int = FRAMES) -> Entry:
    """Compare an engine with eager over some frames, and write down what came of it. Raises what the engines raise."""
    settings, _ = _settled(settings)
    if entry.manifest is not None and entry.manifest.verdict is Verdict.WRONG:
        entry = engines.judge(entry, Verdict.UNVERIFIED, "")  # it gets another chance
    report("comparing the engine with eager", 0.9)
    torch.cuda.empty_cache()  # what the export took, if it was here
    eager = _film(replace(settings, runtime=Runtime.EAGER), frames)
    try:
        found = _film(settings, frames)
    except PlanError as error:
        return engines.judge(entry, Verdict.WRONG, str(error)[:200])
    worst = min(map(psnr, eager, found))
    told = f"worst of {len(found)} frames {worst:.1f} dB from eager, {_LEAST_PSNR[settings.dtype]:g} dB needed"
    right = len(eager) == len(found) and worst >= _LEAST_PSNR[settings.dtype]
    return engines.judge(entry, Verdict.VERIFIED if right else Verdict.WRONG, told)


def psnr(one: Picture, other: Picture) -> float:
    """Decibels between two pictures of 8 bits; infinite where they are equal."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _film(settings: EngineSettings, frames: int) -> list[Picture]:
    """What an engine of those settings makes of a picture that drifts, with its bank in use from the second frame."""
    from core.engine import Engine

    guidance = 1.0 if settings.guidance is Guidance.NONE else 1.5
    engine = Engine(settings, Look(prompt="a person talking", interval=2, guidance=guidance))
    if engine.settings.runtime is not settings.runtime:  # or eager would be compared with itself
        raise PlanError(engine.trouble or f"the {settings.runtime} runtime cannot run this; {readiness.BUILD} --again")
    coarse = np.random.default_rng(0).integers(0, 256, (settings.height // 16 + 2, settings.width // 16 + 4, 3))
    scene = coarse.astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    views = [scene[8 : 8 + settings.height, 3 * i : 3 * i + settings.width] for i in range(frames)]
    shown = [engine.translate(np.ascontiguousarray(view)) for view in views]
    return [picture for picture in [*shown, *engine.drain()] if picture is not None]
