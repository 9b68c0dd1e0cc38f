"""Records what is published while it is live, and keeps single pictures of it: files named by the time."""

from __future__ import annotations

import contextlib
import datetime
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.errors import StreamV2VError
from vcam.devices.sinks import VideoFile, picture_file
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.log_file import JOURNAL
from vcam.settings.config import MarkingSettings
from vcam.settings.toml_schema import write_atomically

WAITING = 45  # pictures that may wait for the encoder; a machine that is late leaves some out, and their time stays
END_S = 20.0  # how long the last pictures may take to be written


class RecorderState(NamedTuple):
    """Three values of Status: the file that is being written, how long it is, and what was kept last."""

    recording: str
    recorded_s: float
    saved: str


@dataclass
class _Session:
    """One recording. begun: the beat of its first picture, None before there is one; newest: of its last one."""

    path: Path
    file: VideoFile
    pictures: queue.Queue[tuple[Picture, int] | None] = field(default_factory=lambda: queue.Queue(WAITING))
    begun: int | None = None
    newest: int = 0
    thread: threading.Thread | None = None


class Recorder:
    """Takes every published picture by `take` (the publisher's thread, which never waits here).

    `start`, `end`, `toggle` and `snapshot` belong to the commands' thread; `state` may be read from any. say: tells the
    user. marking: how what is kept says that it is AI-translated.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        size: tuple[int, int],
        fps: float,
        say: Callable[[str], None],
        marking: MarkingSettings,
    ) -> None:
        self._folder, self._suffix, self._size, self._fps, self._say = folder, suffix, size, fps, say
        self._marking = marking
        self._session: _Session | None = None
        self._newest: Picture | None = None
        self._saved = ""

    @property
    def state(self) -> RecorderState:
        """What it does now."""
        session = self._session
        if session is None:
            return RecorderState("", 0.0, self._saved)
        beats = 0 if session.begun is None else session.newest - session.begun + 1
        return RecorderState(str(session.path), round(beats / self._fps, 1), self._saved)

    def take(self, picture: Picture, tick: int) -> None:
        """Have the picture of this beat recorded, if a recording runs; it must not be written to any more."""
        self._newest = picture
        session = self._session
        if session is None:
            return
        if session.begun is None:
            session.begun = tick
        session.newest = tick
        with contextlib.suppress(queue.Full):
            session.pictures.put_nowait((picture, tick))

    def start(self) -> None:
        """Begin a recording; raises VcamError where one runs already, or the file cannot be written."""
        if self._session is not None:
            raise VcamError(f"{self._session.path} is being recorded already; to end it: vcam record-stop")
        path = self._new_path(self._suffix)
        session = _Session(path, VideoFile(path, self._size, self._fps, self._marking))
        session.thread = threading.Thread(target=self._write, args=(session,), name="vcam-record", daemon=True)
        try:
            session.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            session.file.close()
            raise VcamError(f"{path} cannot be recorded ({error})") from error
        self._session = session
        self._say(f"recording into {path}")

    def end(self) -> None:
        """End the recording, whose file then has its name; raises VcamError where none runs."""
        session = self._session
        if session is None or session.thread is None:
            raise VcamError("nothing is being recorded; to begin: vcam record")
        self._session = None
        with contextlib.suppress(queue.Full):
            session.pictures.put(None, timeout=END_S)
        session.thread.join(END_S)

    def toggle(self) -> None:
        """Begin a recording, or end the one that runs: for one key that does both."""
        if self._session is None:
            self.start()
        else:
            self.end()

    def snapshot(self) -> None:
        """Keep the picture that was published last, as PNG. Raises VcamError."""
        picture = self._newest
        if picture is None:
            raise VcamError("nothing was published yet")
        path = self._new_path(".png")
        data = picture_file(picture, ".png", self._marking)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise VcamError(f"{path} cannot be written ({error.strerror or error})") from error
        self._saved = str(path)
        self._say(f"saved {path}")

    def close(self) -> None:
        """End what is being recorded, at the end of the run."""
        if self._session is not None:
            self.end()

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
        return next(path for name in names if not (path := self._folder / name).exists())

    def _write(self, session: _Session) -> None:
        """Write a recording's pictures until its end; whatever goes wrong ends it, and is said with what was kept."""
        wrong = ""
        try:
            while (one := session.pictures.get()) is not None:
                session.file.send(*one)
        except Exception as error:  # noqa: BLE001  memory, libraries: it costs this recording, and is told
            wrong = _told(error, session.path)
        try:
            session.file.close()
        except Exception as error:  # noqa: BLE001  see above; a StreamV2VError says where what was written is
            wrong = _told(error, session.path)
        finally:
            if self._session is session:
                self._session = None
        if wrong:
            self._say(f"the recording has ended: {wrong}")
        elif session.begun is not None:
            self._saved = str(session.path)
            self._say(f"saved {session.path}")


def _told(error: Exception, path: Path) -> str:
    """Return what went wrong with a recording, in words; a fault that nobody foresaw has its traceback in the log."""
    if isinstance(error, StreamV2VError):
        return str(error)
    JOURNAL.error("%s: recording failed", path, exc_info=error)
    return f"{path}: {type(error).__name__}: {error}"
