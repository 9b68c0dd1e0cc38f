"""A face of five marks for the synthetic films, and what finds it again in a picture, whatever an edit did to it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.measure.identity import MarkedFace
from core.measure.motion import Pixels
from tests.support.synthetic_films import FRAMES, Film, moving, texture

WIDTH = 40.0  # pixels of the face
MIDDLE = (130.0, 130.0)  # of the face in the texture; in the films' first picture it is at (30, 30)
MARKS = np.array([(-10, -9), (10, -9), (0, 1), (-8, 11), (8, 11)], np.float32)  # eyes, nose, corners of the mouth
_RADIUS = 3.0  # pixels of a mark
_SIDE = 13  # pixels of the window in which a mark is looked for
_LIKE = 0.65  # correlation of edges; a lower one is no mark


def with_face(picture: Pixels) -> Pixels:
    """The texture with a face: a plain patch with five dark marks."""
    shown = picture.astype(np.float32)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    patch = _disc(np.hypot((x - MIDDLE[0]) / 20, (y - MIDDLE[1]) / 22) * 20, 19.0)
    shown += (np.array([205, 170, 150], np.float32) - shown) * patch[..., None]
    for dx, dy in MARKS:
        mark = _disc(np.hypot(x - MIDDLE[0] - dx, y - MIDDLE[1] - dy), _RADIUS)
        shown += (np.array([60, 40, 40], np.float32) - shown) * mark[..., None]
    return np.asarray(np.rint(shown), np.uint8)


def find_faces(picture: Pixels) -> list[MarkedFace]:
    """Find the face by its marks' edges, to a fraction of a pixel: a face is where there are five of them."""
    likeness = cv2.matchTemplate(_edges(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)), _MARK, cv2.TM_CCOEFF_NORMED)
    found = []
    for _ in MARKS:
        row, column = np.unravel_index(int(likeness.argmax()), likeness.shape)
        if likeness[row, column] < _LIKE:
            return []
        found.append([_peak(likeness[row], int(column)), _peak(likeness[:, column], int(row))])
        likeness = likeness.copy()
        likeness[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6] = -1
    points = np.array(found, np.float32) + _SIDE // 2
    rows = points[points[:, 1].argsort()]
    landmarks = np.concatenate([one[one[:, 0].argsort()] for one in (rows[:2], rows[2:3], rows[3:])])
    middle = landmarks.mean(axis=0) - MARKS.mean(axis=0)
    if np.abs(landmarks - middle - MARKS).max() > WIDTH / 4:
        return []  # five marks that are no face
    return [MarkedFace(np.asarray(middle, np.float32), WIDTH, np.asarray(landmarks, np.float32))]


def _disc(distance: NDArray[Any], radius: float) -> NDArray[np.float32]:
    return np.asarray(np.clip(radius + 0.5 - distance, 0, 1), np.float32)


def _edges(grey: NDArray[Any]) -> NDArray[np.float32]:
    plane = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    return np.asarray(np.hypot(*(cv2.Sobel(plane, cv2.CV_32F, x, 1 - x) for x in (1, 0))), np.float32)


def _peak(line: NDArray[Any], at: int) -> float:
    """The place of a line's highest value between its neighbours, by the parabola through the three."""
    if not 0 < at < len(line) - 1:
        return float(at)
    before, here, after = (float(line[at + step]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    return at + (0.5 * (before - after) / bend if bend < 0 else 0.0)


def _mark() -> NDArray[np.float32]:
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32) - _SIDE // 2
    return _edges(255 * (1 - _disc(np.hypot(x, y), _RADIUS)))


_MARK = _mark()
SOURCE = with_face(texture())
EDITED = np.asarray(235 - SOURCE // 2, np.uint8)  # a paler negative


def source() -> Film:
    """The film of the texture with a face."""
    return moving(SOURCE)


def edit() -> Film:
    """A clean edit of it, which moves with its source."""
    return moving(EDITED)


def moved_face() -> Film:
    """An edit in which the face lies 4 pixels lower than in the source; what is around it gives way."""
    y, x = np.mgrid[: EDITED.shape[0], : EDITED.shape[1]].astype(np.float32)
    away = np.hypot(x - MIDDLE[0], y - MIDDLE[1])
    above = np.asarray(y - 4 * np.clip((44 - away) / 20, 0, 1), np.float32)
    return moving(np.asarray(cv2.remap(EDITED, x, above, cv2.INTER_CUBIC), np.uint8))


def lost_face() -> Film:
    """An edit whose last quarter has no face: its marks are gone, the plain patch is there."""
    y, x = np.mgrid[: EDITED.shape[0], : EDITED.shape[1]].astype(np.float32)
    patch = np.hypot((x - MIDDLE[0]) / 20, (y - MIDDLE[1]) / 22) < 0.9
    plain = np.where(patch[..., None], np.array([133, 150, 160], np.uint8), EDITED)
    last = FRAMES // 4
    return [*edit()[:-last], *moving(np.asarray(plain, np.uint8))[-last:]]
