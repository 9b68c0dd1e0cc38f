"""The published pace and the translation's rate while the engine is on a server that is killed, stopped, cut, delayed.

    python -m benchmarks.remote [--seconds 10] [--model fake|embedded] [--json OUT]

A daemon with a fake camera of 30 pictures a second and a sink that counts; the server a process of its own on this
machine, over real TLS, behind a relay of ours that can hold back and cut what passes. Prints one line a case, and JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from core.settings import EngineSettings, Policy
from vcam.daemon.daemon import Daemon, RunParts
from vcam.frames import Frame, Picture
from vcam.remote.certificate import made_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.paired import pair
from vcam.settings.config import ObsSettings
from vcam.settings.engine_options import EngineOptions
from vcam.settings.presets import Preset
from vcam.settings.run_options import RunOptions
from vcam.worker.factories import CORE_ENGINE

FAKE = "tests.support.fake_engine:make"
SIZE = (640, 480)


@dataclass(frozen=True)
class Row:
    """A case. interval_ms: between two published pictures, worst of the case; translated: pictures a second."""

    case: str
    seconds: float
    published: int
    interval_p95_ms: float
    interval_max_ms: float
    translated_per_s: float
    latency_p50_ms: float
    restarts: int


class MovingCamera:
    """A film of noise that drifts: what a recorded film is to the engine, without a decoder's time."""

    name, trouble, interval_s = "drifting noise", "", 1 / 30

    def __init__(self) -> None:
        small = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
        self._picture = np.kron(small, np.ones((8, 8, 1), np.uint8))
        self._index, self._next_s = 0, time.perf_counter()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next picture when it is due."""
        self._next_s = max(self._next_s + self.interval_s, time.perf_counter() - 0.1)
        time.sleep(max(0.0, self._next_s - time.perf_counter()))
        self._index += 1
        return Frame(np.roll(self._picture, 3 * self._index, axis=1), time.perf_counter(), self._index)

    def rest(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CountingSink:
    """Notes when each picture was published."""

    name, size = "counting", SIZE

    def __init__(self) -> None:
        self.times: list[float] = []

    def send(self, picture: Picture, tick: int) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def close(self) -> None:
        """Do nothing."""


class Relay:
    """Passes bytes between camera and server: at once, `delay_s` later, or not at all while `cut`."""

    def __init__(self, goal: int) -> None:
        self.delay_s, self.cut = 0.0, False
        self._goal = goal
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            while self.cut:
                time.sleep(0.05)
            try:
                far = socket.create_connection(("127.0.0.1", self._goal), 2)
            except OSError:
                near.close()
                continue
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket, answers: bool) -> None:
        held: deque[tuple[float, bytes]] = deque()
        near.settimeout(0.002)
        with contextlib.suppress(OSError), near, far:
            while True:
                with contextlib.suppress(TimeoutError):
                    data = near.recv(65536)
                    if not data:
                        return
                    held.append((time.perf_counter() + (self.delay_s if answers else 0.0), data))
                while held and not self.cut and held[0][0] <= time.perf_counter():
                    far.sendall(held.popleft()[1])

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()


class ServerProgram:
    """The server in a process of its own, always at the same port."""

    def __init__(self, folder: Path, model: str) -> None:
        self._command = [sys.executable, "-m", "benchmarks.remote", "--serve", str(folder), model]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        process = subprocess.Popen(
            [*self._command, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self._process = process

    def tell(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def serve(folder: Path, model: str, port: int) -> None:
    """Serve in this process until stdin ends."""
    from tests.support.engine_server import TlsServer, fake_offer
    from vcam.remote.host import Offer

    usual = settings_of(model)
    offer = fake_offer(usual=usual) if model == "fake" else Offer(usual, 2)
    with TlsServer(folder, offer, FAKE if model == "fake" else CORE_ENGINE, port) as server:
        print(server.port, flush=True)
        sys.stdin.read()


def settings_of(model: str) -> EngineSettings:
    """Return the engine that is measured: what the preset fast has of the included model."""
    return EngineSettings(model=model, width=256, height=192, steps=1, policy=Policy.FIFO)


@contextlib.contextmanager
def running(folder: Path, model: str, remote: str | None) -> Iterator[tuple[Daemon, CountingSink]]:
    """Run a daemon while the body runs."""
    sink, stop = CountingSink(), threading.Event()
    options = RunOptions(
        size=SIZE,
        fps=30,
        panel=False,
        obs=ObsSettings(enabled=False),
        remote=remote,
        profile="ink",
        idle_after_s=0,
        engine=EngineOptions(preset=Preset.FAST),  # none that is measured and exchanged meanwhile
    )
    parts = RunParts(
        engine=FAKE if model == "fake" else CORE_ENGINE,
        settings_of=lambda profile, options: settings_of(model),
        open_source=lambda options: MovingCamera(),
        open_sink=lambda options: sink,
        state_folder=lambda: folder / "state",
        config_folder=lambda: folder,
        signals=False,
    )
    daemon = Daemon(options, parts, stop)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        while daemon.status().translated < 10:
            time.sleep(0.1)
        yield daemon, sink
    finally:
        stop.set()
        thread.join()


def measured(case: str, daemon: Daemon, sink: CountingSink, meanwhile: Callable[[], object]) -> Row:
    """Measure from now until `meanwhile` has returned."""
    before, at, start_s = daemon.status(), len(sink.times), time.perf_counter()
    meanwhile()
    after, took_s = daemon.status(), time.perf_counter() - start_s
    times = sink.times[at:]
    gaps = sorted(1000 * (b - a) for a, b in pairwise(times))
    row = Row(
        case,
        round(took_s, 1),
        len(times),
        round(gaps[int(0.95 * len(gaps))], 1),
        round(gaps[-1], 1),
        round((after.translated - before.translated) / took_s, 1),
        after.latency_now_ms,
        after.restarts - before.restarts,
    )
    print(
        f"{case:<34} {row.seconds:>5.1f} s  published {row.published}, every {statistics.median(gaps):.1f} ms "
        f"(p95 {row.interval_p95_ms}, max {row.interval_max_ms}); translated {row.translated_per_s}/s, "
        f"{row.latency_p50_ms} ms behind; restarts {row.restarts}",
        flush=True,
    )
    return row


def all_cases(folder: Path, model: str, seconds: float) -> list[Row]:
    """Measure every case."""
    rows = []
    with running(folder / "here", model, None) as (daemon, sink):
        rows.append(measured("engine here", daemon, sink, lambda: time.sleep(seconds)))
    server = ServerProgram(folder / "server", model)
    relay = Relay(server.port)
    certificate = made_certificate(folder / "server")
    text = Pairing(ClientBook(folder / "server").add("benchmark"), certificate.fingerprint).to_text()
    pair(folder, f"127.0.0.1:{relay.port}", text)

    def again() -> None:
        server.kill()
        time.sleep(1.0)
        server.start()

    def killed() -> None:
        for _ in range(3 if model != "fake" else 10):
            again()
            time.sleep(2.0)

    def stopped() -> None:
        server.tell(signal.SIGSTOP)
        time.sleep(5.0)
        server.tell(signal.SIGCONT)
        time.sleep(5.0)

    def cut() -> None:
        relay.cut = True
        time.sleep(10.0)
        relay.cut = False
        time.sleep(5.0)

    def delayed() -> None:
        relay.delay_s = 0.3
        time.sleep(seconds)
        relay.delay_s = 0.0

    try:
        with running(folder, model, f"wss://127.0.0.1:{relay.port}") as (daemon, sink):
            rows.append(measured("engine on the server", daemon, sink, lambda: time.sleep(seconds)))
            print(f"  the way: {daemon.status().server_ms}")
            rows.append(measured("answers 300 ms late", daemon, sink, delayed))
            rows.append(measured("server stopped for 5 s", daemon, sink, stopped))
            rows.append(measured("network cut for 10 s", daemon, sink, cut))
            rows.append(measured("server killed again and again", daemon, sink, killed))
    finally:
        relay.close()
        server.kill()
    return rows


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--model", default="fake", choices=("fake", "embedded"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=3, metavar=("FOLDER", "MODEL", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(Path(args.serve[0]), args.serve[1], int(args.serve[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = [asdict(row) for row in all_cases(Path(folder), args.model, args.seconds)]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
