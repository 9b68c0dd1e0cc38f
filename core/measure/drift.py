"""What becomes of a long translation: sharpness, edit strength and colour against time.

A bank that feeds on its own results may soften, fade or tint the picture little by little, far too slowly for what
compares neighbours (warp error, flicker) to see it. But a scene changes as well: so only places of the source that are
alike are compared over time (of one colour, or of one sharpness). What the camera brings into the picture is no drift.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from core.measure.motion import Floats

FEWEST = 24  # pictures; fewer have no trend
POINTS = 60  # of a curve, at least, once there are as many pictures; twice as many at most
COLOURS = (20, 13, 13)  # kinds of places by L*, a* and b*
TINTS = 8.0  # Delta E between two kinds by a* or b*
SHARPNESSES = 16  # kinds of places by the logarithm of the fine structure, half an octave each
FINE = 1.5  # pixels (sigma): fine structure is what this blur takes away
FAINT = 0.1  # L*: less fine structure is none
AROUND = (9, 9)  # pixels over which the fine structure of a place is taken

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """How much a film changed from its first to its last picture, by the straight line that fits best.

    sharpness, edit: percent. colour: Delta E*ab. Each between places that are alike in the source.
    """

    sharpness: float
    edit: float
    colour: float


@dataclass(frozen=True)
class Curve:
    """The same against time: of each stretch of pictures, beside the whole film's mean. at: its middle, in pictures.

    sharpness, edit: percent above the mean. colour: distance (Delta E*ab) from the first stretch.
    """

    at: tuple[float, ...]
    sharpness: tuple[float, ...]
    edit: tuple[float, ...]
    colour: tuple[float, ...]


@dataclass
class _Kinds:
    """Sums over pixels of values by stretch of pictures and by kind of place: [stretches, kinds, 1 + values]."""

    kinds: int
    values: int
    rows: list[Doubles] = field(default_factory=list)

    def add(self, kind: npt.NDArray[np.intp], weight: Floats | None, values: list[Floats]) -> None:
        weights = np.ones(kind.size) if weight is None else weight.ravel().astype(np.float64)
        sums = [np.bincount(kind, weights, self.kinds)]
        sums += [np.bincount(kind, weights * value.ravel(), self.kinds) for value in values]
        self.rows[-1] += np.stack(sums, axis=1)

    def effects(self) -> Doubles:
        """Return how far the values are from what their kinds of places have on average: [stretches, values].

        A stretch of which nothing is known (the region was empty) has the mean.
        """
        table = np.stack(self.rows)
        counts = table[..., :1]
        means = table.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-9)  # [kinds, 1 + values]
        apart = (table[..., 1:] - counts * means[:, 1:]).sum(axis=1)
        return np.asarray(apart / np.maximum(counts.sum(axis=1), 1e-9), np.float64)

    def slopes(self, at: Doubles) -> Doubles:
        """Return the change of each value by a picture, kinds of places apart (fixed effects): [values]."""
        table = np.stack(self.rows)
        counts = table[..., :1]
        all_of = np.maximum(counts.sum(axis=0), 1e-9)
        time = at[:, None, None] - (counts * at[:, None, None]).sum(axis=0) / all_of  # [stretches, kinds, 1]
        level = table[..., 1:] - counts * (table[..., 1:].sum(axis=0) / all_of)
        spread = (counts * time**2).sum()
        return np.asarray((time * level).sum(axis=(0, 1)) / spread if spread > 0 else np.zeros(self.values), np.float64)


@dataclass
class DriftSums:
    """What is known of a film's drift so far (flat memory)."""

    count: int = 0
    stretch: int = 1  # pictures that one row stands for
    _colours: _Kinds = field(default_factory=lambda: _Kinds(int(np.prod(COLOURS)), 4))  # Delta E, L*, a*, b*
    _fine: _Kinds = field(default_factory=lambda: _Kinds(SHARPNESSES, 1))  # its logarithm
    _edit: float = 0.0

    def add(self, source: Floats, output: Floats, weight: Floats | None) -> None:
        """Add one picture: CIELAB of source and output, and how much each pixel counts (None: all the same)."""
        for kinds in (self._colours, self._fine):
            if self.count % self.stretch == 0:
                kinds.rows.append(np.zeros((kinds.kinds, 1 + kinds.values)))
        edit = np.sqrt(((output - source) ** 2).sum(axis=2))
        self._colours.add(_colour_kinds(source), weight, [edit, output[..., 0], output[..., 1], output[..., 2]])
        fine_source, fine_output = (_fine_structure(one[..., 0]) for one in (source, output))
        steps = np.clip(2 * (fine_source - np.log2(FAINT)), 0, SHARPNESSES - 1).astype(np.intp).ravel()
        self._fine.add(steps, weight, [fine_output])
        self._edit += float(np.average(edit, weights=weight))
        self.count += 1
        if self.count % self.stretch == 0 and len(self._fine.rows) == 2 * POINTS:
            for kinds in (self._colours, self._fine):
                kinds.rows = [a + b for a, b in zip(kinds.rows[::2], kinds.rows[1::2], strict=True)]
            self.stretch *= 2

    def drift(self) -> Drift | None:
        """Return the drift, None for a short film."""
        if self.count < FEWEST:
            return None
        length = self.count - 1
        edit, *colour = self._colours.slopes(self._at()) * length
        (fine,) = self._fine.slopes(self._at()) * length
        mean = self._edit / self.count
        share = 100 * float(edit) / mean if mean > 1e-6 else 0.0
        return Drift(100 * (2 ** float(fine) - 1), share, float(np.linalg.norm(colour)))

    def curve(self) -> Curve:
        """Return the curve of what was added so far."""
        if not self.count:
            return Curve((), (), (), ())
        colours, (fine,) = self._colours.effects(), self._fine.effects().T
        mean = self._edit / self.count
        edit = 100 * colours[:, 0] / mean if mean > 1e-6 else np.zeros(len(colours))
        colour = np.linalg.norm(colours[:, 1:] - colours[0, 1:], axis=1)
        lines = (self._at(), 100 * (2**fine - 1), edit, colour)
        return Curve(*(tuple(round(float(v), 3) for v in values) for values in lines))

    def _at(self) -> Doubles:
        """Return the middle of each stretch, in pictures."""
        begins = np.arange(len(self._fine.rows)) * self.stretch
        return np.asarray((begins + np.minimum(begins + self.stretch, self.count) - 1) / 2, np.float64)


def _colour_kinds(lab: Floats) -> npt.NDArray[np.intp]:
    light = np.clip(lab[..., 0] / 100 * COLOURS[0], 0, COLOURS[0] - 1).astype(np.intp)
    tints = [np.clip(np.rint(lab[..., i] / TINTS) + COLOURS[i] // 2, 0, COLOURS[i] - 1).astype(np.intp) for i in (1, 2)]
    return cast("npt.NDArray[np.intp]", ((light * COLOURS[1] + tints[0]) * COLOURS[2] + tints[1]).ravel())


def _fine_structure(lightness: Floats) -> Floats:
    """Return the logarithm (base 2) of the root mean square of the fine structure around each pixel, L*."""
    fine = lightness - cv2.GaussianBlur(lightness, (0, 0), FINE)
    energy = cv2.blur(fine * fine, AROUND)
    return np.asarray(0.5 * np.log2(np.maximum(energy, FAINT**2)), np.float32)
