"""Which picture of an output belongs to which of its source: other rates, lengths, shapes, and a stream's delay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from core.measure.delay import MARGIN, Delay, estimate_delay
from vcam.errors import VcamError
from vcam.video import Kind, Media, Note, Picture, Pixels, probe, read, resized
from vcam.video.media import address

MOST_SKIPPED = 4  # pictures of a quicker source between two of the output's that are tried as its beginning
LOOKED_AT = 96  # pictures of each film on which the delay is estimated
SHAPES_AT = 8  # pictures by which it is seen how another shape came about
_FEW, _FEW_SHARE = 2, 0.02  # pictures, or that share, that one film may have more: the end of a stream, damaged ones
_ONE_RATE = 0.01  # share by which two rates may differ and be one
_ONE_SHAPE = 0.02  # share by which the aspects of one shape may differ
_LIKE, _SURER = 0.2, 0.03  # correlation of edges that a fit must have, and by which it must be better than the others

View = Callable[[Media, Iterable[Picture]], Iterable[Picture]]


def as_it_is(media: Media, pictures: Iterable[Picture]) -> Iterable[Picture]:
    """Return the pictures of a source of which all was translated."""
    return pictures


class Fit(StrEnum):
    """How an output of another shape shows its source: found out, stretched, its middle, or whole between bars."""

    AUTO = "auto"
    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"


class Taking(StrEnum):
    """Which picture stands for a time between two: the nearer one, or the one that is still shown there.

    A film of another rate is made in both ways: by a converter, and by who writes down what is on a screen.
    """

    NEAREST = "nearest"
    SHOWN = "shown"


@dataclass(frozen=True)
class FilmPairing:
    """How the pictures of two films belong together.

    width, height: pixels at which both are measured. source_every, output_every: every so many-th picture of the film
    is taken (1: all), and `taking` which where that is between two. source_skip: pictures of a quicker source before
    the first that is taken. delay: pictures, among those taken, by which the output is behind; negative: ahead. found:
    the estimate, None where it was told or cannot be made. expected: how many pairs there will be, about; None: not
    known.
    """

    source: Media
    output: Media
    width: int
    height: int
    fit: Fit = Fit.STRETCH
    source_every: Fraction = Fraction(1)
    output_every: Fraction = Fraction(1)
    taking: Taking = Taking.NEAREST
    source_skip: int = 0
    delay: int = 0
    found: Delay | None = None
    expected: int | None = None

    @property
    def rate(self) -> float:
        """Return pairs per second."""
        return float(self.source.rate / self.source_every)


def pair_up(
    source: Path,
    output: Path,
    note: Note,
    *,
    frames: int | None = None,
    delay: int | None = None,
    fit: Fit = Fit.AUTO,
    view: View = as_it_is,
) -> FilmPairing:
    """Find out how the two belong together, before anything is measured; what is not as it seems is said by `note`.

    frames: at most so many pairs. delay: of the output, pictures; None: estimated. view: what of the source's pictures
    was translated. Raises VcamError where they do not belong together, in one line.
    """
    ours, theirs = probe(source), probe(output)
    pairing = FilmPairing(ours, theirs, ours.width, ours.height)
    counts = (_count(ours), _count(theirs))
    pairing = _timed(pairing, counts, note)
    pairing = _fitted(pairing, fit, view, note)
    lengths = [None if n is None else int(n / every) for n, every in zip(counts, _everies(pairing), strict=True)]
    if delay is None:
        _check_lengths(pairing, lengths, frames, 0)  # before anything is looked at
        pairing = _delayed(pairing, view, note)
    else:
        pairing = replace(pairing, delay=delay)
    _check_lengths(pairing, lengths, frames, pairing.delay)
    _tell_lengths(pairing, lengths, frames, note)
    lost = (max(0, -pairing.delay), max(0, pairing.delay))
    known = [n - skipped for n, skipped in zip(lengths, lost, strict=True) if n is not None]
    expected = min(known) if known else None
    if expected is not None and expected < 1:
        raise VcamError(f"{output}: with a delay of {pairing.delay} not one of its pictures has a source")
    return replace(pairing, expected=frames if expected is None else min(frames or expected, expected))


def pairs(
    pairing: FilmPairing, note: Note, *, frames: int | None = None, view: View = as_it_is
) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield source and output, of one size; ends with the shorter one, and says what is left over."""
    ours, theirs = _taken(pairing, note, view)
    ours = itertools.islice(ours, max(0, -pairing.delay), None)
    theirs = itertools.islice(theirs, max(0, pairing.delay), None)
    count = 0
    while frames is None or count < frames:
        first, second = next(ours, None), next(theirs, None)
        if first is None or second is None:
            more = (first is not None or second is not None) + sum(1 for _ in (ours if second is None else theirs))
            if more > max(0, pairing.delay):  # a source's last ones are often in flight still when a stream ends
                longer = pairing.source if second is None else pairing.output
                last = "picture has no partner and is" if more == 1 else f"{more} pictures have no partner and are"
                note(f"{longer.path}: its last {last} left out")
            return
        yield first, second
        count += 1


