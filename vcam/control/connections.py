"""Connections of strangers: few, and none for long, so that whoever only connects takes nothing from anybody."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 5.0  # from connecting to a request with a key
MOST_STRANGERS = 24  # connections at once that have not shown a key; then the oldest goes


class Strangers:
    """The connections that have not shown a key yet, oldest first; used on the server's own thread."""

    def __init__(self) -> None:
        self._waiting: dict[Any, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def came(self, who: Any, transport: asyncio.Transport) -> None:
        """Remember a new connection, and let go of the oldest where there are too many."""
        if len(self._waiting) >= MOST_STRANGERS:
            self._end(next(iter(self._waiting)))
        timer = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._end, who)
        self._waiting[who] = transport, timer

    def known(self, who: Any) -> None:
        """Forget a connection: it has shown a key, or is gone."""
        _, timer = self._waiting.pop(who, (None, None))
        if timer is not None:
            timer.cancel()

    def _end(self, who: Any) -> None:
        transport, timer = self._waiting.pop(who, (None, None))
        if transport is not None and timer is not None:
            timer.cancel()
            transport.abort()


def protocol(strangers: Strangers) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, whose connections count as strangers until they have shown a key."""

    class CountedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            strangers.came(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            strangers.known(self.client)
            super().connection_lost(exc)

    return CountedProtocol
