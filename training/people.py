"""People drawn by code: heads of all kinds, and hands."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.data import (
    Light,
    Mask,
    Photographs,
    Picture,
    Random,
    blur,
    colour,
    ellipse,
    f32,
    paint,
    polygon,
    smooth_noise,
    strokes,
)


def skin(random: Random) -> Picture:
    """A skin colour, from very light to very dark."""
    tones = f32(
        [
            [0.98, 0.85, 0.76],
            [0.93, 0.74, 0.62],
            [0.85, 0.63, 0.48],
            [0.72, 0.50, 0.36],
            [0.52, 0.34, 0.23],
            [0.34, 0.22, 0.15],
            [0.22, 0.14, 0.10],
        ]
    )
    at = random.uniform(0, len(tones) - 1.001)
    low = int(at)
    return f32(np.clip(tones[low] + (tones[low + 1] - tones[low]) * (at - low) + random.normal(0, 0.02, 3), 0, 1))


def bent(x: float, power: float) -> float:
    """A power that keeps the sign: bends a circle towards a square."""
    return float(np.sign(x) * np.abs(x) ** power)


@dataclass(frozen=True)
class Head:
    """Where a person's head is, how it is turned, lit and coloured; lengths are fractions of the picture's `size`."""

    size: int
    scale: float
    cx: float
    cy: float
    light: Light
    tone: Picture
    hair: Picture
    tilt: float  # degrees
    turn: float
    wide: float
    tall: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """From head coordinates (-1..1) to the picture."""
        px, py, rotate = x * self.wide, y * self.tall, np.radians(self.tilt)
        return (
            self.cx + px * np.cos(rotate) - py * np.sin(rotate),
            self.cy + px * np.sin(rotate) + py * np.cos(rotate),
        )

    def round(self, x: float, y: float, w: float, h: float, angle: float = 0.0) -> Mask:
        """Mask of an ellipse, all in head coordinates but the angle."""
        return ellipse(self.size, self.place(x, y), (w * self.wide, h * self.wide), angle + self.tilt)


def a_head(random: Random, size: int, scale: float, at: tuple[float, float]) -> Head:
    """Somebody, at a place of the picture."""
    light, tone, hair = Light(random), skin(random), colour(random, 0.02, random.choice([0.15, 0.4, 0.9]))
    tilt, turn = random.normal(0, 8), random.normal(0, 0.03) * scale
    wide, tall = scale * random.uniform(0.15, 0.2), scale * random.uniform(0.2, 0.26)
    return Head(size, scale, *at, light, tone, hair, tilt, turn, wide, tall)


def person(
    picture: Picture, random: Random, photographs: Photographs, scale: float, at: tuple[float, float]
) -> Picture:
    """Draw a person (head, shoulders, perhaps glasses, beard, hat, hands) over a picture; `scale` 1 fills it."""
    head = a_head(random, picture.shape[0], scale, at)
    long_hair, bald = random.random() < 0.4, random.random() < 0.15
    if long_hair and not bald:
        picture = hair_behind(picture, random, head)
    shirt = colour(random)
    picture = body(picture, random, head, photographs, shirt)
    picture = skull(picture, random, head)
    picture, eye_y = eyes(picture, random, head)
    picture = mouth(nose(picture, random, head), random, head)
    if not bald:
        picture = hair_on_top(picture, random, head)
    if random.random() < 0.15:
        picture = hat(picture, random, head)
    if random.random() < 0.45:
        picture = glasses(picture, random, head, eye_y)
    if random.random() < 0.2:
        picture = headset(picture, random, head)
    for side in (-1, 1):
        if random.random() < 0.35:
            picture = hand(
                picture,
                random,
                head.light,
                head.tone,
                head.scale,
                (
                    head.cx + side * random.uniform(0.1, 0.35) * head.scale,
                    head.cy + random.uniform(0.0, 0.5) * head.scale,
                ),
                shirt,
            )
    return picture


def hair_behind(picture: Picture, random: Random, head: Head) -> Picture:
    """Long hair that falls behind the shoulders."""
    back = np.maximum(
        head.round(0, -0.1, 1.35, 1.6),
        polygon(head.size, [head.place(-1.3, 0), head.place(1.3, 0), head.place(1.2, 1.4), head.place(-1.2, 1.4)]),
    )
    return paint(picture, back, head.hair, head.light.shade(back, 0.05 * head.scale))


def fabric(picture: Picture, random: Random, head: Head, photographs: Photographs, shirt: Picture) -> Picture:
    """What a shirt is made of, as large as the picture."""
    size = head.size
    cloth = np.broadcast_to(shirt, picture.shape).astype(np.float32)
    kind = random.random()
    if kind < 0.2:
        cloth = photographs.crop(random, size)
    elif kind < 0.45:
        period = random.uniform(0.01, 0.05) * head.scale * size
        wave = np.sin(np.arange(size) * 2 * np.pi / period) > 0
        grid = np.broadcast_to(wave[:, None] if random.random() < 0.5 else wave, (size, size))
        cloth = np.where(grid[..., None], shirt, colour(random)).astype(np.float32)
    return cloth


def body(picture: Picture, random: Random, head: Head, photographs: Photographs, shirt: Picture) -> Picture:
    """Neck and shoulders in a shirt of one colour, striped, or printed."""
    size, scale, cx, cy, light, tone, wide, tall = (
        head.size,
        head.scale,
        head.cx,
        head.cy,
        head.light,
        head.tone,
        head.wide,
        head.tall,
    )
    neck = polygon(
        size,
        [
            head.place(-0.5, 0.5),
            head.place(0.5, 0.5),
            (cx + wide * 0.6, cy + tall * 1.5),
            (cx - wide * 0.6, cy + tall * 1.5),
        ],
    )
    picture = paint(picture, neck, tone * 0.8, light.shade(neck, 0.03 * scale))
    shoulder = random.uniform(2.0, 2.8) * wide
    y0 = cy + tall * random.uniform(1.15, 1.35)
    body = polygon(
        size,
        [
            (cx - wide * 0.5, y0),
            (cx + wide * 0.5, y0),
            (cx + shoulder * 0.8, y0 + tall * 0.25),
            (cx + shoulder, y0 + tall * 0.9),
            (cx + shoulder, y0 + tall * 6),
            (cx - shoulder, y0 + tall * 6),
            (cx - shoulder, y0 + tall * 0.9),
            (cx - shoulder * 0.8, y0 + tall * 0.25),
        ],
    )
    body = blur(body, 0.01 * size * scale)
    cloth = fabric(picture, random, head, photographs, shirt)
    folds = 1 + 0.12 * smooth_noise(random, size, int(3 + 5 / scale)) if random.random() < 0.7 else np.float32(1)
    picture = paint(picture, body, cloth, light.shade(body, 0.06 * scale) * folds)
    if random.random() < 0.5:  # collar or open neck
        collar = polygon(
            size,
            [
                (cx - wide * 0.5, y0),
                (cx + wide * 0.5, y0),
                (cx, y0 + tall * random.uniform(0.3, 0.9)),
            ],
        )
        picture = paint(
            picture,
            collar,
            tone if random.random() < 0.5 else colour(random),
            light.shade(collar, 0.02 * scale),
        )
    return picture


def skull(picture: Picture, random: Random, head: Head) -> Picture:
    """Ears, the head itself, cheeks, perhaps a beard."""
    size, scale, light, tone, wide, tall = head.size, head.scale, head.light, head.tone, head.wide, head.tall
    for side in (-1, 1):
        ear = head.round(side * 1.0, 0.05, 0.17, 0.3)
        picture = paint(picture, ear, tone * 0.9, light.shade(ear, 0.02 * scale))
    jaw = random.uniform(0.6, 0.95)
    skull = np.maximum(head.round(0, -0.15, 1, tall / wide * 0.85), head.round(0, 0.35, jaw, tall / wide * 0.65))
    skull = (blur(skull, 0.004 * size) > 0.5).astype(np.float32) * 0.5 + blur(skull, 0.004 * size) * 0.5
    cheeks = 1 + 0.04 * smooth_noise(random, size, int(3 + 4 / scale))
    picture = paint(
        picture,
        skull,
        tone,
        light.shade(skull, 0.07 * scale) * light.shade(skull, 0.02 * scale) ** 0.5 * cheeks,
    )
    for side in (-1, 1):  # cheeks
        blush = blur(head.round(side * 0.5, 0.3, 0.2, 0.2), 0.03 * size * scale) * random.uniform(0, 0.3)
        picture = paint(picture, blush, tone * f32([1.1, 0.75, 0.75]))
    if random.random() < 0.3:  # beard
        beard = np.clip(head.round(0, 0.62, jaw * 0.95, 0.75) - head.round(0, 0.2, jaw, 0.55), 0, 1) * np.minimum(
            skull, 1
        )
        picture = paint(picture, blur(beard, 0.006 * size) * random.uniform(0.4, 1), head.hair)
    return picture


def eyes(picture: Picture, random: Random, head: Head) -> tuple[Picture, float]:
    """Eyes and brows; also how high they are."""
    size, scale, tone = head.size, head.scale, head.tone
    eye_y, eye_x, eye_w = random.uniform(-0.2, 0.0), random.uniform(0.36, 0.46), random.uniform(0.17, 0.24)
    opened = random.choice([1.0, 1.0, 0.7, 0.4, 0.1])
    iris, look = colour(random, 0.05, 0.6), random.uniform(-0.07, 0.07)
    for side in (-1, 1):
        x = side * eye_x + head.turn / max(head.wide, 1e-3)
        socket = blur(head.round(x, eye_y, eye_w * 1.5, eye_w * 1.1), 0.02 * size * scale)
        picture = paint(picture, socket * 0.35, tone * 0.55)
        white = head.round(x, eye_y, eye_w, eye_w * 0.55 * opened)
        picture = paint(picture, white, f32([0.93, 0.92, 0.9]))
        picture = paint(picture, head.round(x + look, eye_y, eye_w * 0.5, eye_w * 0.5) * white, iris)
        picture = paint(
            picture, head.round(x + look, eye_y, eye_w * 0.25, eye_w * 0.25) * white, f32([0.02, 0.02, 0.02])
        )
        picture = paint(picture, head.round(x + look - 0.04, eye_y - 0.05, 0.035, 0.035) * white, f32([1, 1, 1]))
        lid = [head.place(x - eye_w, eye_y), head.place(x, eye_y - eye_w * 0.6 * opened), head.place(x + eye_w, eye_y)]
        picture = paint(picture, strokes(size, [lid], 0.007 * scale), tone * 0.3)
        lift = random.uniform(0.25, 0.38)
        brow = [
            head.place(x - eye_w * 1.2, eye_y - lift + 0.04),
            head.place(x, eye_y - lift - 0.06),
            head.place(x + eye_w * 1.2, eye_y - lift + 0.02),
        ]
        picture = paint(picture, strokes(size, [brow], random.uniform(0.006, 0.016) * scale) * 0.85, head.hair * 0.8)
    return picture, eye_y


def nose(picture: Picture, random: Random, head: Head) -> Picture:
    """A nose with nostrils."""
    size, scale, tone = head.size, head.scale, head.tone
    nose = blur(
        polygon(size, [head.place(0, -0.05), head.place(0.2, 0.38), head.place(-0.15, 0.38)]),
        0.008 * size * scale,
    )
    picture = paint(picture, nose * 0.8, tone, head.light.shade(nose, 0.02 * scale) ** 2)
    for side in (-1, 1):
        picture = paint(picture, blur(head.round(side * 0.1, 0.4, 0.06, 0.035), 0.6) * 0.8, tone * 0.35)
    return picture


def mouth(picture: Picture, random: Random, head: Head) -> Picture:
    """A mouth, open or closed."""
    mouth_y, mouth_w, gape = (
        random.uniform(0.68, 0.78),
        random.uniform(0.28, 0.46),
        random.choice([0, 0, 0.06, 0.14, 0.25]),
    )
    lips, smile = head.tone * f32([0.85, 0.55, 0.55]) * random.uniform(0.8, 1.15), random.uniform(-0.04, 0.12)
    picture = paint(picture, head.round(0, mouth_y, mouth_w, 0.11 + gape), lips)
    if gape:
        inside = head.round(0, mouth_y, mouth_w * 0.85, gape)
        picture = paint(picture, inside, f32([0.2, 0.05, 0.06]))
        if random.random() < 0.7:
            picture = paint(
                picture,
                head.round(0, mouth_y - gape * 0.5, mouth_w * 0.65, gape * 0.4) * inside,
                f32([0.95, 0.94, 0.9]),
            )
    else:
        line = [
            head.place(-mouth_w, mouth_y - smile),
            head.place(0, mouth_y + smile * 0.4),
            head.place(mouth_w, mouth_y - smile),
        ]
        picture = paint(picture, strokes(head.size, [line], 0.008 * head.scale), lips * 0.4)
    return picture


def hair_on_top(picture: Picture, random: Random, head: Head) -> Picture:
    """Hair on the head, with a fringe."""
    size = head.size
    fringe = random.uniform(-0.75, -0.45)
    cap = np.clip(
        head.round(0, -0.25, 1.1, head.tall / head.wide * 0.95)
        - polygon(
            size,
            [
                head.place(-0.95, fringe + 0.1),
                head.place(random.uniform(-0.4, 0.4), fringe - 0.12),
                head.place(0.95, fringe + 0.1),
                head.place(0.9, 3),
                head.place(-0.9, 3),
            ],
        ),
        0,
        1,
    )
    cap *= 1 - polygon(size, [head.place(-3, 0.3), head.place(3, 0.3), head.place(3, 4), head.place(-3, 4)])
    lock = 1 + 0.25 * cv2.resize(random.normal(size=(8, size // 4)).astype(np.float32), (size, size))
    return paint(picture, blur(cap, 0.7), head.hair, head.light.shade(cap, 0.04 * head.scale) * np.clip(lock, 0.4, 1.7))


def hat(picture: Picture, random: Random, head: Head) -> Picture:
    """A hat with a brim."""
    shape = polygon(
        head.size, [head.place(-1.15, -0.6), head.place(1.15, -0.6), head.place(0.9, -1.5), head.place(-0.9, -1.5)]
    )
    shape = np.maximum(shape, head.round(0, -0.62, 1.5, 0.14))
    return paint(picture, shape, colour(random), head.light.shade(shape, 0.04 * head.scale))


def glasses(picture: Picture, random: Random, head: Head, eye_y: float) -> Picture:
    """Glasses: rims, lenses, bridge and temples."""
    size = head.size
    lens_w, lens_h = random.uniform(0.27, 0.38), random.uniform(0.2, 0.32)
    rim = colour(random, 0.0, random.choice([0.15, 0.7]))
    thick = random.uniform(0.004, 0.014) * head.scale
    boxy = random.random() < 0.5
    turns = np.linspace(0, 2 * np.pi, 24)
    power = 0.4 if boxy else 1.0
    lines = []
    for side in (-1, 1):
        x = side * 0.42
        lines.append(
            [
                head.place(x + lens_w * bent(np.cos(a), power), eye_y + 0.03 + lens_h * bent(np.sin(a), power))
                for a in turns
            ]
        )
        lines.append([head.place(side * (0.42 + lens_w), eye_y), head.place(side * 1.0, eye_y - 0.05)])
        lens = polygon(size, lines[-2])
        picture = paint(
            picture,
            lens * (random.choice([0.05, 0.12, 0.9], p=[0.6, 0.3, 0.1])),
            f32(rim * 0.5 + [0.1, 0.15, 0.2]),
        )
    lines.append([head.place(-0.42 + lens_w, eye_y), head.place(0, eye_y - 0.05), head.place(0.42 - lens_w, eye_y)])
    return paint(picture, strokes(size, lines, thick), rim)


def headset(picture: Picture, random: Random, head: Head) -> Picture:
    """Headphones over the hair."""
    scale = head.scale
    arc = [head.place(1.12 * np.cos(a), -0.2 + 1.45 * np.sin(a)) for a in np.linspace(np.pi, 2 * np.pi, 20)]
    picture = paint(picture, strokes(head.size, [arc], 0.02 * scale), colour(random, 0, 0.4))
    for side in (-1, 1):
        cup = head.round(side * 1.08, 0, 0.2, 0.34)
        picture = paint(picture, cup, colour(random, 0, 0.4), head.light.shade(cup, 0.02 * scale))
    return picture


def hand(
    picture: Picture,
    random: Random,
    light: Light,
    tone: Picture,
    scale: float,
    at: tuple[float, float],
    sleeve: Picture,
) -> Picture:
    """Draw a hand with its arm."""
    size, (x, y) = picture.shape[0], at
    base, spread, length = random.uniform(-2.4, -0.7), random.uniform(0.1, 0.32), random.uniform(0.07, 0.11) * scale
    palm = ellipse(size, at, (0.045 * scale, 0.055 * scale), np.degrees(base) + 90)
    elbow = (x - np.cos(base) * 0.5 * scale, y - np.sin(base) * 0.5 * scale)
    arm = strokes(size, [[at, elbow]], 0.07 * scale)
    picture = paint(picture, arm, tone, light.shade(arm, 0.02 * scale))
    cuff = strokes(size, [[(x + (elbow[0] - x) * 0.3, y + (elbow[1] - y) * 0.3), elbow]], 0.1 * scale)
    picture = paint(picture, cuff, sleeve, light.shade(cuff, 0.03 * scale))
    curl = random.uniform(0.5, 1, 5)
    for finger in range(5):
        a = base + (finger - 2) * spread + (0.6 if finger == 4 else 0)
        reach = length * curl[finger] * (0.7 if finger == 4 else 1)
        tip = (x + np.cos(a) * (0.045 * scale + reach), y + np.sin(a) * (0.045 * scale + reach))
        bone = strokes(size, [[at, tip]], 0.022 * scale)
        edge = np.clip(strokes(size, [[at, tip]], 0.028 * scale) - bone, 0, 1)
        picture = paint(picture, edge * 0.5, tone * 0.5)
        picture = paint(picture, bone, tone, light.shade(bone, 0.008 * scale))
    return paint(picture, palm, tone, light.shade(palm, 0.02 * scale))
