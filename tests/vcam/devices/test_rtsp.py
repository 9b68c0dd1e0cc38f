"""RTSP cameras: a server of others (`rtsp`, H.264 in RTP by TCP and UDP) on this machine, read as a source."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.media_files import number_of
from tests.support.patience import until
from tests.support.rtsp_camera import FPS, PICTURES
from vcam.devices.network import NetworkStream, StreamCapture
from vcam.frames import Frame

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def camera(port: int) -> Iterator[None]:
    program = [sys.executable, "-m", "tests.support.rtsp_camera", str(port)]
    child = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield
    finally:
        child.kill()
        child.communicate()


def age_s(frame: Frame) -> float:
    """How old the picture is, but for a constant: the camera takes the next one each 1/FPS s."""
    return (time.monotonic() * FPS - number_of(frame.picture)) % PICTURES / FPS


@contextmanager
def reading(address: str, opener: Callable[[str], StreamCapture] = StreamCapture) -> Iterator[NetworkStream]:
    source = NetworkStream(address, opener=opener)
    try:
        yield source
    finally:
        source.close()


def frame_of(source: NetworkStream) -> Frame:
    found: list[Frame] = []

    def read() -> bool:
        if (frame := source.read(0.2)) is not None:
            found.append(frame)
        return bool(found)

    until(read, lambda: source.trouble)
    return found[-1]


def test_a_camera_is_read_and_read_again_once_it_is_back() -> None:
    port = free_port()
    with reading(f"rtsp://127.0.0.1:{port}/live") as source:
        with camera(port):
            first = frame_of(source)
            assert first.picture.shape == (120, 160, 3)
            assert source.trouble == ""
            until(lambda: number_of(frame_of(source).picture) != number_of(first.picture), "it stands still")
        until(lambda: source.read(0.2) is None and "trying again" in source.trouble, "the end was not noticed")
        with camera(port):
            frame_of(source)


def slow(address: str) -> StreamCapture:
    """A capture on a computer that takes eight times as long for a picture as the camera."""
    made = StreamCapture(address)
    read = made.read

    def later() -> tuple[bool, Any]:
        time.sleep(8 / FPS)
        return read()

    made.read = later  # type: ignore[method-assign]
    return made


def test_a_computer_slower_than_the_camera_sees_what_is_now() -> None:
    port = free_port()
    with camera(port), reading(f"rtsp://127.0.0.1:{port}/live", slow) as source:
        first = age_s(frame_of(source))
        # 7 of 8 pictures are too many for it: it is 2.8 s behind after ten unless what is late is left out
        behind = [(age_s(frame_of(source)) - first + 4) % (PICTURES / FPS) - 4 for _ in range(10)]
        assert max(behind) < 2
