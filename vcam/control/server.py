"""HTTP and WebSocket on the loopback address: the panel, its live picture, and the API that the command line uses.

It sees a camera, so: only this machine, only who has the token or came by a one-time link, only pages of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
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
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from vcam import client
from vcam.commands import ChangeLook, Command, CommandError, Status, from_json
from vcam.control.guard import ADDRESS, CLOSED_PAGE, ENTER_PAGE, LOGIN, PICTURE, Guard, Keys, answer, cookie_name
from vcam.errors import VcamError
from vcam.frames import Picture

STATIC = Path(__file__).parent / "static"
STREAMS = 8  # live pictures at once
STREAM_FPS = 15.0
EVENT_S = 0.25
APPLY_S = 5.0  # how long a command may take


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
            return HTMLResponse(CLOSED_PAGE, 401)
        # a page, not a redirect: after one, a browser that followed a foreign link would not send the cookie
        page = HTMLResponse(ENTER_PAGE)
        page.set_cookie(cookie_name(port), session, httponly=True, samesite="strict", path="/")
        return page

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
            return answer(503, "the daemon is busy; try again")
        return JSONResponse(surface.status().to_json())

    async def link(request: Request) -> Response:
        return JSONResponse({"link": entry_link(keys, port)})

    async def picture_link(request: Request) -> Response:
        return JSONResponse({"link": address_of_picture(keys, port)})

    async def picture(request: Request) -> Response:
        return Response(await asyncio.to_thread(jpegs.newest), media_type="image/jpeg")

    async def stream(request: Request) -> Response:
        if streams >= STREAMS:
            return answer(503, f"{STREAMS} windows show the picture already; close one")
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
            Route(LOGIN, enter, methods=["GET"]),
            Route("/api/v1/status", status),
            Route("/api/v1/profiles", profiles),
            Route("/api/v1/look", look, methods=["GET"]),
            Route("/api/v1/look", change_look, methods=["POST"]),
            Route("/api/v1/command", command, methods=["POST"]),
            Route("/api/v1/link", link, methods=["POST"]),
            Route("/api/v1/picture-link", picture_link, methods=["POST"]),
            Route("/api/v1/picture.jpg", picture),
            Route(PICTURE, stream),
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
    return answer(400, " ".join(str(error).split()))


def entry_link(keys: Keys, port: int) -> str:
    """A link that lets one browser in, once."""
    return f"http://{ADDRESS}:{port}{LOGIN}?ticket={keys.ticket()}"


def address_of_picture(keys: Keys, port: int) -> str:
    """The live picture's address for a program that can send no token; good for this run, and for nothing else."""
    return f"http://{ADDRESS}:{port}{PICTURE}?key={keys.picture_key}"


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

    def picture_link(self) -> str:
        """The live picture's address for OBS."""
        return address_of_picture(self._keys, self.port)

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
