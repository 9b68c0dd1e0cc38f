"""How many pictures an output is behind its source: a stream batch of n steps shows picture i - (n - 1).

An edit may change every colour, but what moves still moves, and its edges stay more or less where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from core.measure.motion import Floats, Pixels

LATEST, EARLIEST = 32, -8  # pictures behind and ahead that are told
LONG_SIDE = 96  # pixels at which pictures are compared
FEWEST = 12  # pairs of pictures that a delay must leave
AGREEMENT = 0.15  # of 1: a lower correlation tells nothing
STILL = 1e-3  # grey levels squared: edges that change less do not move
MARGIN = 0.02  # of 1: by how much a delay must agree better than none does


@dataclass(frozen=True)
class Delay:
    """How many pictures the output is behind (negative: ahead), and how sure that is.

    agreement: correlation of moving edges at that delay, -1 to 1; at_none: at no delay. moving: whether the source's
    edges move at all.
    """

    frames: int
    agreement: float
    at_none: float
    moving: bool = True

    @property
    def certain(self) -> bool:
        """Return whether there is enough to tell a delay by: something moves, and the output shows it."""
        return self.agreement >= AGREEMENT and (self.frames == 0 or self.agreement - self.at_none >= MARGIN)

    @property
    def beyond(self) -> bool:
        """Return whether the delay is further than those that are told: it may be any from here on."""
        return not EARLIEST <= self.frames <= LATEST


def estimate_delay(source: Iterable[Pixels], output: Iterable[Pixels]) -> Delay | None:
    """Estimate the delay of `output`, None for films too short to tell.

    Both are read to their ends and kept as small pictures: give a few hundred at most. Of each picture the magnitude
    of the lightness's gradient is taken (which no exchange of colours hides), less its mean over the film, so that
    what stands still has no say. The delay is that of the highest mean correlation of such maps, picture by picture.
    """
    ours, theirs = (_edges(pictures) for pictures in (source, output))
    if min(len(ours), len(theirs)) < FEWEST:
        return None
    agreements: dict[int, float] = {}
    for delay in range(EARLIEST - 1, LATEST + 2):  # one further each way: who agrees best there is further still
        first, second = (ours, theirs[delay:]) if delay >= 0 else (ours[-delay:], theirs)
        count = min(len(first), len(second))
        if count >= max(FEWEST, min(len(ours), len(theirs)) // 2):
            agreements[delay] = _correlation(first[:count], second[:count])
    best = max(agreements, key=lambda delay: (round(agreements[delay], 4), -abs(delay)))
    return Delay(best, agreements[best], agreements.get(0, 0.0), bool(ours.var(axis=0).mean() > STILL))


def _edges(pictures: Iterable[Pixels]) -> Floats:
    """Return the edges of each picture, [pictures, pixels]."""
    rows: list[Floats] = []
    size = (0, 0)
    for picture in pictures:
        if not rows:  # all in the first one's size, whatever a film does later
            scale = LONG_SIDE / max(picture.shape[:2])
            size = (max(8, round(picture.shape[1] * scale)), max(8, round(picture.shape[0] * scale)))
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32), (0, 0), 1.0)
        dx, dy = (cv2.Sobel(small, cv2.CV_32F, x, 1 - x, ksize=3) for x in (1, 0))
        rows.append(np.hypot(dx, dy, dtype=np.float32).ravel())
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 0), np.float32)


def _correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    if first.shape[1] != second.shape[1]:  # of one shape but for rounding: the source's size is taken by the caller
        return 0.0
    a, b = (rows - rows.mean(axis=0) for rows in (first, second))
    both = float((a * b).sum(dtype=np.float64))
    lengths = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    return both / lengths if lengths > STILL * a.size else 0.0
