"""The API, version 1: what each address does. Who may ask is decided before (guard.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from vcam import fit
from vcam.commands import ChangeLook, Command, CommandError, Status, from_json
from vcam.control.guard import (
    CLOSED_PAGE,
    ENTER_PAGE,
    LOGIN,
    PICTURE,
    Guard,
    Keys,
    answer,
    cookie_name,
    panel_link,
    picture_link,
)
from vcam.control.openapi import document
from vcam.errors import VcamError
from vcam.frames import Picture

STATIC = Path(__file__).parent / "static"
_PARTS = ("app.js", "common.js", "plot.js", "profiles.js", "style.css")
STREAMS = 8  # live pictures at once
STREAM_FPS = 15.0
EVENT_S = 0.25
APPLY_S = 5.0  # how long a command may take
TRY_S = 150.0  # how long the try of a look may take: an engine may have to load


class Surface(Protocol):
    """What the server needs of the daemon."""

    @property
    def preview(self) -> Picture:
        """What was published last."""

    @property
    def camera(self) -> Picture | None:
        """What the camera saw last, in the published size; None while it rests."""

    def submit(self, command: Command) -> Future[None]:
        """Queue a command."""

    def status(self) -> Status:
        """The state of everything."""

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles."""

    def profile(self, id: str) -> dict[str, Any]:
        """One profile in the shape of its file; raises ProfileError."""

    def save_profile(self, id: str, data: object) -> None:
        """Write a profile into the user's folder; raises ProfileError."""

    def delete_profile(self, id: str) -> None:
        """Remove one of the user's; raises ProfileError."""

    def look(self) -> dict[str, Any]:
        """The look as it is now."""

    def engine(self) -> dict[str, Any]:
        """What the engine is built from."""

    def sources(self) -> list[dict[str, Any]]:
        """What can be translated on this machine; slow."""

    def log(self) -> list[dict[str, Any]]:
        """What happened: at (seconds since 1970) and text."""

    def thumbnail(self, id: str) -> Future[bytes] | None:
        """The test picture in the profile's look, as JPEG; None where that would be too dear. Raises ProfileError."""

    def try_look(self, wanted: dict[str, Any]) -> Future[Picture]:
        """The newest camera picture in another look, privately; raises CommandError, ProfileError."""


class Jpegs:
    """A picture as JPEG, encoded once however many look."""

    def __init__(self, newest: Callable[[], Picture | None]) -> None:
        self._newest = newest
        self._lock = threading.Lock()
        self._last: tuple[Picture, bytes] | None = None

    def newest(self) -> bytes | None:
        """The JPEG of the newest picture."""
        with self._lock:
            picture = self._newest()
            if picture is None:
                return None
            if self._last is None or self._last[0] is not picture:
                self._last = picture, fit.jpeg(picture)
            return self._last[1]


