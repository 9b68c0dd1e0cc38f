"""core.algorithm.emphasis and what core.algorithm.prompts makes of it: weights, and what is said of marks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextModel

from benchmarks.random_model import tokenizer
from core.algorithm import emphasis, prompts
from core.algorithm.prompts import PromptEncoder
from tests.support.model_folders import LENGTH, WORDS, small_text_encoder


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder: CLIPTextModel = small_text_encoder(8, layers=1, heads=1).eval()
    return prompts.clip_encoder(tokenizer(WORDS, LENGTH), text_encoder, torch.float32)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("ink", [("ink", 1)]),
        ("", [("", 1)]),
        ("(clay:1.3)", [("clay", 1.3)]),
        ("a (red) ink", [("a ", 1), ("red", 1.1), (" ink", 1)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("(a (red:1.5) ink)", [("a ", 1.1), ("red", 1.65), (" ink", 1.1)]),
        (r"\(red\) ink", [("(red) ink", 1)]),
        ("(red", [("red", 1)]),
        ("red) ink:1.3", [("red) ink:1.3", 1)]),
        ("(red:99)", [("red", 3)]),
        ("(red:-1)", [("red", 0)]),
        ("red <lora:mine:0.8> ink", [("red  ink", 1)]),
    ],
)
def test_a_prompt_is_read_as_people_know_it(prompt: str, pieces: list[tuple[str, float]]) -> None:
    found = emphasis.read(prompt)
    assert "".join(piece.text for piece in found) == "".join(text for text, _ in pieces)
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in pieces])


@given(st.text(alphabet="ab ()[]:.19\\<>,", max_size=60))
def test_any_text_can_be_read(prompt: str) -> None:
    assert all(0 <= piece.weight <= 3 for piece in emphasis.read(prompt))
    assert isinstance(emphasis.notes(prompt), list)


def test_a_deep_prompt_costs_no_time() -> None:
    assert emphasis.plain("(" * 20_000 + "red" + ")" * 20_000).count("red") == 1


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("red <lora:mine:0.8>", "<lora:mine:0.8> in a prompt loads nothing here"),
        ("red AND ink", "AND does not part"),
        ("red BREAK ink", "BREAK does not part"),
        ("[red:ink:0.5]", "does not change in the course"),
        ("(red:7)", "a weight of 7 is taken as 3"),
    ],
)
def test_marks_that_mean_nothing_are_said(prompt: str, said: str) -> None:
    assert said in "; ".join(emphasis.notes(prompt))


@pytest.mark.parametrize("prompt", ["red ink", "(red:1.3) [ink]", "sand and a brand", ""])
def test_of_all_else_nothing_is_said(prompt: str) -> None:
    assert emphasis.notes(prompt) == []


def test_a_weight_scales_its_words_rows_and_keeps_the_size_of_the_whole(encoder: PromptEncoder) -> None:
    plain, weighed = encoder("red clay ink"), encoder("red (clay:1.5) ink")
    ratio = (weighed / plain)[0].mean(dim=1)  # rows: begin, red, clay, ink, end, padding
    torch.testing.assert_close(ratio[2] / ratio[1], torch.tensor(1.5), rtol=1e-4, atol=0)
    torch.testing.assert_close(ratio[[0, 3, 4, 7]], ratio[[1, 1, 1, 1]], rtol=1e-4, atol=0)
    torch.testing.assert_close(weighed.abs().mean(), plain.abs().mean())


def test_without_a_weight_the_embedding_is_the_plain_one(encoder: PromptEncoder) -> None:
    assert torch.equal(encoder("(red clay:1.0)"), encoder("red clay"))


def test_what_is_beyond_the_encoder_is_said(encoder: PromptEncoder) -> None:
    assert encoder.notes("ink " * (LENGTH - 2)) == []
    assert "not read: 'clay (red) neon'" not in encoder.notes("ink")
    (said,) = encoder.notes("ink " * (LENGTH - 2) + "clay neon")
    assert said == f"the model reads {LENGTH - 2} tokens of a prompt; not read: 'clay neon'"


def test_marks_are_no_unknown_words(encoder: PromptEncoder) -> None:
    assert encoder.unknown_words("(ink:1.3) <lora:mine:1>") == []
