"""Does a long stream drift? A film back and forth, thousands of pictures: sharpness, edit strength and colour in time.

    python benchmarks/long_run.py FILM [--frames 3000] [--turn 60] [--size 256x256] [--prompt "ink, a person talking"]
                                  [--bank fifo|merge] [--interval N]

The film's first `--turn` pictures are shown forwards and backwards again and again, so that each round has the same
pictures as the one before: what changes from round to round is the bank's doing. For each round: the mean square of the
Laplacian (sharpness), core.measure.metrics' edit strength, the mean of CIELAB's L, a and b, ghosting, and how far (root
mean square, grey levels) the pictures are from those of the second round, whose start is forgotten. `off` is the same
film once without a bank. Prints the curve, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402  the path first
import numpy as np  # noqa: E402

from benchmarks.bank_rows import sharpness  # noqa: E402
from core.algorithm.net import Picture  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.measure import metrics  # noqa: E402
from core.models.description import describe  # noqa: E402
from core.settings import EngineSettings, Look, Policy  # noqa: E402
from vcam.offline.suite.inputs import model_hashes  # noqa: E402
from vcam.video import probe, read, resized  # noqa: E402


def rounds(film: Path, turn: int, size: tuple[int, int]) -> list[Picture]:
    """Return one round: the film's first pictures forwards, then backwards, without the ends twice."""
    found = [resized(picture.rgb, *size) for picture in islice(read(probe(film)), turn)]
    return found + found[-2:0:-1]


def figures(source: list[Picture], output: list[Picture], first: list[Picture] | None) -> dict[str, Any]:
    """Return what one round looks like; first: the round that it is compared with."""
    colour = np.mean([cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).mean((0, 1)) for p in output], 0)
    apart = 0.0
    if first is not None:
        squares = [((a.astype(np.float32) - b) ** 2).mean() for a, b in zip(output, first, strict=True)]
        apart = float(np.sqrt(np.mean(squares)))
    return {
        "sharpness": float(np.mean([sharpness(picture) for picture in output])),
        "edit_strength": metrics.edit_strength(source, output),
        "lab": [float(value) for value in colour],
        "ghosting": metrics.ghosting(source, output),
        "apart": apart,
    }


def translated(engine: Engine, source: list[Picture]) -> Iterator[Picture]:
    """Yield every picture's translation."""
    for picture in source:
        if (shown := engine.translate(picture)) is not None:
            yield shown
    yield from engine.drain()


def told(name: str, found: dict[str, Any]) -> str:
    """One line of the curve."""
    lab = " ".join(f"{value:6.2f}" for value in found["lab"])
    ghost = "-" if found["ghosting"] is None else f"{found['ghosting']:6.3f}"
    values = f"sharpness {found['sharpness']:8.1f}  edit {found['edit_strength']:7.3f}  Lab {lab}  ghost {ghost}"
    return f"{name:>12}  {values}  apart {found['apart']:6.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--turn", type=int, default=60)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompt", default="ink, a person talking")
    parser.add_argument("--bank", type=Policy)
    parser.add_argument("--interval", type=int)
    args = parser.parse_args()
    own = describe(args.model)
    width, height = (int(side) for side in args.size.split("x"))
    source = rounds(args.film, args.turn, (width, height))
    look = Look(prompt=args.prompt, strength=own.strength, interval=args.interval)
    curve: list[dict[str, Any]] = []
    for policy in (Policy.OFF, args.bank or own.policy):
        settings = EngineSettings(args.model, width, height, args.steps or own.steps, policy=policy, slots=own.slots)
        engine = Engine(settings, look)
        count = 1 if policy is Policy.OFF else max(2, round(args.frames / len(source)))
        first: list[Picture] | None = None
        shown: list[Picture] = []
        number = 0
        for picture in translated(engine, source * count):
            shown.append(picture)
            if len(shown) < len(source):
                continue
            number += 1
            found = figures(source, shown, first)
            curve.append(found | {"bank": str(policy), "round": number})
            print(told("off" if policy is Policy.OFF else str(number * len(source)), found), flush=True)
            first, shown = (shown if number == 2 else first), []
    parts = model_hashes(EngineSettings(args.model))
    asked = {"film": args.film.stem, "frames": args.frames, "round": len(source), "parts": parts}
    print(json.dumps(asked | {"curve": curve}))


if __name__ == "__main__":
    main()
