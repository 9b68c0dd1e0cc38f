"""The test picture."""

from __future__ import annotations

import numpy as np
import pytest

from vcam.devices.test_pattern import draw_person


@pytest.mark.parametrize("size", [(640, 480), (256, 256), (160, 120), (360, 640), (65, 33), (1280, 720)])
def test_any_size_and_the_same_for_the_same_time(size: tuple[int, int]) -> None:
    picture = draw_person(1.25, size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert (picture == draw_person(1.25, size)).all()


def test_it_moves_all_the_time_but_never_jumps() -> None:
    for at in np.arange(0, 20, 0.7):
        before, after = draw_person(at, (160, 120)).astype(int), draw_person(at + 1 / 30, (160, 120)).astype(int)
        assert 0 < np.abs(after - before).mean() < 6


def test_it_is_colourful_and_shows_skin_in_the_middle() -> None:
    picture = draw_person(0.0, (640, 480))
    assert picture.reshape(-1, 3).std(0).min() > 30
    red, _, blue = picture[225, 320].astype(int)  # a cheek or the nose
    assert red > blue + 40


def test_it_talks_and_blinks() -> None:
    face = [draw_person(t, (320, 240))[60:140, 120:200].astype(int) for t in np.arange(0, 8, 0.1)]
    mouths = [picture[55:75].mean() for picture in face]
    assert np.std(mouths) > 1
