"""core.algorithm.prompts: encoding, the cache, unknown words, blending."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextModel

from benchmarks.random_model import tokenizer
from core.algorithm import prompts
from core.algorithm.prompts import PromptEncoder
from core.errors import ModelError
from tests.support.model_folders import LENGTH, WORDS, small_text_encoder

WIDTH = 8
sizes = st.integers(1, 40)


@pytest.fixture(scope="module")
def text_encoder() -> CLIPTextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: CLIPTextModel = small_text_encoder(WIDTH, layers=1, heads=1).eval()
        return encoder


@pytest.fixture
def encoder(text_encoder: CLIPTextModel) -> PromptEncoder:
    return prompts.clip_encoder(tokenizer(WORDS, LENGTH), text_encoder, torch.float32)


def test_a_tokenizer_of_another_model_is_refused_in_words(text_encoder: CLIPTextModel) -> None:
    many = tokenizer([*WORDS, *(f"w{number}" for number in range(200)), "last"], LENGTH)
    with pytest.raises(ModelError, match=r"gives token \d+, the text encoder knows \d+: they are not of one model"):
        prompts.clip_encoder(many, text_encoder, torch.float32)("last")


def test_a_prompt_becomes_what_the_text_encoder_says(encoder: PromptEncoder, text_encoder: CLIPTextModel) -> None:
    ids = torch.tensor([[2, 4, 5, 3, 0, 0, 0, 0]])  # begin, ink, clay, end, padding
    with torch.no_grad():
        expected = text_encoder(ids).last_hidden_state
    assert torch.equal(encoder("ink clay"), expected)
    assert encoder("ink clay").shape == (1, LENGTH, WIDTH)
    assert not encoder("ink clay").requires_grad


def test_order_and_words_matter_and_case_does_not(encoder: PromptEncoder) -> None:
    assert not torch.allclose(encoder("ink clay"), encoder("clay ink"))
    assert torch.equal(encoder("INK"), encoder("ink"))


def test_what_is_too_long_is_cut_off(encoder: PromptEncoder) -> None:
    long = encoder("ink " * 6 + "clay")
    assert long.shape == (1, LENGTH, WIDTH)
    assert torch.equal(long, encoder("ink " * 6 + "neon " * 50))


@pytest.mark.parametrize("prompt", ["", "   ", "🎨", "\0", "ink\nclay", "水墨画"])
def test_any_text_can_be_encoded(encoder: PromptEncoder, prompt: str) -> None:
    assert encoder(prompt).isfinite().all()


def test_the_embedding_has_the_dtype_asked_for(text_encoder: CLIPTextModel) -> None:
    assert prompts.clip_encoder(tokenizer(WORDS, LENGTH), text_encoder, torch.float16)("ink").dtype is torch.float16


def test_a_prompt_is_encoded_once_and_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_CACHED", 3)
    asked: list[str] = []

    def embed(prompt: str) -> torch.Tensor:
        asked.append(prompt)
        return torch.zeros(1, 1, 1)

    encoder = PromptEncoder(embed, lambda word: True)
    for prompt in "abcabca":
        encoder(prompt)
    assert asked == list("abc")
    encoder("b")
    encoder("d")  # c is now the one that was not asked for the longest
    for prompt in "bda":
        encoder(prompt)
    assert asked == list("abcd")
    encoder("c")
    assert asked == list("abcdc")


def test_unknown_words_are_named_once_and_in_order(encoder: PromptEncoder) -> None:
    assert encoder.unknown_words("a zebra, talking to a RED zebra in Ink!") == ["zebra", "to", "in"]
    assert encoder.unknown_words("") == []
    assert encoder.unknown_words("ink, clay") == []


def test_punctuation_is_no_word(encoder: PromptEncoder) -> None:
    assert encoder.unknown_words("a person - talking -- 'red' ...") == []


def test_a_tokenizer_that_reads_bytes_knows_every_word(text_encoder: CLIPTextModel) -> None:
    bytes_like = tokenizer(WORDS, LENGTH)
    bytes_like.unk_token = bytes_like.eos_token  # as CLIP's own
    assert prompts.clip_encoder(bytes_like, text_encoder, torch.float32).unknown_words("zebra") == []


@given(sizes, st.integers(0, 2**31))
def test_a_blend_reaches_its_target_in_so_many_frames_and_never_turns_back(frames: int, seed: int) -> None:
    origin, target = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(seed))
    blend = prompts.blend_towards(prompts.constant(origin), target, frames)
    distances = [(origin - target).norm().item()]
    shares = [0.0]
    for _ in range(frames):
        distances.append((blend.text - target).norm().item())
        shares.append(blend.share)
        blend = blend.next()
    assert distances == sorted(distances, reverse=True)
    assert shares == pytest.approx([frame / frames for frame in range(frames + 1)])
    assert distances[-1] == 0
    assert torch.equal(blend.text, target)
    assert blend.next().share == 1


@given(sizes, sizes, st.integers(0, 2**31))
def test_a_blend_begun_on_the_way_goes_on_from_there(frames: int, taken: int, seed: int) -> None:
    first, second, third = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    blend = prompts.blend_towards(prompts.constant(first), second, frames)
    for _ in range(taken):
        blend = blend.next()
    here = blend.text
    after = prompts.blend_towards(blend, third, 10)
    torch.testing.assert_close(after.text, torch.lerp(here, third, 0.1))


@pytest.mark.parametrize("frames", [0, 1, -3])
def test_a_blend_of_no_frames_is_there_at_once(frames: int) -> None:
    blend = prompts.blend_towards(prompts.constant(torch.zeros(1)), torch.ones(1), frames)
    assert blend.share == 1
    assert torch.equal(blend.text, torch.ones(1))


def test_no_blend_stands_still() -> None:
    blend = prompts.constant(torch.ones(1))
    assert blend.next() is blend
    assert torch.equal(blend.text, torch.ones(1))
