"""The microphone's process: what it hears comes in time, and what it does wrong is said once and mended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.microphone_program import COMMAND
from tests.support.patience import until
from vcam.devices import microphone
from vcam.devices.microphone import MicrophoneProcess, Timing
from vcam.devices.microphone_process import BLOCK, RATE


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "AGAIN_S", 0.05)
    monkeypatch.setattr(microphone, "GONE_S", 60.0)  # a busy machine is no fault


class Hearing:
    def __init__(self, how: str) -> None:
        self.said: list[str] = []
        self.microphone = MicrophoneProcess(how, self.said.append, COMMAND)

    def until_said(self, text: str) -> None:
        until(lambda: any(text in one for one in self.said), lambda: self.said)


@pytest.fixture
def hearing(request: pytest.FixtureRequest) -> Iterator[Hearing]:
    one = Hearing(request.param)
    yield one
    one.microphone.close()


@pytest.mark.parametrize("hearing", ["sine"], indirect=True)
def test_sound_comes_whole_and_with_its_times(hearing: Hearing) -> None:
    blocks = []
    until(lambda: (blocks.extend(hearing.microphone.take()), len(blocks) > 100)[1])
    assert (hearing.microphone.name, hearing.microphone.trouble, hearing.said) == ("Test sine", "", [])
    sound = np.concatenate([one.samples for one in blocks]).astype(int)
    loud = sound.max()
    assert loud > 1000
    assert np.abs(np.diff(sound)).max() < 0.07 * loud, "a part of the tone is missing"
    assert all(0 < one.heard_s < time.perf_counter() for one in blocks)
    hearing.microphone.close()
    assert hearing.microphone._process is not None
    until(lambda: hearing.microphone._process.poll() is not None, "it is still open")  # type: ignore[union-attr]


def test_what_is_late_in_the_pipe_was_not_heard_late() -> None:
    timing = Timing()
    late = [0.0, 0.004, 0.3, 0.0, 0.001]
    found = [timing.heard_s((n + 1) * BLOCK / RATE + late[n % 5], BLOCK) for n in range(50)]
    assert np.abs(np.array(found) - np.arange(50) * BLOCK / RATE).max() < 1e-9
    assert timing.heard_s(51 * BLOCK / RATE + 2.0, BLOCK, after_a_gap=True) == pytest.approx(50 * BLOCK / RATE + 2.0)


def test_one_that_is_unplugged_is_told_once_and_heard_again(tmp_path: Path) -> None:
    plugged = tmp_path / "plugged"
    hearing = Hearing(f"unplugged {plugged}")
    hearing.until_said("the microphone Test unplugged is gone; the recording goes on without sound")
    assert hearing.microphone.trouble
    plugged.touch()
    hearing.until_said("the microphone Test sine is heard again")
    assert hearing.microphone.trouble == ""
    hearing.microphone.close()
    assert sum("is gone" in one for one in hearing.said) <= 2


def test_one_that_hangs_is_ended_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "GONE_S", 0.3)
    hearing = Hearing("hangs")
    hearing.until_said("the microphone Test hangs gives nothing any more")
    first = hearing.microphone._process
    until(lambda: hearing.microphone._process is not first, "it is not tried again")
    hearing.microphone.close()


def test_one_that_gives_nothing_but_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "SILENT_S", 0.2)
    hearing = Hearing("silent")
    hearing.until_said("the microphone Test silent gives nothing but silence: is it muted")
    assert hearing.said == hearing.said[:1]
    hearing.microphone.close()


def test_one_that_is_killed_is_started_again() -> None:
    hearing = Hearing("sine")
    until(hearing.microphone.take, "nothing is heard")
    assert hearing.microphone._process is not None
    hearing.microphone._process.kill()
    hearing.until_said("the microphone Test sine is gone")
    hearing.until_said("is heard again")
    hearing.microphone.close()
