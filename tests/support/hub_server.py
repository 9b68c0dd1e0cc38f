"""A hub on this machine: its resolve addresses, metadata, redirects to another host, ranges, and faults on demand."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What it holds, what it was asked, and what it does wrong.

    files: repository/path -> content. faults: path -> what the next requests of that method come to: "GET 500",
    "GET cut 1000" (the connection ends after so many bytes), "GET other" (another content of that length).
    """

    revision: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    tokens: list[str] = field(default_factory=list)  # the Authorization of each request
    ranges: bool = True
    server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """The address."""
        hub = self

        class Handler(_Handler):
            held = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def fault(self, path: str, method: str) -> str:
        waiting = self.faults[path]
        if waiting and waiting[0].startswith(method):
            return waiting.popleft().partition(" ")[2]
        return ""


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        self.held.tokens.append(self.headers.get("Authorization", ""))
        cdn = self.path.startswith("/cdn/")
        repository, _, rest = self.path.removeprefix("/cdn").strip("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        content = self.held.files.get(f"{repository}/{path}")
        if not cdn:
            self.held.asked.append((method, path or self.path, self.headers.get("Range", "")))
        large = path.endswith(".safetensors")
        fault = "" if large and method == "GET" and not cdn else self.held.fault(path, method)
        if fault.isdecimal():
            self._send(int(fault), {"X-Error-Message": "as the test wishes"}, b"")
        elif content is None or revision != self.held.revision:
            code = "EntryNotFound" if revision == self.held.revision else "RevisionNotFound"
            self._send(404, {"X-Error-Code": code, "X-Repo-Commit": self.held.revision}, b"")
        elif large and not cdn:  # as the hub does: the storage is another host, the metadata is in the redirect
            host = f"http://localhost:{self.server.server_port}"  # type: ignore[attr-defined]
            told = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
            self._send(302, {**told, "X-Repo-Commit": revision, "Location": f"{host}/cdn{self.path}"}, b"")
        else:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._content(content, fault, {"ETag": f'"{git}"', "X-Repo-Commit": revision})

    def _content(self, content: bytes, fault: str, headers: dict[str, str]) -> None:
        if fault == "other":
            content = bytes(len(content))
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        status, body = 200, content
        if "Range" in self.headers and self.held.ranges:
            status, body = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault.startswith("cut"):
            self._send(status, headers, body[: int(fault.split()[1])], length=len(body))
            self.close_connection = True
        else:
            self._send(status, headers, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
