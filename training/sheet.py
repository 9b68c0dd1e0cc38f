"""`python -m training.sheet`: held-out pictures (rows) in all styles (columns)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from training.data import Picture, f32, held_out
from training.lessons import Bytes, to_bytes
from training.run import load, translate
from training.teachers import TEACHERS


def captioned(picture: Picture, text: str) -> Picture:
    """Return the picture under a white strip with a caption."""
    strip = np.full((24, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([f32(strip) / 255, picture])


def bgr(sheet: Picture) -> Bytes:
    """Return the picture as OpenCV writes it."""
    return to_bytes(sheet[..., ::-1])


def told(program: str, path: Path, written: bool) -> int:
    """Say how large the file is, or that it could not be written; the exit status."""
    if not written:
        print(f"{program}: {path} cannot be written", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training.sheet", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("core/embedded_model"))
    parser.add_argument("--out", type=Path, default=Path("docs/contact-sheet.jpg"))
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--columns", type=int, default=7)
    given = parser.parse_args(arguments)
    parts = load(given.model)
    sheet = []
    for name, picture in held_out(given.size).items():
        cells = [captioned(picture, name)]
        cells += [
            captioned(translate(parts, picture, style, steps=given.steps, strength=given.strength), style)
            for style in TEACHERS
        ]
        cells += [np.ones_like(cells[0])] * (-len(cells) % given.columns)
        sheet += [np.concatenate(cells[at : at + given.columns], 1) for at in range(0, len(cells), given.columns)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    written = cv2.imwrite(str(given.out), bgr(np.concatenate(sheet)), [cv2.IMWRITE_JPEG_QUALITY, 66])
    return told("training.sheet", given.out, written)


if __name__ == "__main__":
    sys.exit(main())
