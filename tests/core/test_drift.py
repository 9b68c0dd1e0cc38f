"""core.drift: a drift is seen; a change of the scene, whatever its style, or a fault of a moment is none."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.drift import EVERY, DriftWatch

Pixels = NDArray[np.uint8]
LONG = 900
UNSEEN = np.zeros((48, 64, 3), np.uint8)


def scene(number: int) -> Pixels:
    """A picture of some structure, which moves."""
    y, x = np.mgrid[0:48, 0:64]
    waves = [np.sin((x + number * speed) / 3 + y / 5) * 60 + 120 for speed in (0.3, 0.5, 0.7)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def blurred(picture: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8) if sigma > 0.05 else picture


def lit(picture: Pixels, share: float) -> Pixels:
    return np.asarray((picture * share).clip(0, 255), np.uint8)


def empty(number: int) -> Pixels:
    """The scene after the person has left: a wall with a little structure, and a lamp."""
    wall = scene(number) // 8 + 150
    wall[:, :12] = (250, 240, 200)
    return np.asarray(wall, np.uint8)


def ink(picture: Pixels) -> Pixels:
    """Black lines where the picture has edges, on paper that is white however dark the picture is."""
    edges = np.abs(cv2.Laplacian(picture.astype(np.float32), cv2.CV_32F, ksize=3)).max(axis=2)
    lines = 255 - 230 * (edges > 25)
    return np.asarray(np.repeat(lines[..., None], 3, axis=-1), np.uint8)


def neon(picture: Pixels) -> Pixels:
    """The picture's dark parts darker, and its bright ones gaudy."""
    values = picture.astype(np.float64) / 255
    return np.asarray((values**2.2 * np.array([1.0, 0.5, 1.0]) * 255).clip(0, 255), np.uint8)


def first_drift(source: Callable[[int], Pixels], output: Callable[[int], Pixels]) -> int | None:
    """The picture at which a drift is seen first."""
    watch = DriftWatch()
    for number in range(LONG):
        looks = number % EVERY == 0  # the others are counted, and not looked at
        watch = watch.after(source(number), output(number)) if looks else watch.after(UNSEEN, UNSEEN)
        if watch.drifted:
            return number
    return None


@pytest.mark.parametrize(
    "output",
    [
        lambda n: blurred(scene(n), n / 300),  # ever softer
        lambda n: (scene(n) * (1 - n / 1500)).astype(np.uint8),  # ever darker
        lambda n: (scene(n) + np.array([n / 25, 0, 0])).clip(0, 255).astype(np.uint8),  # ever redder
        lambda n: (128 + (scene(n) - 128.0) * (1 - n / 1400)).astype(np.uint8),  # ever paler
    ],
    ids=["softer", "darker", "redder", "paler"],
)
def test_a_slow_drift_is_seen(output: Callable[[int], Pixels]) -> None:
    assert first_drift(scene, output) is not None


@pytest.mark.parametrize(
    ("source", "output"),
    [
        (scene, lambda n: 255 - scene(n)),  # a strong edit that stays
        (lambda n: blurred(scene(n), n / 300), lambda n: blurred(scene(n), n / 300)),  # the camera loses its focus
        (scene, lambda n: np.zeros((48, 64, 3), np.uint8) if n % 100 < 3 else scene(n)),  # faults of a moment
        (scene, lambda n: np.random.default_rng(n).integers(0, 256, (48, 64, 3), np.uint8)),
    ],
    ids=["edit", "camera", "moment", "noise"],
)
def test_what_is_no_drift_is_not_taken_for_one(
    source: Callable[[int], Pixels], output: Callable[[int], Pixels]
) -> None:
    assert first_drift(source, output) is None


CHANGES: dict[str, Callable[[int], Pixels]] = {
    "cut": lambda n: scene(n) if n < 450 else (255 - scene(n)[::-1]) // 3,
    "light on": lambda n: lit(scene(n), 0.3 if n < 450 else 1.0),
    "slow dimming": lambda n: lit(scene(n), 1 - n / 1200),
    "person leaves": lambda n: scene(n) if n < 450 else empty(n),
    "light on and off": lambda n: lit(scene(n), 0.3 if n // 60 % 2 else 1.0),
}


@pytest.mark.parametrize("style", [ink, neon], ids=["ink", "neon"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_scene_is_no_drift_though_the_style_makes_something_else_of_it(
    change: Callable[[int], Pixels], style: Callable[[Pixels], Pixels]
) -> None:
    assert first_drift(change, lambda n: style(change(n))) is None


@pytest.mark.parametrize("style", [ink, neon], ids=["ink", "neon"])
@pytest.mark.parametrize("change", ["cut", "light on", "person leaves", "light on and off"])
def test_a_drift_is_seen_after_a_change_of_the_scene_too(change: str, style: Callable[[Pixels], Pixels]) -> None:
    source = CHANGES[change]

    def drifting(number: int) -> Pixels:
        gone = max(0, number - 600) / 300  # of its contrast, when the changed scene is known
        return np.asarray(160 + (style(source(number)) - 160.0) * (1 - gone), np.uint8)

    seen = first_drift(source, drifting)
    assert seen is not None
    assert seen > 600


def test_a_scene_is_known_again_when_it_returns() -> None:
    # away for so long that a drift meanwhile stays unseen there: everything in between is new
    def source(number: int) -> Pixels:
        return scene(number) if number < 300 or number >= 600 else lit(scene(number), 1 - (number - 300) / 400)

    def output(number: int) -> Pixels:
        return blurred(source(number), max(0.0, min((number - 300) / 60, 4.0)))

    seen = first_drift(source, output)
    assert seen is not None


def test_what_was_always_so_is_no_drift_and_its_end_is_seen() -> None:
    ended = first_drift(scene, lambda n: blurred(scene(n), 2.0) if n < 400 else scene(n))
    assert ended is not None
    assert ended > 400
