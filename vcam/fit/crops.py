"""Bring pictures to a size: cropped where a shot says, whole between dark bars, mirrored."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from vcam.frames import FILLED, Focus, Picture, Shot

_ALMOST = 1.03  # a stretch that nobody sees
_FEET = 0.25  # of a picture's height: so much too much of it is cut off below, where there are no heads


def cropped(picture: Picture, size: tuple[int, int], shot: Shot = FILLED) -> Picture:
    """Return the part of `picture` that the shot shows, in the shape of `size` (width, height): a view of the array.

    Without a focus it is the largest such part: the middle of what is too wide, the upper part of what is too high.
    """
    left, top, columns, rows = _window(picture.shape[1::-1], size, shot.focus)
    part = picture[top : top + rows, left : left + columns]
    return turned(part, shot)


def crop_to(picture: Picture, size: tuple[int, int], shot: Shot = FILLED) -> Picture:
    """Return that part of `picture`, resized to exactly `size` (width, height)."""
    return brought_to(cropped(picture, size, shot), size)


def turned(picture: Picture, shot: Shot) -> Picture:
    """Return the picture, mirrored where the shot is: a view of the array."""
    return picture[:, ::-1] if shot.mirrored else picture


def _window(there: tuple[int, int], size: tuple[int, int], focus: Focus | None) -> tuple[int, int, int, int]:
    """Return left, top, width, height of the part of a picture of the size `there`, in the shape of `size`."""
    (width, height), (columns, rows) = size, there
    most_columns = min(columns, max(1, round(rows * width / height)))
    most_rows = min(rows, max(1, round(columns * height / width)))
    if focus is None:
        too_high = rows - most_rows
        below = min(too_high, round(_FEET * rows))
        return (columns - most_columns) // 2, (too_high - below) // 2, most_columns, most_rows
    share = min(1.0, focus.height * rows / most_rows)
    part_columns, part_rows = max(1, round(most_columns * share)), max(1, round(most_rows * share))
    left = min(max(0, round(focus.x * columns - part_columns / 2)), columns - part_columns)
    top = min(max(0, round(focus.y * rows - part_rows / 2)), rows - part_rows)
    return left, top, part_columns, part_rows


def brought_to(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the whole picture at exactly `size` (width, height): area averaging when it shrinks, cubic if it grows."""
    if picture.shape[1::-1] == size:
        return np.ascontiguousarray(picture)
    shrinks = picture.shape[0] > size[1]
    scaled = cv2.resize(
        np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.asarray(scaled, np.uint8)


def of_one_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (width, height) have the same aspect, but for what rounding makes of it."""
    ratio = size[0] * other[1] / (size[1] * other[0])
    return max(ratio, 1 / ratio) < _ALMOST


def pad_to(
    picture: Picture, size: tuple[int, int], fill: Callable[[Picture, tuple[int, int]], Picture] = brought_to
) -> Picture:
    """Return the whole `picture`, as large as it fits into `size` (width, height), on a dark blur of itself.

    fill: brings it to the size that it gets there. The array is a new one. A picture of almost that shape fills it:
    engines work in multiples of 16 pixels, and thin edges look like a fault.
    """
    width, height = size
    rows, columns = picture.shape[:2]
    wide, high = width / columns, height / rows
    scale = min(wide, high)
    inner = (min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale))))
    if max(wide, high) / scale < _ALMOST:
        inner = size
    filled = fill(picture, inner)
    if inner == size:
        return filled.copy() if filled is picture else filled
    tiny = cv2.blur(cv2.resize(picture, (24, 18), interpolation=cv2.INTER_AREA), (5, 5))
    backdrop = cv2.resize(np.asarray(tiny * 0.45, np.uint8), size, interpolation=cv2.INTER_LINEAR)
    whole = np.asarray(backdrop, np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole[top : top + inner[1], left : left + inner[0]] = filled
    return whole


def whole_in(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the whole picture at `size`; one of another shape keeps its own, before a dark blur of itself."""
    return brought_to(picture, size) if of_one_shape(picture.shape[1::-1], size) else pad_to(picture, size)


def part_of(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the part of a picture that `whole_in` made which shows the picture of `size` (width, height) itself."""
    rows, columns = picture.shape[:2]
    if of_one_shape(size, (columns, rows)):
        return picture
    scale = min(columns / size[0], rows / size[1])
    width, height = (min(most, max(1, round(side * scale))) for side, most in zip(size, (columns, rows), strict=True))
    left, top = (columns - width) // 2, (rows - height) // 2
    return picture[top : top + height, left : left + width]
