"""The API, version 1: what each address does. Who may ask is decided before (guard.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.errors import StreamV2VError
from vcam.commands import ChangeLook, Command, from_json, to_json
from vcam.control.guard import (
    ALLOWED,
    COMMAND,
    PICTURE,
    WEBSOCKET_PROTOCOL,
    Keys,
    answer,
    panel_link,
    picture_link,
)
from vcam.control.jpeg import NewestJpeg, jpeg
from vcam.control.live import LiveStreams
from vcam.control.openapi import document
from vcam.control.served_camera import ServedCamera
from vcam.errors import CommandError
from vcam.log_file import JOURNAL, callable_here

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
GOING_AWAY, INTERNAL_ERROR = 1001, 1011  # codes that end a WebSocket
STATIC = Path(__file__).parent / "static"
_PARTS = (
    *("base.css", "page.css", "icon.svg", "enter.js"),
    *("common.js", "picture.js", "looks.js", "editor.js", "prompt.js", "advanced.js", "plot.js", "diagnostics.js"),
    *("first.js", "keys.js", "live.js"),
)
PUBLIC = (
    "/",
    *(f"/{name}" for name in _PARTS),
)  # they hold no picture and no key, and a browser cannot send one for them
_NO_PAGE = "the camera runs without its page (--no-panel), from which pictures come"
EVENT_S = 0.25
APPLY_S = 5.0  # how long a command may take
TRY_S = 150.0  # how long the try of a look may take: an engine may have to load


class Api:
    """The handlers; streams end when `closing` is set. port: the page's, None where there is no page."""

    def __init__(
        self,
        surface: ServedCamera,
        keys: Keys,
        port: int | None,
        closing: threading.Event,
        new_picture_key: Callable[[], str],
    ) -> None:
        self._surface, self._keys, self._port, self._closing = surface, keys, port, closing
        self._new_picture_key = new_picture_key
        self._output = NewestJpeg(lambda: surface.preview)
        self._input = NewestJpeg(lambda: surface.camera)
        self._live = LiveStreams(closing)

    def routes(self) -> list[Route | WebSocketRoute]:
        """Every address."""
        api = "/api/v1"
        return [
            Route("/", _static("index.html")),
            *(Route(f"/{name}", _static(name)) for name in _PARTS),
            Route(f"{api}/openapi.json", self.openapi),
            Route(f"{api}/status", self.status),
            Route(f"{api}/profiles", self.profiles),
            Route(f"{api}/profiles/{{id}}/file", self.profile_file, methods=["GET"]),
            Route(f"{api}/profiles/{{id}}/file", self.import_profile, methods=["PUT"]),
            Route(f"{api}/profiles/{{id}}", self.profile, methods=["GET"]),
            Route(f"{api}/profiles/{{id}}", self.put_profile, methods=["PUT"]),
            Route(f"{api}/profiles/{{id}}", self.delete_profile, methods=["DELETE"]),
            Route(f"{api}/profiles/{{id}}/thumbnail.jpg", self.thumbnail),
            Route(f"{api}/look", self.look, methods=["GET"]),
            Route(f"{api}/look", self.change_look, methods=["POST"]),
            Route(f"{api}/engine", self.engine),
            Route(f"{api}/words", self.words),
            Route(f"{api}/page", self.page, methods=["GET"]),
            Route(f"{api}/page", self.change_page, methods=["POST"]),
            Route(f"{api}/first-steps", self.first_steps),
            Route(f"{api}/sources", self.sources),
            Route(f"{api}/log", self.log),
            Route(f"{api}/try", self.try_look, methods=["POST"]),
            Route(COMMAND, self.command, methods=["POST"]),
            Route(f"{api}/view-key", self.view_key, methods=["POST"]),
            Route(f"{api}/link", self.link, methods=["POST"]),
            Route(f"{api}/picture-link", self.picture_link, methods=["POST"]),
            Route(f"{api}/picture.jpg", self.picture),
            Route(f"{api}/input.jpg", self.camera),
            Route(PICTURE, self.stream),
            Route(f"{api}/input.mjpeg", self.camera_stream),
            WebSocketRoute(f"{api}/events", self.events),
        ]

    async def openapi(self, request: Request) -> Response:
        """Return the description of this API."""
        return JSONResponse(document())

    async def status(self, request: Request) -> Response:
        """Return the state of everything."""
        return JSONResponse(self._surface.status().to_json())

    async def profiles(self, request: Request) -> Response:
        """All profiles."""
        return JSONResponse({"profiles": self._surface.profiles()})

    async def profile(self, request: Request) -> Response:
        """One profile in the shape of its file."""
        return JSONResponse(await asyncio.to_thread(self._surface.profile, request.path_params["id"]))

    async def put_profile(self, request: Request) -> Response:
        """Write a profile into the user's folder."""
        data = await _body(request)
        await asyncio.to_thread(self._surface.save_profile, request.path_params["id"], data)
        return JSONResponse(await asyncio.to_thread(self._surface.profile, request.path_params["id"]))

    async def delete_profile(self, request: Request) -> Response:
        """Remove one of the user's profiles."""
        await asyncio.to_thread(self._surface.delete_profile, request.path_params["id"])
        return JSONResponse({"profiles": self._surface.profiles()})

    async def profile_file(self, request: Request) -> Response:
        """Return a profile as the file that somebody else can put into their folder."""
        text = await asyncio.to_thread(self._surface.profile_file, request.path_params["id"])
        return Response(text, media_type="application/toml")

    async def import_profile(self, request: Request) -> Response:
        """Write a profile's file, as it was exported, into the user's folder."""
        text = (await _body(request)).get("toml")
        if not isinstance(text, str):
            raise CommandError("toml must be the text of a profile's file")
        await asyncio.to_thread(self._surface.import_profile, request.path_params["id"], text)
        return JSONResponse(await asyncio.to_thread(self._surface.profile, request.path_params["id"]))

    async def thumbnail(self, request: Request) -> Response:
        """Return the test picture in a profile's look."""
        wanted = await asyncio.to_thread(self._surface.thumbnail, request.path_params["id"])
        if wanted is None:
            return answer(404, "thumbnails are made with the included model alone")
        try:
            data = await _result(wanted, TRY_S)
        except TimeoutError:
            return answer(503, "the thumbnail could not be drawn in time")
        return Response(data, media_type="image/jpeg")

    async def look(self, request: Request) -> Response:
        """Return the look as it is now, and what the model takes where that says nothing."""
        return JSONResponse({"look": self._surface.look(), "own": self._surface.own()})

    async def change_look(self, request: Request) -> Response:
        """Change some of its fields."""
        return await self._carried_out(ChangeLook(await _body(request)))

    async def engine(self, request: Request) -> Response:
        """Return what the engine is built from."""
        return JSONResponse({"engine": self._surface.engine()})

    async def words(self, request: Request) -> Response:
        """Return the styles and words that the model knows."""
        return JSONResponse(await asyncio.to_thread(self._surface.words))

    async def page(self, request: Request) -> Response:
        """Return what the page remembers of its user."""
        return JSONResponse(self._surface.remembered())

    async def change_page(self, request: Request) -> Response:
        """Change that."""
        await asyncio.to_thread(self._surface.remember, await _body(request))
        return JSONResponse(self._surface.remembered())

    async def first_steps(self, request: Request) -> Response:
        """Return how it stands with the first steps of a new user, and how `vcam` is called here."""
        program = callable_here("vcam run", at_terminal=False).removesuffix(" run")
        return JSONResponse({"steps": self._surface.first_steps(), "program": program})

    async def sources(self, request: Request) -> Response:
        """Return what can be translated."""
        return JSONResponse({"sources": await asyncio.to_thread(self._surface.sources)})

    async def log(self, request: Request) -> Response:
        """Return what happened."""
        return JSONResponse({"log": self._surface.log()})

    async def try_look(self, request: Request) -> Response:
        """Return the newest camera picture in another look; nothing of it is published."""
        wanted = await asyncio.to_thread(self._surface.try_look, await _body(request))
        try:
            picture = await _result(wanted, TRY_S)
        except TimeoutError:
            return answer(503, "the look could not be tried in time")
        return Response(await asyncio.to_thread(jpeg, picture), media_type="image/jpeg")

    async def command(self, request: Request) -> Response:
        """Carry out a command."""
        wanted = from_json(await _body(request))
        allowed = request.scope.get(ALLOWED)
        if allowed is not None and (name := to_json(wanted)["command"]) not in allowed:
            return answer(
                403, f"OBS may not give the command {name!r}; allow under [obs] in config.toml says what it may"
            )
        return await self._carried_out(wanted)

    async def _carried_out(self, wanted: Command) -> Response:
        try:
            await _result(self._surface.submit(wanted), APPLY_S)
        except TimeoutError:
            return answer(503, "the daemon is busy; try again")
        return JSONResponse(self._surface.status().to_json())

    async def link(self, request: Request) -> Response:
        """Return a one-time link to the panel."""
        if self._port is None:
            return answer(409, _NO_PAGE)
        return JSONResponse({"link": panel_link(self._keys, self._port)})

    async def view_key(self, request: Request) -> Response:
        """Return a key with which a page may ask for pictures: an image's address can carry no header."""
        return JSONResponse({"key": self._keys.view()})

    async def picture_link(self, request: Request) -> Response:
        """Return the live picture's address for a program that can send no token."""
        if self._port is None:
            return answer(409, _NO_PAGE)
        if not self._keys.picture_key:
            self._keys.picture_key = await asyncio.to_thread(self._new_picture_key)
        return JSONResponse({"link": picture_link(self._keys, self._port)})

    async def picture(self, request: Request) -> Response:
        """Return what is published now."""
        return _jpeg(await asyncio.to_thread(self._output.get))

    async def camera(self, request: Request) -> Response:
        """Return what the camera sees now."""
        return _jpeg(await asyncio.to_thread(self._input.get))

    async def stream(self, request: Request) -> Response:
        """Return what is published, live."""
        return self._live.response(self._output)

    async def camera_stream(self, request: Request) -> Response:
        """Return what the camera sees, live."""
        return self._live.response(self._input)

    async def events(self, socket: WebSocket) -> None:
        """Send the status whenever it changes."""
        await socket.accept(WEBSOCKET_PROTOCOL if WEBSOCKET_PROTOCOL in socket.scope["subprotocols"] else None)
        listening = asyncio.create_task(_until_gone(socket))
        last, code = "", GOING_AWAY
        try:
            while not self._closing.is_set() and not listening.done():
                text = json.dumps(self._surface.status().to_json())
                if text != last:
                    last = text
                    with _may_have_left():
                        await socket.send_text(text)
                await asyncio.wait([listening], timeout=EVENT_S)
        except Exception:  # noqa: BLE001  a bug of ours ends this connection alone; the page connects again
            code = INTERNAL_ERROR
            _LOG.exception("the status could not be told to a listener")
        finally:
            if not listening.done():
                with _may_have_left():
                    await socket.close(code)
            listening.cancel()


