"""`vcam run`: builds the parts, owns threads and processes, applies commands, shuts down in order."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
import time
import traceback
import webbrowser
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.settings import EngineSettings, Look, Policy, SettingsError
from vcam import client, fit, readers, sinks
from vcam.cards import FAREWELL, PANIC, card_for, describe
from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    CommandError,
    Forget,
    NextProfile,
    OnFailure,
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
from vcam.errors import VcamError
from vcam.frames import Frame, FrameSink, FrameSource, LatestSlot, Picture
from vcam.journal import JOURNAL
from vcam.loops import Counts, Gate, Ready, capture_loop, publish_loop, translate_loop
from vcam.options import (
    DEFAULT_PROFILE,
    DEFAULT_SIZE,
    RunOptions,
    RunReport,
    choose_sink,
    choose_source,
    engine_threads,
    say,
    settings_for,
)
from vcam.profiles import Profile, ProfileError, find_profile, load_profiles
from vcam.single import only_one
from vcam.switch import SourceSwitch
from vcam.tomlfiles import one_line
from vcam.worker import CORE_ENGINE, EngineProcess, Limits, WorkerTranslator

if TYPE_CHECKING:
    from vcam.obs.link import ObsLink

HOLD_S = 1.5  # how long the last translation stands in for the next
HOLD_FRAMES = 4  # ... or this many of the engine's own frames, if that is longer: a slow engine is no failure
RAW_S = 1.0  # how old a camera picture may be that stands in, if the user chose so
END_S = 10.0  # how long a thread may take to end; a driver that hangs is left behind
LOG_LINES = 200
ENGINE_CHANGES = ("width", "height", "steps", "policy", "slots", "model")
BEAT_S = 0.1  # how often the daemon looks at itself
_ENDING = "StreamV2V Camera is ending"


@dataclass(frozen=True)
class Parts:
    """What a run is made of; tests put others in place."""

    engine: str = CORE_ENGINE
    settings_of: Callable[[Profile, RunOptions], EngineSettings] = field(
        default=lambda profile, options: settings_for(profile, options)
    )
    open_source: Callable[[RunOptions], FrameSource] = field(default=lambda options: choose_source(options))
    open_sink: Callable[[RunOptions], FrameSink] = field(default=lambda options: choose_sink(options))
    watch_sink: Callable[[FrameSink], readers.Readers | None] = readers.watch
    state_folder: Callable[[], Path] = client.state_folder
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

    `submit`, `status`, `profiles` and `preview` may be called from any thread.
    """

    def __init__(self, options: RunOptions, parts: Parts, stop: threading.Event) -> None:
        self._options, self._parts, self._stop = options, parts, stop
        self._clock = parts.clock
        self._profiles, problems = load_profiles(options.profiles_folder)
        for problem in problems:
            say(str(problem))
        self._profile = self._first_profile(problems)
        self._settings = parts.settings_of(self._profile, options)
        self._look = self._look_of(self._profile)
        if options.prompt is not None:
            self._look = replace(self._look, prompt=options.prompt)
        self._size = options.size or DEFAULT_SIZE
        self._sink = parts.open_sink(options)
        try:
            self._source = SourceSwitch(parts.open_source(options))
        except BaseException:
            self._sink.close()
            raise
        self._readers = parts.watch_sink(self._sink)
        self._presence = readers.Presence(None, (), self._clock())
        self._previewed_s = float("-inf")
        self._translator = WorkerTranslator(
            self._settings,
            self._look,
            factory=parts.engine,
            threads=engine_threads(options),
            mirror=options.mirror,
            limits=parts.limits,
            clock=parts.clock,
        )
        self._translator.prepare([self._look.prompt, *(one.look.prompt for one in self._profiles.values())])
        self._captured: LatestSlot[Frame] = LatestSlot()
        self._translated: LatestSlot[Ready] = LatestSlot()
        self._counts = Counts()
        self._commands: queue.SimpleQueue[tuple[Command, Future[None]]] = queue.SimpleQueue()
        self._paused = self._panic = False
        self._sink_trouble = ""
        self._faults: dict[str, str] = {}
        self._started_s = self._clock()
        self._raw: tuple[Frame, Picture] | None = None
        self._gate = Gate(fit.draw_card(card_for("starting", "", 0.0), self._size))
        self._preview: Picture = self._gate.card
        self._written = ("", "")  # the state that the log heard of last
        self._obs: ObsLink | None = None
        self._log: deque[dict[str, Any]] = deque(maxlen=LOG_LINES)
        self._logged = 0

    def _first_profile(self, problems: list[ProfileError]) -> Profile:
        if self._options.profile is not None:
            return find_profile(self._options.profile, self._profiles, problems)
        if not self._profiles:
            raise VcamError("there are no profiles; install StreamV2V Camera again, or give --profile")
        return self._profiles.get(DEFAULT_PROFILE) or next(iter(self._profiles.values()))

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
        self._previewed_s = self._clock()
        return self._preview

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles: id, name, description, prompt, current."""
        current = self._profile.id
        return [
            {
                "id": one.id,
                "name": one.name,
                "description": one.description,
                "prompt": one.look.prompt,
                "revision": f"{hash((one.look, str(one.engine))) & 0xFFFFFFFF:x}",  # another one, another thumbnail
                "current": one.id == current,
            }
            for one in self._profiles.values()
        ]

    @property
    def camera(self) -> Picture | None:
        """What the camera saw last; None while it rests."""
        frame = self._captured.newest
        return None if frame is None else frame.picture

    @property
    def settings(self) -> EngineSettings:
        """What the engine is built from."""
        return self._settings

    def settings_of(self, profile: Profile) -> EngineSettings:
        """The engine that a profile gets here."""
        return self._parts.settings_of(profile, self._options)

    def current_look(self) -> Look:
        """The look as it is now."""
        return self._look

    def changed_look(self, look: Look, changes: dict[str, Any]) -> Look:
        """See `changed`."""
        return changed(look, changes)

    def log(self) -> list[dict[str, Any]]:
        """What happened, newest last: at (seconds since 1970) and text."""
        return list(self._log)

    def status(self) -> Status:
        """The state of everything."""
        engine, now, counts = self._translator.state, self._clock(), self._counts
        state, reason, progress = self._described(self._stop.is_set())
        facts = engine.facts or {}
        notes = [note for note in (self._sink_trouble, *self._faults.values()) if note]
        if state != "failed" and engine.phase == "running" and engine.text:
            notes.append(engine.text)
        return Status(
            state=state,
            reason=reason,
            progress=progress,
            profile=self._profile.id,
            profile_name=self._profile.name,
            prompt=self._look.prompt,
            model=str(facts.get("model", self._settings.model)),
            runtime=str(facts.get("runtime", self._settings.runtime)),
            device=str(facts.get("device", self._settings.device)),
            source=self._source.name,
            sink=self._sink.name,
            width=self._size[0],
            height=self._size[1],
            fps=round(counts.translated_rate.per_second(now), 2),
            published_fps=round(counts.published_rate.per_second(now), 2),
            latency_ms=counts.latency.quantile_ms(0.5),
            captured=counts.captured,
            translated=counts.translated,
            published=counts.published,
            dropped=self._captured.dropped,
            restarts=engine.restarts,
            bank_bytes=int(facts.get("bank_bytes", 0)),
            reader_count=self._presence.count,
            readers=self._presence.names,
            obs=self._obs.state if self._obs is not None else "",
            logged=self._logged,
            uptime_s=round(now - self._started_s, 1),
            notes=tuple(notes),
        )

    # ---- the run

    def run(self) -> RunReport:
        """Start everything, carry out commands until the end, shut down in order."""
        options, stop = self._options, self._stop
        publisher = threading.Thread(target=self._publish, name="vcam-publish", daemon=True)
        others = [
            threading.Thread(target=self._capture, name="vcam-capture", daemon=True),
            threading.Thread(target=self._translate, name="vcam-translate", daemon=True),
        ]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.001)  # the publisher waits at most this long for another thread's Python
        try:
            publisher.start()
            for thread in others:
                thread.start()
            with self._control():
                while not stop.is_set():
                    self._beat()
        finally:
            stop.set()
            for thread in (publisher, *others):
                thread.join(END_S)
            self._source.close()
            if self._readers is not None:
                self._readers.close()
            self._refuse_the_rest()
            sys.setswitchinterval(interval)
        if fault := self._faults.get("publish"):
            raise VcamError(f"publishing ended: {fault}; please report this with the lines above")
        return self._report(options)

    def _beat(self) -> None:
        """Carry out the commands that come within BEAT_S, then look at the state and draw its card."""
        end = self._clock() + BEAT_S
        while (left := end - self._clock()) > 0 and not self._stop.is_set():
            try:
                command, done = self._commands.get(timeout=left)
            except queue.Empty:
                break
            try:
                self._apply(command)
            except (VcamError, ValueError) as error:
                self._note(f"refused: {error}")
                done.set_exception(error)
            else:
                self._note(_told(command))
                self._set_gate()
                done.set_result(None)
        self._look_for_readers()
        self._set_gate()
        self._write_down()

    def _write_down(self) -> None:
        """The log hears of every change of the state."""
        state, reason, _ = self._described(False)
        if (state, reason) != self._written:
            told = f"{state}: {reason}" if reason else state
            JOURNAL.info("state: %s", told)
            self._note(told)
            self._written = state, reason

    def _note(self, text: str) -> None:
        """A line for the log that the panel shows."""
        self._log.append({"at": round(time.time(), 3), "text": one_line(text)})
        self._logged += 1

    def _say(self, text: str) -> None:
        """Tell the user at the terminal and at the panel."""
        say(text)
        self._note(text)

    def _look_for_readers(self) -> None:
        """Rest while nobody looks at the virtual camera or the preview; nothing rests where that cannot be told."""
        if self._readers is None:
            return
        before, now = self._presence, self._clock()
        # an engine that starts shall make its first picture before it rests: then it is ready for a reader
        seen_s = now if self._translator.state.phase == "starting" else self._previewed_s
        self._presence = readers.look(before, self._readers, self._options.idle_after_s, now, seen_s)
        if self._presence.resting and not before.resting:
            self._captured.clear()
            self._translated.clear()

    def _described(self, stopping: bool) -> tuple[str, str, float | None]:
        engine, resting = self._translator.state, self._presence.resting
        return describe(stopping, self._panic, self._paused, engine, self._source.trouble, resting)

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                _, done = self._commands.get_nowait()
            except queue.Empty:
                return
            done.set_exception(VcamError(_ENDING))

    def _set_gate(self) -> None:
        engine = self._translator.state
        only_card = self._resting()
        state, reason, progress = self._described(False)
        hold_s = max(HOLD_S, HOLD_FRAMES * engine.frame_s)
        if self._options.on_failure is OnFailure.HOLD:
            hold_s = float("inf")
        raw = self._raw_picture if self._options.on_failure is OnFailure.RAW else lambda: None
        if only_card and not self._gate.only_card:
            # close first, draw then: a panic shall not wait for a picture
            self._gate = replace(self._gate, card=fit.draw_card(PANIC, self._size), only_card=True, raw=lambda: None)
        card = fit.draw_card(card_for(state, reason, progress), self._size, self._clock())
        self._gate = Gate(card, only_card, hold_s, raw)

    def _raw_picture(self) -> Picture | None:
        """The camera as it is, for those who chose --on-failure raw; drawn once a frame."""
        frame = self._captured.newest
        if frame is None or self._clock() - frame.captured_s > RAW_S:
            return None
        if self._raw is None or self._raw[0] is not frame:
            self._raw = frame, fit.crop_to(frame.picture, self._size, self._options.mirror)
        return self._raw[1]

    # ---- the threads

    def _publish(self) -> None:
        try:
            publish_loop(
                self._sink,
                self._translated,
                lambda: self._gate,
                self._options.fps,
                self._counts,
                self._stop,
                frames=self._options.frames,
                shown=self._show,
                trouble=self._say_sink_trouble,
                clock=self._clock,
            )
        except Exception as error:  # noqa: BLE001  nothing can be published any more: end, and say why
            traceback.print_exc()
            JOURNAL.exception("publish failed")
            self._faults["publish"] = f"{type(error).__name__}: {error}"
            self._stop.set()
        finally:
            self._farewell()  # in this thread: nobody else may be at the sink while it sends

    def _show(self, picture: Picture) -> None:
        self._preview = picture

    def _say_sink_trouble(self, text: str) -> None:
        if text != self._sink_trouble:
            self._say(text or "the sink takes pictures again")
        self._sink_trouble = text

    def _capture(self) -> None:
        self._again_and_again(
            "capture",
            lambda: capture_loop(self._source, self._captured, self._counts, self._stop, self._resting),
        )

    def _translate(self) -> None:
        try:
            self._again_and_again(
                "translate",
                lambda: translate_loop(
                    self._captured,
                    self._translator,
                    self._finish,
                    self._translated,
                    self._counts,
                    self._stop,
                    self._clock,
                    self._resting,
                ),
            )
        finally:
            self._translator.close()  # here: on Linux the child dies with the thread that made it

    def _again_and_again(self, name: str, loop: Callable[[], None]) -> None:
        """Run a loop; should it raise what nobody foresaw, say so and run it again: the camera goes on."""
        while not self._stop.is_set():
            try:
                loop()
            except Exception as error:  # noqa: BLE001  a fault of ours: it is printed, and shown in the status
                traceback.print_exc()
                JOURNAL.exception("%s failed", name)
                self._faults[name] = f"{name} failed ({type(error).__name__}: {error}) and was started again"
                self._stop.wait(1)

    def _resting(self) -> bool:
        return self._paused or self._panic or self._presence.resting

    def _finish(self, picture: Picture) -> Picture:
        return fit.pad_to(picture, self._size, self._profile.badge)

    def _farewell(self) -> None:
        """The last picture that readers of the camera keep seeing."""
        with contextlib.suppress(VcamError):
            if not isinstance(self._sink, sinks.VideoFile):
                self._sink.send(fit.draw_card(FAREWELL, self._size), self._counts.published + 1)
        self._sink.close()

    @contextlib.contextmanager
    def _control(self) -> Iterator[None]:
        """The panel and the API, and the ear at OBS, while the body runs."""
        if not self._options.panel:
            with self._listening(None):
                yield
            return
        from vcam.control.server import Server
        from vcam.desk import Desk
        from vcam.tryout import Tryouts

        parts = self._parts
        tryouts = Tryouts(
            lambda settings, look: EngineProcess(settings, look, parts.engine, 1, parts.limits, parts.clock),
            self._options.mirror,
        )
        desk = Desk(self, tryouts, self._options.profiles_folder, self._options.mirror)
        with (
            contextlib.closing(tryouts),
            Server(desk, self._options.port, self._parts.state_folder()) as server,
        ):
            if server.port != self._options.port:
                say(f"port {self._options.port} is taken; the panel is at port {server.port}")
            link = server.link()
            print(f"vcam: panel: {link}", file=sys.stderr, flush=True)  # not said: a key is not for the log
            if self._options.open_panel:
                threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
            with self._listening(server.picture_link):
                yield

    @contextlib.contextmanager
    def _listening(self, picture_link: Callable[[], str] | None) -> Iterator[None]:
        """Listen to OBS, and tell our script there of the profiles, while the body runs."""
        if not self._options.obs.enabled:
            yield
            return
        from vcam.obs import install, places
        from vcam.obs.link import ObsLink

        known = [(one.id, one.name) for one in self._profiles.values()]
        for folder in install.installed_in(places.config_folders()):
            with contextlib.suppress(OSError):  # the script then keeps the profiles that it knows
                install.write_profiles(folder, known)
        with ObsLink(self._options.obs, self.submit, self._say, picture_link) as self._obs:
            yield

    # ---- commands

    def _apply(self, command: Command) -> None:
        match command:
            case UseProfile(text):
                self._use(text)
            case NextProfile():
                self._use(self._neighbour(1))
            case PreviousProfile():
                self._use(self._neighbour(-1))
            case SetPrompt(prompt, transition_ms):
                given = self._profile.transition_ms if transition_ms is None else transition_ms
                self._set_look(replace(self._look, prompt=prompt), given)
            case ChangeLook(changes):
                self._set_look(changed(self._look, changes), self._profile.transition_ms)
            case UseSource(source):
                self._source.use(self._parts.open_source(replace(self._options, source=source)))
                self._options = replace(self._options, source=source)
            case ChangeEngine(changes):
                self._change_engine(changes)
            case Reload():
                self._reload()
            case Pause():
                self._paused = True
            case Panic():
                self._panic = True
                self._translated.clear()
                self._captured.clear()
            case Toggle() if not (self._paused or self._panic):
                self._paused = True
            case Resume() | Toggle():
                self._translated.clear()
                self._captured.clear()
                self._paused = self._panic = False
                if self._translator.state.phase == "failed":
                    self._translator.use(self._settings, self._look)
            case Forget():
                self._translator.forget()
            case Stop():
                self._stop.set()

    def _change_engine(self, changes: Mapping[str, Any]) -> None:
        if unknown := changes.keys() - ENGINE_CHANGES:
            raise CommandError(f"an engine has no {min(unknown)[:40]!r} to change; it has {', '.join(ENGINE_CHANGES)}")
        given = dict(changes)
        try:
            if given.get("policy") is not None:
                given["policy"] = Policy(given["policy"])
            options = replace(self._options, **given)
            settings = self._parts.settings_of(self._profile, options)
        except (SettingsError, ValueError, TypeError) as error:
            raise CommandError(f"engine: {error}") from error
        self._options, self._settings = options, settings
        self._translator.use(settings, self._look)

    def _reload(self) -> list[ProfileError]:
        """Read the profiles as they are on the disk now, and have new prompts encoded ahead."""
        before = [one.look.prompt for one in self._profiles.values()]
        self._profiles, problems = load_profiles(self._options.profiles_folder)
        now = [one.look.prompt for one in self._profiles.values()]
        if now != before:
            self._translator.prepare([self._look.prompt, *now])
        return problems

    def _use(self, text: str) -> None:
        problems = self._reload()
        profile = find_profile(text, self._profiles, problems)
        self._settings = self._parts.settings_of(profile, self._options)
        self._profile = profile
        self._set_look(self._look_of(profile), profile.transition_ms)

    def _look_of(self, profile: Profile) -> Look:
        strength = self._options.strength
        return profile.look if strength is None else replace(profile.look, strength=strength)

    def _neighbour(self, step: int) -> str:
        ids = list(self._profiles)
        at = ids.index(self._profile.id) if self._profile.id in ids else -1
        return ids[(at + step) % len(ids)]

    def _set_look(self, look: Look, transition_ms: int) -> None:
        self._look = look
        self._translator.use(self._settings, look, transition_ms)

    def _report(self, options: RunOptions) -> RunReport:
        counts, facts = self._counts, self._translator.state.facts or {}
        interval, latency = counts.interval, counts.latency
        return RunReport(
            captured=counts.captured,
            translated=counts.translated,
            published=counts.published,
            dropped=self._captured.dropped,
            publish_interval_ms={
                "p50": interval.quantile_ms(0.5),
                "p95": interval.quantile_ms(0.95),
                "max": round(interval.max_ms, 3),
            },
            latency_ms={"p50": latency.quantile_ms(0.5), "p95": latency.quantile_ms(0.95)},
            model=str(facts.get("model", self._settings.model)),
            runtime=str(facts.get("runtime", self._settings.runtime)),
            profile=self._profile.id,
            source=self._source.name,
            sink=self._sink.name,
            restarts=self._translator.state.restarts,
            seconds=round(self._clock() - self._started_s, 2),
        )
