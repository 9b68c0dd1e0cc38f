"""The engine server on a real Ray Serve, as the programs that users start.

A replica that is killed costs its cameras a moment, the others nothing; nothing of it can be reached from another
machine; `vcam run --remote` shows what `vcam serve` made; nothing of a picture is left on the server's disk.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.media_files import film
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"  # how one of ours begins

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra serve")]


class Machine:
    """A user's folders, which were empty, and the programs that run in them. Their names are short, as Ray needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: folder / name for name in ("home", "tmp", "state", "config", "log")}
        for path in kept.values():
            path.mkdir(mode=0o700)
        self._environment = {
            **os.environ,
            "HOME": str(kept["home"]),
            "TMPDIR": str(kept["tmp"]),
            "RAY_TMPDIR": str(kept["tmp"]),
            "VCAM_STATE_FOLDER": str(kept["state"]),
            "VCAM_CONFIG_FOLDER": str(kept["config"]),
            "VCAM_LOG_FOLDER": str(kept["log"]),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `vcam` with these words."""
        command = [sys.executable, "-m", "vcam", *words]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # `vcam run` has its session go before others: not that of all tests
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, text=True, start_new_session=True, **pipes)

    def done(self, *words: str, told: str = "") -> tuple[int, str, str]:
        """Run `vcam` with these words to its end; return the exit status, stdout and stderr. told: its stdin."""
        process = self.start(*words)
        said, complained = process.communicate(told, timeout=2 * PATIENCE_S)
        return process.returncode, said, complained

    def asked(self, *words: str, told: str = "") -> dict[str, Any]:
        """Run it, and return its last line, which is JSON."""
        code, said, complained = self.done(*words, "--json", told=told)
        assert code == 0, complained
        last: dict[str, Any] = json.loads(said.splitlines()[-1])
        return last


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Ray's sockets lie in it, and a socket's path is of a hundred letters at most
    short = "/tmp" if Path("/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="r", dir=short, ignore_cleanup_errors=True) as folder:
        yield Machine(Path(folder))


@contextlib.contextmanager
def serving(machine: Machine, *words: str) -> Iterator[str]:
    """Have `vcam serve` run at a free port while the body runs, and end as a user ends it; yield its address."""
    with machine.start("serve", "--host", "127.0.0.1", "--port", "0", *words) as process:
        try:
            assert process.stderr is not None
            line = ""
            while not line.startswith("vcam: serving"):
                line = process.stderr.readline()
                assert line, "the server has ended before it served"
            yield line.split(" at ")[1].split(": ")[0]
            process.send_signal(signal.SIGTERM)
            said, complained = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, complained
            assert "the server has ended" in said
        finally:
            if process.poll() is None:  # Ray's processes, too
                own = psutil.Process(process.pid)
                for one in (*own.children(recursive=True), own):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()


def test_cameras_of_a_killed_replica_are_back_on_another(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.scale", "--kill", "--json", str(result)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(result.read_text())
    assert found["cameras hit"] >= 1
    assert found["cameras hit"] + found["cameras spared"] == 4
    assert math.isfinite(found["longest away, s"])
    assert found["ports open to others"] == 0  # the front is told 127.0.0.1 here


def test_a_second_replica_comes_where_the_first_has_no_place_left(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.scale", "--grow", "--json", str(result)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(result.read_text())
    assert (found["replicas before"], found["replicas then"]) == (1, 2)
    assert "all 1 of its streams are taken" in ran.stdout  # what the one is told that comes too soon


def test_a_film_goes_in_at_one_program_and_comes_out_of_it_as_the_other_one_made_it(machine: Machine) -> None:
    source = film(machine.folder / "source.mp4", 400, size=(320, 240))
    shown = machine.folder / "shown.mp4"
    with serving(machine, "--streams", "2", "--preset", "fast") as address:
        pairing = machine.asked("serve", "clients", "add", "laptop")["pairing"]
        machine.asked("pair", address, "-", told=f"{pairing}\n")
        words = ["--remote", address, "--source", str(source), "--sink", str(shown), "--size", "320x240"]
        ran = machine.asked("run", *words, "--frames", "300", "--preset", "fast", "--no-panel")
        assert ran["published"] == 300
        assert ran["translated"] > 0
        assert ran["restarts"] == 0
        machine.asked("serve", "clients", "revoke", "laptop")
        ran = machine.asked("run", *words, "--frames", "90", "--no-panel")
        assert ran["published"] == 90
        assert ran["translated"] == 0
    left = [path for path in machine.folder.rglob("*") if path.is_file() and not path.is_socket()]
    assert any("ray" in str(path) for path in left)  # its logs
    kept = [path for path in left if path not in (source, shown) and JPEG in path.read_bytes()]
    assert kept == []


def test_more_streams_than_the_memory_has_room_for_are_refused_with_what_would_fit(machine: Machine) -> None:
    words = ["serve", "--host", "127.0.0.1", "--port", "0", "--preset", "fast", "--engine-size", "1024x1024"]
    code, _, complained = machine.done(*words, "--streams", "64", "--replicas", "64")
    assert code != 0
    assert "64 engines, each with 64 streams, needs" in complained
    assert "take a smaller --engine-size or fewer replicas" in complained
    assert "Traceback" not in complained
