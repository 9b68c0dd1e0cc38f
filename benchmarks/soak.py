"""A long run, watched: memory, threads, open files and the pace, while nothing or the worst happens to the engine.

    python benchmarks/soak.py [--minutes 30] [--kills 0] [--fps 30] [--size 640x480] [--engine model|busy]
                              [--samples samples.jsonl]

A video file in a loop is translated by the included model and published to nobody. --engine busy: by one that takes all
cores and starts quickly (see pacing.py). --kills: the engine is killed
(SIGKILL) so many times, each time once it has shown pictures again. Prints one JSON object; exit status 1 if memory
grew by 20 MB or more, a thread or open file was left behind, or two pictures were published 100 ms further apart than
they should (with --kills: of the camera's own process, since the engine's is another each time).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402  the path first

from core.settings import EngineSettings  # noqa: E402
from vcam.daemon.daemon import Daemon, RunParts  # noqa: E402
from vcam.devices.sinks import VideoFile  # noqa: E402
from vcam.devices.test_pattern import draw_person  # noqa: E402
from vcam.settings.run_options import RunOptions, RunReport  # noqa: E402

GROWTH_MB = 20.0
LATE_MS = 100.0
PICTURES = 5  # translated between two kills
SAMPLES = 240  # over the whole run


@dataclass(frozen=True)
class Sample:
    """One look: of the camera's own process and of all; memory in MB (resident)."""

    at_s: float
    own_mb: float
    all_mb: float
    processes: int
    threads: int
    files: int
    published: int
    translated: int
    restarts: int
    longest_ms: float


def sample(daemon: Daemon, start_s: float) -> Sample:
    """Look at this process, its children and the daemon."""
    own = psutil.Process()
    family = [own, *own.children(recursive=True)]
    own_mb, all_mb = own.memory_info().rss / 1e6, 0.0
    for one in family:
        try:
            all_mb += one.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue  # a child that was just killed
    status = daemon.status()
    return Sample(
        round(time.monotonic() - start_s, 1),
        round(own_mb, 1),
        round(all_mb, 1),
        len(family),
        own.num_threads(),
        own.num_fds() if hasattr(own, "num_fds") else 0,
        status.published,
        status.translated,
        status.restarts,
        round(status.longest_interval_ms, 1),
    )


def growth_mb(values: Sequence[float]) -> float:
    """How much the last tenth lies over the first, by their medians."""
    tenth = max(1, len(values) // 10)
    return round(statistics.median(values[-tenth:]) - statistics.median(values[:tenth]), 1)


def kill_engine(daemon: Daemon) -> None:
    """Kill the engine's process, if it is there."""
    pid = daemon.status().engine_pid
    if pid is not None:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            return


def watch(daemon: Daemon, done: Future[RunReport], seconds: float, kills: int) -> tuple[list[Sample], int]:
    """Look at it until the time is over and all kills are done; the samples and how often it was killed."""
    start_s, samples, killed, seen = time.monotonic(), [], 0, 0
    next_s = start_s
    while not done.done():
        now, status = time.monotonic(), daemon.status()
        if now >= next_s:
            samples.append(sample(daemon, start_s))
            next_s = now + max(1.0, seconds / SAMPLES)
        if killed < kills and status.state == "running" and status.translated >= seen + PICTURES:
            kill_engine(daemon)
            killed += 1
            before = status.restarts
            while daemon.status().restarts == before and not done.done():
                time.sleep(0.01)
            seen = daemon.status().translated
        if now - start_s >= seconds and killed >= kills:
            break
        time.sleep(0.1)
    samples.append(sample(daemon, start_s))
    return samples, killed


def film(folder: Path, size: tuple[int, int]) -> Path:
    """Five seconds of the test picture as a video file."""
    path = folder / "person.mp4"
    sink = VideoFile(path, size, 30)
    for i in range(150):
        sink.send(draw_person(i / 30, size), i)
    sink.close()
    return path


def parts_of(engine: str, folder: Path) -> RunParts:
    """Return the daemon's parts with this engine."""
    if engine == "model":
        return RunParts(state_folder=lambda: folder, signals=False)
    return RunParts(
        engine="benchmarks.pacing:busy_engine",
        settings_of=lambda profile, options: EngineSettings(model="busy", width=320, height=240),
        state_folder=lambda: folder,
        signals=False,
    )


def main() -> int:
    """Run, print, judge."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the busy engine's threads are its own
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--engine", choices=["model", "busy"], default="model")
    parser.add_argument("--samples", type=Path, help="also write every sample there, a line each")
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = RunOptions(
            source=str(film(folder, (width, height))), sink="none", size=(width, height), fps=given.fps, panel=False
        )
        stop, done = threading.Event(), Future[RunReport]()
        daemon = Daemon(options, parts_of(given.engine, folder), stop)
        worker = threading.Thread(target=lambda: done.set_result(daemon.run()))
        worker.start()
        try:
            samples, killed = watch(daemon, done, given.minutes * 60, given.kills)
        finally:
            stop.set()
            worker.join()
    if given.samples:
        given.samples.write_text("".join(json.dumps(asdict(one)) + "\n" for one in samples))
    return judge(samples, killed, given.fps, done.result())


def judge(samples: Sequence[Sample], killed: int, fps: float, report: RunReport) -> int:
    """Print what was seen; 1 if it is over a limit."""
    # what is loaded and allocated until the first pictures is no growth
    settled = [one for one in samples[len(samples) // 10 :] if one.translated >= PICTURES] or samples
    memory = [one.own_mb if killed else one.all_mb for one in settled]
    first, last = settled[0], settled[-1]
    late_ms = report.publish_interval_ms["max"] - 1000 / fps
    grown_mb = growth_mb(memory)
    told = {
        "minutes": round(report.seconds / 60, 2),
        "killed": killed,
        "restarts": report.restarts,
        "memory_growth_mb": grown_mb,
        "memory_mb": last.all_mb,
        "threads": [first.threads, last.threads],
        "files": [first.files, last.files],
        "late_ms": round(late_ms, 1),
        "load": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
    }
    print(json.dumps({**told, **report.to_json()}))
    left = last.threads > first.threads or last.files > first.files
    return int(grown_mb >= GROWTH_MB or left or late_ms > LATE_MS)


if __name__ == "__main__":
    sys.exit(main())
