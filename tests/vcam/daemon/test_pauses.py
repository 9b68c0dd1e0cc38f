"""A pause of the computer is told by the log, also where the clock of the pictures stood still meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.running_daemon import SwitchedDaemon
from vcam.daemon.asleep import ASLEEP_S, pause_told, seconds_through_sleep


@pytest.mark.parametrize(
    ("gap_s", "told"),
    [
        (0.1, ""),
        (ASLEEP_S, ""),
        (20.4, "nothing ran for 20 s: the computer slept, or the program was stopped; the camera goes on"),
    ],
)
def test_a_pause_is_told_in_plain_words(gap_s: float, told: str) -> None:
    assert pause_told(1000.0, 1000.0 + gap_s) == told


def test_its_clock_goes_on() -> None:
    began_s = seconds_through_sleep()
    time.sleep(0.01)
    assert seconds_through_sleep() > began_s


def test_a_night_asleep_is_told_once_and_costs_nothing(tmp_path: Path) -> None:
    """A laptop's lid on Linux: `perf_counter` stands still, and what it times is not late."""
    night_s = [0.0]
    with SwitchedDaemon(tmp_path, clock_through_sleep=lambda: time.perf_counter() + night_s[0]) as camera:
        pid, before = camera.engine_pid(), camera.daemon.status().translated
        night_s[0] = 8 * 3600.0
        camera.until(lambda: told(camera), "told")
        camera.until(lambda: camera.daemon.status().translated > before + 10, "translating")
        assert (camera.engine_pid(), camera.daemon.status().restarts) == (pid, 0)
        (line,) = told(camera)
        assert "nothing ran for 2880" in line


def told(camera: SwitchedDaemon) -> list[str]:
    return [line for one in camera.daemon.log() if "nothing ran for" in (line := str(one))]