def _taken(pairing: FilmPairing, note: Note, view: View) -> tuple[Iterator[Pixels], Iterator[Pixels]]:
    """Return the pictures of source and output that are taken, of one size, the delay not regarded."""
    # of what is shown at a time: of the source the last picture until then, and the first output that can have it
    rounded = (_nearest, _nearest) if pairing.taking is Taking.NEAREST else (math.floor, math.ceil)
    viewed = itertools.islice(view(pairing.source, read(pairing.source, note)), pairing.source_skip, None)
    ours = _every(viewed, pairing.source_every, rounded[0])
    theirs = _every(read(pairing.output, note), pairing.output_every, rounded[1])
    return (_source_part(one.rgb, pairing) for one in ours), (_output_part(one.rgb, pairing) for one in theirs)


def _everies(pairing: FilmPairing) -> tuple[Fraction, Fraction]:
    return pairing.source_every, pairing.output_every


def _nearest(at: Fraction) -> int:
    return math.floor(at + Fraction(1, 2))  # round() takes a half up and down in turn


def _every(pictures: Iterable[Picture], every: Fraction, rounded: Callable[[Fraction], int]) -> Iterator[Picture]:
    wanted = 0
    for index, picture in enumerate(pictures):
        if index == rounded(wanted * every):
            wanted += 1
            yield picture


# ---------------------------------------------------------------------------------------------- rates and lengths


def _timed(pairing: FilmPairing, counts: tuple[int | None, int | None], note: Note) -> FilmPairing:
    """Return by which pictures two films of different rates are paired; raise VcamError."""
    ours, theirs = pairing.source, pairing.output
    if Kind.VIDEO not in (ours.kind, theirs.kind) or ours.kind is not theirs.kind:
        return pairing  # a folder has no rate of its own
    if abs(ours.rate / theirs.rate - 1) < _ONE_RATE:
        return pairing
    rates = f"{float(theirs.rate):.4g} pictures a second, its source {float(ours.rate):.4g}"
    first, second = counts
    if first is None or second is None:
        raise VcamError(f"{theirs.path} has {rates}; how many there are is not told: bring both to one rate")
    if abs(first - second) <= _few(first, second):
        note(f"{theirs.path}: it has {rates}, but as many pictures: they are paired one by one")
        return pairing
    seconds = float(first / ours.rate), float(second / theirs.rate)
    if abs(seconds[0] - seconds[1]) > max(_FEW_SHARE * seconds[0], float(_FEW / min(ours.rate, theirs.rate))):
        raise VcamError(
            f"{theirs.path} has {counted(second)}, {rates} with {first}: they match neither picture by picture nor in "
            f"time ({seconds[1]:.2f} s and {seconds[0]:.2f} s)"
        )
    note(f"{theirs.path}: it has {rates}: pictures of one time are paired, at the lower rate")
    ratio = (ours.rate / theirs.rate).limit_denominator(10_000)
    return replace(pairing, source_every=max(ratio, Fraction(1)), output_every=max(1 / ratio, Fraction(1)))


