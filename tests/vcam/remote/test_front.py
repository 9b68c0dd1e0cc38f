"""The server's front: who is slow to say what he wants, or wants too much, is ended and takes nobody's place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from tests.support.engine_server import wait_long
from tests.support.patience import PATIENCE_S, until
from vcam.errors import MessageTooLarge, RemoteError
from vcam.remote import behind as behind_module
from vcam.remote import front as front_module
from vcam.remote import pipes
from vcam.remote.allowance import HANDSHAKES, HANDSHAKES_AT_ONCE, LONGEST_TURN_S, HandshakePace
from vcam.remote.certificate import Certificate, made_certificate
from vcam.remote.front import Front, _listening, have_many_files, one_place
from vcam.remote.lengths import MessageLengths
from vcam.remote.protocol import LARGEST_PICTURE, LARGEST_TEXT, PATH

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode()
PLAIN = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()  # wants no WebSocket
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"  # and goes on listening
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwell\n"


class Behind:
    """A program behind the front, from when it is built until `close`: keeps what it hears, answers each request.

    answer: to each, whatever it wants, on a connection that stays; b"" for a WebSocket's.
    """

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        self.heard: list[bytearray] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.connections.append(connection)
                threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        heard = bytearray()
        self.heard.append(heard)
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                before = b"\r\n\r\n" in heard
                heard += data
                if not before and b"\r\n\r\n" in heard:
                    connection.sendall(self.answer or self._agreed(bytes(heard)))

    def _agreed(self, heard: bytes) -> bytes:
        side = ServerProtocol()
        side.receive_data(heard[: heard.index(b"\r\n\r\n") + 4])
        (request,) = side.events_received()
        assert isinstance(request, Request)
        side.send_response(side.accept(request))
        return b"".join(side.data_to_send())

    def requests(self) -> list[str]:
        """The first line of whatever came."""
        return [bytes(one).split(b"\r\n", 1)[0].decode() for one in self.heard]

    def said(self) -> bytes:
        """What the first connection heard after its request."""
        return bytes(self.heard[0]).partition(b"\r\n\r\n")[2] if self.heard else b""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self.listening.shutdown(socket.SHUT_RDWR)  # or the thread goes on accepting
        self.listening.close()
        for one in self.connections:
            one.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return made_certificate(tmp_path_factory.mktemp("serve"))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)


@pytest.fixture
def behind() -> Iterator[Behind]:
    made = Behind()
    yield made
    made.close()


@pytest.fixture
def front(certificate: Certificate, behind: Behind) -> Iterator[Front]:
    made = Front("127.0.0.1", 0, certificate, behind.port)
    yield made
    made.close()


def plain(front: Front) -> socket.socket:
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", front.port), PATIENCE_S)


def secured(front: Front) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain(front))


def agreed(connection: ssl.SSLSocket) -> None:
    """Have it be a WebSocket."""
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert accept_key(KEY).encode() in answer


def ended(connection: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    heard = bytearray()
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while data := connection.recv(65536):
            heard += data
    return bytes(heard)


def serves(front: Front) -> None:
    """It serves whoever says what he wants."""
    with secured(front) as one:
        agreed(one)


def frame(payload: bytes, first: int = 0x82, masked: bool = True) -> bytes:
    """A WebSocket's frame."""
    length, mask = len(payload), 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, mask | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask | 127, length)
    return head + (b"mask" if masked else b"") + payload


