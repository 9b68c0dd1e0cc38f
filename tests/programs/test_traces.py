"""What a run leaves on the disk, and with whom it speaks: files of our own folders, addresses of this machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
OURS = "streamv2v-camera"


def environment(home: Path) -> dict[str, str]:
    """Return this process's environment with every folder of the user inside `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "VCAM_", "ORT_", "HF_"))}
    places = {"CONFIG": ".config", "CACHE": ".cache", "DATA": ".local/share", "STATE": ".local/state"}
    kept |= {f"XDG_{kind}_HOME": str(home / place) for kind, place in places.items()}
    return kept | {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": tempfile.gettempdir()}


def addresses(root: psutil.Process) -> set[str]:
    """Return the hosts that the process and its children are connected to or listen at."""
    found = set()
    for process in (root, *root.children(recursive=True)):
        try:
            told = process.net_connections(kind="inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {place.ip for one in told for place in (one.laddr, one.raddr) if place}
    return found


@pytest.mark.skipif(os.name == "nt", reason="the user's folders are elsewhere there")
@pytest.mark.parametrize("words", [["--runtime", "onnx"], ["--runtime", "eager"]])
def test_a_run_writes_into_our_folders_alone_and_speaks_with_this_machine_alone(
    tmp_path: Path, words: list[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-P", "-m", "vcam", "run", "--source", "pattern", "--sink", "none"]
    command += ["--frames", "40", "--engine-size", "128x128", *words]
    seen: set[str] = set()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # it has its session go before others: not that of all tests
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            seen |= addresses(watched)
            time.sleep(0.05)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    written = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    assert written, "a run leaves its log and its lock"
    assert [name for name in written if OURS not in name] == []
    assert seen <= {"127.0.0.1", "::1"}, seen


def test_onnx_runtime_writes_nothing_into_the_users_cache(tmp_path: Path) -> None:
    script = "import core, onnxruntime; print(onnxruntime.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file()] == []