def _few(first: int, second: int) -> float:
    return max(_FEW, _FEW_SHARE * max(first, second))


def _check_lengths(pairing: FilmPairing, lengths: list[int | None], frames: int | None, delay: int) -> None:
    """Raise VcamError where one has clearly more pictures than the other: now, not after all were measured."""
    first, second = lengths
    if first is None or second is None or (frames is not None and min(first, second) - abs(delay) >= frames):
        return
    if abs(first - second) > _few(first, second) + abs(delay):
        raise VcamError(
            f"{pairing.output.path} has {counted(second)} and {pairing.source.path} {first}; they must match picture "
            f"by picture: --frames {min(first, second)} measures the first ones"
        )


def _tell_lengths(pairing: FilmPairing, lengths: list[int | None], frames: int | None, note: Note) -> None:
    """Say where only the first pictures of films are measured that have clearly not the same number."""
    first, second = lengths
    if first is None or second is None or frames is None or abs(first - second) <= _few(first, second):
        return
    note(f"{pairing.output.path}: it has {counted(second)}, its source {first}; the first {frames} are measured")


def counted(pictures: int) -> str:
    """Return how many pictures that are, in words."""
    return f"{pictures} picture{'' if pictures == 1 else 's'}"


def _count(media: Media) -> int | None:
    """Return how many pictures a film's file holds, without reading one; None where that is not known."""
    if media.kind is not Kind.VIDEO or media.animated:
        return len(media.pictures) or None
    if media.frames:
        return media.frames
    import av

    with av.open(address(media.path)) as film:
        packets = film.demux(film.streams.video[0])
        return sum(packet.size > 0 and not packet.is_discard for packet in packets)  # discarded: cut off, yet stored


# ------------------------------------------------------------------------------------------------------ the delay


def _delayed(pairing: FilmPairing, view: View, note: Note) -> FilmPairing:
    """Return the pairing with the delay that the pictures show; where they show none for certain, there is none."""
    between = any(every.denominator > 1 for every in _everies(pairing))
    skips = range(
        min(math.ceil(pairing.source_every), MOST_SKIPPED)
    )  # it may be late by less than a picture of its own
    ways = itertools.product(Taking if between else [Taking.NEAREST], skips)
    pairing, *others = [_estimated(replace(pairing, taking=way, source_skip=skip), view) for way, skip in ways]
    for other in others:
        if pairing.found and other.found and other.found.agreement > pairing.found.agreement + MARGIN:
            pairing = other
    if pairing.taking is Taking.SHOWN:
        note(f"{pairing.output.path}: each of its pictures is the source's last one until then, and so paired")
    found = pairing.found
    if found is None:
        return pairing
    if not found.certain and found.moving:
        note(
            f"{pairing.output.path}: nothing of how its source moves is seen in it (moving edges agree by "
            f"{found.agreement:.2f}): whether it is late, or of this source at all, is not known; it is measured as it "
            "is"
        )
    if not found.certain or found.frames == 0:
        return pairing
    word, lost = ("behind", "its own") if found.frames > 0 else ("ahead of", "the source's")
    if found.beyond:
        raise VcamError(
            f"{pairing.output.path}: it is {abs(found.frames)} pictures {word} its source or more, which is further "
            "than is looked: say by --delay how many"
        )
    late = found.frames * pairing.source_every - pairing.source_skip
    exact = f", {float(late):g} of the source's," if pairing.source_skip else ""
    note(
        f"{pairing.output.path}: it is {counted(abs(found.frames))}{exact} {word} its source (moving edges agree by "
        f"{found.agreement:.2f}, unshifted by {found.at_none:.2f}) and is measured so, without {lost} first "
        f"{abs(found.frames)}: --delay 0 leaves it unshifted"
    )
    return replace(pairing, delay=found.frames)


