"""Who may enter: the token of a run, one-time links, pages that came by one, OBS's bridge; all others are refused."""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vcam.log_file import callable_here

ADDRESS = "127.0.0.1"
BODY_LIMIT = 64 * 1024
TICKET_S = 600.0  # how long a one-time link is good
VIEW_S = 60.0  # how long a page's key for a picture may be used
LOGIN = "/login"
COMMAND = "/api/v1/command"
CHANGES_PER_S = 50
REFUSALS_PER_S = 20  # of tickets, tokens and keys that are wrong: nobody shall try them out at full speed
PICTURE = "/api/v1/picture.mjpeg"
PICTURES = (PICTURE, "/api/v1/picture.jpg", "/api/v1/input.mjpeg", "/api/v1/input.jpg")
WEBSOCKET_PROTOCOL = "vcam"
_WEBSOCKET_KEY = "key."  # before a page's key, as a second subprotocol: browsers cannot send headers there
ALLOWED = "vcam.allowed"  # in a request's scope: the commands that its sender may give, where that is not all
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
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
<link rel="icon" href="/icon.svg">"""
CLOSED_PAGE = f"""{_HEAD}
<body><h1>StreamV2V Camera</h1><p>This page needs a fresh link. In a terminal: <code>PROGRAM</code></p></body></html>
"""
ENTER_PAGE = (
    _HEAD
    + """
<meta name="key" content="KEY"><script src="/enter.js"></script>
<body><a href="/">StreamV2V Camera</a></body></html>
"""
)


class Who(Enum):
    """Whom a request comes from."""

    USER = auto()  # a program of this user's: it has the run's token
    PAGE = auto()  # a page of ours that came by a one-time link
    BRIDGE = auto()  # OBS's bridge, which may give some commands
    VIEWER = auto()  # somebody with a key to the picture alone
    STRANGER = auto()


class Keys:
    """The tokens of this run, one-time tickets, the pages that entered with one, and what opens a picture alone.

    picture_key: opens the live picture for a program that can only be given an address, such as OBS; "" opens nothing.
    bridge_commands: the names of the commands that OBS's bridge may give. pages: `page_mark` of the keys of pages that
    entered in earlier runs; keep: is given all of them when one more enters.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        picture_key: str = "",
        bridge_commands: Collection[str] = (),
        pages: Sequence[str] = (),
        keep: Callable[[Sequence[str]], None] = lambda pages: None,
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self.bridge_token = secrets.token_urlsafe(32)
        self.bridge_commands = frozenset(bridge_commands)
        self.picture_key = picture_key
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[str, float] = {}
        self._views: dict[str, float] = {}
        self._pages, self._keep = list(pages), keep

    def ticket(self) -> str:
        """Return a new ticket, good once and for TICKET_S."""
        return self._kept(self._tickets, TICKET_S)

    def view(self) -> str:
        """Return a new key to the pictures, good for VIEW_S."""
        return self._kept(self._views, VIEW_S)

    def _kept(self, keys: dict[str, float], good_s: float) -> str:
        made = secrets.token_urlsafe(24)
        with self._lock:
            now = self._clock()
            for key in [key for key, end in keys.items() if end <= now]:
                del keys[key]
            keys[made] = now + good_s
        return made

    def enter(self, ticket: str) -> str | None:
        """Return a page's key for a ticket, which is then used up; None if it is no good."""
        with self._lock:
            if self._tickets.pop(ticket, 0.0) <= self._clock():
                return None
            key = secrets.token_urlsafe(32)
            self._pages = [*self._pages[-31:], page_mark(key)]
            self._keep(self._pages)
            return key

    def who(self, key: str) -> Who:
        """Tell whose key this is."""
        if _same(key, self.token):
            return Who.USER
        mark = page_mark(key)
        if any(_same(mark, known) for known in list(self._pages)):
            return Who.PAGE
        return Who.BRIDGE if _same(key, self.bridge_token) else Who.STRANGER

    def opens_picture(self, key: str) -> bool:
        """Tell whether this is the key that a program was given for the live picture."""
        return bool(self.picture_key) and _same(key, self.picture_key)

    def opens_view(self, key: str) -> bool:
        """Tell whether this is a page's key to the pictures."""
        with self._lock:
            return self._views.get(key, 0.0) > self._clock()


