"""The control server in a thread: HTTP and WebSocket on the loopback address, for the panel and the command line.

It sees a camera, so: only this machine, only who has the token or came by a one-time link, only pages of our own.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import uvicorn

from vcam import client
from vcam.control.api import Surface, application
from vcam.control.guard import ADDRESS, Keys, panel_link, picture_link
from vcam.errors import VcamError


class Server:
    """The control server in a thread of its own, from `with` to its end; leaves its address for the clients.

    port: tried first, then the following ones, then any; `port` says which it is.
    """

    def __init__(self, surface: Surface, port: int, state_folder: Path) -> None:
        self._surface, self._folder = surface, state_folder
        self._socket = _listening(port)
        self.port: int = self._socket.getsockname()[1]
        self._keys = Keys()
        self._closing = threading.Event()
        config = uvicorn.Config(
            application(surface, self._keys, self.port, self._closing),
            log_level="warning",
            access_log=False,  # addresses with tickets do not belong into a log
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
            limit_concurrency=64,
            h11_max_incomplete_event_size=32 * 1024,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=4096,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="vcam-control", daemon=True
        )

    def link(self) -> str:
        """A fresh one-time link to the panel."""
        return panel_link(self._keys, self.port)

    def picture_link(self) -> str:
        """The live picture's address for OBS."""
        return picture_link(self._keys, self.port)

    def __enter__(self) -> Server:
        self._thread.start()
        client.write_session(self._folder, self.port, self._keys.token)
        return self

    def __exit__(self, *_: object) -> None:
        (self._folder / client.SESSION_FILE).unlink(missing_ok=True)
        self._closing.set()
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()


def _listening(port: int) -> socket.socket:
    for wanted in (*range(port, min(port + 20, 65536)), 0):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: else another program may share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not after a restart's TIME_WAIT
        try:
            sock.bind((ADDRESS, wanted))
            sock.listen(64)
        except OSError:
            sock.close()
            continue
        return sock
    raise VcamError("no port of this machine is free for the panel; --no-panel runs without it")
