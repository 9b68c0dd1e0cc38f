"""Local exposure: the light of a picture evened out before a model sees it, for a model that was trained so."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

CELL = 8  # pixels, each way, of a place whose light is looked at
AROUND = 24  # pixels (the sigma of a blur) about a place whose brightness counts as its light
USUAL = 0.58  # brightness that light is brought nearer to
EVENNESS = 0.7  # 1 brings it there
CONTRAST, MIDDLE = 1.12, 0.53  # what a half becomes, and how much differences about it grow
MOST = 3.0  # times brighter at most: what is dark is mostly noise
_FLOOR = 0.02


def gain(brightness: Array) -> NDArray[np.float32]:
    """Return by how much each pixel is made brighter, so that dark rooms and bright windows come out alike.

    brightness: [height, width], 0..1; what is returned has its shape, and is at most MOST. It depends on
    what is about a pixel (AROUND), and not on the picture as a whole: nothing bright that comes in at one side changes
    the other.
    """
    own = np.asarray(brightness, np.float32)
    height, width = own.shape
    cells = (max(width // CELL, 1), max(height // CELL, 1))
    places = cv2.resize(own, cells, interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(places, (0, 0), AROUND / CELL, borderType=cv2.BORDER_REPLICATE)
    lift = np.asarray(((around + 0.05) / USUAL) ** -EVENNESS, np.float32)
    lifted = own * cv2.resize(lift, (width, height), interpolation=cv2.INTER_LINEAR)
    even = np.clip((lifted - 0.5) * CONTRAST + MIDDLE, 0, 1)
    return np.asarray(np.minimum((even + _FLOOR) / (own + _FLOOR), MOST), np.float32)


def evened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture with its light evened out; both RGB uint8 [height, width, 3]."""
    brightness = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    lift = gain(brightness)
    return np.asarray(cv2.multiply(picture, cv2.merge([lift, lift, lift]), dtype=cv2.CV_8U), np.uint8)
