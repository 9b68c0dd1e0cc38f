"""The door for programs of this user: a Unix socket in a private folder; on Windows a loopback port of its own.

Whatever strangers do at the page's port, `vcam panic` and `vcam stop` come in here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import tempfile
from pathlib import Path

from vcam.client import private_folder
from vcam.control.guard import ADDRESS
from vcam.errors import VcamError

SOCKET_FILE = "control.sock"
_LONGEST_PATH = 100  # bytes: sun_path holds 104 on macOS, 108 on Linux

Door = str | int  # the path of a Unix socket, or a port of 127.0.0.1


def open_door(folder: Path) -> tuple[socket.socket, Door]:
    """Listen in the state folder; return the socket and where programs find it. Raises VcamError.

    The folder's lock is held by the caller, so a socket that is there is left from a run that has ended.
    """
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        return open_port()
    path = _short(private_folder(folder) / SOCKET_FILE)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise VcamError(
            f"{path}: a socket's name may have {_LONGEST_PATH} letters; commands come in there: set VCAM_STATE_FOLDER "
            "to a folder whose name is short"
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise VcamError(f"{path} cannot be made ({error.strerror or error}); commands come in there") from error
    return listener, str(path)


def close_door(listener: socket.socket, door: Door) -> None:
    """Stop listening, and leave nothing behind."""
    listener.close()
    if isinstance(door, str):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(door)


def open_port() -> tuple[socket.socket, Door]:
    """Listen at any free port of 127.0.0.1; return the socket and the port. Raises VcamError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((ADDRESS, 0))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise VcamError(f"no port of this machine is free for commands ({error.strerror})") from error
    return listener, int(listener.getsockname()[1])


def _short(path: Path) -> Path:
    """Return the path, or a short one that stands for it where the system could not bind it."""
    if sys.platform == "win32" or len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    folder = private_folder(Path(tempfile.gettempdir()) / f"streamv2v-camera-{os.getuid()}")
    return folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"
