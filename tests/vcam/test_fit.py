"""Crop, pad, mirror, badge and card."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcam.fit import CARD_REDRAW_S, Card, crop_to, draw_card, pad_to
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


def test_the_badge_lies_in_the_corner_only() -> None:
    picture = flat(320, 240, (128, 128, 128))
    plain, badged = pad_to(picture, (320, 240)), pad_to(picture, (320, 240), badge=True)
    rows, columns = np.nonzero((plain != badged).any(2))
    assert rows.min() > 200
    assert columns.min() > 280
    assert badged.max() > 220  # the letters


def test_a_picture_too_small_for_the_badge_goes_without() -> None:
    assert (pad_to(flat(12, 12), (12, 12), badge=True) == flat(12, 12)).all()


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (64, 48), (480, 640), (160, 120)])
@pytest.mark.parametrize("tone", ["busy", "calm", "warning", "blank"])
def test_cards_can_be_drawn_at_any_size(size: tuple[int, int], tone: str) -> None:
    words = "Grüße: the camera HD Pro Webcam C920 is not there, and this goes on for more lines than there is room " * 3
    card = draw_card(Card("A title that is long enough to break", words, 0.43, tone), size, 12.3)
    assert card.shape == (size[1], size[0], 3)
    assert card.std() > 5
    assert not card.flags.writeable


def test_a_busy_card_moves_and_shows_its_progress() -> None:
    busy = Card("Starting", "loading", 0.2)
    assert draw_card(busy, (320, 240), 0.01) is draw_card(busy, (320, 240), 0.02)
    assert (draw_card(busy, (320, 240), 0) != draw_card(busy, (320, 240), 3 * CARD_REDRAW_S)).any()
    assert (draw_card(busy, (320, 240)) != draw_card(Card("Starting", "loading", 0.9), (320, 240))).any()


def test_a_resting_card_is_the_same_picture_at_any_time() -> None:
    card = Card("Paused", tone="calm")
    assert draw_card(card, (320, 240), 1.0) is draw_card(card, (320, 240), 99.0)


def test_a_picture_of_almost_the_shape_fills_it() -> None:
    picture = np.full((224, 304, 3), 200, np.uint8)
    assert (pad_to(picture, (640, 480)) > 190).all()
    assert (pad_to(np.full((256, 256, 3), 200, np.uint8), (640, 480))[:, :40] < 190).all()
