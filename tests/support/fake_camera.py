"""The one double of a camera: a source of frames that does what the test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.support.pictures import SIZE, plain
from vcam.frames import Frame, Picture


class FakeCamera:
    """Sees the same picture always, or the frames that it is given, until the test gives it trouble.

    pause_s: between two frames. frames: to come in this order; at_end is called at the end of them and at each rest.
    """

    def __init__(
        self,
        name: str = "fake camera",
        picture: Picture | None = None,
        pause_s: float = 0.01,
        frames: Iterable[Frame] | None = None,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self.name, self.picture, self.pause_s = name, plain(SIZE) if picture is None else picture, pause_s
        self._frames, self._at_end = None if frames is None else iter(frames), at_end
        self.trouble, self.raises, self.interval_s = "", False, 0.0
        self.index = self.rests = self.closed = 0

    def read(self, timeout_s: float) -> Frame | None:
        time.sleep(self.pause_s)
        if self.raises:
            self.raises = False
            raise ZeroDivisionError("a driver's nonsense")
        if self.trouble:
            return None
        self.index += 1
        if self._frames is None:
            return Frame(self.picture.copy(), time.perf_counter(), self.index - 1)
        frame = next(self._frames, None)
        if frame is None:
            self._at_end()
        return frame

    def rest(self) -> None:
        self.rests += 1
        time.sleep(self.pause_s)
        self._at_end()

    def close(self) -> None:
        self.closed += 1
