"""A style in a part of the picture: inside or outside the person, along the camera's own edges, steady in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from core.settings import BLUR, CAMERA, Look, Region
from vcam.fit.crops import brought_to, crop_to
from vcam.fit.edges import mean_around
from vcam.fit.seeing import Mask, PersonFinder, WhenThere
from vcam.frames import Picture

SHARE = 0.3  # of the time that masks may take; what one costs more is made up for by the pictures without a new one
_CALM = 0.3  # how far a mask moves to the next one where they differ little: what flickers stands still
_MOVED = 4.0  # ... times how far they differ, where that is more: what moves is followed at once
_WINDOW = (9, 9)  # pixels of the mask in which it is held to be linear in the picture's colours
_PLAIN = 8.0**2  # grey levels squared: fainter edges are none
_STEEP = 1.5  # the edge's steepness, of the mask's own
_BLUR_AT = 8  # a blurred picture is made so many times smaller
_BLUR = 0.05  # of the height
_mean = partial(mean_around, window=_WINDOW)
ReadStill = Callable[[str], Picture]


class SteadyMask:
    """The person's mask from picture to picture. Used from one thread.

    share: of the time that masks may take; infinite: each picture has its own, whatever it costs.
    """

    def __init__(
        self, finder: PersonFinder, share: float = SHARE, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._finder, self._share, self._clock = finder, share, clock
        self._mask: Mask | None = None
        self._shape = (0, 0)  # of the picture that it is of
        self._due_s = -math.inf

    def of(self, picture: Picture) -> Mask:
        """Return the mask of this picture, or that of the one before where a new one would cost too much."""
        begun_s, shape = self._clock(), (picture.shape[0], picture.shape[1])
        if self._mask is not None and shape == self._shape and begun_s < self._due_s:
            return self._mask
        new = self._finder.person(picture)
        self._mask = new if self._mask is None or self._mask.shape != new.shape else _followed(self._mask, new)
        self._shape = shape
        self._due_s = begun_s + (self._clock() - begun_s) / self._share
        return self._mask


def _followed(old: Mask, new: Mask) -> Mask:
    change = new - old
    pace = np.clip(_MOVED * cv2.blur(np.abs(change), (5, 5)), _CALM, 1)
    return np.asarray(old + pace * change, np.float32)


class Regions:
    """Puts what a look has beside its style into the pictures. Used from one thread.

    finder: tells a person from what is behind, once it is here. read_still: reads a picture file, raises
    StreamV2VError. share, clock: see SteadyMask. trouble: why all of the picture is styled though a part is wanted, ""
    while all is well.
    """

    def __init__(
        self,
        finder: WhenThere[PersonFinder],
        read_still: ReadStill,
        share: float = SHARE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._finder, self._read_still, self._share, self._clock = finder, read_still, share, clock
        self._steady: SteadyMask | None = None
        self._still: tuple[str, WhenThere[Picture]] | None = None
        self.trouble = ""

    def composed(self, styled: Picture, guide: Picture, look: Look) -> Picture:
        """Return the picture with its style in the look's region; guide: the same area of the camera's picture.

        Where the region cannot be had, all of the picture keeps its style, and it is the same array.
        """
        self.trouble = ""
        if look.region is Region.ALL:
            self._steady = None
            return styled
        size = (styled.shape[1], styled.shape[0])
        finder, still = self._finder.get(), self._still_of(look.elsewhere)
        self.trouble = self._finder.trouble or self.trouble
        if finder is None or (still is None and look.elsewhere not in (CAMERA, BLUR)):
            return styled
        if self._steady is None:
            self._steady = SteadyMask(finder, self._share, self._clock)
        person = along_edges(self._steady.of(guide), guide, size)
        share = person if look.region is Region.PERSON else 1 - person
        if still is not None:
            other = crop_to(still, size)
        elif look.elsewhere == BLUR:
            other = blurred(guide, size, 1 - share)
        else:
            other = brought_to(guide, size)
        return np.asarray(cv2.blendLinear(styled, other, share, 1 - share), np.uint8)

    def _still_of(self, path: str) -> Picture | None:
        if path in (CAMERA, BLUR):
            self._still = None
            return None
        if self._still is None or self._still[0] != path:
            self._still = path, WhenThere(lambda: self._read_still(path), self._clock)
        still = self._still[1].get()
        self.trouble = self._still[1].trouble
        return still


def along_edges(mask: Mask, guide: Picture, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the mask at `size` (width, height), its border where the guide has an edge: [height, width], 0..1.

    In each small window the mask is taken as linear in the guide's colours (He, Sun, Tang: guided image filtering,
    2010): a yellow sleeve before a wall that is as bright has its edge.
    """
    whole = brought_to(guide, size)
    seen = np.asarray(cv2.resize(whole, mask.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    mean_seen, mean_mask = _mean(seen), _mean(mask)
    slopes = _slopes(seen, mask, mean_seen, mean_mask)  # [height, width, 3]
    base = _mean(mean_mask - (slopes * mean_seen).sum(axis=2))
    fine = cv2.multiply(cv2.resize(_mean(slopes), size, interpolation=cv2.INTER_LINEAR), whole, dtype=cv2.CV_32F)
    fine = cv2.transform(fine, np.ones((1, 3), np.float32))
    fine = cv2.add(fine, cv2.resize(base, size, interpolation=cv2.INTER_LINEAR), fine)
    return np.asarray(np.clip((fine - 0.5) * _STEEP + 0.5, 0, 1), np.float32)


def _slopes(
    seen: NDArray[np.float32], mask: Mask, mean_seen: NDArray[np.float32], mean_mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return how the mask follows red, green and blue around each pixel: least squares, solved by the adjugate."""
    r, g, b = cv2.split(seen)
    mean_r, mean_g, mean_b = cv2.split(mean_seen)
    rr, gg, bb = cv2.split(_mean(seen * seen) - mean_seen * mean_seen + _PLAIN)
    rg, rb, gb = _mean(r * g) - mean_r * mean_g, _mean(r * b) - mean_r * mean_b, _mean(g * b) - mean_g * mean_b
    with_r, with_g, with_b = cv2.split(_mean(seen * mask[..., None]) - mean_seen * mean_mask[..., None])
    of_rr, of_gg, of_bb = gg * bb - gb * gb, rr * bb - rb * rb, rr * gg - rg * rg  # the adjugate, which is symmetric
    of_rg, of_rb, of_gb = rb * gb - rg * bb, rg * gb - rb * gg, rg * rb - rr * gb
    determinant = rr * of_rr + rg * of_rg + rb * of_rb
    solved = (
        of_rr * with_r + of_rg * with_g + of_rb * with_b,
        of_rg * with_r + of_gg * with_g + of_gb * with_b,
        of_rb * with_r + of_gb * with_g + of_bb * with_b,
    )
    return np.asarray(cv2.merge([one / determinant for one in solved]), np.float32)


def blurred(guide: Picture, size: tuple[int, int], share: NDArray[np.float32]) -> Picture:
    """Return the guide at `size`, blurred; what it shows where `share` is 0 does not spread into the rest."""
    small = (max(1, size[0] // _BLUR_AT), max(1, size[1] // _BLUR_AT))
    there = cv2.resize(share, small, interpolation=cv2.INTER_AREA)
    weight = np.asarray(np.clip(2 * there - 1, 1e-3, 1), np.float32)[:, :, None]  # what is half the other has no say
    picture = brought_to(guide, small).astype(np.float32) * weight
    sigma = _BLUR * small[1]
    spread, weights = (np.asarray(cv2.GaussianBlur(one, (0, 0), sigma)) for one in (picture, weight))
    even = np.asarray(spread / weights[:, :, None], np.uint8)
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_LINEAR), np.uint8)
