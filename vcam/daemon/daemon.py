"""`vcam run`: builds the parts, owns threads and processes, applies commands, shuts down in order."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.settings import EngineSettings, Framing, Look
from vcam import client, fit
from vcam.commands import ChangeLook, Command, Panic, Pause, Resume, SendAt, Status, Stop, Toggle
from vcam.control.first_steps import Chosen
from vcam.control.page_memory import PageMemory
from vcam.control.thumbnails import thumbnails_folder
from vcam.daemon import surfaces
from vcam.daemon.asleep import pause_told, seconds_through_sleep
from vcam.daemon.auto_preset import AutoPreset
from vcam.daemon.begin_again import Again, as_text, begin_again, changes_to
from vcam.daemon.cards import Halt, card_for, daemon_state
from vcam.daemon.command_handler import CommandHandler
from vcam.daemon.command_queue import CommandQueue
from vcam.daemon.event_log import EventLog
from vcam.daemon.finishing import Finisher
from vcam.daemon.first_run import FirstRun
from vcam.daemon.instance_lock import only_one
from vcam.daemon.loops import FrameSlots, again_and_again
from vcam.daemon.pipeline import END_S, Pipeline
from vcam.daemon.profile_watch import ProfileWatch
from vcam.daemon.publisher import Publisher
from vcam.daemon.recorded_sound import OpenMicrophone, RecordedSound
from vcam.daemon.recorder import Recorder, origin_of
from vcam.daemon.recording_files import RecordingFiles
from vcam.daemon.reports import Described, report_of, status_of
from vcam.devices import readers
from vcam.devices.choose import choose_sink, choose_source
from vcam.devices.microphone import MicrophoneProcess
from vcam.devices.sinks import SURELY_LEFT_S, recover
from vcam.devices.source_switch import SourceSwitch
from vcam.devices.stills import read_still
from vcam.errors import VcamError
from vcam.fit.small_models import open_face_detector, open_person_finder
from vcam.frames import EnginePhase, Frame, FrameSink, FrameSource, Picture
from vcam.log_file import TERMINAL
from vcam.remote.engines import ServerEngines, codec_of
from vcam.remote.paired import paired_server
from vcam.settings.config import RemoteFallback, config_folder
from vcam.settings.profiles import Profile, load_profiles
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions, RunReport, engine_threads, settings_for
from vcam.settings.selection import Choice, first_choice, prompts
from vcam.worker.factories import CORE_ENGINE
from vcam.worker.limits import Limits
from vcam.worker.process import EngineProcess
from vcam.worker.translator import WorkerTranslator, engine_starters

BEAT_S = 0.1  # how often the daemon looks at itself
_ENDING = "StreamV2V Camera is ending"
_ENDED_BY_SIGNAL = ("SIGINT", "SIGTERM", "SIGHUP")
_AT_ONCE = (Pause, Resume, Toggle, Panic, SendAt, Stop)  # wait for no other command


def _open_source(options: RunOptions) -> FrameSource:
    return choose_source(options.source, options.size or DEFAULT_SIZE, options.fps)


def _open_sink(options: RunOptions) -> FrameSink:
    return choose_sink(
        options.sink,
        options.size or DEFAULT_SIZE,
        options.fps,
        options.marking,
        options.also,
        origin_of(options.source),
    )


@dataclass(frozen=True)
class RunParts:
    """What a run is made of; tests put others in place."""

    engine: str = CORE_ENGINE
    settings_of: Callable[[Profile, RunOptions], EngineSettings] = field(
        default=lambda profile, options: settings_for(profile, options)
    )
    open_source: Callable[[RunOptions], FrameSource] = _open_source
    open_sink: Callable[[RunOptions], FrameSink] = _open_sink
    open_microphone: OpenMicrophone = MicrophoneProcess
    open_faces: Callable[[], fit.FaceDetector] = open_face_detector
    open_persons: Callable[[], fit.PersonFinder] = open_person_finder
    watch_sink: Callable[[FrameSink], readers.Readers | None] = readers.watch
    state_folder: Callable[[], Path] = client.state_folder
    thumbnails_folder: Callable[[], Path] = thumbnails_folder
    config_folder: Callable[[], Path] = config_folder
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.perf_counter
    clock_through_sleep: Callable[[], float] = seconds_through_sleep
    signals: bool = True


def run(options: RunOptions, parts: RunParts | None = None) -> RunReport:
    """Run the camera until SIGINT, SIGTERM, SIGHUP, `vcam stop` or options.frames; raises VcamError."""
    stop, reasons = threading.Event(), list[str]()
    parts = parts or RunParts()
    with _signals_set(stop, reasons) if parts.signals else contextlib.nullcontext(), only_one(parts.state_folder()):
        return keep_running(Daemon(options, parts, stop, reasons), parts, stop, reasons)


def keep_running(daemon: Daemon, parts: RunParts, stop: threading.Event, reasons: list[str]) -> RunReport:
    """Run the daemon, then the one that it wishes for in its place; reasons: why `stop` was set from outside."""
    while True:
        report = daemon.run()
        if daemon.again is None:
            return report
        stop.clear()
        if reasons:  # a signal came meanwhile
            stop.set()
        daemon = _next_one(daemon.again, parts, stop, reasons)


def _next_one(again: Again, parts: RunParts, stop: threading.Event, reasons: list[str]) -> Daemon:
    """Return the daemon that goes on; where the new size cannot be had it has the one before, and says so."""
    try:
        daemon = Daemon(again.options, parts, stop, reasons)
    except VcamError as error:
        daemon = Daemon(again.before, parts, stop, reasons)
        daemon.say(f"{error}; the picture goes on at {as_text(again.before)}")
    if changes := changes_to(daemon.choice.look, again.look):
        daemon.submit(ChangeLook(changes))
    return daemon


@contextlib.contextmanager
def _signals_set(stop: threading.Event, reasons: list[str]) -> Iterator[None]:
    """Have signals set `stop` and add their names to `reasons`, also while the parts are still being built.

    A SIGHUP that is ignored already (nohup) stays ignored: the run then outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def received(number: int, _: object) -> None:
        reasons.append(f"the signal {signal.Signals(number).name}")
        if not stop.is_set():  # this may interrupt the very `set` that the one before began, which holds its lock
            stop.set()

    before = {}
    for name in _ENDED_BY_SIGNAL:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            before[number] = signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Daemon:
    """One run: complete when built (sink and source open, nothing runs), `run` blocks until its end.

    `submit`, `status`, `choice`, `log`, `preview` and `camera` may be called from any thread. reasons: why `stop` was
    set, in words, the first one first. again: once it has run, how the next one shall begin, None at the end of all.

    Two threads carry out commands, so that nothing waits for a file or a device: the one that calls `run` those that
    stop the picture or let it go on, one of its own the others in their order.
    """

    def __init__(
        self, options: RunOptions, parts: RunParts, stop: threading.Event, reasons: list[str] | None = None
    ) -> None:
        self._parts, self._stop, self._reasons = parts, stop, [] if reasons is None else reasons
        self._log = EventLog()
        loaded = load_profiles(options.profiles_folder)
        for problem in loaded.problems:
            self._log.say(str(problem))
        auto = AutoPreset(options, parts.state_folder(), self._log.say)
        options = replace(options, automatic=auto.automatic)
        choice = first_choice(options, parts.settings_of, loaded)
        recover(options.record.place(), self._log.say)
        sink = parts.open_sink(options)
        try:
            source = SourceSwitch(parts.open_source(options))
        except BaseException:
            with contextlib.suppress(VcamError):
                sink.close()
            raise
        slots = FrameSlots()
        limits = parts.limits
        starters = engine_starters(parts.engine, engine_threads(options), limits, parts.clock)
        self._servers: ServerEngines | None = None
        if options.remote:
            server = paired_server(parts.config_folder(), options.remote)
            codec = codec_of(options.remote_codec)
            self._servers = ServerEngines(server, parts.limits, parts.clock, slots.captured.stir, codec)
            starters = self._servers.starters(starters, options.remote_fallback is RemoteFallback.LOCAL)
            limits = self._servers.limits
        translator = WorkerTranslator(choice.settings, choice.look, starters, limits=limits, clock=parts.clock)
        translator.prepare(prompts(choice))
        size, record = options.size or DEFAULT_SIZE, options.record
        files = RecordingFiles(record.place(), f".{record.format}", size, options.fps, options.marking)
        sound = RecordedSound(options.fps, self._log.say, record.microphone, parts.open_microphone, parts.clock)
        recorder = Recorder(files, sound, self._log.say, origin_of(options.source))
        publisher = Publisher(sink, options, slots.captured, parts.clock, recorder)
        self._audience = readers.Audience(parts.watch_sink(sink), options.idle_after_s, parts.clock)
        self._pipeline = Pipeline(source, translator, publisher, slots, self._log, parts.clock)
        self._handler = CommandHandler(choice, auto, source, translator, parts.open_source, recorder)
        self._commands = CommandQueue(self._handler.apply, self._log)
        self._at_once = CommandQueue(self._halt_or_resume, self._log)
        width, height = publisher.size
        regions = fit.Regions(fit.WhenThere(parts.open_persons, parts.clock), read_still, clock=parts.clock)
        self._finisher = Finisher(publisher.size, regions, lambda: self.choice.profile.badge, self._log)
        self._framer = fit.Framer(fit.WhenThere(parts.open_faces, parts.clock), width / height)
        self._memory = PageMemory(parts.state_folder())
        self._halt = Halt.NO
        self.again: Again | None = None
        self._surfaces = surfaces.Surfaces()
        self._started_s = parts.clock()

    # ---- for the control surfaces, from any thread

    def submit(self, command: Command) -> Future[None]:
        """Queue a command; the future ends when it was done, or with what it raised."""
        if self._stop.is_set():
            refused: Future[None] = Future()
            refused.set_exception(VcamError(_ENDING))
            return refused
        return (self._at_once if isinstance(command, _AT_ONCE) else self._commands).submit(command)

    @property
    def preview(self) -> Picture:
        """What was published last."""
        self._audience.seen()
        return self._pipeline.publisher.preview

    @property
    def camera(self) -> Frame | None:
        """What the camera saw last; None while it rests, is paused or after a panic."""
        newest = self._pipeline.slots.captured.newest  # taken first: what a halt comes after is not given
        return None if self._resting() else newest

    @property
    def choice(self) -> Choice:
        """What is to be shown now, and by which engine."""
        return self._handler.choice

    def say(self, text: str) -> None:
        """Tell the user at the terminal and at the page."""
        self._log.say(text)

    def log(self) -> list[dict[str, Any]]:
        """Return what happened, newest last: at (seconds since 1970) and text."""
        return self._log.lines()

    def status(self) -> Status:
        """Return the state of everything."""
        return status_of(
            self._described(),
            self.choice,
            self._pipeline,
            self._audience,
            self._surfaces,
            self._log,
            self._handler.auto.says,
            self._parts.clock(),
            self._started_s,
        )

    # ---- the run

    def run(self) -> RunReport:
        """Start everything, carry out commands until the end, shut down in order."""
        parts, stop = self._parts, self._stop
        others = threading.Thread(target=self._carry_out_others, name="vcam-commands", daemon=True)
        # what a run that was killed just now has left could not be told from one that is written
        leftovers = threading.Timer(SURELY_LEFT_S, recover, (self.choice.options.record.place(), self._log.say))
        leftovers.daemon = True
        interval = sys.getswitchinterval()
        surfaces.load(self._log)
        sys.setswitchinterval(0.001)  # the publisher waits at most this long for another thread's Python
        gc.freeze()  # what is there now stays: a look through all of it would hold the publisher up
        try:
            self._pipeline.start(stop, self._resting, self._framed, self._finisher)
            others.start()
            leftovers.start()
            folders = parts.state_folder(), parts.thumbnails_folder()
            opened = surfaces.opened(self, self._start_preview_engine, *folders, self._memory, self._log)
            with opened as self._surfaces:
                again_and_again(
                    self._look_after, stop, lambda error: self._log.fault("the daemon failed", error), BEAT_S
                )
                # while the page is still there to tell of it: a recording takes a while to be finished and signed
                self._pipeline.publisher.recorder.close()
        except Exception as error:
            self._reasons.append(str(error))
            raise
        finally:
            stop.set()
            leftovers.cancel()
            self._log.say(f"the camera ends: {self._why_ended()}")
            self._pipeline.close()
            others.join(END_S)
            self._pipeline.publisher.recorder.close()
            self._audience.close()
            for waiting in (self._at_once, self._commands):
                waiting.refuse_rest(_ENDING)
            gc.unfreeze()
            sys.setswitchinterval(interval)
            TERMINAL.wait()
        if trouble := self._log.trouble_of("publish"):
            raise VcamError(f"publishing ended: {trouble}; please report this with the lines above")
        if self._pipeline.lost:
            raise VcamError(self._pipeline.lost)
        return report_of(self.status(), self._pipeline.slots.counts, parts.clock() - self._started_s)

    def _start_preview_engine(self, settings: EngineSettings, look: Look) -> EngineProcess:
        if self._servers is not None:
            return self._servers.trial(settings, look)
        return EngineProcess(settings, look, self._parts.engine, 1, self._parts.limits, self._parts.clock)

    def _why_ended(self) -> str:
        if self._reasons:
            return self._reasons[0]
        if self.again is not None:
            return self._begins_again()
        if trouble := self._log.trouble_of("publish"):
            return f"publishing failed, {trouble}"
        frames = self.choice.options.frames
        if frames is not None and self._pipeline.slots.counts.published >= frames:
            return f"as many pictures as were asked for are published: {frames}"
        return "the program that started it"

    def _carry_out_others(self) -> None:
        watch, first = ProfileWatch(self.choice.options.profiles_folder, self._log.say), FirstRun(self._memory)

        def loop() -> None:
            while not self._stop.is_set():
                self._commands.carry_out(BEAT_S)
                if (command := watch.look(self.choice)) is not None:
                    self._commands.submit(command)
                self._handler.adjust_preset()
                options = self.choice.options
                first.look(self.status, Chosen(options.source, options.sink))

        again_and_again(loop, self._stop, lambda error: self._log.fault("a command failed", error), BEAT_S)

    def _look_after(self) -> None:
        """Look at the state every BEAT_S and draw its card; carry out at once the commands that cannot wait."""
        awake_s = self._parts.clock_through_sleep()
        while not self._stop.is_set():
            before_s, awake_s = awake_s, self._parts.clock_through_sleep()
            if told := pause_told(before_s, awake_s):
                self._log.say(told)
            looked_s = self._parts.clock()
            while (left := looked_s + BEAT_S - self._parts.clock()) > 0 and not self._stop.is_set():
                if self._at_once.carry_out(left):
                    break  # and at once to the next look
            self._look()

    def _look(self) -> None:
        # an engine that starts shall make its first picture before it rests: then it is ready for a reader
        starting = self._pipeline.translator.state.phase is EnginePhase.STARTING
        if self._audience.look(busy=starting or bool(self._pipeline.publisher.recorder.state.recording)):
            self._pipeline.slots.clear()
        self._set_card()
        if not self._stop.is_set():
            self._log.state(*self._described()[:2])
            self._log.stands_in(self._pipeline.translator.state.stands_in)

    def _described(self) -> Described:
        if self._stop.is_set() and self.again is not None:
            return Halt.STOPPING.value, self._begins_again(), None
        halt = Halt.STOPPING if self._stop.is_set() else self._halt
        pipeline = self._pipeline
        return daemon_state(halt, pipeline.translator.state, pipeline.source.trouble, self._audience.presence.resting)

    def _begins_again(self) -> str:
        return f"it begins again at {self.again.size}" if self.again is not None else ""

    def _set_card(self) -> None:
        frame_s, interval_s = self._pipeline.translator.state.frame_s, self._pipeline.source.interval_s
        state, _, progress = self._described()
        card = card_for(state, progress, self.choice.options.cards)
        self._pipeline.publisher.set(card, self._resting(), frame_s, interval_s)

    def _resting(self) -> bool:
        return self._halt is not Halt.NO or self._audience.presence.resting

    def _framed(self, frame: Frame) -> Frame:
        if frame.imagined:  # it has no face to follow
            return frame
        shot = self._framer.shot(frame.picture, frame.captured_s, self.choice.look.framing or Framing.FILL)
        self._log.trouble("framing", self._framer.trouble)
        return replace(frame, shot=shot._replace(mirrored=self.choice.options.mirror))

    def _halt_or_resume(self, command: Command) -> None:
        """Carry out a command that stops the picture or lets it go on, card included."""
        match command:
            case Pause() | Toggle() if self._halt is Halt.NO:
                self._halt = Halt.PAUSED
            case Pause():
                pass  # it is off already; a panic stays one
            case Panic():
                self._halt = Halt.PANIC
                self._pipeline.translator.cut()
                if self._servers is not None:
                    self._servers.cut()
                self._pipeline.slots.clear()
            case Resume() | Toggle():
                self._pipeline.slots.clear()
                self._halt = Halt.NO
                if self._servers is not None:
                    self._servers.mend()
                self._pipeline.translator.mend()
                if self._pipeline.translator.state.phase is EnginePhase.FAILED:
                    self._pipeline.translator.retry()
            case SendAt(size):
                self.again = begin_again(self.choice, self.status(), size)
                if self.again is not None:
                    self._stop.set()
            case Stop():
                self._reasons.append("the command stop")
                self._stop.set()
        self._set_card()
