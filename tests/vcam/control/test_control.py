"""The control server, real uvicorn on the loopback address: what it does, and whom it refuses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from starlette.responses import FileResponse
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from core.settings import Look
from tests.support.clock import Clock
from tests.support.controlled_daemon import ControlledDaemon, bearer
from tests.support.patience import PATIENCE_S, until
from vcam import client
from vcam.commands import ChangeLook, Panic, SetPrompt, Status, UseProfile
from vcam.control import api as control
from vcam.control import connections, guard, live
from vcam.control.guard import BODY_LIMIT, Keys, RateLimit, Who
from vcam.control.server import PAGES_FILE, PAGES_KEPT_S, Server
from vcam.errors import ProfileError, VcamError
from vcam.log_file import kept


@pytest.fixture
def daemon() -> ControlledDaemon:
    return ControlledDaemon()


@pytest.fixture
def server(daemon: ControlledDaemon, tmp_path: Path) -> Iterator[Server]:
    with Server(daemon, 0, tmp_path) as running:
        yield running


@pytest.fixture
def token(server: Server, tmp_path: Path) -> str:
    return str(json.loads((tmp_path / client.SESSION_FILE).read_text())["token"])


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and "Content-Type" not in given:
            given["Content-Type"] = "application/json"
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def enter(server: Server) -> dict[str, str]:
    """Come in by a link, as a browser; the header that its page then sends."""
    answer = ask(server, "GET", server.link().removeprefix(f"http://127.0.0.1:{server.port}"))
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    return bearer(page_key(answer))


def page_key(answer: Answer) -> str:
    found = re.search(rb'<meta name="key" content="([^"]+)">', answer.body)
    assert found is not None
    return found[1].decode()


PATHS = [
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/profiles"),
    ("GET", "/api/v1/look"),
    ("GET", "/api/v1/picture.jpg"),
    ("GET", "/api/v1/picture.mjpeg"),
    ("POST", "/api/v1/command"),
    ("POST", "/api/v1/look"),
    ("POST", "/api/v1/link"),
    ("POST", "/api/v1/picture-link"),
    ("POST", "/api/v1/try"),
    ("GET", "/api/v1/input.jpg"),
    ("GET", "/api/v1/input.mjpeg"),
    ("GET", "/api/v1/log"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/profiles/ink"),
    ("GET", "/api/v1/profiles/ink/thumbnail.jpg"),
    ("PUT", "/api/v1/profiles/ink"),
    ("DELETE", "/api/v1/profiles/ink"),
    ("GET", "/no/such/thing"),
]
COMMAND = {"command": "use", "profile": "ink"}


# ---------------------------------------------------------------------------------------------------- whom it refuses


def refused(server: Server, daemon: ControlledDaemon, status: int, headers: dict[str, str]) -> None:
    """Every path answers with `status` and tells nothing."""
    for method, path in PATHS:
        answer = ask(server, method, path, None if method == "GET" else COMMAND, **headers)
        assert answer.status == status, (method, path)
        assert b"JFIF" not in answer.body
        assert "access-control-allow-origin" not in answer.headers
    assert not daemon.commands


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
def test_nothing_without_the_token(server: Server, daemon: ControlledDaemon, token: str | None) -> None:
    refused(server, daemon, 401, {} if token is None else bearer(token))


def test_nothing_under_another_name_even_with_the_token(server: Server, daemon: ControlledDaemon, token: str) -> None:
    for host in ("evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""):
        refused(server, daemon, 403, {**bearer(token), "Host": host.format(port=server.port)})


def test_nothing_for_pages_of_another_origin_even_with_its_key(server: Server, daemon: ControlledDaemon) -> None:
    page = enter(server)
    for origin in (
        "http://evil.example",
        "null",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:1",
        "http://localhost",
        "",
    ):
        refused(server, daemon, 403, {**page, "Origin": origin.format(port=server.port)})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_cannot_embed_the_picture(server: Server, site: str) -> None:
    page = enter(server)
    assert ask(server, "GET", "/api/v1/picture.jpg", **page, Sec_Fetch_Site=site).status == 403
    assert ask(server, "GET", "/api/v1/picture.jpg", **page, Sec_Fetch_Site="same-origin").status == 200


def test_a_browser_that_does_not_say_where_it_comes_from_changes_nothing(
    server: Server, daemon: ControlledDaemon
) -> None:
    assert ask(server, "POST", "/api/v1/command", COMMAND, **enter(server)).status == 403
    assert not daemon.commands


def test_a_form_cannot_send_a_command(server: Server, daemon: ControlledDaemon, token: str) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        headers = {**bearer(token), "Content-Type": kind}
        assert ask(server, "POST", "/api/v1/command", json.dumps(COMMAND).encode(), **headers).status == 415
    assert not daemon.commands


def test_get_changes_nothing(server: Server, daemon: ControlledDaemon, token: str) -> None:
    for path in ("/api/v1/command", "/api/v1/link"):
        assert ask(server, "GET", path, **bearer(token)).status == 405
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert ask(server, method, "/api/v1/command", COMMAND, **bearer(token)).status == 405
    assert not daemon.commands


def test_a_body_that_is_too_long_is_refused(server: Server, daemon: ControlledDaemon, token: str) -> None:
    body = json.dumps({"command": "prompt", "prompt": "x" * BODY_LIMIT}).encode()
    assert ask(server, "POST", "/api/v1/command", body, **bearer(token)).status == 413
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:  # no length given: chunks
        head = f"POST /api/v1/command HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n"
        raw.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        raw.sendall(chunk * 4)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")
    assert not daemon.commands


def test_doubled_or_odd_headers_are_refused(server: Server, token: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        host = f"Host: 127.0.0.1:{server.port}\r\n"
        raw.sendall(
            f"GET / HTTP/1.1\r\n{host}Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "path", ["/../server.py", "/static/../server.py", "/%2e%2e/server.py", "/base.css/..%2f..%2fserver.py"]
)
def test_no_file_but_the_pages_own(server: Server, token: str, path: str) -> None:
    assert ask(server, "GET", path, **bearer(token)).status == 404


def test_the_session_file_is_for_this_user_only_and_goes_with_the_server(
    daemon: ControlledDaemon, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    with Server(daemon, 0, folder):
        path = folder / client.SESSION_FILE
        if sys.platform != "win32":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_a_state_folder_that_was_open_is_narrowed(daemon: ControlledDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with Server(daemon, 0, folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_lets_one_browser_in_once(server: Server) -> None:
    path = server.link().removeprefix(f"http://127.0.0.1:{server.port}")
    first, second = ask(server, "GET", path), ask(server, "GET", path)
    assert first.status == 200
    assert second.status == 401
    assert b"key" not in second.body
    assert ask(server, "GET", "/api/v1/status", **bearer(page_key(first))).status == 200


def test_no_cookie_is_set_and_none_opens_anything(server: Server) -> None:
    """A browser sends a cookie of 127.0.0.1 to every port of it, so to every program that listens there."""
    key = enter(server)["Authorization"].removeprefix("Bearer ")
    for name in (f"vcam_{server.port}", "key", "token"):
        assert ask(server, "GET", "/api/v1/status", Cookie=f"{name}={key}").status == 401
    for path in ("/", "/live.js", "/enter.js"):
        answer = ask(server, "GET", path)
        assert answer.status == 200
        assert "set-cookie" not in answer.headers
        assert key.encode() not in answer.body


def test_the_page_itself_is_no_secret_but_only_under_its_own_name(server: Server) -> None:
    assert ask(server, "GET", "/").status == 200
    assert ask(server, "GET", "/", Host="evil.example").status == 403
    assert ask(server, "GET", "/", Sec_Fetch_Site="cross-site").status == 403
    assert ask(server, "POST", "/", {}).status == 401


def test_a_pages_key_to_the_pictures_opens_them_alone_and_not_for_long(
    server: Server, daemon: ControlledDaemon, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = {**enter(server), "Origin": f"http://127.0.0.1:{server.port}"}
    key = ask(server, "POST", "/api/v1/view-key", {}, **page).data["key"]
    assert ask(server, "GET", f"/api/v1/picture.jpg?key={key}", Sec_Fetch_Site="same-origin").status == 200
    assert ask(server, "GET", f"/api/v1/picture.jpg?key={key}", Sec_Fetch_Site="cross-site").status == 403
    for method, path in PATHS:
        if not path.endswith((".jpg", ".mjpeg")) or "thumbnail" in path:
            assert ask(server, method, f"{path}?key={key}", None if method == "GET" else COMMAND).status == 401
    now = time.monotonic()
    monkeypatch.setattr(server._keys, "_clock", lambda: now + guard.VIEW_S + 1)
    assert ask(server, "GET", f"/api/v1/picture.jpg?key={key}").status == 401
    assert not daemon.commands


def test_a_link_ends_after_a_while() -> None:
    now = [0.0]
    keys = Keys(lambda: now[0])
    ticket, late = keys.ticket(), keys.ticket()
    assert keys.enter(ticket) is not None
    now[0] = guard.TICKET_S + 1
    assert keys.enter(late) is None


def test_a_page_is_known_after_a_restart_and_its_key_is_on_no_disk(daemon: ControlledDaemon, tmp_path: Path) -> None:
    with Server(daemon, 0, tmp_path) as first:
        page = enter(first)
        assert ask(first, "GET", "/api/v1/status", **page).status == 200
    key = page["Authorization"].removeprefix("Bearer ")
    assert key not in (tmp_path / PAGES_FILE).read_text()
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / PAGES_FILE).stat().st_mode) == 0o600
    assert first.port is not None
    with Server(daemon, first.port, tmp_path) as second:
        assert second.port == first.port
        assert ask(second, "GET", "/api/v1/status", **page).status == 200
        assert ask(second, "GET", "/api/v1/status", **bearer(guard.page_mark(key))).status == 401, "the mark is no key"
    (tmp_path / PAGES_FILE).unlink()
    with Server(daemon, first.port, tmp_path) as third:
        assert ask(third, "GET", "/api/v1/status", **page).status == 401


def test_a_pages_key_is_good_at_its_own_port_and_for_minutes_after_a_run(
    daemon: ControlledDaemon, tmp_path: Path
) -> None:
    """An open page goes on asking at its port, where another user's program may then listen, and read the key."""
    with Server(daemon, 0, tmp_path) as first:
        page = enter(first)
        long_ago = time.time() - 2 * PAGES_KEPT_S
        os.utime(tmp_path / PAGES_FILE, (long_ago, long_ago))
    assert first.port is not None
    with Server(daemon, first.port, tmp_path) as again:
        assert ask(again, "GET", "/api/v1/status", **page).status == 200, "from the end of the run it counts"
    with socket.create_server(("127.0.0.1", first.port)), Server(daemon, first.port, tmp_path) as moved:
        assert moved.port != first.port
        assert ask(moved, "GET", "/api/v1/status", **page).status == 401
    with Server(daemon, first.port, tmp_path) as back:
        assert ask(back, "GET", "/api/v1/status", **page).status == 401, "it may have been read meanwhile"
        page = enter(back)
    os.utime(tmp_path / PAGES_FILE, (long_ago, long_ago))
    with Server(daemon, first.port, tmp_path) as late:
        assert ask(late, "GET", "/api/v1/status", **page).status == 401


