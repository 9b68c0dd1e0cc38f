"""The marks in a prompt that people know from other Stable Diffusion programs, and what they mean here.

`(word)` weighs 1.1 times as much, `(word:1.3)` 1.3 times, `[word]` 1/1.1 times; they may be nested, and a backslash
before a bracket makes it an ordinary letter. `notes` names everything else that such
programs read out of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

STEP = 1.1
LIGHTEST, HEAVIEST = 0.0, 3.0  # beyond, pictures fall apart
_DEEPEST = 32  # brackets; deeper ones are ordinary letters
_PARTS = re.compile(r"\\[()\[\]\\]|[()\[\]]|[^\\()\[\]]+|\\")
_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
_FILES = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_ALTERNATIVES = re.compile(r"\[[^\[\]]*[|:][^\[\]]*\]")


class Piece(NamedTuple):
    """A part of a prompt, and how much it weighs."""

    text: str
    weight: float


def read(prompt: str) -> list[Piece]:
    """Return the prompt's parts in their order, without marks; one of weight 1 where there are none."""
    pieces: list[Piece] = []
    opened: list[tuple[str, int]] = []  # brackets, and the piece that each begins with
    for part in _PARTS.findall(_FILES.sub("", prompt)):
        if part in "([" and len(opened) < _DEEPEST:
            opened.append((part, len(pieces)))
        elif part in ")]" and opened and opened[-1][0] == {")": "(", "]": "["}[part]:
            _close(pieces, *opened.pop())
        else:
            pieces.append(Piece(part[1:] if len(part) == 2 and part[0] == "\\" else part, 1.0))
    joined: list[Piece] = []
    for text, weight in pieces:
        weight = min(max(weight, LIGHTEST), HEAVIEST)
        if joined and joined[-1].weight == weight:
            joined[-1] = Piece(joined[-1].text + text, weight)
        else:
            joined.append(Piece(text, weight))
    return joined or [Piece("", 1.0)]


def _close(pieces: list[Piece], bracket: str, first: int) -> None:
    """Weigh the pieces from `first` on by what their bracket says."""
    factor = STEP if bracket == "(" else 1 / STEP
    told = _WEIGHT.search(pieces[-1].text) if bracket == "(" and len(pieces) > first else None
    if told is not None:
        factor = min(float(told[1]), 100.0)
        pieces[-1] = Piece(pieces[-1].text[: told.start()], pieces[-1].weight)
    pieces[first:] = [Piece(text, weight * factor) for text, weight in pieces[first:]]


def plain(prompt: str) -> str:
    """Return the prompt's text without marks: what a text encoder reads."""
    return "".join(piece.text for piece in read(prompt))


def words(prompt: str) -> list[str]:
    """Return the words of the prompt's text, without punctuation."""
    return re.findall(r"\w+(?:['-]\w+)*", plain(prompt))


def cut_off(text: str, spans: Sequence[tuple[int, int]], length: int) -> list[str]:
    """Return what is to be said where a plain text has more tokens than an encoder reads; nothing for length 0.

    spans: where in the text each token lies, the special ones included; length: tokens read, with the special ones.
    """
    if not length or len(spans) <= length:
        return []
    beyond = text[spans[length - 1][0] :].strip()
    shown = beyond if len(beyond) <= 60 else f"{beyond[:57]}..."
    return [f"the model reads {length - 2} tokens of a prompt; not read: {shown!r}"]


def notes(prompt: str) -> list[str]:
    """Return what is to be said of marks that mean nothing here, a sentence without its end each."""
    found = [
        f"{mark} in a prompt loads nothing here: name the file in the profile's loras"
        for mark in _FILES.findall(prompt)
    ]
    found += [
        f"{word} does not part a prompt here: it is read as a word"
        for word in ("AND", "BREAK")
        if re.search(rf"\b{word}\b", prompt)
    ]
    if mark := _ALTERNATIVES.search(prompt):
        found.append(f"{mark[0]} does not change in the course of a picture here: it is read as less weight")
    told = [float(number) for number in re.findall(r"\([^()]*:\s*([+-]?\d*\.?\d+)\s*\)", prompt)]
    if beyond := [number for number in told if not LIGHTEST <= number <= HEAVIEST]:
        found.append(f"a weight of {beyond[0]:g} is taken as {min(max(beyond[0], LIGHTEST), HEAVIEST):g}")
    return found
