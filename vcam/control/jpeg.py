"""Pictures as JPEG, for pages and programs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import cv2

from vcam.frames import Picture


def jpeg(picture: Picture) -> bytes:
    """Return the picture as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data.tobytes()


class NewestJpeg:
    """The newest picture as JPEG, encoded once however many look. newest: gives the picture, None where there is none.

    Thread-safe.
    """

    def __init__(self, newest: Callable[[], Picture | None]) -> None:
        self._newest = newest
        self._lock = threading.Lock()
        self._last: tuple[Picture, bytes] | None = None

    def get(self) -> bytes | None:
        """Return the JPEG of the newest picture, None where there is none."""
        with self._lock:
            picture = self._newest()
            if picture is None:
                return None
            if self._last is None or self._last[0] is not picture:
                self._last = picture, jpeg(picture)
            return self._last[1]
