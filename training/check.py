"""`python -m training.check`: is what the model makes nearer to its own style's teacher than to any other?"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Photographs, Picture, held_out
from training.run import load, translate
from training.scenes import base_picture
from training.teachers import TEACHERS, analyse, grey, lesson


def signature(picture: Picture) -> NDArray[np.float32]:
    """Return what is compared: colours at 32 x 32, and the strength of edges at 64 x 64."""
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    light = grey(picture)
    slope = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)) / 4
    return np.concatenate([small.ravel(), 0.5 * cv2.resize(slope, (64, 64), interpolation=cv2.INTER_AREA).ravel()])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training.check", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("core/embedded_model"))
    parser.add_argument(
        "--drawn", type=int, default=7, help="pictures drawn with a seed unknown to training, beside those held out"
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    parts, random, photographs = load(given.model), np.random.default_rng(987654321), Photographs()
    pictures = list(held_out(256).values()) + [base_picture(random, 256, photographs) for _ in range(given.drawn)]
    right, by_style, mistakes = 0, Counter[str](), Counter[str]()
    moved, distance = 0.0, 0.0
    for picture in pictures:
        known = analyse(picture)
        lessons = {style: lesson(known, style, "") for style in TEACHERS}
        marks = {style: signature(made) for style, made in lessons.items()}
        for style in TEACHERS:
            made = translate(parts, picture, style, steps=given.steps, strength=given.strength)
            mark = signature(made)
            nearest = min(marks, key=lambda other: float(np.abs(marks[other] - mark).mean()))
            right += nearest == style
            by_style[style] += nearest == style
            distance += float(np.abs(made - lessons[style]).mean())
            moved += float(np.abs(picture - lessons[style]).mean())
            if nearest != style:
                mistakes[f"{style} taken for {nearest}"] += 1
    pairs = len(pictures) * len(TEACHERS)
    result = {
        "pairs": pairs,
        "right": right,
        "percent": round(100 * right / pairs, 1),
        "distance_to_teacher": round(distance / pairs, 4),
        "distance_of_input_to_teacher": round(moved / pairs, 4),
        "mistakes": dict(mistakes.most_common()),
    }
    if not given.json:
        print(f"{right} of {pairs} ({result['percent']} %) nearest to their own teacher", file=sys.stderr)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
