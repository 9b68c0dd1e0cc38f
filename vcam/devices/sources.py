"""Where pictures come from: a webcam found by name, a video file in a loop, the test picture."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

# Read once by OpenCV: a silent camera shall block for 2 s, not 10; MSMF's hardware transforms may hang for minutes.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")

import cv2
import numpy as np

from vcam.devices.test_pattern import draw_person
from vcam.errors import VcamError
from vcam.frames import Frame, LatestSlot, Picture

if TYPE_CHECKING:
    from vcam import video

if sys.platform == "linux":
    from vcam.devices import v4l2

OUR_NAME = "StreamV2V Camera"
# Cameras that are programs: taking one as input would show ourselves, or somebody else's logo.
_VIRTUAL = (OUR_NAME, "OBS Virtual Camera", "Unity Video Capture", "OBS-Camera", "Dummy video device", "OBS Cam")
OPEN_LIMIT_S = 15.0
SILENT_S = 3.0
GIVE_UP_S = 10.0  # of silence, after which the camera is opened anew
BLACK_S = 2.0
FROZEN_S = 5.0  # of pictures that equal each other to the last bit, which no sensor's do
RETRY_S = 1.0
TIMEOUT_S = 0.5  # a read that fails this late was waited for in vain

Clock = Callable[[], float]


@dataclass(frozen=True)
class Camera:
    """A camera of this machine: the name people know, what stays the same across replugging, how to open it now."""

    name: str
    identity: str
    path: str | int  # a number where the system has no paths (Windows, macOS)
    virtual: bool = False


def list_cameras(include_virtual: bool = False) -> list[Camera]:
    """The cameras of this machine, in the system's order; ours and other loopbacks only if asked for."""
    if sys.platform == "linux":
        found = [
            Camera(d.name, v4l2.identity(d), d.path, d.is_loopback or d.name in _VIRTUAL)
            for d in v4l2.devices()
            if d.captures or d.is_loopback
        ]
    else:
        found = _cameras_elsewhere()
    return [camera for camera in found if include_virtual or not camera.virtual]


def _cameras_elsewhere() -> list[Camera]:
    """Windows (DirectShow) and macOS (AVFoundation)."""
    from cv2_enumerate_cameras import enumerate_cameras

    backend = cv2.CAP_DSHOW if sys.platform == "win32" else cv2.CAP_AVFOUNDATION
    return [
        Camera(info.name, info.path or info.name, info.index, any(info.name.startswith(name) for name in _VIRTUAL))
        for info in enumerate_cameras(backend)
    ]


def choose_camera(wanted: str, cameras: Sequence[Camera]) -> Camera:
    """The camera called `wanted` (name, identity or path; any case; a part of the name if only one has it).

    "" takes the first real one. Raises VcamError that lists what there is.
    """
    if not wanted:
        for camera in cameras:
            if not camera.virtual:
                return camera
        raise VcamError("no camera was found; plug one in, or use --source pattern or --source FILE")
    if wanted.casefold() == OUR_NAME.casefold():
        raise VcamError(f'"{OUR_NAME}" is the camera that this program makes; choose a real one')
    others = [camera for camera in cameras if camera.name != OUR_NAME]
    low = wanted.casefold()
    for camera in others:
        if low in (camera.name.casefold(), camera.identity.casefold(), str(camera.path).casefold()):
            return camera
    parts = [camera for camera in others if low in camera.name.casefold()]
    if len(parts) == 1:
        return parts[0]
    there = ", ".join(f'"{camera.name}"' for camera in others if not camera.virtual) or "none"
    raise VcamError(f'no camera is called "{wanted}"; there are: {there}')


class Capture(Protocol):
    """What Webcam needs of cv2.VideoCapture."""

    def isOpened(self) -> bool:
        """Whether the camera is there."""

    def read(self) -> tuple[bool, Any]:
        """(whether it is one, picture BGR); blocks."""

    def release(self) -> None:
        """Let it go."""


