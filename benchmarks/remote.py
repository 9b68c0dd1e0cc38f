"""The published pace while the engine's server is killed, stopped, cut off, delayed; its rate beside an engine here.

    python -m benchmarks.remote [--part pace|rate|all] [--server plain|ray] [--seconds 10] [--rounds 2]
                                [--model fake|elsewhere|embedded] [--camera-fps 29.3] [--json OUT]

A daemon as `vcam run` has it, with a fake camera of 30 pictures a second and a sink that counts; the server and, for
delays, a relay are programs of their own, over real TLS: in a network namespace where this is allowed (root on Linux),
whose cable is taken out; else on the loopback, where the relay swallows what passes. Prints one line a case, and JSON.

pace: three minutes with the fake engine, which costs nothing. rate: the included model, engine here and on the server
in turn, `--rounds` times each; then what the server's rate is of the one here, and how much later its pictures are. The
camera's beat drifts against the publisher's, as a real one's does: else a picture would wait as long for its tick every
time, and what is measured would be that. With `--model elsewhere` an engine that takes no processor of this machine:
what the way alone costs. `--server ray`: on a Ray Serve of its own, as `vcam serve` has it; else a plain web server.

How late pictures are is the median of all that were published in a case, and so of every phase of that drift. An engine
that is slower than the camera takes pictures that have waited for it, half of the camera's interval in the mean: where
it is quick enough here and just not on the server, that is most of the difference. With `--camera-fps 14.65`, which
both keep up with, it is left out (15 would not drift).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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
import psutil

from core.settings import EngineSettings, Look, Policy
from tests.support.fake_engine import FakeEngine
from vcam.daemon.daemon import Daemon, RunParts
from vcam.daemon.loops import Recent, ticks
from vcam.frames import Frame, Picture
from vcam.remote.certificate import made_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.paired import pair
from vcam.settings.config import ObsSettings
from vcam.settings.engine_options import EngineOptions
from vcam.settings.presets import Preset
from vcam.settings.run_options import RunOptions, cores
from vcam.worker.factories import CORE_ENGINE, ReportProgress
from vcam.worker.priority import go_first, step_back

ELSEWHERE_S = 0.055  # of its engine for a picture: about what the included model takes
FACTORIES = {
    "fake": "tests.support.fake_engine:make",
    "elsewhere": "benchmarks.remote:elsewhere",
    "embedded": CORE_ENGINE,
}
SIZE = (640, 480)
CAMERA_FPS = 29.3  # at 30 a second published: all phases in 1.4 s
MOST_PICTURES = 100_000  # of a case


@dataclass(frozen=True)
class Row:
    """A case. interval_ms: between two published pictures; translated: pictures a second; latency: of all of them.

    bare_max_ms: the longest interval of a pacer that does nothing else, beside: what this machine has it be at least.
    """

    case: str
    seconds: float
    published: int
    interval_p95_ms: float
    interval_max_ms: float
    translated_per_s: float
    latency_p50_ms: float
    restarts: int
    bare_max_ms: float


class BarePacer:
    """Beats at the published pace and does nothing else, in a program and a session of its own that goes first too."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.remote", "--pacer"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.longest_ms()

    def longest_ms(self) -> float:
        """Return its longest interval since this was asked last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def beat() -> None:
    """Beat in this process, and write the longest interval whenever a line comes."""
    longest_s = [0.0]

    def answer() -> None:
        for _ in sys.stdin:
            print(1000 * longest_s[0], flush=True)
            longest_s[0] = 0.0

    os.setsid()
    go_first()
    threading.Thread(target=answer, daemon=True).start()
    before_s = time.perf_counter()
    for _ in ticks(30, threading.Event()):
        now_s = time.perf_counter()
        longest_s[0] = max(longest_s[0], now_s - before_s)
        before_s = now_s


class MovingCamera:
    """A film of noise that drifts: what a recorded film is to the engine, without a decoder's time."""

    name, trouble = "drifting noise", ""

    def __init__(self, fps: float = CAMERA_FPS) -> None:
        self.interval_s = 1 / fps
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

    def __init__(self, port: int, goal: int) -> None:
        self.delay_s, self.cut = 0.0, False
        self._goal = goal
        self._listening = socket.create_server(("", port))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            near, _ = self._listening.accept()
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
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), near, far:
            while True:
                near.settimeout(0.002 if held or self.cut else 0.1)
                with contextlib.suppress(TimeoutError):
                    data = near.recv(65536)
                    if not data:
                        return
                    held.append((time.perf_counter() + (self.delay_s if answers else 0.0), data))
                while held and not self.cut and held[0][0] <= time.perf_counter():
                    far.sendall(held.popleft()[1])


