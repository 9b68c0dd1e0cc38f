"""Brings pictures to a size: whole, without stretching what has another shape."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from vcam.fit import of_one_shape, pad_to
from vcam.video.media import Orientation, Pixels


def resized(rgb: Pixels, width: int, height: int) -> Pixels:
    """Return the whole picture at width x height: area averaging when it shrinks, Lanczos when it grows."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    result = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return cast(Pixels, result)


def fitted(rgb: Pixels, width: int, height: int) -> Pixels:
    """Return the whole picture at width x height; one of another shape keeps its own, before a dark blur of itself."""
    if of_one_shape((rgb.shape[1], rgb.shape[0]), (width, height)):
        return resized(rgb, width, height)
    return pad_to(rgb, (width, height))


def upright(rgb: Pixels, orientation: Orientation) -> Pixels:
    """Return the stored picture as it is to be seen."""
    if not any(orientation):
        return rgb
    if orientation.transpose:
        rgb = rgb.transpose(1, 0, 2)
    rgb = rgb[:: -1 if orientation.flip else 1, :: -1 if orientation.mirror else 1]
    return np.ascontiguousarray(rgb)
