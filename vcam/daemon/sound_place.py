"""Where sound belongs in what is published: beside the picture that was captured when it was heard."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import NamedTuple

from vcam.daemon.loops import Shown

STEADY = 31  # pictures whose median says how late pictures are: one that is late moves no sound


class Place(NamedTuple):
    """What turns the time of a sound into beats, as of one beat: seconds of the clock times fps, plus one of the two.

    shown: gives the beat at which the picture of that moment is shown. now: gives the beat at which it was heard.
    heard_from: the beat from which on there is sound without a cut, math.inf where there is none now.
    """

    shown: float
    now: float
    heard_from: float


class SoundPlace:
    """Follows what is published; belongs to the publisher's thread.

    While nothing but the card may be shown (panic, pause) nothing may be heard, and on until a picture is back: what
    was said in front of the card stays unheard for ever.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._shown: deque[float] = deque(maxlen=STEADY)
        self._heard_from: float = -math.inf

    def take(self, now: Shown, at_s: float) -> Place:
        """Return the place as of what is published at this time (s of the clock)."""
        if now.cut:
            self._heard_from = math.inf
        elif self._heard_from == math.inf and not now.card:
            self._heard_from = now.tick
        if now.fresh and now.made is not None:
            self._shown.append(now.tick - now.made.captured_s * self._fps)
        clock = now.tick - at_s * self._fps
        return Place(median(self._shown) if self._shown else clock, clock, self._heard_from)
