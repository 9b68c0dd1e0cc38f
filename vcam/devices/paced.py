"""A source of pictures that the program makes itself, at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from vcam.frames import Frame, Picture


class PacedSource:
    """A FrameSource that makes each picture when it is due; it never has any trouble."""

    trouble = ""

    def __init__(
        self,
        name: str,
        make: Callable[[int], Picture],
        fps: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        *,
        imagined: bool = False,
    ) -> None:
        """Make pictures by `make`, which gets the beat, counted from 0. imagined: see Frame."""
        self.name, self._make, self._fps, self._clock, self._sleep = name, make, fps, clock, sleep
        self._imagined = imagined
        self.interval_s = 1 / fps
        self._start_s = clock()
        self._index = -1

    def read(self, timeout_s: float) -> Frame | None:
        """Return the picture of the next beat; beats that are over are left out."""
        now = self._clock()
        due = max(self._index + 1, int((now - self._start_s) * self._fps))
        wait = self._start_s + due / self._fps - now
        if wait > timeout_s:
            self._sleep(timeout_s)
            return None
        if wait > 0:
            self._sleep(wait)
        self._index = due
        return Frame(self._make(due), self._clock(), due, imagined=self._imagined)

    def rest(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
