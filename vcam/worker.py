"""The engine in a process of its own: pictures by shared memory, orders and answers by a pipe, restarted when it dies.

A crash, an out-of-memory or a driver's reset ends the child, never the camera.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple, Protocol

import numpy as np

from core.settings import EngineSettings, Look, Lora, Runtime
from vcam.frames import Frame, Picture, TranslatorState

CORE_ENGINE = "vcam.worker:core_engine"
BUILDING_ENGINE = "vcam.worker:building_engine"
PATIENCE_S = 0.1  # how long one translate() waits at most
Clock = Callable[[], float]
Report = Callable[[str, float], None]


# ------------------------------------------------------------------------------------------- what the two sides say


class _Given(NamedTuple):
    """To the child: a picture lies in shared memory."""

    number: int
    captured_s: float


class _NewLook(NamedTuple):
    """To the child: from the next picture on, blending over `frames` pictures."""

    look: Look
    frames: int


class _NewLoras(NamedTuple):
    """To the child: fused into the weights that are loaded, before the next picture."""

    loras: tuple[Lora, ...]
    frames: int


class _Prepare(NamedTuple):
    """To the child: prompts to encode when there is a moment."""

    prompts: tuple[str, ...]


class _Forget(NamedTuple):
    """To the child: empty the bank."""


class _Leave(NamedTuple):
    """To the child: end."""


class _Progress(NamedTuple):
    """From the child while it loads."""

    text: str
    fraction: float


class _Ready(NamedTuple):
    """From the child: it takes pictures now."""

    facts: dict[str, Any]


class _Done(NamedTuple):
    """From the child: a translation lies in shared memory, or (shown is None) none came of this picture."""

    shown: _Given | None
    bank_bytes: int


class _Raised(NamedTuple):
    """From the child: this picture or order failed, the engine goes on. at: "picture", "look" or "loras"."""

    at: str
    text: str


class _Fused(NamedTuple):
    """From the child: these LoRAs are in the weights."""

    loras: tuple[Lora, ...]


class _Failed(NamedTuple):
    """From the child, its last word: it cannot load. final: trying again will not help."""

    text: str
    final: bool


class _Unknown(NamedTuple):
    """From the child: words of the prompt that the model does not know."""

    words: tuple[str, ...]


# --------------------------------------------------------------------------------------------------- the child's side


class Engine(Protocol):
    """What the child needs of core.engine.Engine."""

    @property
    def settings(self) -> EngineSettings:
        """With what it was built."""

    @property
    def delay(self) -> int:
        """Frames between a picture and its translation."""

    @property
    def bank_bytes(self) -> int:
        """Size of the feature bank."""

    def translate(self, picture: Picture) -> Picture | None:
        """See core.engine.Engine."""

    def set_look(self, look: Look, frames: int = 0) -> None:
        """See core.engine.Engine."""

    @property
    def changes_loras(self) -> bool:
        """Whether use_loras does."""

    def use_loras(self, given: tuple[Lora, ...], frames: int = 0) -> None:
        """See core.engine.Engine."""

    def prepare(self, prompts: Iterable[str], /) -> None:
        """See core.engine.Engine."""

    def forget(self) -> None:
        """See core.engine.Engine."""

    def unknown_words(self, prompt: str, /) -> list[str]:
        """See core.engine.Engine."""


def core_engine(settings: EngineSettings, look: Look, threads: int, report: Report) -> Engine:
    """The real engine; `threads` CPU threads."""
    report("loading PyTorch", 0.1)
    import torch

    torch.set_num_threads(threads)
    from core.catalogue import in_gb
    from core.engine import Engine as CoreEngine
    from core.hub import Progress, ensure
    from core.models import expected

    told = -1

    def fetched(progress: Progress) -> None:
        nonlocal told
        share = progress.done / max(1, progress.total)
        if (percent := int(100 * share)) != told:
            told = percent
            text = f"fetching the model {settings.model}: {percent} % of {in_gb(progress.total)}"
            report(text, 0.1 + 0.4 * share)

    ensure(settings.model, fetched)
    report(f"loading the model: {settings.model}", 0.5)
    need = expected(settings)
    if need is not None:
        report(f"loading the model: {settings.model}, which takes about {need}", 0.55)
    return CoreEngine(settings, look, report)


def building_engine(settings: EngineSettings, look: Look, threads: int, report: Report) -> Engine:
    """The real engine by TensorRT, whose engine is built first if it is not there: that takes minutes."""
    report("loading PyTorch", 0.1)
    from core.runtimes.making import ensure

    ensure(settings, report)
    return core_engine(settings, look, threads, report)


def _instead(settings: EngineSettings, engine: Engine) -> tuple[str, bool]:
    """What is to be said where another runtime runs than was asked for, and whether building an engine helps."""
    if settings.runtime is not Runtime.TENSORRT or engine.settings.runtime is Runtime.TENSORRT:
        return "", False
    from core.runtimes import readiness

    why = readiness.why_not(engine.settings.device, engine.settings.dtype)
    if not why:
        return f"running {engine.settings.runtime} until the TensorRT engine is built", True
    return f"TensorRT cannot be used here: {why}; running {engine.settings.runtime}", False


def _child(
    pipe: Connection, memory_name: str, settings: EngineSettings, look: Look, factory: str, threads: int, parent: int
) -> None:
    """The child's main function."""
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us too; the parent ends us in its order
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with contextlib.suppress(OSError):
            os.nice(2)  # the pacer in the parent goes first, without starving the engine on a busy machine
    memory = SharedMemory(memory_name)
    given, result = _views(memory, settings)
    try:
        engine = _load(pipe, settings, look, factory, threads)
        if engine is not None:
            _serve(pipe, engine, look, given, result)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # no destructors: a hung driver must not keep us


