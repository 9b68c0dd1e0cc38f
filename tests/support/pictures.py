"""Plain pictures, and the size in which the tests of a whole daemon publish."""

from __future__ import annotations

import numpy as np

from vcam.frames import Picture

SIZE = (96, 64)  # published: width, height
RAW = (10, 200, 30)  # what the fake camera sees; the fake engine shows its inverse


def plain(size: tuple[int, int], colour: tuple[int, int, int] = RAW) -> Picture:
    """A picture of one colour; size: width and height."""
    return np.full((size[1], size[0], 3), colour, np.uint8)
