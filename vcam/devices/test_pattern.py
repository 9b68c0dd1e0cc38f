"""The test picture: a person-like figure, drawn by code, who sits in a room, moves, blinks and talks."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import cv2
import numpy as np

from vcam.devices.paced import PacedSource
from vcam.frames import Picture

_SHIFT = 4  # OpenCV's fixed-point coordinates: 1/16 pixel, so that slow motion is smooth
_SKIN, _SKIN_SHADE, _SKIN_LIGHT = (226, 172, 138), (196, 138, 106), (240, 192, 160)
_HAIR, _HAIR_LIGHT = (74, 44, 30), (112, 70, 46)
_SHIRT, _SHIRT_SHADE = (38, 116, 128), (26, 88, 100)
_LIP, _MOUTH, _TEETH = (178, 84, 84), (92, 32, 38), (244, 240, 232)


class _Canvas:
    """Draws shapes in a space where the picture is 1 high and x = 0 is its middle."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.rows, self.columns = picture.shape[:2]

    def point(self, x: float, y: float) -> tuple[int, int]:
        unit = self.rows * 2**_SHIFT
        return round(self.columns * 2 ** (_SHIFT - 1) + x * unit), round(y * unit)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int], tilt: float = 0.0
    ) -> None:
        unit = self.rows * 2**_SHIFT
        axes = (max(1, round(rx * unit)), max(1, round(ry * unit)))
        cv2.ellipse(self.picture, self.point(x, y), axes, tilt, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def polygon(self, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        corners = np.array([self.point(x, y) for x, y in points], np.int32)
        cv2.fillPoly(self.picture, [corners], colour, cv2.LINE_AA, _SHIFT)

    def curve(self, points: list[tuple[float, float]], colour: tuple[int, int, int], thick: float) -> None:
        corners = np.array([self.point(x, y) for x, y in points], np.int32)
        width = max(1, round(thick * self.rows))
        cv2.polylines(self.picture, [corners], False, colour, width, cv2.LINE_AA, _SHIFT)


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points of a part of an ellipse, degrees clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / 16) for i in range(17)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


@functools.lru_cache(maxsize=2)
def _room(width: int, height: int) -> Picture:
    """Draw what stands still: wall, window with a view, shelf, plant, lamp."""
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    wall = np.array((214, 196, 168), np.float32) * (1.04 - 0.22 * down) * (1.05 - 0.18 * across)
    picture: Picture = np.clip(wall, 0, 255).astype(np.uint8)
    canvas = _Canvas(picture)
    half = width / height / 2
    # window at the left: sky, hills, sun, frame
    x0, x1, y0, y1 = -half + 0.07, -half + 0.45, 0.08, 0.60
    canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], (150, 204, 240))
    canvas.polygon([(x0, y0), (x1, y0), (x1, y0 + 0.14), (x0, y0 + 0.14)], (122, 186, 236))
    canvas.ellipse(x0 + 0.09, y0 + 0.10, 0.036, 0.036, (255, 236, 170))
    for cx, cy, s in ((x0 + 0.24, y0 + 0.13, 1.0), (x0 + 0.31, y0 + 0.25, 0.7)):
        for dx, dy, r in ((-0.035, 0.008, 0.02), (0, 0, 0.03), (0.035, 0.008, 0.022)):
            canvas.ellipse(cx + s * dx, cy + s * dy, s * r, s * r * 0.7, (250, 252, 255))
    canvas.polygon([(x0, y1), (x0, y1 - 0.14), *_hills(x0, x1, y1 - 0.15, 0.035, 9.0), (x1, y1)], (112, 166, 110))
    canvas.polygon([(x0, y1), (x0, y1 - 0.07), *_hills(x0, x1, y1 - 0.08, 0.025, 14.0), (x1, y1)], (76, 138, 84))
    white = (246, 242, 234)
    for line in (
        [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)],
        [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)],
        [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)],
    ):
        canvas.curve(line, white, 0.018)
    canvas.polygon([(x0 - 0.03, y1), (x1 + 0.03, y1), (x1 + 0.03, y1 + 0.03), (x0 - 0.03, y1 + 0.03)], (232, 224, 210))
    # shelf with books at the right
    s0, s1 = half - 0.44, half - 0.05
    books = [(178, 66, 58), (58, 98, 150), (222, 170, 70), (86, 134, 96), (120, 76, 132), (206, 112, 66), (54, 62, 86)]
    for row, y in enumerate((0.30, 0.58)):
        x = s0 + 0.02
        for i in range(6):
            wide, high = 0.032 + 0.008 * ((i * 7 + row * 3) % 3), 0.13 + 0.02 * ((i * 5 + row) % 3)
            colour = books[(i + 3 * row) % len(books)]
            canvas.polygon([(x, y), (x, y - high), (x + wide, y - high), (x + wide, y)], colour)
            canvas.curve([(x + wide * 0.5, y - high * 0.85), (x + wide * 0.5, y - high * 0.6)], (240, 230, 205), 0.006)
            x += wide + 0.004
        canvas.polygon([(s0, y), (s1, y), (s1, y + 0.022), (s0, y + 0.022)], (134, 90, 58))
    canvas.ellipse(s1 - 0.05, 0.26, 0.034, 0.040, (226, 120, 86))
    canvas.ellipse(s1 - 0.05, 0.215, 0.018, 0.018, (226, 120, 86))
    # plant in the corner
    px = half - 0.17
    for angle in (-60, -35, -12, 12, 35, 60):
        tip = (px + 0.20 * math.sin(math.radians(angle)), 0.86 - 0.20 * math.cos(math.radians(angle)))
        middle = ((px + tip[0]) / 2, (0.86 + tip[1]) / 2)
        canvas.ellipse(*middle, 0.11, 0.026, (66, 128 + angle // 3, 72), angle - 90)
    canvas.polygon([(px - 0.07, 0.84), (px + 0.07, 0.84), (px + 0.05, 1.0), (px - 0.05, 1.0)], (190, 96, 62))
    return picture


def _hills(x0: float, x1: float, y: float, high: float, often: float) -> list[tuple[float, float]]:
    return [(x0 + (x1 - x0) * i / 24, y + high * math.sin(often * (x1 - x0) * i / 24 + often)) for i in range(25)]


def _blink(time_s: float) -> float:
    """How far the eyes are shut, 0..1."""
    for every, at in ((3.7, 1.1), (9.1, 4.0)):
        away = abs((time_s - at) % every - 0.09)
        if away < 0.09:
            return 1 - away / 0.09
    return 0.0


def _talk(time_s: float) -> tuple[float, float]:
    """How far the mouth is open and how wide it is, 0..1: sentences of a few seconds with breaks."""
    sentence = max(0.0, min(1.0, 3.0 * math.sin(time_s * 2 * math.pi / 6.5) + 1.6))
    syllable = 0.5 + 0.5 * math.sin(time_s * 17.0 + 1.3 * math.sin(time_s * 5.3))
    return sentence * syllable * (0.65 + 0.35 * math.sin(time_s * 2.9)), 0.5 + 0.5 * math.sin(time_s * 4.1)


def draw_person(time_s: float, size: tuple[int, int]) -> Picture:
    """Return the test picture at a time (s) and size (width, height): RGB uint8 [height, width, 3]."""
    width, height = size
    picture: Picture = _room(width, height).copy()
    canvas = _Canvas(picture)
    t = time_s
    sway = 0.022 * math.sin(t * 0.9) + 0.012 * math.sin(t * 2.3)
    breath = 0.004 * math.sin(t * 1.7)
    x = 0.035 * math.sin(t * 0.55)
    _draw_body(canvas, x, breath, t)
    hx, hy = x + sway, 0.40 + 0.008 * math.sin(t * 3.1) + breath
    _draw_head(canvas, hx, hy, t)
    return picture


def _draw_body(canvas: _Canvas, x: float, breath: float, t: float) -> None:
    top = 0.70 + breath
    shoulders = [
        (x - 0.40, 1.02), (x - 0.37, top + 0.13), (x - 0.30, top + 0.055), (x - 0.13, top),
        (x + 0.13, top), (x + 0.30, top + 0.055), (x + 0.37, top + 0.13), (x + 0.40, 1.02),
    ]  # fmt: skip
    canvas.polygon(shoulders, _SHIRT)
    canvas.polygon([(x - 0.40, 1.02), (x - 0.37, top + 0.13), (x - 0.27, 1.02)], _SHIRT_SHADE)
    canvas.polygon([(x + 0.40, 1.02), (x + 0.37, top + 0.13), (x + 0.27, 1.02)], _SHIRT_SHADE)
    canvas.polygon([(x - 0.085, top - 0.12), (x + 0.085, top - 0.12), (x + 0.10, top + 0.02), (x, top + 0.075),
                    (x - 0.10, top + 0.02)], _SKIN_SHADE)  # fmt: skip
    for side in (-1, 1):
        canvas.polygon([(x + side * 0.105, top - 0.015), (x + side * 0.155, top + 0.01), (x + side * 0.055, top + 0.13),
                        (x, top + 0.07)], (240, 236, 226))  # fmt: skip
    canvas.curve([(x, top + 0.08), (x, 1.02)], _SHIRT_SHADE, 0.006)
    for button in (0.13, 0.20, 0.27):
        canvas.ellipse(x, top + button, 0.008, 0.008, (232, 226, 208))
    # a hand comes up now and then, as people do when they talk
    lift = max(0.0, math.sin(t * 0.75)) ** 2
    if lift > 0.02:
        hx, hy = x + 0.34 + 0.025 * math.sin(t * 5.0), 1.06 - 0.26 * lift
        canvas.curve([(x + 0.36, 1.08), (hx, hy + 0.06)], _SHIRT, 0.085)
        canvas.ellipse(hx, hy, 0.050, 0.058, _SKIN, 10)
        wave = 10 * math.sin(t * 5.0)
        for finger in range(4):
            angle = math.radians(-52 + 26 * finger + wave)
            tip = (hx + 0.094 * math.sin(angle), hy - 0.094 * math.cos(angle))
            canvas.curve([(hx + 0.03 * math.sin(angle), hy - 0.03 * math.cos(angle)), tip], _SKIN, 0.024)
        canvas.curve([(hx - 0.02, hy + 0.01), (hx - 0.075, hy - 0.025)], _SKIN, 0.026)


def _draw_head(canvas: _Canvas, x: float, y: float, t: float) -> None:
    turn = 0.018 * math.sin(t * 0.7 + 0.8)  # the face's features move more than the head: it turns
    nod = 0.008 * math.sin(t * 1.9)
    fx, fy = x + turn, y + nod
    canvas.ellipse(x, y - 0.045, 0.185, 0.215, _HAIR)
    canvas.ellipse(x - 0.168 + 0.5 * turn, y + 0.02, 0.026, 0.044, _SKIN_SHADE)
    canvas.ellipse(x + 0.168 + 0.5 * turn, y + 0.02, 0.026, 0.044, _SKIN_SHADE)
    canvas.ellipse(x, y + 0.01, 0.160, 0.212, _SKIN)
    canvas.ellipse(x + 0.3 * turn, y + 0.135, 0.105, 0.092, _SKIN)
    canvas.ellipse(fx - 0.085, fy + 0.075, 0.036, 0.026, (232, 156, 132))
    canvas.ellipse(fx + 0.085, fy + 0.075, 0.036, 0.026, (232, 156, 132))
    canvas.ellipse(fx, fy - 0.09, 0.09, 0.045, _SKIN_LIGHT)
    _draw_hair(canvas, x, y)
    shut = _blink(t)
    gaze = 0.008 * math.sin(t * 0.83 + 0.4)
    for side in (-1, 1):
        _draw_eye(canvas, fx + side * 0.066, fy - 0.012, shut, gaze, side)
        brow = fy - 0.062 - 0.010 * max(0.0, math.sin(t * 1.3))
        canvas.curve(_arc(fx + side * 0.067, brow + 0.02, 0.040, 0.022, 205, 335), _HAIR, 0.011)
    canvas.curve([(fx + 0.004, fy - 0.005), (fx + 0.5 * turn + 0.018, fy + 0.060)], _SKIN_SHADE, 0.007)
    canvas.curve(_arc(fx + 0.5 * turn, fy + 0.058, 0.022, 0.014, 20, 160), _SKIN_SHADE, 0.008)
    _draw_mouth(canvas, fx, fy + 0.118, *_talk(t))


def _draw_hair(canvas: _Canvas, x: float, y: float) -> None:
    cap = [*_arc(x, y - 0.03, 0.182, 0.205, 175, 365)]
    fringe = [(x + 0.165, y - 0.005), (x + 0.13, y - 0.085), (x + 0.03, y - 0.118), (x - 0.06, y - 0.135),
              (x - 0.115, y - 0.080), (x - 0.150, y - 0.045), (x - 0.165, y - 0.005)]  # fmt: skip
    canvas.polygon(cap + fringe, _HAIR)
    for dx in (-0.08, -0.02, 0.05):
        canvas.curve(_arc(x + dx, y - 0.075, 0.085, 0.125, 215, 300), _HAIR_LIGHT, 0.007)


def _draw_eye(canvas: _Canvas, x: float, y: float, shut: float, gaze: float, side: int) -> None:
    open_ = 1 - shut
    if open_ > 0.15:
        canvas.ellipse(x, y, 0.034, 0.021 * open_, (250, 248, 244))
        canvas.ellipse(x + gaze, y, 0.0165, min(0.0165, 0.021 * open_), (72, 112, 92))
        canvas.ellipse(x + gaze, y, 0.0085, min(0.0085, 0.021 * open_), (22, 20, 22))
        canvas.ellipse(x + gaze + 0.005, y - 0.006 * open_, 0.004, 0.004, (255, 255, 255))
    lid = 0.021 * (2 * open_ - 1)
    canvas.curve(_arc(x, y, 0.036, abs(lid) + 0.002, *((195, 345) if lid >= 0 else (165, 15))), (60, 36, 30), 0.008)
    canvas.curve([(x + side * 0.032, y - 0.010 * open_), (x + side * 0.043, y - 0.014)], (60, 36, 30), 0.006)


def _draw_mouth(canvas: _Canvas, x: float, y: float, open_: float, wide: float) -> None:
    rx, ry = 0.046 + 0.014 * wide, 0.006 + 0.030 * open_
    canvas.ellipse(x, y, rx + 0.008, ry + 0.011, _LIP)
    if open_ > 0.08:
        canvas.ellipse(x, y, rx, ry, _MOUTH)
        if open_ > 0.3:
            canvas.ellipse(x, y - ry * 0.62, rx * 0.72, ry * 0.26, _TEETH)
            canvas.ellipse(x, y + ry * 0.60, rx * 0.5, ry * 0.34, (186, 84, 92))
    else:
        canvas.curve(_arc(x, y - 0.012, rx, 0.016, 25, 155), (140, 58, 60), 0.006)


class PatternSource(PacedSource):
    """The test picture at a rate, as FrameSource."""

    def __init__(
        self,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__("test picture", lambda beat: draw_person(beat / fps, size), fps, clock, sleep)
