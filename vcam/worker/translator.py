"""The engine that the daemon sees: behind it children that are started, watched, restarted, exchanged and built."""

from __future__ import annotations

import multiprocessing.connection
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from core.settings import EngineSettings, Look, Runtime
from vcam.frames import EnginePhase, EngineWork, Frame, Translation, TranslatorState
from vcam.worker.factories import BUILDING_ENGINE, CORE_ENGINE, remove_unfinished
from vcam.worker.limits import (
    LIMITS,
    AwakeClock,
    Clock,
    Limits,
    Restarts,
    after_failure,
    after_pictures,
    fresh_try,
)
from vcam.worker.messages import EmptyBank, EncodePrompts, Order
from vcam.worker.process import EngineProcess, EngineReport

PATIENCE_S = 0.1  # how long one translate() waits at most
STANDS_IN_AFTER = 3  # failures in a row of a server's engine, before this machine's takes over
ASK_AGAIN_S = 10.0  # how often the server is tried meanwhile
StartEngine = Callable[[EngineSettings, Look], EngineProcess]


@dataclass(frozen=True)
class EngineStarters:
    """How children are made. start: an engine of the settings; build: one that builds its TensorRT engine first.

    remove_unfinished: removes from the disk what a build that was ended has left. server: where `start` starts them,
    host:port, "" for this machine. stand_in: starts one here while the server's fails, None where none shall.
    """

    start: StartEngine
    build: StartEngine
    remove_unfinished: Callable[[], None] = remove_unfinished
    server: str = ""
    stand_in: StartEngine | None = None


def engine_starters(
    factory: str = CORE_ENGINE, threads: int = 1, limits: Limits = LIMITS, clock: Clock = time.perf_counter
) -> EngineStarters:
    """Return what starts real children; factory: as in factories.py; threads: CPU threads of the engine that shows."""
    awake = AwakeClock(clock)

    def start(settings: EngineSettings, look: Look) -> EngineProcess:
        return EngineProcess(settings, look, factory, threads, limits, awake)

    def build(settings: EngineSettings, look: Look) -> EngineProcess:
        # one thread: the engine that shows pictures meanwhile has the others
        return EngineProcess(settings, look, BUILDING_ENGINE, 1, limits, awake)

    return EngineStarters(start, build)


@dataclass
class Engines:
    """The children that run. current: its pictures are shown. beside: of other settings, which are wanted now.

    beside_builds: it builds its TensorRT engine first, for the current one is one that takes no other LoRAs. builder:
    of the current one's settings, as TensorRT runs them. returning: the server's, which is tried while the current one
    stands in for it.
    """

    current: EngineProcess | None = None
    beside: EngineProcess | None = None
    beside_builds: bool = False
    builder: EngineProcess | None = None
    returning: EngineProcess | None = None

    def running(self) -> list[EngineProcess]:
        """Return those that there are."""
        there = (self.current, self.beside, self.builder, self.returning)
        return [engine for engine in there if engine is not None]


@dataclass
class StandIn:
    """How it stands with this machine's engine in the place of the server's. why: "" while it does not show.

    next_try_s: when the server is tried again. unable: why this machine's engine cannot, "" while it may be tried.
    """

    why: str = ""
    next_try_s: float = 0.0
    unable: str = ""


@dataclass
class Wanted:
    """What the user wants to see: settings and look, and the prompts that every engine encodes ahead."""

    settings: EngineSettings
    look: Look
    prompts: tuple[str, ...] = field(default=())


