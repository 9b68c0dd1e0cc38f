"""What surfaces show of a model: its own values, its words; and sizes without bars."""

from __future__ import annotations

import pytest

from core.models.description import describe
from vcam.settings.engine_options import FILLS, sizes_like
from vcam.settings.model_facts import own_values, words_of


def test_a_models_own_values_and_words() -> None:
    own = describe("embedded")
    assert own_values("embedded") == {
        "strength": own.strength,
        "fusion_strength": own.fusion_strength,
        "similarity_threshold": own.similarity_threshold,
        "interval": own.interval,
    }
    told = words_of("embedded")
    assert set(own.styles) == set(told["styles"])
    assert {"person", "ink"} <= set(told["words"])


def test_a_model_that_cannot_be_read_or_is_not_here_has_none() -> None:
    assert own_values("/there/is/none") == {}
    assert words_of("/there/is/none") == {"styles": (), "words": ()}
    assert words_of("sd15-lcm")["words"] == ()


@pytest.mark.parametrize(
    ("shape", "now"),
    [
        ((640, 480), (320, 240)),
        ((640, 480), (464, 336)),
        ((1280, 720), (384, 208)),
        ((100, 100), (256, 256)),
        ((720, 1280), (208, 384)),
    ],
)
def test_every_size_on_offer_fills_what_is_published(shape: tuple[int, int], now: tuple[int, int]) -> None:
    """464x336 was offered for 640x480: 3.6 percent off, with bars."""
    found = sizes_like(shape, now)
    assert now in found
    for width, height in found:
        assert width % 16 == height % 16 == 0
        stretch = width / height / (shape[0] / shape[1])
        assert (width, height) == now or max(stretch, 1 / stretch) < FILLS
    assert len(found) >= 3
