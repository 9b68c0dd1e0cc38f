"""The microphone's process: what it hears comes in time, and what it does wrong is said once and mended."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.microphone_program import COMMAND
from tests.support.patience import until
from vcam.devices import microphone, microphone_process
from vcam.devices.microphone import HeardSound, MicrophoneProcess, Timing
from vcam.devices.microphone_process import AFTER_A_GAP, BLOCK, DEFAULT, HEAD, OPENED, RATE, SOUND
from vcam.errors import DeviceError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "AGAIN_S", 0.05)
    for limit in ("GONE_S", "OPEN_S"):
        monkeypatch.setattr(microphone, limit, 120.0)  # a busy machine is no fault


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
    blocks: list[HeardSound] = []

    def enough() -> bool:
        blocks.extend(hearing.microphone.take())
        return len(blocks) > 100

    until(enough, "two seconds heard")
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


@pytest.mark.parametrize(("how", "status"), [("missing", 1), ("faulty", 1), ("unplugged", 0)])
def test_its_process_ends_in_order_while_its_stdin_is_open(how: str, status: int) -> None:
    """It was aborted by Python itself each time: on some systems a report of a crash every two seconds."""
    with subprocess.Popen([*COMMAND, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait() == status


def test_its_process_ends_when_its_stdin_does() -> None:
    with subprocess.Popen([*COMMAND, "hangs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def test_a_message_that_was_cut_short_is_none() -> None:
    whole = HEAD.pack(SOUND, 1.0, 4) + b"abcd"
    assert [one.data for one in microphone_process.messages(io.BytesIO(whole + whole[:-1]))] == [b"abcd"]
    assert [one.data for one in microphone_process.messages(io.BytesIO(whole + whole[:3]))] == [b"abcd"]


class FakePortAudio:
    """sounddevice as far as it is used: two microphones beside a loudspeaker, which give two blocks and are gone."""

    class PortAudioError(Exception):
        pass

    def __init__(self, microphones: tuple[str, ...] = ("Built-in", "Desk: USB"), fails: str = "") -> None:
        self.known = [{"name": "Speakers", "max_input_channels": 0}]
        self.known += [{"name": one, "max_input_channels": 2} for one in microphones]
        self.fails = fails

    def query_devices(self, device: int | None = None) -> Any:
        return self.known if device is None else self.known[device]

    def RawInputStream(
        self,
        rate: int,
        block: int,
        device: int | None,
        channels: int,
        kind: str,
        *,
        callback: Any,
        finished_callback: Any,
    ) -> Any:
        if self.fails:
            raise self.PortAudioError(f"{self.fails}\nat length")
        assert (rate, block, channels, kind) == (RATE, BLOCK, 1, "int16")
        return FakeStream(1 if device is None else device, callback, finished_callback)


class FakeStream:
    def __init__(self, device: int, callback: Any, finished: Any) -> None:
        self.device, self.active = device, True
        self._thread = threading.Thread(target=self._run, args=(callback, finished))

    def _run(self, callback: Any, finished: Any) -> None:
        for gap in (False, True):
            callback(bytes(2 * BLOCK), BLOCK, None, SimpleNamespace(input_overflow=gap))
        finished()

    def __enter__(self) -> FakeStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def heard_from(name: str, library: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes]]:
    monkeypatch.setattr(microphone_process, "_library", lambda: library)
    sent: list[tuple[int, bytes]] = []
    microphone_process.hear(name, lambda kind, data: sent.append((kind, data)))
    return sent


@pytest.mark.parametrize(("name", "device"), [(DEFAULT, b"Built-in"), ("usb", b"Desk: USB")])
def test_the_systems_own_microphone_is_heard_or_the_one_of_that_name(
    monkeypatch: pytest.MonkeyPatch, name: str, device: bytes
) -> None:
    (opened, *heard) = heard_from(name, FakePortAudio(), monkeypatch)
    assert opened == (OPENED, device)
    assert [(kind, len(data)) for kind, data in heard] == [(SOUND, 2 * BLOCK), (AFTER_A_GAP, 2 * BLOCK)]


@pytest.mark.parametrize(
    ("name", "library", "says"),
    [
        (DEFAULT, FakePortAudio(()), "there is no microphone: plug one in"),
        ("Speakers", FakePortAudio(), 'no microphone is called "Speakers"; there are: Built-in, Desk: USB'),
        (DEFAULT, FakePortAudio(fails="Device unavailable"), r"cannot be opened \(Device unavailable\): is it plugged"),
    ],
)
def test_one_that_cannot_be_opened_says_why(
    monkeypatch: pytest.MonkeyPatch, name: str, library: FakePortAudio, says: str
) -> None:
    with pytest.raises(DeviceError, match=says):
        heard_from(name, library, monkeypatch)


def test_without_the_extra_it_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceError, match="pip install sounddevice"):
        microphone_process.hear(DEFAULT, lambda kind, data: None)


def test_without_the_systems_portaudio_it_says_which_package_that_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="libportaudio2"):
        microphone_process.hear(DEFAULT, lambda kind, data: None)