def test_who_never_secures_his_connection_is_ended_and_takes_no_place(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain(front) as silent, plain(front) as trickles:
        until(lambda: front.unfinished == 2, "they are not there")
        serves(front)
    monkeypatch.setattr(front_module, "HANDSHAKE_S", 0.05)
    with plain(front) as silent, plain(front) as trickles:
        trickles.sendall(b"\x16\x03\x01")  # how a greeting begins
        assert ended(silent) == b""
        assert ended(trickles) == b""
    until(lambda: not front.unfinished, "they are still there")
    assert not behind.heard


def test_who_speaks_without_tls_is_ended_unheard(front: Front, behind: Behind) -> None:
    with plain(front) as one:
        one.sendall(REQUEST)
        assert not ended(one).startswith(b"HTTP")
    until(lambda: not front.unfinished, "it is still there")
    assert not behind.heard
    serves(front)


def test_who_never_ends_his_request_is_ended_and_takes_no_place(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "HEAD_S", 0.1)
    with secured(front) as one:
        with contextlib.suppress(OSError):
            for byte in REQUEST[:-4]:  # it trickles: that it goes on does not help
                one.sendall(bytes([byte]))
        assert ended(one) == b""
    until(lambda: not front.unfinished, "it is still there")
    assert not behind.heard
    wait_long(monkeypatch)
    serves(front)


def test_the_oldest_of_too_many_that_want_nothing_yet_gives_way(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "MOST_OF_ONE", 3)
    with contextlib.ExitStack() as stack:
        silent = []
        for number in range(3):
            silent.append(stack.enter_context(plain(front)))
            until(lambda: front.unfinished == number + 1, "it is not there")  # noqa: B023
        serves(front)
        assert ended(silent[0]) == b""
        monkeypatch.setattr(front_module, "MOST_OF_ONE", 99)
        monkeypatch.setattr(front_module, "MOST_UNFINISHED", 2)
        serves(front)
        assert ended(silent[1]) == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /-/routes HTTP/1.1\r\n\r\n", b"404"),  # Ray's own
        (PLAIN, b"426"),
        (REQUEST.replace(b"Version: 13", b"Version: 12"), b"400"),
        (REQUEST.replace(KEY.encode(), b"x"), b"400"),
        (REQUEST.replace(b"Host: x", b"Host: x\n\nGET /-/routes HTTP/1.1"), b"400"),
        (REQUEST.replace(b"Host: x", b"Host: x\r\nContent-Length: 9"), b"400"),
        (REQUEST.replace(b"GET", b"HEAD"), b"404"),
        (b"POST " + PATH.encode() + b" HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET " + PATH.encode() + b" HTTP/1.1\r\nx: " + b"x" * 9000 + b"\r\n\r\n", b"431"),
        (b"x" * 20_000, b"431"),
    ],
)
def test_a_request_for_anything_else_is_answered_here(
    front: Front, behind: Behind, request_: bytes, status: bytes
) -> None:
    with secured(front) as one:
        one.sendall(request_)
        assert ended(one).startswith(b"HTTP/1.1 " + status)
    assert not behind.heard


