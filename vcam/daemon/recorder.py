"""Records what is published while it is live, and keeps single pictures of it: files named by the time."""

from __future__ import annotations

import contextlib
import datetime
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.errors import StreamV2VError
from core.settings import Origin
from vcam.commands import IMAGINE
from vcam.daemon.loops import Shown
from vcam.daemon.sound_place import Place, SoundPlace
from vcam.devices.microphone import HeardSound, Microphone, MicrophoneProcess
from vcam.devices.microphone_process import DEFAULT, RATE
from vcam.devices.sinks import VideoFile, picture_file
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.log_file import JOURNAL
from vcam.settings.config import MarkingSettings
from vcam.settings.toml_schema import write_atomically

WAITING = 45  # pictures that may wait for the encoder; a machine that is late leaves some out, and their time stays
END_S = 20.0  # how long the end of the run waits for what is being finished


def origin_of(source: str) -> Origin:
    """Return what the pictures are that a run with that source makes."""
    return Origin.GENERATED if source == IMAGINE else Origin.TRANSLATED


class RecorderState(NamedTuple):
    """Values of Status: the file that is written, how long it is, the one that is finished, what was kept last, and
    which microphone recordings hear, how this one hears it, and what is wrong with it.
    """

    recording: str = ""
    recorded_s: float = 0.0
    finishing: str = ""
    saved: str = ""
    microphone: str = ""
    sound: str = ""
    sound_trouble: str = ""


class _Beat(NamedTuple):
    picture: Picture
    tick: int
    place: Place


