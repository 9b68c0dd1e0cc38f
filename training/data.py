"""Photographs bundled with scikit-image and scikit-learn, and what scenes and people are drawn with."""

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
