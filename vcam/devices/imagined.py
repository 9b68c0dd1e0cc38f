"""The source that has no pictures: what is published is made of the prompt alone, at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vcam.devices.paced import PacedSource
from vcam.frames import Picture

NAME = "Imagined pictures"  # as the page lists it too
_GREY = 32  # what is seen of it where somebody asks for the camera's own picture


class ImaginedSource(PacedSource):
    """Beats for text-to-image streaming, as FrameSource: the engine makes a picture of the prompt at each."""

    def __init__(
        self,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """size: (width, height) of the empty space that the pictures fill."""
        space: Picture = np.full((size[1], size[0], 3), _GREY, np.uint8)
        super().__init__(NAME, lambda beat: space, fps, clock, sleep, imagined=True)
