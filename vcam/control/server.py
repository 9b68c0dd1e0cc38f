"""The control server: HTTP and WebSocket for the panel on the loopback address, and a door for this user's programs.

It sees a camera, so: only this machine, only who has the token or came by a one-time link, only pages of our own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from vcam import client
from vcam.control.api import PUBLIC, application
from vcam.control.connections import Strangers, protocol
from vcam.control.door import Door, close_door, open_door
from vcam.control.guard import ADDRESS, Guard, Keys, panel_link
from vcam.control.served_camera import ServedCamera
from vcam.errors import VcamError

PAGES_FILE = "pages"  # the marks of pages that entered; delete it to have each ask for a fresh link
PAGES_KEPT = 32
PAGES_KEPT_S = 300.0  # after a run's end; static/live.js stops sending its key after that time too
MARK_LETTERS = 64  # of a SHA-256 in hexadecimal
PICTURE_KEY_FILE = "picture.key"  # what OBS was given to see the picture; delete it to take that back


class Server:
    """The control server in threads of its own, from `with` to its end; leaves its address for the clients.

    port: the page's, tried first, then the following ones, then any; None: no page, the door alone. `port` says which
    it is. bridge_commands: the names of the commands that OBS's bridge may give. Raises VcamError.
    """

    def __init__(
        self, surface: ServedCamera, port: int | None, state_folder: Path, bridge_commands: Collection[str] = ()
    ) -> None:
        self._folder = state_folder
        page = None if port is None else _listening(port)
        self.port: int | None = None if page is None else page.getsockname()[1]
        self._keys = Keys(
            picture_key=_known_picture_key(state_folder),
            bridge_commands=bridge_commands,
            pages=_known_pages(state_folder / PAGES_FILE, self.port),
            keep=self._keep_pages,
        )
        self._closing = threading.Event()
        self._socket, self.door = open_door(state_folder)
        app = application(surface, self._keys, self.port, self._closing, self._new_picture_key)
        door = Guard(app, self._keys, _names(self.door) if isinstance(self.door, int) else ())
        self._listeners = [_Listener("vcam-door", self._socket, door, None)]
        if page is not None:
            strangers = Strangers()
            guard = Guard(app, self._keys, _names(self.port), PUBLIC, strangers.known)
            self._listeners.append(_Listener("vcam-page", page, guard, strangers))

    def link(self) -> str:
        """Return a fresh one-time link to the panel, which must be there."""
        assert self.port is not None
        return panel_link(self._keys, self.port)

    def bridge_session(self) -> client.Session:
        """Return how OBS's bridge reaches this server."""
        return client.Session(self.door, self._keys.bridge_token)

    def __enter__(self) -> Server:
        for listener in self._listeners:
            listener.start()
        try:
            client.write_session(self._folder, self.door, self.port, self._keys.token)
        except OSError as error:
            self.__exit__()
            raise VcamError(client.cannot_be_written(self._folder / client.SESSION_FILE, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        (self._folder / client.SESSION_FILE).unlink(missing_ok=True)
        self._closing.set()
        for listener in self._listeners:
            listener.stop()
        with contextlib.suppress(OSError):  # there is none, or it lapses sooner
            os.utime(self._folder / PAGES_FILE)
        close_door(self._socket, self.door)

    def _keep_pages(self, pages: Sequence[str]) -> None:
        """Let pages that are open come back by themselves after a restart; a full disk costs them that."""
        with contextlib.suppress(OSError, VcamError):
            client.write_private(client.private_folder(self._folder) / PAGES_FILE, "\n".join((str(self.port), *pages)))

    def _new_picture_key(self) -> str:
        key = secrets.token_urlsafe(24)
        try:
            client.write_private(self._folder / PICTURE_KEY_FILE, key)
        except OSError as error:
            raise VcamError(client.cannot_be_written(self._folder / PICTURE_KEY_FILE, error)) from error
        return key


class _Listener:
    """One uvicorn server on one socket, in a thread."""

    def __init__(self, name: str, sock: socket.socket, app: ASGIApp, strangers: Strangers | None) -> None:
        self._socket = sock
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # addresses with tickets do not belong into a log
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
            limit_concurrency=128,
            h11_max_incomplete_event_size=32 * 1024,
            http="h11" if strangers is None else protocol(strangers),
            ws="websockets-sansio",
            ws_max_size=4096,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()


def _names(port: Door | None) -> frozenset[str]:
    return frozenset(f"{name}:{port}" for name in (ADDRESS, "localhost"))


def _known_picture_key(folder: Path) -> str:
    """Return the key that `vcam obs setup` gave to OBS in an earlier run, "" where there is none."""
    try:
        return (folder / PICTURE_KEY_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _known_pages(path: Path, port: int | None) -> list[str]:
    """Return the marks of the pages that entered in earlier runs; forget them where their keys may be in other hands.

    An open page sends its key to whoever listens at its port. So they are good at that port alone, and until
    PAGES_KEPT_S after the end of the last run.
    """
    with contextlib.suppress(OSError, ValueError):  # none is there, or it is no such file
        written_at, *lines = path.read_text(encoding="ascii").split()
        if written_at == str(port) and abs(time.time() - path.stat().st_mtime) < PAGES_KEPT_S:
            return [line for line in lines if len(line) == MARK_LETTERS][-PAGES_KEPT:]
        path.unlink()
    return []


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