@dataclass
class _Session:
    """One recording. origin: what its file says of its pictures.

    begun: the beat of its first picture, None before there is one; newest: of its last one. pictures: those that wait,
    None behind the last one. with_sound: whether its file has a track for it; microphone: what it hears now. done: set
    when its file is complete, or never will be.
    """

    path: Path
    file: VideoFile
    origin: Origin
    with_sound: bool = False
    microphone: Microphone | None = None
    pictures: queue.SimpleQueue[_Beat | None] = field(default_factory=queue.SimpleQueue)
    begun: int | None = None
    newest: int = 0
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Recorder:
    """Takes every published picture by `take` (the publisher's thread, which never waits here).

    `start`, `end`, `toggle`, `listen` and `snapshot` belong to the commands' thread; `state` may be read from any. say:
    tells the user. marking, origin: how what is kept says that it is AI-made, and what. microphone: which one is
    recorded too, "" for none; it is open only during a recording. clock: gives the seconds of a frame's captured_s.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        size: tuple[int, int],
        fps: float,
        say: Callable[[str], None],
        marking: MarkingSettings,
        origin: Origin = Origin.TRANSLATED,
        microphone: str = "",
        open_microphone: Callable[[str, Callable[[str], None]], Microphone] = MicrophoneProcess,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._wanted, self._listens, self._open_microphone = microphone or DEFAULT, bool(microphone), open_microphone
        self._place, self._clock = SoundPlace(fps), clock
        self._heard_from = -math.inf
        self._folder, self._suffix, self._size, self._fps, self._say = folder, suffix, size, fps, say
        self._marking, self._origin = marking, origin
        self._session: _Session | None = None
        self._ended: tuple[_Session, ...] = ()  # which are being finished, the oldest first
        self._newest: tuple[Picture, Origin | None] | None = None
        self._saved = ""

    @property
    def state(self) -> RecorderState:
        """What it does now."""
        session = self._session
        finishing = next((str(one.path) for one in self._ended if not one.done.is_set()), "")
        wanted = self._wanted if self._listens else ""
        if session is None:
            return RecorderState(finishing=finishing, saved=self._saved, microphone=wanted)
        beats = 0 if session.begun is None else session.newest - session.begun + 1
        known = RecorderState(str(session.path), round(beats / self._fps, 1), finishing, self._saved, wanted)
        microphone = session.microphone
        if microphone is None:
            return known
        heard = "cut" if self._heard_from == math.inf else "missing" if microphone.trouble else "on"
        return known._replace(
            microphone=microphone.name or wanted,
            sound=heard if microphone.name else "missing",
            sound_trouble=microphone.trouble,
        )

    def take(self, now: Shown) -> None:
        """Have what is published recorded, if a recording runs; its picture must not be written to any more.

        A recording of another origin leaves it out: just after a change of the source there still are pictures of the
        one before.
        """
        picture, tick, origin = now.picture, now.tick, None if now.made is None else now.made.origin
        place = self._place.take(now, self._clock())
        self._heard_from = place.heard_from
        self._newest = picture, origin
        session = self._session
        if session is None or origin not in (None, session.origin):
            return
        if session.begun is None:
            session.begun = tick
        session.newest = tick
        if session.pictures.qsize() < WAITING:
            session.pictures.put(_Beat(picture, tick, place))

    def start(self) -> None:
        """Begin a recording; raises VcamError where one runs already, or the file cannot be written."""
        if self._session is not None:
            raise VcamError(f"{self._session.path} is being recorded already; to end it: vcam record-stop")
        self._session = session = self._begun(self._origin)
        self._open(session)

    def _begun(self, origin: Origin) -> _Session:
        """Return a new recording, whose thread runs; raises VcamError."""
        path = self._new_path(self._suffix)
        file = VideoFile(path, self._size, self._fps, self._marking, origin, self._listens)
        session = _Session(path, file, origin, self._listens)
        session.thread = threading.Thread(target=self._write, args=(session,), name="vcam-record", daemon=True)
        try:
            session.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            session.file.close()
            raise VcamError(f"{path} cannot be recorded ({error})") from error
        self._say(f"recording into {path}, {'with the microphone' if self._listens else 'without sound'}")
        return session

    def _open(self, session: _Session) -> None:
        """Open the microphone for a recording that shall hear it now; what is wrong with that costs the sound alone."""
        if not (self._listens and session.with_sound and session.microphone is None):
            return
        try:
            session.microphone = self._open_microphone(self._wanted, self._say)
        except RuntimeError as error:  # the system gives no more threads
            self._say(f"the microphone cannot be heard ({error}); the recording goes on without sound")
            return
        if session.done.is_set():  # it has failed meanwhile, and closed what it knew of
            session.microphone.close()

    def end(self) -> None:
        """End the recording, whose file is finished without anybody waiting; raises VcamError where none runs."""
        session = self._session
        if session is None:
            raise VcamError("nothing is being recorded; to begin: vcam record")
        self._ended = (*(one for one in self._ended if not one.done.is_set()), session)
        self._session = None
        session.pictures.put(None)
        if session.microphone is not None:
            session.microphone.close()

    def listen(self, on: bool | None = None) -> None:
        """Record the microphone from now on, or do not; None: the other way than now.

        A recording that began without sound stays so; in one that has sound it is silent while this is off.
        """
        before, session = self._listens, self._session
        self._listens = not before if on is None else on
        if self._listens and session is not None and not session.with_sound:
            self._say(f"{session.path} began without sound and stays so; the next recording has the microphone")
        elif self._listens is not before:
            self._say("recordings have the microphone now" if self._listens else "recordings are without sound now")
        if session is None:
            return
        if self._listens:
            self._open(session)
        elif (microphone := session.microphone) is not None:
            session.microphone = None
            microphone.close()

    def toggle(self) -> None:
        """Begin a recording, or end the one that runs: for one key that does both.

        Raises VcamError while the last one is being finished: who presses again then wants no other.
        """
        if self._session is not None:
            self.end()
        elif finishing := self.state.finishing:
            raise VcamError(f"{finishing} is being finished; another one can be begun then, or by vcam record now")
        else:
            self.start()

    def mark(self, origin: Origin) -> None:
        """Say from now on that what is kept is this; a recording of another origin ends, and the next one begins.

        Raises VcamError where that cannot be written, and has changed nothing then.
        """
        if origin is self._origin:
            return
        if self._session is not None:
            following = self._begun(origin)
            self.end()  # before the next one opens the microphone: some can be open only once
            self._session = following
            self._open(following)
        self._origin = origin

    def snapshot(self) -> None:
        """Keep the picture that was published last, as PNG. Raises VcamError."""
        if self._newest is None:
            raise VcamError("nothing was published yet")
        picture, origin = self._newest
        path = self._new_path(".png")
        data = picture_file(picture, ".png", self._marking, origin or self._origin)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise VcamError(f"{path} cannot be written ({error.strerror or error})") from error
        self._saved = str(path)
        self._say(f"saved {path}")

    def close(self) -> None:
        """End what is being recorded, at the end of the run, and wait for its file."""
        with contextlib.suppress(VcamError):  # nothing is being recorded
            self.end()
        until_s = time.monotonic() + END_S
        for session in self._ended:
            if session.thread is not None:
                session.thread.join(max(0.0, until_s - time.monotonic()))

    def _new_path(self, suffix: str) -> Path:
        """Return a name by the time that nobody has yet, in the folder, which is made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VcamError(
                f"{self._folder} cannot be made ({error.strerror or error}): set folder under [record] in config.toml"
            ) from error
        stem = f"{datetime.datetime.now():StreamV2V %Y-%m-%d %H.%M.%S}"
        names = (f"{stem}{'' if number == 1 else f' {number}'}{suffix}" for number in range(1, 1000))
        taken = {
            one.path for one in (*self._ended, *([self._session] if self._session else []))
        }  # which may not have its name yet
        return next(path for name in names if (path := self._folder / name) not in taken and not path.exists())

    def _was_heard(self, sound: HeardSound, one: _Beat) -> bool:
        """Return whether it was heard when this was published: by what comes later it is not to be judged."""
        return sound.heard_s * self._fps + one.place.now <= one.tick

    def _hear(self, file: VideoFile, heard: HeardSound, place: Place) -> None:
        """Give the file sound, at its place, but for what was said while nothing might be heard."""
        samples, beat = heard.samples, heard.heard_s * self._fps
        unheard = (place.heard_from - (beat + place.now)) / self._fps * RATE
        if unheard > 0:
            samples = samples.copy()
            samples[: math.ceil(min(unheard, len(samples)))] = 0
        file.hear(samples, beat + place.shown)

    def _write(self, session: _Session) -> None:
        """Write a recording's pictures until its end; whatever goes wrong ends it, and is said with what was kept."""
        wrong = ""
        try:
            heard_from: float | None = None
            waiting: deque[HeardSound] = deque()  # sound that was heard after the picture that is being written
            while (one := session.pictures.get()) is not None:
                if heard_from is not None and one.place.heard_from != heard_from:
                    session.file.hush()
                microphone = session.microphone  # which the commands' thread may take away at any time
                waiting.extend(() if microphone is None else microphone.take())
                while heard_from is not None and waiting and self._was_heard(waiting[0], one):
                    self._hear(session.file, waiting.popleft(), one.place)
                heard_from = one.place.heard_from
                session.file.send(one.picture, one.tick, heard_from)
        except Exception as error:  # noqa: BLE001  memory, libraries: it costs this recording, and is told
            wrong = _told(error, session.path)
        try:
            session.file.close()
        except Exception as error:  # noqa: BLE001  see above; a StreamV2VError says where what was written is
            wrong = _told(error, session.path)
        finally:
            if self._session is session:
                self._session = None
            if not wrong and session.begun is not None:
                self._saved = str(session.path)
            session.done.set()
            if (microphone := session.microphone) is not None:  # asked after `done` is set: see _open
                microphone.close()
        if wrong:
            self._say(f"the recording has ended: {wrong}")
        elif session.begun is not None:
            self._say(f"saved {session.path}")


def _told(error: Exception, path: Path) -> str:
    """Return what went wrong with a recording, in words; a fault that nobody foresaw has its traceback in the log."""
    if isinstance(error, StreamV2VError):
        return str(error)
    JOURNAL.error("%s: recording failed", path, exc_info=error)
    return f"{path}: {type(error).__name__}: {error}"
