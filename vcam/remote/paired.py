"""The engine servers that this machine's camera is paired with: where each is, its token, its certificate's mark."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from core import folders
from vcam import client
from vcam.errors import RemoteError
from vcam.remote.clients import Pairing
from vcam.settings.config import SERVER_PORT, check_address

FILE = "servers.json"


@dataclass(frozen=True)
class PairedServer:
    """Where a server is, and how it and we know each other. fingerprint: "" where a CA vouches for its certificate."""

    host: str
    port: int
    token: str = field(repr=False)
    fingerprint: str

    @property
    def name(self) -> str:
        """What the user calls it: host:port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def servers_file(folder: Path) -> Path:
    """Return the file with the tokens, which only this user may read."""
    return folder / FILE


def pair(folder: Path, address: str, text: str) -> None:
    """Keep what `vcam serve clients add` printed for that address; raises RemoteError, OptionError."""
    place, pairing = check_address("the address", address), Pairing.from_text(text)
    known = _known(folder) | {place: {"token": pairing.token, "fingerprint": pairing.fingerprint}}
    try:
        folders.make(folder)
        client.write_private(servers_file(folder), json.dumps(known, indent=1))
    except OSError as error:
        raise RemoteError(f"{servers_file(folder)} cannot be written ({error.strerror or error})") from error


def paired_server(folder: Path, address: str) -> PairedServer:
    """Return the server at that address; raises RemoteError if the two are not paired, OptionError."""
    place = check_address("the address", address)
    found = _known(folder).get(place)
    if found is None:
        raise RemoteError(
            f"this camera is not paired with {place}: run `vcam serve clients add NAME` on the server, then "
            f"`vcam pair {place}` here"
        )
    parts = urlsplit(place)
    assert parts.hostname is not None
    return PairedServer(parts.hostname, parts.port or SERVER_PORT, found["token"], found["fingerprint"])


def _known(folder: Path) -> dict[str, dict[str, str]]:
    path = servers_file(folder)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        client.narrow(path)
        return {
            str(place): {"token": str(one["token"]), "fingerprint": str(one["fingerprint"])}
            for place, one in data.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteError(f"{path} cannot be read ({error}); delete it, and pair anew") from error
