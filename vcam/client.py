"""The running camera as other programs of this user see it: where it leaves its address, and how it is asked.

Quick to import: the standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import folders
from vcam.commands import Command, Status, to_json
from vcam.errors import ClientError

SESSION_FILE = "session.json"
LOCK_FILE = "daemon.lock"
ANSWER_S = 10.0  # how long the running camera may take for anything
_NOBODY = "no StreamV2V Camera is running; start one with: vcam run"


def state_folder() -> Path:
    """Where the running daemon leaves its address, token and lock (VCAM_STATE_FOLDER overrides); need not exist."""
    if folder := os.environ.get("VCAM_STATE_FOLDER"):
        return Path(folder)
    return folders.state()


def private_folder(path: Path) -> Path:
    """Make the folder with access for this user alone (0700), or narrow the one that is there; return its path.

    On Windows the folders of a user's profile are private already. Raises ClientError where it is somebody else's.
    """
    folders.make(path, 0o700)
    if sys.platform == "win32":
        return path
    found = os.stat(path, follow_symlinks=True)
    if found.st_uid != os.getuid():
        raise ClientError(f"{path} belongs to another user; remove it, or set VCAM_STATE_FOLDER to a folder of yours")
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


def cannot_be_written(path: Path, error: OSError) -> str:
    """Return what to tell the user where a file of the state folder cannot be written."""
    return f"{path} cannot be written ({error.strerror}); make room on that disk, or set VCAM_STATE_FOLDER to another"


def narrow(path: Path) -> None:
    """Take everybody else's access to a file that is there (0600)."""
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)


@dataclass(frozen=True)
class Session:
    """How a program of this user reaches the running camera.

    door: the path of a Unix socket, or a port of 127.0.0.1. token: what it shows there.
    """

    door: str | int
    token: str = field(repr=False)


def write_session(folder: Path, door: str | int, port: int | None, token: str) -> None:
    """Leave door, the page's port and the token for the clients, in a file that only this user can read."""
    text = json.dumps({"pid": os.getpid(), "door": door, "port": port, "token": token})
    write_private(private_folder(folder) / SESSION_FILE, text)


def session(folder: Path | None = None) -> Session:
    """Return how the running camera is reached. Raises ClientError if none runs."""
    folder = folder or state_folder()
    path = folder / SESSION_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        door = data["door"]
        if not isinstance(door, str | int):
            raise TypeError("its door is no path and no port")
        return Session(door, str(data["token"]))
    except FileNotFoundError:
        raise ClientError(_nobody(folder, path)) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClientError(f"{path} cannot be read ({error}); run vcam again") from error


def status(folder: Path | None = None) -> Status:
    """Return what the daemon says about itself; raises ClientError if none runs."""
    return Status.from_json(_ask("GET", "/api/v1/status", None, folder))


def send(command: Command, folder: Path | None = None) -> Status:
    """Have the daemon carry out the command; its status afterwards. Raises ClientError with its words if refused."""
    return Status.from_json(_ask("POST", "/api/v1/command", to_json(command), folder))


