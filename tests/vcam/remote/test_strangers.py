"""Servers and cameras that are not what they should be: each is a sentence, nothing is shown, and nobody else minds."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from core.settings import Look
from tests.support.engine_server import FAKE, TlsServer, fake_offer, serving, wait_long
from tests.support.fake_children import QUICK, frame
from tests.support.patience import PATIENCE_S, until
from tests.support.web_sockets import WebSocket, connected, served
from vcam.errors import RemoteError
from vcam.frames import EngineFacts
from vcam.remote import front as front_module
from vcam.remote import server as server_module
from vcam.remote.certificate import made_certificate
from vcam.remote.engines import ServerEngines
from vcam.remote.jpegs import from_jpeg, to_jpeg
from vcam.remote.lengths import TOO_LARGE
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import (
    NO_RECEIPT,
    PATH,
    Answer,
    Codec,
    GivenPicture,
    Hello,
    Loaded,
    packed,
    packed_answer,
    packed_picture,
    unpacked_answer,
    unpacked_picture,
)
from vcam.remote.wire import reset
from vcam.worker.process import EngineProcess

CROWD = 200
LOOK = Look("ink")
GREY = to_jpeg(np.full((64, 96, 3), 100, np.uint8))
Say = Callable[[WebSocket, GivenPicture], None]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with serving(tmp_path / "server") as running:
        yield running


def engine_of(server: PairedServer) -> EngineProcess:
    return ServerEngines(server, QUICK, lambda: 0.0, lambda: None).show(FAKE, LOOK)


def why_not(server: PairedServer) -> tuple[str, bool]:
    """Why an engine on this server fails, and whether for good; a picture is given as soon as it takes one."""
    engine = engine_of(server)

    def over() -> bool:
        assert engine.step() is None  # nothing of it is shown
        if engine.idle:
            engine.give(frame(0))
        return bool(engine.failure)

    until(over, "it goes on")
    engine.close()
    return engine.failure, engine.final


# ---------------------------------------------------------------------------------------------------------- the server


def test_another_certificate_than_at_pairing_is_told_and_no_token_is_sent(server: TlsServer, tmp_path: Path) -> None:
    paired = replace(server.paired(tmp_path), fingerprint="0" * 64)
    text, final = why_not(paired)
    assert "shows another certificate than at pairing" in text
    assert final
    assert server.server.counts.received_bytes == 0
    assert not server.server.host.cameras


def test_a_certificate_that_no_ca_vouches_for_is_told(server: TlsServer, tmp_path: Path) -> None:
    text, final = why_not(replace(server.paired(tmp_path), fingerprint=""))
    assert "no CA that this machine knows vouches for the certificate" in text
    assert final


def test_a_token_that_the_server_does_not_know_is_told(server: TlsServer, tmp_path: Path) -> None:
    text, final = why_not(replace(server.paired(tmp_path), token="guessed"))
    assert "the server does not know this camera's token; pair anew" in text
    assert final
    assert server.server.counts.refused["token"] == 1


def test_a_port_where_nobody_listens_is_told(tmp_path: Path) -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it; not listening
        port = own.getsockname()[1]
        text, final = why_not(PairedServer("127.0.0.1", port, "t", "0" * 64))
    assert text == f"nobody answers at 127.0.0.1:{port}; is vcam serve running there?"
    assert not final


@contextlib.contextmanager
def websocket_server(handle: Callable[[WebSocket], None], folder: Path, tls: bool = True) -> Iterator[PairedServer]:
    """Serve at a port of this machine while the body runs."""
    made = made_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with served(handle, context if tls else None) as port:
        yield PairedServer("127.0.0.1", port, "t", made.fingerprint)


def test_a_server_without_tls_is_told_and_hears_nothing(tmp_path: Path) -> None:
    heard: list[object] = []
    with websocket_server(lambda one: heard.append(one), tmp_path, tls=False) as plain:
        text, final = why_not(plain)
    assert "TLS" in text
    assert "nothing was sent" in text
    assert not final
    assert not heard


def loaded_then(say: Say) -> Callable[[WebSocket], None]:
    """A server that lets everybody in, and then says something to the first picture."""

    def handle(connection: WebSocket) -> None:
        with contextlib.suppress(ConnectionClosed):
            json.loads(connection.recv())
            connection.send(packed(Loaded(EngineFacts("fake", "eager", "cpu"))))
            for message in connection:
                if isinstance(message, bytes):
                    say(connection, unpacked_picture(message))

    return handle


def answer(number: int = 0, shows: int | None = 0, coded: bytes = GREY, codec: Codec = Codec.JPEG) -> bytes:
    return packed_answer(Answer(number, shows, 0.0, 0.0, 0.0, 0.0, 0, coded, codec=codec))


LARGE = to_jpeg(np.zeros((2000, 3000, 3), np.uint8))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("nonsense", "a text message came that is no JSON"),
        ("[1, 2]", "a text message came that this protocol does not know"),
        ('{"type": "loading", "text": 3, "fraction": 1}', "its Loading is malformed"),
        ('{"type": "loaded", "facts": {"delay": -4}}', "its Loaded is malformed"),
        (b"", "a binary message that is no answer"),
        (b"\x00" * 300, "a binary message that is no answer"),
        (answer(number=7), "answers a picture that it was not given"),
        ('{"type": "failed", "kind": "picture", "text": "", "number": 1' + "0" * 400 + "}", "that is no JSON"),
        ('{"type": "loading", "text": "", "fraction": 1e999}', "that is no JSON"),
        ('{"type": "loaded", "facts": {"bank_bytes": 1' + "0" * 400 + "}}", "that is no JSON"),
        (answer(shows=5), "answers a picture that it was not given"),
        (answer(coded=b"no jpeg at all"), "a picture came that is no JPEG"),
        (answer(coded=GREY[: len(GREY) // 3]), "a picture came that is"),
        (answer(coded=LARGE), "a picture of 3000x2000 came; it must be 96x64"),
        (answer(coded=b"no h264 at all", codec=Codec.H264), "no H.264 of ours; pictures go there as JPEG from now on"),
        (b"x" * (5 * 1024 * 1024), "sends what is no message of ours"),
    ],
)
def test_a_server_that_says_nonsense_is_told_and_nothing_of_it_shown(
    tmp_path: Path, said: str | bytes, words: str
) -> None:
    with websocket_server(loaded_then(lambda connection, given: connection.send(said)), tmp_path) as strange:
        text, _ = why_not(strange)
    assert words in text


def test_a_server_that_takes_no_message_of_that_size_is_told(tmp_path: Path) -> None:
    strict_one = loaded_then(lambda connection, given: connection.send_raw(TOO_LARGE))
    with websocket_server(strict_one, tmp_path) as strict:
        text, final = why_not(strict)
    assert "takes no message as large as this camera sent; take a smaller --engine-size" in text
    assert not final


def test_ones_own_certificate_is_good_where_a_ca_that_this_machine_knows_vouches_for_it(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired = replace(server.paired(tmp_path), fingerprint="")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate.certificate))
    engine = engine_of(paired)
    until(lambda: (engine.step(), engine.ready or engine.failure)[1], "it has not loaded")
    assert not engine.failure
    engine.close()
    monkeypatch.setattr("socket.getaddrinfo", elsewhere(socket.getaddrinfo))
    text, _ = why_not(replace(paired, host="studio.lan"))  # the certificate is of another name
    assert "no CA that this machine knows vouches for the certificate of studio.lan" in text


def elsewhere(real: Callable[..., Any]) -> Callable[..., Any]:
    """Names as they are in a network whose every machine is this one."""
    return lambda host, *rest, **options: real("127.0.0.1", *rest, **options)


def test_a_server_that_answers_a_picture_twice_is_told(tmp_path: Path) -> None:
    def twice(connection: WebSocket, given: GivenPicture) -> None:
        connection.send(answer(given.number, None, b""))
        connection.send(answer(given.number, None, b""))

    with websocket_server(loaded_then(twice), tmp_path) as strange:
        text, _ = why_not(strange)
    assert "answers a picture that it was not given, or twice" in text


def test_a_server_that_shows_a_picture_twice_is_told(tmp_path: Path) -> None:
    def again(connection: WebSocket, given: GivenPicture) -> None:
        connection.send(answer(given.number, 0))

    with websocket_server(loaded_then(again), tmp_path) as strange:
        engine = engine_of(strange)

        def over() -> bool:
            engine.step()
            if engine.idle:
                engine.give(frame(0))
            return bool(engine.failure)

        until(over, "it goes on")
        engine.close()
    assert "answers a picture that it was not given" in engine.failure


def test_whatever_cannot_be_read_ends_the_connection_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OverflowError("a fault of ours")

    monkeypatch.setattr("vcam.remote.codecs.from_jpeg", fails)
    send = loaded_then(lambda connection, given: connection.send(answer(given.number)))
    with websocket_server(send, tmp_path) as strange:
        text, _ = why_not(strange)
    assert text.endswith("sends what cannot be read (OverflowError)")


def told_by_http(folder: Path, status: str, fingerprint: str = "") -> tuple[str, bool, bytes]:
    """What a camera says of a program that answers so, whether for good, and what that program heard."""
    heard: list[bytes] = []

    def other(connection: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            heard.append(tls.recv(4000))
            tls.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    made = made_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: other(listening.accept()[0], context))
        thread.start()
        port = listening.getsockname()[1]
        text, final = why_not(PairedServer("127.0.0.1", port, "t", fingerprint or made.fingerprint))
        thread.join()
    return text, final, b"".join(heard)


def test_a_server_that_is_another_program_is_told(tmp_path: Path) -> None:
    text, _, _ = told_by_http(tmp_path, "404 Not Found")
    assert "answers, but not as a vcam serve does; is it the right port?" in text


def test_another_certificate_is_told_before_a_byte_is_said_to_whoever_shows_it(tmp_path: Path) -> None:
    text, final, heard = told_by_http(tmp_path, "404 Not Found", fingerprint="0" * 64)
    assert "shows another certificate than at pairing" in text
    assert final
    assert heard == b""


@pytest.mark.parametrize("status", ["503 Service Unavailable", "403 Forbidden"])
def test_a_server_that_is_starting_or_busy_is_told(tmp_path: Path, status: str) -> None:
    text, final, _ = told_by_http(tmp_path, status)
    assert "takes no connection now: it is starting, or busy" in text
    assert not final


def test_a_server_to_which_too_many_connect_says_so(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MOST_WAITING", 0)
    text, final = why_not(server.paired(tmp_path))
    assert "the server is busy: too many connect at once" in text
    assert not final


def test_what_is_cut_is_reset_so_that_nothing_leaves_the_kernel_any_more() -> None:
    async def cut(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        reset(cast(Any, SimpleNamespace(transport=writer.transport)))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(cut(listening.getsockname()[1]))
        with listening.accept()[0] as accepted, pytest.raises(ConnectionResetError):
            accepted.recv(100)  # where it is closed in order, this is b""


def progressive() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 100, np.uint8)).save(out, "JPEG", progressive=True)
    return out.getvalue()


def of_many_scans() -> bytes:
    """A baseline header, and the same scan again and again."""
    at = GREY.index(b"\xff\xda")
    return GREY[:-2] + GREY[at:-2] * 50 + b"\xff\xd9"


@pytest.mark.parametrize(
    ("jpeg", "words"),
    [
        (progressive(), "no baseline JPEG of one scan"),
        (of_many_scans(), "no baseline JPEG of one scan"),
        (GREY + b"\x00" * 100_000, "more than its pixels need"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000, "no JPEG"),
        (b"\xff\xd8" + b"\xff\xc0\x00\x02" * 3, "no JPEG"),
        (GREY[:2], "no JPEG"),
        (b"", "no JPEG"),
    ],
)
def test_a_picture_that_would_cost_more_than_one_is_not_decoded(
    jpeg: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(RemoteError, match=words):
        from_jpeg(jpeg, (96, 64))


# --------------------------------------------------------------------------------------------------------- the cameras


def stranger(server: TlsServer) -> AbstractContextManager[WebSocket]:
    """A connection to the server by somebody who minds no certificate."""
    return connected(server.address + PATH)


def hello(server: TlsServer, name: str, **values: Any) -> dict[str, Any]:
    plain = Hello(server.book.add(name), name, FAKE, LOOK)
    return {"type": "hello", **asdict(plain), **values}


def refusal(connection: WebSocket) -> dict[str, Any]:
    """What the server says last."""
    last: dict[str, Any] = {}
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = connection.recv()
            if isinstance(message, str):
                last = json.loads(message)
    return last


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"version": 0}, "version", "the camera speaks version 0 of the protocol, the server version 2"),
        ({"version": "1"}, "version", "version none"),
        ({"token": "stolen"}, "token", "the server does not know this camera's token"),
        ({"token": 7}, "protocol", "its Hello is malformed"),
        ({"settings": {"width": 7}}, "protocol", "width is 7"),
        ({"settings": {"width": 10**9}}, "protocol", "width is 1000000000"),
        ({"look": {"prompt": "x", "strength": 9}}, "protocol", "strength"),
        ({"look": []}, "protocol", "malformed"),
    ],
)
def test_a_camera_that_is_not_let_in_is_told_why(
    server: TlsServer, values: dict[str, Any], code: str, words: str
) -> None:
    with stranger(server) as connection:
        connection.send(json.dumps(hello(server, "a", **values)))
        said = refusal(connection)
    assert said["code"] == code
    assert words in said["text"]
    assert not server.server.host.cameras


def test_a_picture_or_nonsense_before_a_hello_is_refused(server: TlsServer) -> None:
    for said in (packed_picture(GivenPicture(0, 0, GREY)), "x", "{}", '{"type": "alive", "version": 2}'):
        with stranger(server) as connection:
            connection.send(said)
            assert refusal(connection)["type"] == "refused"


def test_who_says_nothing_is_not_waited_for(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "HELLO_S", 0.05)
    with stranger(server) as connection, pytest.raises(ConnectionClosed):
        connection.recv()
    assert not server.server.counts.connected


@contextlib.contextmanager
def admitted(server: TlsServer, name: str = "a") -> Iterator[WebSocket]:
    with stranger(server) as connection:
        connection.send(json.dumps(hello(server, name)))
        said: object = ""
        while "loaded" not in str(said):
            said = connection.recv()
        yield connection


@pytest.mark.parametrize(
    "said",
    [
        b"\x00",
        b"\x00" * 100,
        packed_picture(GivenPicture(0, 77, GREY)),
        packed_picture(GivenPicture(0, 0, b"no jpeg")),
        packed_picture(GivenPicture(0, 0, LARGE)),
        packed_picture(GivenPicture(0, 0, b"no h264", Codec.H264)),
        "nonsense",
        '{"type": "look", "look": {"prompt": 3}, "frames": 0}',
        '{"type": "look", "look": {"prompt": "ink"}, "frames": true}',
        '{"type": "loras", "loras": [{"path": "x", "weight": 99}], "frames": 0}',
        '{"type": "prompts", "prompts": "ink"}',
        "[" * 60000,
    ],
)
def test_nonsense_of_a_camera_costs_its_own_connection_alone(
    server: TlsServer, tmp_path: Path, said: str | bytes
) -> None:
    other = engine_of(server.paired(tmp_path))
    with admitted(server) as connection:
        connection.send(said)
        assert refusal(connection)["type"] == "refused"
    until(lambda: (other.step(), other.ready)[1], "the other camera lost its stream")
    other.give(frame(0))
    until(other.step, "the other camera gets no picture")
    other.close()


def test_four_gigabytes_as_a_frames_length_are_refused_before_they_come(server: TlsServer) -> None:
    with admitted(server) as connection:
        connection.send_raw(struct.pack("!BBQ", 0x82, 0xFF, 4 << 30) + b"mask" + b"x" * 100)
        refusal(connection)  # what it says meanwhile
        assert connection.close_code == 1009
    until(lambda: not server.server.host.cameras, "its stream is still there")


def test_a_camera_that_floods_is_refused_in_words(tmp_path: Path) -> None:
    picture = packed_picture(GivenPicture(0, 0, GREY))
    with TlsServer(tmp_path, fake_offer(), clock=lambda: 0.0) as server:  # however long it takes, it is one moment
        with admitted(server) as connection:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(400):
                    connection.send(picture)
            assert refusal(connection)["code"] == "limit"
        until(lambda: not server.server.host.cameras, "its stream is still there")


def test_a_camera_that_never_reads_loses_its_stream(server: TlsServer) -> None:
    """It sends slowly enough, and never says that it has seen an answer."""
    with admitted(server) as connection:
        for number in range(40):
            before = server.server.counts.sent_bytes
            try:
                connection.send(packed_picture(GivenPicture(number, 0, GREY)))
            except ConnectionClosed:
                break
            until(
                lambda: server.server.counts.sent_bytes > before or not server.server.host.cameras,  # noqa: B023
                "neither an answer nor an end came",
            )
        said = refusal(connection)
    assert (said["code"], said["text"]) == ("limit", "the camera does not read its answers")


def test_a_camera_that_guesses_what_its_answers_say_loses_its_stream(server: TlsServer) -> None:
    with admitted(server) as connection:
        connection.send(packed_picture(GivenPicture(0, NO_RECEIPT, GREY)))
        read = unpacked_answer(cast(bytes, connection.recv()))
        connection.send(packed_picture(GivenPicture(1, read.receipt, GREY)))
        again = unpacked_answer(cast(bytes, connection.recv()))
        assert len({NO_RECEIPT, read.receipt, again.receipt}) == 3
        connection.send(packed_picture(GivenPicture(2, again.receipt ^ 1, GREY)))
        said = refusal(connection)
    assert (said["code"], said["text"]) == (
        "protocol",
        "the camera names the receipt of an answer that it was not given",
    )


def test_many_that_connect_at_once_are_refused_in_words_and_cost_nobody_a_picture(tmp_path: Path) -> None:
    with serving(tmp_path / "server", fake_offer(streams=1)) as server:
        own = engine_of(server.paired(tmp_path))
        until(lambda: (own.step(), own.ready)[1], "it has not loaded")
        token = server.book.add("crowd")
        said: list[str] = []

        def come(number: int) -> None:
            with stranger(server) as connection:
                plain = Hello(token, f"camera {number}", FAKE, LOOK)
                connection.send(packed(plain))
                said.append(refusal(connection)["text"])

        crowd = [threading.Thread(target=come, args=(number,)) for number in range(CROWD)]
        for one in crowd:
            one.start()
        for index in range(5):
            own.give(frame(index))
            until(own.step, "the camera that is let in gets no picture")
        for one in crowd:
            one.join(PATIENCE_S)
        assert said == ["the server is busy: all 1 of its streams are taken"] * CROWD
        assert not own.failure
        own.close()
