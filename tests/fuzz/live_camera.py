"""A whole camera attacked for a time by every search of this folder at once, and its pacer watched.

    python -m tests.fuzz.live_camera [--minutes 60] [--out FOLDER]

`vcam run` with page, door, bridge and profile folder publishes the test picture to nobody; the included model is stood
in for by a quick engine, a model folder that is asked for is loaded by the real one. Beside it another process beats
as the pacer does and does nothing else: what makes that one late is the machine, not the camera. Prints a line a
minute and one JSON object; exit status 1 if two pictures were published 100 ms or more apart, the camera ended, a
command failed in a way that nobody foresaw, or an attacker found a fault. --out: where the programs' words are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

import psutil

from tests.support.attackers import ATTACKS, CONFIG, OBS_PORT, STATE
from tests.support.obs_stand_in import PASSWORD
from vcam import client
from vcam.errors import VcamError

ROOT = Path(__file__).parents[2]
LATE_MS = 100.0
FPS = 30.0
LATE_FILE = "late.txt"
HEART = f"""
import sys, time
from vcam.worker.priority import go_first
go_first()
longest, before, said = 0.0, time.perf_counter(), time.monotonic()
while True:
    time.sleep(max(0.0, before + 1 / {FPS} - time.perf_counter()))
    now = time.perf_counter()
    longest, before = max(longest, now - before), now
    if time.monotonic() > said + 1:
        said = time.monotonic()
        print(round(longest * 1000, 1), flush=True)
"""


class Programs:
    """Programs with their words in files; `environment` is theirs."""

    def __init__(self, out: Path, environment: Mapping[str, str], opened: ExitStack) -> None:
        self._out, self._environment, self._opened = out, dict(environment), opened

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program; its words are added to the file of that name."""
        said: TextIO = self._opened.enter_context((self._out / f"{name}.txt").open("a"))
        command = (sys.executable, *command)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdout=said,
            stderr=said,
            start_new_session=True,  # the system shares its time among sessions: an attacker's is another's
        )
        self._opened.callback(process.kill)  # which does nothing to one that has ended
        return process


