"""How much a translation flickers, at which frequency: lightness followed along the source's motion.

A flicker is what changes where nothing of the scene does. So points are followed by the source's flow, and the
spectrum is that of the lightness seen at them: a pulse at each fourth picture stands at 0.25 cycles a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from core.measure.motion import Floats, Motion, Pixels, well_inside

WINDOW = 16  # pictures for which a point is followed
SPACING = 8  # pixels between the points
SMOOTHING = 1.5  # pixels (sigma): where a point lies between pixels, its lightness is not that of its neighbours
SLOWEST = 2  # the lowest bin of the spectrum that counts as flicker: 2 / WINDOW = 0.125 cycles a picture
REACH = 4  # pixels from a region's border on, where a point would see what is beyond
FEWEST = 20  # points that must have been followed, over the whole film

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """The flicker of a film by frequency.

    cycles: cycles a picture of each bin, 1/16 to 1/2. rms: root mean square lightness (L*) of the output in each bin;
    rms_input: of the source. points: how many points were followed for a whole window.
    """

    cycles: tuple[float, ...]
    rms: tuple[float, ...]
    rms_input: tuple[float, ...]
    points: int

    @property
    def flicker(self) -> float:
        """Return the flicker of the output: root mean square L* from 0.125 cycles a picture on."""
        return _from(self.rms)

    @property
    def flicker_input(self) -> float:
        """Return the same of the source: the floor, which noise, the codec and the flow leave."""
        return _from(self.rms_input)


def _from(rms: tuple[float, ...]) -> float:
    return float(np.sqrt(sum(value**2 for value in rms[SLOWEST - 1 :])))


@dataclass
class _Tracks:
    """Points under way: where they are, which of them were visible all the time, and what was seen at them."""

    where: Floats  # [rows, columns, (x, y)]: a grid, for remap refuses what has more than 32,767 in a row
    lasting: npt.NDArray[np.bool_]  # [rows, columns]
    seen: list[tuple[Floats, Floats]] = field(default_factory=list)  # of source and output, a picture each


@dataclass
class FlickerSums:
    """Power of source and output by frequency, summed over points and windows (flat memory)."""

    power: Doubles = field(default_factory=lambda: np.zeros((2, WINDOW // 2)))  # [source and output, bins from 1]
    points: int = 0
    _under_way: list[_Tracks] = field(default_factory=list)
    _pictures: int = 0

    def add(self, source: Pixels, output: Pixels, seen: Motion | None, region: npt.NDArray[np.bool_] | None) -> None:
        """Add one picture. seen: the motion that led to it, None for the first; region: where points may be."""
        region = well_inside(region, REACH)
        if seen is not None:
            for tracks in self._under_way:
                _moved(tracks, seen.inside(region))
        if self._pictures % (WINDOW // 2) == 0:  # windows overlap by half
            self._under_way.append(_begun(source.shape[0], source.shape[1], region))
        self._pictures += 1
        lightness = (_smooth_lightness(source), _smooth_lightness(output))
        for tracks in self._under_way:
            tracks.seen.append((_at(lightness[0], tracks.where), _at(lightness[1], tracks.where)))
        for tracks in [one for one in self._under_way if len(one.seen) == WINDOW]:
            self._under_way.remove(tracks)
            series = np.stack([np.stack(pair) for pair in tracks.seen])[:, :, tracks.lasting]  # [pictures, 2, points]
            self.power += _power(series.astype(np.float64)).sum(axis=2).T
            self.points += int(tracks.lasting.sum())

    def spectrum(self) -> Spectrum | None:
        """Return the spectrum, None where hardly a point was seen for a whole window."""
        if self.points < FEWEST:
            return None
        source, output = np.sqrt(self.power / self.points)
        cycles = (1 + np.arange(WINDOW // 2)) / WINDOW
        return Spectrum(_plain(cycles), _plain(output), _plain(source), self.points)


def _plain(values: Doubles) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _begun(height: int, width: int, region: npt.NDArray[np.bool_] | None) -> _Tracks:
    x, y = np.meshgrid(np.arange(SPACING / 2, width, SPACING), np.arange(SPACING / 2, height, SPACING))
    lasting = np.ones(x.shape, bool) if region is None else region[y.astype(int), x.astype(int)]
    return _Tracks(np.stack([x, y], axis=2).astype(np.float32), lasting)


def _moved(tracks: _Tracks, seen: Motion) -> None:
    """Move the points to the next picture, and give up those that cannot be seen there."""
    height, width = seen.visible.shape
    step = np.stack([_at(np.ascontiguousarray(seen.forth[..., axis]), tracks.where) for axis in (0, 1)], axis=2)
    tracks.where = np.asarray(tracks.where + step, np.float32)
    column, row = (np.rint(tracks.where[..., axis]).astype(int) for axis in (0, 1))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    tracks.lasting &= inside
    tracks.lasting[inside] &= seen.visible[row[inside], column[inside]]


def _at(plane: Floats, where: Floats) -> Floats:
    """Return the plane's values at points between its pixels: [rows, columns]."""
    if not where.size:
        return np.zeros(where.shape[:2], np.float32)
    x, y = (np.ascontiguousarray(where[..., axis]) for axis in (0, 1))
    return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _smooth_lightness(picture: Pixels) -> Floats:
    lightness = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    return cast(Floats, cv2.GaussianBlur(lightness, (0, 0), SMOOTHING))


def _power(series: Doubles) -> Doubles:
    """Return the one-sided power of [pictures, ...] in bins 1 to WINDOW / 2; together: the variance about a line."""
    time = np.arange(WINDOW) - (WINDOW - 1) / 2
    slope = np.tensordot(time, series, axes=(0, 0)) / (time**2).sum()
    level = series - series.mean(axis=0) - time.reshape(-1, *[1] * (series.ndim - 1)) * slope
    taper = np.hanning(WINDOW + 1)[:-1]
    found = np.abs(np.fft.rfft(level * taper.reshape(-1, *[1] * (series.ndim - 1)), axis=0)) ** 2
    found[1:-1] *= 2  # the negative frequencies
    return np.asarray(found[1:] / (WINDOW * (taper**2).sum()), np.float64)
