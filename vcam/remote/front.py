"""The front of an engine server: ends TLS, and lets only whole requests of bounded size and time through to Ray.

Ray's proxy behind it listens on this machine alone. A connection takes no place of a camera before its request is
whole; those that are slow to say what they want are ended after HANDSHAKE_S and HEAD_S, and give way to newer ones.
From then on bytes are handed over as they are, no faster than the other side takes them; only the lengths of the
camera's messages are looked at. The front reads no picture and keeps none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Iterator

from vcam.errors import RemoteError
from vcam.remote.certificate import Certificate
from vcam.remote.protocol import LARGEST_PICTURE, LARGEST_TEXT, PATH

LOG = logging.getLogger("vcam.serve")
HANDSHAKE_S = 5.0  # until a connection is secured
HEAD_S = 5.0  # until its request is whole
BEHIND_S = 20.0  # until Ray answers
STALLED_S = 10.0  # that one side may take nothing
LARGEST_HEAD = 8 * 1024  # bytes of a request
MOST_UNFINISHED, MOST_OF_ONE = 1024, 256  # connections whose request is not whole, of all and of one address
BACKLOG = 512
HEALTH = "/health"
_CHUNK = 64 * 1024
_TOO_LARGE = b"\x88\x02\x03\xf1"  # a WebSocket's close frame, code 1009
_PHRASES = {400: "Bad Request", 404: "Not Found", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class TooLargeError(Exception):
    """A message of a WebSocket is larger than may be."""


class MessageLengths:
    """Reads the lengths of the frames in a WebSocket's bytes, however they are cut (RFC 6455, 5.2).

    first, most: bytes that the first message and each later one may have, all of its frames together.
    """

    def __init__(self, first: int = LARGEST_TEXT, most: int = LARGEST_PICTURE) -> None:
        self._limit, self._most = first, most
        self._head = bytearray()  # of a frame, as far as it has come
        self._left = self._message = 0  # bytes to come of this frame; of the message so far

    def take(self, data: bytes) -> None:
        """Read on; raises TooLargeError as soon as a length says it, before what it tells of comes."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left, at = self._left - step, at + step
                continue
            wanted = self._wanted()
            more = data[at : at + wanted - len(self._head)]
            self._head += more
            at += len(more)
            if len(self._head) == self._wanted():
                self._begin_frame()

    def _wanted(self) -> int:
        """Return how long the frame's head is, as far as is known."""
        if len(self._head) < 2:
            return 2
        short, masked = self._head[1] & 0x7F, self._head[1] & 0x80
        return 2 + {126: 2, 127: 8}.get(short, 0) + (4 if masked else 0)

    def _begin_frame(self) -> None:
        short, control, last = self._head[1] & 0x7F, self._head[0] & 0x08, self._head[0] & 0x80
        size = {126: 2, 127: 8}.get(short, 0)
        self._left = int.from_bytes(self._head[2 : 2 + size]) if size else short
        self._head.clear()
        if control:  # between the frames of a message
            if size:
                raise TooLargeError
            return
        self._message += self._left
        if self._message > self._limit:
            raise TooLargeError
        if last:
            self._message, self._limit = 0, self._most


