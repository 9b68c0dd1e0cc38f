"""The engine that the daemon sees: behind it children that are started, watched, restarted, exchanged and built."""

from __future__ import annotations

import multiprocessing.connection
import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from core.settings import EngineSettings, Look
from vcam.frames import Frame, TranslatorState
from vcam.worker.factories import BUILDING_ENGINE, CORE_ENGINE, remove_unfinished
from vcam.worker.messages import Forget, Prepare
from vcam.worker.process import LIMITS, Clock, EngineProcess, Limits

PATIENCE_S = 0.1  # how long one translate() waits at most


class WorkerTranslator:
    """A Translator whose engine lives in a child process, which it starts, watches, restarts and exchanges.

    `translate` and `close` belong to one thread (on Linux the child dies with that thread); `use`, `forget`,
    `prepare` and `state` to any. start: makes an EngineProcess of settings and a look; build: one that builds a
    TensorRT engine first.
    """

    def __init__(
        self,
        settings: EngineSettings,
        look: Look,
        *,
        factory: str = CORE_ENGINE,
        threads: int = 1,
        mirror: bool = False,
        limits: Limits = LIMITS,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        start: Callable[[EngineSettings, Look], EngineProcess] | None = None,
        build: Callable[[EngineSettings, Look], EngineProcess] | None = None,
        remove_unfinished: Callable[[], None] = remove_unfinished,
    ) -> None:
        self._start = start or (lambda s, k: EngineProcess(s, k, factory, threads, limits, clock))
        # one thread: the one that shows pictures meanwhile has the others
        self._build = build or (lambda s, k: EngineProcess(s, k, BUILDING_ENGINE, 1, limits, clock))
        self._remove_unfinished = remove_unfinished
        self._wanted = (settings, look)
        self._limits, self._clock, self._sleep, self._mirror = limits, clock, sleep, mirror
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._current: EngineProcess | None = None
        self._beside: EngineProcess | None = None  # of other settings, which are wanted now
        self._builder: EngineProcess | None = None  # of the current one's settings, as TensorRT runs them
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
        self._orders.put(lambda: self._tell(Forget()))

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
        """End the children in order."""
        self._drop_beside()
        self._drop_builder()
        if self._current is not None:
            self._current.close(grace_s)
            self._current = None

    # ---- inside

    def _engines(self) -> list[EngineProcess]:
        return [engine for engine in (self._current, self._beside, self._builder) if engine is not None]

    def _use(self, settings: EngineSettings, look: Look, transition_ms: int) -> None:
        self._wanted = (settings, look)
        self._note = ""
        current, beside, builder = self._current, self._beside, self._builder
        if builder is not None and builder.is_but_for_loras(settings):  # LoRAs are no part of what is built
            if settings != builder.settings:
                builder.use_loras(settings.loras, 0)
            builder.set_look(look, 0)
        else:
            self._drop_builder()
        if current is None:  # dead: what is wanted now deserves a fresh try
            self._failures, self._given_up = 0, False
            self._next_start_s = self._clock()
        elif settings == current.settings or current.takes(settings):
            self._drop_beside()
            if settings != current.settings:
                current.use_loras(settings.loras, transition_ms)
            current.set_look(look, transition_ms)
        elif beside is not None and settings == beside.settings:
            beside.set_look(look, 0)
        else:
            self._drop_beside()
            self._beside = self._started(self._start(settings, look))

    def _drop_beside(self) -> None:
        if self._beside is not None:
            self._beside.close()
            self._beside = None

    def _drop_builder(self) -> None:
        if self._builder is not None:
            self._builder.close()
            self._builder = None
            self._remove_unfinished()

    def _tell(self, order: NamedTuple) -> None:
        for engine in self._engines():
            engine.send(order)

    def _prepare(self, prompts: tuple[str, ...]) -> None:
        self._prompts = prompts
        self._tell(Prepare(prompts))

    def _started(self, engine: EngineProcess) -> EngineProcess:
        if self._prompts:
            engine.send(Prepare(self._prompts))
        return engine

    def _ensure_started(self) -> None:
        if self._current is None and not self._given_up and self._clock() >= self._next_start_s:
            self._current = self._started(self._start(*self._wanted))

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
            result = engine.step()
            if result is not None and engine is not self._current:  # its first picture: it takes over
                self._exchange(engine)
            shown = result or shown
        self._look_after_beside()
        self._look_after_builder()
        if self._current is not None:
            self._look_after_current(self._current)
        return shown

    def _exchange(self, engine: EngineProcess) -> None:
        if self._current is not None:
            self._current.close()
        self._current, self._given_up = engine, False
        if engine is self._beside:
            self._beside = None
        else:
            self._builder = None

    def _look_after_beside(self) -> None:
        if self._beside is not None and self._beside.failure:
            self._note = f"the change was not possible: {self._beside.failure}"
            self._drop_beside()

    def _look_after_builder(self) -> None:
        """Have built what the current engine could be, once."""
        current, builder = self._current, self._builder
        if builder is not None and builder.failure:
            failure = builder.failure
            self._drop_builder()
            if current is not None and current.ready:
                note = f"the TensorRT engine was not built: {failure}; running {current.facts['runtime']}"
                current.facts = {**current.facts, "note": note, "to_build": False}
        elif builder is None and current is not None and current.facts.get("to_build") and self._beside is None:
            self._builder = self._started(self._build(current.settings, current.look))

    def _look_after_current(self, current: EngineProcess) -> None:
        if current.refused:
            self._note, current.refused = f"the change was not possible: {current.refused}", ""
        if self._failures and current.pictures >= 3:
            self._failures, self._note = 0, ""
        if current.failure:
            self._bury(current)

    def _bury(self, dead: EngineProcess) -> None:
        dead.close()
        if self._beside is not None:  # already on its way with what is wanted
            self._current, self._beside = self._beside, None
            return
        self._current = None  # one that builds goes on, but takes minutes
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
        state = TranslatorState("running", self._notes(engine), None, engine.frame_s, self._restarts, engine.facts)
        if not engine.pictures:
            phase = "restarting" if self._restarts else "starting"
            text = self._note if self._restarts and self._note else engine.progress.text
            return replace(state, phase=phase, text=text, progress=engine.progress.fraction)
        return state

    def _notes(self, current: EngineProcess) -> str:
        """What is to be known besides the picture."""
        notes = [self._note]
        if self._beside is not None:
            notes = [f"preparing {self._beside.settings.model}: {self._beside.progress.text}"]
        if self._builder is not None:
            notes.append(f"preparing {self._builder.settings.model}: {self._builder.progress.text}")
        else:
            notes.append(str(current.facts.get("note", "")))
        if current.unknown:
            notes.append(f"the model does not know: {', '.join(current.unknown)}")
        return "; ".join(note for note in notes if note)
