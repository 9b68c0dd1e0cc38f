"""Addresses of network streams: told from files' names, and shown without what is secret in them."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]*", re.IGNORECASE)
_SECRET = re.compile(r"(?i)((?:user|usr|login|pass|pwd|token|key|auth|secret)[a-z]*=)[^/&;]*")


def is_address(text: str) -> bool:
    """Return whether a source is the address of a stream, not a file's name."""
    return _ADDRESS.match(text) is not None


def without_secrets(text: str) -> str:
    """Return the text with each address in it shown without user, password and query, which may hold a token."""
    return _ADDRESS.sub(lambda found: _shown(found[0]), text)


def _shown(address: str) -> str:
    scheme, _, rest = address.partition("://")
    place = rest.rpartition("@")[
        2
    ]  # a password may hold what else ends it: rather too much is left out than too little
    path, *query = re.split(r"[?#]", place, maxsplit=1)
    return f"{scheme}://" + _SECRET.sub(r"\1***", path) + "?***" * len(query)
