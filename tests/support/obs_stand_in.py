"""A stand-in for OBS's websocket, for what the real OBS cannot be made to do: refusing, lying, falling silent."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

PASSWORD = "a secret pass"


def proof(password: str, salt: str, challenge: str) -> str:
    """Return what shows that one knows the password (obs-websocket's protocol, "Creating an authentication string")."""
    secret = base64.b64encode(hashlib.sha256((password + salt).encode()).digest()).decode()
    return base64.b64encode(hashlib.sha256((secret + challenge).encode()).digest()).decode()


class StandIn:
    """Speaks obs-websocket 5 as far as is needed.

    answers: what each request gives. malformed: a text that is sent in place of every answer.
    """

    def __init__(self, password: str = PASSWORD, version: str = "5.5.0") -> None:
        self.password, self.version = password, version
        self.hello: Any = {
            "obsWebSocketVersion": version,
            "rpcVersion": 1,
            "authentication": {"challenge": "c", "salt": "s"},
        }
        self.listeners: list[ServerConnection] = []
        self.requests: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {
            "GetInputList": {"inputs": []},
            "GetVersion": {},
            "GetSceneItemList": {"sceneItems": [{"sceneItemId": 4, "sourceName": "StreamV2V: use oil"}]},
            "BroadcastCustomEvent": {},
        }
        self.malformed: str | None = None
        self.silent = False
        self.refused = 0  # who did not know the password

    def __call__(self, connection: ServerConnection) -> None:
        connection.send(self.hello if isinstance(self.hello, str) else json.dumps({"op": 0, "d": self.hello}))
        try:
            identify = json.loads(connection.recv())["d"]
            if self.password and identify.get("authentication") != proof(self.password, "s", "c"):
                self.refused += 1
                connection.close(4009, "Authentication failed.")
                return
            if identify.get("eventSubscriptions"):  # first: whoever reads the next message calls itself connected
                self.listeners.append(connection)
            connection.send(json.dumps({"op": 2, "d": {"negotiatedRpcVersion": 1}}))
            for message in connection:
                asked = json.loads(message)["d"]
                self.requests.append(asked)
                if self.malformed is not None:
                    connection.send(self.malformed)
                elif not self.silent:
                    connection.send(json.dumps({"op": 7, "d": self.answer(asked)}))
        except ConnectionClosed:
            pass

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer a request as obs-websocket does."""
        data = self.answers.get(asked["requestType"])
        status = {"result": data is not None, "code": 100 if data is not None else 600, "comment": "no such thing"}
        return {
            "requestType": asked["requestType"],
            "requestId": asked["requestId"],
            "requestStatus": status,
            "responseData": data,
        }

    def asked(self, request: str) -> list[dict[str, Any]]:
        """Return the data of the requests of that kind that came."""
        return [one.get("requestData", {}) for one in self.requests if one["requestType"] == request]

    def tell(self, kind: str, **data: Any) -> None:
        """Send an event."""
        self.send(json.dumps({"op": 5, "d": {"eventType": kind, "eventData": data}}))

    def send(self, text: str) -> None:
        """Send any text to who listens."""
        self.listeners[-1].send(text)


@contextmanager
def standing_in(stand_in: StandIn, port: int = 0) -> Iterator[int]:
    """Serve at a port of this machine while the body runs; yields the port."""
    with serve(stand_in, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            for connection in stand_in.listeners:
                connection.close()
            server.shutdown()
            thread.join()
