"""Connections of strangers: few, and none for long, so that whoever only connects takes nothing from anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 5.0  # from connecting to a request with a key
ANSWER_S = 60.0  # what the answer to a request without one (the page's own files) may take, on a machine that is busy
MOST_STRANGERS = 24  # connections at once that have not shown a key; then the oldest goes


@dataclass
class _Stranger:
    """A connection; answering: whether an answer to it is under way; until_s: when it goes all the same."""

    transport: asyncio.Transport
    answering: Callable[[], bool]
    until_s: float
    timer: asyncio.TimerHandle


class Strangers:
    """The connections that have not shown a key yet, oldest first; used on the server's own thread."""

    def __init__(self) -> None:
        self._waiting: dict[Any, _Stranger] = {}

    def came(self, who: Any, transport: asyncio.Transport, answering: Callable[[], bool]) -> None:
        """Remember a new connection, and let go of the oldest where there are too many."""
        if len(self._waiting) >= MOST_STRANGERS:
            self._end(next(iter(self._waiting)))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(FIRST_REQUEST_S, self._late, who)
        self._waiting[who] = _Stranger(transport, answering, loop.time() + ANSWER_S, timer)

    def known(self, who: Any) -> None:
        """Forget a connection: it has shown a key, or is gone."""
        if (stranger := self._waiting.pop(who, None)) is not None:
            stranger.timer.cancel()

    def _late(self, who: Any) -> None:
        """Let go of a connection whose time is over; not in the midst of an answer: half a page would be shown."""
        stranger, loop = self._waiting[who], asyncio.get_running_loop()
        if stranger.answering() and loop.time() < stranger.until_s:
            stranger.timer = loop.call_later(FIRST_REQUEST_S, self._late, who)
        else:
            self._end(who)

    def _end(self, who: Any) -> None:
        stranger = self._waiting.pop(who)
        stranger.timer.cancel()
        stranger.transport.abort()


def protocol(strangers: Strangers) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, whose connections count as strangers until they have shown a key."""

    class CountedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            strangers.came(self.client, transport, self._answering)

        def connection_lost(self, exc: Exception | None) -> None:
            strangers.known(self.client)
            super().connection_lost(exc)

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

    return CountedProtocol