class Front:
    """Listens from when it is built until `close`, on a thread of its own. behind: Ray's port on this machine.

    Raises RemoteError where it cannot listen.
    """

    def __init__(self, host: str, port: int, certificate: Certificate, behind: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._behind = behind
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._unfinished: dict[asyncio.Task[None], str] = {}  # by when they came, with their addresses
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="vcam-front", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def unfinished(self) -> int:
        """How many connections have not said what they want."""
        return len(self._unfinished)

    # ---- its thread

    def _work(self) -> None:
        accepting = self._loop.create_task(self._accept())
        try:
            self._loop.run_forever()
        finally:
            tasks = [accepting, *self._tasks]
            for one in tasks:
                one.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._socket.close()
            self._loop.close()

    async def _accept(self) -> None:
        while True:
            try:
                connection, address = await self._loop.sock_accept(self._socket)
            except OSError as error:  # no file is left, or the other side was gone before
                LOG.warning("a connection could not be taken: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            self._unfinished[task] = address[0]
            task.add_done_callback(self._done)
            self._make_way(address[0])

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._unfinished.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a connection failed", exc_info=error)

    def _make_way(self, address: str) -> None:
        """End the oldest unfinished connection where there are too many, of this address or of all."""
        own = [task for task, one in self._unfinished.items() if one == address]
        if len(own) > MOST_OF_ONE:
            own[0].cancel()
            del self._unfinished[own[0]]
        elif len(self._unfinished) > MOST_UNFINISHED:
            oldest = next(iter(self._unfinished))
            oldest.cancel()
            del self._unfinished[oldest]

    async def _serve(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        with connection:
            try:
                reader, writer = await self._secured(connection)
            except (OSError, TimeoutError):  # ssl.SSLError is one
                return
            with _aborted_at_the_end(writer):
                status = await self._head_of(reader, writer, task)
                if status:
                    await _answer(writer, status)

    async def _secured(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection once TLS is agreed upon."""
        reader = asyncio.StreamReader(LARGEST_HEAD, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        connection.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=1.0
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def _head_of(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> int:
        """Read the request, and have it served; return the status to answer with where that is not done, else 0."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
        except asyncio.LimitOverrunError:
            return 431
        except (OSError, TimeoutError, EOFError):
            return 0
        self._unfinished.pop(task, None)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1":
            return 400
        path = words[1].decode("latin-1")
        if words[0] not in (b"GET", b"HEAD") or path not in (PATH, HEALTH):
            return 404
        try:
            behind = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self._behind, limit=_CHUNK), BEHIND_S)
        except (OSError, TimeoutError):
            return 503
        with _aborted_at_the_end(behind[1]):
            if path == HEALTH:
                return await _asked(words[0], behind, writer)
            behind[1].write(head)
            return await _joined(reader, writer, behind)


async def _asked(
    method: bytes, behind: tuple[asyncio.StreamReader, asyncio.StreamWriter], writer: asyncio.StreamWriter
) -> int:
    """Ask behind whether it is well, and hand the answer over; nothing of the request but its first line."""
    behind[1].write(method + b" " + HEALTH.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    try:
        answer = await asyncio.wait_for(behind[0].read(LARGEST_HEAD), BEHIND_S)
    except (OSError, TimeoutError):
        return 503
    if not answer:
        return 503
    writer.write(answer)
    await _handed_over(behind[0], writer)
    await _ended(writer)
    return 0


async def _joined(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    behind: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> int:
    """Hand over what each side says until one ends; return 503 where nothing behind answers, else 0."""
    try:
        answer = await asyncio.wait_for(behind[0].read(_CHUNK), BEHIND_S)
    except (OSError, TimeoutError):
        return 503
    if not answer:
        return 503
    writer.write(answer)
    both = [
        asyncio.ensure_future(_handed_over(behind[0], writer)),
        asyncio.ensure_future(_handed_over(reader, behind[1], MessageLengths())),
    ]
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if any(isinstance(one.exception(), TooLargeError) for one in done):
            writer.write(_TOO_LARGE)
        for one in done:
            if (error := one.exception()) is not None and not isinstance(error, TooLargeError):
                raise error
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)
    await _ended(writer)
    return 0


async def _handed_over(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lengths: MessageLengths | None = None
) -> None:
    """Hand over until one side ends or takes nothing for STALLED_S. Raises TooLargeError."""
    with contextlib.suppress(OSError, TimeoutError):
        while data := await reader.read(_CHUNK):
            if lengths is not None:
                lengths.take(data)
            writer.write(data)
            await asyncio.wait_for(writer.drain(), STALLED_S)


async def _answer(writer: asyncio.StreamWriter, status: int) -> None:
    """Answer a request that is not served."""
    text = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    writer.write(text.encode())
    await _ended(writer)


async def _ended(writer: asyncio.StreamWriter) -> None:
    """End a connection in order, if the other side has time for it."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 2.0)


@contextlib.contextmanager
def _aborted_at_the_end(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Hold nothing of a connection after the body."""
    try:
        yield
    finally:
        writer.transport.abort()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        remedy = (
            "another program has it; take --port" if error.errno == errno.EADDRINUSE else "look at --host and --port"
        )
        raise RemoteError(f"nobody can be listened to at {host}, port {port} ({error.strerror}): {remedy}") from error
    made.setblocking(False)
    return made
