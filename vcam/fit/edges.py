"""Enlarge a translated picture with the fine edges of what it was made of."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vcam.fit.crops import brought_to
from vcam.frames import Picture

_WINDOW = (7, 7)  # pixels of the small picture in which its brightness is held to be linear in its source's
_NOISE = 6.0**2  # grey levels squared: a change of the source below this is its sensor's, not an edge
_NOISES = 2.5  # sigmas: what differs less from the coarser picture is noise
_SMALLER_HALF = 0.3246  # of a normal distribution: the mean size of the half that is nearer to 0, in sigmas
_STEEPEST = 1.5  # of that line: a style that exaggerates contrast more gets no more
_UNIT = 128  # of the gains, which are whole numbers


def detail_at(detail: float, strength: float) -> float:
    """Return how much of the source's edges a look of this strength gets: none where nothing of the source remains."""
    return detail * min(1.0, 2 * (1 - strength))


def enlarged(picture: Picture, guide: Picture, size: tuple[int, int], detail: float) -> Picture:
    """Return the picture at the larger `size` (width, height), with what it has lost of its source's fine edges.

    guide: the source, of the same area. In each small window the picture's brightness is taken as linear in the
    source's (a guided filter's model: He, Sun, Tang, 2010), and what is finer than the picture's own pixels is added by
    that line's steepness, times `detail`, as far as the line explains the window. So nothing of the source comes
    through that the picture's own pixels could show, nor where the style has put something else.
    """
    whole = brought_to(picture, size)
    if not detail or size[0] <= picture.shape[1] or size[1] <= picture.shape[0]:
        return whole
    source = brought_to(_grey(guide), size)  # [height, width]
    seen = np.asarray(cv2.resize(source, picture.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
    fine = _cored(cv2.subtract(source, cv2.resize(seen, size, interpolation=cv2.INTER_CUBIC), dtype=cv2.CV_16S))
    small = np.rint(_steepness(_grey(picture), seen) * (_UNIT * detail)).astype(np.int16)
    gains = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    band = cv2.multiply(
        fine, gains, fine, scale=1 / _UNIT
    )  # in place here and below: fresh memory costs more than sums
    return np.asarray(cv2.add(whole, cv2.merge([band] * 3), whole, dtype=cv2.CV_8U), np.uint8)


def _cored(fine: NDArray[Any]) -> NDArray[Any]:
    """Return what of it is over a sensor's noise, which the smaller half of all differences tells; in place."""
    some = np.abs(fine[::4, ::4]).ravel()
    half = max(1, len(some) // 2)
    noise = round(_NOISES * float(np.partition(some, half - 1)[:half].mean()) / _SMALLER_HALF)
    return np.asarray(cv2.subtract(fine, np.clip(fine, -noise, noise), fine))


def _grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.uint8)


def _steepness(picture: Picture, source: Picture) -> NDArray[np.float32]:
    """Return how steeply the picture follows its source around each pixel, times how well; both [height, width]."""
    made, seen = picture.astype(np.float32), source.astype(np.float32)
    mean_made, mean_seen = _mean(made), _mean(seen)
    var_made = _mean(made * made) - mean_made * mean_made + _NOISE
    var_seen = _mean(seen * seen) - mean_seen * mean_seen + _NOISE
    both = _mean(made * seen) - mean_made * mean_seen
    follows = both * both / (var_made * var_seen)
    steep = (both / var_seen * follows).astype(np.float32)
    return np.clip(_mean(steep), -_STEEPEST, _STEEPEST)


def mean_around(values: NDArray[Any], window: tuple[int, int]) -> NDArray[np.float32]:
    """Return the mean of the window (width, height) around each pixel, of each channel by itself."""
    return np.asarray(cv2.blur(values, window, borderType=cv2.BORDER_REFLECT), np.float32)


_mean = partial(mean_around, window=_WINDOW)
