"""The addresses of machines' names: one that is never answered holds nothing up, the program's end included."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from typing import Any

_asked: dict[tuple[Any, ...], Future[Any]] = {}  # what is not answered yet: a second who asks waits for the same
_lock = threading.Lock()


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that asks for names on threads of ours: asyncio's own are waited for when a program ends."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Return what socket.getaddrinfo does, or raise what it raises, whenever it comes."""
        answer, came = asked(host, port, family, type, proto, flags), asyncio.Event()

        def tell(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # this loop has ended before
                self.call_soon_threadsafe(came.set)

        answer.add_done_callback(tell)
        await came.wait()
        found: list[Any] = answer.result()
        return found


def asked(*question: Any) -> Future[Any]:
    """Return the answer of socket.getaddrinfo to this question, of which there is one at a time."""
    with _lock:
        if question in _asked:
            return _asked[question]
        answer = _asked[question] = Future[Any]()
    threading.Thread(target=_ask, args=(question, answer), name="vcam-name", daemon=True).start()
    return answer


def load() -> None:
    """Load what looking up a name needs."""
    with contextlib.suppress(UnicodeError):
        "a".encode("idna")


def _ask(question: tuple[Any, ...], answer: Future[Any]) -> None:
    found: list[Any] = []
    failed: Exception | None = None
    try:
        found = list(socket.getaddrinfo(*question))
    except Exception as error:  # noqa: BLE001  whoever asked gets it
        failed = error
    with _lock:
        del _asked[question]
    if failed is not None:
        answer.set_exception(failed)
    else:
        answer.set_result(found)
