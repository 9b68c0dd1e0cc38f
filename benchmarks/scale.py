"""Many cameras on a real Ray Serve of this machine: pictures a second of each, how fair, how late, how much memory.

    python -m benchmarks.scale [--streams 1,2,4,8] [--model fake|embedded] [--replicas 1] [--seconds 10] [--json OUT]
    python -m benchmarks.scale --kill        two replicas, one is killed: how long until its cameras are back
    python -m benchmarks.scale --grow        a place for one camera, and two come: how long until both are served

Each camera is a thread of this process that gives pictures of a drifting film at 30 a second over real TLS, as
`vcam run --remote` does. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from core.settings import EngineSettings, Look, Policy
from vcam.frames import Frame
from vcam.remote.certificate import made_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.cluster import ServeOptions, start, stop
from vcam.remote.engines import ServerEngines
from vcam.remote.offer import Offer
from vcam.remote.paired import PairedServer, pair, paired_server
from vcam.worker.factories import CORE_ENGINE
from vcam.worker.limits import LIMITS
from vcam.worker.process import EngineProcess

FAKE = "tests.support.fake_engine:make"
PORT = 18_791
REPLICA = "ray::ServeReplica:vcam:engines"
FILM = 90  # pictures


@dataclass(frozen=True)
class ScaleRow:
    """What was measured with so many cameras. fairness: the slowest one's pictures, of an equal share."""

    model: str
    cameras: int
    replicas: int
    fps_each: float
    fps_slowest: float
    fairness: float
    trip_p50_ms: float
    trip_p95_ms: float
    replicas_mb: int
    all_of_ray_mb: int


def film(size: tuple[int, int]) -> list[np.ndarray]:
    """Return pictures of a film that drifts: recorded once, given by all cameras."""
    width, height = size
    small = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    whole = np.kron(small, np.ones((8, 8, 1), np.uint8))
    return [np.roll(whole, 3 * number, axis=1) for number in range(FILM)]


class SimulatedCamera:
    """A camera in a thread, from when it is built until `end`; connects again when its connection ends."""

    def __init__(self, server: PairedServer, settings: EngineSettings, pictures: list[np.ndarray]) -> None:
        self._engines = ServerEngines(server, LIMITS, time.perf_counter, lambda: None)
        self._settings, self._pictures = settings, pictures
        self.shown_s: list[float] = []
        self.times: dict[str, list[float]] = {}
        self.said: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10)

    def _work(self) -> None:
        engine: EngineProcess | None = None
        index, next_s = 0, time.perf_counter()
        while not self._stop.is_set():
            if engine is None:
                engine = self._engines.show(self._settings, Look("ink drawing, a person talking"))
            now = time.perf_counter()
            if engine.idle and now >= next_s:
                next_s = max(next_s + 1 / 30, now)
                engine.give(Frame(self._pictures[index % FILM], now, index))
                index += 1
            if engine.step() is not None:
                self.shown_s.append(time.perf_counter())
                self.times = {part: list(spread) for part, spread in engine.times.items()}
            if engine.failure:
                self.said.append(engine.failure)
                engine.close()
                engine = None
                self._stop.wait(0.25)
            self._stop.wait(0.002)
        if engine is not None:
            engine.close(1.0)


@contextmanager
def cluster(
    model: str, streams: int, replicas: int, most_replicas: int = 0
) -> Iterator[tuple[PairedServer, EngineSettings]]:
    """Serve on a Ray of this machine while the body runs. most_replicas: as cameras come; 0: no more than there are."""
    settings = EngineSettings(model=model, width=256, height=192, steps=1, policy=Policy.FIFO)
    factory = FAKE if model == "fake" else CORE_ENGINE
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        certificate = made_certificate(place / "serve")
        offer = Offer(settings, streams, (model,), per_client=streams)  # all of them come with one token
        most = max(replicas, most_replicas)
        options = ServeOptions(offer, certificate, place / "serve", "127.0.0.1", PORT, replicas, most, factory=factory)
        began_s = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        own, theirs = context.Pipe()
        server = context.Process(target=_serve, args=(options, theirs))  # its front shares no lock with the cameras
        server.start()
        theirs.close()
        own.recv()
        print(f"Ray and {replicas} replicas started in {time.perf_counter() - began_s:.0f} s", flush=True)
        try:
            text = Pairing(ClientBook(place / "serve").add("load"), certificate.fingerprint).to_text()
            pair(place, f"127.0.0.1:{PORT}", text)
            yield paired_server(place, f"127.0.0.1:{PORT}"), settings
        finally:
            own.close()
            server.join(60)


def _serve(options: ServeOptions, told: Connection) -> None:
    front = start(options)
    try:
        told.send("it serves")
        with contextlib.suppress(EOFError):
            told.recv()
    finally:
        stop(front)


