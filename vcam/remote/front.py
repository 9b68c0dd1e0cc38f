"""The front of an engine server: ends TLS, and lets only whole requests of bounded size and time through to Ray.

Ray's proxy behind it listens on this machine alone, and hears nothing of what a stranger writes but the messages of a
WebSocket: requests to it are the front's own, one on each connection. The front agrees upon the WebSocket itself, and
connects behind only once the camera's first message is whole. How often one address may have a connection secured is
limited (vcam.remote.allowance). Those that are slow to say what they want are ended after
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
import socket
import ssl
import sys
import threading
from http import HTTPStatus
from typing import Any

from websockets.server import ServerProtocol

from vcam.errors import MessageTooLarge, RemoteError
from vcam.remote.allowance import HANDSHAKES, HANDSHAKES_AT_ONCE, HandshakePace
from vcam.remote.behind import Health, place_behind, way_behind
from vcam.remote.certificate import Certificate
from vcam.remote.lengths import TOO_LARGE, MessageLengths
from vcam.remote.pipes import CHUNK, Pipe, aborted_at_the_end, ended, joined
from vcam.remote.protocol import HEALTH, HELLO_S, LARGEST_TEXT, PATH, Refusal, Refused, packed
from vcam.worker.priority import run_soon

LOG = logging.getLogger("vcam.serve")
HANDSHAKE_S = 5.0  # until a connection is secured
HEAD_S = 5.0  # until its request is whole
SAY_S = 60.0  # after which the log is told again why no connection can be taken
LARGEST_HEAD = 8 * 1024  # bytes of a request
MOST_UNFINISHED, MOST_OF_ONE = 1024, 256  # connections that behind has not taken, of all and of one place
MOST_FILES = 16_384  # that a process of the server may have open
BACKLOG = 512
_TOO_OFTEN = (
    f"an address connects more often than {HANDSHAKES_AT_ONCE} times at once and {HANDSHAKES} times a second after "
    "that: some of its connections are not taken"
)
_BUSY = "the server takes no connection now: it is starting, or busy"


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
        self._pace = HandshakePace()
        self._said_s: dict[str, float] = {}  # when the log was told, of each reason
        self._loop = asyncio.new_event_loop()
        self._health = Health(self._loop)
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
        run_soon()
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
                    self._say(f"a connection could not be taken: {error.strerror}")
                await asyncio.sleep(0.01 if gives_way else 0.1)
                continue
            await asyncio.sleep(0)  # where the next one is there already, streams have their turn before it
            place = one_place(address[0])
            wait_s = self._pace.wait_s(place, self._loop.time())
            if wait_s is None:
                connection.close()
                self._say(_TOO_OFTEN)
                continue
            task = self._loop.create_task(self._serve(connection, wait_s))
            self._tasks.add(task)
            self._unfinished[task] = place
            task.add_done_callback(self._done)
            self._make_way(place)

    def _say(self, why: str) -> None:
        """Tell the log why a connection could not be taken, each reason once in SAY_S."""
        now = self._loop.time()
        if now - self._said_s.get(why, -SAY_S) >= SAY_S:
            self._said_s[why] = now
            LOG.warning("%s", why)

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

    async def _serve(self, connection: socket.socket, wait_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        with connection:
            if wait_s:
                await asyncio.sleep(wait_s)
            try:
                reader, writer = await self._secured(connection)
            except (OSError, TimeoutError):  # ssl.SSLError is one
                return
            with aborted_at_the_end(writer):
                if answer := await self._served(Pipe(reader, writer), task):
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

    async def _served(self, stranger: Pipe, task: asyncio.Task[None]) -> tuple[HTTPStatus, bytes] | None:
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
        await ended(stranger.writer)
        return None

    async def _stream(self, stranger: Pipe, camera: ServerProtocol, task: asyncio.Task[None]) -> None:
        """Wait for the camera's first message, connect behind, and hand over what each side says until one ends."""
        lengths = MessageLengths()
        try:
            said = await asyncio.wait_for(_first_message(stranger.reader, lengths), HELLO_S)
        except MessageTooLarge:
            stranger.writer.write(TOO_LARGE)
            return
        except (OSError, TimeoutError, EOFError):
            return
        place = None if self.behind is None else await place_behind(self.behind)
        if place is None:
            camera.send_text(packed(Refused(Refusal.BUSY, _BUSY)).encode())
            camera.send_close(1013)
            stranger.writer.write(b"".join(camera.data_to_send()))
            return
        async with way_behind(place) as behind:
            behind.writer.write(said)
            self._unfinished.pop(task, None)
            await joined(stranger, behind, lengths)


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


async def _first_message(reader: asyncio.StreamReader, lengths: MessageLengths) -> bytes:
    """Return what a camera says until its first message is whole. Raises MessageTooLarge, EOFError where none is."""
    said = bytearray()
    while not lengths.whole:
        if len(said) > 2 * LARGEST_TEXT:  # with much else between its frames
            raise MessageTooLarge
        if not (data := await reader.read(CHUNK)):
            raise EOFError
        lengths.take(data)
        if lengths.closes and not lengths.whole:
            raise EOFError
        said += data
    return bytes(said)


async def _answer(writer: asyncio.StreamWriter, status: HTTPStatus, text: bytes) -> None:
    """Answer a request, the only one of its connection."""
    length = f"Content-Type: text/plain\r\nContent-Length: {len(text)}"
    if status is HTTPStatus.UPGRADE_REQUIRED:
        length += "\r\nUpgrade: websocket"
    writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{length}\r\nConnection: close\r\n\r\n".encode() + text)
    await ended(writer)


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
