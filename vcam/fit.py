"""From the camera's picture to the engine's size, from the engine's picture to the published one; badge and card."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from vcam.frames import Picture

_FONT = "sans"  # built into OpenCV 5
_INK = (236, 240, 247)
_SOFT = (158, 170, 190)
_ACCENTS = {"busy": (110, 168, 254), "calm": (126, 205, 172), "warning": (255, 184, 92)}
_SPINNER_TURN_S = 1.2
CARD_REDRAW_S = 0.1  # the spinner's step: what moves is redrawn this often, not at every tick


_ALMOST = 1.03  # a stretch that nobody sees


def crop_to(picture: Picture, size: tuple[int, int], mirror: bool = False) -> Picture:
    """The largest centred part of `picture` that has the shape of `size` (width, height), resized to exactly that."""
    width, height = size
    rows, columns = picture.shape[:2]
    part_columns = min(columns, max(1, round(rows * width / height)))
    part_rows = min(rows, max(1, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    part = picture[top : top + part_rows, left : left + part_columns]
    return _resized(part[:, ::-1] if mirror else part, size)


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    if picture.shape[1::-1] == size:
        return np.ascontiguousarray(picture)
    shrinks = picture.shape[0] > size[1]
    scaled = cv2.resize(
        np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.asarray(scaled, np.uint8)


def pad_to(picture: Picture, size: tuple[int, int], badge: bool = False) -> Picture:
    """The whole `picture` as large as it fits into `size` (width, height), on a dark blur of itself; new array.

    A picture of almost that shape fills it: engines work in multiples of 16 pixels, and thin edges look like a fault.
    """
    width, height = size
    rows, columns = picture.shape[:2]
    wide, high = width / columns, height / rows
    scale = min(wide, high)
    inner = (min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale))))
    if max(wide, high) / scale < _ALMOST:
        inner = size
    if inner == size:
        whole = _resized(picture, size)
        whole = whole.copy() if whole is picture else whole
    else:
        tiny = cv2.blur(cv2.resize(picture, (24, 18), interpolation=cv2.INTER_AREA), (5, 5))
        backdrop = cv2.resize(np.asarray(tiny * 0.45, np.uint8), size, interpolation=cv2.INTER_LINEAR)
        whole = np.asarray(backdrop, np.uint8)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        whole[top : top + inner[1], left : left + inner[0]] = _resized(picture, inner)
    if badge:
        _draw_badge(whole)
    return whole


def jpeg(picture: Picture) -> bytes:
    """The picture as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data.tobytes()


@functools.lru_cache(maxsize=4)
def _badge(unit: int) -> Picture:
    """The "AI" badge, RGB and opacity: uint8 [unit, 1.5 unit, 4]."""
    scale = 4
    width, height = int(unit * 1.5) * scale, unit * scale
    shape = np.zeros((height, width), np.uint8)
    radius = height // 3
    cv2.rectangle(shape, (radius, 0), (width - 1 - radius, height - 1), 165, -1)
    cv2.rectangle(shape, (0, radius), (width - 1, height - 1 - radius), 165, -1)
    for centre in [(x, y) for x in (radius, width - 1 - radius) for y in (radius, height - 1 - radius)]:
        cv2.circle(shape, centre, radius, 165, -1)
    text = np.zeros((height, width, 3), np.uint8)
    size = int(height * 0.62)
    face = cv2.FontFace(_FONT)
    left, top, wide, high = cv2.getTextSize((width, height), "AI", (0, 0), face, size, 700)
    cv2.putText(text, "AI", ((width - wide) // 2 - left, (height - high) // 2 - top), (255, 255, 255), face, size, 700)
    ink = cv2.resize(text, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(shape, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    return np.dstack([ink, np.maximum(opacity, ink[..., 0])])


def _draw_badge(picture: Picture) -> None:
    rows, columns = picture.shape[:2]
    unit = max(10, min(rows, columns) // 16)
    badge = _badge(unit)
    high, wide = badge.shape[:2]
    margin = unit // 2
    if rows < high + margin or columns < wide + margin:
        return
    corner = picture[rows - high - margin : rows - margin, columns - wide - margin : columns - margin]
    opacity = badge[..., 3:].astype(np.float32) / 255
    corner[:] = (corner * (1 - opacity) + badge[..., :3] * opacity).astype(np.uint8)


@dataclass(frozen=True)
class Card:
    """A picture that says what is going on: a title, a line or two, perhaps how far it is (0..1).

    tone: "busy" turns a spinner, "calm" rests, "warning" asks for the user, "blank" tells nothing at all.
    """

    title: str
    detail: str = ""
    progress: float | None = None
    tone: str = "busy"


def draw_card(card: Card, size: tuple[int, int], now_s: float = 0.0) -> Picture:
    """The card at `size` (width, height), at least 64x48; equal for times within one CARD_REDRAW_S."""
    step = int(now_s / CARD_REDRAW_S) if card.tone == "busy" else 0
    percent = None if card.progress is None else round(100 * min(1.0, max(0.0, card.progress)))
    return _drawn(card.title, card.detail, percent, card.tone, size, step)


@functools.lru_cache(maxsize=4)
def _drawn(title: str, detail: str, percent: int | None, tone: str, size: tuple[int, int], step: int) -> Picture:
    picture = _still(title, detail, tone, size).copy()
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
def _still(title: str, detail: str, tone: str, size: tuple[int, int]) -> Picture:
    """What does not move: background, words, sign."""
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
    y = _words(picture, title, int(height * 0.54), round(8.2 * unit), 650, _INK, 1 if height < 200 else 2)
    _words(picture, detail, y + round(1.5 * unit), round(5.0 * unit), 400, _SOFT, 3)
    if tone != "blank":
        _words(picture, "StreamV2V Camera", int(height * 0.945), round(3.8 * unit), 500, (92, 104, 128), 1)
    return picture


def _words(
    picture: Picture, text: str, y: int, size: int, weight: int, colour: tuple[int, int, int], lines: int
) -> int:
    """Write `text` centred, broken into at most `lines` lines, the first one's base at `y`; the next base."""
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
    return y