def test_headers_keep_the_page_to_itself(server: Server, token: str) -> None:
    answer = ask(server, "GET", "/", **bearer(token))
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers


# -------------------------------------------------------------------------------------------------------- what it does


def test_status_profiles_and_look_are_told(server: Server, daemon: ControlledDaemon, token: str) -> None:
    assert Status.from_json(ask(server, "GET", "/api/v1/status", **bearer(token)).data) == daemon.now
    assert ask(server, "GET", "/api/v1/profiles", **bearer(token)).data == {"profiles": daemon.profiles()}
    assert ask(server, "GET", "/api/v1/look", **bearer(token)).data == {"look": daemon.look(), "own": daemon.own()}


def test_commands_reach_the_daemon_and_the_status_comes_back(server: Server, daemon: ControlledDaemon) -> None:
    headers = {**enter(server), "Origin": f"http://127.0.0.1:{server.port}"}
    answer = ask(server, "POST", "/api/v1/command", {"command": "prompt", "prompt": "neon"}, **headers)
    assert (answer.status, answer.data["prompt"]) == (200, "neon")
    assert ask(server, "POST", "/api/v1/look", {"strength": 0.4}, **headers).status == 200
    assert daemon.commands == [SetPrompt("neon"), ChangeLook({"strength": 0.4})]


