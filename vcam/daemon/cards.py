"""The daemon's state in words, and the card that stands in for the picture: what it says, and how it is drawn."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from vcam.frames import Picture, TranslatorState
from vcam.settings.config import CardTexts

_FONT = "sans"  # built into OpenCV 5
_INK = (236, 240, 247)
_SOFT = (158, 170, 190)
_ACCENTS = {"busy": (110, 168, 254), "calm": (126, 205, 172), "warning": (255, 184, 92)}
_SPINNER_TURN_S = 1.2
CARD_REDRAW_S = 0.1  # the spinner's step: what moves is redrawn this often, not at every tick


@dataclass(frozen=True)
class Card:
    """A picture that stands in: some words, perhaps how far it is (0..1).

    tone: "busy" turns a spinner, "calm" rests, "warning" asks for the user, "blank" tells nothing at all.
    """

    title: str
    progress: float | None = None
    tone: str = "busy"


class Halt(StrEnum):
    """Why nothing is translated although all could go on."""

    NO = ""
    PAUSED = "paused"
    PANIC = "panic"
    STOPPING = "stopping"


def daemon_state(
    halt: Halt, engine: TranslatorState, source_trouble: str, resting: bool = False
) -> tuple[str, str, float | None]:
    """Return the daemon's state, the reason and the progress (see Status)."""
    if halt:
        return halt.value, "", None
    # an engine that is ready and has had no picture waits for the camera, as we do
    waits = bool(engine.facts and source_trouble) and engine.phase != "failed"
    if engine.phase in ("failed", "restarting", "starting") and not waits:
        return engine.phase, engine.text, engine.progress
    if resting:
        return "resting", "no program looks at the camera", None
    if source_trouble:
        return "waiting", source_trouble, None
    return "running", "", None


def card_for(state: str, progress: float | None, texts: CardTexts) -> Card:
    """Return the card that a state shows: callers read it, so it holds no reason (the page and the log do)."""
    match state:
        case "starting" | "running" | "restarting":
            return Card(texts.wait, progress=progress)
        case "resting":
            return Card(texts.wait, tone="calm")
        case "waiting" | "failed":
            return Card(texts.trouble, tone="warning")
        case "paused":
            return Card(texts.paused, tone="calm")
        case _:
            return Card(texts.off, tone="blank")


# ------------------------------------------------------------------------------------------------------- drawing it


def draw_card(card: Card, size: tuple[int, int], now_s: float = 0.0) -> Picture:
    """Return the card at `size` (width, height), at least 64x48; equal for times within one CARD_REDRAW_S."""
    step = int(now_s / CARD_REDRAW_S) if card.tone == "busy" else 0
    percent = None if card.progress is None else round(100 * min(1.0, max(0.0, card.progress)))
    return _drawn(card.title, percent, card.tone, size, step)


@functools.lru_cache(maxsize=4)
def _drawn(title: str, percent: int | None, tone: str, size: tuple[int, int], step: int) -> Picture:
    picture = _still(title, tone, size).copy()
    width, height = size
    unit = min(width * 3 // 4, height) / 100
    accent = _ACCENTS.get(tone, _SOFT)
    if tone == "busy":
        angle = 360 * (step * CARD_REDRAW_S / _SPINNER_TURN_S) % 360
        centre = (width // 2, int(height * 0.30))
        _arc(picture, centre, 9 * unit, angle, 100, accent, 1.7 * unit)
    if percent is not None:
        left, right, y = int(width / 2 - 34 * unit), int(width / 2 + 34 * unit), int(height * 0.82)
        thick = max(2, round(1.8 * unit))
        cv2.line(picture, (left, y), (right, y), (52, 62, 84), thick, cv2.LINE_AA)
        if percent:
            cv2.line(picture, (left, y), (left + (right - left) * percent // 100, y), accent, thick, cv2.LINE_AA)
    picture.setflags(write=False)  # shared by the cache
    return picture


def _arc(
    picture: Picture,
    centre: tuple[int, int],
    radius: float,
    start_degrees: float,
    degrees: float,
    colour: tuple[int, int, int],
    thick: float,
) -> None:
    angles = np.radians(np.linspace(start_degrees, start_degrees + degrees, 2 + int(degrees / 5)))
    points = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    cv2.polylines(
        picture,
        [np.round(points * 16).astype(np.int32)],
        False,
        colour,
        max(1, round(thick)),
        cv2.LINE_AA,
        4,
    )


@functools.lru_cache(maxsize=4)
def _still(title: str, tone: str, size: tuple[int, int]) -> Picture:
    """Draw what does not move: background, words, sign."""
    width, height = size
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    top, bottom = np.array((30, 37, 56), np.float32), np.array((13, 16, 26), np.float32)
    light = 1.0 + 0.22 * np.exp(-((across / 0.7) ** 2 + ((down - 0.3) / 0.45) ** 2))
    picture = np.clip((top + (bottom - top) * down) * light, 0, 255).astype(np.uint8)
    unit = min(width * 3 // 4, height) / 100
    accent = _ACCENTS.get(tone, _SOFT)
    centre = (width // 2, int(height * 0.30))
    if tone == "busy":
        _arc(picture, centre, 9 * unit, 0, 360, (44, 54, 78), 1.7 * unit)
    elif tone == "warning":
        _arc(picture, centre, 9 * unit, 0, 360, accent, 1.7 * unit)
        x, y = centre
        cv2.line(
            picture, (x, int(y - 4 * unit)), (x, int(y + 0.5 * unit)), accent, max(1, round(1.7 * unit)), cv2.LINE_AA
        )
        cv2.circle(picture, (x, int(y + 4 * unit)), max(1, round(unit)), accent, -1, cv2.LINE_AA)
    elif tone == "calm":
        _arc(picture, centre, 9 * unit, 0, 360, accent, 1.7 * unit)
        for side in (-1, 1):
            x = int(centre[0] + side * 2.4 * unit)
            line = ((x, int(centre[1] - 3.2 * unit)), (x, int(centre[1] + 3.2 * unit)))
            cv2.line(picture, *line, accent, max(1, round(1.7 * unit)), cv2.LINE_AA)
    _words(picture, title, int(height * 0.58), round(8.2 * unit), 650, _INK, 2 if height < 200 else 3)
    if tone != "blank":
        _words(picture, "StreamV2V Camera", int(height * 0.945), round(3.8 * unit), 500, (92, 104, 128), 1)
    return picture


def _words(
    picture: Picture, text: str, y: int, size: int, weight: int, colour: tuple[int, int, int], lines: int
) -> None:
    """Write `text` centred, broken into at most `lines` lines, the first one's base at `y`."""
    height, width = picture.shape[:2]
    size = max(7, size)
    face = cv2.FontFace(_FONT)

    def wide(words: str) -> int:
        return int(cv2.getTextSize((width, height), words, (0, 0), face, size, weight)[2])

    rows: list[str] = []
    for word in text.split():
        if rows and wide(f"{rows[-1]} {word}") <= width * 0.88:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], rows[lines - 1] + " …"]
    for row in rows:
        cv2.putText(picture, row, ((width - wide(row)) // 2, y), colour, face, size, weight)
        y += math.ceil(size * 1.32)
