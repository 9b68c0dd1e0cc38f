"""HTTP and WebSocket on the loopback address: the panel, its live picture, and the API that the command line uses.

It sees a camera, so: only this machine, only who has the token or came by a one-time link, only pages of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import cv2
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from vcam import client
from vcam.commands import ChangeLook, Command, CommandError, Status, from_json
from vcam.errors import VcamError
from vcam.frames import Picture

STATIC = Path(__file__).parent / "static"
ADDRESS = "127.0.0.1"
BODY_LIMIT = 64 * 1024
TICKET_S = 600.0  # how long a one-time link is good
STREAMS = 8  # live pictures at once
STREAM_FPS = 15.0
EVENT_S = 0.25
APPLY_S = 5.0  # how long a command may take
_LOGIN = "/login"
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>StreamV2V Camera</title>
<link rel="icon" href="data:,">"""
_CLOSED_PAGE = f"""{_HEAD}
<body><h1>StreamV2V Camera</h1><p>This page needs a fresh link. In a terminal: <code>vcam panel</code></p></body></html>
"""
_ENTER_PAGE = f"""{_HEAD}
<meta http-equiv="refresh" content="0; url=/"><body><a href="/">StreamV2V Camera</a></body></html>
"""


class Surface(Protocol):
    """What the server needs of the daemon."""

    @property
    def preview(self) -> Picture:
        """What was published last."""

    def submit(self, command: Command) -> Future[None]:
        """Queue a command."""

    def status(self) -> Status:
        """The state of everything."""

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles."""

    def look(self) -> dict[str, Any]:
        """The look as it is now."""


# ------------------------------------------------------------------------------------------------------ who may enter


class Keys:
    """The token of this run, one-time tickets, and the browsers that entered with one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = secrets.token_urlsafe(32)
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[str, float] = {}
        self._sessions: list[str] = []

    def ticket(self) -> str:
        """A new ticket, good once and for TICKET_S."""
        made = secrets.token_urlsafe(24)
        with self._lock:
            now = self._clock()
            self._tickets = {ticket: end for ticket, end in self._tickets.items() if end > now}
            self._tickets[made] = now + TICKET_S
        return made

    def enter(self, ticket: str) -> str | None:
        """A session for a ticket, which is then used up; None if it is no good."""
        with self._lock:
            if self._tickets.pop(ticket, 0.0) <= self._clock():
                return None
            session = secrets.token_urlsafe(32)
            self._sessions = [*self._sessions[-31:], session]
            return session

    def knows(self, session: str) -> bool:
        """Whether a browser entered with this session."""
        return any(hmac.compare_digest(session.encode(), known.encode()) for known in list(self._sessions))

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(text.encode(), self.token.encode())


class Guard:
    """ASGI middleware: refuses whoever is not let in before any handler sees the request."""

    def __init__(self, app: ASGIApp, keys: Keys, port: int) -> None:
        self._app, self._keys, self._port = app, keys, port
        self._hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, _limited(receive, scope), _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = _headers(scope)
        if headers is None:
            return _error(400, "headers must be plain text, each once")
        host = headers.get("host", "")
        if host not in self._hosts:  # a foreign name that resolves to us: DNS rebinding
            return _error(403, "this server only answers to its own name")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return _error(403, "requests from other pages are refused")
        entering = scope["path"] == _LOGIN and scope.get("method") == "GET"
        if entering:  # the ticket itself is checked by the handler
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _error(403, "requests from other pages are refused")
        kind, _, given = headers.get("authorization", "").partition(" ")
        by_token = kind.lower() == "bearer" and self._keys.is_token(given)
        by_session = self._keys.knows(_cookies(headers).get(cookie_name(self._port), ""))
        if not (by_token or by_session):
            return HTMLResponse(_CLOSED_PAGE, 401) if scope["path"] == "/" else _error(401, "token missing or wrong")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changes and not by_token and origin is None:
            return _error(403, "a browser must say where a request comes from")
        if scope["type"] == "http" and changes:
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return _error(415, "the body must be application/json")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > BODY_LIMIT:
                return _error(413, f"the body may have {BODY_LIMIT} bytes at most")
        return None


def cookie_name(port: int) -> str:
    """The session's cookie: browsers share cookies between all ports of a host."""
    return f"vcam_{port}"


def _headers(scope: Scope) -> dict[str, str] | None:
    """The headers that decide, by name; None if one of them comes twice or is not ASCII."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in ("host", "origin", "authorization", "cookie", "sec-fetch-site", "content-type", "content-length"):
            if name in found or not raw_value.isascii():
                return None
            found[name] = raw_value.decode("ascii")
    return found


def _cookies(headers: Mapping[str, str]) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}


def _limited(receive: Receive, scope: Scope) -> Receive:
    """Count the body as it comes: a length may be left out, or lie."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b"")) if message["type"] == "http.request" else 0
        if seen > BODY_LIMIT:
            raise HTTPException(413, f"the body may have {BODY_LIMIT} bytes at most")
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