@pytest.mark.parametrize(("request_", "status"), [(PLAIN, b"426"), (HEALTH, b"200")])
def test_one_request_is_all_that_a_connection_may_say(
    front: Front, behind: Behind, request_: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's proxy goes on listening after an answer: whatever came there would be any request to any application."""
    behind.answer = WELL
    monkeypatch.setattr(pipes, "CLOSE_S", 0.05)
    monkeypatch.setattr(behind_module, "ANSWER_S", 0.05)
    with secured(front) as one:
        one.sendall(request_ + b"GET /-/routes HTTP/1.1\r\nHost: x\r\n\r\n")
        told = ended(one)
    assert told.startswith(b"HTTP/1.1 " + status)
    assert told.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in told
    assert behind.requests() == ["GET /health HTTP/1.1"] * (status == b"200")
    assert behind.said() == b""
    until(lambda: not front.unfinished, "it is still there")


def test_nothing_is_handed_over_where_behind_makes_no_websocket(front: Front, behind: Behind) -> None:
    behind.answer = MISSING
    with secured(front) as one:
        one.sendall(REQUEST + frame(b"hello", 0x81) + b"GET /-/routes HTTP/1.1\r\nHost: x\r\n\r\n")
        told = ended(one)
    assert b"it is starting, or busy" in told
    assert told.endswith(b"\x88\x02\x03\xf5")  # closed: try again later
    assert b"404" not in told
    assert behind.requests() == [f"GET {PATH} HTTP/1.1"]
    assert behind.said() == b""


def test_behind_hears_of_a_camera_only_once_its_first_message_is_whole(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray counts every WebSocket as a camera, and a replica has so many places for those that say nothing."""
    first = frame(b"hel", 0x01) + frame(b"", 0x89) + frame(b"lo", 0x80)
    monkeypatch.setattr(front_module, "MOST_OF_ONE", 2)
    with secured(front) as old, secured(front) as one:
        for each in (old, one):
            agreed(each)
        one.sendall(first[:-1])
        serves(front)  # and so the oldest gives way
        assert ended(old) == b""
        assert not behind.heard
        one.sendall(first[-1:])
        until(lambda: behind.said() == first, "it has not come")
        until(lambda: not front.unfinished, "it may still have to give way")
        for _ in range(3):
            serves(front)
        one.sendall(frame(b"more"))
        until(lambda: behind.said() == first + frame(b"more"), "it was ended")


def test_who_never_says_a_first_message_is_ended(front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "HELLO_S", 0.05)
    with secured(front) as silent:
        agreed(silent)
        assert ended(silent) == b""
    wait_long(monkeypatch)
    with secured(front) as pings:
        agreed(pings)
        with contextlib.suppress(OSError):
            while True:
                pings.sendall(frame(b"x" * 100, 0x89) * 100)
    with secured(front) as closes:
        agreed(closes)
        closes.sendall(frame(b"", 0x88))
        assert ended(closes) == b""
    until(lambda: not front.unfinished, "they are still there")
    assert not behind.heard


def test_who_stays_though_behind_has_closed_is_ended(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "CLOSE_S", 0.05)
    with secured(front) as one:
        agreed(one)
        one.sendall(frame(b"hello"))
        until(lambda: behind.said() == frame(b"hello"), "it has not come")
        behind.connections[0].sendall(frame(b"bye", 0x81, masked=False) + frame(b"", 0x88, masked=False))
        assert ended(one) == frame(b"bye", 0x81, masked=False) + frame(b"", 0x88, masked=False)


def test_health_is_asked_for_with_nothing_of_the_request(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind_module, "KNOWN_S", 0.0)
    for answer, status, text in ((WELL, b"200 OK", b"well\n"), (MISSING, b"503 Service Unavailable", b"not well\n")):
        behind.answer = answer.ljust(behind_module.LARGEST_ANSWER + len(answer))  # more than is listened to
        with secured(front) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 9\r\n\r\nGET / HTT")
            told = ended(one)
        assert told.startswith(b"HTTP/1.1 " + status)
        assert told.endswith(b"\r\n\r\n" + text)
    assert bytes(behind.heard[0]) == b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def test_health_is_asked_for_once_however_many_want_to_know(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind_module, "KNOWN_S", PATIENCE_S)
    behind.answer = WELL.ljust(behind_module.LARGEST_ANSWER + len(WELL))  # or more would be waited for
    for _ in range(3):
        with secured(front) as one:
            one.sendall(HEALTH)
            assert ended(one).startswith(b"HTTP/1.1 200")
    assert len(behind.connections) == 1


def test_who_is_ended_while_he_waits_for_health_takes_it_from_nobody(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "MOST_OF_ONE", 1)
    with socket.create_server(("127.0.0.1", 0)) as behind, contextlib.ExitStack() as stack:
        behind.settimeout(PATIENCE_S)
        front = Front("127.0.0.1", 0, certificate, behind.getsockname()[1])
        stack.callback(front.close)
        first = stack.enter_context(secured(front))
        first.sendall(HEALTH)
        asked = stack.enter_context(behind.accept()[0])
        second = stack.enter_context(secured(front))
        assert ended(first) == b""  # it was the oldest of too many
        second.sendall(HEALTH)
        asked.sendall(WELL)
        asked.close()
        assert ended(second).startswith(b"HTTP/1.1 200")


def test_a_server_that_is_not_there_yet_is_told(front: Front, behind: Behind) -> None:
    behind.close()
    with secured(front) as one:
        agreed(one)
        one.sendall(frame(b"hello"))
        assert b"it is starting, or busy" in ended(one)
    front.behind = None
    for request in (REQUEST, HEALTH):
        with secured(front) as one:
            one.sendall(request)
            assert ended(one).startswith(b"HTTP/1.1 503")


def test_bytes_go_both_ways_as_they_are_and_an_end_is_an_end(front: Front, behind: Behind) -> None:
    sent = [frame(os.urandom(size)) for size in (0, 125, 126, 60_000)] + [frame(os.urandom(300_000)), frame(b"", 0x89)]
    with secured(front) as one:
        agreed(one)
        one.sendall(b"".join(sent))
        until(lambda: len(behind.said()) == sum(map(len, sent)), "not all of it came")
        assert behind.said() == b"".join(sent)
        answer = frame(os.urandom(200_000), masked=False)
        behind.connections[0].sendall(answer)
        behind.connections[0].shutdown(socket.SHUT_WR)
        assert ended(one) == answer


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("!BBQ", 0x82, 0xFF, 4 << 30) + b"mask",
        struct.pack("!BBQ", 0x82, 0xFF, LARGEST_TEXT + 1) + b"mask",  # as the first message
        frame(b"hello") + struct.pack("!BBQ", 0x82, 0xFF, LARGEST_PICTURE + 1) + b"mask",
        frame(b"x" * LARGEST_TEXT, 0x01) + frame(b"x", 0x80),  # in two frames
        struct.pack("!BBH", 0x89, 0xFE, 126) + b"mask",  # a ping of that size
    ],
)
def test_a_message_that_is_too_large_ends_the_connection_before_it_comes(
    front: Front, behind: Behind, said: bytes
) -> None:
    with secured(front) as one:
        agreed(one)
        one.sendall(said)
        assert ended(one) == b"\x88\x02\x03\xf1"  # closed: the message is too big
    assert len(behind.said()) <= len(frame(b"x" * LARGEST_TEXT))


def test_who_does_not_read_is_ended_and_what_is_for_him_is_not_kept(
    front: Front, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "STALLED_S", 0.2)
    with secured(front) as one:
        agreed(one)
        one.sendall(frame(b"hello"))
        until(behind.said, "it has not come")
        with pytest.raises(ConnectionError):
            behind.connections[0].sendall(frame(b"x" * 200_000_000, masked=False))
    serves(front)


def test_lengths_are_read_however_the_bytes_are_cut() -> None:
    whole = (
        frame(b"hello", 0x81) + frame(b"x" * 70_000, 0x02) + frame(b"", 0x8A) + frame(b"y" * 300, 0x80, masked=False)
    )
    for step in (1, 2, 3, 7, 1000, len(whole)):
        lengths = MessageLengths(first=5, most=70_300)
        for at in range(0, len(whole), step):
            lengths.take(whole[at : at + step])
    with pytest.raises(MessageTooLarge):
        MessageLengths(first=5, most=70_299).take(whole)
    with pytest.raises(MessageTooLarge):
        MessageLengths(first=4).take(whole)


def test_a_port_that_is_taken_is_told(front: Front, certificate: Certificate, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=rf"port {front.port} \(.*\): another program has it; take --port"):
        Front("127.0.0.1", front.port, certificate, 1)


FEW_FILES = """
import resource, sys
from pathlib import Path
from vcam.remote import front
from vcam.remote.certificate import Certificate
front.HANDSHAKE_S = 600.0
own = front.Front("127.0.0.1", 0, Certificate(Path(sys.argv[1]), Path(sys.argv[2]), ""))
used = len(list(Path("/proc/self/fd").iterdir()))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, used + 16))
print(own.port, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_who_says_nothing_gives_way_where_no_file_is_left(certificate: Certificate) -> None:
    """Too few of them to be too many: the system's limit is lower than ours."""
    command = [sys.executable, "-c", FEW_FILES, str(certificate.certificate), str(certificate.key)]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        here = "127.0.0.1", int(process.stdout.readline())
        for _ in range(40):
            stack.enter_context(socket.create_connection(here, PATIENCE_S))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(here, PATIENCE_S)) as one:
            one.sendall(HEALTH)
            assert ended(one).startswith(b"HTTP/1.1 503")


