"""Films of which all is known: a texture that moves by whole pixels, an edit that moves along, and its faults."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.measure.motion import Motion, Pixels

HEIGHT, WIDTH = 120, 160
FRAMES = 48
SHIFT = (2, 1)  # pixels a picture, right and down

Film = list[Pixels]


@functools.cache
def texture(seed: int = 0, size: int = 400) -> Pixels:
    """A smooth random colour texture, RGB uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3), np.float32)
    for sigma, weight in ((2, 1.0), (5, 1.5), (12, 2.0)):
        layer = cv2.GaussianBlur(rng.standard_normal((size, size, 3)).astype(np.float32), (0, 0), sigma)
        total += weight * layer / layer.std()
    return np.clip(128 + 30 * total, 0, 255).astype(np.uint8)


def moving(picture: Pixels, frames: int = FRAMES) -> Film:
    """The window of `picture` whose contents move by SHIFT from one to the next."""
    dx, dy = SHIFT
    corners = [(100 - dy * t, 100 - dx * t) for t in range(frames)]
    return [np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH]) for y, x in corners]


def source(frames: int = FRAMES) -> Film:
    return moving(texture(), frames)


def edit(frames: int = FRAMES) -> Film:
    """A clean edit: a paler negative, which moves with its source."""
    return moving(np.asarray(235 - texture() // 2, np.uint8), frames)


def exact_motion() -> Motion:
    """The motion between any two pictures of `source`."""
    dx, dy = SHIFT
    back = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    back[:] = (-dx, -dy)
    visible = np.ones((HEIGHT, WIDTH), bool)
    visible[:dy] = visible[:, :dx] = False
    return Motion(back, visible, -back)


def whole(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def flickering(film: Film, amplitude: float = 6, cycles: float = 0.25) -> Film:
    """Brighter and darker, grey levels, at so many cycles a picture."""
    return [whole(one + amplitude * np.sin(2 * np.pi * cycles * t + 0.7)) for t, one in enumerate(film)]


def ghosted(film: Film, share: float = 0.3) -> Film:
    """Of the picture before, so much shines through."""
    result = [film[0].astype(np.float64)]
    for picture in film[1:]:
        result.append((1 - share) * picture + share * result[-1])
    return [whole(one) for one in result]


def ghosted_at_the_left(film: Film, share: float = 0.3) -> Film:
    """The same in the left half alone."""
    half = WIDTH // 2
    pairs = zip(ghosted(film, share), film, strict=True)
    return [np.asarray(np.concatenate([ghost[:, :half], one[:, half:]], axis=1), np.uint8) for ghost, one in pairs]


def pulsing(film: Film, level: float = 12, every: int = 4) -> Film:
    """Brighter by so many grey levels in every so many-th picture."""
    return [whole(one + level * (t % every == 0)) for t, one in enumerate(film)]


def colour_cast(film: Film, amplitude: float = 6, cycles: float = 0.25) -> Film:
    """Redder and greener, Delta E, at so many cycles a picture, as light as before."""
    result = []
    for t, picture in enumerate(film):
        lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lab[..., 1] += amplitude * np.sin(2 * np.pi * cycles * t + 0.7)
        result.append(whole(255 * cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.float64)))
    return result


def wobbling(film: Film, amplitude: float = 1.5, cycles: float = 0.25, length: float = 60) -> Film:
    """Bent sideways, pixels, by a wave along the height that stands and swings at so many cycles a picture."""
    y, x = np.mgrid[: film[0].shape[0], : film[0].shape[1]].astype(np.float32)
    result = []
    for t, picture in enumerate(film):
        swing = amplitude * np.sin(2 * np.pi * cycles * t + 0.7)
        bent = np.asarray(x + swing * np.sin(2 * np.pi * y / length), np.float32)
        moved = cv2.remap(picture, bent, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        result.append(np.asarray(moved, np.uint8))
    return result


def halting(film: Film, every: int = 4) -> Film:
    """Every so many-th picture is lost, and the one before is shown twice."""
    return [film[t - 1] if t % every == every - 1 else one for t, one in enumerate(film)]


def blurred(film: Film, sigma: float = 1.5) -> Film:
    return [np.asarray(cv2.GaussianBlur(one, (0, 0), sigma), np.uint8) for one in film]


def softening(film: Film, sigma: float = 1.5) -> Film:
    """Blurred more and more."""
    return [np.asarray(cv2.GaussianBlur(one, (0, 0), 0.01 + sigma * t / len(film))) for t, one in enumerate(film)]


def tinted(film: Film, colour: tuple[float, float, float] = (15, -8, 0)) -> Film:
    """More and more of a colour, grey levels at the end."""
    return [whole(one + np.array(colour) * t / len(film)) for t, one in enumerate(film)]


def fading(film: Film, into: Film, share: float = 0.4) -> Film:
    """More and more of another film, of which there is `share` at the end."""
    pairs = zip(film, into, strict=True)
    return [whole(one + (other.astype(float) - one) * share * t / len(film)) for t, (one, other) in enumerate(pairs)]


def mixed(film: Film, into: Film, share: float = 0.3) -> Film:
    return [whole(one + (other.astype(float) - one) * share) for one, other in zip(film, into, strict=True)]


def late(film: Film, frames: int = 3) -> Film:
    return [film[max(0, t - frames)] for t in range(len(film))]


def noisy(film: Film, sigma: float = 8) -> Film:
    rng = np.random.default_rng(1)
    return [whole(one + rng.normal(0, sigma, one.shape)) for one in film]
