"""A camera's messages past Ray: by a socket of this machine if the front comes there, else by Ray's way."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from core.settings import Look
from tests.support.engine_server import FAKE, TlsServer, fake_offer, wait_long
from tests.support.patience import PATIENCE_S
from tests.support.web_sockets import connected
from vcam.remote.behind import HeldPlace, way_behind
from vcam.remote.pipes import Pipe, aborted_at_the_end
from vcam.remote.protocol import Hello, Loaded, Loading, from_server, packed
from vcam.remote.server import EngineServer
from vcam.remote.side_door import INVALID_TEXT, CameraWay, Message, SideDoor, SocketWay, through

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no such sockets")


def run(work: Callable[[ExitStack], Coroutine[Any, Any, None]]) -> None:
    """Do it, and end what was opened meanwhile."""

    async def whole() -> None:
        with ExitStack() as opened:
            await asyncio.wait_for(work(opened), PATIENCE_S)

    asyncio.run(whole())


async def pipe_of(opened: ExitStack, one: socket.socket) -> Pipe:
    pipe = Pipe(*await asyncio.open_connection(sock=one))
    opened.enter_context(aborted_at_the_end(pipe.writer))
    return pipe


class Held:
    """The WebSocket that was agreed upon, at a replica's end: what is put into `to_replica` comes there."""

    def __init__(self) -> None:
        self.to_replica: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)


class Camera:
    """A camera whose WebSocket has been agreed upon, at the front's end of a connection."""

    def __init__(self, opened: ExitStack, pipe: Pipe) -> None:
        self.reader, self.writer = pipe
        opened.enter_context(aborted_at_the_end(self.writer))
        self.protocol = ClientProtocol(parse_uri("ws://server/"), state=State.OPEN)

    def say(self, *, text: bytes = b"", data: bytes = b"", fin: bool = True) -> None:
        if data:
            self.protocol.send_binary(data, fin)
        else:
            self.protocol.send_text(text, fin)
        self.write()

    def write(self) -> None:
        self.writer.write(b"".join(self.protocol.data_to_send()))

    async def hear(self) -> list[Frame]:
        """What comes next; nothing at the end."""
        while data := await self.reader.read(65536):
            self.protocol.receive_data(data)
            if frames := self.protocol.events_received():
                return [one for one in frames if isinstance(one, Frame)]
        return []


async def come_through(opened: ExitStack, door: SideDoor) -> Camera:
    pipe = await through(door.headers[0][1].decode())
    assert pipe is not None
    return Camera(opened, Pipe(*pipe))


def test_who_comes_through_is_heard_there_and_answered_there() -> None:
    async def both(opened: ExitStack) -> None:
        held, door = Held(), opened.enter_context(closing(SideDoor()))
        folder = Path(door.path).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        way = CameraWay(door, held.to_replica.get, held.send)
        camera = await come_through(opened, door)
        camera.say(text=b"hel", fin=False)
        camera.protocol.send_continuation(b"lo", True)
        camera.protocol.send_ping(b"?")
        camera.say(data=bytes(300_000))
        assert await way.receive() == {"type": "websocket.receive", "text": "hello"}
        assert not folder.exists()  # it was for one alone
        assert await way.receive() == {"type": "websocket.receive", "bytes": bytes(300_000)}
        await way.send({"type": "websocket.send", "text": "welcome"})
        await way.send({"type": "websocket.send", "bytes": b"picture"})
        await way.send({"type": "websocket.close", "code": 1008})
        await way.close()
        said = [frame for _ in range(4) for frame in await camera.hear()]
        assert [(one.opcode, bytes(one.data)) for one in said[:3]] == [
            (Opcode.PONG, b"?"),
            (Opcode.TEXT, b"welcome"),
            (Opcode.BINARY, b"picture"),
        ]
        assert Close.parse(said[3].data).code == 1008
        assert held.sent == [{"type": "websocket.close", "code": 1000}]

    run(both)


