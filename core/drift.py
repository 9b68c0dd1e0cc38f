"""Sees a stream drift: its translations grow soft, pale or gaudy over minutes, while the source does not.

What a bank holds comes of what it held before, so that an error may feed itself. A picture's own fault is nothing that
this sees; a slow one that stays is. Nor is a change of the source one, though a style makes something else of the dark
than of the light: translations are compared with those of like pictures of the source alone (`Scene`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # RGB [height, width, 3]
Traits = NDArray[np.float64]  # [5], see `traits`

EVERY = 5  # pictures from one look to the next: what comes slowly needs no more
SETTLED = 6  # looks until a stream's bank is full and its prompt blended in
FIRST = 18  # looks that tell what a scene's translation is like
SHARE = 1 / FIRST  # of a new look in what it is like lately
STAYS = 12  # looks in a row over the limits that are a drift
SCENES = 32  # that are remembered, those seen last
LIMITS = np.array([np.log(1.35), np.log(1.35), 16.0, 16.0, 16.0])  # of the changes of a translation's traits
ALIKE = np.array([np.log(1.12), np.log(1.12), 6.0, 6.0, 6.0])  # how far a source's are apart at most in one scene


def traits(picture: Pixels) -> Traits:
    """Return what a picture is like, float64 [5].

    The logarithms of its fine contrast (mean change from pixel to pixel) and of its contrast (standard deviation), and
    the three means of its colours, grey levels.
    """
    levels = picture[::2].astype(np.int16)
    fine = np.log(np.abs(np.diff(levels, axis=1)).mean() + 0.5)
    return np.array([fine, np.log(levels.std() + 1), *levels.mean((0, 1))])


class Scene(NamedTuple):
    """Pictures of a source that are alike, and what their translations are like beside them.

    source: the traits of the first of them. It stays: a mean would follow a light that goes out slowly. looks: how
    many there were. first: the mean of the first looks' differences between a translation's traits and its source's;
    lately: the running mean.
    """

    source: Traits
    looks: int
    first: Traits
    lately: Traits

    def distance(self, source: Traits) -> float:
        """Return how far a source's picture is from this scene; from 1 on it is another's."""
        return float((np.abs(source - self.source) / ALIKE).max())

    def after(self, now: Traits) -> Scene:
        """Return it after another look at one of its translations."""
        if self.looks < FIRST:
            mean = self.first + (now - self.first) / (self.looks + 1)
            return self._replace(looks=self.looks + 1, first=mean, lately=mean)
        return self._replace(looks=self.looks + 1, lately=self.lately + SHARE * (now - self.lately))

    @property
    def apart(self) -> bool:
        """Whether its translations are not lately what they were at first."""
        return bool((np.abs(self.lately - self.first) > LIMITS).any())


class DriftWatch(NamedTuple):
    """What a stream's scenes were like at first, and are like lately.

    It is new from the start, a change of look, or a refresh on. pictures: how many there were. scenes: those seen last,
    the latest first. over: for how many looks in a row a scene's translations were not what they were; one that is not
    known yet tells nothing.
    """

    pictures: int = 0
    scenes: tuple[Scene, ...] = ()
    over: int = 0

    def after(self, source: Pixels, output: Pixels) -> DriftWatch:
        """Return the watch after another picture and its translation."""
        looks, rest = divmod(self.pictures, EVERY)
        later = self._replace(pictures=self.pictures + 1)
        if rest or looks < SETTLED:
            return later
        seen = traits(source)
        nearest = min(self.scenes, key=lambda scene: scene.distance(seen), default=None)
        if nearest is None or nearest.distance(seen) >= 1:
            nearest = None
        others = tuple(scene for scene in self.scenes if scene is not nearest)
        now = traits(output) - seen
        scene = (Scene(seen, 0, now, now) if nearest is None else nearest).after(now)
        over = self.over if scene.looks <= FIRST else self.over + 1 if scene.apart else 0
        return later._replace(scenes=(scene, *others)[:SCENES], over=over)

    @property
    def drifted(self) -> bool:
        """Whether the stream has drifted."""
        return self.over >= STAYS