def test_nonsense_is_refused_in_a_line(server: Server, daemon: ControlledDaemon, token: str) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b"3", b'{"command": "explode"}', b"[" * 30000):
        answer = ask(server, "POST", "/api/v1/command", body, **bearer(token))
        assert answer.status == 400
        assert "\n" not in answer.data["error"]
    assert not daemon.commands


@pytest.mark.parametrize("error", [ProfileError("no profile 'x'; there are ink"), VcamError("is ending")])
def test_what_the_daemon_refuses_comes_back_in_its_words(
    server: Server, daemon: ControlledDaemon, tmp_path: Path, error: Exception
) -> None:
    daemon.error = error
    with pytest.raises(VcamError, match=str(error)):
        client.send(UseProfile("x"), tmp_path)


def test_a_bug_is_a_500_with_its_traceback_in_the_log_and_the_next_request_is_answered(
    server: Server, daemon: ControlledDaemon, token: str, tmp_path: Path
) -> None:
    daemon.error = ValueError("bug")
    with kept(tmp_path / "log") as log:
        answer = ask(server, "POST", "/api/v1/command", COMMAND, **bearer(token))
    assert (answer.status, answer.data["error"]) == (500, "ValueError: bug (unexpected; vcam.log tells where)")
    assert log is not None
    assert "POST /api/v1/command failed" in log.read_text()
    assert "Traceback" in log.read_text()
    assert log.read_text().count("ValueError: bug") == 1
    daemon.error = None
    assert ask(server, "POST", "/api/v1/command", COMMAND, **bearer(token)).status == 200


