"""Live pictures over HTTP: parts of a multipart stream, for as many viewers as there may be at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vcam.control.guard import answer
from vcam.control.jpeg import NewestJpeg

STREAMS = 8  # live pictures at once
STREAM_FPS = 15


class LiveStreams:
    """The live pictures that are being watched; all end when `closing` is set."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing, self._open = closing, 0

    def response(self, jpegs: NewestJpeg) -> Response:
        """Return a stream of these pictures, or a refusal where too many are watched already."""
        if self._open >= STREAMS:
            return answer(503, f"{STREAMS} windows show the picture already; close one")
        self._open += 1  # before anything is awaited: many may ask at once
        return _LiveResponse(self._parts(jpegs), self._ended)

    def _ended(self) -> None:
        self._open -= 1

    async def _parts(self, jpegs: NewestJpeg) -> AsyncIterator[bytes]:
        last, unchanged = b"", 0
        yield b"--picture\r\n"
        while not self._closing.is_set():
            data = await asyncio.to_thread(jpegs.get)
            unchanged = unchanged + 1 if data is last else 0
            # again where it stands still: Chromium shows a part only when the next one has come
            if data is not None and (unchanged <= 1 or unchanged % STREAM_FPS == 0):
                last = data
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                yield head.encode() + data + b"\r\n--picture\r\n"
            await asyncio.sleep(1 / STREAM_FPS)


class _LiveResponse(StreamingResponse):
    """A live picture; `ended` is called once, however it ends, and also where it never begins."""

    def __init__(self, parts: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(parts, media_type="multipart/x-mixed-replace; boundary=picture")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts until the viewer leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