def _die_with_parent(parent: int) -> None:
    """End this process when its parent ends, however that comes."""

    def watch() -> None:
        process = multiprocessing.parent_process()
        if process is not None:
            process.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: works even while C code holds the GIL
        if os.getppid() != parent:
            os._exit(1)


def _load(pipe: Connection, settings: EngineSettings, look: Look, factory: str, threads: int) -> Engine | None:
    def report(text: str, fraction: float) -> None:
        pipe.send(_Progress(text, fraction))

    try:
        module, _, name = factory.partition(":")
        engine: Engine = getattr(importlib.import_module(module), name)(settings, look, threads, report)
    except ValueError as error:  # ModelError, SettingsError: what was asked for cannot be had
        pipe.send(_Failed(_one_line(error), final=True))
        return None
    except Exception as error:  # noqa: BLE001  whatever it is, the parent shall hear of it
        pipe.send(_Failed(f"{type(error).__name__}: {_one_line(error)}", final=False))
        return None
    note, to_build = _instead(settings, engine)
    if note:
        print(f"vcam: {note}", file=sys.stderr, flush=True)
    pipe.send(
        _Ready(
            {
                "note": note,
                "to_build": to_build,
                "model": settings.model,
                "runtime": str(engine.settings.runtime),
                "device": engine.settings.device,
                "delay": engine.delay,
                "bank_bytes": engine.bank_bytes,
                "changes_loras": engine.changes_loras,
                "pid": os.getpid(),
            }
        )
    )
    return engine


def _serve(pipe: Connection, engine: Engine, look: Look, given: Picture, result: Picture) -> None:
    """Answer orders until told to leave."""
    in_flight: deque[_Given] = deque(maxlen=engine.delay + 1)
    to_prepare: deque[str] = deque()
    _tell_unknown(pipe, engine, look)
    while True:
        if to_prepare and not pipe.poll():
            with contextlib.suppress(Exception):  # it will be said when the prompt is used
                engine.prepare([to_prepare.popleft()])
            continue
        order = pipe.recv()
        if isinstance(order, _Leave):
            return
        try:
            match order:
                case _Given():
                    in_flight.append(order)
                    picture = engine.translate(given)
                    if picture is not None:
                        result[:] = picture
                    pipe.send(_Done(None if picture is None else in_flight[0], engine.bank_bytes))
                case _NewLook():
                    engine.set_look(order.look, order.frames)
                    _tell_unknown(pipe, engine, order.look)
                case _NewLoras():
                    engine.use_loras(order.loras, order.frames)
                    pipe.send(_Fused(order.loras))
                case _Prepare():
                    to_prepare.extend(order.prompts)
                case _Forget():
                    engine.forget()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001  the parent decides what becomes of an engine that raises
            at = "picture" if isinstance(order, _Given) else "loras" if isinstance(order, _NewLoras) else "look"
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            pipe.send(_Raised(at, name + _one_line(error)))


