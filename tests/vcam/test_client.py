"""How programs of this user ask the running camera."""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from vcam import client
from vcam.commands import Status
from vcam.daemon.instance_lock import only_one
from vcam.errors import ClientError


@pytest.mark.skipif(sys.platform == "win32", reason="a Unix socket")
def test_a_refusal_that_comes_before_all_was_sent_is_read(tmp_path: Path) -> None:
    body = b'{"error": "OBS may give commands, and nothing else"}'
    door = str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(door)
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.close()

        server = threading.Thread(target=refuse)
        server.start()
        with pytest.raises(ClientError, match=r"^OBS may give commands, and nothing else$"):
            client.ask(
                client.Session(door, "token"), "POST", "/api/v1/look", {"longer than a socket holds": "x" * 2**22}
            )
        server.join()


def test_the_status_says_on_whose_hardware_onnx_runtime_runs() -> None:
    status = Status(model="embedded", runtime="onnx", device="cpu", provider="openvino, 26 of 1280 nodes on the CPU")
    assert "embedded on cpu (onnx: openvino, 26 of 1280 nodes on the CPU), " in client.status_text(status)
    assert "embedded on cpu (onnx), " in client.status_text(replace(status, provider=""))


def test_the_status_says_how_often_the_bank_was_made_anew() -> None:
    assert "bank made anew: 2" in client.status_text(Status(refreshes=2))
    assert "made anew" not in client.status_text(Status())


@pytest.mark.skipif(sys.platform == "win32", reason="who holds a lock is not told there")
@pytest.mark.parametrize("gone", ["session", "door"])
def test_a_camera_that_runs_without_its_way_in_is_not_denied(tmp_path: Path, gone: str) -> None:
    """A tidying program may delete a socket; `vcam run` then says "runs already", and `vcam stop` must not deny it."""
    nobody, missing = "no StreamV2V Camera is running", tmp_path / client.SESSION_FILE
    with only_one(tmp_path):
        if gone == "door":
            missing = tmp_path / "control.sock"
            client.write_session(tmp_path, str(missing), None, "token")
        with pytest.raises(ClientError, match=rf"runs \(pid {os.getpid()}\), but {missing} is not there: .* kill "):
            client.status(tmp_path)
    with pytest.raises(ClientError, match=nobody):
        client.status(tmp_path)
    (tmp_path / client.LOCK_FILE).write_text(str(os.getpid()))  # of a camera that was killed; another has its number
    with pytest.raises(ClientError, match=nobody):
        client.status(tmp_path)
    (tmp_path / client.LOCK_FILE).write_text("9" * 19)
    with pytest.raises(ClientError, match=nobody):
        client.status(tmp_path)
