"""Both ends of a WebSocket, TLS or not, that tests speak to without `async`; each has an event loop on a thread.

Not websockets' own `sync` ends: they read and write one TLS connection on two threads at once, which OpenSSL does not
allow (CPython's issue 77271). On a busy machine the first request got lost so, and its test waited for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.server import ServerConnection

T = TypeVar("T")


class WebSocket:
    """A connection whose loop runs on another thread than the caller's."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection, self._loop = connection, loop

    def send(self, message: str | bytes) -> None:
        """Send a message; raises ConnectionClosed."""
        _wait(self._connection.send(message), self._loop)

    def send_raw(self, data: bytes) -> None:
        """Send bytes that need not be a frame."""

        async def write() -> None:
            self._connection.transport.write(data)

        _wait(write(), self._loop)

    def recv(self) -> str | bytes:
        """Wait for the next message; raises ConnectionClosed."""
        return _wait(self._connection.recv(), self._loop)

    def __iter__(self) -> Iterator[str | bytes]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield self.recv()

    @property
    def close_code(self) -> int | None:
        """Why it was closed, None while it is open."""
        return self._connection.close_code


@contextlib.contextmanager
def connected(address: str) -> Iterator[WebSocket]:
    """Connect to a server, whatever certificate it shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def opened() -> ClientConnection:
        return await connect(
            address, ssl=context, proxy=None, compression=None, open_timeout=PATIENCE_S, ping_interval=None
        )

    with _event_loop() as loop:
        connection = _wait(opened(), loop)
        try:
            yield WebSocket(connection, loop)
        finally:
            _wait(connection.close(), loop)


@contextlib.contextmanager
def served(handle: Callable[[WebSocket], None], context: ssl.SSLContext | None) -> Iterator[int]:
    """Serve at a port of this machine, which is yielded; each connection is handled on a thread of its own."""
    with _event_loop() as loop:

        async def handled(connection: ServerConnection) -> None:
            await asyncio.to_thread(handle, WebSocket(connection, loop))

        async def opened() -> Any:
            return await serve(handled, "127.0.0.1", 0, ssl=context, open_timeout=PATIENCE_S, ping_interval=None)

        server = _wait(opened(), loop)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:

            async def ended() -> None:
                server.close()
                await server.wait_closed()

            _wait(ended(), loop)


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _wait(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_S)
