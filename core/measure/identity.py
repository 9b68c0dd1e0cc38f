"""Whether a face is still the face: the landmarks that a detector finds in the source and in the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core.measure.motion import Floats, Pixels

NEAR = 0.5  # of the face's width: where the same face may lie


class MarkedFace(NamedTuple):
    """A face in pixels: the middle [x, y] and the width of its box, and its landmarks [5, (x, y)]."""

    middle: Floats
    width: float
    landmarks: Floats


FindFaces = Callable[[Pixels], Sequence[MarkedFace]]


def face_error(face: MarkedFace, others: Sequence[MarkedFace]) -> float | None:
    """Return the landmarks' mean distance to those of the same face, percent of its width; None where there is none.

    A face is the same where its middle is less than half a width away.
    """
    near = [one for one in others if np.linalg.norm(one.middle - face.middle) < NEAR * face.width]
    errors = [100 * float(np.linalg.norm(one.landmarks - face.landmarks, axis=1).mean()) / face.width for one in near]
    return min(errors, default=None)


@dataclass
class IdentitySums:
    """Faces of the source, those of them found in the output, and the sum of their errors."""

    faces: int = 0
    kept: int = 0
    total: float = 0.0

    def add(self, source: Sequence[MarkedFace], output: Sequence[MarkedFace]) -> None:
        """Add what was found in one picture."""
        for face in source:
            error = face_error(face, output)
            self.faces += 1
            if error is not None:
                self.kept += 1
                self.total += error

    def share_kept(self) -> float | None:
        """Return the share of the source's faces that the output still shows there, percent; None without faces."""
        return 100 * self.kept / self.faces if self.faces else None

    def error(self) -> float | None:
        """Return the mean error of those, percent of the face's width; None where there is none."""
        return self.total / self.kept if self.kept else None
