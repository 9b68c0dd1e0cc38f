"""Fit a picture into a size: crop, pad, mirror, resize."""

from __future__ import annotations

import cv2
import numpy as np

from vcam.frames import Picture

_ALMOST = 1.03  # a stretch that nobody sees


def crop_to(picture: Picture, size: tuple[int, int], mirror: bool = False) -> Picture:
    """Return the largest centred part of `picture` of the shape of `size` (width, height), resized to exactly that."""
    width, height = size
    rows, columns = picture.shape[:2]
    part_columns = min(columns, max(1, round(rows * width / height)))
    part_rows = min(rows, max(1, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    part = picture[top : top + part_rows, left : left + part_columns]
    return _resized(part[:, ::-1] if mirror else part, size)


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    if picture.shape[1::-1] == size:
        return np.ascontiguousarray(picture)
    shrinks = picture.shape[0] > size[1]
    scaled = cv2.resize(
        np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.asarray(scaled, np.uint8)


def pad_to(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the whole `picture`, as large as it fits into `size` (width, height), on a dark blur of itself.

    The array is a new one. A picture of almost that shape fills it: engines work in multiples of 16 pixels, and thin
    edges look like a fault.
    """
    width, height = size
    rows, columns = picture.shape[:2]
    wide, high = width / columns, height / rows
    scale = min(wide, high)
    inner = (min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale))))
    if max(wide, high) / scale < _ALMOST:
        inner = size
    if inner == size:
        whole = _resized(picture, size)
        whole = whole.copy() if whole is picture else whole
    else:
        tiny = cv2.blur(cv2.resize(picture, (24, 18), interpolation=cv2.INTER_AREA), (5, 5))
        backdrop = cv2.resize(np.asarray(tiny * 0.45, np.uint8), size, interpolation=cv2.INTER_LINEAR)
        whole = np.asarray(backdrop, np.uint8)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        whole[top : top + inner[1], left : left + inner[0]] = _resized(picture, inner)
    return whole
