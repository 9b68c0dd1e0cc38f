"""The cards that stand in for the picture, and the badge in its corner: how they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vcam.daemon.badge import draw_badge
from vcam.daemon.cards import CARD_REDRAW_S, Card, Halt, card_for, daemon_state, draw_card
from vcam.frames import EnginePhase, TranslatorState
from vcam.settings.config import CardTexts, load_config


def test_the_badge_lies_in_the_corner_only() -> None:
    plain = np.full((240, 320, 3), 128, np.uint8)
    badged = plain.copy()
    draw_badge(badged)
    rows, columns = np.nonzero((plain != badged).any(2))
    assert rows.min() > 200
    assert columns.min() > 280
    assert badged.max() > 220  # the letters


def test_a_picture_too_small_for_the_badge_goes_without() -> None:
    small = np.full((12, 12, 3), 128, np.uint8)
    draw_badge(small)
    assert (small == 128).all()


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (64, 48), (480, 640), (160, 120)])
@pytest.mark.parametrize("tone", ["busy", "calm", "warning", "blank"])
def test_cards_can_be_drawn_at_any_size(size: tuple[int, int], tone: str) -> None:
    words = "Grüße: the camera HD Pro Webcam C920 is not there, and this goes on for more lines than there is room " * 3
    card = draw_card(Card(words, 0.43, tone), size, 12.3)
    assert card.shape == (size[1], size[0], 3)
    assert card.std() > 5
    assert not card.flags.writeable


def test_a_busy_card_moves_and_shows_its_progress() -> None:
    busy = Card("One moment", 0.2)
    assert draw_card(busy, (320, 240), 0.01) is draw_card(busy, (320, 240), 0.02)
    assert (draw_card(busy, (320, 240), 0) != draw_card(busy, (320, 240), 3 * CARD_REDRAW_S)).any()
    assert (draw_card(busy, (320, 240)) != draw_card(Card("One moment", 0.9), (320, 240))).any()


def test_a_resting_card_is_the_same_picture_at_any_time() -> None:
    card = Card("Paused", tone="calm")
    assert draw_card(card, (320, 240), 1.0) is draw_card(card, (320, 240), 99.0)


STATES = ("starting", "running", "restarting", "resting", "waiting", "failed", "paused", "panic", "stopping")


@pytest.mark.parametrize("state", STATES)
def test_a_caller_reads_the_users_words_and_no_others(state: str) -> None:
    texts = CardTexts("wait", "trouble", "paused", "off")
    assert card_for(state, None, texts).title in ("wait", "trouble", "paused", "off")


def test_an_engine_that_was_killed_is_told_to_the_user_alone() -> None:
    killed = TranslatorState(EnginePhase.RESTARTING, "the engine was killed (SIGKILL): out of memory?")
    state, reason, progress = daemon_state(Halt.NO, killed, "")
    assert "SIGKILL" in reason
    assert card_for(state, progress, CardTexts()).title == "One moment"


def test_the_words_are_those_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[cards]\npaused = "Gleich zurück"\noff = ""\n', encoding="utf-8")
    assert load_config(file).cards == CardTexts(paused="Gleich zurück", off="")
    assert draw_card(Card(""), (320, 240)).std() > 0  # no words are a picture too
