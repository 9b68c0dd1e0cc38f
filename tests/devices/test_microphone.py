"""The microphone for real: heard by PortAudio through ALSA, whose microphone is a file here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from vcam.devices.microphone import COMMAND
from vcam.devices.microphone_process import AFTER_A_GAP, BLOCK, DEFAULT, FAILED, OPENED, RATE, SOUND, messages


def _has_portaudio() -> bool:
    if sys.platform != "linux":
        return False
    return subprocess.run([sys.executable, "-c", "import sounddevice"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _has_portaudio(), reason="no sounddevice, or no libportaudio2")

TONE_HZ, LOUD = 440, 8000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of somebody whose only microphone hears a tone of a minute, as quickly as it is read."""
    tone = LOUD * np.sin(2 * np.pi * TONE_HZ * np.arange(60 * RATE) / RATE)
    (tmp_path / "tone.raw").write_bytes(tone.astype("<i2").tobytes())
    (tmp_path / ".asoundrc").write_text(
        'pcm.!default { type plug slave { pcm "desk" rate 48000 channels 1 format S16_LE } }\n'
        f'pcm.desk {{ type file slave.pcm "null" file "/dev/null" infile "{tmp_path / "tone.raw"}" format raw }}\n'
    )
    return tmp_path


@contextmanager
def hearing(home: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """The microphone's own process, as a recording starts it."""
    with subprocess.Popen(
        [*COMMAND, name],
        env=os.environ | {"HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # ALSA names every device that is not there
    ) as process:
        yield process


@pytest.mark.parametrize("name", [DEFAULT, "Desk"])
def test_what_the_microphone_hears_comes_whole(home: Path, name: str) -> None:
    with hearing(home, name) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        opened, *heard = islice(messages(process.stdout), 51)
        process.stdin.close()
        assert process.wait() == 0
    assert opened.kind == OPENED
    assert name.lower() in opened.data.decode().lower()
    assert {one.kind for one in heard} <= {SOUND, AFTER_A_GAP}
    assert {len(one.data) for one in heard} == {2 * BLOCK}
    assert [one.at_s for one in heard] == sorted(one.at_s for one in heard)
    block = np.frombuffer(heard[10].data, np.int16) / LOUD  # 20 ms: 8.8 waves
    bends = np.diff(block, 2)
    assert np.abs(block).max() == pytest.approx(1, abs=0.01)
    assert np.abs(bends + (2 * np.pi * TONE_HZ / RATE) ** 2 * block[1:-1]).max() < 0.002, "it is another tone"


def test_a_name_that_no_microphone_has_is_told_with_those_that_are_there(home: Path) -> None:
    with hearing(home, "Studio") as process:
        assert process.stdout is not None
        (told,) = messages(process.stdout)
        assert process.wait() == 1
    assert told.kind == FAILED
    assert 'no microphone is called "Studio"; there are: ' in told.data.decode()
    assert "desk" in told.data.decode()