def _tell_unknown(pipe: Connection, engine: Engine, look: Look) -> None:
    pipe.send(_Unknown(tuple(engine.unknown_words(look.prompt))))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _views(memory: SharedMemory, settings: EngineSettings) -> tuple[Picture, Picture]:
    """The two pictures in shared memory: the one given, the one that came of it."""
    shape = (settings.height, settings.width, 3)
    count = settings.height * settings.width * 3
    given: Picture = np.ndarray(shape, np.uint8, memory.buf)
    result: Picture = np.ndarray(shape, np.uint8, memory.buf, offset=count)
    return given, result


# -------------------------------------------------------------------------------------------------- the parent's side


@dataclass(frozen=True)
class Limits:
    """How long the child may be silent (s), and how often it may fail before it is given up.

    frame_s: for a picture once one has come; first_frame_s: for the first (it may compile); load_s: between two
    words while it loads. raises: pictures in a row that may fail before a restart. tries: restarts in a row without
    a picture.
    """

    load_s: float = 600.0
    first_frame_s: float = 300.0
    frame_s: float = 10.0
    raises: int = 5
    tries: int = 5
    first_wait_s: float = 0.25
    longest_wait_s: float = 8.0

    def wait_s(self, failures: int) -> float:
        """The back-off before the next start after so many failures in a row."""
        return float(min(self.longest_wait_s, self.first_wait_s * 2 ** max(0, failures - 1)))