def test_why_no_connection_can_be_taken_is_told_once_a_minute(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried ten times a second. Where an unfinished connection gives way to a new one, nothing is told."""
    taken, failed, enough = front._loop.sock_accept, list[int](), threading.Event()

    async def accept(listening: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
        if enough.is_set():
            return await taken(listening)
        failed.append(errno.ENFILE if len(failed) % 2 else errno.ECONNABORTED)
        raise OSError(failed[-1], os.strerror(failed[-1]))

    def told() -> list[str]:
        return [one.getMessage().partition(": ")[2] for one in caplog.records]

    reasons = [os.strerror(one) for one in (errno.ECONNABORTED, errno.ENFILE)]
    serves(front)  # the next call waits already
    with caplog.at_level("WARNING", "vcam.serve"):
        monkeypatch.setattr(front._loop, "sock_accept", accept)
        with plain(front):  # taken by the call that was waiting
            until(lambda: len(told()) >= len(reasons), "a reason is missing")
            tried = len(failed)
            until(lambda: len(failed) > tried + 4, "it is tried no more")
        enough.set()
        serves(front)
    assert told() == reasons


def test_a_machines_addresses_are_one_place() -> None:
    assert one_place("9.9.9.9") == one_place("::ffff:9.9.9.9") == "9.9.9.9"
    assert one_place("2001:db8::1") == one_place("2001:db8::ffff:0:1") != one_place("2001:db8:0:1::1")
    assert one_place("fe80::1%eth0") == one_place("fe80::2%eth0")
    assert one_place("") == ""


def test_small_pieces_go_at_once() -> None:
    """Else the end of an answer waits up to 40 ms until the camera's system has said that it has the beginning."""

    async def taken() -> int:
        with _listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, connection)
            option = int(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.abort()
            await asyncio.sleep(0)
            return option

    assert asyncio.run(taken())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_server_takes_as_many_files_as_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = before[0] - 1 if before[0] > 0 else 1024
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        monkeypatch.setattr(front_module, "MOST_FILES", few + 1)
        have_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few + 1, before[1])
        monkeypatch.setattr(front_module, "MOST_FILES", 64)
        have_many_files()  # what it has is not taken away
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few + 1, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_address_that_connects_again_and_again_waits_its_turn_and_costs_no_other_one_anything() -> None:
    pace = HandshakePace()
    assert [pace.wait_s("greedy", 10.0) for _ in range(HANDSHAKES_AT_ONCE)] == [0.0] * HANDSHAKES_AT_ONCE
    waits = [pace.wait_s("greedy", 10.0) for _ in range(1000)]
    taken = [one for one in waits if one is not None]
    assert taken == pytest.approx([(1 + number) / HANDSHAKES for number in range(len(taken))])
    assert LONGEST_TURN_S - 1.1 / HANDSHAKES < taken[-1] <= LONGEST_TURN_S
    assert pace.wait_s("other", 10.0) == 0.0
    later = pace.wait_s("greedy", 11.0)
    assert later == pytest.approx(LONGEST_TURN_S - 1.0 + 1 / HANDSHAKES)  # who was not taken has taken no turn
    assert pace.wait_s("greedy", 100.0) == 0.0


