"""What one camera is told by an engine server: answers are encoded beside everything else, and sent in their order."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from vcam.errors import CodecError
from vcam.remote.admission import revoked
from vcam.remote.codecs import codecs
from vcam.remote.exchange import Exchange, Serving
from vcam.remote.protocol import (
    ALIVE_S,
    Alive,
    Answer,
    Codec,
    Failed,
    FromServer,
    Loaded,
    Refusal,
    Refused,
    packed,
    packed_answer,
)
from vcam.remote.side_door import Message, MessageWay
from vcam.remote.streams import Made

LOG = logging.getLogger("vcam.serve")
SEND_S = 5.0  # how long a camera may take to take an answer


class _Encoded(NamedTuple):
    """An answer that can be sent. encode_ms: from when the engine had made it."""

    made: Made
    coded: bytes
    codec: Codec
    encode_ms: float


class Outgoing:
    """What a camera is told: `tell` is for any thread, all else for the event loop's."""

    def __init__(self, serving: Serving, way: MessageWay, exchange: Exchange) -> None:
        self._serving, self._way, self._exchange = serving, way, exchange
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
            self._put(Loaded(self._loaded.facts.noted(text)))

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
            await asyncio.wait_for(self._way.send({"type": "websocket.close", "code": 1008}), SEND_S)
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
            await self._way.send(message)
