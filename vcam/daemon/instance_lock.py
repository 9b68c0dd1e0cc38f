"""One camera a user: the lock that says that it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vcam import client
from vcam.errors import VcamError


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock that says a daemon runs; the system gives it back however the process ends."""
    path = folder / client.LOCK_FILE
    try:
        client.private_folder(folder)
        lock = open(path, "ab+", buffering=0, opener=_private)  # noqa: SIM115  closed below
        client.narrow(path)
    except OSError as error:
        reason = f"{folder} cannot be used ({error.strerror}): set VCAM_STATE_FOLDER to a folder of your own"
        raise VcamError(reason) from error
    with lock as file:
        if not _locked(file):
            file.seek(0)
            pid = file.read().decode(errors="replace").strip() or "unknown"
            raise VcamError(f"StreamV2V Camera runs already (pid {pid}); to end it: vcam stop")
        try:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except OSError as error:
            raise VcamError(client.cannot_be_written(path, error)) from error
        yield
        with contextlib.suppress(OSError):
            file.truncate(0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _locked(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1000)  # a byte that nobody reads
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