class EngineProcess:
    """One child: alive when built, its messages read by `step`, ended by `close`. Used from one thread.

    Owns the shared memory. `failure` is why it is of no more use, "" while it is.
    """

    def __init__(
        self, settings: EngineSettings, look: Look, factory: str, threads: int, limits: Limits, clock: Clock
    ) -> None:
        self.settings, self.look = settings, look
        self.failure, self.final = "", False
        self.ready = False
        self.progress = _Progress("starting", 0.02)
        self.facts: dict[str, Any] = {}
        self.refused = ""
        self._loras, self._loras_asked = settings.loras, 0
        self.unknown: tuple[str, ...] = ()
        self.pictures = 0
        self.frame_s = 0.0
        self._limits, self._clock = limits, clock
        self._raises = 0
        self._busy_since_s: float | None = None
        self._heard_s = clock()
        self._last_done_s = 0.0
        self._memory = SharedMemory(create=True, size=2 * settings.width * settings.height * 3)
        self._given: Picture | None
        self._result: Picture | None
        self._given, self._result = _views(self._memory, settings)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_child,
            args=(theirs, self._memory.name, settings, look, factory, threads, os.getpid()),
            name="vcam-engine",
            daemon=True,
        )
        with _sigint_blocked():  # inherited: a Ctrl-C while the child starts must not kill it before its order comes
            self._process.start()
        theirs.close()

    @property
    def idle(self) -> bool:
        """Whether a picture given now would be begun at once."""
        return self.ready and not self.failure and self._busy_since_s is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid or 0

    def give(self, frame: Frame, mirror: bool) -> None:
        """Hand a frame over; only while idle."""
        from vcam import fit  # OpenCV: the child shall not load it

        assert self._given is not None
        size = (self.settings.width, self.settings.height)
        self._given[:] = fit.crop_to(frame.picture, size, mirror)
        self._busy_since_s = self._clock()
        self.send(_Given(frame.index, frame.captured_s))

    def set_look(self, look: Look, transition_ms: int) -> None:
        """The look from the next picture on."""
        self.look = look
        self.send(_NewLook(look, self._frames(transition_ms)))

    def takes(self, settings: EngineSettings) -> bool:
        """Whether `use_loras` makes of this engine one of these settings."""
        only_loras = replace(self.settings, loras=settings.loras) == settings
        return only_loras and self.ready and bool(self.facts.get("changes_loras"))

    def use_loras(self, loras: tuple[Lora, ...], transition_ms: int) -> None:
        """These LoRAs from the next picture on; the settings say so unless the child refuses them."""
        self.settings = replace(self.settings, loras=loras)
        self._loras_asked += 1
        self.send(_NewLoras(loras, self._frames(transition_ms)))

    def _frames(self, transition_ms: int) -> int:
        return round(transition_ms / 1000 / self.frame_s) if self.frame_s else 0

    def send(self, order: NamedTuple) -> None:
        """Send an order; a broken pipe is found by `step`."""
        with contextlib.suppress(OSError):
            self._pipe.send(order)

    def waitable(self) -> list[Any]:
        """What becomes ready when there is something to `step` for."""
        return [] if self.failure else [self._pipe, self._process.sentinel]

    def step(self) -> Frame | None:
        """Read what the child said, notice that it died or hangs; the newest translation, if one came."""
        shown: Frame | None = None
        try:
            while not self.failure and self._pipe.poll():
                shown = self._heard(self._pipe.recv()) or shown
        except (EOFError, OSError):
            self._process.join(1)
            self.failure = self.failure or _death(self._process.exitcode)
        if not self.failure and not self._process.is_alive():
            self.failure = _death(self._process.exitcode)
        if not self.failure:
            self._watch()
        return shown

    def _heard(self, message: object) -> Frame | None:
        now = self._heard_s = self._clock()
        match message:
            case _Progress():
                self.progress = message
            case _Ready(facts):
                self.facts, self.ready = facts, True
                self.progress = _Progress("making the first picture", 0.9)
            case _Unknown(words):
                self.unknown = words
            case _Done(shown, bank_bytes):
                self._raises = 0
                self._measure(now)
                self.facts = {**self.facts, "bank_bytes": bank_bytes}
                if shown is not None and self._result is not None:
                    self.pictures += 1
                    return Frame(self._result.copy(), shown.captured_s, shown.number)
            case _Raised(at, text) if at != "picture":
                self.refused = text
                if at == "loras":
                    self._answered(self._loras)
            case _Fused(loras):
                self._answered(loras)
            case _Raised(_, text):
                self._busy_since_s = None
                self._raises += 1
                if self._raises >= self._limits.raises:
                    self.failure = f"the engine fails at every picture: {text}"
            case _Failed(text, final):
                self.failure, self.final = text, final
        return None

    def _answered(self, loras: tuple[Lora, ...]) -> None:
        """The child has these LoRAs; the settings say so when no further ones are under way."""
        self._loras = loras
        self._loras_asked -= 1
        if self._busy_since_s is not None:
            self._busy_since_s = self._heard_s  # the picture was begun only now
        if not self._loras_asked:
            self.settings = replace(self.settings, loras=loras)

    def _measure(self, now: float) -> None:
        """Seconds per frame, smoothed; waiting for the camera is not the engine's time."""
        if self._busy_since_s is not None:
            took = now - self._busy_since_s
            self.frame_s = took if not self.frame_s else 0.8 * self.frame_s + 0.2 * took
        self._busy_since_s = None

    def _watch(self) -> None:
        now = self._clock()
        if not self.ready:
            if now - self._heard_s > self._limits.load_s:
                self.failure = f"the engine has not loaded and said nothing for {self._limits.load_s:g} s"
        elif self._busy_since_s is not None:
            limit = max(self._limits.frame_s, 20 * self.frame_s)
            if not self.pictures or self._loras_asked:
                limit = self._limits.first_frame_s  # fusing a large model's weights takes its time
            if now - self._busy_since_s > limit:
                self.failure = f"the engine has not answered for {limit:g} s"

    def close(self, grace_s: float = 0.0) -> None:
        """End the child: asked for grace_s, then killed; give the memory back."""
        if grace_s and not self.failure:
            self.send(_Leave())
            self._process.join(grace_s)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(5)
        self._pipe.close()
        self._given = self._result = None  # the views must go before their memory
        self._memory.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in {s.value for s in signal.Signals} else str(-exitcode)
        return f"the engine was killed ({name})" + (": out of memory?" if name == "SIGKILL" else "")
    return f"the engine ended by itself (exit status {exitcode})"


