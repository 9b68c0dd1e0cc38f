"""What each preset gives on this machine: pictures a second, and the processor's time that a picture takes.

The presets take turns, so that all meet the same machine. Where others work on it too, the quickest quarter of the
pictures and the processor's time tell more than the mean: `at most` is what so much time allows on the threads given.

python benchmarks/presets.py [--size 640x480] [--threads 2] [--rounds 12] [--model M]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.settings import Look
from vcam.devices.test_pattern import draw_person
from vcam.settings.config import parse_size
from vcam.settings.engine_options import EngineOptions, engine_settings
from vcam.settings.presets import BY_SHARPNESS

WARM_UP, EACH = 2, 6  # pictures of a turn that do not count, and that do


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480", help="published")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--model")
    given = parser.parse_args(arguments)

    import torch

    from core.engine import Engine

    torch.set_num_threads(given.threads)
    look, shape = Look(prompt="claymation, a person talking"), parse_size(given.size)
    chosen = {
        preset: engine_settings(EngineOptions(preset=preset, model=given.model), shape=shape, automatic={})
        for preset in BY_SHARPNESS
    }
    engines = {preset: Engine(settings, look) for preset, settings in chosen.items()}
    wall: dict[str, list[float]] = {preset: [] for preset in BY_SHARPNESS}
    work: dict[str, list[float]] = {preset: [] for preset in BY_SHARPNESS}
    for turn in range(given.rounds):
        for preset, engine in engines.items():
            size = engine.settings.width, engine.settings.height
            for number in range(WARM_UP + EACH):
                picture = draw_person(turn + number / 30, size)
                began, used = time.perf_counter(), time.process_time()
                engine.translate(picture)
                if number >= WARM_UP:
                    wall[preset].append(time.perf_counter() - began)
                    work[preset].append(time.process_time() - used)
    print("preset    size      steps  median fps  best quarter  CPU ms  at most")
    for preset, settings in chosen.items():
        taken, used_s = sorted(wall[preset]), float(np.mean(work[preset]))
        print(
            f"{preset:<9} {settings.width}x{settings.height:<5} {settings.steps:>5} {1 / np.median(taken):>11.1f} "
            f"{1 / np.mean(taken[: len(taken) // 4]):>13.1f} {1000 * used_s:>7.0f} {given.threads / used_s:>8.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
