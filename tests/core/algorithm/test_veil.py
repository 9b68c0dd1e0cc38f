"""At strength 1 nobody is to be recognised, though a detail stage draws what it sees of the source."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.algorithm.veil import veiled
from core.engine import Engine
from core.settings import EngineSettings, Look, Policy, Runtime
from vcam.devices.test_pattern import draw_person

Picture = NDArray[np.uint8]
PERSON: Picture = draw_person(1.0, (192, 144))


def fine(picture: Picture) -> NDArray[np.float32]:
    """What of a picture is finer than an eye or a mouth of the drawn person."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), 4), np.float32)


def alike(one: Picture, other: Picture) -> float:
    """Return how much the fine structure of one is the other's, 0..1, whatever a style makes dark or light."""
    return abs(float(np.corrcoef(fine(one).ravel(), fine(other).ravel())[0, 1]))


def test_up_to_the_strengths_that_keep_a_face_the_source_is_the_very_same() -> None:
    for strength in (0.02, 0.5, 0.8, 0.9):
        assert veiled(PERSON, strength) is PERSON


def test_the_veil_thickens_to_where_no_eye_is_left_and_keeps_the_coarse_colours() -> None:
    left = [float(np.abs(fine(veiled(PERSON, strength))).mean()) for strength in (0.9, 0.93, 0.97, 1.0)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1 * left[0]
    assert abs(veiled(PERSON, 1.0).mean() - PERSON.mean()) < 10, "grey levels of 255"


@pytest.mark.parametrize("size", [(64, 64), (320, 240), (2048, 2048)])
def test_it_takes_pictures_of_every_size(size: tuple[int, int]) -> None:
    flat = np.full((size[1], size[0], 3), (200, 30, 40), np.uint8)
    assert (veiled(flat, 1.0) == flat).all()


def test_what_the_included_model_shows_of_somebody_ends_with_strength_1() -> None:
    settings = EngineSettings("embedded", 192, 144, steps=1, runtime=Runtime.EAGER, device="cpu", policy=Policy.OFF)
    engine = Engine(settings, Look())
    shown = {}
    for style in ("claymation", "ink", "vintage photograph"):
        for strength in (0.5, 1.0):
            engine.set_look(Look(style, strength=strength))
            made = engine.translate(PERSON)
            assert made is not None
            shown[style, strength] = alike(made, PERSON)
    for style in ("claymation", "ink", "vintage photograph"):
        assert shown[style, 0.5] > 0.4, shown
        assert shown[style, 1.0] < 0.15, shown
