"""Takes the flicker out of translations along the motion of their sources, after the bank has done its part.

A style draws lines that no camera saw, and draws them a little differently with every picture's noise. The source says
where each of its points was in the picture before; there the two translations are mixed. Where that cannot be seen
(what was hidden, what changes) the translation is shown as it is, so that nothing leaves a trail.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # RGB [height, width, 3]
Floats = NDArray[np.float32]

FLOW_SIDE = 256  # pixels of the shorter side at which motion is looked for; more takes long and finds no more
QUIET = 2.0  # grey levels by which a sensor's noise and interpolation change the mean of some pixels
UNSEEN = 8.0  # grey levels over that, from which on a point is not the one that was there before
CRISP_STILL = 0.15  # of the fine contrast that mixing costs, what is given back in the long run where nothing moves
CRISP_MOVING = 0.65  # and where something does: between pixels each mixing interpolates, and softens what it carries on
MOVES = 0.3  # pixels from one picture to the next, from which on a point moves in full
EXPLAINED = 0.25, 0.4  # of what two pictures differ by, what a motion takes away: one found in noise, and one in full
UNTOLD = 0.2  # grey levels that are no difference
SOFTENS = 0.15  # of what mixing costs in the long run, what each picture adds: the first ones have lost little yet


class SourceMotion(NamedTuple):
    """How a source has moved.

    x, y: float32 [height, width], where each of its pixels was in the picture before. alike: 0..1, float32 [height,
    width], whether it was seen there. moves: 0..1, float32 [height, width], whether it has moved, as far as that can be
    told from noise.
    """

    x: Floats
    y: Floats
    alike: Floats
    moves: Floats


def source_motion(source: Pixels, before: Pixels) -> SourceMotion:
    """Return the motion from `before` to `source`, by OpenCV's dense inverse search (Kroeger et al., ECCV 2016)."""
    height, width = source.shape[:2]
    scale = min(1.0, FLOW_SIDE / min(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    grey = [
        cv2.resize(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for one in (source, before)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = search.calc(grey[0], grey[1], np.zeros((size[1], size[0], 2), np.float32))
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    right, down = flow[..., 0] * (width / size[0]), flow[..., 1] * (height / size[1])
    x, y = right + columns, down + rows[:, None]
    was = np.asarray(cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    soft = np.asarray(cv2.blur(source, (3, 3)), np.uint8)
    along, standing = _apart(soft, was), _apart(soft, before)
    # on a plain wall the search follows the sensor's noise, of which it can explain a quarter
    noise, full = EXPLAINED
    share = (standing - along) / (standing + UNTOLD)
    explained = np.clip((share - noise) / (full - noise), 0, 1, dtype=np.float32)
    moves = explained * np.minimum(cv2.magnitude(right, down) / MOVES, 1, dtype=np.float32)
    return SourceMotion(x, y, np.clip(1 - (along - QUIET) / UNSEEN, 0, 1, dtype=np.float32), moves)


def _apart(soft: Pixels, other: Pixels) -> Floats:
    """Return the grey levels, float32 [height, width], by which another picture differs from a blurred one."""
    apart = cv2.absdiff(soft, cv2.blur(other, (3, 3)))
    mean = cv2.transform(apart.astype(np.float32), np.full((1, 3), 1 / 3, np.float32))
    return np.asarray(cv2.blur(mean, (5, 5)), np.float32)


def lost(mixes: int) -> float:
    """Return how much of what mixing costs in the long run a translation has lost that is mixed after so many others.

    0 is nothing, 1 all of it.
    """
    return 1 - (1 - SOFTENS) ** (mixes + 1)


def mixed(
    output: Pixels, shown: Pixels, motion: SourceMotion, strength: float, lost: float = 1.0
) -> tuple[Pixels, Pixels]:
    """Return a translation mixed with the one before it along the motion: (to mix the next one with, to show).

    strength: the share of the one before where its point is seen, 0..1. What is shown has the fine contrast back that
    mixing costs (lost: how much of it has gone by now, 0..1), and more of it where something moves; what the next one
    is mixed with has not, or it would grow with every picture.
    """
    was = cv2.remap(shown, motion.x, motion.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    share = strength * motion.alike
    kept = np.asarray(cv2.blendLinear(was, output, share, 1 - share), np.uint8)
    soft = cv2.GaussianBlur(kept, (0, 0), 1.0)
    sharp = np.asarray(cv2.addWeighted(kept, 1 + CRISP_MOVING, soft, -CRISP_MOVING, 0), np.uint8)
    still = CRISP_STILL / CRISP_MOVING
    back = lost * share * (still + (1 - still) * motion.moves)
    return kept, np.asarray(cv2.blendLinear(sharp, kept, back, 1 - back), np.uint8)


class Steadying(NamedTuple):
    """What of a stream its next translation is steadied by.

    sources: the pictures whose translations are still to come, oldest first. before: the source of the last
    translation, and kept: that translation as it was mixed; None before the first. hold: how many translations are to
    be shown as they are, because the look changes. mixes: how many in a row were mixed until now.
    """

    sources: tuple[Pixels, ...] = ()
    before: Pixels | None = None
    kept: Pixels | None = None
    hold: int = 0
    mixes: int = 0

    def given(self, picture: Pixels, delay: int) -> Steadying:
        """Return it after another picture was given, `delay` pictures before its translation."""
        return self._replace(sources=(*self.sources, picture)[-delay - 1 :])

    def held(self, pictures: int) -> Steadying:
        """Return it where that many further translations are shown as they are."""
        return self._replace(hold=max(self.hold, pictures))

    def motion(self, strength: float) -> SourceMotion | None:
        """Return the motion by which the next translation is steadied; None where it is shown as it is."""
        if strength == 0 or self.hold or self.before is None or not self.sources:
            return None
        return source_motion(self.sources[0], self.before)

    def after(self, output: Pixels, motion: SourceMotion | None, strength: float) -> tuple[Pixels, Steadying]:
        """Return what is shown of a translation, and what the next one is steadied by."""
        if not output.any():  # black all over is what NaN becomes
            return output, Steadying(self.sources)
        later = self._replace(before=self.sources[0], hold=max(self.hold - 1, 0))
        if motion is None or self.kept is None:
            return output, later._replace(kept=output.copy(), mixes=0)
        kept, shown = mixed(output, self.kept, motion, strength, lost(self.mixes))
        return shown, later._replace(kept=kept, mixes=self.mixes + 1)