# ------------------------------------------------------------------------------------------------------- what there is


class Jpegs:
    """The published picture as JPEG, encoded once however many look."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self._lock = threading.Lock()
        self._last: tuple[Picture, bytes] | None = None

    def newest(self) -> bytes:
        """The JPEG of what was published last."""
        with self._lock:
            picture = self._surface.preview
            if self._last is None or self._last[0] is not picture:
                bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
                _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
                self._last = picture, data.tobytes()
            return self._last[1]


def application(surface: Surface, keys: Keys, port: int, closing: threading.Event) -> ASGIApp:
    """The whole server as one ASGI application; streams end when `closing` is set."""
    jpegs = Jpegs(surface)
    streams = 0

    async def enter(request: Request) -> Response:
        session = keys.enter(request.query_params.get("ticket", ""))
        if session is None:
            return HTMLResponse(_CLOSED_PAGE, 401)
        # a page, not a redirect: after one, a browser that followed a foreign link would not send the cookie
        answer = HTMLResponse(_ENTER_PAGE)
        answer.set_cookie(cookie_name(port), session, httponly=True, samesite="strict", path="/")
        return answer

    async def status(request: Request) -> Response:
        return JSONResponse(surface.status().to_json())

    async def profiles(request: Request) -> Response:
        return JSONResponse({"profiles": surface.profiles()})

    async def look(request: Request) -> Response:
        return JSONResponse({"look": surface.look()})

    async def change_look(request: Request) -> Response:
        changes = await _body(request)
        return await carried_out(ChangeLook(changes))

    async def command(request: Request) -> Response:
        return await carried_out(from_json(await _body(request)))

    async def carried_out(wanted: Command) -> Response:
        try:
            await asyncio.wait_for(asyncio.wrap_future(surface.submit(wanted)), APPLY_S)
        except TimeoutError:
            return _error(503, "the daemon is busy; try again")
        return JSONResponse(surface.status().to_json())

    async def link(request: Request) -> Response:
        return JSONResponse({"link": entry_link(keys, port)})

    async def picture(request: Request) -> Response:
        return Response(await asyncio.to_thread(jpegs.newest), media_type="image/jpeg")

    async def stream(request: Request) -> Response:
        if streams >= STREAMS:
            return _error(503, f"{STREAMS} windows show the picture already; close one")
        return StreamingResponse(parts(), media_type="multipart/x-mixed-replace; boundary=picture")

    async def parts() -> AsyncIterator[bytes]:
        nonlocal streams
        streams += 1
        last = b""
        try:
            yield b"--picture\r\n"
            while not closing.is_set():
                data = await asyncio.to_thread(jpegs.newest)
                if data is not last:
                    last = data
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    # the next boundary at once: browsers show a part when they see its end
                    yield head.encode() + data + b"\r\n--picture\r\n"
                await asyncio.sleep(1 / STREAM_FPS)
        finally:
            streams -= 1

    async def events(socket: WebSocket) -> None:
        await socket.accept()
        listening = asyncio.create_task(_until_gone(socket))
        last = ""
        try:
            while not closing.is_set() and not listening.done():
                text = json.dumps(surface.status().to_json())
                if text != last:
                    last = text
                    await socket.send_text(text)
                await asyncio.wait([listening], timeout=EVENT_S)
            if not listening.done():
                await socket.close(1001)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            listening.cancel()

    def static(name: str) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            return FileResponse(STATIC / name)

        return serve

    app = Starlette(
        routes=[
            Route("/", static("index.html")),
            Route("/app.js", static("app.js")),
            Route("/style.css", static("style.css")),
            Route(_LOGIN, enter, methods=["GET"]),
            Route("/api/v1/status", status),
            Route("/api/v1/profiles", profiles),
            Route("/api/v1/look", look, methods=["GET"]),
            Route("/api/v1/look", change_look, methods=["POST"]),
            Route("/api/v1/command", command, methods=["POST"]),
            Route("/api/v1/link", link, methods=["POST"]),
            Route("/api/v1/picture.jpg", picture),
            Route("/api/v1/picture.mjpeg", stream),
            WebSocketRoute("/api/v1/events", events),
        ],
        exception_handlers={
            HTTPException: _http_error,
            VcamError: _refused,
            ValueError: _refused,
        },
    )
    return Guard(app, keys, port)


async def _until_gone(socket: WebSocket) -> None:
    """Read and ignore what a listener says, until it leaves."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, KeyError):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return


async def _body(request: Request) -> dict[str, Any]:
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the body is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise CommandError("the body must be a JSON object")
    return data


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    return _error(400, " ".join(str(error).split()))


def entry_link(keys: Keys, port: int) -> str:
    """A link that lets one browser in, once."""
    return f"http://{ADDRESS}:{port}{_LOGIN}?ticket={keys.ticket()}"


# --------------------------------------------------------------------------------------------------------- running it


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
        return entry_link(self._keys, self.port)

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
