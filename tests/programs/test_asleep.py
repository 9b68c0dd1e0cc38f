"""Asleep and awake again: a whole `vcam run` is stopped, as by a laptop's lid, and goes on as if nothing had been."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.camera_process import Camera, made_folder
from tests.support.patience import PATIENCE_S, until
from vcam import client
from vcam.daemon.asleep import ASLEEP_S
from vcam.worker.limits import LIMITS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")

LONG_S = max(ASLEEP_S, LIMITS.frame_s) + 2  # so long without an answer an engine counts as dead


def stopped(one: psutil.Process) -> None:
    one.suspend()
    until(lambda: one.status() == psutil.STATUS_STOPPED, "it is not stopped")


@pytest.mark.parametrize("with_engine", [True, False], ids=["the computer", "the program alone"])
def test_stopped_and_continued_nothing_is_restarted_and_the_log_says_so_in_plain_words(
    tmp_path: Path, with_engine: bool
) -> None:
    folder = made_folder(tmp_path)
    with Camera(folder, model="busy") as camera:  # whose engine nearly always has a picture in hand
        camera.until_running()
        until(lambda: client.status(folder / "state").translated > 5)
        before = client.status(folder / "state")
        program, engines = psutil.Process(camera.process.pid), camera.engines() if with_engine else []
        for one in (program, *engines):
            stopped(one)
        time.sleep(LONG_S)  # not waited for: this is how long nobody runs
        program.resume()
        until(lambda: "nothing ran for " in camera.log.read_text(), camera.log.read_text)
        awake = client.status(folder / "state")
        until(lambda: client.status(folder / "state").published > awake.published + 3)
        for one in engines:  # the system lets them go on in any order
            one.resume()
        until(lambda: client.status(folder / "state").translated > awake.translated + 5)
        after = client.status(folder / "state")
        assert (after.state, after.engine_pid, after.restarts) == ("running", before.engine_pid, 0)
        camera.process.send_signal(signal.SIGTERM)
        camera.process.communicate(timeout=PATIENCE_S)
        assert camera.process.returncode == 0
    told = camera.log.read_text()
    (pause,) = (line for line in told.splitlines() if "nothing ran for " in line)
    assert pause.endswith(" s: the computer slept, or the program was stopped; the camera goes on")
    assert "has not answered" not in told
