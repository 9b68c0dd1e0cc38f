"""What is asked of the models that see faces and persons, and how one is used that may not be here yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import StreamV2VError
from vcam.frames import Picture

Mask = NDArray[np.float32]  # [height, width], 0..1: how much of each pixel is a person
T = TypeVar("T")
AGAIN_S = 2.0  # between two looks whether a model has come


class Face(NamedTuple):
    """Where a face is: its middle and its sides, as shares of the picture's."""

    x: float
    y: float
    width: float
    height: float


class FaceDetector(Protocol):
    """Finds faces."""

    def faces(self, picture: Picture) -> list[Face]:
        """Return the faces in a picture of any size."""


class PersonFinder(Protocol):
    """Tells a person from what is behind."""

    def person(self, picture: Picture) -> Mask:
        """Return the mask of a picture of any size, in the finder's own size."""


class WhenThere(Generic[T]):
    """A model that is used once it is here, which may be while the camera runs. Used from one thread.

    open: opens it; raises StreamV2VError while it cannot be used. trouble: why it could not be opened, "" once it is.
    """

    def __init__(self, open: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> None:
        self._open, self._clock = open, clock
        self._model: T | None = None
        self._tried_s: float | None = None
        self.trouble = ""

    def get(self) -> T | None:
        """Return the model, or None; tries every AGAIN_S to open it."""
        if self._model is None and (self._tried_s is None or self._clock() - self._tried_s >= AGAIN_S):
            self._tried_s = self._clock()
            try:
                self._model, self.trouble = self._open(), ""
            except StreamV2VError as error:
                self.trouble = str(error)
        return self._model
