"""Sees a stream drift: its translations grow soft, pale or gaudy over minutes, while the source does not.

What a bank holds comes of what it held before, so that an error may feed itself. A picture's own fault is nothing that
this sees; a slow one that stays is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # RGB [height, width, 3]
Traits = NDArray[np.float64]  # [5], see `traits`

EVERY = 5  # pictures from one look to the next: what comes slowly needs no more
SETTLED = 6  # looks until a stream's bank is full and its prompt blended in
FIRST = 18  # looks that tell what the stream is like
SHARE = 1 / FIRST  # of a new look in what it is like lately
STAYS = 12  # looks in a row over the limits that are a drift
LIMITS = np.array([np.log(1.35), np.log(1.35), 16.0, 16.0, 16.0])  # of the traits' changes


def traits(source: Pixels, output: Pixels) -> Traits:
    """Return what a translation is like beside its source, float64 [5].

    Its fine contrast (mean change from pixel to pixel) and its contrast (standard deviation), both as the logarithm of
    the ratio to the source's, and the three differences of the mean colours, grey levels.
    """
    ours, theirs = (picture[::2].astype(np.int16) for picture in (output, source))
    fine = [np.abs(np.diff(picture, axis=1)).mean() + 0.5 for picture in (ours, theirs)]
    wide = [picture.std() + 1 for picture in (ours, theirs)]
    ratios = [np.log(one / other) for one, other in (fine, wide)]
    return np.array([*ratios, *(ours.mean((0, 1)) - theirs.mean((0, 1)))])


class DriftWatch(NamedTuple):
    """What a stream was like at first, and is like lately; new from the start, a change of look, or a refresh.

    pictures: how many there were. first: the mean of its first looks, None before there is any; lately: the running
    mean. over: for how many looks in a row the two were too far apart.
    """

    pictures: int = 0
    first: Traits | None = None
    lately: Traits | None = None
    over: int = 0

    def after(self, source: Pixels, output: Pixels) -> DriftWatch:
        """Return the watch after another picture."""
        looks, rest = divmod(self.pictures, EVERY)
        later = self._replace(pictures=self.pictures + 1)
        if rest or looks < SETTLED:
            return later
        now, count = traits(source, output), looks - SETTLED
        if self.first is None or self.lately is None:
            return later._replace(first=now, lately=now)
        if count < FIRST:
            mean = self.first + (now - self.first) / (count + 1)
            return later._replace(first=mean, lately=mean)
        lately = self.lately + SHARE * (now - self.lately)
        apart = bool((np.abs(lately - self.first) > LIMITS).any())
        return later._replace(lately=lately, over=self.over + 1 if apart else 0)

    @property
    def drifted(self) -> bool:
        """Whether the stream has drifted."""
        return self.over >= STAYS
