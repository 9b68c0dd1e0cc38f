"""What is behind a server's front on this machine: Ray's proxy, how it is, and the ways of messages to a replica."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from vcam.remote.pipes import CHUNK, Pipe, aborted_at_the_end
from vcam.remote.protocol import HEALTH, PATH
from vcam.remote.side_door import HEADER, through

BEHIND_S = 20.0  # until Ray answers
ANSWER_S = 2.0  # until the rest of its answer is there
KNOWN_S = 1.0  # for which what behind said of its health is taken as known
LARGEST_ANSWER = 8 * 1024  # bytes of its health


class Health:
    """Whether behind is well: asked for once in KNOWN_S, however many want to know. For one event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answer: asyncio.Future[HTTPStatus] = loop.create_future()  # the last one, which may be still to come
        self.answer.set_result(HTTPStatus.SERVICE_UNAVAILABLE)
        self._old_s = -math.inf  # when it is to be asked for again

    async def status(self, port: int | None) -> HTTPStatus:
        """Return what is answered at a port of this machine; None: nobody is there yet."""
        if port is None:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if self.answer.done() and self._loop.time() >= self._old_s:
            self.answer = self._loop.create_task(self._ask(port))
        return await asyncio.shield(self.answer)  # the others want it still when one who waits is ended

    async def _ask(self, port: int) -> HTTPStatus:
        try:
            return await _health(port)
        finally:
            self._old_s = self._loop.time() + KNOWN_S


async def _health(port: int) -> HTTPStatus:
    """Return what is answered behind to whether it is well."""
    ask = b"GET " + HEALTH.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    found = await _asked(port, ask)
    if found is None:
        return HTTPStatus.SERVICE_UNAVAILABLE
    with aborted_at_the_end(found[0].writer):
        with contextlib.suppress(OSError, TimeoutError, EOFError):  # nobody cuts off what he asked for
            await asyncio.wait_for(found[0].reader.readexactly(LARGEST_ANSWER), ANSWER_S)
        well = found[1].split(b" ")[1:2] == [b"200"]
        return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE


class HeldPlace(NamedTuple):
    """A camera's WebSocket behind, which holds its place there. door: as a replica names it, "" for none.

    asking: its state.
    """

    pipe: Pipe
    asking: ClientProtocol
    door: str

    async def hold(self) -> None:
        """Answer where behind asks whether somebody is there, until it ends: messages take another way meanwhile."""
        reader, writer = self.pipe
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                self.asking.receive_data(data)
                self.asking.events_received()
                writer.write(b"".join(self.asking.data_to_send()))
                await writer.drain()


async def place_behind(port: int) -> HeldPlace | None:
    """Return a WebSocket behind; None where there is none to be had."""
    asking = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}{PATH}"))
    asking.send_request(asking.connect())
    found = await _asked(port, b"".join(asking.data_to_send()))
    if found is None:
        return None
    behind, head = found
    asking.receive_data(head)
    answers = asking.events_received()
    if answers and asking.handshake_exc is None and asking.state is State.OPEN:
        (answer,) = answers
        assert isinstance(answer, Response)
        return HeldPlace(behind, asking, answer.headers.get(HEADER, ""))
    behind.writer.transport.abort()
    return None


@contextlib.asynccontextmanager
async def way_behind(place: HeldPlace) -> AsyncIterator[Pipe]:
    """Yield how the camera's messages go behind, as they are; the place is held meanwhile, and given up afterwards."""
    with aborted_at_the_end(place.pipe.writer):
        beside = await through(place.door)
        if beside is None:
            yield place.pipe
            return
        holding = asyncio.ensure_future(place.hold())
        try:
            with aborted_at_the_end(beside[1]):
                yield Pipe(*beside)
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)


async def _asked(port: int, request: bytes) -> tuple[Pipe, bytes] | None:
    """Return a connection to a port of this machine, and the head of its answer to a request; None without one."""
    try:
        behind = Pipe(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, limit=CHUNK), BEHIND_S))
    except (OSError, TimeoutError):
        return None
    try:
        behind.writer.write(request)
        return behind, await asyncio.wait_for(behind.reader.readuntil(b"\r\n\r\n"), BEHIND_S)
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        behind.writer.transport.abort()
        return None
    except BaseException:
        behind.writer.transport.abort()
        raise
