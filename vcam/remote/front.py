"""The front of an engine server: ends TLS, and lets only whole requests of bounded size and time through to Ray.

Ray's proxy behind it listens on this machine alone, and hears nothing of what a stranger writes but the messages of a
WebSocket: requests to it are the front's own, one on each connection. The front agrees upon the WebSocket itself, and
connects behind only once the camera's first message is whole. Those that are slow to say what they want are ended after
HANDSHAKE_S, HEAD_S and HELLO_S, and give way to newer ones until behind has taken that message. From then on bytes are
handed over as they are, no faster than the other side takes them; only the lengths of the messages are looked at. The
front reads no picture and keeps none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import math
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from vcam.errors import MessageTooLarge, RemoteError
from vcam.remote.certificate import Certificate
from vcam.remote.protocol import HEALTH, HELLO_S, LARGEST_PICTURE, LARGEST_TEXT, PATH, Refusal, Refused, packed

LOG = logging.getLogger("vcam.serve")
HANDSHAKE_S = 5.0  # until a connection is secured
HEAD_S = 5.0  # until its request is whole
BEHIND_S = 20.0  # until Ray answers
STALLED_S = 10.0  # that one side may take nothing
KNOWN_S = 1.0  # for which what behind said of its health is taken as known
SAY_S = 60.0  # after which the log is told again why no connection can be taken
CLOSE_S = 2.0  # that a connection lasts after behind has closed its WebSocket
LARGEST_HEAD = 8 * 1024  # bytes of a request
MOST_UNFINISHED, MOST_OF_ONE = 1024, 256  # connections that behind has not taken, of all and of one place
MOST_FILES = 16_384  # that a process of the server may have open
BACKLOG = 512
_CHUNK = 64 * 1024
_ANY = 1 << 64  # bytes
_TOO_LARGE = b"\x88\x02\x03\xf1"  # a WebSocket's close frame, code 1009
_BUSY = "the server takes no connection now: it is starting, or busy"


class MessageLengths:
    """Reads the lengths of the frames in a WebSocket's bytes, however they are cut (RFC 6455, 5.2).

    first, most: bytes that the first message and each later one may have, all of its frames together. whole: messages
    that have come to their end; closes: a frame that closes the WebSocket has come.
    """

    def __init__(self, first: int = LARGEST_TEXT, most: int = LARGEST_PICTURE) -> None:
        self._limit, self._most = first, most
        self._head = bytearray()  # of a frame, as far as it has come
        self._left = self._message = 0  # bytes to come of this frame; of the message so far
        self._ends = False  # this frame is its message's last
        self.whole, self.closes = 0, False

    def take(self, data: bytes) -> None:
        """Read on; raises MessageTooLarge as soon as a length says it, before what it tells of comes."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left, at = self._left - step, at + step
                self._end_frame()
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
        self.closes |= self._head[0] & 0x0F == 0x08
        self._ends = bool(last and not control)
        size = {126: 2, 127: 8}.get(short, 0)
        self._left = int.from_bytes(self._head[2 : 2 + size]) if size else short
        self._head.clear()
        if control:  # between the frames of a message
            if size:
                raise MessageTooLarge
            return
        self._message += self._left
        if self._message > self._limit:
            raise MessageTooLarge
        if last:
            self._message, self._limit = 0, self._most
        self._end_frame()

    def _end_frame(self) -> None:
        if self._ends and not self._left:
            self.whole, self._ends = self.whole + 1, False


