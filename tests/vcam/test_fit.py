"""Crop, pad and mirror."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vcam.fit import crop_to, pad_to
from vcam.frames import Picture

SIDES = st.integers(1, 70)


def flat(width: int, height: int, colour: tuple[int, int, int] = (200, 30, 40)) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


@given(SIDES, SIDES, SIDES, SIDES, st.booleans())
def test_a_flat_picture_of_any_size_stays_flat_when_cropped(a: int, b: int, c: int, d: int, mirror: bool) -> None:
    out = crop_to(flat(a, b), (c, d), mirror)
    assert out.shape == (d, c, 3)
    assert np.abs(out.astype(int) - (200, 30, 40)).max() <= 1


@given(SIDES, SIDES, SIDES.filter(lambda side: side > 7), SIDES.filter(lambda side: side > 7))
def test_padding_gives_the_size_and_a_picture_of_its_own(a: int, b: int, c: int, d: int) -> None:
    picture = flat(a, b)
    out = pad_to(picture, (c, d))
    assert out.shape == (d, c, 3)
    assert not np.shares_memory(out, picture)
    brightest = out.reshape(-1, 3).astype(int).max(0)  # a very long picture is a line in the middle
    assert np.abs(brightest - (200, 30, 40)).max() <= 2


def test_crop_takes_the_middle_and_mirrors() -> None:
    picture = flat(40, 20)
    picture[:, :10], picture[:, 30:] = 0, 0  # the sides, that a square crop leaves out
    picture[:, 10:20] = (10, 20, 30)
    square = crop_to(picture, (20, 20))
    assert (square[:, 0] == (10, 20, 30)).all()
    assert (crop_to(picture, (20, 20), mirror=True) == square[:, ::-1]).all()


def test_padding_keeps_the_whole_picture_between_darker_sides() -> None:
    out = pad_to(flat(20, 20), (40, 20))
    assert (out[:, 10:30] == (200, 30, 40)).all()
    assert 0 < out[:, :10, 0].mean() < 120


def test_colours_do_not_change_places() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 255
    for out in (crop_to(picture, (16, 16)), pad_to(picture, (16, 16))):
        assert out[8, 8].tolist() == [255, 0, 0]


def test_a_picture_of_almost_the_shape_fills_it() -> None:
    picture = np.full((224, 304, 3), 200, np.uint8)
    assert (pad_to(picture, (640, 480)) > 190).all()
    assert (pad_to(np.full((256, 256, 3), 200, np.uint8), (640, 480))[:, :40] < 190).all()
