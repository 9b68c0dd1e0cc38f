"""A camera of an engine server's ASGI application, in its event loop: no socket, no TLS, no thread."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from core.settings import EngineSettings, Look
from tests.support.engine_server import FAKE
from tests.support.patience import PATIENCE_S
from vcam.remote.jpegs import to_jpeg
from vcam.remote.protocol import (
    NO_RECEIPT,
    PATH,
    WINDOW,
    Answer,
    FromCamera,
    FromServer,
    GivenPicture,
    Hello,
    Loaded,
    Refused,
    from_server,
    packed,
    packed_picture,
    unpacked_answer,
)
from vcam.remote.server import EngineServer

GREY = to_jpeg(np.full((64, 96, 3), 100, np.uint8))


class AsgiCamera:
    """Connects when it is built. heard: the server's messages, oldest first; answers: to pictures."""

    def __init__(self, server: EngineServer) -> None:
        self.heard: list[FromServer] = []
        self.answers: list[Answer] = []
        self._given, self._receipt = 0, NO_RECEIPT
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news = asyncio.Condition()
        self._to_server.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": PATH}
        self._task = asyncio.ensure_future(server(scope, self._to_server.get, self._send))
        self._task.add_done_callback(lambda _: None)

    def say(self, message: FromCamera | str | bytes) -> None:
        """Send it."""
        data = message if isinstance(message, str | bytes) else packed(message)
        kind = "bytes" if isinstance(data, bytes) else "text"
        self._to_server.put_nowait({"type": "websocket.receive", kind: data})

    def hello(self, token: str, name: str = "camera", settings: EngineSettings = FAKE) -> AsgiCamera:
        self.say(Hello(token, name, settings, Look("ink")))
        return self

    def give(self, jpeg: bytes = GREY) -> None:
        """Send a picture, whether or not others are on their way."""
        self.say(packed_picture(GivenPicture(self._given, self._receipt, jpeg)))
        self._given += 1

    async def until(self, true: Any, what: str) -> None:
        """Wait until `true()`, which is asked at each message."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(true), PATIENCE_S)
            assert true(), what

    async def loaded(self) -> AsgiCamera:
        await self.until(lambda: any(isinstance(one, Loaded) for one in self.heard), "it has not loaded")
        return self

    async def refusal(self) -> Refused:
        """The server's last word, once the connection has ended."""
        await asyncio.wait_for(self._task, PATIENCE_S)
        last = self.heard[-1]
        assert isinstance(last, Refused)
        return last

    async def run(self, pictures: int, window: int = WINDOW) -> None:
        """Have so many translated, `window` at most on their way."""
        while self._given < pictures:
            await self.until(lambda: self._given - len(self.answers) < window, "no answers come")
            self.give()
        await self.until(lambda: len(self.answers) == pictures, "answers are missing")

    async def end(self) -> None:
        self._to_server.put_nowait({"type": "websocket.disconnect"})
        await asyncio.wait_for(self._task, PATIENCE_S)

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._news:
            if (data := message.get("bytes")) is not None:
                answer = unpacked_answer(data)
                self._receipt = answer.receipt
                self.answers.append(answer)
            elif (text := message.get("text")) is not None:
                self.heard.append(from_server(text))
            self._news.notify_all()
