"""The WebSocket to an engine server, on a thread of its own: what is to be sent waits here, and what has come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from vcam.errors import RemoteError
from vcam.remote.connecting import End, connected, is_far, told
from vcam.remote.names import PatientLoop
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import ALIVE_S, SILENT_S, Alive, Hello, packed

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CUT = "the connection was cut"


class Wire:
    """The WebSocket and its thread. put, next, fail, cut and end may be called from any thread."""

    def __init__(self, server: PairedServer, hello: Hello, ring: Callable[[], None]) -> None:
        self._server, self._hello, self._ring = server, hello, ring
        self._outbox: deque[str | bytes] = deque()
        self._inbox: deque[str | bytes] = deque()
        self._end: End | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: ClientConnection | None = None
        self._stirred: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()  # of what tells whether it has ended
        self.far = False  # whether the server is outside this network, once connected
        self._thread = threading.Thread(target=self._work, name="vcam-server", daemon=True)

    def start(self) -> None:
        """Connect, say hello, and go on until it has ended."""
        self._thread.start()

    @property
    def ended(self) -> End | None:
        """Why it has ended; None while it lives, or while there are messages to be read."""
        return None if self._inbox else self._end

    def put(self, message: str | bytes) -> None:
        """Have a message sent; of one that has ended nothing is."""
        if self._end is None:
            self._outbox.append(message)
            self._in_loop(self._stir)

    def next(self) -> str | bytes | None:
        """Return the oldest message that came and was not read."""
        return oldest(self._inbox)

    def fail(self, end: End) -> None:
        """End it at once, for this reason unless it has ended already."""
        with self._lock:
            self._end = self._end or end
        self._outbox.clear()
        self._inbox.clear()
        self._in_loop(self._abort)

    def cut(self) -> None:
        """End it at once."""
        self.fail(End(CUT))

    def end(self) -> None:
        """End it in order."""
        with self._lock:
            self._end = self._end or End("the connection was ended")
        self._in_loop(self._stir)

    def join(self, timeout_s: float) -> None:
        """Wait so long for the thread's end."""
        self._thread.join(timeout_s)

    def _in_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call)

    def _stir(self) -> None:
        if self._stirred is not None:
            self._stirred.set()

    def _abort(self) -> None:
        if self._connection is not None:
            reset(self._connection)
        if self._task is not None:
            self._task.cancel()

    # ---- its thread

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=PatientLoop) as runner:
                runner.run(self._run())
        except Exception as error:  # noqa: BLE001  whatever it is: the connection has ended, and the user hears why
            self._over(told(error, self._server))
        else:
            self._over(End(CUT))
        self._ring()

    def _over(self, end: End) -> None:
        with self._lock:
            self._end = self._end or end

    async def _run(self) -> None:
        self._loop, self._stirred = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.ensure_future(self._converse())
        if self._end is not None:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _converse(self) -> None:
        from websockets.exceptions import ConnectionClosed

        connection = await connected(self._server)
        self._connection, self.far = connection, is_far(connection.remote_address)
        try:
            with contextlib.suppress(ConnectionClosed):  # why it was closed may be there to be read
                await connection.send(packed(self._hello))
            writing = asyncio.ensure_future(self._write(connection))
            try:
                await self._read(connection)
            finally:
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await writing
        finally:
            connection.transport.abort()

    async def _read(self, connection: ClientConnection) -> None:
        while self._end is None:
            try:
                async with asyncio.timeout(SILENT_S):  # wait_for makes a task of each
                    message = await connection.recv()
            except TimeoutError:
                raise RemoteError(
                    f"{self._server.name} has said nothing for {SILENT_S:g} s; is the network gone?"
                ) from None
            if len(self._inbox) > 64:
                raise RemoteError(f"{self._server.name} sends more than was asked for")
            if message != _ALIVE:
                self._inbox.append(message)
                self._ring()

    async def _write(self, connection: ClientConnection) -> None:
        assert self._stirred is not None
        while True:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._stirred.wait()
            except TimeoutError:
                await connection.send(_ALIVE)
            self._stirred.clear()
            while (message := oldest(self._outbox)) is not None:
                await connection.send(message)
            if self._end is not None:
                await connection.close()
                return


def oldest(waiting: deque[str | bytes]) -> str | bytes | None:
    """Take the oldest message, None where there is none: `fail` empties what waits at any moment, on another thread."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


_ALIVE = packed(Alive())


def reset(connection: ClientConnection) -> None:
    """End a connection so that not even what the kernel holds leaves this machine."""
    own = connection.transport.get_extra_info("socket")
    if own is not None:
        fields = "hh" if sys.platform == "win32" else "ii"
        with contextlib.suppress(OSError):  # it has ended
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(fields, 1, 0))
    connection.transport.abort()
