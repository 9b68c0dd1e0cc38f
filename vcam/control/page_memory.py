"""What is remembered of the user from run to run: which looks are favourites, and how far the first steps have come."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vcam import client
from vcam.errors import CommandError, VcamError
from vcam.settings.profiles import check_id

FAVOURITES = 9  # as many as there are keys
MEMORY_FILE = "page.json"


@dataclass(frozen=True)
class Remembered:
    """favourites: ids of profiles, the first has the key 1. set_up: whether the first steps are done, or waved away.

    told: whether the terminal has told them when none was left but what nobody but the user can see.
    """

    favourites: tuple[str, ...] = ()
    set_up: bool = False
    told: bool = False


class PageMemory:
    """Keeps a Remembered in a file of the state folder; one that cannot be read is one that is not there.

    Thread-safe. A folder that cannot be written costs the next run its memory, not this one.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / MEMORY_FILE, threading.Lock()
        self.now = _read(self._path)

    def change(self, given: dict[str, Any]) -> Remembered:
        """Take the values that are given, by name; raises CommandError for what cannot be remembered."""
        with self._lock:
            self.now = with_changes(self.now, given)
            with contextlib.suppress(OSError, VcamError):
                client.write_private(
                    client.private_folder(self._path.parent) / MEMORY_FILE, json.dumps(asdict(self.now))
                )
        return self.now


def with_changes(now: Remembered, given: dict[str, Any]) -> Remembered:
    """Return what is remembered with the values that are given, by name; raises CommandError for any others."""
    if unknown := given.keys() - asdict(now).keys():
        raise CommandError(f"the page remembers no {min(unknown)[:40]!r}; it has {', '.join(asdict(now))}")
    return replace(now, **_checked(given))


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    wanted = dict(given)
    if "favourites" in wanted:
        ids = wanted["favourites"]
        if not isinstance(ids, list) or len(ids) > FAVOURITES or not all(isinstance(one, str) for one in ids):
            raise CommandError(f"favourites must be a list of at most {FAVOURITES} ids of profiles")
        wanted["favourites"] = tuple(dict.fromkeys(check_id(one) for one in ids))
    for name in ("set_up", "told"):
        if not isinstance(wanted.get(name, True), bool):
            raise CommandError(f"{name} must be true or false")
    return wanted


def _read(path: Path) -> Remembered:
    with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, VcamError):
        data = json.loads(path.read_text(encoding="utf-8"))
        return Remembered(**_checked(data))
    return Remembered()
