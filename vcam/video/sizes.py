"""Brings pictures to a size: whole, without stretching what has another shape."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from vcam.fit import pad_to
from vcam.video.media import Orientation, Pixels

_ALIKE = 1.03  # two shapes that differ by less count as one


def resized(rgb: Pixels, width: int, height: int) -> Pixels:
    """Return the whole picture at width x height: area averaging when it shrinks, Lanczos when it grows."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    result = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return cast(Pixels, result)


def of_one_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (width, height) have the same aspect, but for what rounding makes of it."""
    ratio = size[0] * other[1] / (size[1] * other[0])
    return max(ratio, 1 / ratio) < _ALIKE


def fitted(rgb: Pixels, width: int, height: int) -> Pixels:
    """Return the whole picture at width x height; one of another shape keeps its own, before a dark blur of itself."""
    if of_one_shape((rgb.shape[1], rgb.shape[0]), (width, height)):
        return resized(rgb, width, height)
    return pad_to(rgb, (width, height))


def part_of(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the part of a picture that `fitted` made which shows the picture of `size` (width, height) itself."""
    rows, columns = rgb.shape[:2]
    if of_one_shape(size, (columns, rows)):
        return rgb
    scale = min(columns / size[0], rows / size[1])
    width, height = (min(most, max(1, round(side * scale))) for side, most in zip(size, (columns, rows), strict=True))
    left, top = (columns - width) // 2, (rows - height) // 2
    return rgb[top : top + height, left : left + width]


def upright(rgb: Pixels, orientation: Orientation) -> Pixels:
    """Return the stored picture as it is to be seen."""
    if not any(orientation):
        return rgb
    if orientation.transpose:
        rgb = rgb.transpose(1, 0, 2)
    rgb = rgb[:: -1 if orientation.flip else 1, :: -1 if orientation.mirror else 1]
    return np.ascontiguousarray(rgb)