def page_mark(key: str) -> str:
    """Return what is kept of a page's key: enough to know it again, and no key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())


class RateLimit:
    """A bucket that fills with `per_s` tokens a second up to `most`; each thing allowed takes one."""

    def __init__(self, per_s: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._most, self._clock = per_s, most, clock
        self._left, self._filled_s = most, clock()

    def allows(self) -> bool:
        """Tell whether one more is allowed now; then it counts."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._filled_s) * self._per_s)
        self._filled_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """ASGI middleware: refuses whoever is not let in before any handler sees the request.

    hosts: what the Host header may say; empty where only this user's programs can connect (a Unix socket).
    public: the addresses that need no key. known: told of each connection that has shown one (ASGI's `client`).
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        hosts: Collection[str],
        public: Collection[str] = (),
        known: Callable[[Any], None] = lambda client: None,
    ) -> None:
        self._app, self._keys, self._hosts, self._public, self._known = app, keys, hosts, public, known
        self._changes = RateLimit(CHANGES_PER_S, 2 * CHANGES_PER_S)
        self._refusals = RateLimit(REFUSALS_PER_S, 2 * REFUSALS_PER_S)

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
            refusal.headers["connection"] = "close"  # a stranger's connection is not kept
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = _headers(scope)
        if headers is None:
            return answer(400, "headers must be plain text, each once")
        if (foreign := self._foreign(scope, headers)) is not None:
            return foreign
        path, reads = scope["path"], scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if reads and path == LOGIN and self._public:
            return self._enter(scope)
        if reads and path in self._public:
            return None
        who = self._who(scope, headers)
        if who is Who.STRANGER:
            return self._wrong_key("token missing or wrong")
        self._known(scope.get("client"))
        if who is Who.BRIDGE:
            if path != COMMAND:
                return answer(403, "OBS may give commands, and nothing else")
            scope[ALLOWED] = self._keys.bridge_commands
        if who is Who.PAGE and not reads and "origin" not in headers:
            return answer(403, "a browser must say where a request comes from")
        return None if reads else self._change(scope, headers)

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Refuse what another page, or another name for this machine, has sent here."""
        host = headers.get("host", "")
        if self._hosts and host not in self._hosts:  # a foreign name that resolves to us: DNS rebinding
            return answer(403, "this server only answers to its own name")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return answer(403, "requests from other pages are refused")
        following_a_link = scope["path"] == LOGIN and scope.get("method") == "GET"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not following_a_link:
            return answer(403, "requests from other pages are refused")
        return None

    def _enter(self, scope: Scope) -> Response:
        """Let a page in that brings a one-time ticket."""
        key = self._keys.enter(_query(scope, "ticket"))
        if key is None:
            return _closed() if self._refusals.allows() else answer(429, "too many requests without the token")
        self._known(scope.get("client"))
        return HTMLResponse(ENTER_PAGE.replace("KEY", key))

    def _who(self, scope: Scope, headers: dict[str, str]) -> Who:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._keys.who(given)
        if scope["type"] == "websocket":
            return self._keys.who(_websocket_key(headers))
        if scope["path"] in PICTURES and scope["method"] == "GET" and (key := _query(scope, "key")):
            by_program = scope["path"] == PICTURE and "sec-fetch-site" not in headers
            if (by_program and self._keys.opens_picture(key)) or self._keys.opens_view(key):
                return Who.VIEWER
        return Who.STRANGER

    def _wrong_key(self, text: str) -> Response:
        return answer(401, text) if self._refusals.allows() else answer(429, "too many requests without the token")

    def _change(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        if scope["type"] == "websocket":
            return None
        if not self._changes.allows():
            return answer(429, f"too many changes; {CHANGES_PER_S} a second are carried out")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return answer(415, "the body must be application/json")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            return answer(413, f"the body may have {BODY_LIMIT} bytes at most")
        return None


_DECIDING = (
    "host",
    "origin",
    "authorization",
    "sec-fetch-site",
    "sec-websocket-protocol",
    "content-type",
    "content-length",
)


def _headers(scope: Scope) -> dict[str, str] | None:
    """Return the headers that decide, by name; None if one of them comes twice or is not ASCII."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in _DECIDING:
            if name in found or not raw_value.isascii():
                return None
            found[name] = raw_value.decode("ascii")
    return found


def _query(scope: Scope, name: str) -> str:
    found = parse_qs(str(scope["query_string"], "latin-1"), encoding="latin-1")
    return found.get(name, [""])[0]


def _websocket_key(headers: dict[str, str]) -> str:
    offered = [one.strip() for one in headers.get("sec-websocket-protocol", "").split(",")]
    return next((one.removeprefix(_WEBSOCKET_KEY) for one in offered if one.startswith(_WEBSOCKET_KEY)), "")


def _closed() -> Response:
    return HTMLResponse(
        CLOSED_PAGE.replace("PROGRAM", html.escape(callable_here("vcam panel", at_terminal=False))), 401
    )


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
    """Refuse in words."""
    return JSONResponse({"error": callable_here(text, at_terminal=False)}, status)


def panel_link(keys: Keys, port: int) -> str:
    """Return a link that lets one browser in, once."""
    return f"http://{ADDRESS}:{port}{LOGIN}?ticket={keys.ticket()}"


def picture_link(keys: Keys, port: int) -> str:
    """Return the live picture's address for a program that can send no token; its key opens nothing else."""
    return f"http://{ADDRESS}:{port}{PICTURE}?key={keys.picture_key}"
