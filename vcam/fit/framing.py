"""Framing: which part of the camera's picture is shown, so that head and shoulders stay in it, without a jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from core.settings import Framing
from vcam.fit.seeing import Face, FaceDetector, WhenThere
from vcam.frames import FILLED, Focus, Picture, Shot

LOOK_S = 0.2  # between two looks for the face
GONE_S = 4.0  # a face that was not seen for so long has left: all of the picture is shown again
_HEAD = 3.0  # heights of the face that are shown
_SIDES = 2.6  # widths of the face that are shown at least
_ABOVE = 0.07  # of the part's height: so much the face is above its middle
_FOREHEAD = 0.7  # heights of the face from its middle to the hair
_STILL = 0.08  # of the part's height: the face may move so far before the picture follows
_SAME = 1.2  # ... and become so much larger or smaller
_PACE = 3.0  # per second: about 1.5 s from one place to another
_LOYAL = 1.5  # another face must be so much larger than the one that is followed
_REST = 5e-4  # shares of the picture, and of it per second: a third of a pixel is there


@dataclass(frozen=True)
class _Path:
    """A way to a place. now: x, y, and the logarithm of the height; speed: of these, per second; goal: where to."""

    now: tuple[float, float, float]
    speed: tuple[float, float, float]
    goal: tuple[float, float, float]

    def after(self, seconds: float) -> _Path:
        """Return the path so much later: a critically damped spring, which neither jumps nor overshoots."""
        now, speed = [], []
        for at, fast, goal in zip(self.now, self.speed, self.goal, strict=True):
            away, fading = at - goal, math.exp(-_PACE * seconds)
            push = fast + _PACE * away
            moved, left = (away + push * seconds) * fading, (fast - _PACE * push * seconds) * fading
            there = abs(moved) < _REST and abs(left) < _REST
            now.append(goal if there else goal + moved)
            speed.append(0.0 if there else left)
        return replace(self, now=(now[0], now[1], now[2]), speed=(speed[0], speed[1], speed[2]))


class Framer:
    """What of each frame is shown. One thread asks, for one frame after the other.

    detector: finds faces once it is there. aspect: width over height of what is published. trouble: why no face is
    followed though that is wanted, "" while all is well.
    """

    def __init__(self, detector: WhenThere[FaceDetector], aspect: float) -> None:
        self._detector, self._aspect = detector, aspect
        self.trouble = ""
        self._path: _Path | None = None  # None: the largest part, and no face was seen
        self._face: Face | None = None  # the one that is followed
        self._looked_s = self._seen_s = -math.inf
        self._before_s: float | None = None

    def shot(self, picture: Picture, captured_s: float, framing: Framing) -> Shot:
        """Return which part of the picture this framing shows; captured_s: its time."""
        if framing is not Framing.FACE:
            self._forget()
            self.trouble = ""
            return FILLED if framing is Framing.FILL else Shot(whole=True)
        detector = self._detector.get()
        self.trouble = self._detector.trouble
        if detector is None:
            self._forget()
            return FILLED
        return self._following(picture, captured_s, detector)

    def _forget(self) -> None:
        self._path = self._face = self._before_s = None
        self._looked_s = self._seen_s = -math.inf

    def _following(self, picture: Picture, now_s: float, detector: FaceDetector) -> Shot:
        first = self._before_s is None
        passed_s = 0.0 if self._before_s is None else min(0.2, max(0.0, now_s - self._before_s))
        self._before_s = now_s
        rows, columns = picture.shape[:2]
        shape = columns / rows
        if not 0 <= now_s - self._looked_s < LOOK_S:
            self._looked_s = now_s
            self._look(detector.faces(picture), now_s, shape, first)
        if self._path is None:
            return FILLED
        self._path = self._path.after(passed_s)
        x, y, size = self._path.now
        return Shot(focus=Focus(x, y, math.exp(size)))

    def _look(self, faces: list[Face], now_s: float, shape: float, first: bool) -> None:
        """Take note of where the face is now; shape: width over height of the picture."""
        face = max(faces, key=self._weight, default=None)
        if face is None:
            if now_s - self._seen_s > GONE_S and self._face is not None and self._path is not None:
                self._face = None
                self._path = replace(self._path, goal=_all_of(shape, self._aspect))
            return
        self._seen_s, self._face = now_s, face
        goal = _around(face, shape, self._aspect)
        if self._path is None:
            here = goal if first else _all_of(shape, self._aspect)
            self._path = _Path(here, (0.0, 0.0, 0.0), goal)
        elif _is_away(self._path.goal, goal, shape):
            self._path = replace(self._path, goal=goal)

    def _weight(self, face: Face) -> float:
        before = self._face
        near = before is not None and math.hypot(face.x - before.x, face.y - before.y) < before.height
        return face.height * (_LOYAL if near else 1.0)


def _around(face: Face, shape: float, aspect: float) -> tuple[float, float, float]:
    """Return the middle and the logarithm of the height of the part that shows head and shoulders."""
    height = min(_most(shape, aspect), max(_HEAD * face.height, _SIDES * face.width * shape / aspect))
    half_wide = height * aspect / shape / 2
    x = min(max(face.x, half_wide), 1 - half_wide)
    forehead = face.y - _FOREHEAD * face.height  # stays in the picture, also where not all of the face fits
    y = min(max(min(face.y + _ABOVE * height, forehead + height / 2), height / 2), 1 - height / 2)
    return x, y, math.log(height)


def _most(shape: float, aspect: float) -> float:
    return min(1.0, shape / aspect)


def _all_of(shape: float, aspect: float) -> tuple[float, float, float]:
    most = _most(shape, aspect)
    return 0.5, most / 2, math.log(most)


def _is_away(old: tuple[float, float, float], new: tuple[float, float, float], shape: float) -> bool:
    still = _STILL * math.exp(old[2])
    moved = math.hypot((new[0] - old[0]) * shape, new[1] - old[1]) > still
    return moved or abs(new[2] - old[2]) > math.log(_SAME)
