"""Who may enter: the token of a run, one-time links, the browsers that came by one; everybody else is refused."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDRESS = "127.0.0.1"
BODY_LIMIT = 64 * 1024
TICKET_S = 600.0  # how long a one-time link is good
LOGIN = "/login"
CHANGES_PER_S = 50
REFUSALS_PER_S = 100  # of those without the token: nobody shall try out tokens at full speed
PICTURE = "/api/v1/picture.mjpeg"
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
CLOSED_PAGE = f"""{_HEAD}
<body><h1>StreamV2V Camera</h1><p>This page needs a fresh link. In a terminal: <code>vcam panel</code></p></body></html>
"""
ENTER_PAGE = f"""{_HEAD}
<meta http-equiv="refresh" content="0; url=/"><body><a href="/">StreamV2V Camera</a></body></html>
"""


class Keys:
    """The token of this run, one-time tickets, and the browsers that entered with one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = secrets.token_urlsafe(32)
        self.picture_key = secrets.token_urlsafe(24)  # for programs that can only be given an address, such as OBS
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

    def is_picture_key(self, text: str) -> bool:
        """Whether this is the key that opens the live picture, and nothing else."""
        return hmac.compare_digest(text.encode(), self.picture_key.encode())


class Rate:
    """A bucket that fills with `per_s` tokens a second up to `most`; each thing allowed takes one."""

    def __init__(self, per_s: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._most, self._clock = per_s, most, clock
        self._left, self._filled_s = most, clock()

    def allows(self) -> bool:
        """Whether one more is allowed now; then it counts."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._filled_s) * self._per_s)
        self._filled_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """ASGI middleware: refuses whoever is not let in before any handler sees the request."""

    def __init__(self, app: ASGIApp, keys: Keys, port: int) -> None:
        self._app, self._keys, self._port = app, keys, port
        self._hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        self._changes, self._strangers = Rate(CHANGES_PER_S, 2 * CHANGES_PER_S), Rate(REFUSALS_PER_S, 200)

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
            return answer(400, "headers must be plain text, each once")
        host = headers.get("host", "")
        if host not in self._hosts:  # a foreign name that resolves to us: DNS rebinding
            return answer(403, "this server only answers to its own name")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return answer(403, "requests from other pages are refused")
        entering = scope["path"] == LOGIN and scope.get("method") == "GET"
        if entering:  # the ticket itself is checked by the handler
            return None
        by_program = scope["path"] == PICTURE and scope.get("method") == "GET" and "sec-fetch-site" not in headers
        if by_program and self._keys.is_picture_key(_key(scope)):
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return answer(403, "requests from other pages are refused")
        kind, _, given = headers.get("authorization", "").partition(" ")
        by_token = kind.lower() == "bearer" and self._keys.is_token(given)
        by_session = self._keys.knows(_cookies(headers).get(cookie_name(self._port), ""))
        if not (by_token or by_session):
            if not self._strangers.allows():
                return answer(429, "too many requests without the token")
            return HTMLResponse(CLOSED_PAGE, 401) if scope["path"] == "/" else answer(401, "token missing or wrong")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changes and not by_token and origin is None:
            return answer(403, "a browser must say where a request comes from")
        if scope["type"] == "http" and changes:
            if not self._changes.allows():
                return answer(429, f"too many changes; {CHANGES_PER_S} a second are carried out")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return answer(415, "the body must be application/json")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > BODY_LIMIT:
                return answer(413, f"the body may have {BODY_LIMIT} bytes at most")
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


def _key(scope: Scope) -> str:
    found = parse_qs(str(scope["query_string"], "latin-1"), encoding="latin-1")
    return found.get("key", [""])[0]


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


def answer(status: int, text: str) -> JSONResponse:
    """A refusal in words."""
    return JSONResponse({"error": text}, status)


def panel_link(keys: Keys, port: int) -> str:
    """A link that lets one browser in, once."""
    return f"http://{ADDRESS}:{port}{LOGIN}?ticket={keys.ticket()}"


def picture_link(keys: Keys, port: int) -> str:
    """The live picture's address for a program that can send no token; good for this run, and for nothing else."""
    return f"http://{ADDRESS}:{port}{PICTURE}?key={keys.picture_key}"
