"""Base pictures: scenes and people drawn by code, and photographs bundled with scikit-image and scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

# float32 throughout; numpy's own annotations lose that at every second operation
Picture: TypeAlias = NDArray[Any]  # [height, width, 3], RGB, 0..1
Mask: TypeAlias = NDArray[Any]  # [height, width], 0..1
Random = np.random.Generator

PHOTOGRAPHS = (
    "skimage/data/camera.png",
    "skimage/data/brick.png",
    "skimage/data/grass.png",
    "skimage/data/gravel.png",
    "skimage/data/coins.png",
    "skimage/data/rocket.jpg",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/retina.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/motorcycle_right.png",
    "skimage/data/clock_motion.png",
    "skimage/data/moon.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
RICH = ("motorcycle_left", "motorcycle_right", "china", "flower", "rocket", "camera", "coins")  # taken more often
HELD_OUT = {  # public domain or CC0; never trained on
    "astronaut (NASA, public domain)": "skimage/data/astronaut.png",
    "chelsea the cat (CC0)": "skimage/data/chelsea.png",
    "coffee (CC0)": "skimage/data/coffee.png",
}


def f32(values: Any) -> NDArray[Any]:
    """Numbers as a float32 array."""
    return np.asarray(values, np.float32)


def read_bundled(name: str) -> Picture:
    """Read a picture from inside an installed package, given as `package/path`."""
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is not installed; the training pictures come inside it")
    path = Path(spec.origin).parent / inside
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(f"{path} cannot be read; reinstall {package}")
    return bgr[..., ::-1].astype(np.float32) / 255


def square(picture: Picture, size: int) -> Picture:
    """Cut the middle square and scale it to `size` pixels."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)


def held_out(size: int) -> dict[str, Picture]:
    """The held-out pictures by name, squares of `size` pixels."""
    return {name: square(read_bundled(path), size) for name, path in HELD_OUT.items()}


class Photographs:
    """The bundled photographs, read once; crops are taken from them at random."""

    def __init__(self) -> None:
        self.pictures = {Path(name).stem: read_bundled(name) for name in PHOTOGRAPHS}
        self.names = [name for name in self.pictures for _ in range(4 if name in RICH else 1)]

    def crop(self, random: Random, size: int) -> Picture:
        """A random crop, zoomed, flipped and with its colours changed."""
        picture = self.pictures[self.names[random.integers(len(self.names))]]
        height, width = picture.shape[:2]
        side = int(min(height, width) * random.uniform(0.3, 1.0))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        cut = picture[top : top + side, left : left + side]
        cut = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
        if random.random() < 0.5:
            cut = cut[:, ::-1]
        return recolour(np.clip(cut, 0, 1), random, 0.35)


def recolour(picture: Picture, random: Random, amount: float) -> Picture:
    """Change hue, saturation, brightness and gamma at random."""
    grey = picture.mean(-1, keepdims=True)
    out = grey + (picture - grey) * random.uniform(1 - amount, 1 + amount)
    if random.random() < amount:
        angle = random.uniform(-np.pi, np.pi)
        out = out @ hue_rotation(angle)
    out = np.clip(out * (1 + amount * random.uniform(-0.4, 0.4, 3)), 0, 1)
    return f32(np.clip(out ** np.exp(random.uniform(-amount, amount)), 0, 1))


