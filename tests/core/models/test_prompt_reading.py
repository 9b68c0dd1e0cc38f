"""What is said of a prompt without loading the model: unknown words and the nearest known, marks, what is cut off."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from core.engine import Engine
from core.models.description import EMBEDDED, describe
from core.models.prompt_reading import nearest, prompt_notes
from core.models.tokenizer import light_tokenizer
from core.settings import EngineSettings, Look
from tests.support.model_folders import make_folder

STYLES = describe("embedded").styles


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a portrait by van goh", "the model does not know goh (van gogh?), and ignores such words"),
        ("clay mation", "the model does not know mation (claymation?), and ignores such words"),
        ("Watercolur of a zebra", "the model does not know watercolur (watercolour?), zebra, and ignores such words"),
        ("(pencil skech:1.3)", "the model does not know skech (pencil sketch?), and ignores such words"),
        ("a man, a man; a zebra and a zebra", "the model does not know zebra, and ignores such words"),
    ],
)
def test_unknown_words_are_told_with_the_nearest_that_is_known(prompt: str, said: str) -> None:
    assert prompt_notes("embedded", prompt) == (said,)


@pytest.mark.parametrize("prompt", ["", "claymation, a person talking", "van gogh", "MARBLE STATUE!", "a - b"[:1]])
def test_nothing_is_said_of_what_is_known(prompt: str) -> None:
    assert prompt_notes("embedded", prompt) == ()


def test_text_beyond_what_the_encoder_reads_is_told() -> None:
    prompt = "claymation, a person talking, " * 6
    assert prompt_notes("embedded", prompt) == ("the model reads 22 tokens of a prompt; not read: 'person talking,'",)


def test_a_word_as_long_as_a_prompt_is_told_by_its_beginning() -> None:
    said = f"the model does not know {'a' * 40}..., and ignores such words"
    assert said in prompt_notes("embedded", "ink, " + "a" * 1900)


def test_marks_that_mean_nothing_are_told_for_every_model(tmp_path: Path) -> None:
    for model in ("embedded", str(tmp_path / "absent"), "sd15-lcm"):
        notes = prompt_notes(model, "ink <lora:mine:1> AND clay")
        assert sum("<lora:mine:1> in a prompt loads nothing here" in note for note in notes) == 1
        assert sum("AND does not part a prompt here" in note for note in notes) == 1


def test_it_says_the_same_as_the_engine(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    engine = Engine(EngineSettings(model=str(folder), width=64, height=64, steps=1), Look(prompt="ink"))
    for prompt in ("a zebra of ink", "ink clay " * 40, "(ink:1.3) [clay] AND zebra", "ink"):
        unknown = engine.unknown_words(prompt)
        said = prompt_notes(str(folder), prompt)
        assert [note for note in said if "does not know" not in note] == engine.prompt_notes(prompt)
        assert all(any(word.lower() in note for note in said) for word in unknown)
        assert any("does not know" in note for note in said) == bool(unknown)


def test_it_needs_no_pytorch() -> None:
    code = (
        "import sys; from core.models.prompt_reading import prompt_notes; prompt_notes('embedded', 'zebra');"
        "print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=EMBEDDED.parents[1]
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("style", [style for style in STYLES if len(style) > 6])
def test_a_letter_left_out_finds_the_word_again(style: str) -> None:
    own = describe("embedded")
    words = style.split()
    for wrong, word in enumerate(words):
        for at in range(1, len(word) - 1 if len(word) > 3 else 0):
            given = [*words[:wrong], word[:at] + word[at + 1 :], *words[wrong + 1 :]]
            if given[wrong] not in own.words:
                assert nearest(["a", *given, "of", "me"], wrong + 1, own.words, own.styles) in {style, word}


# ------------------------------------------------------------------------------------------ CLIP's own two files


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small vocabulary of CLIP's kind: letters, and a few pairs of them."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tokenizer").mkdir()
    letters = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 324))]
    merges = ["a n", "c l", "cl a", "cla y</w>", "i n", "in k</w>", "o f</w>"]
    tokens = [*letters, *(f"{one}</w>" for one in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


@functools.cache
def _theirs(where: Path) -> CLIPTokenizer:
    return CLIPTokenizer(vocab=str(where / "vocab.json"), merges=str(where / "merges.txt"), unk_token="<|endoftext|>")


@settings(max_examples=50)
@given(st.text(max_size=60) | st.sampled_from(["clay of ink", "don't, it's 2024", "水墨 🎨", "A  B\n c"]))
def test_clips_two_files_are_read_as_transformers_reads_them(clip: Path, text: str) -> None:
    where = clip / "tokenizer"
    theirs = _theirs(where)
    tokenizer, unknown = light_tokenizer(clip)
    assert unknown is None
    assert tokenizer.encode(text).ids == theirs(text).input_ids
