"""Measures how steady, consistent, strong and clean a translation is, on the source and the result.

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
from core.measure.motion import Floats, Motion, OpticalFlow, Pixels, dis_flow, motion, places, square, warped

Embed = Callable[[Pixels], Floats]  # picture -> vector [n]


def clip_embed(folder_or_name: str) -> Embed:
    """Return the image embedding of a CLIP model that is on this machine (transformers, no download).

    With `openai/clip-vit-base-patch32` or the like, `frame_consistency` is the paper's "CLIP score". Raises
    MetricError.
    """
    try:
        import torch
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
    except ImportError as error:
        raise MetricError("CLIP needs transformers: pip install transformers, or leave --clip out") from error
    try:
        prepare = CLIPImageProcessor.from_pretrained(folder_or_name, local_files_only=True)
        net: Any = CLIPVisionModelWithProjection.from_pretrained(folder_or_name, local_files_only=True)
    except Exception as error:  # as do broken files with transformers
        raise MetricError(f"{folder_or_name}: no CLIP model of that name on this machine; give its folder") from error

    net.eval()

    def embed(picture: Pixels) -> Floats:
        with torch.inference_mode():
            vector = net(**prepare(images=picture, return_tensors="pt")).image_embeds[0]
        return cast(Floats, vector.float().numpy())

    return embed


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
    cell = (row // 16) * 8 + column // 16
    index = cell * 9 + bins.astype(np.intp).ravel()
    return np.asarray(np.bincount(index, weights.ravel().astype(np.float64), 8 * 8 * 9), np.float64)


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two vectors."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return min(1.0, float(np.dot(a, b)) / lengths) if lengths else 1.0


def picture_edit_strength(source: Pixels, output: Pixels) -> float:
    """Return how far one output is from its source: mean CIE 1976 colour difference (Delta E*ab) over pixels.

    Both are first area-averaged to a short side of at most 256 pixels, so that single-pixel noise counts little. 0:
    identical; about 2: just visible; 100: black against white.
    """
    a, b = (_lab(p) for p in (source, output))
    return float(np.sqrt(((a - b) ** 2).sum(axis=2)).mean(dtype=np.float64))


def picture_edit_structure(source: Pixels, output: Pixels) -> float:
    """Return how much of the structure was changed: 1 - SSIM (Wang et al. 2004) of lightness; 0 identical, 1 unrelated.

    Gaussian window of sigma 1.5, constants for a range of 100 (L*), at a short side of at most 256 pixels.
    """
    a, b = (_lab(p)[..., 0] for p in (source, output))
    mean_a, mean_b = _blurred(a, 1.5), _blurred(b, 1.5)
    var_a, var_b = _blurred(a * a, 1.5) - mean_a**2, _blurred(b * b, 1.5) - mean_b**2
    both = _blurred(a * b, 1.5) - mean_a * mean_b
    c1, c2 = (0.01 * 100) ** 2, (0.03 * 100) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return max(0.0, 1 - float(ssim.mean(dtype=np.float64)))


def _lab(picture: Pixels) -> Floats:
    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    if scale < 1:
        picture = cast(
            Pixels, cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        )
    return cast(Floats, cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def _blurred(plane: npt.NDArray[Any], sigma: float) -> Floats:
    return cast(Floats, cv2.GaussianBlur(plane, (0, 0), sigma))


# ------------------------------------------------------------------------------------------------------ ghosts


MOVING = 1.5  # pixels a frame; slower places cannot tell a ghost from the thing itself
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
    return np.asarray(plane - cv2.blur(plane, (17, 17)), np.float32)


# ------------------------------------------------------------------------------------------------------ whole films


@dataclass(frozen=True)
class Measures:
    """All figures of a film; each is a mean over the film, defined at the function of the same name.

    warp_error_input is the floor: the warp error of the unedited source. None: nothing to measure it on (one picture;
    for ghosting: too little motion).
    """

    frames: int
    warp_error: float | None
    warp_error_input: float | None
    frame_consistency: float | None
    edit_strength: float
    edit_structure: float
    ghosting: float | None


def measure(
    source: Iterable[Pixels],
    output: Iterable[Pixels],
    *,
    flow: OpticalFlow | None = None,
    embed: Embed = descriptor,
    done: Callable[[int], None] = lambda frames: None,
) -> Measures:
    """Measure all figures in one pass, two pictures held at a time. Raises MetricError.

    done: called after each picture with how many there were.
    """
    flow = flow or dis_flow()
    errors, floors, cosines = _Mean(), _Mean(), _Mean()
    strengths, structures = _Mean(), _Mean()
    ghosts = GhostSums()
    before: tuple[Pixels, Pixels, Floats] | None = None
    for s, o in _paired(source, output):
        strengths.add(picture_edit_strength(s, o))
        structures.add(picture_edit_structure(s, o))
        vector = embed(o)
        if before is not None:
            seen = motion(before[0], s, flow)
            errors.add(pair_warp_error(before[1], o, seen))
            floors.add(pair_warp_error(before[0], s, seen))
            cosines.add(100 * cosine(before[2], vector))
            ghosts.add(s, before[1], o, seen)
        before = (s, o, vector)
        done(strengths.count)
    return Measures(
        frames=strengths.count,
        warp_error=errors.value(),
        warp_error_input=floors.value(),
        frame_consistency=cosines.value(),
        edit_strength=strengths.value() or 0.0,
        edit_structure=structures.value() or 0.0,
        ghosting=ghosts.share(),
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

    With `clip_embed` this is the paper's CLIP score. By default it is *not*: features are those of `descriptor`,
    which need no download; such figures compare with each other only.
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