def test_where_nobody_comes_messages_go_the_way_that_was_agreed_upon() -> None:
    async def alone(opened: ExitStack) -> None:
        held, door = Held(), opened.enter_context(closing(SideDoor()))
        way = CameraWay(door, held.to_replica.get, held.send)
        held.to_replica.put_nowait({"type": "websocket.receive", "text": "hello"})
        held.to_replica.put_nowait({"type": "websocket.receive", "text": "again"})
        assert [(await way.receive())["text"] for _ in range(2)] == ["hello", "again"]
        assert not Path(door.path).exists()
        await way.send({"type": "websocket.send", "text": "welcome"})
        await way.close()
        assert held.sent == [{"type": "websocket.send", "text": "welcome"}]

    run(alone)


@pytest.mark.parametrize("through_door", [True, False])
def test_who_is_refused_before_he_was_heard_is_told_where_he_listens(through_door: bool) -> None:
    async def crowded(opened: ExitStack) -> None:
        held, door = Held(), opened.enter_context(closing(SideDoor()))
        way = CameraWay(door, held.to_replica.get, held.send)
        hello = asyncio.ensure_future(way.receive())
        hello.cancel()
        await asyncio.wait([hello])
        camera = await come_through(opened, door) if through_door else None
        refused: Message = {"type": "websocket.send", "text": "busy"}
        await way.send(refused)
        await way.close()
        if camera is not None:
            assert bytes((await camera.hear())[0].data) == b"busy"
        assert (refused in held.sent) is (camera is None)

    run(crowded)


def test_a_place_that_ends_ends_the_camera_that_came_through() -> None:
    async def ending(opened: ExitStack) -> None:
        held, door = Held(), opened.enter_context(closing(SideDoor()))
        way = CameraWay(door, held.to_replica.get, held.send)
        camera = await come_through(opened, door)
        camera.say(text=b"hello")
        await way.receive()
        held.to_replica.put_nowait({"type": "websocket.disconnect"})
        assert await camera.hear() == []
        await way.close()

    run(ending)


def test_who_reads_late_still_has_the_refusal_and_the_code_once_the_way_is_closed() -> None:
    async def refused(opened: ExitStack) -> None:
        held, door = Held(), opened.enter_context(closing(SideDoor()))
        way = CameraWay(door, held.to_replica.get, held.send)
        camera = await come_through(opened, door)
        camera.say(text=b"hello")
        await way.receive()
        assert way._aside is not None
        transport, pictures = way._aside._writer.transport, 0
        while not transport.get_write_buffer_size():  # until the system takes no more
            await way.send({"type": "websocket.send", "bytes": bytes(10_000)})
            pictures += 1
            await asyncio.sleep(0)
        await way.send({"type": "websocket.send", "text": "refused"})
        await way.send({"type": "websocket.close", "code": 1008})
        assert transport.get_write_buffer_size()
        await way.close()
        await asyncio.sleep(0)
        heard: list[Frame] = []
        while frames := await camera.hear():
            heard += frames
        assert len(heard) == pictures + 2
        assert bytes(heard[-2].data) == b"refused"
        assert Close.parse(heard[-1].data).code == 1008

    run(refused)


def test_who_never_reads_holds_no_way_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcam.remote.side_door.LAST_S", 0.01)

    async def ended(opened: ExitStack) -> None:
        near, far = socket.socketpair()
        opened.enter_context(closing(far))
        pipe = await pipe_of(opened, near)
        pipe.writer.write(bytes(10_000_000))
        SocketWay(*pipe).close()
        await asyncio.wait([asyncio.ensure_future(pipe.writer.wait_closed())])

    run(ended)


def test_a_connection_that_is_reset_ends_as_one_that_is_closed() -> None:
    async def reset(opened: ExitStack) -> None:
        near, far = socket.socketpair()
        way = SocketWay(*await pipe_of(opened, near))
        way._reader.set_exception(ConnectionResetError())
        far.close()
        for _ in range(2):
            assert await way.receive() == {"type": "websocket.disconnect"}

    run(reset)


def test_what_is_no_text_ends_the_connection_and_no_more_comes() -> None:
    async def damaged(opened: ExitStack) -> None:
        near, far = socket.socketpair()
        way = SocketWay(*await pipe_of(opened, near))
        camera = Camera(opened, await pipe_of(opened, far))
        camera.say(text=b"\xff\xfe")
        camera.say(text=b"later")
        for _ in range(2):
            assert (await way.receive())["type"] == "websocket.disconnect"
        (closed,) = await camera.hear()
        assert Close.parse(closed.data).code == INVALID_TEXT
        with pytest.raises(ConnectionResetError):
            await way.send({"type": "websocket.send", "text": "welcome"})

    run(damaged)