class Api:
    """The handlers; streams end when `closing` is set."""

    def __init__(self, surface: Surface, keys: Keys, port: int, closing: threading.Event) -> None:
        self._surface, self._keys, self._port, self._closing = surface, keys, port, closing
        self._output = Jpegs(lambda: surface.preview)
        self._input = Jpegs(lambda: surface.camera)
        self._streams = 0

    def routes(self) -> list[Route | WebSocketRoute]:
        """Every address."""
        api = "/api/v1"
        return [
            Route("/", _static("index.html")),
            *(Route(f"/{name}", _static(name)) for name in _PARTS),
            Route(LOGIN, self.enter, methods=["GET"]),
            Route(f"{api}/openapi.json", self.openapi),
            Route(f"{api}/status", self.status),
            Route(f"{api}/profiles", self.profiles),
            Route(f"{api}/profiles/{{id}}", self.profile, methods=["GET"]),
            Route(f"{api}/profiles/{{id}}", self.put_profile, methods=["PUT"]),
            Route(f"{api}/profiles/{{id}}", self.delete_profile, methods=["DELETE"]),
            Route(f"{api}/profiles/{{id}}/thumbnail.jpg", self.thumbnail),
            Route(f"{api}/look", self.look, methods=["GET"]),
            Route(f"{api}/look", self.change_look, methods=["POST"]),
            Route(f"{api}/engine", self.engine),
            Route(f"{api}/sources", self.sources),
            Route(f"{api}/log", self.log),
            Route(f"{api}/try", self.try_look, methods=["POST"]),
            Route(f"{api}/command", self.command, methods=["POST"]),
            Route(f"{api}/link", self.link, methods=["POST"]),
            Route(f"{api}/picture-link", self.picture_link, methods=["POST"]),
            Route(f"{api}/picture.jpg", self.picture),
            Route(f"{api}/input.jpg", self.camera),
            Route(PICTURE, self.stream),
            Route(f"{api}/input.mjpeg", self.camera_stream),
            WebSocketRoute(f"{api}/events", self.events),
        ]

    async def enter(self, request: Request) -> Response:
        """Let a browser in that brings a one-time ticket."""
        session = self._keys.enter(request.query_params.get("ticket", ""))
        if session is None:
            return HTMLResponse(CLOSED_PAGE, 401)
        # a page, not a redirect: after one, a browser that followed a foreign link would not send the cookie
        page = HTMLResponse(ENTER_PAGE)
        page.set_cookie(cookie_name(self._port), session, httponly=True, samesite="strict", path="/")
        return page

    async def openapi(self, request: Request) -> Response:
        """This API, described."""
        return JSONResponse(document())

    async def status(self, request: Request) -> Response:
        """The state of everything."""
        return JSONResponse(self._surface.status().to_json())

    async def profiles(self, request: Request) -> Response:
        """All profiles."""
        return JSONResponse({"profiles": self._surface.profiles()})

    async def profile(self, request: Request) -> Response:
        """One profile in the shape of its file."""
        return JSONResponse(self._surface.profile(request.path_params["id"]))

    async def put_profile(self, request: Request) -> Response:
        """Write a profile into the user's folder."""
        data = await _body(request)
        await asyncio.to_thread(self._surface.save_profile, request.path_params["id"], data)
        return JSONResponse(self._surface.profile(request.path_params["id"]))

    async def delete_profile(self, request: Request) -> Response:
        """Remove one of the user's profiles."""
        await asyncio.to_thread(self._surface.delete_profile, request.path_params["id"])
        return JSONResponse({"profiles": self._surface.profiles()})

    async def thumbnail(self, request: Request) -> Response:
        """The test picture in a profile's look."""
        wanted = self._surface.thumbnail(request.path_params["id"])
        if wanted is None:
            return answer(404, "thumbnails are made with the included model alone")
        try:
            data = await asyncio.wait_for(asyncio.wrap_future(wanted), TRY_S)
        except TimeoutError:
            return answer(503, "the thumbnail could not be drawn in time")
        return Response(data, media_type="image/jpeg")

    async def look(self, request: Request) -> Response:
        """The look as it is now."""
        return JSONResponse({"look": self._surface.look()})

    async def change_look(self, request: Request) -> Response:
        """Change some of its fields."""
        return await self._carried_out(ChangeLook(await _body(request)))

    async def engine(self, request: Request) -> Response:
        """What the engine is built from."""
        return JSONResponse({"engine": self._surface.engine()})

    async def sources(self, request: Request) -> Response:
        """What can be translated."""
        return JSONResponse({"sources": await asyncio.to_thread(self._surface.sources)})

    async def log(self, request: Request) -> Response:
        """What happened."""
        return JSONResponse({"log": self._surface.log()})

    async def try_look(self, request: Request) -> Response:
        """The newest camera picture in another look; nothing of it is published."""
        wanted = self._surface.try_look(await _body(request))
        try:
            picture = await asyncio.wait_for(asyncio.wrap_future(wanted), TRY_S)
        except TimeoutError:
            return answer(503, "the look could not be tried in time")
        return Response(await asyncio.to_thread(fit.jpeg, picture), media_type="image/jpeg")

    async def command(self, request: Request) -> Response:
        """Carry out a command."""
        return await self._carried_out(from_json(await _body(request)))

    async def _carried_out(self, wanted: Command) -> Response:
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._surface.submit(wanted)), APPLY_S)
        except TimeoutError:
            return answer(503, "the daemon is busy; try again")
        return JSONResponse(self._surface.status().to_json())

    async def link(self, request: Request) -> Response:
        """A one-time link to the panel."""
        return JSONResponse({"link": panel_link(self._keys, self._port)})

    async def picture_link(self, request: Request) -> Response:
        """The live picture's address for a program that can send no token."""
        return JSONResponse({"link": picture_link(self._keys, self._port)})

    async def picture(self, request: Request) -> Response:
        """What is published now."""
        return _jpeg(await asyncio.to_thread(self._output.newest))

    async def camera(self, request: Request) -> Response:
        """What the camera sees now."""
        return _jpeg(await asyncio.to_thread(self._input.newest))

    async def stream(self, request: Request) -> Response:
        """What is published, live."""
        return self._streamed(self._output)

    async def camera_stream(self, request: Request) -> Response:
        """What the camera sees, live."""
        return self._streamed(self._input)

    def _streamed(self, jpegs: Jpegs) -> Response:
        if self._streams >= STREAMS:
            return answer(503, f"{STREAMS} windows show the picture already; close one")
        return StreamingResponse(self._parts(jpegs), media_type="multipart/x-mixed-replace; boundary=picture")

    async def _parts(self, jpegs: Jpegs) -> AsyncIterator[bytes]:
        self._streams += 1
        last = b""
        try:
            yield b"--picture\r\n"
            while not self._closing.is_set():
                data = await asyncio.to_thread(jpegs.newest)
                if data is not None and data is not last:
                    last = data
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    # the next boundary at once: browsers show a part when they see its end
                    yield head.encode() + data + b"\r\n--picture\r\n"
                await asyncio.sleep(1 / STREAM_FPS)
        finally:
            self._streams -= 1

    async def events(self, socket: WebSocket) -> None:
        """The status whenever it changes."""
        await socket.accept()
        listening = asyncio.create_task(_until_gone(socket))
        last = ""
        try:
            while not self._closing.is_set() and not listening.done():
                text = json.dumps(self._surface.status().to_json())
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


def application(surface: Surface, keys: Keys, port: int, closing: threading.Event) -> ASGIApp:
    """The whole server as one ASGI application."""
    app = Starlette(
        routes=Api(surface, keys, port, closing).routes(),
        exception_handlers={HTTPException: _http_error, VcamError: _refused, ValueError: _refused},
    )
    return Guard(app, keys, port)


def _static(name: str) -> Callable[[Request], Any]:
    async def serve(request: Request) -> Response:
        return FileResponse(STATIC / name)

    return serve


def _jpeg(data: bytes | None) -> Response:
    if data is None:
        return answer(409, "the camera rests; there is no picture of it")
    return Response(data, media_type="image/jpeg")


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