async def _result(future: Future[_T], limit_s: float) -> _T:
    """Wait for the future so long and return its result. Raises TimeoutError, or what the future ends with.

    A future that was cancelled, or ends with what would end this thread, is a fault of ours like any other.
    """
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), limit_s)
    except (asyncio.CancelledError, SystemExit) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the request itself is ended
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def application(
    surface: ServedCamera, keys: Keys, port: int | None, closing: threading.Event, new_picture_key: Callable[[], str]
) -> ASGIApp:
    """Return the handlers as one ASGI application, which guards nothing."""
    return Starlette(
        routes=Api(surface, keys, port, closing, new_picture_key).routes(),
        exception_handlers={HTTPException: _http_error, StreamV2VError: _refused, Exception: _failed},
    )


def _static(name: str) -> Callable[[Request], Any]:
    async def serve(request: Request) -> Response:
        return FileResponse(STATIC / name)

    return serve


def _jpeg(data: bytes | None) -> Response:
    if data is None:
        return answer(409, "the camera rests; there is no picture of it")
    return Response(data, media_type="image/jpeg")


@contextlib.contextmanager
def _may_have_left() -> Iterator[None]:
    """Let sending to a listener that has left meanwhile go by; starlette raises RuntimeError after a close."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        yield


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


async def _failed(request: Request, error: Exception) -> Response:
    """Answer 500 to what nobody foresaw; starlette raises it again, so that uvicorn prints it."""
    JOURNAL.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(500, f"{type(error).__name__}: {' '.join(str(error).split())} (unexpected; vcam.log tells where)")
