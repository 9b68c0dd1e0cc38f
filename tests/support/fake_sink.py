"""The one double of a sink: it remembers what was published, and fails when the test says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.support.pictures import SIZE
from vcam.errors import VcamError
from vcam.frames import Picture

Colour = tuple[int, int, int]


class Sent(NamedTuple):
    """One picture that was published."""

    at_s: float  # by the sink's clock
    tick: int
    colour: Colour  # of one point of it


def near(one: Colour, other: Colour) -> bool:
    """Whether they are the same, but for what is lost when a picture is scaled."""
    return all(abs(a - b) < 9 for a, b in zip(one, other, strict=True))


class FakeSink:
    """Remembers each picture's time, tick and colour, and the last picture itself.

    point: x and y of the colour that is kept, the middle's unless given. at_send: called with the number of each
    picture after it was taken: it may raise, or move the clock. trouble: why every picture is refused now. incomplete:
    what is said at the end of a recording that is not whole.
    """

    name = "fake sink"

    def __init__(
        self,
        size: tuple[int, int] = SIZE,
        clock: Callable[[], float] = time.perf_counter,
        point: tuple[int, int] | None = None,
        at_send: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.size, self._clock, self._at_send = size, clock, at_send
        self._point = point or (size[0] // 2, size[1] // 2)
        self.sent: list[Sent] = []
        self.last: Picture = np.zeros((size[1], size[0], 3), np.uint8)
        self.trouble, self.incomplete, self.closed = "", "", False

    def send(self, picture: Picture, tick: int) -> None:
        assert picture.shape == (self.size[1], self.size[0], 3)
        red, green, blue = (int(value) for value in picture[self._point[1], self._point[0]])
        self.last = picture
        self.sent.append(Sent(self._clock(), tick, (red, green, blue)))
        self._at_send(len(self.sent) - 1)
        if self.trouble:
            raise VcamError(self.trouble)

    def close(self) -> None:
        self.closed = True
        if self.incomplete:
            raise VcamError(self.incomplete)

    @property
    def colour(self) -> Colour:
        """What was published last; black before the first picture."""
        return self.sent[-1].colour if self.sent else (0, 0, 0)

    def times(self, colour: Colour) -> int:
        """How many pictures of about this colour were published."""
        return sum(near(one.colour, colour) for one in self.sent)
