"""RTSP cameras with passwords, by TCP and UDP: GStreamer's server, where the system's Python has it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.patience import until
from vcam.devices.network import NetworkStream

SERVER = Path(__file__).parents[1] / "support" / "gstreamer_server.py"
PYTHON = "/usr/bin/python3"  # python3-gi and gir1.2-gst-rtsp-server-1.0 are the system's
FIND = 'import gi; gi.require_version("GstRtspServer", "1.0"); from gi.repository import GstRtspServer'


def _has_server() -> bool:
    if sys.platform != "linux" or not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", FIND], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _has_server(), reason="GStreamer's RTSP server for Python is not installed")


@contextmanager
def server(door: str, way: str = "tcp") -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    child = subprocess.Popen([PYTHON, str(SERVER), port, door, way], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield f"127.0.0.1:{port}/live"
    finally:
        child.kill()
        child.communicate()


def shows(address: str) -> str:
    """What the source of that address told until its first picture came."""
    source = NetworkStream(address)
    told = {source.name}
    try:

        def read() -> bool:
            frame = source.read(0.2)
            told.add(source.trouble)
            return frame is not None and frame.picture.shape == (240, 320, 3)

        until(read, lambda: source.trouble)
    finally:
        source.close()
    return " ".join(told)


@pytest.mark.parametrize("door", ["basic", "digest"])
def test_user_and_password_open_it_and_are_shown_nowhere(door: str, capfd: pytest.CaptureFixture[str]) -> None:
    with server(door) as place:
        told = shows(f"rtsp://admin:p%40ss%2Fword@{place}")
        source = NetworkStream(f"rtsp://admin:wrong@{place}")
        until(lambda: source.read(0.2) is None and "user or password is refused" in source.trouble, source.trouble)
        source.close()
    told += source.trouble + "".join(capfd.readouterr())
    assert "admin" not in told
    assert "ss%2F" not in told
    assert "wrong" not in told


def test_a_camera_that_sends_by_udp_alone_is_read() -> None:
    with server("open", "udp") as place:
        shows(f"rtsp://{place}")