def hue_rotation(angle: float) -> NDArray[Any]:
    """Matrix that turns colours about the grey axis (rows are colours)."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix: NDArray[Any] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix.T


def colour(random: Random, low: float = 0.05, high: float = 0.95) -> Picture:
    """A random colour; half of them muted, as most things are."""
    c = random.uniform(low, high, 3)
    return f32(c.mean() + (c - c.mean()) * random.uniform(0.2, 1.0))


def ellipse(size: int, centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0) -> Mask:
    """Soft mask of an ellipse; all lengths are fractions of `size`."""
    mask = np.zeros((size, size), np.uint8)
    at = (round(centre[0] * size * 16), round(centre[1] * size * 16))
    half = (max(1, round(axes[0] * size * 16)), max(1, round(axes[1] * size * 16)))
    cv2.ellipse(mask, at, half, angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def polygon(size: int, points: list[tuple[float, float]]) -> Mask:
    """Soft mask of a polygon; points are fractions of `size`."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(points) * size * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def strokes(size: int, lines: list[list[tuple[float, float]]], width: float) -> Mask:
    """Soft mask of polylines of `width`; all lengths are fractions of `size`."""
    mask = np.zeros((size, size), np.uint8)
    for line in lines:
        points = np.round(np.array(line) * size * 16).astype(np.int32)
        cv2.polylines(mask, [points], False, 255, max(1, round(width * size)), cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def smooth_noise(random: Random, size: int, cells: int) -> Mask:
    """Noise with about `cells` bumps across, mean 0, standard deviation about 1."""
    small = random.normal(size=(cells + 2, cells + 2)).astype(np.float32)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def blur(picture: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Gaussian blur."""
    out: NDArray[Any] = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma > 0.15 else picture
    return out


class Light:
    """A lamp somewhere: makes flat shapes look round."""

    def __init__(self, random: Random) -> None:
        angle = random.uniform(-np.pi, 0)
        self.direction = (np.cos(angle), np.sin(angle))
        self.contrast = random.uniform(0.15, 0.7)

    def shade(self, mask: Mask, roundness: float) -> Mask:
        """Brightness factor of a shape, as if it were a cushion."""
        size = mask.shape[0]
        height = blur(mask, max(1.0, roundness * size))
        dx, dy = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
        slope = (dx * -self.direction[0] + dy * -self.direction[1]) * roundness * size * 0.5
        out: Mask = np.clip(1 - self.contrast * slope, 0.25, 1.7)
        return out


def paint(picture: Picture, mask: Mask, ink: Picture, factor: Mask | float = 1.0) -> Picture:
    """Lay a colour over a picture through a mask."""
    layer = np.clip(ink * (factor[..., None] if isinstance(factor, np.ndarray) else factor), 0, 1)
    out: Picture = picture + (layer - picture) * mask[..., None]
    return out


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


def person(
    picture: Picture, random: Random, photographs: Photographs, scale: float, at: tuple[float, float]
) -> Picture:
    """Draw a person (head, shoulders, perhaps glasses, beard, hat, hands) over a picture; `scale` 1 fills it."""
    size = picture.shape[0]
    light, tone, hair = Light(random), skin(random), colour(random, 0.02, random.choice([0.15, 0.4, 0.9]))
    tilt, turn = random.normal(0, 8), random.normal(0, 0.03) * scale
    wide, tall = scale * random.uniform(0.15, 0.2), scale * random.uniform(0.2, 0.26)
    cx, cy = at
    rotate = np.radians(tilt)

    def place(x: float, y: float) -> tuple[float, float]:
        """From head coordinates (-1..1) to the picture."""
        px, py = x * wide, y * tall
        return cx + px * np.cos(rotate) - py * np.sin(rotate), cy + px * np.sin(rotate) + py * np.cos(rotate)

    def round_(x: float, y: float, w: float, h: float, angle: float = 0.0) -> Mask:
        return ellipse(size, place(x, y), (w * wide, h * wide), angle + tilt)

    long_hair, bald = random.random() < 0.4, random.random() < 0.15
    if long_hair and not bald:
        back = np.maximum(
            round_(0, -0.1, 1.35, 1.6),
            polygon(size, [place(-1.3, 0), place(1.3, 0), place(1.2, 1.4), place(-1.2, 1.4)]),
        )
        picture = paint(picture, back, hair, light.shade(back, 0.05 * scale))
    shirt = colour(random)
    neck = polygon(
        size,
        [place(-0.5, 0.5), place(0.5, 0.5), (cx + wide * 0.6, cy + tall * 1.5), (cx - wide * 0.6, cy + tall * 1.5)],
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
    cloth = np.broadcast_to(shirt, picture.shape).astype(np.float32)
    kind = random.random()
    if kind < 0.2:
        cloth = photographs.crop(random, size)
    elif kind < 0.45:
        period = random.uniform(0.01, 0.05) * scale * size
        wave = np.sin(np.arange(size) * 2 * np.pi / period) > 0
        grid = np.broadcast_to(wave[:, None] if random.random() < 0.5 else wave, (size, size))
        cloth = np.where(grid[..., None], shirt, colour(random)).astype(np.float32)
    folds = 1 + 0.12 * smooth_noise(random, size, int(3 + 5 / scale)) if random.random() < 0.7 else np.float32(1)
    picture = paint(picture, body, cloth, light.shade(body, 0.06 * scale) * folds)
    if random.random() < 0.5:  # collar or open neck
        collar = polygon(
            size, [(cx - wide * 0.5, y0), (cx + wide * 0.5, y0), (cx, y0 + tall * random.uniform(0.3, 0.9))]
        )
        picture = paint(
            picture, collar, tone if random.random() < 0.5 else colour(random), light.shade(collar, 0.02 * scale)
        )
    for side in (-1, 1):
        ear = round_(side * 1.0, 0.05, 0.17, 0.3)
        picture = paint(picture, ear, tone * 0.9, light.shade(ear, 0.02 * scale))
    jaw = random.uniform(0.6, 0.95)
    head = np.maximum(round_(0, -0.15, 1, tall / wide * 0.85), round_(0, 0.35, jaw, tall / wide * 0.65))
    head = (blur(head, 0.004 * size) > 0.5).astype(np.float32) * 0.5 + blur(head, 0.004 * size) * 0.5
    cheeks = 1 + 0.04 * smooth_noise(random, size, int(3 + 4 / scale))
    picture = paint(
        picture, head, tone, light.shade(head, 0.07 * scale) * light.shade(head, 0.02 * scale) ** 0.5 * cheeks
    )
    for side in (-1, 1):  # cheeks
        blush = blur(round_(side * 0.5, 0.3, 0.2, 0.2), 0.03 * size * scale) * random.uniform(0, 0.3)
        picture = paint(picture, blush, tone * f32([1.1, 0.75, 0.75]))
    if random.random() < 0.3:  # beard
        beard = np.clip(round_(0, 0.62, jaw * 0.95, 0.75) - round_(0, 0.2, jaw, 0.55), 0, 1) * np.minimum(head, 1)
        picture = paint(picture, blur(beard, 0.006 * size) * random.uniform(0.4, 1), hair)
    eye_y, eye_x, eye_w = random.uniform(-0.2, 0.0), random.uniform(0.36, 0.46), random.uniform(0.17, 0.24)
    opened = random.choice([1.0, 1.0, 0.7, 0.4, 0.1])
    iris, look = colour(random, 0.05, 0.6), random.uniform(-0.07, 0.07)
    for side in (-1, 1):
        x = side * eye_x + turn / max(wide, 1e-3)
        socket = blur(round_(x, eye_y, eye_w * 1.5, eye_w * 1.1), 0.02 * size * scale)
        picture = paint(picture, socket * 0.35, tone * 0.55)
        white = round_(x, eye_y, eye_w, eye_w * 0.55 * opened)
        picture = paint(picture, white, f32([0.93, 0.92, 0.9]))
        picture = paint(picture, round_(x + look, eye_y, eye_w * 0.5, eye_w * 0.5) * white, iris)
        picture = paint(picture, round_(x + look, eye_y, eye_w * 0.25, eye_w * 0.25) * white, f32([0.02, 0.02, 0.02]))
        picture = paint(picture, round_(x + look - 0.04, eye_y - 0.05, 0.035, 0.035) * white, f32([1, 1, 1]))
        lid = [place(x - eye_w, eye_y), place(x, eye_y - eye_w * 0.6 * opened), place(x + eye_w, eye_y)]
        picture = paint(picture, strokes(size, [lid], 0.007 * scale), tone * 0.3)
        lift = random.uniform(0.25, 0.38)
        brow = [
            place(x - eye_w * 1.2, eye_y - lift + 0.04),
            place(x, eye_y - lift - 0.06),
            place(x + eye_w * 1.2, eye_y - lift + 0.02),
        ]
        picture = paint(picture, strokes(size, [brow], random.uniform(0.006, 0.016) * scale) * 0.85, hair * 0.8)
    nose = blur(polygon(size, [place(0, -0.05), place(0.2, 0.38), place(-0.15, 0.38)]), 0.008 * size * scale)
    picture = paint(picture, nose * 0.8, tone, light.shade(nose, 0.02 * scale) ** 2)
    for side in (-1, 1):
        picture = paint(picture, blur(round_(side * 0.1, 0.4, 0.06, 0.035), 0.6) * 0.8, tone * 0.35)
    mouth_y, mouth_w, gape = (
        random.uniform(0.68, 0.78),
        random.uniform(0.28, 0.46),
        random.choice([0, 0, 0.06, 0.14, 0.25]),
    )
    lips, smile = tone * f32([0.85, 0.55, 0.55]) * random.uniform(0.8, 1.15), random.uniform(-0.04, 0.12)
    picture = paint(picture, round_(0, mouth_y, mouth_w, 0.11 + gape), lips)
    if gape:
        inside = round_(0, mouth_y, mouth_w * 0.85, gape)
        picture = paint(picture, inside, f32([0.2, 0.05, 0.06]))
        if random.random() < 0.7:
            picture = paint(
                picture,
                round_(0, mouth_y - gape * 0.5, mouth_w * 0.65, gape * 0.4) * inside,
                f32([0.95, 0.94, 0.9]),
            )
    else:
        line = [place(-mouth_w, mouth_y - smile), place(0, mouth_y + smile * 0.4), place(mouth_w, mouth_y - smile)]
        picture = paint(picture, strokes(size, [line], 0.008 * scale), lips * 0.4)
    if not bald:
        fringe = random.uniform(-0.75, -0.45)
        cap = np.clip(
            round_(0, -0.25, 1.1, tall / wide * 0.95)
            - polygon(
                size,
                [
                    place(-0.95, fringe + 0.1),
                    place(random.uniform(-0.4, 0.4), fringe - 0.12),
                    place(0.95, fringe + 0.1),
                    place(0.9, 3),
                    place(-0.9, 3),
                ],
            ),
            0,
            1,
        )
        cap *= 1 - polygon(size, [place(-3, 0.3), place(3, 0.3), place(3, 4), place(-3, 4)])
        lock = 1 + 0.25 * cv2.resize(random.normal(size=(8, size // 4)).astype(np.float32), (size, size))
        picture = paint(picture, blur(cap, 0.7), hair, light.shade(cap, 0.04 * scale) * np.clip(lock, 0.4, 1.7))
    if random.random() < 0.15:
        hat = polygon(size, [place(-1.15, -0.6), place(1.15, -0.6), place(0.9, -1.5), place(-0.9, -1.5)])
        hat = np.maximum(hat, round_(0, -0.62, 1.5, 0.14))
        picture = paint(picture, hat, colour(random), light.shade(hat, 0.04 * scale))
    if random.random() < 0.45:  # glasses
        lens_w, lens_h = random.uniform(0.27, 0.38), random.uniform(0.2, 0.32)
        rim = colour(random, 0.0, random.choice([0.15, 0.7]))
        thick = random.uniform(0.004, 0.014) * scale
        boxy = random.random() < 0.5
        turns = np.linspace(0, 2 * np.pi, 24)
        power = 0.4 if boxy else 1.0
        lines = []
        for side in (-1, 1):
            x = side * 0.42
            lines.append(
                [
                    place(x + lens_w * bent(np.cos(a), power), eye_y + 0.03 + lens_h * bent(np.sin(a), power))
                    for a in turns
                ]
            )
            lines.append([place(side * (0.42 + lens_w), eye_y), place(side * 1.0, eye_y - 0.05)])
            lens = polygon(size, lines[-2])
            picture = paint(
                picture,
                lens * (random.choice([0.05, 0.12, 0.9], p=[0.6, 0.3, 0.1])),
                f32(rim * 0.5 + [0.1, 0.15, 0.2]),
            )
        lines.append([place(-0.42 + lens_w, eye_y), place(0, eye_y - 0.05), place(0.42 - lens_w, eye_y)])
        picture = paint(picture, strokes(size, lines, thick), rim)
    if random.random() < 0.2:  # headset or headphones
        arc = [place(1.12 * np.cos(a), -0.2 + 1.45 * np.sin(a)) for a in np.linspace(np.pi, 2 * np.pi, 20)]
        picture = paint(picture, strokes(size, [arc], 0.02 * scale), colour(random, 0, 0.4))
        for side in (-1, 1):
            cup = round_(side * 1.08, 0, 0.2, 0.34)
            picture = paint(picture, cup, colour(random, 0, 0.4), light.shade(cup, 0.02 * scale))
    for side in (-1, 1):
        if random.random() < 0.35:
            picture = hand(
                picture,
                random,
                light,
                tone,
                scale,
                (cx + side * random.uniform(0.1, 0.35) * scale, cy + random.uniform(0.0, 0.5) * scale),
                shirt,
            )
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