def profiles(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return the daemon's profiles: id, name, description, current."""
    answer: list[dict[str, Any]] = _ask("GET", "/api/v1/profiles", None, folder)["profiles"]
    return answer


def panel_link(folder: Path | None = None) -> str:
    """Return a fresh link to the panel, good for one use."""
    return str(_ask("POST", "/api/v1/link", {}, folder)["link"])


def picture_link(folder: Path | None = None) -> str:
    """Return the live picture's address, with a key that opens nothing else, for a program such as OBS."""
    return str(_ask("POST", "/api/v1/picture-link", {}, folder)["link"])


def status_text(status: Status) -> str:
    """Return the status in a few lines for a terminal."""
    engine_text = ": ".join(one for one in (status.runtime or "-", status.provider) if one)
    lines = [
        f"{status.state}" + (f": {status.reason}" if status.reason else ""),
        f"  profile   {status.profile_name or status.profile or '-'}  ({status.prompt})",
        f"  source    {status.source}",
        f"  sink      {status.sink}, {status.width}x{status.height} at {status.published_fps:.1f} fps",
        f"  engine    {status.model} on {status.device or '-'} ({engine_text}), {status.fps:.1f} fps, "
        f"bank {status.bank_bytes / 2**20:.1f} MiB, restarts {status.restarts}"
        + (f", bank made anew: {status.refreshes}" if status.refreshes else "")
        + (f", process {status.engine_pid}" if status.engine_pid else ""),
        *([f"  server    {status.server}: {server_text(status)}"] if status.server else []),
        *([f"  preset    {preset_text(status)}"] if status.preset else []),
        *([f"  panel     at port {status.panel_port}; vcam panel opens it"] if status.panel_port else []),
        *([f"  OBS       {status.obs}"] if status.obs else []),
        f"  latency   {status.latency_ms:.0f} ms from capture to publish; at most {status.longest_interval_ms:.0f} ms "
        "between two pictures",
        f"  frames    {status.captured} captured, {status.translated} translated, {status.dropped} dropped, "
        f"{status.published} published in {status.uptime_s:.0f} s"
        + (f", {status.refused} of them not taken by the sink" if status.refused else ""),
    ]
    if status.recording:
        lines.append(f"  recording {status.recording}, {status.recorded_s:.0f} s")
    if status.finishing:
        lines.append(f"  finishing {status.finishing}")
    if status.reader_count is not None:
        lines.insert(4, f"  readers   {', '.join(status.readers) or status.reader_count or 'none'}")
    return "\n".join(lines + [f"  note      {note}" for note in status.notes])


def server_text(status: Status) -> str:
    """Return how long the way to the engine's server takes, in words."""
    parts = [f"{part} {ms[0]:.1f} ms ({ms[1]:.1f})" for part, ms in status.server_ms.items()]
    return ", ".join(parts) + ", half of the pictures (19 of 20)" if parts else "nothing measured yet"


def preset_text(status: Status) -> str:
    """Return the preset in words."""
    if status.preset_asked == status.preset:
        return status.preset
    return f"{status.preset_asked}: {status.preset_says or status.preset}"


class _DoorConnection(http.client.HTTPConnection):
    """HTTP through the door."""

    def __init__(self, door: str | int, timeout_s: float) -> None:
        super().__init__("127.0.0.1", door if isinstance(door, int) else None, timeout=timeout_s)
        self._path = door if isinstance(door, str) else None

    def connect(self) -> None:
        """Connect to the Unix socket, or to the port."""
        if self._path is None or sys.platform == "win32":
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    at: Session, method: str, path: str, body: dict[str, Any] | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return the running camera's answer. Raises ClientError with its words where it refuses, or does not answer.

    folder: its state folder, the usual one if None.
    """
    connection = _DoorConnection(at.door, ANSWER_S)
    try:
        headers = {"Authorization": f"Bearer {at.token}", "Content-Type": "application/json"}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = json.loads(answer.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise ClientError(_nobody(state_folder() if folder is None else folder, at.door)) from None
    except TimeoutError:
        raise ClientError("the daemon does not answer; end it (Ctrl-C in its window) and start it again") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ClientError(
            f"{at.door} answers, but not as a StreamV2V Camera ({error}); start vcam run again"
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ClientError(str(data.get("error", f"refused with status {answer.status}")))
    return dict(data)


def _ask(method: str, path: str, body: dict[str, Any] | None, folder: Path | None) -> dict[str, Any]:
    return ask(session(folder), method, path, body, folder)


def _nobody(folder: Path, missing: object) -> str:
    """Return what to say where nobody answers; missing: the way in that is not there."""
    pid = _holder(folder / LOCK_FILE)
    if not pid:
        return _NOBODY
    return (
        f"StreamV2V Camera runs (pid {pid}), but {missing} is not there: it is starting or ending, or somebody has "
        f"deleted that; try again, or end it (Ctrl-C in its window, or kill {pid}) and start it again"
    )


def _holder(path: Path) -> str:
    """Return the process that holds the lock of a running camera; "" if none does, or it cannot be told."""
    if sys.platform == "win32":
        return ""
    import fcntl

    try:
        with open(path, "rb") as file:
            pid = file.read(20).decode("ascii").strip()
            os.kill(int(pid), 0)  # first: to try the lock could be in the way of a camera that is being started
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return pid
    except (OSError, ValueError, OverflowError):
        pass
    return ""
