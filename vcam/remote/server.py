"""An engine server as an ASGI application: lets cameras in, takes their pictures, answers with translations.

Whoever hosts it (Ray Serve; in the tests a plain web server) ends TLS before it. It keeps no picture, writes none to a
disk, and logs neither pictures nor prompts nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vcam.errors import CodecError, RemoteError, RemoteRefused
from vcam.remote.clients import ClientBook
from vcam.remote.codecs import PictureCodec, codecs
from vcam.remote.host import EngineHost, Made, PictureOrder, Stream, StreamOrder
from vcam.remote.protocol import (
    ALIVE_S,
    HEALTH,
    HELLO_S,
    LARGEST_TEXT,
    NO_RECEIPT,
    PATH,
    VERSION,
    WINDOW,
    Alive,
    Answer,
    Codec,
    Failed,
    FromServer,
    GivenPicture,
    Hello,
    Loaded,
    Refusal,
    Refused,
    from_camera,
    packed,
    packed_answer,
    unpacked_picture,
    version_of,
)

LOG = logging.getLogger("vcam.serve")
CAMERA_SILENT_S = 10.0  # without a word from a camera: its stream is given to others
SEND_S = 5.0  # how long a camera may take to take an answer
MOST_FPS, MOST_BYTES = 120, 32_000_000  # a second of a camera: what comes beyond waits
AT_ONCE_S = 0.1  # of which so much may come at once
UNREADABLE = "the server cannot tell at the moment who is let in; whoever runs it finds why in its log"
HELD_BACK = (
    f"the server takes at most {MOST_FPS} pictures and {MOST_BYTES // 1_000_000} MB a second of a camera, and this one "
    "offers more: it gets the newest ones translated; --fps sets how many it offers"
)
TOLD_S = 5.0  # how long a camera is told so after it was last the case
MOST_WAITING = 512  # connections that have not said who they are
CROWDED = Refused(Refusal.BUSY, "the server is busy: too many connect at once")
MOST_UNREAD = 4 * WINDOW  # answers of which a camera has not named the receipt
MOST_RECEIPTS = 2**32 - 1  # nobody guesses one
CODEC_THREADS = 4

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass
class Allowance:
    """How much of something may come: `rate` a second, `burst` at once. Its clock is whoever asks.

    Whatever comes beyond is refused (`take`), or has to wait (`wait_s`).
    """

    rate: float
    burst: float
    left: float = field(init=False)
    asked_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.left = self.burst

    def take(self, amount: float, now_s: float) -> bool:
        """Return whether so much may come now, and take it."""
        self._refill(now_s)
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def wait_s(self, amount: float, now_s: float) -> float:
        """Take so much, and return how long it has to wait."""
        self._refill(now_s)
        self.left -= amount
        return max(0.0, -self.left / self.rate)

    def _refill(self, now_s: float) -> None:
        self.left = min(self.burst, self.left + max(0.0, now_s - self.asked_s) * self.rate)
        self.asked_s = now_s


class Admitted(NamedTuple):
    """A camera that is let in. client: whose token it has."""

    client: str
    hello: Hello


class _ArrivedPicture(NamedTuple):
    """A picture's message, as it came."""

    data: bytes


