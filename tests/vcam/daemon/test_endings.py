"""How a run ends: what ends it is in the log, and the exit status says what happened, whatever cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import psutil
import pytest

from tests.support.camera_process import ROOT, Camera, made_folder
from tests.support.patience import PATIENCE_S, until
from vcam import client
from vcam.commands import Stop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and devices of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_folder(tmp_path)


def shared_by(engines: list[psutil.Process]) -> set[Path]:
    """The files of the memory in which pictures go to the engine and back, where the system has such files."""
    if sys.platform != "linux":
        return set()
    maps = [Path(one.path) for engine in engines for one in engine.memory_maps()]
    return {path for path in maps if path.is_relative_to("/dev/shm") and path.name.startswith("psm_")}


def test_closing_the_terminal_ends_it_as_sigterm_does_and_the_log_says_so(folder: Path) -> None:
    import fcntl
    import termios

    terminal, theirs = os.openpty()

    def control() -> None:  # in the session of its own that every Camera has
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests by nohup has it ignored
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    camera = Camera(folder, "--json", stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=control)
    os.close(theirs)
    camera.until_running()
    engines = camera.engines()
    memory = shared_by(engines)
    assert memory or sys.platform != "linux"
    os.close(terminal)  # the window is closed: SIGHUP, and nothing can be written any more
    assert camera.ended(engines) == 0
    assert not [path for path in memory if path.exists()], "shared memory is left"
    assert camera.plays()
    assert "the camera ends: the signal SIGHUP" in camera.log.read_text()


def test_what_ignores_the_end_of_its_terminal_goes_on(folder: Path) -> None:
    camera = Camera(folder, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    camera.until_running()
    engines = camera.engines()
    camera.process.send_signal(signal.SIGHUP)
    client.send(Stop(), folder / "state")
    camera.process.communicate(timeout=PATIENCE_S)
    assert camera.ended(engines) == 0
    assert "the camera ends: the command stop" in camera.log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is a full disk")
def test_a_full_disk_of_the_log_and_the_terminal_is_no_failure_of_the_end(folder: Path) -> None:
    (folder / "log" / "vcam.log").symlink_to("/dev/full")
    with open("/dev/full", "wb") as full:
        camera = Camera(folder, "--json", stdout=full, stderr=full)
        camera.until_running()
        engines = camera.engines()
        client.send(Stop(), folder / "state")
        assert camera.ended(engines) == 0, "a service manager would start it again"
    assert camera.plays()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is a full disk")
def test_a_full_disk_of_the_log_and_the_terminal_keeps_no_engine_from_being_started_again(folder: Path) -> None:
    (folder / "log" / "vcam.log").symlink_to("/dev/full")
    with open("/dev/full", "wb") as full:
        camera = Camera(folder, stdout=full, stderr=full)
        camera.until_running()  # it has said where the page is, and what it said is kept by no buffer
        pid = client.status(folder / "state").engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        camera.until_running(but=pid)
        engines = camera.engines()
        client.send(Stop(), folder / "state")
        assert camera.ended(engines) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is a full disk")
def test_a_log_that_cannot_be_written_is_said_once(folder: Path) -> None:
    (folder / "log" / "vcam.log").symlink_to("/dev/full")
    camera = Camera(folder)
    camera.until_running()
    camera.process.send_signal(signal.SIGTERM)
    _, errors = camera.process.communicate(timeout=PATIENCE_S)
    assert camera.process.returncode == 0
    assert errors.count(b"cannot be written (No space left on device); lines are lost") == 1
    assert b"Logging error" not in errors


def test_a_recording_that_could_not_be_completed_is_a_failure(folder: Path) -> None:
    camera = Camera(folder)
    camera.until_running()
    camera.recording.mkdir()  # the finished file cannot have its name
    camera.process.send_signal(signal.SIGTERM)
    _, errors = camera.process.communicate(timeout=PATIENCE_S)
    assert camera.process.returncode == 1
    assert b"out.mp4 could not be completed" in errors
    assert b"the camera ends: the signal SIGTERM" in errors


def test_killed_at_once_the_recording_plays(folder: Path) -> None:
    camera = Camera(folder)
    camera.until_running()
    until(lambda: client.status(folder / "state").published > 150)
    camera.process.kill()
    camera.process.communicate(timeout=PATIENCE_S)
    with av.open(str(folder / ".out.part.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 90  # two of its last seconds may be missing


@pytest.mark.parametrize("name", [client.LOCK_FILE, client.SESSION_FILE])
def test_a_full_disk_of_the_state_has_its_sentence(folder: Path, name: str) -> None:
    script = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "sys.argv = ['vcam', *sys.argv[1:]]; runpy.run_module('tests.support.camera_program', run_name='__main__')"
    )
    if name == client.SESSION_FILE:  # the lock alone can be written
        script = script.replace("(0, 0)", "(9, 9)")
    environment = {
        **os.environ,
        "VCAM_STATE_FOLDER": str(folder / "state"),
        "VCAM_LOG_FOLDER": str(folder / "log"),
        "VCAM_CONFIG_FOLDER": str(folder / "config"),
    }
    command = [sys.executable, "-B", "-c", script, "run", "--source", "pattern", "--sink", "none", "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"{name} cannot be written (File too large); make room on that disk" in last
    assert "unexpected" not in done.stderr
