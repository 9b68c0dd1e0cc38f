"""Stand-ins for the models that see faces and persons: they find what is painted in a colour of its own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from vcam.fit import Face, Mask
from vcam.frames import Picture

SKIN = (250, 10, 200)


class PaintedFace:
    """A FaceDetector that finds the box of SKIN, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def faces(self, picture: Picture) -> list[Face]:
        self.looks += 1
        rows, columns = np.nonzero(is_skin(picture))
        if not len(rows):
            return []
        high, wide = picture.shape[:2]
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        middle = float(left + right) / 2 / wide, float(top + bottom) / 2 / high
        return [Face(*middle, float(right - left) / wide, float(bottom - top) / high)]


class PaintedPerson:
    """A PersonFinder that finds what is SKIN, at a quarter of the size, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def person(self, picture: Picture) -> Mask:
        self.looks += 1
        size = (max(1, picture.shape[1] // 4), max(1, picture.shape[0] // 4))
        return np.asarray(cv2.resize(is_skin(picture).astype(np.float32), size, interpolation=cv2.INTER_AREA))


def is_skin(picture: Picture) -> NDArray[np.bool_]:
    return np.asarray(np.abs(picture.astype(int) - SKIN).max(axis=2) < 12)


def none_here() -> PaintedFace:
    raise ModelError("no face is followed: the model for it is not here; `vcam models download face` fetches it")


def scene(size: tuple[int, int], face: tuple[float, float, float] | None) -> Picture:
    """A grey wall with a face of SKIN: x, y of its middle and its height, as shares of the picture's height."""
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    if face is not None:
        x, y, height = (round(value * size[1]) for value in face)
        left, top, wide = max(0, x - round(height * 0.4)), max(0, y - height // 2), round(height * 0.8)
        picture[top : top + height, left : left + wide] = SKIN
    return picture
