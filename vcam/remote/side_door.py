"""A way of a camera's messages between front and replica that does not lead through Ray: a socket of this machine.

Ray carries each message of a WebSocket as a call from process to process, which takes milliseconds of each picture and
of a core. So a replica opens a socket in a folder of its own for each camera, and names it where it agrees to the
WebSocket; a front on the same machine comes through there, and hands over what the camera says. The WebSocket through
Ray is held meanwhile, as the camera's place: Ray counts it, and whoever ends it ends the camera's connection. Where
nobody comes (the front is on another machine, or the system has no such sockets) messages go Ray's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from vcam.remote.pipes import CHUNK
from vcam.remote.protocol import LARGEST_PICTURE

HEADER = "vcam-side-door"
INVALID_TEXT = 1007  # a WebSocket's close code
LAST_S = 15.0  # that what was sent has to go, once a connection is closed
NAME, FOLDERS = "door", "vcam-"  # a door's name, and how its folder's begins

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class MessageWay(Protocol):
    """How a camera's messages come and answers go, in ASGI's words."""

    async def receive(self) -> Message:
        """Return the next message, of type websocket.receive; another type once the camera has ended it."""

    async def send(self, message: Message) -> None:
        """Send an answer, or close; raises OSError where the connection has ended."""


class SideDoor:
    """Open for one to come through, from when it is built until `close`. path: "" where the system has no such door."""

    def __init__(self) -> None:
        self._opened = contextlib.ExitStack()
        self._listening: socket.socket | None = None
        self.path = ""
        if sys.platform == "win32":
            return
        try:
            folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix=FOLDERS))  # this user's alone
            listening = self._opened.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(Path(folder) / NAME))
            listening.listen(1)
        except OSError:  # no file is left, or the folder's name is too long
            self._opened.close()
            return
        listening.setblocking(False)
        self._listening, self.path = listening, listening.getsockname()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What is said of it where a WebSocket is agreed upon."""
        return [(HEADER.encode(), quote(self.path).encode())] if self.path else []

    async def came(self) -> SocketWay:
        """Wait until somebody has come through, for whom it was, and shut it."""
        if self._listening is None:
            await asyncio.Event().wait()  # nobody can
            raise AssertionError
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self.close()
        return SocketWay(*await asyncio.open_connection(sock=connection, limit=CHUNK))

    async def came_already(self) -> SocketWay | None:
        """Return for whom it was, None where nobody has come yet, and shut it."""
        try:
            if self._listening is None:
                return None
            connection, _ = self._listening.accept()
        except OSError:  # nobody is there
            return None
        finally:
            self.close()
        connection.setblocking(False)
        return SocketWay(*await asyncio.open_connection(sock=connection, limit=CHUNK))

    def close(self) -> None:
        """Shut it, and leave nothing of it."""
        self._opened.close()


