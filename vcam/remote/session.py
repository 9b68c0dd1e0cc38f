"""One camera's connection to an engine server, from its Hello to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from vcam.errors import CodecError, RemoteError, RemoteRefused
from vcam.remote.admission import Admitted, admitted
from vcam.remote.exchange import Exchange, Serving
from vcam.remote.incoming import Incoming
from vcam.remote.outgoing import Outgoing
from vcam.remote.protocol import HELLO_S, Refusal, Refused
from vcam.remote.side_door import MessageWay

LOG = logging.getLogger("vcam.serve")


class CameraSession:
    """One camera's connection, from its Hello to its end."""

    def __init__(self, serving: Serving, way: MessageWay) -> None:
        self._serving = serving
        exchange = Exchange()
        self._outgoing = Outgoing(serving, way, exchange)
        self._incoming = Incoming(serving, way, exchange, self._outgoing.note)

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
