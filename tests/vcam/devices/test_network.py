"""Network sources against servers on this machine: an MJPEG camera by HTTP, a film by HTTP, one that says nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from tests.support.patience import until
from vcam.daemon.event_log import EventLog
from vcam.devices import choose
from vcam.devices.network import NetworkStream, check_address, is_address
from vcam.errors import VcamError
from vcam.frames import Frame
from vcam.log_file import redacted, without_secrets


class MjpegServer(ThreadingHTTPServer):
    """A camera that sends pictures whose grey says how many it sent before; wants a password if one is set."""

    daemon_threads = True

    def __init__(self, password: str = "") -> None:
        super().__init__(("127.0.0.1", 0), MjpegPage)
        self.authorization = password
        self.sent, self.connections, self.cut = 0, 0, threading.Event()


class MjpegPage(BaseHTTPRequestHandler):
    server: MjpegServer

    def do_GET(self) -> None:  # the name that the library calls
        if self.server.authorization and not self.headers.get("Authorization"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        self.server.cut.clear()
        while not self.server.cut.is_set():
            grey = 40 + self.server.sent % 200
            jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes()
            head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            self.server.sent += 1
            try:
                self.wfile.write(head + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.04)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(password: str = "") -> Iterator[MjpegServer]:
    with MjpegServer(password) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.cut.set()
            server.shutdown()


@contextmanager
def reading(address: str) -> Iterator[NetworkStream]:
    source = NetworkStream(address)
    try:
        yield source
    finally:
        source.close()


def frame_of(source: NetworkStream, wanted: Callable[[Frame], bool] = lambda frame: True) -> Frame:
    found: list[Frame] = []

    def read() -> bool:
        frame = source.read(0.2)
        if frame is not None and wanted(frame):
            found.append(frame)
        return bool(found)

    until(read, f"no such picture; trouble: {source.trouble!r}")
    return found[-1]


def test_an_mjpeg_camera_is_read_and_read_again_after_the_connection_ended() -> None:
    with serving() as server, reading(f"http://127.0.0.1:{server.server_port}/video") as source:
        frame = frame_of(source)
        assert frame.picture.shape == (48, 64, 3)
        assert np.ptp(frame.picture) <= 4
        assert source.trouble == ""
        server.cut.set()
        until(lambda: source.read(0.2) is None and source.trouble != "", "the end was not noticed")
        assert source.trouble.endswith("trying again")
        frame_of(source)
        assert server.connections == 2


def test_the_newest_picture_comes_first() -> None:
    with serving() as server, reading(f"http://127.0.0.1:{server.server_port}/video") as source:
        frame_of(source)
        before = server.sent
        until(lambda: server.sent > before + 30, "the camera stands still")
        source.read(0.2)  # the newest of those that came meanwhile
        newest = server.sent - 1  # or one that comes while the next is read
        frame = frame_of(source)
        behind = (40 + newest % 200) - int(frame.picture.mean())
        assert (behind + 100) % 200 - 100 <= 20


def test_user_and_password_reach_the_camera_and_nobody_else(capfd: pytest.CaptureFixture[str]) -> None:
    with serving("yes") as server:
        place = f"127.0.0.1:{server.server_port}/video"
        with reading(f"http://admin:hush@{place}?token=quiet") as source:
            frame_of(source)
            assert source.name == f"http://{place}?***"
            server.cut.set()
            until(lambda: source.read(0.2) is None and source.trouble != "", "the end was not noticed")
            told = source.name + source.trouble
        with reading(f"http://{place}?token=quiet") as source:
            until(lambda: source.read(0.2) is None and "refused" in source.trouble, source.trouble)
            told += source.trouble
    told += "".join(capfd.readouterr())
    assert "hush" not in told
    assert "quiet" not in told


def test_a_server_that_is_not_there_is_told_and_waited_for() -> None:
    with socket.socket() as taken, contextlib.ExitStack() as stack:
        taken.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it; not listening
        source = stack.enter_context(reading(f"http://u:hush@127.0.0.1:{taken.getsockname()[1]}/"))
        until(lambda: source.read(0.1) is None and "trying again" in source.trouble, "it was not told")
        assert "Connection refused" in source.trouble
        assert "hush" not in source.trouble


def test_a_server_that_says_nothing_does_not_hold_the_reader_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with reading(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/stream") as source:
            began = time.monotonic()
            assert source.read(0.1) is None
            assert time.monotonic() - began < 5
        assert source.trouble.startswith("opening rtsp://127.0.0.1")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:p%40ss@cam:554/h264?x=1", "rtsp://cam:554/h264?***"),
        ("rtsp://admin:p@ss@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:pa/s?s@cam/live", "rtsp://cam/live"),
        ("rtsp://cam/user=admin&password=hush&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        ("http://cam/video#key=1", "http://cam/video?***"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert without_secrets(f"cannot open '{address}': refused") == f"cannot open '{shown}': refused"


def test_what_is_an_address() -> None:
    assert is_address("rtsp://cam/1")
    assert not is_address("12:30.mp4")
    assert not is_address("C:\\film.mp4")
    for wrong, words in (
        ("file:///etc/passwd", "give the file's path"),
        ("ftp://u:hush@h/", "rtsp"),
        ("http:///x", "no host"),
    ):
        with pytest.raises(VcamError, match=words) as caught:
            check_address(wrong)
        assert "hush" not in str(caught.value)


def test_choosing_an_address_or_a_number() -> None:
    source = choose.choose_source("http://u:hush@127.0.0.1:9/x", (64, 48), 10)
    assert source.name == "http://127.0.0.1:9/x"
    source.close()
    number = choose.choose_source("0", (64, 48), 10)
    assert number.name == "0"
    number.close()


def test_no_line_of_the_log_or_the_panel_shows_a_password() -> None:
    log = EventLog()
    log.note("source http://u:hush@cam/video?token=quiet")
    assert log.lines()[-1]["text"] == "source http://cam/video?***"
    assert redacted("opening rtsp://u:hush@cam/1") == "opening rtsp://cam/1"