def memory_mb(replicas_only: bool) -> int:
    """Return the resident memory of Ray's processes that this program started; shared pages count for each."""
    total = 0
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not replicas_only or " ".join(one.cmdline()).startswith(REPLICA):
                total += one.memory_info().rss
    return total // 2**20


def open_to_others() -> int:
    """Return at how many ports the processes that this program started listen for other machines, too."""
    count = 0
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            listening = [at for at in one.net_connections("inet") if at.status == psutil.CONN_LISTEN]
            count += sum(at.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for at in listening)
    return count


def measure(server: PairedServer, settings: EngineSettings, count: int, replicas: int, seconds: float) -> ScaleRow:
    """Let so many cameras run, and measure once all have pictures."""
    pictures = film((settings.width, settings.height))
    cameras = [SimulatedCamera(server, settings, pictures) for _ in range(count)]
    try:
        while not all(len(one.shown_s) > 5 for one in cameras):
            time.sleep(0.2)
        start_s = time.perf_counter()
        time.sleep(seconds)
        end_s = time.perf_counter()
        rates = [sum(start_s <= at < end_s for at in one.shown_s) / (end_s - start_s) for one in cameras]
        trips = [one.times["round trip"] for one in cameras]
        row = ScaleRow(
            settings.model,
            count,
            replicas,
            round(statistics.mean(rates), 1),
            round(min(rates), 1),
            round(min(rates) / max(1e-9, statistics.mean(rates)), 2),
            round(statistics.median(one[0] for one in trips), 1),
            round(max(one[1] for one in trips), 1),
            memory_mb(replicas_only=True),
            memory_mb(replicas_only=False),
        )
    finally:
        for one in cameras:
            one.end()
    print(row, flush=True)
    return row


def running_replicas() -> list[psutil.Process]:
    """Return the processes of all replicas on this machine."""
    named = ((one, (one.info["cmdline"] or [""])[0]) for one in psutil.process_iter(["cmdline"]))
    return [one for one, command in named if command.startswith(REPLICA)]


def grow(server: PairedServer, settings: EngineSettings) -> dict[str, float]:
    """Let two cameras come where one has a place; return when both have pictures, and how many replicas there are."""
    before, began_s = len(running_replicas()), time.perf_counter()
    pictures = film((settings.width, settings.height))
    cameras = [SimulatedCamera(server, settings, pictures) for _ in range(2)]
    try:
        while not all(len(one.shown_s) > 20 for one in cameras):
            time.sleep(0.2)
        found = {
            "replicas before": float(before),
            "both served after, s": round(time.perf_counter() - began_s, 1),
            "replicas then": float(len(running_replicas())),
        }
    finally:
        for one in cameras:
            one.end()
    print(found, {text for one in cameras for text in one.said}, flush=True)
    return found


def kill_one(server: PairedServer, settings: EngineSettings, seconds: float) -> dict[str, float]:
    """Kill one of two replicas; return how long its cameras were away, and the worst gap of the others.

    And, from before that, at how many ports Ray listened for other machines.
    """
    pictures = film((settings.width, settings.height))
    cameras = [SimulatedCamera(server, settings, pictures) for _ in range(4)]
    try:
        while not all(len(one.shown_s) > 20 for one in cameras):
            time.sleep(0.2)
        replicas = running_replicas()
        open_ports = open_to_others()
        killed_s = time.perf_counter()
        os.kill(replicas[0].pid, signal.SIGKILL)
        time.sleep(seconds)
        hit = [one for one in cameras if one.said]
        spared = [one for one in cameras if not one.said]
        back = [next((at - killed_s for at in one.shown_s if at > killed_s + 0.2), float("inf")) for one in hit]
        gaps = [max((b - a for a, b in pairwise(one.shown_s) if b > killed_s), default=0.0) for one in spared]
        found = {
            "cameras hit": float(len(hit)),
            "longest away, s": round(max(back, default=0.0), 2),
            "cameras spared": float(len(spared)),
            "their longest gap, s": round(max(gaps, default=0.0), 3),
            "ports open to others": float(open_ports),
        }
    finally:
        for one in cameras:
            one.end()
    print(found, {text for one in cameras for text in one.said}, flush=True)
    return found


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,2,4,8")
    parser.add_argument("--model", default="fake", choices=("fake", "embedded"))
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    counts = [int(one) for one in args.streams.split(",")]
    result: object
    if args.kill:
        with cluster(args.model, 4, 2) as (server, settings):
            result = kill_one(server, settings, args.seconds)
    elif args.grow:
        with cluster(args.model, 1, 1, 2) as (server, settings):
            result = grow(server, settings)
    else:
        with cluster(args.model, max(counts), args.replicas) as (server, settings):
            result = [asdict(measure(server, settings, one, args.replicas, args.seconds)) for one in counts]
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
