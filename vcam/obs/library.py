"""obs-websocket 5 by obsws-python (GPL-3.0-only): the one file that imports it, late, away from other GPL code.

What the library does with a malformed message is to raise whatever comes of it, so every call here turns all of that
into ObsGone. Known of 1.8.0: it logs the password at INFO; it never reconnects; the thread that takes its events ends
in silence; after a time-out the next answer is the one before, so a client is good for one question.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from importlib.util import find_spec
from typing import Any

from vcam.errors import ObsError, ObsGone, ObsNotInstalled, ObsPassword, ObsRefused
from vcam.obs.places import Address

ANSWER_S = 5.0  # how long OBS may take for anything
WAITING_EVENTS = 1000  # more than a person causes; what comes beyond is lost, not kept for ever
INSTALL = "python -m pip install obsws-python"
WRONG_PASSWORD = (
    "OBS refuses the password: OBS > Tools > WebSocket Server Settings > Show Connect Info shows the right one; "
    'write it as password = "..." under [obs] into config.toml'
)
NO_PASSWORD = (
    "OBS wants a password: OBS > Tools > WebSocket Server Settings > Show Connect Info shows it; "
    'write it as password = "..." under [obs] into config.toml'
)
NO_OBS_WEBSOCKET = "something answers at OBS's port, but it is no obs-websocket 5 (OBS 28 or newer)"


class Subscription(IntFlag):
    """Which events OBS sends (obs-websocket's EventSubscription)."""

    NONE = 0
    GENERAL = 1 << 0
    CONFIG = 1 << 1
    SCENES = 1 << 2
    INPUTS = 1 << 3
    FILTERS = 1 << 5
    SCENE_ITEMS = 1 << 7


def installed() -> bool:
    """Tell whether the library is there, without importing it."""
    return find_spec("obsws_python") is not None


def ask(at: Address, request: str, **data: Any) -> dict[str, Any]:
    """Have OBS do one thing, and return its answer. Raises ObsRefused with OBS's words, ObsGone, ObsPassword."""
    library = _library()
    with _answered(at, request), library.ReqClient(**_place(at), timeout=ANSWER_S) as client:
        try:
            answer = client.send(request, data, raw=True)
        except library.error.OBSSDKRequestError as error:
            words = str(error).partition("With message: ")[2] or f"status {error.code}"
            raise ObsRefused(f"OBS refused {request}: {words}", int(error.code)) from error
        return _mapping(answer or {}, request)


class Events:
    """OBS's events, from when it is built until `close`. Raises ObsGone, ObsPassword.

    version: obs-websocket's.
    """

    def __init__(self, at: Address, wanted: Subscription) -> None:
        library = _library()
        self._heard: queue.Queue[tuple[Any, Any]] = queue.Queue(WAITING_EVENTS)
        heard = self._heard

        class Client(library.EventClient):  # type: ignore[misc,name-defined]  # the library has no types
            def subscribe(self) -> None:
                self.callback.trigger = lambda kind, data: _put(heard, kind, data)
                super().subscribe()

        with _answered(at, "Identify"):
            self._client = Client(**_place(at), subs=int(wanted), timeout=ANSWER_S)
            self.version = str(self._client.base_client.server_hello["d"].get("obsWebSocketVersion", "?"))[:40]

    def next(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """Return the next event's type and data; None if none came within timeout_s. Raises ObsGone."""
        try:
            kind, data = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            if not self._client.worker.is_alive():
                raise ObsGone("OBS has ended the connection") from None
            return None
        return str(kind), data if isinstance(data, dict) else {}

    def close(self) -> None:
        """Let go of OBS, which waits for that when it ends."""
        # the library's own disconnect() waits for its thread, which may be stuck in what OBS never finishes
        closing = threading.Thread(target=self._client.base_client.ws.close, kwargs={"timeout": 1}, daemon=True)
        closing.start()
        closing.join(2.0)


def _put(heard: queue.Queue[tuple[Any, Any]], kind: Any, data: Any) -> None:
    if not heard.full():
        heard.put_nowait((kind, data))


def _library() -> Any:
    """Import the library, with nothing of it in any log: it writes the password there."""
    if not installed():
        raise ObsNotInstalled(f"to speak to OBS the package obsws-python must be installed: {INSTALL}")
    silent = logging.getLogger("obsws_python")
    silent.setLevel(logging.CRITICAL + 1)
    silent.propagate = False
    if not silent.handlers:
        silent.addHandler(logging.NullHandler())
    import obsws_python

    return obsws_python


def _place(at: Address) -> dict[str, Any]:
    """Return all three, or the library would look for a config.toml in the folder one stands in."""
    host = f"[{at.host}]" if ":" in at.host else at.host
    return {"host": host, "port": at.port, "password": at.password}


@contextmanager
def _answered(at: Address, what: str) -> Iterator[None]:
    """Turn whatever comes of a conversation with OBS into one of our errors."""
    from obsws_python.error import OBSSDKError

    try:
        yield
    except ObsError:
        raise
    except ConnectionRefusedError as error:
        raise ObsGone(f"OBS does not answer at {at.host}:{at.port} (nobody listens there)") from error
    except OBSSDKError as error:
        words = str(error)
        if "no password" in words:
            raise ObsPassword(NO_PASSWORD) from error
        if "connection settings" in words:  # OBS closes the connection after a wrong proof, and says no more
            raise ObsPassword(WRONG_PASSWORD if at.password else NO_PASSWORD) from error
        if "OpCode" in words:
            raise ObsGone(NO_OBS_WEBSOCKET) from error
        raise ObsGone(f"OBS has not answered for {ANSWER_S:g} s ({what})") from error
    except OSError as error:
        raise ObsGone(f"OBS does not answer at {at.host}:{at.port} ({_reason(error)})") from error
    except Exception as error:
        if type(error).__module__.startswith("websocket"):
            raise ObsGone(f"OBS does not answer at {at.host}:{at.port} ({_reason(error)})") from error
        raise ObsGone(f"{NO_OBS_WEBSOCKET}; it sent what is no message of it ({type(error).__name__})") from error


def _mapping(answer: Any, request: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ObsGone(f"OBS's answer to {request} is no object")
    return answer


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
