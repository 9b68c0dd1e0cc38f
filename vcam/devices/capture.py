"""Opens and reads a capture in a thread of its own, because drivers and networks block as long as they like."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

# Read once by OpenCV: a silent camera shall block for 2 s, not 10; MSMF's hardware transforms may hang for minutes.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")

import cv2
import numpy as np

from vcam.errors import VcamError
from vcam.frames import LatestSlot, Picture

TIMEOUT_S = 0.5  # a read that fails this late was waited for in vain

Clock = Callable[[], float]


class DeviceCapture(Protocol):
    """What CaptureThread needs of cv2.VideoCapture."""

    def isOpened(self) -> bool:
        """Return whether the camera is there."""

    def read(self) -> tuple[bool, Any]:
        """Return whether there is a picture, and the picture (BGR or grey); blocks."""

    def release(self) -> None:
        """Let it go."""


def open_capture(path: str | int, size: tuple[int, int], fps: float) -> DeviceCapture:
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


class CaptureThread(threading.Thread):
    """Opens and reads one capture until told to leave: what blocks, blocks here, and can be left behind.

    slot: the newest picture (RGB) and when it came. failure: why it ended: "open", "read" or a reason in words.
    """

    def __init__(self, opener: Callable[[], DeviceCapture], clock: Clock) -> None:
        super().__init__(name="vcam-camera", daemon=True)
        self.slot: LatestSlot[tuple[Picture, float]] = LatestSlot()
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.failure = ""
        self._leave = threading.Event()
        self._opener, self._clock = opener, clock
        self.start()

    def leave(self) -> None:
        """Have it end after the call that it is in."""
        self._leave.set()

    def run(self) -> None:
        """Open, read, release."""
        try:
            capture = self._opener()
            try:
                self._read(capture)
            finally:
                capture.release()
        except cv2.error as error:  # a driver's nonsense; reported like a failed read
            self.failure = f"read: {error.err}"
        except VcamError as error:
            self.failure = str(error)
        finally:
            self.ended.set()

    def _read(self, capture: DeviceCapture) -> None:
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


def _rgb(picture: Any) -> Picture:
    code = cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(picture, code), np.uint8)
