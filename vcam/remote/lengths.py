"""How long the messages of a WebSocket are, read from its bytes as they pass."""

from __future__ import annotations

from vcam.errors import MessageTooLarge
from vcam.remote.protocol import LARGEST_PICTURE, LARGEST_TEXT

ANY = 1 << 64  # bytes
TOO_LARGE = b"\x88\x02\x03\xf1"  # a WebSocket's close frame, code 1009


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
