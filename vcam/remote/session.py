"""One camera's connection to an engine server: what comes, what goes, and what both of it must know."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vcam.errors import CodecError, RemoteError, RemoteRefused
from vcam.remote.admission import Admitted, admitted, revoked
from vcam.remote.allowance import Allowance, PicturePace
from vcam.remote.clients import ClientBook
from vcam.remote.codecs import PictureCodec, codecs
from vcam.remote.host import EngineHost, Made, PictureOrder, Stream, StreamOrder
from vcam.remote.protocol import (
    ALIVE_S,
    HELLO_S,
    LARGEST_TEXT,
    NO_RECEIPT,
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
)

LOG = logging.getLogger("vcam.serve")
CAMERA_SILENT_S = 10.0  # without a word from a camera: its stream is given to others
SEND_S = 5.0  # how long a camera may take to take an answer
MOST_TEXTS, TEXTS_AT_ONCE = 50, 300  # a second of a camera
MOST_UNREAD = 4 * WINDOW  # answers of which a camera has not named the receipt
MOST_RECEIPTS = 2**32 - 1  # nobody guesses one
MOST_TIMED = 16  # pictures of which it is remembered how long their decoding took

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass
class ServerCounts:
    """What a server has done since its start. refused: connections, by why."""

    connected: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Serving:
    """What the connections of one server share. pool: decodes and encodes, beside the engines' thread."""

    host: EngineHost
    book: ClientBook
    counts: ServerCounts
    pool: ThreadPoolExecutor
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


class Receipts:
    """Of the answers of one connection: whoever takes answers on a camera's behalf cannot name them."""

    def __init__(self) -> None:
        self._unread = deque[int]()  # that the camera may name
        self._last = NO_RECEIPT  # that it named

    def make(self) -> int:
        """Return one for an answer that is about to be sent."""
        receipt = secrets.randbelow(MOST_RECEIPTS) + 1
        self._unread.append(receipt)
        return receipt

    def named(self, receipt: int) -> None:
        """Take note of what the camera has read; raises RemoteError, also where more than MOST_UNREAD are unread."""
        if receipt in self._unread:
            while self._unread[0] != receipt:
                self._unread.popleft()
            self._last = self._unread.popleft()
        elif receipt != self._last:
            raise RemoteError("the camera names the receipt of an answer that it was not given")
        if len(self._unread) > MOST_UNREAD:
            raise RemoteRefused("the camera does not read its answers", Refusal.LIMIT)


class Exchange:
    """What both directions of a connection know. unanswered: pictures; decode_ms: of each by its number."""

    def __init__(self) -> None:
        self.unanswered = 0
        self.receipts, self.coding = Receipts(), PictureCodec()
        self._decode_ms: dict[int, float] = {}

    def decoded(self, number: int, ms: float) -> None:
        """Take note of how long it took to decode a picture."""
        self._decode_ms[number] = ms
        while len(self._decode_ms) > MOST_TIMED:
            del self._decode_ms[next(iter(self._decode_ms))]

    def decode_ms(self, number: int) -> float:
        """Return how long that picture's decoding took, once."""
        return self._decode_ms.pop(number, 0.0)


class _ArrivedPicture(NamedTuple):
    """A picture's message, as it came."""

    data: bytes