def test_a_bug_ends_the_events_of_one_listener_with_its_traceback_in_the_log(
    server: Server, daemon: ControlledDaemon, token: str, tmp_path: Path
) -> None:
    address = f"ws://127.0.0.1:{server.port}/api/v1/events"
    with kept(tmp_path / "log") as log, connect(address, additional_headers=bearer(token)) as events:
        assert json.loads(events.recv(PATIENCE_S))["state"] == "running"
        daemon.status_error = RuntimeError("bug")
        with pytest.raises(ConnectionClosed) as closed:
            events.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert log is not None
    assert "RuntimeError: bug" in log.read_text()
    assert "Traceback" in log.read_text()
    daemon.status_error = None
    with connect(address, additional_headers=bearer(token)) as events:
        assert json.loads(events.recv(PATIENCE_S))["state"] == "running"


def test_the_picture_is_the_published_one_with_its_colours(
    server: Server, daemon: ControlledDaemon, token: str
) -> None:
    answer = ask(server, "GET", "/api/v1/picture.jpg", **bearer(token))
    seen = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    assert np.abs(cv2.cvtColor(seen, cv2.COLOR_BGR2RGB).astype(int) - daemon.preview).max() <= 4


def test_the_live_picture_follows_and_each_part_is_complete_at_once(
    server: Server, daemon: ControlledDaemon, token: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("GET", "/api/v1/picture.mjpeg", headers=bearer(token))
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "multipart/x-mixed-replace; boundary=picture"
    for grey in (50, 200):
        daemon.preview = np.full((48, 64, 3), grey, np.uint8)
        while True:
            seen = cv2.imdecode(np.frombuffer(next_part(answer), np.uint8), cv2.IMREAD_COLOR)
            assert seen is not None
            if abs(int(seen.mean()) - grey) <= 2:
                break
    connection.close()


def next_part(answer: http.client.HTTPResponse) -> bytes:
    length = 0
    while line := answer.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    data = answer.read(length)
    assert answer.readline() == b"\r\n"
    assert answer.readline() == b"--picture\r\n", "browsers show a part when they see the next boundary"
    return data


def test_only_so_many_live_pictures_at_once(server: Server, token: str) -> None:
    open_ones = []
    for _ in range(live.STREAMS):  # one after the other
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("GET", "/api/v1/picture.mjpeg", headers=bearer(token))
        answer = connection.getresponse()
        answer.readline()
        open_ones.append(connection)
    assert ask(server, "GET", "/api/v1/picture.mjpeg", **bearer(token)).status == 503
    for connection in open_ones:
        connection.close()


def test_a_burst_does_not_pass_the_limit_of_live_pictures_and_its_places_are_free_again(
    server: Server, token: str
) -> None:
    assert burst(server, token) == live.STREAMS
    until(lambda: burst(server, token) == live.STREAMS)  # the places of viewers who left are free once that is seen


def burst(server: Server, token: str) -> int:
    """How many of twenty viewers who come at once get the live picture; all leave again."""
    head = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    with ExitStack() as stack:
        raws = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
            for _ in range(20)
        ]
        for raw in raws:
            raw.sendall(f"GET /api/v1/picture.mjpeg HTTP/1.1\r\n{head}".encode())
        statuses = [raw.recv(12).split()[1] for raw in raws]
    shown = statuses.count(b"200")
    assert shown <= live.STREAMS
    assert shown + statuses.count(b"503") == 20
    return shown


def test_events_tell_each_change(server: Server, daemon: ControlledDaemon, token: str) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/api/v1/events", additional_headers=bearer(token)) as events:
        assert json.loads(events.recv(PATIENCE_S))["state"] == "running"
        daemon.now = replace(daemon.now, state="panic")
        assert json.loads(events.recv(PATIENCE_S))["state"] == "panic"
        events.send("what a listener says is ignored")


def test_events_are_only_for_those_who_may(server: Server, token: str) -> None:
    page = enter(server)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {**bearer(token), "Origin": "http://evil.example"},
        {**bearer(token), "Sec-Fetch-Site": "cross-site"},
        page,  # a browser without an Origin
        {**page, "Origin": "http://localhost:1"},
    ):
        with (
            pytest.raises((InvalidStatus, ConnectionClosed)),
            connect(f"ws://127.0.0.1:{server.port}/api/v1/events", additional_headers=headers) as events,
        ):
            events.recv(5)


