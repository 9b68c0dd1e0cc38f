"""What a model reads of a prompt, told without loading the model: unknown words, marks, text that is cut off."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from core.algorithm import emphasis
from core.errors import StreamV2VError
from core.models import description
from core.models.catalogue import ENTRIES
from core.models.folder_files import part_config
from core.models.tokenizer import light_tokenizer

_ALIKE = 0.75  # of two words, from which on one may be meant by the other
_MOST_WORDS = 5000  # of a vocabulary that is one of words: larger ones hold parts of words
_SHOWN_OF_WORD = 40  # letters of a word that the model does not know
_LONGEST = 3  # words that may stand for a style's name


@dataclass(frozen=True)
class _Reader:
    """tokenizer: of the `tokenizers` package, without truncation.

    unknown: the id of what it does not know, None where it knows everything; length: tokens that are read, its own
    included.
    """

    tokenizer: Any
    unknown: int | None
    length: int
    words: frozenset[str]
    styles: tuple[str, ...]


def prompt_notes(model: str, prompt: str) -> tuple[str, ...]:
    """Return what is to be said of a prompt for that model (name or folder), a sentence without its end each.

    A model that cannot be read is no reason to say more than what is true for all.
    """
    entry = ENTRIES.get(model)
    return _notes(model, prompt, entry is None or entry.is_here())


def vocabulary(model: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the styles that a model (name or folder) knows, and all its words: none where it reads any.

    Raises ModelError.
    """
    reader = _reader(model)
    return reader.styles, () if reader.unknown is None else tuple(sorted(reader.words))


@functools.lru_cache(maxsize=256)
def _notes(model: str, prompt: str, is_here: bool) -> tuple[str, ...]:
    found = emphasis.notes(prompt)
    try:
        reader = _reader(model) if is_here else None
    except StreamV2VError:  # said when it is to be used
        reader = None
    if reader is None:
        return tuple(found)
    if unknown := _unknown(reader, prompt):
        words = ", ".join(word if len(word) <= _SHOWN_OF_WORD else f"{word[:_SHOWN_OF_WORD]}..." for word in unknown)
        found.append(f"the model does not know {words}, and ignores such words")
    text = emphasis.plain(prompt)
    found += emphasis.cut_off(text, reader.tokenizer.encode(text).offsets, reader.length)
    return tuple(found)


@functools.lru_cache(maxsize=8)
def _reader(model: str) -> _Reader:
    own = description.describe(model)
    tokenizer, unknown = light_tokenizer(own.folder)
    vocabulary = frozenset(own.words)
    if not own.words and unknown is not None and tokenizer.get_vocab_size() <= _MOST_WORDS:
        vocabulary = frozenset(word for word in tokenizer.get_vocab() if word.isalnum())
    length = part_config(own.folder, "text_encoder").get("max_position_embeddings", 0)
    return _Reader(tokenizer, unknown, length if isinstance(length, int) else 0, vocabulary, own.styles)


def _unknown(reader: _Reader, prompt: str) -> list[str]:
    """Return the words that the model ignores, each with the nearest that it knows."""
    if reader.unknown is None:
        return []
    words = [word.lower() for word in emphasis.words(prompt)]
    found = {}
    for at, word in enumerate(words):
        if word not in found and reader.unknown in reader.tokenizer.encode(word, add_special_tokens=False).ids:
            meant = nearest(words, at, reader.words, reader.styles)
            found[word] = f"{word} ({meant}?)" if meant else word
    return list(found.values())


def nearest(words: Sequence[str], at: int, known: Collection[str], styles: Collection[str]) -> str:
    """Return the known word or style that the word at that place, or words around it, come nearest to; "" for none."""
    best, meant = _ALIKE, ""
    for count in range(1, _LONGEST + 1):
        for begin in range(max(0, at - count + 1), min(at, len(words) - count) + 1):
            matcher = SequenceMatcher(b="".join(words[begin : begin + count]), autojunk=False)
            for candidate in {*styles, *known} if count == 1 else styles:
                matcher.set_seq1(candidate.replace(" ", ""))
                if matcher.quick_ratio() > best and (alike := matcher.ratio()) > best:
                    best, meant = alike, candidate
    return meant
