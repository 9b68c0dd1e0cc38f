"""Does a face survive its translation? Faces that YuNet finds, and how far their landmarks move.

For each look: of the faces found in the sources, the share found at the same place in the picture (%), and the mean
distance of the five landmarks, over the face's width, with the mean's own standard error. A preset (`balanced` unless
said) asks what is published: the running engine's picture in the profile's whole look, enlarged to 640x480. `model` and
`without` ask the model alone, of a square picture, `teachers` what the teachers themselves do to a face.

python benchmarks/faces.py --detector yunet.onnx [--clips FOLDER] [--photos FOLDER] [--of PRESET|model|teachers|without]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.engine import Engine
from core.settings import Look
from training.data import Picture, f32, square
from training.lessons import to_bytes
from training.photos import portraits, read
from training.run import load, translate
from training.teachers import TEACHERS, analyse
from training.words import STYLES
from vcam.fit import crop_to, enlarged
from vcam.settings.engine_options import EngineOptions, engine_settings
from vcam.settings.presets import BY_SHARPNESS, START, Preset
from vcam.settings.profiles import parse_profile

FILMS = ("webcam_signing", "talking_man", "webcam_expressions")
PUBLISHED = (640, 480)
SCORE = 0.6
NEAR = 0.5  # of the face's width: where the same face may lie


class Face(NamedTuple):
    """Pixels: the middle and the width of the box, and the landmarks [5, 2]."""

    middle: NDArray[np.float32]
    width: float
    landmarks: NDArray[np.float32]


def faces(detector: Any, picture: Picture) -> list[Face]:
    """Find all faces of a picture."""
    _, rows = detector.detect(np.ascontiguousarray(to_bytes(np.clip(picture, 0, 1))[..., ::-1]))
    found = [] if rows is None else list(rows)
    return [Face(row[:2] + row[2:4] / 2, float(row[2]), row[4:14].reshape(5, 2)) for row in found]


def moved(face: Face, others: list[Face]) -> float | None:
    """Return the landmarks' mean distance, of the face's width, to those of the same face; None where there is none."""
    near = [one for one in others if np.linalg.norm(one.middle - face.middle) < NEAR * face.width]
    errors = [float(np.linalg.norm(one.landmarks - face.landmarks, axis=1).mean()) / face.width for one in near]
    return min(errors, default=None)


def sources(
    clips: Path | None, photos: Path | None, each: int, cut: Callable[[Picture], Picture]
) -> dict[str, list[Picture]]:
    """Frames of the films, evenly chosen, and the portraits held out from training, each as `cut` gives it."""
    found: dict[str, list[Picture]] = {}
    for name in FILMS if clips else ():
        film = cv2.VideoCapture(str(Path(str(clips)) / f"{name}.mp4"))
        count = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        for number in np.linspace(0, count - 1, each).astype(int):
            film.set(cv2.CAP_PROP_POS_FRAMES, int(number))
            got, frame = film.read()
            if got:
                found.setdefault(name, []).append(cut(f32(frame[..., ::-1]) / np.float32(255)))
    if photos:
        chosen = portraits(photos, held_out=True)[:each]
        found["portraits"] = [cut(read(path)) for path in chosen]
    return found


def style_of(prompt: str) -> str:
    """Return the style whose name or another way of saying it is in the prompt."""
    ways = [(way, style) for style, names in STYLES.items() for way in (style, *names) if way in prompt.lower()]
    return max(ways, key=lambda found: len(found[0]))[1]


def looks(folder: Path) -> dict[str, Look]:
    """Return the look of each shipped profile, by its file's name."""
    return {path.stem: parse_profile(path).look for path in sorted(folder.glob("*.toml"))}


def as_published(preset: Preset, model: Path) -> Callable[[Look, Picture], Picture]:
    """Return what translates a picture of the size PUBLISHED as the camera would publish it; the bank is empty."""
    settings = engine_settings(EngineOptions(preset=preset, model=str(model)), shape=PUBLISHED, automatic={})
    engine = Engine(settings, Look())

    def publish(look: Look, picture: Picture) -> Picture:
        source = to_bytes(picture)
        engine.set_look(look)
        engine.forget()
        given = crop_to(source, (settings.width, settings.height))
        shown = [engine.translate(given), *engine.drain()]
        made = next(one for one in shown if one is not None)
        return f32(enlarged(made, source, PUBLISHED, look.detail)) / np.float32(255)

    return publish


def makers(of: str, model: Path) -> Callable[[Look, Picture], Picture]:
    """Return what makes a picture from a look and a source."""
    if of in BY_SHARPNESS:
        return as_published(Preset(of), model)
    if of == "teachers":
        return lambda look, picture: TEACHERS[style_of(look.prompt)](analyse(picture), 1.0)
    parts = load(model)
    own = parts if of == "model" else parts._replace(detail=None)
    return lambda look, picture: translate(own, picture, look.prompt, strength=look.strength)


def summary(errors: list[float | None]) -> dict[str, float]:
    """Return found (%), error (of the face's width) and how well that mean is known: its standard error.

    errors: of each face in the sources, what `moved` says of it. Where none was found the error is 1, known as ill.
    """
    found = [error for error in errors if error is not None]
    share, mean = 100 * len(found) / max(len(errors), 1), float(np.mean(found)) if found else 1.0
    doubt = float(np.std(found, ddof=1)) / len(found) ** 0.5 if len(found) > 1 else 1.0
    return {"found": round(share, 1), "error": round(mean, 4), "doubt": round(doubt, 4)}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, required=True, help="YuNet, an ONNX file")
    parser.add_argument("--clips", type=Path, help="a folder with " + ", ".join(FILMS))
    parser.add_argument("--photos", type=Path, help="a folder whose `portraits` were held out in part")
    of = *BY_SHARPNESS, "model", "without", "teachers"
    parser.add_argument("--of", choices=of, default=START, help="a preset: what is published; without: the detail")
    parser.add_argument("--model", type=Path, default=Path("core/embedded_model"))
    parser.add_argument("--profiles", type=Path, default=Path("profiles"))
    parser.add_argument("--only", nargs="*", help="profiles")
    parser.add_argument("--each", type=int, default=12, help="pictures of each film, and portraits")
    parser.add_argument("--size", type=int, default=256, help="pixels, a multiple of 32; not of a preset")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    seen = PUBLISHED if given.of in BY_SHARPNESS else (given.size, given.size)
    detector = cv2.FaceDetectorYN.create(str(given.detector), "", seen, SCORE)

    def cut(picture: Picture) -> Picture:
        published = given.of in BY_SHARPNESS
        return f32(crop_to(to_bytes(picture), seen)) / np.float32(255) if published else square(picture, given.size)

    pictures = sources(given.clips, given.photos, given.each, cut)
    known = {name: [(one, face) for one in many for face in faces(detector, one)] for name, many in pictures.items()}
    make = makers(given.of, given.model)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for profile, look in looks(given.profiles).items():
        if given.only and profile not in given.only:
            continue
        row = table[profile] = {}
        for name, pairs in known.items():
            made = {id(one): faces(detector, make(look, one)) for one, _ in pairs}
            row[name] = summary([moved(face, made[id(one)]) for one, face in pairs])
        of_each = {name: f"{one['found']:.0f} % {one['error']:.3f} +- {one['doubt']:.3f}" for name, one in row.items()}
        line = "   ".join(f"{name} {figures}" for name, figures in of_each.items())
        print(f"{profile:<12} {line}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"of": given.of, "size": seen, "profiles": table}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
