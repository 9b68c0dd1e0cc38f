"""obs-websocket 5 over `websockets`: one connection, requests and events on one thread.

Written here because the Python library for it (obsws-python) is GPL and its log holds the password; the protocol is
public: https://github.com/obsproject/obs-websocket/blob/master/docs/generated/protocol.md
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import time
from collections import deque
from enum import IntEnum
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from vcam.errors import VcamError

ANSWER_S = 5.0  # how long OBS may take for anything
LARGEST = 64 * 2**20  # bytes of one message: a screenshot of a large canvas
_WRONG_PASSWORD = 4009  # obs-websocket's close code for it


class Op(IntEnum):
    """What a message is."""

    HELLO = 0
    IDENTIFY = 1
    IDENTIFIED = 2
    EVENT = 5
    REQUEST = 6
    ANSWER = 7


class Subscription(IntEnum):
    """Which events OBS sends, as bits."""

    NONE = 0
    GENERAL = 1 << 0
    SCENES = 1 << 2
    INPUTS = 1 << 3
    FILTERS = 1 << 5
    SCENE_ITEMS = 1 << 7


class ObsError(VcamError):
    """OBS cannot be reached, or refused something; the message says what to do."""


class ObsGone(ObsError):
    """OBS is not there (any more)."""


class ObsPassword(ObsError):
    """OBS wants another password."""


class ObsRefused(ObsError):
    """OBS refused a request; code: obs-websocket's RequestStatus."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Obs:
    """One connection to OBS, identified when built; for one thread.

    Raises ObsGone, ObsPassword; any method raises ObsGone when OBS ends.
    """

    def __init__(self, host: str, port: int, password: str, events: int = Subscription.NONE) -> None:
        self._open = contextlib.ExitStack()
        self._events: deque[dict[str, Any]] = deque()
        self._asked = 0
        try:
            self._socket: ClientConnection = self._open.enter_context(
                connect(
                    f"ws://{host}:{port}",
                    subprotocols=[Subprotocol("obswebsocket.json")],
                    open_timeout=ANSWER_S,
                    close_timeout=0.5,
                    compression=None,
                    proxy=None,
                    max_size=LARGEST,
                    logger=_SILENT,
                )
            )
        except (OSError, WebSocketException, ValueError) as error:
            raise ObsGone(f"OBS does not answer at {host}:{port} ({_reason(error)})") from error
        try:
            self.version = self._identify(password, events)
        except BaseException:
            self.close()
            raise

    def request(self, kind: str, **data: Any) -> dict[str, Any]:
        """Have OBS do something and give its answer; raises ObsRefused with OBS's words."""
        self._asked += 1
        asked = str(self._asked)
        self._send(Op.REQUEST, {"requestType": kind, "requestId": asked, "requestData": data})
        end = time.monotonic() + ANSWER_S
        while (left := end - time.monotonic()) > 0:
            message = self._receive(left)
            if message is None:
                break
            if message["op"] == Op.ANSWER and message["d"].get("requestId") == asked:
                return _answer(kind, message["d"])
            if message["op"] == Op.EVENT:
                self._events.append(message["d"])
        raise ObsGone(f"OBS has not answered for {ANSWER_S:g} s ({kind})")

    def event(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """The next event, its type and data; None if none came within timeout_s."""
        end = time.monotonic() + timeout_s
        while not self._events:
            message = self._receive(max(0.0, end - time.monotonic()))
            if message is None:
                return None
            if message["op"] == Op.EVENT:
                self._events.append(message["d"])
        found = self._events.popleft()
        return str(found.get("eventType", "")), dict(found.get("eventData") or {})

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def __enter__(self) -> Obs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _identify(self, password: str, events: int) -> str:
        hello = self._receive(ANSWER_S)
        if hello is None or hello.get("op") != Op.HELLO:
            raise ObsGone("something answers at OBS's port, but it is no obs-websocket 5 (OBS 28 or newer)")
        data: dict[str, Any] = {"rpcVersion": 1, "eventSubscriptions": events}
        if asked := hello["d"].get("authentication"):
            data["authentication"] = proof(password, str(asked["salt"]), str(asked["challenge"]))
        self._send(Op.IDENTIFY, data)
        try:
            answer = self._receive(ANSWER_S)
        except ObsGone:
            if self._socket.close_code == _WRONG_PASSWORD:
                raise ObsPassword(WRONG_PASSWORD if password else NO_PASSWORD) from None
            raise
        if answer is None or answer.get("op") != Op.IDENTIFIED:
            raise ObsGone(f"OBS has not answered for {ANSWER_S:g} s")
        return str(hello["d"].get("obsWebSocketVersion", "?"))

    def _send(self, op: Op, data: dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps({"op": op, "d": data}))
        except (ConnectionClosed, OSError) as error:
            raise ObsGone("OBS has ended the connection") from error

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        try:
            message = json.loads(self._socket.recv(timeout_s))
        except TimeoutError:
            return None
        except (ConnectionClosed, OSError) as error:
            raise ObsGone("OBS has ended the connection") from error
        except ValueError as error:
            raise ObsGone("OBS sent what is no JSON") from error
        if not isinstance(message, dict) or not isinstance(message.get("d"), dict):
            raise ObsGone("OBS sent what is no message of obs-websocket 5")
        return message


WRONG_PASSWORD = (
    "OBS refuses the password: OBS > Tools > WebSocket Server Settings > Show Connect Info shows the right one; "
    'write it as password = "..." under [obs] into config.toml'
)
NO_PASSWORD = (
    "OBS wants a password: OBS > Tools > WebSocket Server Settings > Show Connect Info shows it; "
    'write it as password = "..." under [obs] into config.toml'
)
_SILENT = logging.getLogger("vcam.obs.wire")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # at debug level it would write out every frame, the proof of the password with it
_SILENT.setLevel(logging.CRITICAL + 1)


def proof(password: str, salt: str, challenge: str) -> str:
    """What shows that we know the password (obs-websocket's protocol, "Creating an authentication string")."""
    secret = base64.b64encode(hashlib.sha256((password + salt).encode()).digest()).decode()
    return base64.b64encode(hashlib.sha256((secret + challenge).encode()).digest()).decode()


def _answer(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    status = data.get("requestStatus", {})
    if not status.get("result"):
        words = status.get("comment") or f"status {status.get('code')}"
        raise ObsRefused(f"OBS refused {kind}: {words}", int(status.get("code", 0)))
    return dict(data.get("responseData") or {})


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return " ".join(str(error).split()) or type(error).__name__
