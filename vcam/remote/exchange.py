"""What the connections of a server share, and what both directions of one must know."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vcam.errors import RemoteError, RemoteRefused
from vcam.remote.clients import ClientBook
from vcam.remote.codecs import PictureCodec
from vcam.remote.host import EngineHost
from vcam.remote.protocol import NO_RECEIPT, WINDOW, Refusal

MOST_UNREAD = 4 * WINDOW  # answers of which a camera has not named the receipt
MOST_RECEIPTS = 2**32 - 1  # nobody guesses one
MOST_TIMED = 16  # pictures of which it is remembered how long their decoding took


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