def free_port() -> int:
    """Return a port of this machine that was free just now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def prepared(folder: Path) -> dict[str, str]:
    """Make the folders of a camera with OBS at a port of ours; return the environment that names them."""
    port = free_port()
    for name in (STATE, CONFIG, "log", "home"):
        (folder / name).mkdir(mode=0o700)
    (folder / OBS_PORT).write_text(str(port))
    (folder / CONFIG / "config.toml").write_text(
        f'sink = "none"\nsource = "pattern"\n[panel]\nport = 0\n[obs]\nport = {port}\npassword = "{PASSWORD}"\n'
    )
    return {
        **os.environ,
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home"),
        "VCAM_STATE_FOLDER": str(folder / STATE),
        "VCAM_CONFIG_FOLDER": str(folder / CONFIG),
        "VCAM_LOG_FOLDER": str(folder / "log"),
        "VCAM_MODELS_FOLDER": str(folder / "home"),
        "VCAM_LATE_FILE": str(folder / LATE_FILE),
    }


def lateness(folder: Path, since_s: float) -> dict[str, float]:
    """Return what was seen of late pictures since then, in ms.

    The longest interval, for how long of it the pacer waited for a processor, the longest without such waiting, and how
    many intervals were over LATE_MS.
    """
    path = folder / LATE_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    late = [[float(value) for value in line.split()] for line in lines]
    seen = [(ms, waited) for at_s, ms, waited in late if at_s >= since_s] or [(0.0, 0.0)]
    longest, waited = max(seen)
    return {
        "longest_ms": longest,
        "of_it_without_processor_ms": waited,
        "longest_of_its_own_ms": round(max(ms - waited for ms, waited in seen), 1),
        "over_the_limit": sum(ms >= LATE_MS for ms, _ in seen),
    }


def look(folder: Path, out: Path, pid: int, since_s: float) -> dict[str, Any]:
    """Return how the camera does now, and the longest intervals since then."""
    status, own = client.status(folder / STATE), psutil.Process(pid)
    return {
        "state": status.state,
        "published": status.published,
        **lateness(folder, since_s),
        "with_its_start_ms": round(status.longest_interval_ms, 1),
        "heart_longest_ms": float(["0", *(out / "heart.txt").read_text().split()][-1]),
        "restarts": status.restarts,
        "rss_mb": round(own.memory_info().rss / 1e6),
        "threads": own.num_threads(),
        "files": own.num_fds(),
        "obs": status.obs,
        "load": round(os.getloadavg()[0], 1),
    }


def before_others(pid: int) -> bool:
    """Have the camera's own threads run before all else, so that what others do is not measured; tell if that may be.

    What it does to itself is: its threads wait for each other as ever, and the pacer's goes first of them, as it does
    wherever the camera runs (tests.support.attacked_camera). Its children stay where they were.
    """
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            _real_time(int(task.name), os.SCHED_RR)
        for child in psutil.Process(pid).children(recursive=True):
            for task in Path(f"/proc/{child.pid}/task").iterdir():
                _real_time(int(task.name), os.SCHED_OTHER)
    except PermissionError:
        return False
    return True


def _real_time(thread: int, policy: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        if os.sched_getscheduler(thread) != policy:
            os.sched_setscheduler(thread, policy, os.sched_param(int(policy == os.SCHED_RR)))


def running(folder: Path) -> bool:
    """Return whether the camera shows translations."""
    try:
        return client.status(folder / STATE).state == "running"
    except VcamError:
        return False


def attacked(minutes: float, out: Path) -> dict[str, Any]:
    """Attack a camera for so long; return what was seen."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        programs = Programs(out, {**prepared(folder), "FUZZ_SECONDS": str(minutes * 60)}, opened)
        camera = programs.start("camera", "-m", "tests.support.attacked_camera", "run", "--fps", str(FPS))
        alone = before_others(camera.pid)
        while not running(folder):
            assert camera.poll() is None, (out / "camera.txt").read_text()
            time.sleep(0.1)
        since_s = time.time()
        programs.start("heart", "-c", HEART)
        attackers: dict[str, subprocess.Popen[bytes]] = {}
        begin, told, seen, worst = time.monotonic(), 0.0, dict[str, Any](), 0.0
        faults: list[str] = []
        while (now := time.monotonic() - begin) < minutes * 60 and camera.poll() is None:
            try:
                alone = before_others(camera.pid)
                seen = look(folder, out, camera.pid, since_s)
            except (VcamError, OSError, ValueError) as error:
                faults.append(f"at {now:.0f} s no status: {error}")
            if seen and (now >= told or seen["longest_ms"] > worst):
                told = now - now % 60 + 60 if now >= told else told
                worst = max(worst, seen["longest_ms"])
                print(json.dumps({"at_s": round(now), **seen}), flush=True)
            if late := [name for name in ATTACKS if name not in attackers]:  # one after the other: each loads much
                attackers[late[0]] = programs.start(late[0], "-m", "tests.support.attackers", late[0], str(folder))
                time.sleep(min(5.0, minutes))
            for name, process in attackers.items():
                if process.poll() not in (None, 0):
                    faults.append(f"at {now:.0f} s {name} ended with {process.returncode}: see {name}.txt")
                    attackers[name] = programs.start(name, "-m", "tests.support.attackers", name, str(folder))
            time.sleep(1)
        for process in attackers.values():
            process.kill()
        ended = camera.poll()
        if ended is None:
            camera.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                camera.wait(60)
        log = "".join(path.read_text(errors="replace") for path in (folder / "log").iterdir())
        (out / "vcam.log").write_text(log)
    if ended is not None:
        faults.append(f"the camera ended by itself with {ended}")
    if camera.returncode:
        faults.append(f"the camera's exit status was {camera.returncode}")
    # not the bridge's words: the library's own thread ends at what OBS may not send, and the bridge begins anew
    if unforeseen := sum("Traceback" in line and ": bridge: " not in line for line in log.splitlines()):
        faults.append(f"{unforeseen} tracebacks in vcam.log")
    return {"minutes": round(now / 60, 1), "before_others": alone, **seen, "faults": faults}


def main(arguments: Sequence[str]) -> int:
    """Attack, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "vcam-attacked")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so ends what it started
    result = attacked(given.minutes, given.out)
    print(json.dumps(result))
    return int(bool(result["faults"]) or result["longest_ms"] >= LATE_MS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
