"""How sharp is the included model's picture, and how near to its teacher's, on pictures that it has not seen?

For each style: the energy of the Laplacian (variance, of the brightness in 0..255) over the teacher's, and the mean
distance to the teacher (of 1), without and with the detail stage; and how much of it is in broad tones, the mean of 8x8
pixels. 2 steps, strength 0.5, no bank. With --runtime the picture "with" is the engine's own (onnx: the detail stage in
8 bits; eager: in floats), otherwise that of stock parts.

python benchmarks/picture.py --clips FOLDER [--model M] [--runtime R] [--sheet FILE.png] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.engine import Engine
from core.settings import EngineSettings, Look, Policy, Runtime
from training.data import Picture, f32, held_out, square
from training.detail import trained
from training.lessons import to_bytes
from training.run import load, sharpened, translate
from training.sheet import bgr, captioned
from training.teachers import TEACHERS, analyse, grey

BROAD = 8


class Score(NamedTuple):
    """Of a picture beside its teacher's. broad: the distance of their means of `BROAD` x `BROAD` pixels."""

    sharpness: float
    distance: float
    broad: float


def energy(picture: Picture) -> float:
    """Variance of the Laplacian of the brightness, 0..255."""
    return float(cv2.Laplacian(grey(picture) * 255, cv2.CV_32F).var())


def score(made: Picture, taught: Picture) -> Score:
    """Compare the picture as it is shown, in 8 bits."""
    shown, wanted = (f32(to_bytes(np.clip(one, 0, 1))) / 255 for one in (made, taught))
    height, width = (side // BROAD * BROAD for side in shown.shape[:2])
    few = (width // BROAD, height // BROAD)
    broad = cv2.resize((shown - wanted)[:height, :width], few, interpolation=cv2.INTER_AREA)  # means of whole blocks
    distance = float(np.abs(shown - wanted).mean())
    return Score(energy(shown) / max(energy(wanted), 1e-6), distance, float(np.abs(broad).mean()))


def frames(folder: Path, size: int) -> dict[str, Picture]:
    """Read the frame at two fifths of each film of the folder, its middle square."""
    found = {}
    for path in sorted(folder.glob("*.mp4")):
        film = cv2.VideoCapture(str(path))
        film.set(cv2.CAP_PROP_POS_FRAMES, int(film.get(cv2.CAP_PROP_FRAME_COUNT)) * 2 // 5)
        got, frame = film.read()
        if got:
            found[path.stem] = square(f32(frame[..., ::-1]) / np.float32(255), size)
    return found


def of_engine(model: Path, runtime: Runtime, style: str, pictures: list[Picture], steps: int) -> list[Picture]:
    """Return what an engine without a bank shows of each picture by itself."""
    height, width = pictures[0].shape[:2]
    settings = EngineSettings(str(model), width, height, steps=steps, runtime=runtime, device="cpu", policy=Policy.OFF)
    engine, found = Engine(settings, Look(prompt=style)), []
    for picture in pictures:
        shown = [engine.translate(to_bytes(picture)), *engine.drain()]
        found.append(f32(shown[-1]) / np.float32(255))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of films; without it the pictures held out from training")
    parser.add_argument("--model", type=Path, default=Path("core/embedded_model"))
    parser.add_argument("--detail", type=Path, help="weights of the detail stage, where they are not the model's own")
    parser.add_argument("--runtime", type=Runtime, choices=[Runtime.EAGER, Runtime.ONNX], help="the engine's picture")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--styles", nargs="*", default=list(TEACHERS))
    parser.add_argument("--sheet", type=Path, help="a picture of it all: source, without, with, teacher")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    parts = load(given.model)
    if given.detail:
        parts = parts._replace(detail=trained(given.detail))
    pictures = frames(given.clips, given.size) if given.clips else held_out(given.size)
    table: dict[str, dict[str, Score]] = {}
    rows = []
    for style in given.styles:
        scores: dict[str, list[Score]] = {"without": [], "with": []}
        by_engine = iter(
            of_engine(given.model, given.runtime, style, list(pictures.values()), given.steps) if given.runtime else ()
        )
        for picture in pictures.values():
            taught = TEACHERS[style](analyse(picture), 1.0)
            made = translate(parts._replace(detail=None), picture, style, steps=given.steps)
            sharp = next(by_engine) if given.runtime else sharpened(parts, made, picture)
            shown = {"without": made, "with": sharp}
            for name, one in shown.items():
                scores[name].append(score(one, taught))
            cells = [picture, *shown.values(), taught]
            rows.append([captioned(cell, text) for cell, text in zip(cells, (style, *shown, "teacher"), strict=True)])
        table[style] = {name: Score(*np.mean(found, 0).tolist()) for name, found in scores.items()}
        before, after = table[style]["without"], table[style]["with"]
        print(
            f"{style:<20} sharpness {before.sharpness:.2f} -> {after.sharpness:.2f}   "
            f"distance {before.distance:.3f} -> {after.distance:.3f}, in broad tones {after.broad:.3f}",
            flush=True,
        )
    for name in ("without", "with"):
        mean = np.mean([scores_[name] for scores_ in table.values()], 0)
        print(f"{name}: sharpness {mean[0]:.2f}, distance {mean[1]:.4f}, in broad tones {mean[2]:.4f}")
    if given.sheet:
        many = len(pictures)
        lines = [np.concatenate([*itertools.chain(*rows[at : at + many])], 1) for at in range(0, len(rows), many)]
        cv2.imwrite(str(given.sheet), bgr(np.concatenate(lines)))
    if given.json:
        plain = {style: {name: one._asdict() for name, one in found.items()} for style, found in table.items()}
        given.json.write_text(json.dumps({"pictures": list(pictures), "styles": plain}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
