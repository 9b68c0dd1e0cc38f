"""Measures how steady, consistent, strong, sharp and clean a translation is, on the source and the result.

Pictures are RGB uint8 [height, width, 3]; a sequence is any iterable of them, read once, two pictures held at a time.
The result has the source's size, and its picture i shows the source's picture i (drop the stream's delay first).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from core.errors import MetricError
from core.measure.drift import Curve, Drift, DriftSums
from core.measure.flicker import FlickerSums, Spectrum
from core.measure.identity import FindFaces, IdentitySums
from core.measure.motion import (
    Floats,
    Mask,
    Motion,
    OpticalFlow,
    Pixels,
    dis_flow,
    motion,
    places,
    square,
    warped,
    well_inside,
)

Embed = Callable[[Pixels], Floats]  # picture -> vector [n]
Align = Callable[[Pixels, Pixels], float | None]  # source and output -> how much it is what the prompt says, times 100
FindRegion = Callable[[Pixels], Mask]  # source -> bool [height, width]: where the style is
CELLS = 8  # of a side, in which a picture is described
SHORT_SIDE = 256  # pixels: larger pictures are made smaller before they are compared
SIGMA = 1.5  # pixels: of the Gaussian that takes away fine structure, and of the window in which structure is compared
ENOUGH_STRUCTURE = 0.05  # L*: a source with less fine structure has no sharpness to compare with


# ------------------------------------------------------------------------------------------------------ one pair


def pair_warp_error(before: Pixels, now: Pixels, seen: Motion) -> float | None:
    """Return the mean square difference (0..255 squared) of `now` and `before` warped, over visible pixels.

    None when less than 1 % of the picture is visible in both (a cut).
    """
    if seen.visible.mean() < 0.01:
        return None
    difference = now.astype(np.float32) - warped(before, seen.back)
    return float((difference[seen.visible] ** 2).mean(dtype=np.float64))


def descriptor(picture: Pixels) -> Floats:
    """Describe a picture by 1,152 numbers, without any learnt model: a unit vector of non-negative numbers.

    On the picture area-averaged to 128x128, in each of 8x8 cells: a histogram of gradient directions (9 bins over
    180 degrees, weighted by magnitude) of grey levels, and one of colours (9 bins: CIELAB a and b in 3x3). Each of the
    two kinds is normalised to sum 1 over the picture, then the square root is taken (Hellinger), so the dot product
    of two descriptors is the mean of two Bhattacharyya coefficients: 1 for equal pictures, 0 for nothing in common.
    """
    small = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    dx = cv2.Sobel(lab[..., 0], cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(lab[..., 0], cv2.CV_32F, 0, 1, ksize=3)
    angle = np.mod(np.arctan2(dy, dx), np.pi) / np.pi * 9
    low = np.floor(angle)
    share = angle - low
    size = np.hypot(dx, dy)
    shapes = _cells(low % 9, size * (1 - share)) + _cells((low + 1) % 9, size * share)
    third_a, third_b = (np.digitize(lab[..., i], [-10.0, 10.0]) for i in (1, 2))
    colours = _cells(third_a * 3 + third_b, np.ones_like(size))
    parts = [np.sqrt(p / p.sum()) if p.sum() > 1e-6 else np.full_like(p, p.size**-0.5) for p in (shapes, colours)]
    return np.asarray(np.concatenate(parts) / math.sqrt(2), np.float32)


def _cells(bins: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return weighted counts of bins 0..8 in 8x8 cells of a 128x128 picture: [8 * 8 * 9]."""
    row, column = np.divmod(np.arange(128 * 128), 128)
    cell = (row * CELLS // 128) * CELLS + column * CELLS // 128
    index = cell * 9 + bins.astype(np.intp).ravel()
    return np.asarray(np.bincount(index, weights.ravel().astype(np.float64), CELLS * CELLS * 9), np.float64)


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two vectors; 0 where one is zero and has no direction."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return min(1.0, float(np.dot(a, b)) / lengths) if lengths else 0.0


def picture_edit_strength(source: Pixels, output: Pixels, region: Mask | None = None) -> float:
    """Return how far one output is from its source: mean CIE 1976 colour difference (Delta E*ab) over pixels.

    Both are first area-averaged to a short side of at most 256 pixels, so that single-pixel noise counts little. 0:
    identical; about 2: just visible; 100: black against white. region: which pixels count.
    """
    return _strength(_lab(source), _lab(output), _weight(region, source))


def picture_edit_structure(source: Pixels, output: Pixels, region: Mask | None = None) -> float:
    """Return how much of the structure was changed: 1 - SSIM (Wang et al. 2004) of lightness; 0 identical, 1 unrelated.

    Gaussian window of sigma 1.5, constants for a range of 100 (L*), at a short side of at most 256 pixels.
    """
    return _structure(_lab(source), _lab(output), _weight(region, source))


def picture_sharpness(source: Pixels, output: Pixels, region: Mask | None = None) -> float | None:
    """Return the output's fine structure over the source's: 1 as sharp, less is softer, more has edges added.

    Fine structure is the root mean square of L* less its Gaussian mean (sigma 1.5), at a short side of at most 256
    pixels. None where the source has next to none.
    """
    return _sharpness(_lab(source), _lab(output), _weight(region, source))


def fine_structure(picture: Pixels) -> Floats:
    """Return L* less its Gaussian mean (sigma 1.5), float32 [height, width], at a short side of at most 256 pixels."""
    return _fine(_lab(picture))


def _strength(a: Floats, b: Floats, weight: Floats | None) -> float:
    return float(np.average(np.sqrt(((a - b) ** 2).sum(axis=2)), weights=weight))


def _structure(a: Floats, b: Floats, weight: Floats | None) -> float:
    a, b = a[..., 0], b[..., 0]
    mean_a, mean_b = _blurred(a, SIGMA), _blurred(b, SIGMA)
    var_a, var_b = _blurred(a * a, SIGMA) - mean_a**2, _blurred(b * b, SIGMA) - mean_b**2
    both = _blurred(a * b, SIGMA) - mean_a * mean_b
    c1, c2 = (0.01 * 100) ** 2, (0.03 * 100) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return max(0.0, 1 - float(np.average(ssim, weights=weight)))


def _sharpness(a: Floats, b: Floats, weight: Floats | None) -> float | None:
    fine = [float(np.average(_fine(p) ** 2, weights=weight)) ** 0.5 for p in (a, b)]
    return fine[1] / fine[0] if fine[0] >= ENOUGH_STRUCTURE else None


def _fine(lab: Floats) -> Floats:
    return cast(Floats, lab[..., 0] - _blurred(lab[..., 0], SIGMA))


def _lab(picture: Pixels) -> Floats:
    small = _small(picture).astype(np.float32) / 255
    return cast(Floats, cv2.cvtColor(small, cv2.COLOR_RGB2LAB))


def _weight(region: Mask | None, like: Pixels) -> Floats | None:
    """Return the region at the size at which pictures are compared; None: all pixels count."""
    if region is None:
        return None
    weight: Floats = _small(region.astype(np.float32))
    if weight.sum() < 1:
        return np.full_like(weight, 1e-6)  # an empty region: whatever is averaged, it is an average
    return weight


def _small(plane: npt.NDArray[Any]) -> Any:
    height, width = plane.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale >= 1:
        return plane
    return cv2.resize(plane, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def _blurred(plane: npt.NDArray[Any], sigma: float) -> Floats:
    return cast(Floats, cv2.GaussianBlur(plane, (0, 0), sigma))


# ------------------------------------------------------------------------------------------------------ ghosts


MOVING = 1.5  # pixels a frame; slower places cannot tell a ghost from the thing itself
_SHARP = 17  # pixels: what is larger is no fine structure
ENOUGH_MOVING = 2000  # pixels over the whole film; fewer are no basis for a number


@dataclass
class GhostSums:
    """The normal equations of the ghost regression, summed over the film (flat memory)."""

    products: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    pixels: int = 0

    def add(self, source: Pixels, output_before: Pixels, output: Pixels, seen: Motion) -> None:
        """Add one pair of pictures."""
        mirrored = 2 * seen.back
        x, y = places(mirrored)
        moving = seen.visible & (square(seen.back) > MOVING**2)
        moving &= (x >= 0) & (x <= x.shape[1] - 1) & (y >= 0) & (y <= y.shape[0] - 1)
        if not moving.any():
            return
        before = _lightness(output_before)
        planes = [
            before,  # what stood here before: the ghost
            warped(before, mirrored),  # as far from its right place on the other side: the control
            *_edit_basis(source),
            _lightness(output),
        ]
        table = np.stack([_sharp(p)[moving] for p in planes]).astype(np.float64)  # [planes, moving pixels]
        products = table @ table.T
        self.products = products if not self.pixels else self.products + products
        self.pixels += table.shape[1]

    def share(self) -> float | None:
        """Return the ghost's share (see `ghosting`), None when too little moved or the output has no structure."""
        if self.pixels < ENOUGH_MOVING or self.products[-1, -1] < 1e-3 * self.pixels:
            return None
        inputs, wanted = self.products[:-1, :-1], self.products[:-1, -1]
        ridge = 1e-6 * np.trace(inputs) / len(inputs) * np.eye(len(inputs))  # a plain source leaves some planes empty
        weights = np.linalg.solve(inputs + ridge, wanted)
        return float(weights[0] - weights[1])


def _edit_basis(source: Pixels) -> list[Floats]:
    """Return what a clean edit may consist of: smooth and stepwise functions of the source's colours, and its edges."""
    lab = cv2.cvtColor(source.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light = lab[..., 0]
    edges = cv2.Laplacian(light, cv2.CV_32F, ksize=3)
    slope = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    ramps = [np.clip(source[..., c].astype(np.float32), low, low + 64) for c in range(3) for low in range(0, 256, 64)]
    steps = [10 * ((light >= low) & (light < low + 12)).astype(np.float32) for low in range(0, 100, 12)]
    return [light, _blurred(light, 1.0), lab[..., 1], lab[..., 2], slope, edges, np.abs(edges), *ramps, *steps]


def _lightness(picture: Pixels) -> Floats:
    return np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0], np.float32)


def _sharp(plane: npt.NDArray[Any]) -> Floats:
    return np.asarray(plane - cv2.blur(plane, (_SHARP, _SHARP)), np.float32)


# ------------------------------------------------------------------------------------------------------ whole films


@dataclass(frozen=True)
class Measures:
    """All figures of a film; each is a mean over the film, defined in core.measure.definitions.

    None: nothing to measure it on (one picture; for ghosting: too little motion; for drift: too short a film).
    """

    frames: int
    warp_error: float | None
    warp_error_input: float | None
    frame_consistency: float | None
    prompt_alignment: float | None
    edit_strength: float
    edit_structure: float
    sharpness: float | None
    ghosting: float | None
    spectrum: Spectrum | None
    drift: Drift | None
    curve: Curve
    faces: int
    faces_kept: float | None
    landmark_error: float | None


@dataclass(frozen=True)
class Means:
    """By what means a film is measured.

    embed: features of an output, for frame_consistency. align: compares a source's output with the prompt; None: no
    prompt. faces: finds faces; None: they are not looked for. region: where the style is; None: everywhere.
    """

    flow: OpticalFlow = field(default_factory=dis_flow)
    embed: Embed = descriptor
    align: Align | None = None
    faces: FindFaces | None = None
    region: FindRegion | None = None


def measure(
    source: Iterable[Pixels],
    output: Iterable[Pixels],
    *,
    means: Means | None = None,
    motions: Iterable[Motion] | None = None,
    done: Callable[[int], None] = lambda frames: None,
) -> Measures:
    """Measure all figures in one pass, two pictures held at a time; see measure_pairs. Raises MetricError."""
    return measure_pairs(_paired(source, output), means=means, motions=motions, done=done)


def measure_pairs(
    pairs: Iterable[tuple[Pixels, Pixels]],
    *,
    means: Means | None = None,
    motions: Iterable[Motion] | None = None,
    done: Callable[[int], None] = lambda frames: None,
) -> Measures:
    """Measure all figures of pairs of source and output, each of one size. Raises MetricError where there is none.

    motions: between the pictures of the source, where they are known already. done: called after each picture with how
    many there were.
    """
    means = means or Means()
    film = _Film(means)
    known = None if motions is None else iter(motions)
    before: Pixels | None = None
    for s, o in pairs:
        seen = None
        if before is not None:
            seen = motion(before, s, means.flow) if known is None else next(known)
        film.add(s, o, seen)
        before = s
        done(film.frames)
    if not film.frames:
        raise MetricError("there is no picture to measure")
    return film.measures()


class _Film:
    """What has been measured of a film so far."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.frames = 0
        self._errors, self._floors, self._cosines, self._aligned = _Mean(), _Mean(), _Mean(), _Mean()
        self._strengths, self._structures, self._sharpness = _Mean(), _Mean(), _Mean()
        self._ghosts, self._flicker, self._drift, self._identity = (
            GhostSums(),
            FlickerSums(),
            DriftSums(),
            IdentitySums(),
        )
        self._before: tuple[Pixels, Pixels, Floats] | None = None

    def add(self, source: Pixels, output: Pixels, seen: Motion | None) -> None:
        """Add a picture; seen: the motion that led to it, None for the first."""
        means = self._means
        region = None if means.region is None else means.region(source)
        self._add_edit(source, output, region)
        self._flicker.add(source, output, seen, region)
        shown = output if region is None else np.where(region[..., None], output, np.uint8(128))
        vector = means.embed(shown)
        if means.align is not None:
            self._aligned.add(means.align(source, shown))
        if means.faces is not None:
            self._identity.add(means.faces(source), means.faces(output))
        if self._before is not None and seen is not None:
            inside = seen.inside(region)
            before_source, before_output, before_vector = self._before
            self._errors.add(pair_warp_error(before_output, output, inside))
            self._floors.add(pair_warp_error(before_source, source, inside))
            self._cosines.add(100 * cosine(before_vector, vector))
            self._ghosts.add(source, before_output, output, seen.inside(well_inside(region, _SHARP // 2)))
        self._before = (source, output, vector)
        self.frames += 1

    def _add_edit(self, source: Pixels, output: Pixels, region: Mask | None) -> None:
        if region is not None and not region.any():  # nothing of this picture was to be changed
            return
        a, b, weight = _lab(source), _lab(output), _weight(region, source)
        self._strengths.add(_strength(a, b, weight))
        self._structures.add(_structure(a, b, weight))
        self._sharpness.add(_sharpness(a, b, weight))
        self._drift.add(a, b, weight)

    def measures(self) -> Measures:
        """Return the figures."""
        return Measures(
            frames=self.frames,
            warp_error=self._errors.value(),
            warp_error_input=self._floors.value(),
            frame_consistency=self._cosines.value(),
            prompt_alignment=self._aligned.value(),
            edit_strength=self._strengths.value() or 0.0,
            edit_structure=self._structures.value() or 0.0,
            sharpness=self._sharpness.value(),
            ghosting=self._ghosts.share(),
            spectrum=self._flicker.spectrum(),
            drift=self._drift.drift(),
            curve=self._drift.curve(),
            faces=self._identity.faces,
            faces_kept=self._identity.share_kept(),
            landmark_error=self._identity.error(),
        )


def warp_error(source: Iterable[Pixels], output: Iterable[Pixels], flow: OpticalFlow | None = None) -> float | None:
    """Return the flicker: MSE (0..255 squared, lower is steadier) between an output and the one before warped to it.

    The warp follows the flow of the *source*; only pixels visible in both count (`motion`); mean over pairs of
    pictures. The warp error of the paper (StreamV2V, section 5.1; after Lai et al., ECCV 2018). `warp_error(source,
    source)` is the floor: what flow, interpolation and the camera's noise leave. An output
    equal to the source scores best: read it beside `edit_strength`.
    """
    flow = flow or dis_flow()
    errors = _Mean()
    for (s0, o0), (s1, o1) in pairwise(_paired(source, output)):
        errors.add(pair_warp_error(o0, o1, motion(s0, s1, flow)))
    return errors.value()


def frame_consistency(output: Iterable[Pixels], embed: Embed = descriptor) -> float | None:
    """Return the mean cosine of the features of consecutive outputs, times 100 (100: all the same).

    With `core.measure.clip.Clip.picture` this is the paper's CLIP score. By default it is *not*: features are those of
    `descriptor`, which need no download; such figures compare with each other only.
    """
    cosines = _Mean()
    for a, b in pairwise(embed(o) for o in output):
        cosines.add(100 * cosine(a, b))
    return cosines.value()


def edit_strength(source: Iterable[Pixels], output: Iterable[Pixels]) -> float:
    """Return how far the output is from the source: `picture_edit_strength` (Delta E*ab), mean over pictures."""
    strengths = _Mean()
    for s, o in _paired(source, output):
        strengths.add(picture_edit_strength(s, o))
    return strengths.value() or 0.0


def edit_structure(source: Iterable[Pixels], output: Iterable[Pixels]) -> float:
    """Return how much structure was changed: `picture_edit_structure` (1 - SSIM), mean over pictures."""
    structures = _Mean()
    for s, o in _paired(source, output):
        structures.add(picture_edit_structure(s, o))
    return structures.value() or 0.0


def ghosting(source: Iterable[Pixels], output: Iterable[Pixels], flow: OpticalFlow | None = None) -> float | None:
    """Return the share of the previous output that shines through, unmoved, where the picture moves.

    Least squares over all moving visible pixels of the film (more than 1.5 px a frame) of the fine structure (L* less
    its 17x17 mean) of output t on: g * (output t-1 at the same place), h * (output t-1 at the place mirrored on its
    right one, p + 2 back), and functions of source t (colour, steps of colour, edges). The figure is g - h: an edit
    that moves with the picture resembles itself equally on both sides of its right place, a ghost only trails behind.

    0: none (also for edits with a texture of their own that moves along). s: output t = (1 - s) clean + s output t-1,
    found exactly when the clean edit follows from the source's colours; what the edit invents hides part of a ghost,
    so the true share may be up to three times the figure. 1: stands still, or is one picture late. None when too
    little moves.
    """
    flow = flow or dis_flow()
    sums = GhostSums()
    for (s0, o0), (s1, o1) in pairwise(_paired(source, output)):
        sums.add(s1, o0, o1, motion(s0, s1, flow))
    return sums.share()


class _Mean:
    """A running mean that leaves out None."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    def value(self) -> float | None:
        return self.total / self.count if self.count else None


def _paired(source: Iterable[Pixels], output: Iterable[Pixels]) -> Iterator[tuple[Pixels, Pixels]]:
    ours, theirs = iter(source), iter(output)
    count = 0
    while True:
        s, o = next(ours, None), next(theirs, None)
        if s is None and o is None:
            if not count:
                raise MetricError("there is no picture to measure")
            return
        if s is None or o is None:
            longer, more = ("source", ours) if o is None else ("output", theirs)
            total = count + 1 + sum(1 for _ in more)
            raise MetricError(
                f"the {longer} has {total} pictures and the other {count}; they must match picture by picture"
            )
        if s.shape != o.shape:
            raise MetricError(
                f"picture {count} is {s.shape[1]}x{s.shape[0]} in the source and {o.shape[1]}x{o.shape[0]} in the "
                "output; they must be of one size"
            )
        count += 1
        yield s, o