async def through(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """Return a connection through the door that a replica has named; None where this user has none there."""
    if sys.platform == "win32" or not path:
        return None
    try:
        if not _is_own_door(Path(unquote(path))):  # what another program names leads nowhere
            return None
        return await asyncio.open_unix_connection(unquote(path), limit=CHUNK)
    except (OSError, ValueError):
        return None


def _is_own_door(path: Path) -> bool:
    """Return whether this is a door of this user's, in a folder where nobody else enters. Raises OSError."""
    if sys.platform == "win32" or path.name != NAME or not path.parent.name.startswith(FOLDERS):
        return False
    door, folder = path.lstat(), path.parent.lstat()  # a link leads nowhere
    kinds = stat.S_ISSOCK(door.st_mode) and stat.S_ISDIR(folder.st_mode)
    return kinds and door.st_uid == folder.st_uid == os.getuid() and folder.st_mode & 0o777 == 0o700


class SocketWay:
    """A MessageWay over a socket, on which somebody has already agreed upon a WebSocket for the camera."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = ServerProtocol(state=State.OPEN, max_size=LARGEST_PICTURE)
        self._come: deque[Message] = deque()
        self._parts: list[bytes] = []  # of a message that is not whole
        self._text = False  # whether that is one
        self._damaged = False  # whether what came was no text where one was announced

    async def receive(self) -> Message:
        """Return the next message; one of type websocket.disconnect whenever there are no more."""
        while not self._come:
            if self._protocol.state is not State.OPEN:
                return {"type": "websocket.disconnect"}
            if data := await self._read():
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                assert isinstance(event, Frame)
                self._hear(event)
            self._write()  # what the protocol answers by itself
        return self._come.popleft()

    async def send(self, message: Message) -> None:
        """Send an answer, or close; raises OSError where the connection has ended."""
        if self._protocol.state is not State.OPEN:
            raise ConnectionResetError("the camera has ended the connection")
        if message["type"] == "websocket.close":
            self._protocol.send_close(message["code"])
        elif (data := message.get("bytes")) is not None:
            self._protocol.send_binary(data)
        else:
            self._protocol.send_text(message["text"].encode())
        self._write()
        await self._writer.drain()

    def close(self) -> None:
        """End it, once what was sent has gone, or has not gone for LAST_S."""
        self._writer.close()
        asyncio.get_running_loop().call_later(LAST_S, self.abort)

    def abort(self) -> None:
        """End it at once."""
        self._writer.transport.abort()

    async def _read(self) -> bytes:
        """Return what comes next; nothing once the connection has ended, in order or not."""
        try:
            return await self._reader.read(CHUNK)
        except OSError:
            return b""

    def _hear(self, frame: Frame) -> None:
        if self._damaged or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self._text = frame.opcode is Opcode.TEXT if frame.opcode is not Opcode.CONT else self._text
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        try:
            said: Message = {"text": whole.decode()} if self._text else {"bytes": whole}
        except UnicodeDecodeError:
            self._damaged = True
            self._protocol.fail(INVALID_TEXT)
        else:
            self._come.append({"type": "websocket.receive"} | said)

    def _write(self) -> None:
        self._writer.write(b"".join(self._protocol.data_to_send()))


class CameraWay:
    """A MessageWay through a side door if somebody comes there before the first message, else the one that is given.

    receive, send: of the WebSocket that was agreed upon, which is held while messages take the other way.
    """

    def __init__(self, door: SideDoor, receive: Receive, send: Send) -> None:
        self._door, self._held_receive, self._held_send = door, receive, send
        self._held: asyncio.Future[Message] | None = None  # what comes on the one that is held: its end alone
        self._aside: SocketWay | None = None
        self._chosen = False

    async def receive(self) -> Message:
        """Return the next message, whichever way it comes."""
        if not self._chosen:
            return await self._first()
        return await (self._held_receive() if self._aside is None else self._aside.receive())

    async def send(self, message: Message) -> None:
        """Send an answer, or close: by the way of the first message or, before that, by the door if somebody came."""
        if not self._chosen:
            self._aside, self._chosen = await self._door.came_already(), True
        await (self._held_send(message) if self._aside is None else self._aside.send(message))

    async def close(self) -> None:
        """End both, once what was sent has gone."""
        if self._held is not None:
            self._held.remove_done_callback(self._end_aside)  # that is for a place that ends by itself
            self._held.cancel()
        if self._aside is not None:
            self._aside.close()
            with contextlib.suppress(OSError, RuntimeError):  # it has ended
                await self._held_send({"type": "websocket.close", "code": 1000})

    async def _first(self) -> Message:
        held, came = asyncio.ensure_future(self._held_receive()), asyncio.ensure_future(self._door.came())
        try:
            await asyncio.wait([held, came], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._held, self._chosen = held, held.done() or came.done()
            if came.done() and came.exception() is None:
                self._aside = came.result()
            came.cancel()
        self._door.close()
        if self._aside is None:
            return await held
        held.add_done_callback(self._end_aside)
        return await self._aside.receive()

    def _end_aside(self, _: asyncio.Future[Message]) -> None:
        if self._aside is not None:
            self._aside.abort()
