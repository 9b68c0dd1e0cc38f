"""Prompt alignment: by a CLIP with both halves, small and random, and by the stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from core.errors import MetricError
from core.measure.alignment import EVERY, clip_alignment, direction_alignment
from core.measure.clip import Clip
from core.measure.metrics import cosine
from core.measure.motion import Pixels
from core.models.catalogue import CLIP, SOURCE
from tests.support import synthetic_films as films

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def whole_clip(folder: Path) -> Path:
    """A folder of a CLIP as the hub has it: both halves in one file, a tokenizer, a preparation of pictures."""
    letters = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 324))]
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    end = len(tokens) - 1
    text = CLIPTextConfig(
        **SMALL, vocab_size=len(tokens), max_position_embeddings=20, bos_token_id=end - 1, eos_token_id=end
    )
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**SMALL, image_size=32), projection_dim=16)
    ).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, "tokenizer_class": "CLIPTokenizer"}))
    return folder


def test_pictures_and_texts_of_a_clip_lie_in_one_space(tmp_path: Path) -> None:
    clip = Clip(str(whole_clip(tmp_path)))
    picture = films.source(1)[0]
    ink, clay = clip.text("ink"), clip.text("clay, " * 40)  # longer than it reads
    assert ink.shape == clay.shape == clip.picture(picture).shape == (16,)
    assert cosine(ink, clay) < 0.9999
    assert clip_alignment(clip, "ink")(picture, picture) == pytest.approx(100 * cosine(clip.picture(picture), ink))


def test_the_catalogues_clip_is_used_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path))
    with pytest.raises(MetricError, match="`vcam models download clip` fetches it"):
        Clip("clip")
    whole_clip(CLIP.folder)
    (CLIP.folder / SOURCE).write_text("{}")
    assert Clip("clip").text("ink").shape == (16,)


def test_a_clip_without_texts_says_so(tmp_path: Path) -> None:
    folder = whole_clip(tmp_path)
    clip = Clip(str(folder))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(MetricError, match="has no tokenizer"):
        clip_alignment(clip, "ink")
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL, image_size=32, projection_dim=16))
    vision.save_pretrained(folder)
    with pytest.raises(MetricError, match="has no text half"):
        clip_alignment(Clip(str(folder)), "ink")


def test_the_stand_in_asks_whether_the_change_is_the_references(films_of: list[Pixels]) -> None:
    def reference(picture: Pixels) -> Pixels:
        return np.asarray(255 - picture, np.uint8)

    align = direction_alignment(reference)
    found = [align(one, reference(one)) for one in films_of]
    assert [n for n, value in enumerate(found) if value is not None] == [0, EVERY]
    assert found[0] == pytest.approx(100, abs=1e-3)
    other = direction_alignment(reference)(films_of[0], np.asarray(films_of[0] // 3 + 150, np.uint8))
    assert other is not None
    assert other < 70


@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_next_to_no_change_is_not_what_a_prompt_asked_for(films_of: list[Pixels], sigma: float) -> None:
    noise = np.random.default_rng(0).normal(0, sigma, films_of[0].shape)
    output = np.asarray(np.clip(films_of[0] + noise, 0, 255), np.uint8)
    assert direction_alignment(lambda one: np.asarray(255 - one, np.uint8))(films_of[0], output) == 0
    assert direction_alignment(lambda one: one)(films_of[0], films_of[0]) is None, "the prompt asks for no change"


@pytest.fixture
def films_of() -> list[Pixels]:
    return films.source(EVERY + 4)
