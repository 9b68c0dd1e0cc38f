"""Base pictures: photographs, shapes, rooms and people, and what a webcam does to them."""

from __future__ import annotations

import cv2
import numpy as np

from training.data import (
    Light,
    Photographs,
    Picture,
    Random,
    blur,
    colour,
    ellipse,
    f32,
    paint,
    polygon,
    recolour,
    smooth_noise,
)
from training.people import person


def dead_leaves(random: Random, size: int, photographs: Photographs) -> Picture:
    """Overlapping shapes of all sizes, some filled with photographs: the statistics of natural pictures."""
    picture = np.ones((size, size, 3), np.float32) * colour(random)
    light = Light(random)
    sizes = 0.35 / (1 + np.sort(random.pareto(1.2, int(random.integers(30, 110)))))
    photograph = photographs.crop(random, size)
    for radius in sizes[::-1] if random.random() < 0.5 else sizes:
        centre = (random.uniform(-0.1, 1.1), random.uniform(-0.1, 1.1))
        if random.random() < 0.5:
            mask = ellipse(size, centre, (radius, radius * random.uniform(0.3, 1)), random.uniform(0, 180))
        else:
            turns = np.sort(random.uniform(0, 2 * np.pi, int(random.integers(3, 7))))
            mask = polygon(size, [(centre[0] + radius * np.cos(a), centre[1] + radius * np.sin(a)) for a in turns])
        if random.random() < 0.25:
            ink = np.roll(photograph, tuple(random.integers(0, size, 2)), (0, 1))
        else:
            ink = np.broadcast_to(colour(random), picture.shape).astype(np.float32)
            if random.random() < 0.4:
                ink = np.clip(
                    ink * (1 + 0.15 * smooth_noise(random, size, int(2 ** random.uniform(2, 6))))[..., None], 0, 1
                )
        picture = paint(picture, blur(mask, random.choice([0, 0, 1, 3])), ink, light.shade(mask, radius * 0.5))
    return picture


def room(random: Random, size: int, photographs: Photographs) -> Picture:
    """A room behind a webcam: wall, window, shelf, lamp, pictures, plant."""
    wall = colour(random, 0.15, 0.95)
    ramp = np.linspace(random.uniform(0.6, 1.1), random.uniform(0.6, 1.1), size, dtype=np.float32)
    factor = np.broadcast_to(ramp if random.random() < 0.5 else ramp[:, None], (size, size)).astype(np.float32)
    picture = np.clip(wall * factor[..., None], 0, 1).astype(np.float32)
    light = Light(random)
    if random.random() < 0.5:  # window or screen or picture on the wall
        left, top, w, h = random.uniform(-0.1, 0.7), random.uniform(-0.1, 0.4), *random.uniform(0.15, 0.5, 2)
        frame = polygon(size, [(left, top), (left + w, top), (left + w, top + h), (left, top + h)])
        picture = paint(picture, frame, colour(random))
        inner = polygon(
            size,
            [
                (left + 0.015, top + 0.015),
                (left + w - 0.015, top + 0.015),
                (left + w - 0.015, top + h - 0.015),
                (left + 0.015, top + h - 0.015),
            ],
        )
        view = (
            photographs.crop(random, size) if random.random() < 0.6 else np.ones_like(picture) * random.uniform(0.7, 1)
        )
        picture = paint(picture, inner, view.astype(np.float32))
    if random.random() < 0.5:  # shelf with books
        top, left, x = random.uniform(0.1, 0.6), random.uniform(-0.2, 0.6), 0.0
        wide, high = random.uniform(0.3, 0.6), random.uniform(0.1, 0.2)
        while x < wide:
            w, h = random.uniform(0.012, 0.05), high * random.uniform(0.6, 1)
            book = polygon(size, [(left + x, top - h), (left + x + w, top - h), (left + x + w, top), (left + x, top)])
            picture = paint(picture, book, colour(random), light.shade(book, 0.01))
            x += w + 0.003
        board = polygon(size, [(left, top), (left + wide, top), (left + wide, top + 0.02), (left, top + 0.02)])
        picture = paint(picture, board, colour(random))
    if random.random() < 0.4:  # plant
        x, y, green = (
            random.uniform(0, 1),
            random.uniform(0.4, 1),
            colour(random, 0.05, 0.5) * f32([0.6, 1.4, 0.6]),
        )
        for _ in range(int(random.integers(6, 20))):
            a, r = random.uniform(-np.pi, 0), random.uniform(0.05, 0.22)
            leaf = ellipse(size, (x + np.cos(a) * r, y + np.sin(a) * r), (r * 0.7, r * 0.16), np.degrees(a))
            picture = paint(picture, leaf, green * random.uniform(0.6, 1.3), light.shade(leaf, 0.02))
    if random.random() < 0.4:  # lamp
        x, y, r = random.uniform(0, 1), random.uniform(0, 0.5), random.uniform(0.03, 0.09)
        glow = blur(ellipse(size, (x, y), (r * 2, r * 2)), size * r)
        picture = np.clip(
            paint(picture + glow[..., None] * 0.4, ellipse(size, (x, y), (r, r)), f32([1, 0.95, 0.8])), 0, 1
        )
    return blur(picture, random.choice([0, 0.5, 1, 2, 4]))


def base_picture(random: Random, size: int, photographs: Photographs) -> Picture:
    """One clean picture: photographs, shapes, people in rooms and before photographs."""
    kind = random.random()
    if kind < 0.27:
        picture = photographs.crop(random, size)
    elif kind < 0.37:
        picture = dead_leaves(random, size, photographs)
    else:
        behind = random.random()
        if behind < 0.5:
            picture = room(random, size, photographs)
        elif behind < 0.85:
            picture = blur(photographs.crop(random, size), random.choice([0, 1, 2, 5]))
        else:
            picture = dead_leaves(random, size, photographs)
        if random.random() < 0.9:
            many = random.random() < 0.15
            for _ in range(int(random.integers(2, 5)) if many else 1):
                scale = random.uniform(0.3, 0.6) if many else random.uniform(0.7, 2.0)
                at = (
                    (random.uniform(0.15, 0.85), random.uniform(0.3, 0.6))
                    if many
                    else (random.normal(0.5, 0.1), random.uniform(0.3, 0.55))
                )
                picture = person(picture, random, photographs, scale, at)
        picture = picture * (1 + random.choice([0, 0.01, 0.025]) * smooth_noise(random, size, size // 2)[..., None])
        picture = blur(picture.astype(np.float32), random.choice([0, 0.4, 0.7]))
    picture = np.clip(picture, 0, 1).astype(np.float32)
    if random.random() < 0.5:
        picture = recolour(picture, random, 0.2)
    dim = random.random()
    if dim < 0.15:  # a dark room
        picture = picture * random.uniform(0.25, 0.6) * random.uniform(0.85, 1, 3).astype(np.float32)
    elif dim < 0.25:  # a window behind
        picture = 1 - (1 - picture) * random.uniform(0.5, 0.9)
    return np.clip(picture, 0, 1).astype(np.float32)


def degrade(picture: Picture, random: Random) -> Picture:
    """What a webcam does to a picture: blur, noise, JPEG."""
    out = blur(picture, random.choice([0, 0, 0.6, 1.0]))
    out = out + random.normal(0, random.choice([0.0, 0.01, 0.03, 0.05]), picture.shape).astype(np.float32)
    data = (np.clip(out, 0, 1) * 255).astype(np.uint8)
    if random.random() < 0.5:
        _, coded = cv2.imencode(".jpg", data[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(35, 95))])
        data = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]
    return f32(data) / np.float32(255)
