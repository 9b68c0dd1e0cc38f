"""How evenly pictures are published while the engine takes every core it can get.

    python benchmarks/pacing.py [--seconds 60] [--fps 30] [--size 640x480] [--sink none] [--engine busy|model]

`busy`: all cores multiply matrices without a pause, 0.15 s a frame. `model`: the embedded model. Prints one JSON
object; exit status 1 if the 95th percentile of the interval is over 20 % off or the longest is 100 ms or more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from core.settings import EngineSettings, Look  # noqa: E402
from vcam.daemon.daemon import RunParts, run  # noqa: E402
from vcam.frames import Picture  # noqa: E402
from vcam.settings.run_options import RunOptions, settings_for  # noqa: E402
from vcam.worker.factories import CORE_ENGINE, ReportProgress  # noqa: E402

FRAME_S = 0.15


class BusyEngine:
    """Keeps `threads` cores busy for FRAME_S a picture, and gives the picture back."""

    delay = 0
    bank_bytes = 0
    provider = ""
    changes_loras = False
    trouble = ""

    def __init__(self, settings: EngineSettings, threads: int) -> None:
        self.settings, self.threads = settings, threads

    def translate(self, picture: Picture) -> Picture:
        """Return the same picture, later."""
        end = time.perf_counter() + FRAME_S
        workers = [threading.Thread(target=_multiply, args=(end,)) for _ in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return picture

    def set_look(self, look: Look, frames: int = 0) -> None:
        """Nothing to look different."""

    def prepare(self, prompts: Iterable[str]) -> None:
        """Nothing to prepare."""

    def forget(self) -> None:
        """Nothing to forget."""


def _multiply(end: float) -> None:
    matrix = np.random.default_rng(0).standard_normal((192, 192)).astype(np.float32)
    while time.perf_counter() < end:
        matrix @ matrix


def busy_engine(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> BusyEngine:
    """As vcam.worker.factories.EngineProtocol has it."""
    return BusyEngine(settings, threads)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--sink", default="none")
    parser.add_argument("--engine", choices=["busy", "model"], default="busy")
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    busy = given.engine == "busy"
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the threads are ours
    with tempfile.TemporaryDirectory() as folder:
        parts = RunParts(
            engine="benchmarks.pacing:busy_engine" if busy else CORE_ENGINE,
            settings_of=(lambda profile, options: EngineSettings(model="busy")) if busy else settings_for,
            state_folder=lambda: Path(folder),
        )
        options = RunOptions(
            source="pattern",
            sink=given.sink,
            size=(width, height),
            fps=given.fps,
            frames=round(given.seconds * given.fps),
            panel=False,
        )
        report = run(options, parts)
    beat_ms = 1000 / given.fps
    interval = report.publish_interval_ms
    print(json.dumps({**report.to_json(), "load": os.getloadavg()[0], "cores": os.cpu_count()}))
    return 0 if interval["p95"] <= 1.2 * beat_ms and interval["max"] < 100 else 1


if __name__ == "__main__":
    sys.exit(main())