def test_a_door_that_is_not_there_or_is_somebody_elses_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def knocking(opened: ExitStack) -> None:
        (tmp_path / "file").write_text("no socket")
        for path in ("", str(tmp_path / "absent"), str(tmp_path / "file"), "%00", "x" * 5000):
            assert await through(path) is None
        door = opened.enter_context(closing(SideDoor()))
        monkeypatch.setattr(os, "getuid", lambda: os.stat(door.path).st_uid + 1)
        assert await through(door.path) is None

    run(knocking)


def test_a_socket_that_is_no_door_a_link_and_a_folder_that_others_may_enter_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def listening(opened: ExitStack, name: str, mode: int = 0o700) -> Path:
        path = Path(name)
        path.parent.mkdir(mode=mode)
        path.parent.chmod(mode)
        one = opened.enter_context(socket.socket(socket.AF_UNIX))
        one.bind(str(path))
        one.listen(1)
        return path.absolute()

    async def knocking(opened: ExitStack) -> None:
        refused = [
            listening(opened, "vcam-a/agent"),
            listening(opened, "other/door"),
            listening(opened, "vcam-b/door", 0o755),
        ]
        own = listening(opened, "vcam-c/door")
        link, folder = Path("vcam-d/door").absolute(), Path("vcam-e").absolute()
        link.parent.mkdir(mode=0o700)
        link.symlink_to(own)
        folder.symlink_to(own.parent)
        for path in (*refused, link, folder / "door"):
            assert await through(str(path)) is None, path
        found = await through(str(own))
        assert found is not None
        opened.enter_context(aborted_at_the_end(found[1]))

    with tempfile.TemporaryDirectory() as short:  # a socket's path is of a hundred letters at most
        monkeypatch.chdir(short)
        run(knocking)
        monkeypatch.undo()


def test_without_a_door_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    door = SideDoor()
    assert (door.path, door.headers) == ("", [])
    assert list(folder.iterdir()) == []
    door.close()


def test_the_place_is_held_by_answering_who_asks_whether_somebody_is_there() -> None:
    async def asked(opened: ExitStack) -> None:
        near, far = socket.socketpair()
        theirs = await pipe_of(opened, far)
        asking = ClientProtocol(parse_uri("ws://server/"), state=State.OPEN)
        door = opened.enter_context(closing(SideDoor()))
        place = HeldPlace(await pipe_of(opened, near), asking, door.path)
        async with way_behind(place) as behind:
            assert behind is not place.pipe
            theirs.writer.write(b"\x89\x01?")  # a ping
            head = await theirs.reader.readexactly(2)
            assert head == b"\x8a\x81"  # a pong
            await theirs.reader.readexactly(5)  # its mask, and what was asked
        assert await theirs.reader.read() == b""

    run(asked)


@pytest.mark.parametrize("here", [True, False], ids=["on the same machine", "on another"])
def test_a_replica_hears_a_camera_past_ray_where_the_front_is_on_its_machine(
    here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_long(monkeypatch)
    heard: list[str] = []
    serve = EngineServer.__call__

    async def listened_to(self: EngineServer, scope: Any, receive: Any, send: Any) -> None:
        async def noted() -> Message:
            message: Message = await receive()
            heard.append(message["type"])
            return message

        await serve(self, scope, noted, send)

    async def none(path: str) -> None:
        assert path

    monkeypatch.setattr(EngineServer, "__call__", listened_to)
    if not here:
        monkeypatch.setattr("vcam.remote.behind.through", none)
    with TlsServer(tmp_path, fake_offer()) as server, connected(f"{server.address}/v1/stream") as camera:
        camera.send(packed(Hello(server.book.add("laptop"), "camera", FAKE, Look("ink"))))
        said = (from_server(str(one)) for one in iter(camera.recv, None))
        assert isinstance(next(one for one in said if not isinstance(one, Loading)), Loaded)
        assert heard == ["websocket.connect"] + ([] if here else ["websocket.receive"])
