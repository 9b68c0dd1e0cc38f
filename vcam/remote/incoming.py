"""What one camera says to an engine server: read as it comes, held against its limits, given to its stream."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from vcam.errors import RemoteError, RemoteRefused
from vcam.remote.allowance import Allowance, PicturePace
from vcam.remote.exchange import Exchange, Serving
from vcam.remote.protocol import (
    LARGEST_TEXT,
    WINDOW,
    Alive,
    GivenPicture,
    Hello,
    Refusal,
    from_camera,
    unpacked_picture,
)
from vcam.remote.side_door import Message, MessageWay
from vcam.remote.streams import PictureOrder, Stream, StreamOrder

CAMERA_SILENT_S = 10.0  # without a word from a camera: its stream is given to others
MOST_TEXTS, TEXTS_AT_ONCE = 50, 300  # a second of a camera


class _ArrivedPicture(NamedTuple):
    """A picture's message, as it came."""

    data: bytes


class Incoming:
    """What a camera says. note: tells it something of its engine."""

    def __init__(self, serving: Serving, way: MessageWay, exchange: Exchange, note: Callable[[str], None]) -> None:
        self._serving, self._way, self._exchange = serving, way, exchange
        self._pace = PicturePace(note, serving.clock, serving.sleep)
        self._texts = Allowance(MOST_TEXTS, TEXTS_AT_ONCE)
        self._arrived: deque[_ArrivedPicture | StreamOrder] = deque()
        self._arrival = asyncio.Event()

    async def next(self) -> Message:
        """Return the next message; raises ConnectionResetError where the camera has ended the connection."""
        message = await self._way.receive()
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
