"""What is published while looks and engines are switched: intervals, colours, memory, and which of many switches wins.

    python benchmarks/switching.py [--stay 3] [--rounds 2] [--storm 60] [--fps 30] [--size 640x480]

The embedded model translates the test picture; nobody watches. First each of LOOKS is taken in turn, `--stay` seconds
each, `--rounds` times; then the engine is changed (other steps, and back); then looks are switched ten times a second
for `--storm` seconds. Prints one JSON object; exit status 1 if two pictures were published 100 ms or more apart, a
picture after a switch is darker or greyer (by more than SLACK levels of 255) than what the looks before and after it
show and than every cross-fade of the two (purple fades to yellow by way of grey), memory grew by 20 MB or more during
the storm, or the last switch did not win.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402  the path first
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import psutil  # noqa: E402

from vcam.commands import ChangeEngine, Command, UseProfile  # noqa: E402
from vcam.daemon.daemon import Daemon, RunParts  # noqa: E402
from vcam.frames import Picture  # noqa: E402
from vcam.settings.config import ObsSettings  # noqa: E402
from vcam.settings.run_options import RunOptions  # noqa: E402

LOOKS = ("claymation", "ink", "neon", "gold", "watercolour", "thermal")
LONGEST_MS = 100.0
SLACK = 6.0  # levels of 255: what the moving person alone makes of a difference
GROWTH_MB = 20.0
PER_S = 10  # switches a second in the storm
WAIT_S = 180.0
THUMBNAIL = (16, 12)  # so small that the thumbnails of a minute are 1 MB


class Sent(NamedTuple):
    """One published picture: when, and as a thumbnail, RGB [12, 16, 3]."""

    at_s: float
    thumbnail: Picture


class Sink:
    """Publishes to nobody, and keeps thumbnails."""

    name = "thumbnails"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.sent: list[Sent] = []

    def send(self, picture: Picture, tick: int) -> None:
        """Keep when it came and a thumbnail of it."""
        small = cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA)
        self.sent.append(Sent(time.perf_counter(), small.astype(np.uint8, copy=False)))

    def close(self) -> None:
        """Nothing to close."""


def brightness(picture: npt.NDArray[Any]) -> float:
    """Return the mean over all pixels and channels, 0..255."""
    return float(picture.mean())


def colour(picture: npt.NDArray[Any]) -> float:
    """How far from grey, 0..255: the mean over all pixels of the largest channel less the smallest."""
    return float((picture.max(axis=2) - picture.min(axis=2)).mean())


def cross_fade(before: Picture, after: Picture) -> list[npt.NDArray[np.float64]]:
    """Return what is between the two pictures, in ten steps."""
    return [before * (1 - share) + after * share for share in np.linspace(0, 1, 11)]


def longest_ms(sent: Sequence[Sent]) -> float:
    """Return the longest time between two pictures."""
    return round(1000 * max(after.at_s - before.at_s for before, after in pairwise(sent)), 1)


def fall(
    sent: Sequence[Sent],
    switches: Sequence[tuple[float, str]],
    stay_s: float,
    value: Callable[[npt.NDArray[Any]], float],
) -> dict[str, Any]:
    """How far a picture after a switch falls below what the looks before and after it show: levels of 255, and where.

    switches: when, and between which looks. What a look shows is the least `value` of the last third of its stay; what
    the two explain is the least of both and of their cross-fade.
    """
    worst, where = 0.0, ""
    for at_s, looks in switches:
        third = stay_s / 3
        before = [one.thumbnail for one in sent if at_s - third <= one.at_s < at_s]
        after = [one.thumbnail for one in sent if at_s + 2 * third <= one.at_s < at_s + stay_s]
        between = [one.thumbnail for one in sent if at_s <= one.at_s < at_s + 2 * third]
        explained: list[npt.NDArray[Any]] = [*before, *after, *cross_fade(before[-1], after[0])]
        below = min(map(value, explained)) - min(map(value, between))
        if below > worst:
            worst, where = below, looks
    return {"levels": round(worst, 1), "at": where}


def resident_mb() -> float:
    """Return the memory of this process and its children."""
    own = psutil.Process()
    return sum(one.memory_info().rss for one in (own, *own.children(recursive=True))) / 1e6


class Bench:
    """A running camera under test."""

    def __init__(self, daemon: Daemon, sink: Sink) -> None:
        self.daemon, self.sink = daemon, sink

    def tell(self, command: Command) -> None:
        """Have it carry out the command."""
        self.daemon.submit(command).result(WAIT_S)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait; raises TimeoutError."""
        end = time.monotonic() + WAIT_S
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing for {WAIT_S:.0f} s; {self.daemon.status()}")
            time.sleep(0.05)

    def looks(self, stay_s: float, rounds: int) -> dict[str, Any]:
        """Each look in turn."""
        self.tell(UseProfile(LOOKS[-1]))
        time.sleep(stay_s)
        self.sink.sent.clear()
        time.sleep(stay_s)
        switches, before = [], LOOKS[-1]
        for look in LOOKS * rounds:
            at_s = time.perf_counter()
            switches.append((at_s, f"{before} > {look}"))
            self.tell(UseProfile(look))
            before = look
            time.sleep(max(0.0, at_s + stay_s - time.perf_counter()))
        sent = self.sink.sent[:]
        return {
            "switches": len(switches),
            "longest_ms": longest_ms(sent),
            "darker_by": fall(sent, switches, stay_s, brightness),
            "greyer_by": fall(sent, switches, stay_s, colour),
        }

    def engines(self) -> dict[str, Any]:
        """Another number of steps, and back; until the new engine's pictures are there."""
        usual = self.daemon.choice.settings.steps
        self.sink.sent.clear()
        took_s = []
        for steps in (usual % 2 + 1, usual):
            start_s = time.perf_counter()
            self.tell(ChangeEngine({"steps": steps}))
            self.until(lambda: bool(self.daemon.status().notes))  # it says that it prepares another
            self.until(lambda: not self.daemon.status().notes)
            took_s.append(round(time.perf_counter() - start_s, 1))
            time.sleep(2)
        return {"engine_s": took_s, "engine_longest_ms": longest_ms(self.sink.sent)}

    def storm(self, seconds: float) -> dict[str, Any]:
        """Ten switches a second."""
        shown = {look: self.shown(look) for look in LOOKS}
        for n in range(5 * PER_S):  # what is allocated once is no growth
            self.tell(UseProfile(LOOKS[n % len(LOOKS)]))
            time.sleep(1 / PER_S)
        before_mb = resident_mb()
        self.sink.sent.clear()
        start_s, count = time.perf_counter(), int(seconds * PER_S)
        for n in range(count):
            time.sleep(max(0.0, start_s + n / PER_S - time.perf_counter()))
            self.tell(UseProfile(LOOKS[n % len(LOOKS)]))
        last = LOOKS[(count - 1) % len(LOOKS)]
        time.sleep(3)
        seen = self.mean()
        nearest = min(shown, key=lambda look: float(np.abs(shown[look] - seen).mean()))
        return {
            "storm_switches": count,
            "storm_longest_ms": longest_ms(self.sink.sent),
            "storm_growth_mb": round(resident_mb() - before_mb, 1),
            "last_wins": self.daemon.status().profile == last and nearest == last,
        }

    def shown(self, look: str) -> npt.NDArray[np.float64]:
        """Return what a look shows once it has settled."""
        self.tell(UseProfile(look))
        time.sleep(2.5)
        return self.mean()

    def mean(self) -> npt.NDArray[np.float64]:
        """Return the mean of the last half second's thumbnails, 0..255 [12, 16, 3]."""
        now = time.perf_counter()
        return np.asarray(np.mean([one.thumbnail for one in self.sink.sent if one.at_s > now - 0.5], axis=0))