class Incoming:
    """What a camera says. note: tells it something of its engine."""

    def __init__(self, serving: Serving, receive: Receive, exchange: Exchange, note: Callable[[str], None]) -> None:
        self._serving, self._receive, self._exchange = serving, receive, exchange
        self._pace = PicturePace(note, serving.clock, serving.sleep)
        self._texts = Allowance(MOST_TEXTS, TEXTS_AT_ONCE)
        self._arrived: deque[_ArrivedPicture | StreamOrder] = deque()
        self._arrival = asyncio.Event()

    async def next(self) -> Message:
        """Return the next message; raises ConnectionResetError where the camera has ended the connection."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise ConnectionResetError("the camera has ended the connection")
        return message

    async def read(self) -> None:
        """Take what comes; raises TimeoutError after CAMERA_SILENT_S, and RemoteError for what must not come."""
        while True:
            async with asyncio.timeout(CAMERA_SILENT_S):  # wait_for makes a task of each
                message = await self.next()
            data, text = message.get("bytes"), message.get("text")
            self._serving.counts.received_bytes += len(data if data is not None else text or "")
            if data is not None:
                self._exchange.unanswered += 1
                if self._exchange.unanswered > WINDOW:
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

    async def take(self, stream: Stream) -> None:
        """Hand over what has come, in its order and at the pace that is allowed."""
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            while self._arrived:
                one = self._arrived.popleft()
                if isinstance(one, _ArrivedPicture):
                    await self._picture(stream, one.data)
                else:
                    self._serving.host.give(stream, one)

    def _said(self, text: str) -> StreamOrder | Alive:
        if not self._texts.take(1, self._serving.clock()):
            raise RemoteRefused("the camera sends more than the server takes", Refusal.LIMIT)
        if len(text) > LARGEST_TEXT:
            raise RemoteRefused("the camera sent a text that is too long", Refusal.LIMIT)
        said = from_camera(text)
        if isinstance(said, Hello):
            raise RemoteError("the camera said twice who it is")
        return said

    async def _picture(self, stream: Stream, data: bytes) -> None:
        if stream.engine is None:
            raise RemoteError("a picture came before the engine was loaded")
        given = unpacked_picture(data)
        self._exchange.receipts.named(given.receipt)
        held_s = await self._pace.wait(len(data))
        loop, began_s = asyncio.get_running_loop(), time.perf_counter()
        if not given.coded:
            self._exchange.coding.wants(given.codec)
            self._hand_over(stream, given, held_s, began_s)
        else:  # and from there to the engine: it need not wait until this loop has heard of it
            await loop.run_in_executor(self._serving.pool, self._hand_over, stream, given, held_s, began_s)

    def _hand_over(self, stream: Stream, given: GivenPicture, held_s: float, began_s: float) -> None:
        """Decode a picture and give it to the engine; raises RemoteError."""
        size = stream.settings.width, stream.settings.height
        picture = self._exchange.coding.decode(given.coded, given.codec, size) if given.coded else None
        self._exchange.decoded(given.number, 1000 * (time.perf_counter() - began_s))
        self._serving.host.give(stream, PictureOrder(given.number, picture), held_s)


class _Encoded(NamedTuple):
    """An answer that can be sent. encode_ms: from when the engine had made it."""

    made: Made
    coded: bytes
    codec: Codec
    encode_ms: float


class Outgoing:
    """What a camera is told: `tell` is for any thread, all else for the event loop's."""

    def __init__(self, serving: Serving, send: Send, exchange: Exchange) -> None:
        self._serving, self._send, self._exchange = serving, send, exchange
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[FromServer | _Encoded] = deque()
        self._stirred = asyncio.Event()
        self._unencoded: deque[tuple[Made, float]] = deque()  # with when each was made
        self._encoding = threading.Lock()
        self._loaded: Loaded | None = None

    def tell(self, message: FromServer | Made) -> None:
        """Have a message sent; a picture is encoded before, beside everything else."""
        try:
            if isinstance(message, Made):
                self._unencoded.append((message, time.perf_counter()))
                self._serving.pool.submit(self._encode_next)
            else:
                self._loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:
            LOG.debug("the server has ended before an answer")

    def note(self, text: str) -> None:
        """Have the camera's status say this of its engine."""
        if self._loaded is not None:
            facts = self._loaded.facts
            self._put(Loaded(replace(facts, note="; ".join(one for one in (facts.note, text) if one))))

    async def write(self, token: str) -> None:
        """Send what is to be said, for as long as the token is good."""
        while True:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._stirred.wait()
            except TimeoutError:
                await self._send_text(Alive())
            self._stirred.clear()
            if (refused := revoked(self._serving.book, token)) is not None:
                await self.refuse(refused)
                return
            while self._outbox:
                message = self._outbox.popleft()
                if isinstance(message, Refused):
                    await self.refuse(message)
                    return
                await self._say(message)

    async def refuse(self, refused: Refused) -> None:
        """Say why, and end the connection."""
        self._serving.counts.refused[refused.code] += 1
        try:
            await self._send_text(refused)
            await asyncio.wait_for(self._send({"type": "websocket.close", "code": 1008}), SEND_S)
        except (TimeoutError, OSError, RuntimeError):
            LOG.debug("a camera was gone before it was refused")

    def _encode_next(self) -> None:
        """Encode the oldest answer: in the order of the engine, for each H.264 picture is told by its difference."""
        with self._encoding:
            made, made_s = self._unencoded.popleft()
            answer: _Encoded | Refused
            coding, codec = self._exchange.coding, self._exchange.coding.came
            try:
                coded = b"" if made.picture is None else coding.encode(made.picture, codec)
                answer = _Encoded(made, coded, codec, 1000 * (time.perf_counter() - made_s))
            except CodecError as error:
                answer = Refused(Refusal.CODEC, str(error))
            except Exception as error:
                LOG.error("an answer could not be encoded", exc_info=error)
                answer = Refused(Refusal.ENGINE, f"the translation could not be encoded ({type(error).__name__})")
            try:
                self._loop.call_soon_threadsafe(self._put, answer)
            except RuntimeError:
                LOG.debug("the server has ended before an answer")

    def _put(self, message: FromServer | _Encoded) -> None:
        self._outbox.append(message)
        self._stirred.set()

    async def _say(self, message: FromServer | _Encoded) -> None:
        match message:
            case _Encoded():
                await self._answer(message)
            case Loaded():
                message = replace(message, codecs=codecs())
                self._loaded = self._loaded or message
                await self._send_text(message)
            case _:
                self._exchange.unanswered -= isinstance(message, Failed) and message.kind == "picture"
                await self._send_text(message)

    async def _answer(self, encoded: _Encoded) -> None:
        made = encoded.made
        times = made.waited_ms, made.engine_ms, self._exchange.decode_ms(made.answers), encoded.encode_ms
        of_bank = made.bank_bytes, encoded.coded, made.refreshes
        # before it is sent: its receipt, and the next picture, may come while that is waited for
        receipt = self._exchange.receipts.make()
        self._exchange.unanswered -= 1
        data = packed_answer(Answer(made.answers, made.shows, *times, *of_bank, made.replaced, receipt, encoded.codec))
        await self._within({"type": "websocket.send", "bytes": data})
        self._serving.counts.sent_bytes += len(data)

    async def _send_text(self, message: FromServer) -> None:
        await self._within({"type": "websocket.send", "text": packed(message)})

    async def _within(self, message: Message) -> None:
        """Send it; raises TimeoutError where the camera does not take it."""
        async with asyncio.timeout(SEND_S):
            await self._send(message)