def test_a_browser_may_listen(server: Server) -> None:
    headers = {**enter(server), "Origin": f"http://127.0.0.1:{server.port}"}
    with connect(f"ws://127.0.0.1:{server.port}/api/v1/events", additional_headers=headers) as events:
        assert json.loads(events.recv(PATIENCE_S))["state"] == "running"


def test_a_port_that_is_taken_gives_the_next_one(daemon: ControlledDaemon, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Server(daemon, port, tmp_path) as server:
            assert server.port != port
            assert client.status(tmp_path).state == "running"


def test_only_this_machine_is_listened_to(server: Server) -> None:
    assert [one._socket.getsockname()[0] for one in server._listeners[1:]] == ["127.0.0.1"]


def test_it_ends_while_pictures_and_events_are_being_watched(daemon: ControlledDaemon, tmp_path: Path) -> None:
    with ExitStack() as stack, Server(daemon, 0, tmp_path) as server:
        token = json.loads((tmp_path / client.SESSION_FILE).read_text())["token"]
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("GET", "/api/v1/picture.mjpeg", headers=bearer(token))
        connection.getresponse().readline()
        stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/api/v1/events", additional_headers=bearer(token)))
    assert not any(one._thread.is_alive() for one in server._listeners)
    connection.close()


# ---------------------------------------------------------------------------------------------------------- the client


def test_the_client_says_when_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(VcamError, match="no StreamV2V Camera is running; start one with: vcam run"):
        client.status(tmp_path)


def test_the_client_says_when_the_daemon_is_gone_without_a_word(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it; not listening
        port = free.getsockname()[1]
        for door in (str(tmp_path / "control.sock"), port):
            client.write_session(tmp_path, door, port, "token")
            with pytest.raises(VcamError, match="no StreamV2V Camera is running"):
                client.status(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"port": 1, "token": "x"}', '{"door": [], "token": "x"}', "[" * 100_000]
)
def test_the_client_says_when_the_session_file_is_nonsense(tmp_path: Path, text: str) -> None:
    (tmp_path / client.SESSION_FILE).write_text(text)
    with pytest.raises(VcamError, match="cannot be read"):
        client.status(tmp_path)


def test_the_client_knows_all_that_the_daemon_offers(server: Server, daemon: ControlledDaemon, tmp_path: Path) -> None:
    assert client.send(Panic(), tmp_path) == daemon.now
    assert client.profiles(tmp_path) == daemon.profiles()
    link = client.panel_link(tmp_path)
    assert ask(server, "GET", link.removeprefix(f"http://127.0.0.1:{server.port}")).status == 200
    assert "running" in client.status_text(client.status(tmp_path))


def test_the_state_folder_is_one_for_all_sessions_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path))
    assert client.state_folder() == tmp_path
    monkeypatch.delenv("VCAM_STATE_FOLDER")
    at_the_desk = client.state_folder()
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):  # cron, su and ssh have none or other ones
        monkeypatch.setenv(name, "/run/user/7")
        assert client.state_folder() == at_the_desk
        monkeypatch.delenv(name)
        assert client.state_folder() == at_the_desk
    assert at_the_desk.is_relative_to(Path.home())


# ------------------------------------------------------------------------------------------- profiles, tries, the rest

INK = {"name": "Ink", "look": {"prompt": "ink drawing", "strength": 0.5, "bank": {"interval": None}}}


def test_a_profile_is_written_read_and_removed(server: Server, daemon: ControlledDaemon, token: str) -> None:
    address = "/api/v1/profiles/ink-2"
    assert ask(server, "PUT", address, INK, **bearer(token)).data == {"id": "ink-2", "yours": True, "profile": INK}
    assert ask(server, "GET", address, **bearer(token)).status == 200
    assert ask(server, "DELETE", address, {}, **bearer(token)).status == 200
    assert ask(server, "GET", address, **bearer(token)).status == 400
    assert daemon.files == {}