def relay(goal: int) -> None:
    """Relay in this process, as the lines say that come: "delay 0.3", "cut 1"."""
    step_back(0)
    passing = Relay(0, goal)
    print(passing.port, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["delay", seconds]:
                passing.delay_s = float(seconds)
            case ["cut", yes]:
                passing.cut = yes == "1"


class Network:
    """Where server and relay are: a network namespace of their own (root on Linux), or this machine's loopback.

    prefix: what a command begins with that shall run there; host: its address.
    """

    def __init__(self) -> None:
        name = self._name = f"vcam{os.getpid()}"
        net = f"10.213.{os.getpid() % 250}"
        steps = [
            f"netns add {name}",
            f"link add {name}h type veth peer name {name}s netns {name}",
            f"address add {net}.1/30 dev {name}h",
            f"link set {name}h up",
            f"-n {name} address add {net}.2/30 dev {name}s",
            f"-n {name} link set {name}s up",
            f"-n {name} link set lo up",
        ]
        self.own = all(self._ip(step) for step in steps)
        if not self.own:
            self.close()
        self.host = f"{net}.2" if self.own else "127.0.0.1"
        self.prefix = ["ip", "netns", "exec", name] if self.own else []

    def cut(self, yes: bool) -> bool:
        """Take the cable out, or put it in again; return False where there is none."""
        return self.own and self._ip(f"-n {self._name} link set {self._name}s {'down' if yes else 'up'}")

    def close(self) -> None:
        """Remove it."""
        self._ip(f"netns del {self._name}")

    @staticmethod
    def _ip(step: str) -> bool:
        try:
            return subprocess.run(["ip", *step.split()], capture_output=True, check=False).returncode == 0
        except OSError:
            return False


class OtherProgram:
    """A program of this file in a process, a session and a place of its own, as one on another machine has."""

    def __init__(self, network: Network, *words: str) -> None:
        self._command = [*network.prefix, sys.executable, "-m", "benchmarks.remote", *words]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, always at the same port, and wait until it takes connections."""
        process = subprocess.Popen(
            [*self._command, str(self.port)] if self.port else self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self._process = process

    def tell(self, number: int) -> None:
        """Send a signal to it and to all that it has started."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        for one in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def kill(self) -> None:
        """Kill it, and all that it has started."""
        if self._process is not None and self._process.poll() is None:
            self.tell(signal.SIGSTOP)  # or one would start what is not seen
            self.tell(signal.SIGKILL)
            self._process.wait()


def serve_on_ray(folder: Path, model: str, port: int) -> None:
    """Serve on a Ray of its own until stdin ends, as `vcam serve` does."""
    from vcam.remote.cluster import ServeOptions, start, stop
    from vcam.remote.offer import Offer

    step_back(0)
    offer = Offer(settings_of(model), 2, (model,), per_client=2)
    if not port:
        with socket.socket() as free:
            free.bind(("", 0))
            port = int(free.getsockname()[1])
    options = ServeOptions(
        offer, made_certificate(folder), folder, "0.0.0.0", port, threads=cores(), factory=FACTORIES[model]
    )
    front = start(options)
    print(front.port, flush=True)
    sys.stdin.read()
    stop(front)


def serve(folder: Path, model: str, port: int) -> None:
    """Serve in this process until stdin ends."""
    from tests.support.engine_server import TlsServer, fake_offer
    from vcam.remote.offer import Offer

    step_back(0)  # a server is no part of the camera, nor of its session
    usual = settings_of(model)
    offer = Offer(usual, 2) if model == "embedded" else fake_offer(usual=usual, models=(model,))
    with TlsServer(folder, offer, FACTORIES[model], port, host="", threads=cores()) as server:
        print(server.port, flush=True)
        sys.stdin.read()


def elsewhere(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> FakeEngine:
    """Make an engine that takes ELSEWHERE_S a picture and no processor of this machine, as a card's does.

    Its process goes first: else what is measured is how long it waits to be woken on a busy machine.
    """
    go_first()
    return ElsewhereEngine(settings, look, ELSEWHERE_S)


class ElsewhereEngine(FakeEngine):
    """Waits for frame_s."""

    def translate(self, picture: Picture) -> Picture | None:
        """Return the picture inverted, frame_s after it was given."""
        began_s, wait_s, self.frame_s = time.perf_counter(), self.frame_s, 0.0
        made, self.frame_s = super().translate(picture), wait_s
        time.sleep(max(0.0, wait_s - (time.perf_counter() - began_s)))
        return made

    def another(self, look: Look) -> ElsewhereEngine:
        """Return one of the same settings."""
        return ElsewhereEngine(self.settings, look, self.frame_s)


def settings_of(model: str) -> EngineSettings:
    """Return the engine that is measured: what the preset fast has of the included model."""
    return EngineSettings(model=model, width=256, height=192, steps=1, policy=Policy.FIFO)


@contextlib.contextmanager
def running(
    folder: Path, model: str, remote: str, camera_fps: float = CAMERA_FPS
) -> Iterator[tuple[Daemon, CountingSink]]:
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
        engine=FACTORIES[model],
        settings_of=lambda profile, options: settings_of(model),
        open_source=lambda options: MovingCamera(camera_fps),
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


def measured(case: str, daemon: Daemon, sink: CountingSink, pacer: BarePacer, meanwhile: Callable[[], object]) -> Row:
    """Measure from now until `meanwhile` has returned."""
    pacer.longest_ms()
    daemon._pipeline.slots.counts.latency_now = Recent(MOST_PICTURES)  # the status tells of the newest 64 alone
    before, at, start_s = daemon.status(), len(sink.times), time.perf_counter()
    meanwhile()
    after, took_s, bare_ms = daemon.status(), time.perf_counter() - start_s, pacer.longest_ms()
    gaps = sorted(1000 * (b - a) for a, b in pairwise(sink.times[at:]))
    row = Row(
        case,
        round(took_s, 1),
        len(gaps) + 1,
        round(gaps[int(0.95 * len(gaps))], 1),
        round(gaps[-1], 1),
        round((after.translated - before.translated) / took_s, 1),
        after.latency_now_ms,
        after.restarts - before.restarts,
        round(bare_ms, 1),
    )
    print(
        f"{case:<24} {row.seconds:>5.1f} s  published {row.published}, every {statistics.median(gaps):.1f} ms (p95 "
        f"{row.interval_p95_ms}, max {row.interval_max_ms}; a bare pacer's max {row.bare_max_ms}); translated "
        f"{row.translated_per_s}/s, {row.latency_p50_ms} ms behind; restarts {row.restarts}",
        flush=True,
    )
    return row


class Servers:
    """A server behind a relay, and a folder of a camera that is paired with both."""

    def __init__(self, folder: Path, model: str, kind: str) -> None:
        self.folder, self.network, self.pacer = folder, Network(), BarePacer()
        self.server = OtherProgram(self.network, f"--serve-{kind}", str(folder / "server"), model)
        self.relay = OtherProgram(self.network, "--relay", str(self.server.port))
        certificate = made_certificate(folder / "server")
        text = Pairing(ClientBook(folder / "server").add("benchmark"), certificate.fingerprint).to_text()
        for port in (self.server.port, self.relay.port):
            pair(folder, f"{self.network.host}:{port}", text)

    def address(self, program: OtherProgram) -> str:
        """Return where a program is for the camera."""
        return f"wss://{self.network.host}:{program.port}"

    def close(self) -> None:
        """End them."""
        self.pacer.close()
        self.relay.kill()
        self.server.kill()
        self.network.close()


def pace(servers: Servers, model: str, seconds: float) -> list[Row]:
    """Measure the pace in every trouble."""
    rows, server, relay = [], servers.server, servers.relay
    with running(servers.folder / "here", model, "") as (daemon, sink):
        rows.append(measured("engine here", daemon, sink, servers.pacer, lambda: time.sleep(seconds)))

    def back(daemon: Daemon) -> None:
        before, until_s = daemon.status().translated, time.perf_counter() + 30
        while daemon.status().translated < before + 10 and time.perf_counter() < until_s:
            time.sleep(0.1)

    def killed(daemon: Daemon) -> None:
        for _ in range(10):
            server.kill()
            time.sleep(1.0)
            server.start()
            back(daemon)

    def stopped(daemon: Daemon) -> None:
        server.tell(signal.SIGSTOP)
        time.sleep(10.0)
        server.tell(signal.SIGCONT)
        back(daemon)

    def cut(daemon: Daemon) -> None:
        if not servers.network.cut(True):
            relay.say("cut 1")
        time.sleep(10.0)
        if not servers.network.cut(False):
            relay.say("cut 0")
        back(daemon)

    way = server if servers.network.own else relay
    with running(servers.folder, model, servers.address(way)) as (daemon, sink):
        rows.append(measured("engine on the server", daemon, sink, servers.pacer, lambda: time.sleep(seconds)))
        print(f"  the way: {daemon.status().server_ms}")
        rows.append(measured("server stopped for 10 s", daemon, sink, servers.pacer, lambda: stopped(daemon)))
        rows.append(measured("network cut for 10 s", daemon, sink, servers.pacer, lambda: cut(daemon)))
        rows.append(measured("server killed ten times", daemon, sink, servers.pacer, lambda: killed(daemon)))
    with running(servers.folder, model, servers.address(relay)) as (daemon, sink):
        relay.say("delay 0.3")
        rows.append(measured("answers 300 ms late", daemon, sink, servers.pacer, lambda: time.sleep(seconds)))
    return rows


def rate(servers: Servers, model: str, seconds: float, rounds: int, camera_fps: float) -> list[Row]:
    """Measure rate and lateness with the engine here and on the server, in turn."""
    rows = []
    for _ in range(rounds):
        for case, address in (("engine here", ""), ("engine on the server", servers.address(servers.server))):
            folder = servers.folder if address else servers.folder / "here"
            with running(folder, model, address, camera_fps) as (daemon, sink):
                time.sleep(2.0)
                rows.append(measured(case, daemon, sink, servers.pacer, lambda: time.sleep(seconds)))
                if address:
                    print(f"  the way: {daemon.status().server_ms}")
    here, away = rows[::2], rows[1::2]
    share = sum(one.translated_per_s for one in away) / sum(one.translated_per_s for one in here)
    later_ms = sorted(there.latency_p50_ms - own.latency_p50_ms for own, there in zip(here, away, strict=True))
    middle_ms, mean_ms = statistics.median(later_ms), statistics.mean(later_ms)
    print(
        f"the server's rate is {share:.2f} of the one here; its pictures are later by {middle_ms:.1f} ms in the middle "
        f"round, {mean_ms:.1f} in the mean ({later_ms[0]:.1f} to {later_ms[-1]:.1f})"
    )
    return rows


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", choices=("pace", "rate", "all"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--model", choices=tuple(FACTORIES), help="of both parts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--server", default="plain", choices=("plain", "ray"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--camera-fps", type=float, default=CAMERA_FPS, help="of the part rate")
    for kind in ("plain", "ray"):
        parser.add_argument(f"--serve-{kind}", nargs="+", metavar=("FOLDER", "MODEL"), help=argparse.SUPPRESS)
    parser.add_argument("--pacer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--relay", nargs="+", metavar="GOAL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for given, serving in ((args.serve_plain, serve), (args.serve_ray, serve_on_ray)):
        if given:
            serving(Path(given[0]), given[1], int(given[2]) if given[2:] else 0)
            return
    if args.pacer:
        beat()
        return
    if args.relay:
        relay(int(args.relay[0]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is begun is ended: servers, the network
    found: dict[str, list[dict[str, Any]]] = {}
    measure_rate = functools.partial(rate, rounds=args.rounds, camera_fps=args.camera_fps)
    for part, measure, usual in (("pace", pace, "fake"), ("rate", measure_rate, "embedded")):
        if args.part in (part, "all"):
            with tempfile.TemporaryDirectory() as folder:
                model = args.model or usual
                servers = Servers(Path(folder), model, args.server)
                go_first()  # as vcam run does: after the servers, which are no part of it
                try:
                    load = f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
                    print(f"{part}, {model}, {args.server} server, {load}:", flush=True)
                    found[part] = [asdict(row) for row in measure(servers, model, args.seconds)]
                finally:
                    servers.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
