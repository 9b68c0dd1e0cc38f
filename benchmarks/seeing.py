"""What the small models cost that see faces and persons, and how a film looks that follows a face.

    python benchmarks/seeing.py --clips FOLDER

The models come from the user's folder (`vcam models download face`, `... person`) or VCAM_MODELS_FOLDER. First
milliseconds of one picture on two threads, by the clock (the quickest quarter of 40) and the processor's: finding a
face, the mask, its border along the camera's edges, and all that a look's region takes. Then, of each film followed in
16:9, the share of the pictures in which the whole face is, how far the picture moves at most from one frame to the
next, and how much of the time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.settings import Framing, Look, Region
from vcam.devices.test_pattern import draw_person
from vcam.fit import Framer, Regions, WhenThere, viewed
from vcam.fit.region import along_edges
from vcam.fit.small_models import open_face_detector, open_person_finder
from vcam.frames import Focus, Picture
from vcam.video import probe, read

SIZES = ((640, 480), (1280, 720), (1920, 1080))
SHAPE = (1280, 720)


def cost_ms(work: Callable[[], object]) -> tuple[float, float]:
    """Return what a piece of work takes, by clock and processor."""
    clock, processor = [], []
    for _ in range(40):
        began, used = time.perf_counter(), time.process_time()
        work()
        clock.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (time.process_time() - used))
    return float(np.mean(sorted(clock)[:10])), float(np.median(processor))


def costs(size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Return the cost of each part at a published size."""
    picture, still = draw_person(2.0, size), draw_person(5.0, size)
    styled = (255 - picture).astype(np.uint8)
    detector, finder = open_face_detector(), open_person_finder()
    mask = finder.person(picture)

    def region(region: Region, elsewhere: str) -> Callable[[], Picture]:
        regions = Regions(WhenThere(lambda: finder), lambda path: still, share=float("inf"))
        look = Look(region=region, elsewhere=elsewhere)
        return lambda: regions.composed(styled, picture, look)

    parts: dict[str, Callable[[], object]] = {
        "a face": lambda: detector.faces(picture),
        "a mask": lambda: finder.person(picture),
        "its border": lambda: along_edges(mask, picture, size),
        "person, camera behind": region(Region.PERSON, "camera"),
        "person, blur behind": region(Region.PERSON, "blur"),
        "person, still picture behind": region(Region.PERSON, "/still.png"),
        "background": region(Region.BACKGROUND, "camera"),
    }
    return {name: cost_ms(work) for name, work in parts.items()}


def followed(film: Path) -> tuple[float, float, float]:
    """Return the shares of pictures with the whole face, and moving; between them the largest step, in heights."""
    detector, other = open_face_detector(), open_face_detector()
    framer = Framer(WhenThere(lambda: detector), SHAPE[0] / SHAPE[1])
    whole: list[bool] = []
    steps: list[float] = []
    before: Focus | None = None
    for picture in read(probe(film)):
        shot = framer.shot(picture.rgb, float(picture.time), Framing.FACE)
        if shot.focus is None:
            continue
        if before is not None:
            steps.append(max(abs(a - b) for a, b in zip(shot.focus, before, strict=True)) / shot.focus.height)
        before = shot.focus
        faces = other.faces(viewed(picture.rgb, SHAPE, shot=shot))
        if faces:
            face = max(faces, key=lambda one: one.height)
            inside = (face.x - face.width / 2, face.y - face.height / 2, 1 - face.x - face.width / 2)
            whole.append(min(*inside, 1 - face.y - face.height / 2) >= 0)
    moving = float(np.mean([step > 0 for step in steps])) if steps else 0.0
    return float(np.mean(whole)) if whole else 0.0, max(steps, default=0.0), moving


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(2)
    print(f"{'':<30}" + "".join(f"{f'{width}x{height}':>12}: ms  processor ms" for width, height in SIZES))
    found = [costs(size) for size in SIZES]
    for name in found[0]:
        print(f"{name:<30}" + "".join(f"{one[name][0]:>16.1f}{one[name][1]:>14.1f}" for one in found), flush=True)
    print("film                      whole face   largest step   moving")
    for film in sorted(given.clips.glob("*.mp4")):
        whole, step, moving = followed(film)
        print(f"{film.stem:<25} {whole:>10.0%} {step:>13.3f} {moving:>9.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
