"""Records what is published while it is live, and keeps single pictures of it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.errors import StreamV2VError
from core.settings import Origin
from vcam.commands import IMAGINE, RecorderState
from vcam.daemon.loops import Shown
from vcam.daemon.recorded_sound import RecordedSound, Track
from vcam.daemon.recording_files import RecordingFiles
from vcam.daemon.sound_place import Place
from vcam.devices.sinks import VideoFile
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.log_file import JOURNAL

WAITING = 45  # pictures that may wait for the encoder; a machine that is late leaves some out, and their time stays
END_S = 20.0  # how long the end of the run waits for what is being finished


def origin_of(source: str) -> Origin:
    """Return what the pictures are that a run with that source makes."""
    return Origin.GENERATED if source == IMAGINE else Origin.TRANSLATED


class _Beat(NamedTuple):
    picture: Picture
    tick: int
    place: Place


@dataclass
class _Session:
    """One recording. origin: what its file says of its pictures.

    begun: the beat of its first picture, None before there is one; newest: of its last one. pictures: those that wait,
    None behind the last one. done: set when its file is complete, or never will be.
    """

    path: Path
    file: VideoFile
    origin: Origin
    sound: Track
    pictures: queue.SimpleQueue[_Beat | None] = field(default_factory=queue.SimpleQueue)
    begun: int | None = None
    newest: int = 0
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Recorder:
    """Takes every published picture by `take` (the publisher's thread, which never waits here).

    `start`, `end`, `toggle`, `listen` and `snapshot` belong to the commands' thread; `state` may be read from any. say:
    tells the user. origin: what is said of what is kept: how it was made.
    """

    def __init__(
        self,
        files: RecordingFiles,
        sound: RecordedSound,
        say: Callable[[str], None],
        origin: Origin = Origin.TRANSLATED,
    ) -> None:
        self._files, self._sound, self._say, self._origin = files, sound, say, origin
        self._session: _Session | None = None
        self._ended: tuple[_Session, ...] = ()  # which are being finished, the oldest first
        self._newest: tuple[Picture, Origin | None] | None = None
        self._saved = ""

    @property
    def state(self) -> RecorderState:
        """What it does now."""
        session = self._session
        finishing = next((str(one.path) for one in self._ended if not one.done.is_set()), "")
        if session is None:
            return self._sound.told_in(RecorderState(finishing=finishing, saved=self._saved), None)
        beats = 0 if session.begun is None else session.newest - session.begun + 1
        known = RecorderState(str(session.path), round(beats / self._files.fps, 1), finishing, self._saved)
        return self._sound.told_in(known, session.sound)

    def take(self, now: Shown) -> None:
        """Have what is published recorded, if a recording runs; its picture must not be written to any more.

        A recording of another origin leaves it out: just after a change of the source there still are pictures of the
        one before.
        """
        picture, tick, origin = now.picture, now.tick, None if now.made is None else now.made.origin
        place = self._sound.take(now)
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
        self._sound.open(session.sound)

    def _begun(self, origin: Origin) -> _Session:
        """Return a new recording, whose thread runs; raises VcamError."""
        track = self._sound.track()
        taken = [one.path for one in (*self._ended, *([self._session] if self._session else []))]
        path, file = self._files.recording(origin, track.on, taken)
        session = _Session(path, file, origin, track)
        session.thread = threading.Thread(target=self._write, args=(session,), name="vcam-record", daemon=True)
        try:
            session.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            session.file.close()
            raise VcamError(f"{path} cannot be recorded ({error})") from error
        self._say(f"recording into {path}, {'with the microphone' if track.on else 'without sound'}")
        return session

    def end(self) -> None:
        """End the recording, whose file is finished without anybody waiting; raises VcamError where none runs."""
        session = self._session
        if session is None:
            raise VcamError("nothing is being recorded; to begin: vcam record")
        self._ended = (*(one for one in self._ended if not one.done.is_set()), session)
        self._session = None
        session.pictures.put(None)
        session.sound.close()

    def listen(self, on: bool | None = None) -> None:
        """Record the microphone from now on, or do not; None: the other way than now. See RecordedSound.switch."""
        session = self._session
        if session is None:
            self._sound.switch(on, "", None)
        else:
            self._sound.switch(on, str(session.path), session.sound)

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
            with contextlib.suppress(VcamError):  # it has failed while the next one was begun, and is ended
                self.end()  # before the next one opens the microphone: some can be open only once
            self._session = following
            self._sound.open(following.sound)
        self._origin = origin

    def snapshot(self) -> None:
        """Keep the picture that was published last, as PNG. Raises VcamError."""
        if self._newest is None:
            raise VcamError("nothing was published yet")
        picture, origin = self._newest
        self._saved = str(self._files.keep(picture, origin or self._origin))
        self._say(f"saved {self._saved}")

    def close(self) -> None:
        """End what is being recorded, at the end of the run, and wait for its file."""
        with contextlib.suppress(VcamError):  # nothing is being recorded
            self.end()
        until_s = time.monotonic() + END_S
        for session in self._ended:
            if session.thread is not None:
                session.thread.join(max(0.0, until_s - time.monotonic()))

    def _write(self, session: _Session) -> None:
        """Write a recording's pictures until its end; whatever goes wrong ends it, and is said with what was kept."""
        wrong = ""
        try:
            while (one := session.pictures.get()) is not None:
                session.sound.hear_until(session.file, one.tick, one.place)
                session.file.send(one.picture, one.tick, one.place.heard_from)
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
            session.sound.over = True
            session.done.set()
            session.sound.close()  # what is opened after `over` is closed by whoever opened it
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
