"""An engine server as an ASGI application: lets cameras in, takes their pictures, answers with translations.

Whoever hosts it (Ray Serve; in the tests a plain web server) ends TLS before it; a front on this machine has a camera's
messages go past that host (vcam.remote.side_door). It keeps no picture, writes none to a disk, and logs neither
pictures nor prompts nor tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vcam.remote.admission import Admitted
from vcam.remote.clients import ClientBook
from vcam.remote.codecs import codecs
from vcam.remote.exchange import ServerCounts, Serving
from vcam.remote.host import EngineHost
from vcam.remote.protocol import HEALTH, PATH, Refusal, Refused
from vcam.remote.session import CameraSession
from vcam.remote.side_door import CameraWay, Receive, Send, SideDoor
from vcam.worker.priority import run_soon

MOST_WAITING = 512  # connections that have not said who they are
CROWDED = Refused(Refusal.BUSY, "the server is busy: too many connect at once")
CODEC_THREADS = 4


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
        pool = ThreadPoolExecutor(CODEC_THREADS, "vcam-codec", run_soon)
        self._serving = Serving(host, book, self.counts, pool, clock, sleep)
        self._waiting: dict[asyncio.Task[Admitted | Refused], None] = {}  # for a Hello, the oldest first
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
        run_soon()  # this thread, whosever it is: an engine may keep every core busy
        self.counts.connected += 1
        with contextlib.closing(SideDoor()) as door:
            way = CameraWay(door, receive, send)
            try:
                await send({"type": "websocket.accept", "headers": door.headers})
                session = CameraSession(self._serving, way)
                await session.serve(await self._hello(session))
            except (TimeoutError, OSError):
                return
            finally:
                await way.close()

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

    def close(self) -> None:
        """End the engines."""
        self.host.close()
        self._serving.pool.shutdown(wait=False)