def _estimated(pairing: FilmPairing, view: View) -> FilmPairing:
    ours, theirs = (itertools.islice(one, LOOKED_AT) for one in _taken(pairing, lambda _: None, view))
    return replace(pairing, found=estimate_delay(ours, theirs))


# ------------------------------------------------------------------------------------------------------- the shape


def _fitted(pairing: FilmPairing, fit: Fit, view: View, note: Note) -> FilmPairing:
    """Return the pairing with the size at which both are measured; raise VcamError for shapes that do not match."""
    ours, theirs = pairing.source, pairing.output
    if (ours.width, ours.height) == (theirs.width, theirs.height):
        return pairing
    sizes = f"the picture is {theirs.width}x{theirs.height}, its source {ours.width}x{ours.height}"
    if abs(theirs.width * ours.height / (theirs.height * ours.width) - 1) <= _ONE_SHAPE:
        note(f"{theirs.path}: {sizes}; it is measured at the source's size")
        return pairing
    candidates = {one: _sized(pairing, one) for one in (Fit.STRETCH, Fit.CROP, Fit.PAD)}
    if fit is not Fit.AUTO:
        return candidates[fit]
    likeness = {one: _likeness(candidate, view) for one, candidate in candidates.items()}
    best, second = sorted(likeness, key=lambda one: -likeness[one])[:2]
    if likeness[best] < _LIKE or likeness[best] - likeness[second] < _SURER:
        raise VcamError(
            f"{theirs.path}: {sizes}; they must be of one shape: say by --fit crop, stretch or pad how the one became "
            "the other"
        )
    words = {Fit.STRETCH: "all of it, stretched", Fit.CROP: "the middle of it", Fit.PAD: "all of it, between bars"}
    note(f"{theirs.path}: {sizes}; it shows {words[best]}, and so it is measured")
    return candidates[best]


def _sized(pairing: FilmPairing, fit: Fit) -> FilmPairing:
    ours, theirs = pairing.source, pairing.output
    if fit is Fit.CROP:  # the source loses what the output does not show
        width, height = _largest((ours.width, ours.height), (theirs.width, theirs.height))
        return replace(pairing, fit=fit, width=width, height=height)
    return replace(pairing, fit=fit)


def _largest(inside: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height of that shape inside another picture."""
    scale = min(inside[0] / shape[0], inside[1] / shape[1])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _middle(picture: Pixels, width: int, height: int) -> Pixels:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def _source_part(picture: Pixels, pairing: FilmPairing) -> Pixels:
    return _middle(picture, pairing.width, pairing.height) if pairing.fit is Fit.CROP else picture


def _output_part(picture: Pixels, pairing: FilmPairing) -> Pixels:
    if pairing.fit is Fit.PAD:
        size = (picture.shape[1], picture.shape[0])
        picture = _middle(picture, *_largest(size, (pairing.source.width, pairing.source.height)))
    return resized(picture, pairing.width, pairing.height)


def _likeness(pairing: FilmPairing, view: View) -> float:
    """Return how well the edges of the first pictures agree: their mean correlation."""
    taken = _taken(pairing, lambda _: None, view)
    found = [_agreement(first, second) for first, second in itertools.islice(zip(*taken, strict=False), SHAPES_AT)]
    return float(np.mean(found)) if found else 0.0


def _agreement(first: Pixels, second: Pixels) -> float:
    edges = []
    for picture in (first, second):
        small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (96, 96), interpolation=cv2.INTER_AREA)
        plane = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0)
        edge = np.hypot(*(cv2.Sobel(plane, cv2.CV_32F, x, 1 - x) for x in (1, 0)))
        edges.append(edge - edge.mean())
    lengths = float(np.linalg.norm(edges[0]) * np.linalg.norm(edges[1]))
    return float((edges[0] * edges[1]).sum()) / lengths if lengths > 1 else 0.0
