"""An outer folder of photographs and films to train on (`--photos`): people near and far, in all colours of skin."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.data import Mask, Picture, Random, blur, f32, recolour
from training.people import skin

EVERY = 6  # of a film's frames, one is kept
MOST = 24  # frames of one film
HELD_OUT = 10  # every tenth portrait is never trained on
KINDS = (("films", 0.45), ("portraits", 0.3), ("kodak", 0.25))


def portraits(folder: Path, *, held_out: bool) -> list[Path]:
    """The portraits to train on, or those that are kept for measuring."""
    found = sorted((folder / "portraits").glob("*.jpg"))
    return [path for number, path in enumerate(found) if (number % HELD_OUT == 0) == held_out]


def read(path: Path) -> Picture:
    """A photograph, RGB 0..1."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(f"{path} cannot be read")
    return f32(bgr[..., ::-1]) / np.float32(255)


def frames(path: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Some frames of a film, RGB uint8."""
    film, found, number = cv2.VideoCapture(str(path)), [], 0
    every = max(EVERY, int(film.get(cv2.CAP_PROP_FRAME_COUNT)) // MOST)
    while (got := film.read())[0]:
        if number % every == 0:
            found.append(np.ascontiguousarray(got[1][..., ::-1]).astype(np.uint8))
        number += 1
    film.release()
    return found


def reskin(picture: Picture, random: Random) -> Picture:
    """Give what has the colour of skin another tone of skin, from very light to very dark."""
    lab = cv2.cvtColor((picture * 255).astype(np.uint8), cv2.COLOR_RGB2YCrCb).astype(np.float32)
    far = np.hypot((lab[..., 1] - 150) / 14, (lab[..., 2] - 108) / 14)
    mask: Mask = blur(np.clip(1.6 - far, 0, 1), 1.5)
    if mask.mean() < 0.01:
        return picture
    mean = (picture * mask[..., None]).sum((0, 1)) / mask.sum()
    factor = np.clip(skin(random) / (mean + 0.02), 0.2, 1.6)
    factor = factor.mean() * np.clip(factor / factor.mean(), 0.7, 1.3)
    return f32(np.clip(picture * (1 + (factor - 1) * mask[..., None]), 0, 1))


def muted(random: Random) -> Picture:
    """A colour near grey, as walls and clothes have."""
    return f32(random.uniform(0.3, 0.8) + random.uniform(-0.15, 0.15, 3))


def coloured(grey: Picture, random: Random) -> Picture:
    """A grey portrait in colours: skin in the middle, something else about it, shadows neutral."""
    height, width = grey.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    face = np.hypot((x / width - 0.5) / 0.34, (y / height - 0.42) / 0.4)
    mask = blur(np.clip(2.2 - 2 * face, 0, 1), width / 25)[..., None]
    tone, light = skin(random), grey.mean(-1, keepdims=True)
    around = tone if random.random() < 0.3 else muted(random)
    ink = f32(tone * mask + around * (1 - mask))
    # the tone is that of the middle greys; black and white stay what they are
    gamma = np.log(np.clip(ink, 0.08, 0.92)) / np.log(0.55)
    return f32(np.clip(light, 1e-3, 1) ** gamma)


class Photos:
    """The folder's pictures, read once; crops are taken from them at random."""

    def __init__(self, folder: Path) -> None:
        self.films = [kept for path in sorted((folder / "films").iterdir()) if (kept := frames(path))]
        self.kodak = [read(path) for path in sorted((folder / "kodak").glob("*.jpg"))]
        self.portraits = portraits(folder, held_out=False)

    def crop(self, random: Random, size: int) -> Picture:
        """A square picture: a part of a film or of a photograph, one portrait, or a wall of them."""
        kind = random.choice([name for name, _ in KINDS], p=[share for _, share in KINDS])
        if kind == "films":
            film = self.films[random.integers(len(self.films))]
            frame = f32(film[random.integers(len(film))]) / np.float32(255)
            # of three parts the one in which most is to be seen: not a wall
            cut = max((part(frame, random, size, 0.35) for _ in range(3)), key=lambda cut: float(cut.std()))
        elif kind == "kodak":
            cut = part(self.kodak[random.integers(len(self.kodak))], random, size, 0.35)
        else:
            cut = self.people(random, size)
        if random.random() < 0.5:
            cut = cut[:, ::-1]
        if kind == "films" and random.random() < 0.6:
            cut = reskin(cut, random)
        if kind != "portraits" or random.random() < 0.5:
            cut = recolour(np.clip(cut, 0, 1), random, 0.25)
        dim = random.random()
        if dim < 0.12:  # a dark room
            cut = cut * random.uniform(0.2, 0.6) * f32(random.uniform(0.85, 1, 3))
        return f32(np.clip(cut, 0, 1))

    def people(self, random: Random, size: int) -> Picture:
        """One portrait that fills the picture, or, as in a conference, 4 or 9 of them: faces of 30 to 130 pixels."""
        across = int(random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
        side = -(-size // across)
        rows = []
        for _ in range(across):
            row = []
            for _ in range(across):
                portrait = coloured(read(self.portraits[random.integers(len(self.portraits))]), random)
                row.append(part(portrait, random, side, 0.8 if across > 1 else 0.6))
            rows.append(np.concatenate(row, 1))
        return np.ascontiguousarray(np.concatenate(rows)[:size, :size])


def part(picture: Picture, random: Random, size: int, least: float) -> Picture:
    """A square part of a picture, at least `least` of its shorter side, scaled to `size`; more often the upper part."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * np.exp(random.uniform(np.log(least), 0)))
    top = int((height - side) * random.random() ** 1.5)
    left = int(random.integers(width - side + 1))
    cut = picture[top : top + side, left : left + side]
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
