"""A video file, a picture or a folder of pictures, over and over, as a source of frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from vcam.errors import DeviceError
from vcam.frames import Frame, Picture

if TYPE_CHECKING:
    from vcam import video

Clock = Callable[[], float]


class VideoLoop:
    """A video file (or picture, or folder of pictures) over and over at its own rate, as FrameSource.

    Frames that are late are left out. Raises DeviceError if the file cannot be read.
    """

    def __init__(
        self, path: Path, clock: Clock = time.perf_counter, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        from vcam import video

        self.name, self.trouble = path.name, ""
        self._clock, self._sleep = clock, sleep
        self._frames = _laps(video.probe(path))
        self._index = -1
        self._next = next(self._frames, None)
        if self._next is None:
            raise DeviceError(f"{path}: no picture in it could be decoded; is the file complete?")
        self._start_s, self._shown_s = clock(), 0.0

    @property
    def interval_s(self) -> float:
        """Return the seconds between the frame that is shown and the next."""
        return 0.0 if self._next is None else max(0.0, self._next[0] - self._shown_s)

    def read(self, timeout_s: float) -> Frame | None:
        """Return the frame that is due, waited for up to timeout_s."""
        now = self._clock()
        if self._next is None:  # the file became unreadable
            self.trouble = f"{self.name} cannot be read any more: is the file still there?"
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
        self._shown_s = shown[0]
        return Frame(shown[1], self._clock(), self._index)

    def rest(self) -> None:
        """Do nothing: a file may stay open."""

    def close(self) -> None:
        """Close the file."""
        self._next = None
        self._frames.close()


def _laps(media: video.Media) -> Generator[tuple[float, Picture]]:
    """Yield (seconds since the start of the first lap, picture), without end; end if a lap has no picture."""
    from vcam import video

    note: Callable[[str], None] = video.to_stderr
    lap_s = at_s = shown_s = 0.0
    while True:
        seen = False
        for picture in video.read(media, note, live=True):
            at_s = max(at_s, lap_s + float(picture.time))
            shown_s = float(picture.duration)
            seen = True
            yield at_s, picture.rgb
        if not seen:
            return
        lap_s = at_s = at_s + (shown_s or 1 / float(media.rate))
        note = _silent  # said once is enough


def _silent(text: str) -> None:
    """Note nothing."""
