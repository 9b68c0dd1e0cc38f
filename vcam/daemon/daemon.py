"""`vcam run`: builds the parts, owns threads and processes, applies commands, shuts down in order."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.settings import EngineSettings, Look
from vcam import client, fit
from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    Forget,
    NextProfile,
    Panic,
    Pause,
    PreviousProfile,
    Reload,
    Resume,
    SetPrompt,
    Status,
    Stop,
    Toggle,
    UseProfile,
    UseSource,
    changed,
    to_json,
)
from vcam.control.thumbnails import thumbnails_folder
from vcam.daemon import surfaces
from vcam.daemon.cards import Halt, card_for, describe
from vcam.daemon.event_log import Story
from vcam.daemon.instance_lock import only_one
from vcam.daemon.loops import Flow, again_and_again, capture_loop, translate_loop
from vcam.daemon.publisher import Stage
from vcam.devices import readers
from vcam.devices.choose import choose_sink, choose_source
from vcam.devices.source_switch import SourceSwitch
from vcam.errors import VcamError
from vcam.frames import FrameSink, FrameSource, Picture
from vcam.log_file import JOURNAL
from vcam.settings.profiles import Profile, ProfileError, load_profiles
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions, RunReport, engine_threads, settings_for
from vcam.settings.selection import Choice, first_choice, neighbour, prompts, with_engine, with_profile
from vcam.worker.factories import CORE_ENGINE
from vcam.worker.process import EngineProcess, Limits
from vcam.worker.translator import WorkerTranslator

END_S = 10.0  # how long a thread may take to end; a driver that hangs is left behind
BEAT_S = 0.1  # how often the daemon looks at itself
_ENDING = "StreamV2V Camera is ending"


def _open_source(options: RunOptions) -> FrameSource:
    return choose_source(options.source, options.size or DEFAULT_SIZE, options.fps)


def _open_sink(options: RunOptions) -> FrameSink:
    return choose_sink(options.sink, options.size or DEFAULT_SIZE, options.fps)


@dataclass(frozen=True)
class Parts:
    """What a run is made of; tests put others in place."""

    engine: str = CORE_ENGINE
    settings_of: Callable[[Profile, RunOptions], EngineSettings] = field(
        default=lambda profile, options: settings_for(profile, options)
    )
    open_source: Callable[[RunOptions], FrameSource] = _open_source
    open_sink: Callable[[RunOptions], FrameSink] = _open_sink
    watch_sink: Callable[[FrameSink], readers.Readers | None] = readers.watch
    state_folder: Callable[[], Path] = client.state_folder
    thumbnails_folder: Callable[[], Path] = thumbnails_folder
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.perf_counter
    signals: bool = True


def run(options: RunOptions, parts: Parts | None = None) -> RunReport:
    """Run the camera until SIGINT, SIGTERM, `vcam stop` or options.frames; raises VcamError, ProfileError, ..."""
    stop = threading.Event()
    parts = parts or Parts()
    with _signals_set(stop) if parts.signals else contextlib.nullcontext(), only_one(parts.state_folder()):
        return Daemon(options, parts, stop).run()


@contextlib.contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, also while the parts are still being built."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(command: Command) -> str:
    """A command as the log has it."""
    name, *values = [str(value) for value in to_json(command).values() if value not in (None, {})]
    return " ".join([name, *values])


# ----------------------------------------------------------------------------------------------------------- the daemon


class Daemon:
    """One run: complete when built (sink and source open, nothing runs), `run` blocks until its end.

    `submit`, `status`, `choice`, `log`, `preview` and `camera` may be called from any thread.
    """

    def __init__(self, options: RunOptions, parts: Parts, stop: threading.Event) -> None:
        self._parts, self._stop = parts, stop
        self._story = Story()
        loaded = load_profiles(options.profiles_folder)
        for problem in loaded.problems:
            self._story.say(str(problem))
        self._choice = first_choice(options, parts.settings_of, loaded)
        sink = parts.open_sink(options)
        try:
            self._source = SourceSwitch(parts.open_source(options))
        except BaseException:
            sink.close()
            raise
        self._flow = Flow()
        self._stage = Stage(sink, options, self._flow.captured, parts.clock)
        self._audience = readers.Audience(parts.watch_sink(sink), options.idle_after_s, parts.clock)
        self._translator = WorkerTranslator(
            self._choice.settings,
            self._choice.look,
            factory=parts.engine,
            threads=engine_threads(options),
            mirror=options.mirror,
            limits=parts.limits,
            clock=parts.clock,
        )
        self._translator.prepare(prompts(self._choice))
        self._commands: queue.SimpleQueue[tuple[Command, Future[None]]] = queue.SimpleQueue()
        self._halt = Halt.NO
        self._surfaces = surfaces.Surfaces()
        self._started_s = parts.clock()

    # ---- for the control surfaces, from any thread

    def submit(self, command: Command) -> Future[None]:
        """Queue a command; the future ends when it was done, or with the VcamError or ValueError that refused it."""
        done: Future[None] = Future()
        if self._stop.is_set():
            done.set_exception(VcamError(_ENDING))
        else:
            self._commands.put((command, done))
        return done

    @property
    def preview(self) -> Picture:
        """What was published last."""
        self._audience.seen()
        return self._stage.preview

    @property
    def camera(self) -> Picture | None:
        """What the camera saw last; None while it rests."""
        frame = self._flow.captured.newest
        return None if frame is None else frame.picture

    @property
    def choice(self) -> Choice:
        """What is to be shown now, and by which engine."""
        return self._choice

    def log(self) -> list[dict[str, Any]]:
        """What happened, newest last: at (seconds since 1970) and text."""
        return self._story.lines()

    def status(self) -> Status:
        """The state of everything."""
        choice, engine, now, counts = self._choice, self._translator.state, self._parts.clock(), self._flow.counts
        state, reason, progress = self._described()
        facts = engine.facts or {}
        notes = [trouble for trouble in self._story.troubles.values() if trouble]
        if state != "failed" and engine.phase == "running" and engine.text:
            notes.append(engine.text)
        return Status(
            state=state,
            reason=reason,
            progress=progress,
            profile=choice.profile.id,
            profile_name=choice.profile.name,
            prompt=choice.look.prompt,
            model=str(facts.get("model", choice.settings.model)),
            runtime=str(facts.get("runtime", choice.settings.runtime)),
            device=str(facts.get("device", choice.settings.device)),
            source=self._source.name,
            sink=self._stage.sink.name,
            width=self._stage.size[0],
            height=self._stage.size[1],
            fps=round(counts.translated_rate.per_second(now), 2),
            published_fps=round(counts.published_rate.per_second(now), 2),
            longest_interval_ms=round(counts.interval.max_ms, 3),
            latency_ms=counts.latency.quantile_ms(0.5),
            captured=counts.captured,
            translated=counts.translated,
            published=counts.published,
            dropped=self._flow.captured.dropped,
            engine_pid=facts.get("pid"),
            restarts=engine.restarts,
            bank_bytes=int(facts.get("bank_bytes", 0)),
            reader_count=self._audience.presence.count,
            readers=self._audience.presence.names,
            panel_port=self._surfaces.port,
            obs=self._surfaces.obs(),
            logged=self._story.count,
            uptime_s=round(now - self._started_s, 1),
            notes=tuple(notes),
        )

    # ---- the run

    def run(self) -> RunReport:
        """Start everything, carry out commands until the end, shut down in order."""
        parts, stop = self._parts, self._stop
        threads = [
            threading.Thread(target=self._publish, name="vcam-publish", daemon=True),
            threading.Thread(target=self._capture, name="vcam-capture", daemon=True),
            threading.Thread(target=self._translate, name="vcam-translate", daemon=True),
        ]

        def start(settings: EngineSettings, look: Look) -> EngineProcess:
            return EngineProcess(settings, look, parts.engine, 1, parts.limits, parts.clock)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.001)  # the publisher waits at most this long for another thread's Python
        try:
            for thread in threads:
                thread.start()
            folders = parts.state_folder(), parts.thumbnails_folder()
            with surfaces.opened(self, start, *folders, self._story.say) as self._surfaces:
                while not stop.is_set():
                    self._beat()
        finally:
            stop.set()
            for thread in threads:
                thread.join(END_S)
            self._source.close()
            self._audience.close()
            self._refuse_the_rest()
            sys.setswitchinterval(interval)
        if trouble := self._story.troubles.get("publish"):
            raise VcamError(f"publishing ended: {trouble}; please report this with the lines above")
        return self._report()

    def _beat(self) -> None:
        """Carry out the commands that come within BEAT_S, then look at the state and draw its card."""
        end = self._parts.clock() + BEAT_S
        while (left := end - self._parts.clock()) > 0 and not self._stop.is_set():
            try:
                command, done = self._commands.get(timeout=left)
            except queue.Empty:
                break
            try:
                self._apply(command)
            except (VcamError, ValueError) as error:
                self._story.note(f"refused: {error}")
                done.set_exception(error)
            else:
                self._story.note(_told(command))
                self._set_stage()
                done.set_result(None)
        # an engine that starts shall make its first picture before it rests: then it is ready for a reader
        if self._audience.look(busy=self._translator.state.phase == "starting"):
            self._flow.clear()
        self._set_stage()
        if not self._stop.is_set():
            self._story.state(*self._described()[:2])

    def _described(self) -> tuple[str, str, float | None]:
        halt = Halt.STOPPING if self._stop.is_set() else self._halt
        return describe(halt, self._translator.state, self._source.trouble, self._audience.presence.resting)

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                _, done = self._commands.get_nowait()
            except queue.Empty:
                return
            done.set_exception(VcamError(_ENDING))

    def _set_stage(self) -> None:
        self._stage.set(card_for(*self._described()), self._resting(), self._translator.state.frame_s)

    # ---- the threads

    def _publish(self) -> None:
        try:
            self._stage.publish(self._flow, self._stop, self._story.sink_said)
        except Exception as error:  # noqa: BLE001  nothing can be published any more: end, and say why
            traceback.print_exc()
            JOURNAL.exception("publish failed")
            self._story.troubles["publish"] = f"{type(error).__name__}: {error}"
        finally:
            self._stop.set()
            self._stage.close(self._flow.counts.published)  # here: nobody else may be at the sink while it sends

    def _capture(self) -> None:
        def loop() -> None:
            capture_loop(self._source, self._flow, self._stop, self._resting)

        again_and_again(loop, self._stop, self._failed("capture"))

    def _translate(self) -> None:
        def loop() -> None:
            translate_loop(self._translator, self._flow, self._finish, self._stop, self._parts.clock, self._resting)

        try:
            again_and_again(loop, self._stop, self._failed("translate"))
        finally:
            self._translator.close()  # here: on Linux the child dies with the thread that made it

    def _failed(self, name: str) -> Callable[[Exception], None]:
        def tell(error: Exception) -> None:
            traceback.print_exc()
            JOURNAL.exception("%s failed", name)
            self._story.troubles[name] = f"{name} failed ({type(error).__name__}: {error}) and was started again"

        return tell

    def _resting(self) -> bool:
        return self._halt is not Halt.NO or self._audience.presence.resting

    def _finish(self, picture: Picture) -> Picture:
        return fit.pad_to(picture, self._stage.size, self._choice.profile.badge)

    # ---- commands

    def _apply(self, command: Command) -> None:
        choice = self._choice
        match command:
            case UseProfile(text):
                self._use(text)
            case NextProfile():
                self._use(neighbour(choice, 1))
            case PreviousProfile():
                self._use(neighbour(choice, -1))
            case SetPrompt(prompt, transition_ms):
                given = choice.profile.transition_ms if transition_ms is None else transition_ms
                self._have(replace(choice, look=replace(choice.look, prompt=prompt)), given)
            case ChangeLook(changes):
                self._have(replace(choice, look=changed(choice.look, changes)), choice.profile.transition_ms)
            case UseSource(source):
                options = replace(choice.options, source=source)
                self._source.use(self._parts.open_source(options))
                self._choice = replace(choice, options=options)
            case ChangeEngine(changes):
                self._have(with_engine(choice, changes), 0)
            case Reload():
                self._reload()
            case Pause() | Toggle() if self._halt is Halt.NO:
                self._halt = Halt.PAUSED
            case Pause():
                pass  # it is off already; a panic stays one
            case Panic():
                self._halt = Halt.PANIC
                self._flow.clear()
            case Resume() | Toggle():
                self._flow.clear()
                self._halt = Halt.NO
                if self._translator.state.phase == "failed":
                    self._have(choice, 0)
            case Forget():
                self._translator.forget()
            case Stop():
                self._stop.set()

    def _have(self, choice: Choice, transition_ms: int) -> None:
        self._choice = choice
        self._translator.use(choice.settings, choice.look, transition_ms)

    def _reload(self) -> list[ProfileError]:
        """Read the profiles as they are on the disk now, and have new prompts encoded ahead."""
        before = self._choice
        profiles, problems = load_profiles(before.options.profiles_folder)
        self._choice = replace(before, profiles=profiles)
        if prompts(self._choice) != prompts(before):
            self._translator.prepare(prompts(self._choice))
        return problems

    def _use(self, text: str) -> None:
        problems = self._reload()
        choice = with_profile(self._choice, text, problems)
        self._have(choice, choice.profile.transition_ms)

    def _report(self) -> RunReport:
        status, interval, latency = self.status(), self._flow.counts.interval, self._flow.counts.latency
        return RunReport(
            captured=status.captured,
            translated=status.translated,
            published=status.published,
            dropped=status.dropped,
            publish_interval_ms={
                "p50": interval.quantile_ms(0.5),
                "p95": interval.quantile_ms(0.95),
                "max": status.longest_interval_ms,
            },
            latency_ms={"p50": latency.quantile_ms(0.5), "p95": latency.quantile_ms(0.95)},
            model=status.model,
            runtime=status.runtime,
            profile=status.profile,
            source=status.source,
            sink=status.sink,
            restarts=status.restarts,
            seconds=round(self._parts.clock() - self._started_s, 2),
        )