class CameraSession:
    """One camera's connection, from its Hello to its end."""

    def __init__(self, serving: Serving, receive: Receive, send: Send) -> None:
        self._serving = serving
        exchange = Exchange()
        self._outgoing = Outgoing(serving, send, exchange)
        self._incoming = Incoming(serving, receive, exchange, self._outgoing.note)

    async def hello(self) -> Admitted | Refused:
        """Return who it is, within HELLO_S, or why it is refused."""
        async with asyncio.timeout(HELLO_S):
            message = await self._incoming.next()
        text = message.get("text")
        if text is None:
            return Refused(Refusal.PROTOCOL, "a picture came before the camera said who it is")
        return admitted(self._serving.book, text)

    async def serve(self, admitted: Admitted | Refused) -> None:
        """Serve it to its end."""
        outgoing, incoming, host = self._outgoing, self._incoming, self._serving.host
        if isinstance(admitted, Refused):
            await outgoing.refuse(admitted)
            return
        hello = admitted.hello
        stream = host.open(admitted.client, hello.camera, hello.settings, hello.look, outgoing.tell)
        if isinstance(stream, Refused):
            await outgoing.refuse(stream)
            return
        work = incoming.read(), incoming.take(stream), outgoing.write(hello.token)
        tasks = [asyncio.ensure_future(self._refusing(one)) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None and not isinstance(error, OSError | TimeoutError):
                    LOG.error("a connection failed", exc_info=error)
        finally:
            host.end(stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refusing(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; what the camera does wrong ends the connection, in words."""
        try:
            await work
        except RemoteRefused as error:
            await self._outgoing.refuse(Refused(Refusal(error.code), str(error)))
        except CodecError as error:
            await self._outgoing.refuse(Refused(Refusal.CODEC, str(error)))
        except RemoteError as error:
            await self._outgoing.refuse(Refused(Refusal.PROTOCOL, str(error)))
