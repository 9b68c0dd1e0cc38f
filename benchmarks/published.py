"""What `detail` brings where a translation is enlarged to the published size (vcam.fit.enlarged), and what it costs.

    python benchmarks/published.py --clips FOLDER [--frames 24] [--noise 0] [--styles "claymation;ink"] [--sheet FILE]

First milliseconds on two threads: by the clock, the quickest quarter of 60, and the processor's. Then one frame of each
film, 640x480: every style's teacher draws it whole; its picture is made half as large, enlarged again and compared with
what it was: the distance (of 1), and the energy of the Laplacian over the true one's. Last the included model's
translations of `frames` pictures, preset balanced, enlarged: the warp error, which tells whether the sensor's flicker
comes through, and how strong the edit is. noise: sigma of sensor noise added to the films, grey levels.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.algorithm.net import Picture
from core.engine import Engine
from core.measure import metrics
from core.settings import Look
from training.data import f32
from training.lessons import to_bytes
from training.teachers import TEACHERS, analyse, grey
from vcam.fit import crop_to, enlarged
from vcam.settings.engine_options import EngineOptions, engine_settings
from vcam.settings.presets import Preset
from vcam.video import probe, read

SIZE = (640, 480)
DETAILS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES = ((640, 480), (1280, 720), (1920, 1080))


def energy(picture: Picture) -> float:
    """Variance of the Laplacian of the brightness, 0..255."""
    return float(cv2.Laplacian(grey(f32(picture) / np.float32(255)) * 255, cv2.CV_32F).var())


def frames(film: Path, count: int, noise: float) -> list[Picture]:
    """Return the film's first frames at the published size."""
    found = [crop_to(picture.rgb, SIZE) for picture in islice(read(probe(film)), count)]
    random = np.random.default_rng(0)
    return [(p + random.normal(0, noise, p.shape)).clip(0, 255).astype(np.uint8) for p in found] if noise else found


def recovered(pictures: list[Picture]) -> dict[float, list[tuple[float, float]]]:
    """Return distance and sharpness by detail, of each teacher's picture of each of these."""
    scores: dict[float, list[tuple[float, float]]] = {detail: [] for detail in DETAILS}
    for picture in pictures:
        seen = analyse(f32(picture) / np.float32(255))
        for teach in TEACHERS.values():
            true = to_bytes(np.clip(teach(seen, 1.0), 0, 1))
            small = crop_to(true, (SIZE[0] // 2, SIZE[1] // 2))
            for detail in DETAILS:
                again = enlarged(small, picture, SIZE, detail)
                distance = float(np.abs(again.astype(np.float32) - true).mean()) / 255
                scores[detail].append((distance, energy(again) / max(energy(true), 1e-6)))
    return scores


def translated(source: list[Picture], style: str) -> list[Picture]:
    """Return every picture's translation, as small as the engine makes it."""
    settings = engine_settings(EngineOptions(preset=Preset.BALANCED), shape=SIZE, automatic={})
    engine = Engine(settings, Look(prompt=f"{style}, a person talking"))
    shown = [engine.translate(crop_to(picture, (settings.width, settings.height))) for picture in source]
    return [picture for picture in shown if picture is not None] + list(engine.drain())


def cost_ms(size: tuple[int, int], detail: float) -> tuple[float, float]:
    """Return the milliseconds that enlarging a translation of the preset balanced takes, by clock and processor."""
    settings = engine_settings(EngineOptions(preset=Preset.BALANCED), shape=size, automatic={})
    guide = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8), (0, 0), 2)
    small = crop_to(np.asarray(guide, np.uint8), (settings.width, settings.height))
    clock, processor = [], []
    for _ in range(60):
        began, used = time.perf_counter(), time.process_time()
        enlarged(small, np.asarray(guide, np.uint8), size, detail)
        clock.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (time.process_time() - used))
    return float(np.mean(sorted(clock)[:15])), float(np.median(processor))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0)
    parser.add_argument("--styles", default="claymation;ink")
    parser.add_argument("--sheet", type=Path, help="a picture: the camera's, and details 0, 0.5 and 1, of each film")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(2)
    print("size        plain: ms  processor ms   with detail: ms  processor ms")
    for size in SIZES:
        (plain, plain_work), (ms, work) = cost_ms(size, 0), cost_ms(size, 1)
        print(f"{size[0]}x{size[1]:<6} {plain:>10.1f} {plain_work:>13.1f} {ms:>17.1f} {work:>13.1f}", flush=True)
    films = sorted(given.clips.glob("*.mp4"))
    sources = [frames(film, given.frames, given.noise) for film in films]
    print("detail  distance  sharpness, of the true picture")
    for detail, scores in recovered([source[len(source) // 2] for source in sources]).items():
        distance, sharpness = np.mean(scores, 0)
        print(f"{detail:<6}  {distance:.4f}    {sharpness:.2f}", flush=True)
    print("film                 style        detail  sharpness, of plain  warp error  edit strength")
    rows = []
    for film, source in zip(films, sources, strict=True):
        for style in given.styles.split(";"):
            small = translated(source, style)
            cells = [source[-1]]
            plain = 0.0
            for detail in DETAILS:
                shown = [enlarged(one, guide, SIZE, detail) for one, guide in zip(small, source, strict=True)]
                found = metrics.measure(source, shown)
                sharp = float(np.mean([energy(one) for one in shown]))
                plain = plain or sharp
                print(
                    f"{film.stem:<20} {style:<12} {detail:<6}  {sharp / plain:>19.2f}  {found.warp_error or 0:>10.1f}"
                    f"  {found.edit_strength:>13.3f}",
                    flush=True,
                )
                cells += [shown[-1]] if detail in (0.0, 0.5, 1.0) else []
            rows.append(np.concatenate(cells, 1))
    if given.sheet:
        cv2.imwrite(str(given.sheet), np.concatenate(rows)[..., ::-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