@pytest.mark.parametrize("id", ["..", "%2e%2e", "..%2f..%2fx", "a%2fb", "con", "A", "x" * 64, "%00", "a.toml", "~root"])
def test_no_file_outside_the_folder_of_profiles(server: Server, daemon: ControlledDaemon, token: str, id: str) -> None:
    for method in ("PUT", "DELETE"):
        assert ask(server, method, f"/api/v1/profiles/{id}", INK, **bearer(token)).status in (400, 404, 405)
    assert daemon.files == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is 3; it must be text"),
        ({"look": {"prompt": "x", "strength": 7}}, "look.strength is 7; it must be between 0.02 and 1"),
        ({"look": {"prompt": ""}}, "look.prompt is empty"),
        ({"look": 3}, "it must be a table"),
        ({"colour": "red"}, "unknown key colour"),
        ({"engine": {"loras": [{"path": "../x.safetensors"}]}}, "engine.loras[0].path is '../x.safetensors'; it must"),
        ({"engine": {"model": "./mine"}}, "engine.model is './mine'; it must be a full path"),
        (
            {"look": {"prompt": "ink", "elsewhere": "../sea.jpg"}},
            "look.elsewhere is '../sea.jpg'; it must be a full path",
        ),
        ({"engine": {"loras": 5}}, "engine.loras is 5; it must be a list"),
        ({"name": "\ud800"}, "it is not UTF-8 text (line 1)"),
        ({"\udfff": "x"}, "it is not UTF-8 text"),
        ({"look": {"prompt": "x", "seed": 2**70}}, "look.seed"),
    ],
)
def test_a_bad_profile_is_refused_in_the_words_for_a_file(
    server: Server, daemon: ControlledDaemon, token: str, change: dict[str, Any], words: str
) -> None:
    answer = ask(server, "PUT", "/api/v1/profiles/ink", INK | change, **bearer(token))
    assert answer.status == 400
    assert words in answer.data["error"]
    assert daemon.files == {}


def test_a_try_is_a_picture_that_is_not_published(server: Server, daemon: ControlledDaemon, token: str) -> None:
    answer = ask(server, "POST", "/api/v1/try", {"prompt": "ice"}, **bearer(token))
    assert answer.headers["content-type"] == "image/jpeg"
    assert daemon.tries == [Look(prompt="ice")]
    assert not daemon.commands
    assert ask(server, "POST", "/api/v1/try", {"promt": "ice"}, **bearer(token)).status == 400
    daemon.files = {"ink": INK, "dear": INK}
    assert ask(server, "GET", "/api/v1/profiles/ink/thumbnail.jpg", **bearer(token)).status == 200
    assert ask(server, "GET", "/api/v1/profiles/dear/thumbnail.jpg", **bearer(token)).status == 404


def test_the_camera_picture_is_there_only_while_it_looks(server: Server, daemon: ControlledDaemon, token: str) -> None:
    assert ask(server, "GET", "/api/v1/input.jpg", **bearer(token)).status == 409
    daemon.seen = daemon.preview
    assert ask(server, "GET", "/api/v1/input.jpg", **bearer(token)).headers["content-type"] == "image/jpeg"


def test_the_key_for_obs_opens_the_live_picture_and_nothing_else(
    server: Server, daemon: ControlledDaemon, tmp_path: Path
) -> None:
    path = client.picture_link(tmp_path).removeprefix(f"http://127.0.0.1:{server.port}")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("GET", path)
    assert connection.getresponse().status == 200
    connection.close()
    key = path.partition("?")[2]
    for method, other in PATHS:
        if other != "/api/v1/picture.mjpeg":
            assert ask(server, method, f"{other}?{key}", None if method == "GET" else COMMAND).status == 401
    assert ask(server, "GET", f"{path}x").status == 401
    assert ask(server, "GET", path, Origin="http://evil.example").status == 403
    assert ask(server, "GET", path, Sec_Fetch_Site="cross-site").status == 403
    assert ask(server, "GET", path, Host="evil.example").status == 403
    assert not daemon.commands


def test_rates_have_a_limit_and_fill_again() -> None:
    now = [0.0]
    rate = RateLimit(10, 20, lambda: now[0])
    assert [rate.allows() for _ in range(21)] == [True] * 20 + [False]
    now[0] = 0.55
    assert [rate.allows() for _ in range(6)] == [True] * 5 + [False]


def test_a_flood_of_changes_is_cut_but_not_what_only_looks(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "CHANGES_PER_S", 0.01)
    with Server(daemon, 0, tmp_path) as server:
        headers = bearer(json.loads((tmp_path / client.SESSION_FILE).read_text())["token"])
        assert ask(server, "POST", "/api/v1/command", COMMAND, **headers).status == 429
        assert ask(server, "GET", "/api/v1/status", **headers).status == 200
    assert not daemon.commands


