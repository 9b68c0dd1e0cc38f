"""core.drift: a drift is seen, a change of the scene or a fault of a moment is none."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.drift import DriftWatch

Pixels = NDArray[np.uint8]
LONG = 900


def scene(number: int) -> Pixels:
    """A picture of some structure, which moves."""
    y, x = np.mgrid[0:48, 0:64]
    waves = [np.sin((x + number * speed) / 3 + y / 5) * 60 + 120 for speed in (0.3, 0.5, 0.7)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def blurred(picture: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8) if sigma > 0.05 else picture


def first_drift(source: Callable[[int], Pixels], output: Callable[[int], Pixels]) -> int | None:
    """The picture at which a drift is seen first."""
    watch = DriftWatch()
    for number in range(LONG):
        watch = watch.after(source(number), output(number))
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


def test_what_was_always_so_is_no_drift_and_its_end_is_seen() -> None:
    ended = first_drift(scene, lambda n: blurred(scene(n), 2.0) if n < 400 else scene(n))
    assert ended is not None
    assert ended > 400
