"""Folders and files of this user alone: whatever made them first, nobody else may read or enter them."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from vcam.errors import VcamError


def private_folder(path: Path) -> Path:
    """Make the folder with access for this user alone (0700), or narrow the one that is there; return its path.

    On Windows the folders of a user's profile are private already. Raises VcamError where it belongs to somebody else.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if sys.platform == "win32":
        return path
    found = os.stat(path, follow_symlinks=True)
    if found.st_uid != os.getuid():
        raise VcamError(f"{path} belongs to another user; remove it, or set VCAM_STATE_FOLDER to a folder of yours")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write the file anew with access for this user alone (0600): whole, or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def narrow(path: Path) -> None:
    """Take everybody else's access to a file that is there (0600)."""
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)
