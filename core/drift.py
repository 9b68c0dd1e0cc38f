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
SETTLED = 6  # looks at a scene until the bank is full of it
FIRST = 18  # looks that tell what the stream is like
SHARE = 1 / FIRST  # of a new look in what it is like lately
STAYS = 12  # looks in a row over the limits that are a drift
LIMITS = np.array([np.log(1.35), np.log(1.35), 16.0, 16.0, 16.0])  # of the traits' changes
ALIKE = LIMITS / 2  # within these of each other sources are of one scene
SCENES = 16  # that are remembered


def source_traits(source: Pixels) -> Traits:
    """Return what a source is like by itself, float64 [5]: fine contrast and contrast (logarithms), mean colours."""
    fine, wide, colours = _measured(source)
    return np.array([np.log(fine), np.log(wide), *colours])


def traits(source: Pixels, output: Pixels) -> Traits:
    """Return what a translation is like beside its source, float64 [5].

    Its fine contrast (mean change from pixel to pixel) and its contrast (standard deviation), both as the logarithm of
    the ratio to the source's, and the three differences of the mean colours, grey levels.
    """
    return source_traits(output) - source_traits(source)


def _measured(picture: Pixels) -> tuple[float, float, Traits]:
    rows = picture[::2].astype(np.int16)
    return float(np.abs(np.diff(rows, axis=1)).mean()) + 0.5, float(rows.std()) + 1, rows.mean((0, 1))


class Scene(NamedTuple):
    """What a stream was like at first, and is like lately, where its source looks like this.

    source: the traits of the source at the first look. looks: how many there were. first: the mean of the first looks
    after it had settled, None before there is any; lately: the running mean. over: for how many looks in a row the two
    were too far apart.
    """

    source: Traits
    looks: int = 0
    first: Traits | None = None
    lately: Traits | None = None
    over: int = 0

    def after(self, now: Traits) -> Scene:
        """Return the scene after another look."""
        later, count = self._replace(looks=self.looks + 1), self.looks - SETTLED
        if count < 0:
            return later
        if self.first is None or self.lately is None:
            return later._replace(first=now, lately=now)
        if count < FIRST:
            mean = self.first + (now - self.first) / (count + 1)
            return later._replace(first=mean, lately=mean)
        lately = self.lately + SHARE * (now - self.lately)
        apart = bool((np.abs(lately - self.first) > LIMITS).any())
        return later._replace(lately=lately, over=self.over + 1 if apart else 0)


class DriftWatch(NamedTuple):
    """What a stream is like in each scene; new from the start, a change of look, or a refresh.

    pictures: how many there were. scenes: by how their sources look, the last seen last. A style may do another thing
    to a bright room than to a dark one, so only pictures of sources that are alike are compared.
    """

    pictures: int = 0
    scenes: tuple[Scene, ...] = ()

    def after(self, source: Pixels, output: Pixels) -> DriftWatch:
        """Return the watch after another picture."""
        later = self._replace(pictures=self.pictures + 1)
        if self.pictures % EVERY:
            return later
        own = source_traits(source)
        far = [float((np.abs(own - scene.source) / ALIKE).max()) for scene in self.scenes]
        at = far.index(min(far)) if far and min(far) <= 1 else None
        scene = Scene(own) if at is None else self.scenes[at]
        others = tuple(one for number, one in enumerate(self.scenes) if number != at)
        return later._replace(scenes=(*others, scene.after(traits(source, output)))[-SCENES:])

    @property
    def drifted(self) -> bool:
        """Whether the stream has drifted in the scene that was seen last."""
        return bool(self.scenes) and self.scenes[-1].over >= STAYS