class _Pipe(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Front:
    """Listens from when it is built until `close`, on a thread of its own. Raises RemoteError where it cannot.

    behind: Ray's port on this machine; None until Ray holds it. As long the front answers by itself that nobody is
    there, and connects to no port: another program could have it.
    """

    def __init__(self, host: str, port: int, certificate: Certificate, behind: int | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self.behind = behind
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._unfinished: dict[asyncio.Task[None], str] = {}  # by when they came, with the places that they came from
        self._tasks: set[asyncio.Task[None]] = set()
        self._said_s: dict[int | None, float] = {}  # when the log was told, of each errno
        self._loop = asyncio.new_event_loop()
        self._health = _Health(self._loop)
        self._thread = threading.Thread(target=self._work, name="vcam-front", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def unfinished(self) -> int:
        """How many connections have not said what they want, or were not taken behind yet."""
        return len(self._unfinished)

    # ---- its thread

    def _work(self) -> None:
        accepting = self._loop.create_task(self._accept())
        try:
            self._loop.run_forever()
        finally:
            tasks: list[asyncio.Future[Any]] = [accepting, *self._tasks, self._health.answer]
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
                gives_way = error.errno in (errno.EMFILE, errno.ENFILE) and self._end_oldest(list(self._unfinished))
                if not gives_way:
                    self._say(error)
                await asyncio.sleep(0.01 if gives_way else 0.1)
                continue
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            self._unfinished[task] = place = one_place(address[0])
            task.add_done_callback(self._done)
            self._make_way(place)

    def _say(self, error: OSError) -> None:
        """Tell the log why a connection could not be taken, each reason once in SAY_S."""
        now = self._loop.time()
        if now - self._said_s.get(error.errno, -SAY_S) >= SAY_S:
            self._said_s[error.errno] = now
            LOG.warning("a connection could not be taken: %s", error.strerror)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._unfinished.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a connection failed", exc_info=error)

    def _make_way(self, place: str) -> None:
        """End the oldest unfinished connection where there are too many, of this place or of all."""
        every = list(self._unfinished)
        own = [task for task in every if self._unfinished[task] == place]
        self._end_oldest(own if len(own) > MOST_OF_ONE else every if len(every) > MOST_UNFINISHED else [])

    def _end_oldest(self, crowd: list[asyncio.Task[None]]) -> bool:
        """End the oldest of these unfinished connections; return whether there was one."""
        for oldest in crowd[:1]:
            oldest.cancel()
            del self._unfinished[oldest]
        return bool(crowd)

    async def _serve(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        with connection:
            try:
                reader, writer = await self._secured(connection)
            except (OSError, TimeoutError):  # ssl.SSLError is one
                return
            with _aborted_at_the_end(writer):
                if answer := await self._served(_Pipe(reader, writer), task):
                    await _answer(writer, *answer)

    async def _secured(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection once TLS is agreed upon."""
        reader = asyncio.StreamReader(LARGEST_HEAD, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        connection.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=1.0
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def _served(self, stranger: _Pipe, task: asyncio.Task[None]) -> tuple[HTTPStatus, bytes] | None:
        """Read the request, and serve it; return the status and the text to answer, None where nothing is."""
        try:
            head = await asyncio.wait_for(stranger.reader.readuntil(b"\r\n\r\n"), HEAD_S)
        except asyncio.LimitOverrunError:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b""
        except (OSError, TimeoutError, EOFError):
            return None
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1":
            return HTTPStatus.BAD_REQUEST, b""
        method, path = words[0], words[1].decode("latin-1")
        if method in (b"GET", b"HEAD") and path == HEALTH:
            status = await self._health.status(self.behind)
            text = b"well\n" if status is HTTPStatus.OK else b"not well\n"
            return status, text if method == b"GET" else b""
        if method != b"GET" or path != PATH:
            return HTTPStatus.NOT_FOUND, b""
        camera = ServerProtocol()
        camera.receive_data(head)
        if not (requests := camera.events_received()):
            return HTTPStatus.BAD_REQUEST, b""
        answer = camera.accept(requests[0])  # type: ignore[arg-type]  # the first event is the request
        if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return HTTPStatus(answer.status_code), b""
        if self.behind is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, b""
        camera.send_response(answer)
        stranger.writer.write(b"".join(camera.data_to_send()))
        await self._stream(stranger, camera, task)
        await _ended(stranger.writer)
        return None

    async def _stream(self, stranger: _Pipe, camera: ServerProtocol, task: asyncio.Task[None]) -> None:
        """Wait for the camera's first message, connect behind, and hand over what each side says until one ends."""
        lengths = MessageLengths()
        try:
            said = await asyncio.wait_for(_first_message(stranger.reader, lengths), HELLO_S)
        except MessageTooLarge:
            stranger.writer.write(_TOO_LARGE)
            return
        except (OSError, TimeoutError, EOFError):
            return
        behind = None if self.behind is None else await _connected(self.behind)
        if behind is None:
            camera.send_text(packed(Refused(Refusal.BUSY, _BUSY)).encode())
            camera.send_close(1013)
            stranger.writer.write(b"".join(camera.data_to_send()))
            return
        with _aborted_at_the_end(behind.writer):
            behind.writer.write(said)
            self._unfinished.pop(task, None)
            await _joined(stranger, behind, lengths)


def one_place(address: str) -> str:
    """Return what the connections of one machine have in common: of IPv6 it may have all addresses of a /64 network."""
    try:
        own = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(own, ipaddress.IPv6Address):
        return address
    return str(own.ipv4_mapped or ipaddress.ip_network((int(own), 64), strict=False))


def have_many_files() -> None:
    """Let this process have as many files as the system lets it, up to MOST_FILES: each camera takes two."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Health:
    """Whether behind is well: asked for once in KNOWN_S, however many want to know. For one event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answer: asyncio.Future[HTTPStatus] = loop.create_future()  # the last one, which may be still to come
        self.answer.set_result(HTTPStatus.SERVICE_UNAVAILABLE)
        self._old_s = -math.inf  # when it is to be asked for again

    async def status(self, port: int | None) -> HTTPStatus:
        """Return what is answered at a port of this machine; None: nobody is there yet."""
        if port is None:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if self.answer.done() and self._loop.time() >= self._old_s:
            self.answer = self._loop.create_task(self._ask(port))
        return await asyncio.shield(self.answer)  # the others want it still when one who waits is ended

    async def _ask(self, port: int) -> HTTPStatus:
        try:
            return await _health(port)
        finally:
            self._old_s = self._loop.time() + KNOWN_S


async def _health(port: int) -> HTTPStatus:
    """Return what is answered behind to whether it is well."""
    ask = b"GET " + HEALTH.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    found = await _asked(port, ask)
    if found is None:
        return HTTPStatus.SERVICE_UNAVAILABLE
    with _aborted_at_the_end(found[0].writer):
        with contextlib.suppress(OSError, TimeoutError, EOFError):  # nobody cuts off what he asked for
            await asyncio.wait_for(found[0].reader.readexactly(LARGEST_HEAD), CLOSE_S)
        well = found[1].split(b" ")[1:2] == [b"200"]
        return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE


async def _connected(port: int) -> _Pipe | None:
    """Return a connection behind that is a WebSocket; None where there is none to be had."""
    asking = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}{PATH}"))
    asking.send_request(asking.connect())
    found = await _asked(port, b"".join(asking.data_to_send()))
    if found is None:
        return None
    behind, head = found
    asking.receive_data(head)
    if asking.handshake_exc is None and asking.state is State.OPEN:
        return behind
    behind.writer.transport.abort()
    return None


async def _asked(port: int, request: bytes) -> tuple[_Pipe, bytes] | None:
    """Return a connection to a port of this machine, and the head of its answer to a request; None without one."""
    try:
        behind = _Pipe(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, limit=_CHUNK), BEHIND_S))
    except (OSError, TimeoutError):
        return None
    try:
        behind.writer.write(request)
        return behind, await asyncio.wait_for(behind.reader.readuntil(b"\r\n\r\n"), BEHIND_S)
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        behind.writer.transport.abort()
        return None
    except BaseException:
        behind.writer.transport.abort()
        raise


async def _first_message(reader: asyncio.StreamReader, lengths: MessageLengths) -> bytes:
    """Return what a camera says until its first message is whole. Raises MessageTooLarge, EOFError where none is."""
    said = bytearray()
    while not lengths.whole:
        if len(said) > 2 * LARGEST_TEXT:  # with much else between its frames
            raise MessageTooLarge
        if not (data := await reader.read(_CHUNK)):
            raise EOFError
        lengths.take(data)
        if lengths.closes and not lengths.whole:
            raise EOFError
        said += data
    return bytes(said)


async def _joined(stranger: _Pipe, behind: _Pipe, lengths: MessageLengths) -> None:
    """Hand over what each side says until one ends. lengths: of the camera's messages."""
    answers = MessageLengths(_ANY, _ANY)  # for their end alone
    both = [
        asyncio.ensure_future(_handed_over(behind.reader, stranger.writer, answers)),
        asyncio.ensure_future(_handed_over(stranger.reader, behind.writer, lengths)),
    ]
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if any(isinstance(one.exception(), MessageTooLarge) for one in done):
            stranger.writer.write(_TOO_LARGE)
        for one in done:
            if (error := one.exception()) is not None and not isinstance(error, MessageTooLarge):
                raise error
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _handed_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lengths: MessageLengths) -> None:
    """Hand over until one side ends, takes nothing for STALLED_S, or has closed CLOSE_S ago. Raises MessageTooLarge."""
    with contextlib.suppress(OSError, TimeoutError):
        while data := await asyncio.wait_for(reader.read(_CHUNK), CLOSE_S if lengths.closes else None):
            lengths.take(data)
            writer.write(data)
            async with asyncio.timeout(STALLED_S):  # wait_for makes a task of each
                await writer.drain()


async def _answer(writer: asyncio.StreamWriter, status: HTTPStatus, text: bytes) -> None:
    """Answer a request, the only one of its connection."""
    length = f"Content-Type: text/plain\r\nContent-Length: {len(text)}"
    if status is HTTPStatus.UPGRADE_REQUIRED:
        length += "\r\nUpgrade: websocket"
    writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{length}\r\nConnection: close\r\n\r\n".encode() + text)
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
    # asyncio sends small pieces at once (TCP_NODELAY) on no socket whose protocol is not named
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