@contextmanager
def camera(size: tuple[int, int], fps: float) -> Iterator[Bench]:
    """Run a camera that shows translated pictures."""
    sink, stop = Sink(size), threading.Event()
    with tempfile.TemporaryDirectory() as name:
        parts = RunParts(open_sink=lambda options: sink, state_folder=lambda: Path(name), signals=False)
        obs = ObsSettings(enabled=False)
        options = RunOptions(source="pattern", size=size, fps=fps, panel=False, profile=LOOKS[0], obs=obs)
        bench = Bench(Daemon(options, parts, stop), sink)
        worker = threading.Thread(target=bench.daemon.run)
        worker.start()
        try:
            bench.until(lambda: bench.daemon.status().translated > 20)
            time.sleep(5)  # the prompts of the other profiles are encoded when there is a moment
            yield bench
        finally:
            stop.set()
            worker.join()


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", type=float, default=3, help="seconds with each look (3)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each look is taken (2)")
    parser.add_argument("--storm", type=float, default=60, help="seconds of ten switches a second (60)")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--size", default="640x480")
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    with camera((width, height), given.fps) as bench:
        told = bench.looks(given.stay, given.rounds) | bench.engines() | bench.storm(given.storm)
        status = bench.daemon.status()
    about = {"engine_fps": round(status.fps, 1), "runtime": status.runtime, "restarts": status.restarts}
    print(json.dumps({**told, **about, "load": round(os.getloadavg()[0], 2), "cores": os.cpu_count()}))
    late = max(told["longest_ms"], told["engine_longest_ms"], told["storm_longest_ms"]) >= LONGEST_MS
    faded = max(told["darker_by"]["levels"], told["greyer_by"]["levels"]) > SLACK
    return int(late or faded or told["storm_growth_mb"] >= GROWTH_MB or not told["last_wins"] or status.restarts > 0)


if __name__ == "__main__":
    sys.exit(main())