@dataclass
class ServerCounts:
    """What a server has done since its start. refused: connections, by why."""

    connected: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class EngineServer:
    """The ASGI application. health: GET /health; streams: a WebSocket at PATH."""

    def __init__(
        self,
        host: EngineHost,
        book: ClientBook,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.host, self.book, self.counts = host, book, ServerCounts()
        self._clock, self.sleep = clock, sleep
        self._waiting: dict[asyncio.Task[Admitted | Refused], None] = {}  # for a Hello, the oldest first
        self._codecs = ThreadPoolExecutor(CODEC_THREADS, "vcam-codec")  # beside the engines' thread
        codecs()  # what must be tried for it is tried now

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, send)
        elif scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})

    async def _http(self, scope: Mapping[str, Any], send: Send) -> None:
        known = scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD")
        status = 404 if not known else 503 if self.host.broken else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        text = b"well\n" if status == 200 else b"not well\n" if known else b"not found\n"
        await send({"type": "http.response.body", "body": text})

    async def _websocket(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        if scope["path"] != PATH:
            await send({"type": "websocket.close", "code": 1013})
            return
        self.counts.connected += 1
        session = CameraSession(self, receive, send)
        try:
            await send({"type": "websocket.accept"})
            said = await self._hello(session)
        except (TimeoutError, OSError):
            return
        await session.serve(said)

    async def _hello(self, session: CameraSession) -> Admitted | Refused:
        """Return what the camera says first; where too many have said nothing yet, the oldest of them gives way."""
        hello = asyncio.ensure_future(session.hello())
        self._waiting[hello] = None
        try:
            if len(self._waiting) > MOST_WAITING:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                oldest.cancel()
            await asyncio.wait([hello])
            return CROWDED if hello.cancelled() else hello.result()
        finally:
            self._waiting.pop(hello, None)
            hello.cancel()

    def admitted(self, text: str) -> Admitted | Refused:
        """Return what the first message of a camera says, or why it is not let in: token before everything else."""
        version = version_of(text)
        if version != VERSION:
            theirs = "none" if version is None else version
            return Refused(
                Refusal.VERSION,
                f"the camera speaks version {theirs} of the protocol, the server version {VERSION}; "
                "install the same version of StreamV2V Camera on both",
            )
        try:
            hello = from_camera(text)
            if not isinstance(hello, Hello):
                raise RemoteError("the first message says not who the camera is")
        except RemoteError as error:
            return Refused(Refusal.PROTOCOL, str(error))
        try:
            name, why = self.book.check(hello.token)
        except RemoteError as error:  # it names a path of this machine, which is no business of strangers
            LOG.error("%s", error)
            return Refused(Refusal.BUSY, UNREADABLE)
        if why is Refusal.TOKEN:
            return Refused(
                why, "the server does not know this camera's token; pair anew: vcam serve clients add NAME there"
            )
        if why is not None:
            return Refused(
                why, f"the server has revoked the client {name!r}; pair anew: vcam serve clients add NAME there"
            )
        return Admitted(name, hello)

    async def decoded(self, by: PictureCodec, given: GivenPicture, size: tuple[int, int]) -> Any:
        """Return the picture that was given, beside everything else; raises RemoteError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._codecs, by.decode, given.coded, given.codec, size)

    async def encoded(self, by: PictureCodec, picture: Any, codec: Codec) -> bytes:
        """Return the picture in that codec, beside everything else; raises CodecError."""
        return await asyncio.get_running_loop().run_in_executor(self._codecs, by.encode, picture, codec)

    def now(self) -> float:
        """Return the server's clock, in seconds."""
        return self._clock()

    def close(self) -> None:
        """End the engines."""
        self.host.close()
        self._codecs.shutdown(wait=False)


class CameraSession:
    """One camera's connection, from its Hello to its end."""

    def __init__(self, server: EngineServer, receive: Receive, send: Send) -> None:
        self._server, self._receive, self._send = server, receive, send
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[FromServer | Made] = deque()
        self._stirred = asyncio.Event()
        self._unread, self._receipt = deque[int](), NO_RECEIPT  # receipts that the camera may name; the last it named
        self._decode_ms: dict[int, float] = {}
        self._coding = PictureCodec()
        self._arrived: deque[_ArrivedPicture | StreamOrder] = deque()
        self._arrival = asyncio.Event()
        self._open = 0  # pictures that are not answered
        self._pictures = Allowance(MOST_FPS, MOST_FPS * AT_ONCE_S)
        self._bytes, self._texts = Allowance(MOST_BYTES, MOST_BYTES * AT_ONCE_S), Allowance(50, 300)
        self._loaded: Loaded | None = None
        self._held_back_s: float | None = None  # when a picture last had to wait; None where nothing is told of it

    async def hello(self) -> Admitted | Refused:
        """Return who it is, within HELLO_S, or why it is refused."""
        message = await asyncio.wait_for(self._next(), HELLO_S)
        text = message.get("text")
        if text is None:
            return Refused(Refusal.PROTOCOL, "a picture came before the camera said who it is")
        return self._server.admitted(text)

    async def serve(self, admitted: Admitted | Refused) -> None:
        """Serve it to its end."""
        if isinstance(admitted, Refused):
            await self._refuse(admitted)
            return
        hello = admitted.hello
        stream = self._server.host.open(admitted.client, hello.camera, hello.settings, hello.look, self._tell)
        if isinstance(stream, Refused):
            await self._refuse(stream)
            return
        work = (self._refusing(self._read()), self._refusing(self._take(stream)))
        tasks = [asyncio.ensure_future(one) for one in (*work, self._refusing(self._write(hello.token)))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None and not isinstance(error, OSError | TimeoutError):
                    LOG.error("a connection failed", exc_info=error)
        finally:
            self._server.host.end(stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- from the camera

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise ConnectionResetError("the camera has ended the connection")
        return message

    async def _refusing(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; what the camera does wrong ends the connection, in words."""
        try:
            await work
        except RemoteRefused as error:
            await self._refuse(Refused(Refusal(error.code), str(error)))
        except CodecError as error:
            await self._refuse(Refused(Refusal.CODEC, str(error)))
        except RemoteError as error:
            await self._refuse(Refused(Refusal.PROTOCOL, str(error)))

    async def _read(self) -> None:
        while True:
            message = await asyncio.wait_for(self._next(), CAMERA_SILENT_S)
            data, text = message.get("bytes"), message.get("text")
            self._server.counts.received_bytes += len(data if data is not None else text or "")
            if data is not None:
                self._open += 1
                if self._open > WINDOW:
                    raise RemoteRefused(
                        f"the camera sends pictures without waiting for answers; {WINDOW} may be on their way",
                        Refusal.LIMIT,
                    )
                self._arrived.append(_ArrivedPicture(data))
            else:
                said = self._said(text or "")
                if isinstance(said, Alive):
                    continue
                self._arrived.append(said)
            self._arrival.set()

    def _said(self, text: str) -> StreamOrder | Alive:
        if not self._texts.take(1, self._server.now()):
            raise RemoteRefused("the camera sends more than the server takes", Refusal.LIMIT)
        if len(text) > LARGEST_TEXT:
            raise RemoteRefused("the camera sent a text that is too long", Refusal.LIMIT)
        said = from_camera(text)
        if isinstance(said, Hello):
            raise RemoteError("the camera said twice who it is")
        return said

    async def _take(self, stream: Stream) -> None:
        """Hand over what has come, in its order; pictures no faster than MOST_FPS and MOST_BYTES allow."""
        size = stream.settings.width, stream.settings.height
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            while self._arrived:
                one = self._arrived.popleft()
                if isinstance(one, _ArrivedPicture):
                    await self._picture(stream, one.data, size)
                else:
                    self._server.host.give(stream, one)

    async def _picture(self, stream: Stream, data: bytes, size: tuple[int, int]) -> None:
        if stream.engine is None:
            raise RemoteError("a picture came before the engine was loaded")
        given = unpacked_picture(data)
        self._reads(given.receipt)
        held_s = await self._held_back(len(data))
        began_s = time.perf_counter()
        picture = None
        if given.coded:
            picture = await self._server.decoded(self._coding, given, size)
        else:
            self._coding.wants(given.codec)
        self._decode_ms[given.number] = 1000 * (time.perf_counter() - began_s)
        while len(self._decode_ms) > 16:
            del self._decode_ms[next(iter(self._decode_ms))]
        self._server.host.give(stream, PictureOrder(given.number, picture), held_s)

    async def _held_back(self, length: int) -> float:
        """Wait until a picture of so many bytes may be taken, and return how long; the camera is told that it is so."""
        now = self._server.now()
        wait_s = max(self._pictures.wait_s(1, now), self._bytes.wait_s(length, now))
        if wait_s:
            if self._held_back_s is None:
                self._note(HELD_BACK)
            self._held_back_s = now
            await self._server.sleep(wait_s)
        elif self._held_back_s is not None and now - self._held_back_s > TOLD_S:
            self._held_back_s = None
            self._note("")
        return wait_s

    def _note(self, text: str) -> None:
        """Have the camera's status say this of its engine."""
        if self._loaded is not None:
            facts = self._loaded.facts
            self._put(Loaded(replace(facts, note="; ".join(one for one in (facts.note, text) if one))))

    def _reads(self, receipt: int) -> None:
        """Take note of what the camera has read: whoever takes answers on its behalf keeps no more than MOST_UNREAD."""
        if receipt in self._unread:
            while self._unread[0] != receipt:
                self._unread.popleft()
            self._receipt = self._unread.popleft()
        elif receipt != self._receipt:
            raise RemoteError("the camera names the receipt of an answer that it was not given")
        if len(self._unread) > MOST_UNREAD:
            raise RemoteRefused("the camera does not read its answers", Refusal.LIMIT)

    # ---- to the camera

    def _tell(self, message: FromServer | Made) -> None:
        """Have a message sent; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:
            LOG.debug("the server has ended before an answer")

    def _put(self, message: FromServer | Made) -> None:
        self._outbox.append(message)
        self._stirred.set()

    async def _write(self, token: str) -> None:
        while True:
            try:
                await asyncio.wait_for(self._stirred.wait(), ALIVE_S)
            except TimeoutError:
                await self._send_text(Alive())
            self._stirred.clear()
            if (refused := self._revoked(token)) is not None:
                await self._refuse(refused)
                return
            while self._outbox:
                message = self._outbox.popleft()
                if isinstance(message, Refused):
                    await self._refuse(message)
                    return
                if isinstance(message, Loaded):
                    message = replace(message, codecs=codecs())
                if isinstance(message, Made):
                    await self._answer(message)
                else:
                    self._open -= isinstance(message, Failed) and message.kind == "picture"
                    if isinstance(message, Loaded) and self._loaded is None:
                        self._loaded = message
                    await self._send_text(message)

    async def _answer(self, made: Made) -> None:
        began_s = time.perf_counter()
        codec = self._coding.came
        coded = b"" if made.picture is None else await self._server.encoded(self._coding, made.picture, codec)
        encode_ms = 1000 * (time.perf_counter() - began_s)
        decode_ms = self._decode_ms.pop(made.answers, 0.0)
        times = (made.waited_ms, made.engine_ms, decode_ms, encode_ms)
        of_bank = made.bank_bytes, coded, made.refreshes
        receipt = secrets.randbelow(MOST_RECEIPTS) + 1
        data = packed_answer(Answer(made.answers, made.shows, *times, *of_bank, made.replaced, receipt, codec))
        # before it is sent: its receipt, and the next picture, may come while that is waited for
        self._unread.append(receipt)
        self._open -= 1
        await asyncio.wait_for(self._send({"type": "websocket.send", "bytes": data}), SEND_S)
        self._server.counts.sent_bytes += len(data)

    async def _send_text(self, message: FromServer) -> None:
        await asyncio.wait_for(self._send({"type": "websocket.send", "text": packed(message)}), SEND_S)

    def _revoked(self, token: str) -> Refused | None:
        try:
            name, why = self._server.book.check(token)
        except RemoteError as error:
            LOG.error("%s", error)  # those who were let in stay until it can be read again
            return None
        if why is None:
            return None
        return Refused(Refusal.REVOKED, f"the server has revoked this client{f' {name!r}' if name else ''}")

    async def _refuse(self, refused: Refused) -> None:
        """Say why, and end the connection."""
        self._server.counts.refused[refused.code] += 1
        try:
            await self._send_text(refused)
            await asyncio.wait_for(self._send({"type": "websocket.close", "code": 1008}), SEND_S)
        except (TimeoutError, OSError, RuntimeError):
            LOG.debug("a camera was gone before it was refused")