def open_capture(path: str | int, size: tuple[int, int], fps: float) -> Capture:
    """Open a camera with OpenCV at about `size` and `fps`, MJPEG where it offers it; blocks as long as it takes."""
    backend = {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_DSHOW, "darwin": cv2.CAP_AVFOUNDATION}.get(sys.platform, 0)
    capture = cv2.VideoCapture(path, backend)
    if capture.isOpened():
        # raw YUYV over USB 2 gives 5 to 10 fps at 720p: only MJPEG reaches 30
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        capture.set(cv2.CAP_PROP_FPS, fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


class _Reader(threading.Thread):
    """Opens and reads one capture until told to leave: what blocks, blocks here, and can be left behind."""

    def __init__(self, opener: Callable[[], Capture], clock: Clock) -> None:
        super().__init__(name="vcam-camera", daemon=True)
        self.slot: LatestSlot[tuple[Picture, float]] = LatestSlot()
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.failure = ""
        self._leave = threading.Event()
        self._opener, self._clock = opener, clock
        self.start()

    def leave(self) -> None:
        self._leave.set()

    def run(self) -> None:
        try:
            capture = self._opener()
            try:
                if not capture.isOpened():
                    self.failure = "open"
                    return
                self.opened.set()
                while not self._leave.is_set():
                    asked_s = self._clock()
                    good, picture = capture.read()
                    now = self._clock()
                    if good:
                        self.slot.put((_rgb(picture), now))
                    elif now - asked_s < TIMEOUT_S:  # at once: it is gone; after a time: it is silent, and may go on
                        self.failure = "read"
                        return
            finally:
                capture.release()
        except cv2.error as error:  # a driver's nonsense; reported like a failed read
            self.failure = f"read: {error.err}"
        finally:
            self.ended.set()


def _rgb(picture: Any) -> Picture:
    if picture.ndim == 2:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def is_black(picture: Picture) -> bool:
    """Whether the picture shows nothing: a covered lens, a privacy switch; a dark room is not black."""
    few = picture[:: max(1, picture.shape[0] // 32), :: max(1, picture.shape[1] // 32)]
    return int(few.max()) <= 20


class Webcam:
    """A camera as FrameSource: opened off the caller's thread, and found again by its identity after any failure.

    wanted: as in `choose_camera`; it need not be there yet. A missing, busy, silent, black or frozen camera gives None
    and says so in `trouble`. What is still frozen after it was opened anew is taken for a picture that does not move.
    """

    def __init__(
        self,
        wanted: str,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        cameras: Callable[[], list[Camera]] = lambda: list_cameras(include_virtual=True),
        opener: Callable[[str | int, tuple[int, int], float], Capture] = open_capture,
    ) -> None:
        self._wanted, self._size, self._fps = wanted, size, fps
        self._clock, self._sleep, self._cameras, self._opener = clock, sleep, cameras, opener
        self._camera: Camera | None = None
        self._reader: _Reader | None = None
        self._left: tuple[_Reader, float] | None = None  # not yet ended, and until when that is waited for
        self._started_s = self._last_s = self._bright_s = self._moved_s = self._next_try_s = clock()
        self._before: Picture | None = None
        self._doubted = False  # whether the picture that does not move has led to an opening anew
        self._index = -1
        self._trouble = "opening the camera"

    @property
    def name(self) -> str:
        """The camera's name, or what was asked for while there is none."""
        return self._camera.name if self._camera else self._wanted or "camera"

    @property
    def trouble(self) -> str:
        """Why there is no frame, "" while frames come."""
        return self._trouble

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame, waited for up to timeout_s; None: see `trouble`."""
        if self._reader is None and not self._open(timeout_s):
            return None
        assert self._reader is not None
        taken = self._reader.slot.take(timeout_s)
        now = self._clock()
        if taken is None:
            self._look_after(self._reader, now)
            return None
        picture, captured_s = taken
        self._last_s = now
        if not is_black(picture):
            self._bright_s = now
        if now - self._bright_s >= BLACK_S:
            self._trouble = f"{self.name} gives a black picture: is its cover or privacy switch closed?"
            return None
        if self._frozen(picture, now):
            self._trouble = f"{self.name} gives the same picture again and again: opening it anew"
            self._leave()
            return None
        self._trouble = ""
        self._index += 1
        return Frame(picture, captured_s, self._index)

    def _frozen(self, picture: Picture, now: float) -> bool:
        """Whether the picture has not changed for too long, once for each picture that stays."""
        before, self._before = self._before, picture
        if before is None or not np.array_equal(before, picture):
            self._moved_s, self._doubted = now, False
        if self._doubted or now - self._moved_s < FROZEN_S:
            return False
        self._doubted = True
        return True

    def rest(self) -> None:
        """Let the camera go; its light goes out once a blocked driver call has ended."""
        if self._reader is not None:
            self._leave()
            self._trouble = f"opening {self.name}"

    def close(self) -> None:
        """Let the camera go for good."""
        self.rest()
        if self._left is not None:
            self._left[0].join(0.5)

    def _open(self, timeout_s: float) -> bool:
        now = self._clock()
        if now < self._next_try_s:
            self._sleep(min(timeout_s, self._next_try_s - now))
            return False
        if self._left is not None:  # most cameras refuse a second handle, and some drivers break on it
            reader, end_s = self._left
            if now < end_s and not reader.ended.wait(timeout_s):
                return False
            self._left = None
        try:
            camera = self._camera = self._find()
        except VcamError as error:
            self._trouble = str(error)
            self._next_try_s = now + RETRY_S
            return False
        self._started_s = self._last_s = self._bright_s = self._moved_s = now
        self._reader = _Reader(lambda: self._opener(camera.path, self._size, self._fps), self._clock)
        return True

    def _find(self) -> Camera:
        """The camera that was used before, under whatever number it has now; else the one that is wanted."""
        cameras, before = self._cameras(), self._camera
        if before is None:
            return choose_camera(self._wanted, cameras)
        same = [camera for camera in cameras if camera.identity == before.identity]
        alike = [camera for camera in cameras if camera.name == before.name and camera.name != OUR_NAME]
        if not same + alike:
            raise VcamError(f"{before.name} is not there: plug it in again")
        return (same + alike)[0]

    def _look_after(self, reader: _Reader, now: float) -> None:
        """Nothing came: say why, and let go of a camera that will not give anything more."""
        if reader.ended.is_set():
            self._trouble = self._why_ended(reader)
        elif not reader.opened.is_set():
            if now - self._started_s < OPEN_LIMIT_S:
                return
            self._trouble = f"{self.name} does not open (waited {OPEN_LIMIT_S:g} s): unplug it and plug it in"
        elif now - self._last_s < SILENT_S:
            return
        else:
            self._trouble = f"{self.name} gives no pictures"
            if now - self._last_s < GIVE_UP_S:
                return
        self._leave()
        self._next_try_s = now + RETRY_S

    def _leave(self) -> None:
        """Let the reader end by itself: its driver may still be at it."""
        if self._reader is not None:
            self._reader.leave()
            self._left, self._reader = (self._reader, self._clock() + OPEN_LIMIT_S), None

    def _why_ended(self, reader: _Reader) -> str:
        assert self._camera is not None
        if all(camera.identity != self._camera.identity for camera in self._cameras()):
            return f"{self.name} is not there: plug it in again"
        if reader.failure != "open":
            return f"{self.name} stopped giving pictures: trying again"
        if sys.platform == "linux":
            path = str(self._camera.path)
            if not os.access(path, os.R_OK | os.W_OK):
                return f"no permission for {path}: add yourself to the group video, then log in again"
            if users := v4l2.holders(path):
                return f"{self.name} is in use by {', '.join(users)}: close it there"
        return f"{self.name} cannot be opened: does another program use it?"


class Pattern:
    """The test picture at a rate, as FrameSource."""

    name = "test picture"
    trouble = ""

    def __init__(
        self,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._size, self._fps, self._clock, self._sleep = size, fps, clock, sleep
        self._start_s = clock()
        self._index = -1

    def read(self, timeout_s: float) -> Frame | None:
        """The picture of the next beat; beats that are over are left out."""
        now = self._clock()
        due = max(self._index + 1, int((now - self._start_s) * self._fps))
        wait = self._start_s + due / self._fps - now
        if wait > timeout_s:
            self._sleep(timeout_s)
            return None
        if wait > 0:
            self._sleep(wait)
        self._index = due
        return Frame(draw_person(due / self._fps, self._size), self._clock(), due)

    def rest(self) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Nothing to let go of."""


class VideoLoop:
    """A video file (or picture, or folder of pictures) over and over at its own rate, as FrameSource.

    Frames that are late are left out. Raises VcamError if the file cannot be read.
    """

    trouble = ""

    def __init__(
        self, path: Path, clock: Clock = time.perf_counter, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        from vcam import video

        self.name = path.name
        self._clock, self._sleep = clock, sleep
        self._frames = _laps(video.probe(path))
        self._index = -1
        self._next = next(self._frames, None)
        if self._next is None:
            raise VcamError(f"{path}: no picture in it could be decoded; is the file complete?")
        self._start_s = clock()

    def read(self, timeout_s: float) -> Frame | None:
        """The frame that is due, waited for up to timeout_s."""
        now = self._clock()
        if self._next is None:  # the file became unreadable
            self._sleep(timeout_s)
            return None
        if now - self._start_s - self._next[0] > 1.0:
            self._start_s = now - self._next[0]  # far behind (the machine slept): go on from here, do not race
        wait = self._start_s + self._next[0] - now
        if wait > timeout_s:
            self._sleep(timeout_s)
            return None
        if wait > 0:
            self._sleep(wait)
        shown, self._next = self._next, next(self._frames, None)
        while self._next is not None and self._start_s + self._next[0] <= now:
            shown, self._next = self._next, next(self._frames, None)
        self._index += 1
        return Frame(shown[1], self._clock(), self._index)

    def rest(self) -> None:
        """A file may stay open."""

    def close(self) -> None:
        """Close the file."""
        self._next = None
        self._frames.close()


def _laps(media: video.Media) -> Generator[tuple[float, Picture]]:
    """(seconds since the start of the first lap, picture), without end; ends if a lap has no picture."""
    from vcam import video

    note: Callable[[str], None] = video.to_stderr
    lap_s = at_s = 0.0
    while True:
        seen = False
        for picture in video.read(media, note):
            at_s = max(at_s, lap_s + float(picture.time))
            seen = True
            yield at_s, picture.rgb
        if not seen:
            return
        lap_s = at_s = at_s + 1 / float(media.rate)
        note = _silent  # said once is enough


def _silent(text: str) -> None:
    """Note nothing."""
