"""Whom a server lets in: a token for each client, of which the file keeps a hash alone; and the pairing text."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vcam import client
from vcam.errors import RemoteError
from vcam.remote.protocol import Refusal

FILE = "clients.json"
LOCK_S = 10.0  # that another program may take to change the file
TOKEN_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")
_PAIRING = "vcam1."


@dataclass(frozen=True)
class KnownClient:
    """A client that was let in once. hash: SHA-256 of its token, which is 256 bits of chance; added: UTC, in words."""

    name: str
    hash: str
    added: str
    revoked: bool = False


@dataclass(frozen=True)
class Pairing:
    """What a client is given once. fingerprint: of the server's certificate, "" where a CA vouches for it."""

    token: str = field(repr=False)
    fingerprint: str

    def to_text(self) -> str:
        """Return it as one word, to be typed or pasted at the client."""
        data = json.dumps({"token": self.token, "fingerprint": self.fingerprint}, separators=(",", ":"))
        return _PAIRING + base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")

    @staticmethod
    def from_text(text: str) -> Pairing:
        """Return what `to_text` wrote; raises RemoteError."""
        body = text.strip().removeprefix(_PAIRING)
        try:
            data = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            token, fingerprint = data["token"], data["fingerprint"]
            sound = isinstance(token, str) and token.isascii() and re.fullmatch("[0-9a-f]{64}|", fingerprint)
        except (ValueError, KeyError, TypeError):
            sound = None
        if not text.strip().startswith(_PAIRING) or not sound:
            raise RemoteError(
                f"this is no pairing text: it begins with {_PAIRING} and is printed once, on the server, by "
                "vcam serve clients add NAME"
            )
        return Pairing(token, fingerprint)


class ClientBook:
    """The clients' file, read anew whenever it has changed: what another process revokes is revoked here."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._read: tuple[tuple[int, ...] | None, tuple[KnownClient, ...]] = (None, ())

    def clients(self) -> tuple[KnownClient, ...]:
        """Return all, revoked ones too. Raises RemoteError where the file cannot be read, or was there and is gone."""
        try:
            found = self._path.stat()
        except FileNotFoundError as error:
            if self._read[0] is None:
                return ()
            raise RemoteError(f"{self._path} is gone; restore it, or pair anew") from error
        except OSError as error:  # a shared folder that has gone away
            raise RemoteError(f"{self._path} cannot be read ({error.strerror or error})") from error
        mark = found.st_mtime_ns, found.st_size, found.st_ino
        if mark != self._read[0]:
            try:
                data: list[dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
                self._read = mark, tuple(KnownClient(**one) for one in data)
            except (OSError, ValueError, TypeError) as error:
                raise RemoteError(
                    f"{self._path} cannot be read ({error}); restore it, or delete it and pair anew"
                ) from error
        return self._read[1]

    def add(self, name: str) -> str:
        """Let a client of that name in; return its token, which is kept nowhere. Raises RemoteError."""
        if not NAME.fullmatch(name):
            raise RemoteError(f"{name[:80]!r} is no name for a client; take up to 60 letters, digits, blanks, . _ -")
        with self._alone():
            before = self.clients()
            if any(one.name == name and not one.revoked for one in before):
                raise RemoteError(
                    f"there is a client {name!r} already; revoke it first: vcam serve clients revoke {name!r}"
                )
            token = secrets.token_urlsafe(TOKEN_BYTES)
            added = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            self._write((*(one for one in before if one.name != name), KnownClient(name, _hash(token), added)))
        return token

    def revoke(self, name: str) -> None:
        """Let that client in no more; its streams end within a second. Raises RemoteError."""
        with self._alone():
            before = self.clients()
            if not any(one.name == name for one in before):
                known = ", ".join(one.name for one in before) or "none"
                raise RemoteError(f"there is no client {name[:80]!r}; there are: {known}")
            self._write(tuple(replace(one, revoked=one.revoked or one.name == name) for one in before))

    def check(self, token: str) -> tuple[str, Refusal | None]:
        """Return whose token it is, and why it is refused; both take as long whatever the token is."""
        wanted, found = _hash(token), None
        for one in self.clients():
            if hmac.compare_digest(one.hash, wanted):
                found = one
        if found is None:
            return "", Refusal.TOKEN
        return found.name, Refusal.REVOKED if found.revoked else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other program change the file while the body runs; raises RemoteError where one does so for long."""
        from filelock import FileLock, Timeout

        try:
            client.private_folder(self._path.parent)
            with FileLock(self._path.with_suffix(".lock"), timeout=LOCK_S, mode=0o600):
                self._read = (None, ())  # of two changes within the clock's grain the first may still be remembered
                yield
        except Timeout as error:
            raise RemoteError(
                f"another vcam serve clients has been changing {self._path} for {LOCK_S:g} s; end it, and try again"
            ) from error
        except OSError as error:
            raise RemoteError(f"{self._path.parent} cannot be written ({error.strerror or error})") from error

    def _write(self, clients: tuple[KnownClient, ...]) -> None:
        try:
            client.write_private(self._path, json.dumps([asdict(one) for one in clients], indent=1))
        except OSError as error:
            raise RemoteError(f"{self._path} cannot be written ({error.strerror or error})") from error


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