def test_the_places_that_are_remembered_are_not_without_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcam.remote.allowance.MOST_PLACES", 2)
    monkeypatch.setattr("vcam.remote.allowance.HANDSHAKES_AT_ONCE", 1)
    pace = HandshakePace()
    assert [pace.wait_s(place, 10.0) for place in "aba"] == [0.0, 0.0, 1 / HANDSHAKES]
    assert [pace.wait_s(place, 10.0) for place in "cab"] == [0.0, pytest.approx(2 / HANDSHAKES), 0.0]


def test_connections_of_an_address_beyond_its_pace_are_not_secured_and_the_log_says_so(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front._pace, "wait_s", lambda place, now_s: None if place == "127.0.0.1" else 0.01)
    with caplog.at_level("WARNING", "vcam.serve"):
        for _ in range(2):
            with plain(front) as one:
                assert ended(one) == b""
    assert [one.getMessage() for one in caplog.records] == [
        f"an address connects more often than {HANDSHAKES_AT_ONCE} times at once and {HANDSHAKES} times a second after "
        "that: some of its connections are not taken"
    ]
    other = socket.create_connection(("127.0.0.1", front.port), PATIENCE_S, source_address=("127.0.0.2", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(other) as secured_one:
        agreed(secured_one)


def test_where_connections_come_without_end_others_have_their_turns_between_them(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, accept = threading.Event(), front._loop.sock_accept

    async def always_one(listening: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
        return await accept(listening) if turn.is_set() else (socket.socket(), ("127.0.0.1", 0))

    monkeypatch.setattr(front._pace, "wait_s", lambda place, now_s: None)
    monkeypatch.setattr(front._loop, "sock_accept", always_one)
    try:
        with plain(front):  # the one that is waited for
            front._loop.call_soon_threadsafe(lambda: front._loop.call_later(0.1, turn.set))
            assert turn.wait(PATIENCE_S)
    finally:
        turn.set()
