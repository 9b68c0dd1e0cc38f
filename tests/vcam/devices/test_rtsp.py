"""RTSP cameras: a server of others (`rtsp`, H.264 in RTP by TCP and UDP) on this machine, read as a source."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rtsp

from tests.support.media_files import number_of, numbered
from tests.support.patience import until
from vcam.devices.network import NetworkStream, StreamCapture
from vcam.frames import Frame

FPS = 25


class Camera:
    """A camera whose pictures carry their number, one after the other."""

    def __init__(self, port: int) -> None:
        pictures = [numbered(n, 160, 120) for n in range(200)]
        self._source = rtsp.Source(f"rtsp://127.0.0.1:{port}/live", fps=FPS, frame_buffer=pictures)
        assert self._source.wait_encoding_started()
        self._began_s = time.monotonic()

    def behind_s(self, frame: Frame) -> float:
        """How old the picture is: its number beside the one that is sent now."""
        sent = (time.monotonic() - self._began_s) * FPS
        return ((sent - number_of(frame.picture) + 100) % 200 - 100) / FPS

    def close(self) -> None:
        self._source.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def camera(port: int) -> Iterator[Camera]:
    made = Camera(port)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def reading(address: str, opener: Any = StreamCapture) -> Iterator[NetworkStream]:
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
    with camera(port) as made, reading(f"rtsp://127.0.0.1:{port}/live", slow) as source:
        first = made.behind_s(frame_of(source))
        # 7 of 8 pictures are too many for it: it is 2.8 s behind after ten unless what is late is left out
        assert max(made.behind_s(frame_of(source)) - first for _ in range(10)) < 2
