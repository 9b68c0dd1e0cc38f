"""`python -m training.film`: the moving picture of the README, a held-out photograph set in motion and translated."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from core.settings import EngineSettings, Look
from training.data import f32, held_out
from training.sheet import bgr, captioned, told
from vcam.offline.translate import Job, translate
from vcam.video import probe, read

STYLES = ("ink", "claymation", "blueprint", "pop art", "watercolour")
Pixels = NDArray[np.uint8]


def moving(size: int, frames: int) -> Iterator[Pixels]:
    """Yield the astronaut's portrait under a camera that swings from side to side and comes nearer; a seamless loop."""
    photograph = np.round(next(iter(held_out(512).values())) * 255).astype(np.uint8)
    for frame in range(frames):
        turn = 2 * np.pi * frame / frames
        zoom = size / 512 * (1.46 - 0.1 * np.cos(turn))
        middle = 235 + 30 * np.sin(turn), 215 + 10 * np.sin(2 * turn)
        # what is at `middle` comes to the middle of the view
        view = cv2.getRotationMatrix2D(middle, float(2 * np.sin(turn)), zoom)
        view[:, 2] += np.array((size / 2, size / 2)) - middle
        yield np.asarray(cv2.warpAffine(photograph, view, (size, size), flags=cv2.INTER_AREA), np.uint8)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training.film", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=Path("docs/demo.webp"))
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--quality", type=int, default=55)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input").mkdir()
        for number, picture in enumerate(moving(given.size, given.frames)):
            cv2.imwrite(str(folder / f"input/{number:03d}.png"), picture[..., ::-1])
        for style in STYLES:
            settings = EngineSettings(given.model, given.size, given.size, steps=2)
            look = Look(prompt=f"{style}, a portrait")
            translate(Job(folder / "input", folder / style, settings, look), progress=False)
        columns = [read(probe(folder / part)) for part in ("input", *STYLES)]
        animation = cv2.Animation()
        sheets = []
        for pictures in islice(zip(*columns, strict=True), given.frames):
            cells = [
                captioned(f32(picture.rgb) / 255, text) for picture, text in zip(pictures, ("", *STYLES), strict=True)
            ]
            sheets.append(bgr(np.concatenate([np.concatenate(cells[:3], 1), np.concatenate(cells[3:], 1)])))
        animation.frames = sheets
        animation.durations = [100] * len(sheets)  # milliseconds
    written = cv2.imwriteanimation(str(given.out), animation, [cv2.IMWRITE_WEBP_QUALITY, given.quality])
    return told("training.film", given.out, written)


if __name__ == "__main__":
    sys.exit(main())