class WorkerTranslator:
    """A Translator whose engine lives in a child process, which it starts, watches, restarts and exchanges.

    `translate` and `close` belong to one thread (on Linux the child dies with that thread); `use`, `retry`,
    `forget`, `prepare`, `cut`, `mend` and `state` to any. limits, clock and sleep: see engine_starters, which
    should be given the same.
    """

    def __init__(
        self,
        settings: EngineSettings,
        look: Look,
        starters: EngineStarters,
        *,
        limits: Limits = LIMITS,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wanted = Wanted(settings, look)
        self._starters = starters
        self._limits, self._clock, self._sleep = limits, clock, sleep
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._engines = Engines()
        self._restarts = Restarts(next_start_s=clock())
        self._refused = ""  # why the newest change was not possible
        self._stand_in = StandIn()
        self._cut = threading.Event()
        self._state = TranslatorState(EnginePhase.STARTING, "starting the engine", 0.0)

    # ---- from any thread

    @property
    def state(self) -> TranslatorState:
        """What it is doing now."""
        return self._state

    def use(self, settings: EngineSettings, look: Look, transition_ms: int = 0) -> None:
        """Show this look with an engine of these settings: the one that runs, or another that is loaded beside it."""
        self._orders.put(lambda: self._use(settings, look, transition_ms))

    def retry(self) -> None:
        """Start an engine at once if it was given up."""
        self._orders.put(self._try_at_once)

    def forget(self) -> None:
        """Empty the bank before the next picture."""
        self._orders.put(lambda: self._send_all(EmptyBank()))

    def prepare(self, prompts: Iterable[str]) -> None:
        """Have every engine encode these prompts ahead, when it has a moment."""
        chosen = tuple(dict.fromkeys(prompts))
        self._orders.put(lambda: self._prepare(chosen))

    def cut(self) -> None:
        """End every connection to a server at once, with what is on its way; none is made until `mend`."""
        self._cut.set()
        for engine in self._engines.running():
            engine.cut()

    def mend(self) -> None:
        """Let connections be made again."""
        self._cut.clear()

    # ---- from the translating thread

    @property
    def ready(self) -> bool:
        """Whether a frame given now would be begun at once."""
        engine = self._awaited
        return engine is not None and engine.idle

    @property
    def _awaited(self) -> EngineProcess | None:
        """The engine whose pictures are waited for: the server's too, while none of this machine's can be shown."""
        current, returning = self._engines.current, self._engines.returning
        return returning if returning is not None and (current is None or not current.ready) else current

    def translate(self, frame: Frame | None) -> Translation | None:
        """Give a frame (None: only look after the engine), wait up to PATIENCE_S for the newest translation."""
        self._carry_out_orders()
        if self._cut.is_set():
            self._let_go()
        else:
            self._ensure_started()
            self._ask_server_again()
        for engine in self._engines.running():
            if frame is not None and engine.idle:
                engine.give(frame)
        self._wait()
        shown = self._step()
        self._state = self._described()
        return shown

    def close(self, grace_s: float = 2.0) -> None:
        """End the children in order."""
        self._drop_returning()
        self._drop_beside()
        self._drop_builder()
        if self._engines.current is not None:
            self._engines.current.close(grace_s)
            self._engines.current = None

    # ---- orders

    def _carry_out_orders(self) -> None:
        while True:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            order()

    def _use(self, settings: EngineSettings, look: Look, transition_ms: int) -> None:
        self._wanted.settings, self._wanted.look = settings, look
        self._refused = ""
        self._drop_returning()  # it has what was wanted before
        self._use_in_builder(settings, look)
        current, beside = self._engines.current, self._engines.beside
        if current is None:
            self._try_at_once()
        elif settings == current.settings or current.takes(settings):
            self._drop_beside()
            if settings != current.settings:
                current.use_loras(settings.loras, transition_ms)
            current.set_look(look, transition_ms)
        elif beside is not None and settings == beside.settings:
            beside.set_look(look, 0)
        else:
            self._prepare_beside(settings, look, build=_needs_build(current, settings))

    def _use_in_builder(self, settings: EngineSettings, look: Look) -> None:
        """Let the build go on if it fits what is wanted now; LoRAs are no part of what is built."""
        builder = self._engines.builder
        if builder is None or not builder.is_but_for_loras(settings):
            self._drop_builder()
            return
        if settings != builder.settings:
            builder.use_loras(settings.loras, 0)
        builder.set_look(look, 0)

    def _try_at_once(self) -> None:
        self._stand_in.unable = ""
        if self._engines.current is None:
            self._restarts = fresh_try(self._restarts, self._clock())

    def _send_all(self, order: Order) -> None:
        for engine in self._engines.running():
            engine.send(order)

    def _prepare(self, prompts: tuple[str, ...]) -> None:
        self._wanted.prompts = prompts
        self._send_all(EncodePrompts(prompts))

    # ---- starting and ending children

    def _with_prompts(self, engine: EngineProcess) -> EngineProcess:
        if self._wanted.prompts:
            engine.send(EncodePrompts(self._wanted.prompts))
        return engine

    def _start(self) -> StartEngine:
        """Return what starts an engine where the one that shows runs."""
        here = self._starters.stand_in
        return here if self._stand_in.why and here is not None else self._starters.start

    def _ensure_started(self) -> None:
        if self._engines.current is None and self._restarts.due(self._clock()):
            wanted = self._wanted
            self._engines.current = self._with_prompts(self._start()(wanted.settings, wanted.look))

    def _ask_server_again(self) -> None:
        """Try the server beside the engine that stands in for it, every ASK_AGAIN_S."""
        returning, now = self._engines.returning, self._clock()
        if returning is not None and returning.failure:
            self._drop_returning()
        if self._stand_in.why and self._engines.returning is None and now >= self._stand_in.next_try_s:
            wanted = self._wanted
            self._stand_in.next_try_s = now + ASK_AGAIN_S
            self._engines.returning = self._with_prompts(self._starters.start(wanted.settings, wanted.look))

    def _let_go(self) -> None:
        """End what was cut; when it may be again, it is started at once."""
        self._drop_returning()
        if self._engines.beside is not None and not self._engines.beside.here:
            self._drop_beside()
        if self._engines.current is not None and not self._engines.current.here:
            self._engines.current.close()
            self._engines.current = None
            self._restarts = fresh_try(self._restarts, self._clock())

    def _drop_returning(self) -> None:
        if self._engines.returning is not None:
            self._engines.returning.close()
            self._engines.returning = None
            self._stand_in.next_try_s = self._clock() + ASK_AGAIN_S

    def _prepare_beside(self, settings: EngineSettings, look: Look, *, build: bool = False) -> None:
        """Make an engine of these settings ready, while the current one goes on. build: as TensorRT runs them."""
        self._drop_beside()
        start = self._starters.build if build else self._start()
        self._engines.beside, self._engines.beside_builds = self._with_prompts(start(settings, look)), build

    def _drop_beside(self) -> None:
        if self._engines.beside is not None:
            self._engines.beside.close()
            self._engines.beside = None
            if self._engines.beside_builds:
                self._starters.remove_unfinished()

    def _drop_builder(self) -> None:
        if self._engines.builder is not None:
            self._engines.builder.close()
            self._engines.builder = None
            self._starters.remove_unfinished()

    def _wait(self) -> None:
        """Wait until the current engine has something to say, at most PATIENCE_S."""
        awaited = self._awaited
        waitable = [] if awaited is None or awaited.idle else awaited.waitable()
        if waitable:
            assert awaited is not None
            multiprocessing.connection.wait(waitable, min(PATIENCE_S, awaited.idle_in_s))
        elif not self.ready:
            self._sleep(PATIENCE_S)

    def _step(self) -> Translation | None:
        shown = None
        for engine in self._engines.running():
            result = engine.step()
            if result is not None and engine is not self._engines.current:  # its first picture: it takes over
                if self._lacks_loras(engine):
                    self._drop_builder()  # the next one is built with them in it
                    result = None
                else:
                    self._exchange(engine)
            shown = result or shown
        self._look_after_beside()
        self._look_after_builder()
        if self._engines.current is not None:
            self._look_after_current(self._engines.current)
        return shown

    def _lacks_loras(self, engine: EngineProcess) -> bool:
        """Return whether what was built beside takes no LoRAs, which the current engine has."""
        current, wanted = self._engines.current, self._wanted.settings
        built = engine is self._engines.builder and engine.settings != wanted
        return built and current is not None and current.settings == wanted

    def _exchange(self, engine: EngineProcess) -> None:
        if self._engines.current is not None:
            self._engines.current.close()
        if engine is self._engines.beside:
            self._engines.beside = None
        elif engine is self._engines.returning:
            self._engines.returning, self._stand_in = None, StandIn()
            self._restarts = replace(self._restarts, in_a_row=0, reason="")
            self._drop_beside()  # of this machine
        else:
            self._engines.builder = None
        self._engines.current = engine
        wanted = self._wanted
        if engine.settings != wanted.settings and self._engines.beside is None:  # LoRAs that what was built cannot take
            self._prepare_beside(wanted.settings, wanted.look, build=_needs_build(engine, wanted.settings))
        self._restarts = replace(self._restarts, given_up=False)

    def _look_after_beside(self) -> None:
        beside, wanted = self._engines.beside, self._wanted
        if beside is None or not beside.failure:
            return
        if self._engines.beside_builds:  # the next best runtime has that look all the same
            self._prepare_beside(wanted.settings, wanted.look)
        else:
            self._refused = f"the change was not possible: {beside.failure}"
            self._drop_beside()

    def _look_after_builder(self) -> None:
        """Start the TensorRT build of what the current engine runs, once; tell why one failed."""
        current, builder = self._engines.current, self._engines.builder
        if builder is not None and builder.failure:
            failure = builder.failure
            self._drop_builder()
            if current is not None:
                current.report = without_build(current.report, failure)
                facts = current.report.facts
                stopgap = facts is not None and facts.runtime == "eager" and facts.device.startswith("cuda")
                if current.settings.runtime is Runtime.AUTO and stopgap and self._engines.beside is None:
                    # which ran until that engine was there: now the next best shall
                    self._prepare_beside(current.settings, current.look)
        elif builder is None and current is not None and self._engines.beside is None:
            facts = current.report.facts
            if facts is not None and facts.to_build:
                self._engines.builder = self._with_prompts(self._starters.build(current.settings, current.look))

    def _look_after_current(self, current: EngineProcess) -> None:
        if current.refused:
            self._refused, current.refused = f"the change was not possible: {current.refused}", ""
        recovered = after_pictures(self._restarts, current.activity.pictures)
        if recovered != self._restarts:
            self._restarts, self._refused = recovered, ""
        if current.failure:
            self._replace_dead(current)

    def _replace_dead(self, dead: EngineProcess) -> None:
        dead.close()
        beside, self._engines.beside = self._engines.beside, None
        if beside is not None and not self._engines.beside_builds:  # already on its way with what is wanted
            self._engines.current = beside
            return
        if beside is not None:  # it takes a while: another shows pictures meanwhile
            self._drop_builder()
            self._engines.builder = beside
        self._engines.current = None  # one that builds goes on, but takes minutes
        now = self._clock()
        helps = self._starters.stand_in is not None and not dead.here and not self._stand_in.unable
        self._restarts = after_failure(self._restarts, dead.failure, dead.final and not helps, self._limits, now)
        self._refused = ""
        if self._stand_in.why and dead.here and self._restarts.given_up:
            self._leave_stand_in(dead.failure)
        elif helps and (dead.final or self._restarts.in_a_row >= STANDS_IN_AFTER):
            self._stand_in = StandIn(dead.failure, now + ASK_AGAIN_S)
            self._restarts = replace(self._restarts, in_a_row=0, next_start_s=now)

    def _leave_stand_in(self, failure: str) -> None:
        """Go on with the server alone, because this machine's engine cannot stand in for it."""
        why = f"{self._stand_in.why}; this machine's engine cannot stand in for it: {failure}"
        self._engines.current, self._engines.returning = self._engines.returning, None
        self._stand_in = StandIn(unable=failure)
        self._restarts = replace(self._restarts, given_up=False, in_a_row=0, next_start_s=self._clock(), reason=why)

    # ---- what the status says

    def _described(self) -> TranslatorState:
        engine, restarts = self._engines.current, self._restarts
        state = self._described_here(engine, restarts)
        if not self._starters.server:
            return state
        times = engine.times if engine is not None and not engine.here else {}
        server = "" if self._stand_in.why else self._starters.server
        return replace(state, server=server, times=times, stands_in=self._stand_in.why)

    def _described_here(self, engine: EngineProcess | None, restarts: Restarts) -> TranslatorState:
        if restarts.given_up:
            return TranslatorState(EnginePhase.FAILED, restarts.reason, restarts=restarts.total)
        if engine is None:
            return TranslatorState(EnginePhase.RESTARTING, restarts.reason, restarts=restarts.total)
        state = TranslatorState(
            EnginePhase.RUNNING,
            self._notes(engine),
            frame_s=engine.activity.frame_s,
            restarts=restarts.total,
            facts=engine.report.facts,
            work=EngineWork(engine.settings, engine.activity.pictures, engine.activity.busy_s),
            changing=self._engines.beside is not None,
            refused=self._refused,
        )
        if engine.activity.pictures:
            return state
        progress = engine.report.progress
        phase = EnginePhase.RESTARTING if restarts.total else EnginePhase.STARTING
        return replace(state, phase=phase, text=restarts.reason or progress.text, progress=progress.fraction)

    def _notes(self, current: EngineProcess) -> str:
        """Return what is to be known besides the picture."""
        beside, builder, facts = self._engines.beside, self._engines.builder, current.report.facts
        notes = [self._refused or self._restarts.reason]
        if self._stand_in.why:
            notes = [f"this machine's engine stands in for {self._starters.server}: {self._stand_in.why}"]
        if beside is not None:
            notes = [f"preparing {beside.settings.model}: {beside.report.progress.text}"]
            if self._engines.beside_builds:
                notes = [f"{notes[0]}; what you saw before goes on until it is there"]
        if builder is not None:
            notes.append(f"preparing {builder.settings.model}: {builder.report.progress.text}")
        elif facts is not None:
            notes.append(facts.note)
        return "; ".join(note for note in notes if note)


def _needs_build(engine: EngineProcess, settings: EngineSettings) -> bool:
    """Return whether another TensorRT engine is to be built for settings that differ in their LoRAs alone."""
    facts = engine.report.facts
    return facts is not None and facts.builds_loras and engine.here and engine.is_but_for_loras(settings)


def without_build(report: EngineReport, failure: str) -> EngineReport:
    """Return the report of an engine that goes on because its TensorRT engine could not be built."""
    if report.facts is None:
        return report
    note = f"the TensorRT engine was not built: {failure}; running {report.facts.runtime}"
    return replace(report, facts=replace(report.facts, note=note, to_build=False))