def test_the_description_names_every_address(server: Server, token: str) -> None:
    paths = ask(server, "GET", "/api/v1/openapi.json", **bearer(token)).data["paths"]
    described = {(path, method) for path, item in paths.items() for method in item if method != "parameters"}
    for path, method in described:
        address = path.replace("{id}", "none")
        assert ask(server, method.upper(), address, None if method == "get" else {}).status == 401
    routes = control.Api(ControlledDaemon(), Keys(), 1, threading.Event(), str).routes()
    there = {
        (route.path, method.lower())
        for route in routes
        if isinstance(route, Route) and route.path.startswith("/api/v1/") and not route.path.endswith("openapi.json")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == there


# ---------------------------------------------------------------------------------------------- strangers, and the door


def test_idle_strangers_take_nothing_from_anybody(server: Server, daemon: ControlledDaemon, tmp_path: Path) -> None:
    """Sixty-three connections that said nothing once locked `vcam panic` and `vcam stop` out."""
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
        assert client.send(Panic(), tmp_path) == daemon.now
        assert ask(server, "GET", "/").status == 200
        held = len(psutil.Process().net_connections())
        assert held < 2 * (300 + 60)  # both ends are in this process: the server let go of most
    assert daemon.commands == [Panic()]


def test_a_stranger_that_sends_nothing_is_let_go(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.control.connections.FIRST_REQUEST_S", 0.2)
    with (
        Server(daemon, 0, tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as idle,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert gone(idle)
        assert gone(slow)
        answered = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        with contextlib.closing(answered), contextlib.suppress(ConnectionError):  # a busy machine asks too late
            answered.request("GET", "/icon.svg")
            answered.getresponse().read()
            assert gone(answered.sock)


def test_no_part_of_the_page_is_cut_off_in_the_midst_of_its_answer(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the style sheets took more than five seconds: the page stood there without them."""
    there: list[connections.Strangers] = []

    class Watched(connections.Strangers):
        def __init__(self) -> None:
            super().__init__()
            there.append(self)

    class Late(FileResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            there[0]._late(scope["client"])  # its time is over
            await super().__call__(scope, receive, send)

    monkeypatch.setattr("vcam.control.server.Strangers", Watched)
    monkeypatch.setattr("vcam.control.api.FileResponse", Late)
    with Server(daemon, 0, tmp_path) as server:
        found = ask(server, "GET", "/page.css")
    assert (found.status, found.body) == (200, (control.STATIC / "page.css").read_bytes())


def gone(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:
        return True


def test_whoever_showed_a_key_may_stay(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.control.connections.FIRST_REQUEST_S", 3.0)
    with Server(daemon, 0, tmp_path) as server:
        headers = bearer(json.loads((tmp_path / client.SESSION_FILE).read_text())["token"])
        with connect(f"ws://127.0.0.1:{server.port}/api/v1/events", additional_headers=headers) as events:
            assert json.loads(events.recv(PATIENCE_S))["state"] == "running"
            time.sleep(4.0)  # it was cut off by now, had it shown none
            daemon.now = replace(daemon.now, state="panic")
            assert json.loads(events.recv(PATIENCE_S))["state"] == "panic"


@pytest.mark.parametrize("path", ["/login?ticket=wrong", "/api/v1/status", "/api/v1/picture.mjpeg?key=wrong"])
def test_guesses_of_every_kind_have_one_limit_and_lock_nobody_out(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    clock, most = Clock(), 2 * guard.REFUSALS_PER_S  # which stands still: a busy machine guesses slowly
    monkeypatch.setattr(guard, "RateLimit", partial(guard.RateLimit, clock=clock))
    with Server(daemon, 0, tmp_path) as server:
        token = json.loads((tmp_path / client.SESSION_FILE).read_text())["token"]
        assert [ask(server, "GET", path).status for _ in range(most + 3)] == [401] * most + [429] * 3
        assert ask(server, "GET", "/api/v1/status", **bearer(token)).status == 200
        assert ask(server, "GET", server.link().removeprefix(f"http://127.0.0.1:{server.port}")).status == 200
        clock.now += 1.5 / guard.REFUSALS_PER_S
        assert [ask(server, "GET", path).status for _ in range(2)] == [401, 429]


def test_a_guess_costs_its_connection(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(f"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        answer = b""
        while part := raw.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 401")


def test_without_a_page_the_verbs_work_and_no_port_is_open(daemon: ControlledDaemon, tmp_path: Path) -> None:
    with Server(daemon, None, tmp_path) as server:
        assert server.port is None
        assert len(server._listeners) == 1
        assert client.status(tmp_path) == daemon.now
        client.send(Panic(), tmp_path)
        for link in (client.panel_link, client.picture_link):
            with pytest.raises(VcamError, match="without its page"):
                link(tmp_path)
    assert daemon.commands == [Panic()]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has a port instead")
def test_a_path_too_long_for_a_socket_has_a_door_all_the_same(daemon: ControlledDaemon, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    with Server(daemon, None, folder):
        assert client.status(folder) == daemon.now


def test_a_door_that_is_a_port_wants_its_name_and_the_token(
    daemon: ControlledDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    from vcam.control import door

    monkeypatch.setattr("vcam.control.server.open_door", lambda folder: door.open_port())
    with Server(daemon, None, tmp_path) as server:
        assert isinstance(server.door, int)
        assert client.status(tmp_path) == daemon.now
        connection = http.client.HTTPConnection("127.0.0.1", server.door, timeout=PATIENCE_S)
        for headers in ({}, {"Host": "evil.example"}, bearer("wrong")):
            connection.request("GET", "/api/v1/status", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (401, 403)
        connection.close()


def test_the_picture_key_outlives_a_run_and_ends_with_its_file(daemon: ControlledDaemon, tmp_path: Path) -> None:
    links = []
    for _ in range(2):
        with Server(daemon, 0, tmp_path):
            links.append(client.picture_link(tmp_path).partition("?")[2])
    assert links[0] == links[1]
    (tmp_path / "picture.key").unlink()
    with Server(daemon, 0, tmp_path):
        assert client.picture_link(tmp_path).partition("?")[2] != links[0]


def test_whose_key_it_is() -> None:
    keys = Keys()
    page = keys.enter(keys.ticket())
    assert page is not None
    assert [keys.who(one) for one in (keys.token, page, keys.bridge_token, "", "x")] == [
        Who.USER, Who.PAGE, Who.BRIDGE, Who.STRANGER, Who.STRANGER
    ]  # fmt: skip
    assert not keys.opens_picture("")


def test_what_the_page_asks_for(server: Server, daemon: ControlledDaemon, token: str) -> None:
    assert ask(server, "GET", "/api/v1/words", **bearer(token)).data == {"styles": ["ink"], "words": ["ink", "person"]}
    told = ask(server, "GET", "/api/v1/first-steps", **bearer(token)).data
    assert told["steps"] == daemon.first_steps()
    assert told["program"] == "vcam"
    changed = ask(server, "POST", "/api/v1/page", {"favourites": ["ink"]}, **bearer(token)).data
    assert changed == {"favourites": ["ink"], "set_up": False, "told": False}
    assert ask(server, "GET", "/api/v1/page", **bearer(token)).data == changed


def test_a_profile_comes_and_goes_as_a_file(server: Server, daemon: ControlledDaemon, token: str) -> None:
    text = 'name = "Gold"\n[look]\nprompt = "gold"\n'
    path = "/api/v1/profiles/gold/file"
    assert ask(server, "PUT", path, {"toml": text}, **bearer(token)).data["profile"]["name"] == "Gold"
    answer = ask(server, "GET", path, **bearer(token))
    assert answer.headers["content-type"].startswith("application/toml")
    assert 'name = "Gold"' in answer.body.decode()
    assert ask(server, "PUT", path, {"toml": 3}, **bearer(token)).status == 400
    assert ask(server, "PUT", "/api/v1/profiles/..%2fx/file", {"toml": text}, **bearer(token)).status in (400, 404)
    assert ask(server, "GET", "/api/v1/profiles/none/file", **bearer(token)).status == 400


def test_a_file_that_names_others_must_name_them_by_full_paths(tmp_path: Path) -> None:
    from vcam.control import profile_files

    text = 'name = "Gold"\n[look]\nprompt = "gold"\n[engine]\n'
    for wrong in ('loras = [{ path = "x.safetensors" }]', 'model = "./mine"'):
        with pytest.raises(ProfileError, match="must be a full path"):
            profile_files.imported("gold", text + wrong, tmp_path)
    with pytest.raises(ProfileError, match=r"look\.elsewhere is 'sea\.jpg'; it must be a full path"):
        profile_files.imported("gold", text.replace("[engine]", 'elsewhere = "sea.jpg"'), tmp_path)
    with pytest.raises(ProfileError, match=r"gold\.toml: it is not UTF-8 text"):
        profile_files.imported("gold", "name = '\ud800'", tmp_path)
    assert not list(tmp_path.iterdir())
    assert profile_files.imported("gold", text + "steps = 2", tmp_path) == tmp_path / "gold.toml"
    with pytest.raises(ProfileError, match=r"gold\.toml: name is 3"):
        profile_files.imported("gold", "name = 3", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="a port is taken there")
def test_a_door_of_too_long_a_name_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vcam.control import door

    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(deep))
    with pytest.raises(VcamError, match="set VCAM_STATE_FOLDER to a folder whose name is short"):
        door.open_door(deep / "state")
