"""The "AI" badge that a profile may put into the picture's corner."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from vcam.frames import Picture

_FONT = "sans"  # built into OpenCV 5


@functools.lru_cache(maxsize=4)
def _badge(unit: int) -> Picture:
    """Return the badge, RGB and opacity: uint8 [unit, 1.5 unit, 4]."""
    scale = 4
    width, height = int(unit * 1.5) * scale, unit * scale
    shape = np.zeros((height, width), np.uint8)
    radius = height // 3
    cv2.rectangle(shape, (radius, 0), (width - 1 - radius, height - 1), 165, -1)
    cv2.rectangle(shape, (0, radius), (width - 1, height - 1 - radius), 165, -1)
    for centre in [(x, y) for x in (radius, width - 1 - radius) for y in (radius, height - 1 - radius)]:
        cv2.circle(shape, centre, radius, 165, -1)
    text = np.zeros((height, width, 3), np.uint8)
    size = int(height * 0.62)
    face = cv2.FontFace(_FONT)
    left, top, wide, high = cv2.getTextSize((width, height), "AI", (0, 0), face, size, 700)
    cv2.putText(text, "AI", ((width - wide) // 2 - left, (height - high) // 2 - top), (255, 255, 255), face, size, 700)
    ink = cv2.resize(text, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(shape, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    return np.dstack([ink, np.maximum(opacity, ink[..., 0])])


def draw_badge(picture: Picture) -> None:
    """Draw the badge into the lower right corner of the picture itself; one too small for it goes without."""
    rows, columns = picture.shape[:2]
    unit = max(10, min(rows, columns) // 16)
    badge = _badge(unit)
    high, wide = badge.shape[:2]
    margin = unit // 2
    if rows < high + margin or columns < wide + margin:
        return
    corner = picture[rows - high - margin : rows - margin, columns - wide - margin : columns - margin]
    opacity = badge[..., 3:].astype(np.float32) / 255
    corner[:] = (corner * (1 - opacity) + badge[..., :3] * opacity).astype(np.uint8)