@contextlib.contextmanager
def _sigint_blocked() -> Any:
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerTranslator:
    """A Translator whose engine lives in a child process, which it starts, watches, restarts and exchanges.

    `translate` and `close` belong to one thread (on Linux the child dies with that thread); `use`, `forget`,
    `prepare` and `state` to any. start: makes an EngineProcess of settings and a look.
    """

    def __init__(
        self,
        settings: EngineSettings,
        look: Look,
        *,
        factory: str = CORE_ENGINE,
        threads: int = 1,
        mirror: bool = False,
        limits: Limits = Limits(),
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        start: Callable[[EngineSettings, Look], EngineProcess] | None = None,
        build: Callable[[EngineSettings, Look], EngineProcess] | None = None,
    ) -> None:
        self._start = start or (lambda s, k: EngineProcess(s, k, factory, threads, limits, clock))
        self._build = build or (lambda s, k: EngineProcess(s, k, BUILDING_ENGINE, threads, limits, clock))
        self._wanted = (settings, look)
        self._limits, self._clock, self._sleep, self._mirror = limits, clock, sleep, mirror
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._current: EngineProcess | None = None
        self._beside: EngineProcess | None = None
        self._prompts: tuple[str, ...] = ()
        self._failures = 0
        self._restarts = 0
        self._next_start_s = clock()
        self._given_up = False
        self._note = ""
        self._state = TranslatorState("starting", "starting the engine", 0.0)

    # ---- from any thread

    @property
    def state(self) -> TranslatorState:
        """What it is doing now."""
        return self._state

    def use(self, settings: EngineSettings, look: Look, transition_ms: int = 0) -> None:
        """Have this look, and an engine of these settings: the one there is, or another built beside it."""
        self._orders.put(lambda: self._use(settings, look, transition_ms))

    def forget(self) -> None:
        """Empty the bank before the next picture."""
        self._orders.put(lambda: self._tell(_Forget()))

    def prepare(self, prompts: Iterable[str]) -> None:
        """Prompts that every engine shall encode ahead, when it has a moment."""
        chosen = tuple(dict.fromkeys(prompts))
        self._orders.put(lambda: self._prepare(chosen))

    # ---- from the translating thread

    @property
    def ready(self) -> bool:
        """Whether a frame given now would be begun at once."""
        return self._current is not None and self._current.idle

    def translate(self, frame: Frame | None) -> Frame | None:
        """Give a frame (None: just look after the engine), wait up to PATIENCE_S for the newest translation."""
        while True:
            try:
                self._orders.get_nowait()()
            except queue.Empty:
                break
        self._ensure_started()
        for engine in self._engines():
            if frame is not None and engine.idle:
                engine.give(frame, self._mirror)
        self._wait()
        shown = self._step()
        self._state = self._described()
        return shown

    def close(self, grace_s: float = 2.0) -> None:
        """End the child in order."""
        for engine in self._engines():
            engine.close(grace_s if engine is self._current else 0.0)
        self._current = self._beside = None

    # ---- inside

    def _engines(self) -> list[EngineProcess]:
        return [engine for engine in (self._current, self._beside) if engine is not None]

    def _use(self, settings: EngineSettings, look: Look, transition_ms: int) -> None:
        self._wanted = (settings, look)
        self._note = ""
        if self._current is None:  # dead: what is wanted now deserves a fresh try
            self._failures, self._given_up = 0, False
            self._next_start_s = self._clock()
            return
        if settings == self._current.settings:
            if self._beside is not None and settings == self._beside.settings:  # being built by TensorRT
                self._beside.set_look(look, 0)
            else:
                self._drop_beside()
            self._current.set_look(look, transition_ms)
        elif self._current.takes(settings):
            self._drop_beside()
            self._current.use_loras(settings.loras, transition_ms)
            self._current.set_look(look, transition_ms)
        elif self._beside is not None and settings == self._beside.settings:
            self._beside.set_look(look, 0)
        else:
            self._drop_beside()
            self._beside = self._start(settings, look)

    def _drop_beside(self) -> None:
        if self._beside is not None:
            self._beside.close()
            self._beside = None

    def _tell(self, order: NamedTuple) -> None:
        for engine in self._engines():
            engine.send(order)

    def _prepare(self, prompts: tuple[str, ...]) -> None:
        self._prompts = prompts
        for engine in self._engines():
            if engine.ready:
                engine.send(_Prepare(prompts))

    def _ensure_started(self) -> None:
        if self._current is None and not self._given_up and self._clock() >= self._next_start_s:
            self._current = self._start(*self._wanted)

    def _wait(self) -> None:
        """Until the current engine has something to say, or PATIENCE_S."""
        waitable = [] if self._current is None or self._current.idle else self._current.waitable()
        if waitable:
            multiprocessing.connection.wait(waitable, PATIENCE_S)
        elif not self.ready:
            self._sleep(PATIENCE_S)

    def _step(self) -> Frame | None:
        shown = None
        for engine in self._engines():
            was_ready = engine.ready
            result = engine.step()
            if engine.ready and not was_ready and self._prompts:
                engine.send(_Prepare(self._prompts))
            if engine is self._current:
                shown = result
                if not was_ready and engine.facts.get("to_build") and self._beside is None:
                    self._beside = self._build(engine.settings, engine.look)
            elif result is not None:  # the one built beside has its first picture: it takes over
                self._exchange(engine)
                shown = result
        if self._beside is not None and self._beside.failure:
            self._note = f"the change was not possible: {self._beside.failure}"
            self._drop_beside()
        if self._current is not None and self._current.refused:
            self._note, self._current.refused = f"the change was not possible: {self._current.refused}", ""
        if self._failures and self._current is not None and self._current.pictures >= 3:
            self._failures, self._note = 0, ""
        if self._current is not None and self._current.failure:
            self._bury(self._current)
        return shown

    def _exchange(self, engine: EngineProcess) -> None:
        if self._current is not None:
            self._current.close()
        self._current, self._beside = engine, None

    def _bury(self, dead: EngineProcess) -> None:
        dead.close()
        if self._beside is not None:  # already on its way with what is wanted
            self._current, self._beside = self._beside, None
            return
        self._current = None
        self._failures += 1
        self._restarts += 1
        self._note = dead.failure
        self._given_up = dead.final or self._failures >= self._limits.tries
        self._next_start_s = self._clock() + self._limits.wait_s(self._failures)

    def _described(self) -> TranslatorState:
        engine = self._current
        if self._given_up:
            return TranslatorState("failed", self._note, restarts=self._restarts)
        if engine is None:
            return TranslatorState("restarting", self._note, restarts=self._restarts)
        note = self._note
        if self._beside is not None:
            note = f"preparing {self._beside.settings.model}: {self._beside.progress.text}"
        elif not note and engine.facts.get("note"):
            note = str(engine.facts["note"])
        elif not note and engine.unknown:
            note = f"the model does not know: {', '.join(engine.unknown)}"
        state = TranslatorState("running", note, None, engine.frame_s, self._restarts, engine.facts)
        if not engine.pictures:
            phase = "restarting" if self._restarts else "starting"
            text = self._note if self._restarts and self._note else engine.progress.text
            return replace(state, phase=phase, text=text, progress=engine.progress.fraction)
        return state
