"""Where OBS Studio keeps its files on this machine, and what they say about its websocket."""

from __future__ import annotations

import configparser
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from core import folders
from vcam.settings.config import ObsSettings

PORT = 4455


@dataclass(frozen=True)
class Address:
    """Where OBS's websocket is. enabled: None where OBS's files do not tell."""

    host: str
    port: int
    password: str = field(repr=False)
    enabled: bool | None = None


def config_folders(home: Path | None = None) -> list[Path]:
    """Return OBS's settings folders on this machine: OBS_CONFIG_FOLDER, or the ordinary one, Flatpak's, Snap's."""
    if told := os.environ.get("OBS_CONFIG_FOLDER"):
        return [Path(told)] if Path(told).is_dir() else []
    home = home or folders.home()
    if sys.platform == "win32":
        places = [Path(os.environ.get("APPDATA", home / "AppData" / "Roaming")) / "obs-studio"]
    elif sys.platform == "darwin":
        places = [home / "Library" / "Application Support" / "obs-studio"]
    else:
        places = [
            Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "obs-studio",
            home / ".var" / "app" / "com.obsproject.Studio" / "config" / "obs-studio",
            home / "snap" / "obs-studio" / "current" / ".config" / "obs-studio",
        ]
    return [place for place in places if place.is_dir()]


def address(settings: ObsSettings, folders: list[Path] | None = None) -> Address:
    """Return where OBS is: as the settings say; what they leave open as OBS's own files say, read anew each time."""
    own = _own(config_folders() if folders is None else folders)
    return Address(
        settings.host,
        settings.port or own.port,
        own.password if settings.password is None else settings.password,
        own.enabled,
    )


def stranger_at(at: Address, settings: ObsSettings) -> str:
    """Say who is there instead of this user's OBS; "" where it is theirs, or config.toml names the place."""
    if settings.port is not None or settings.host != ObsSettings().host:
        return ""
    if listens_for_us(at.port) is not False:
        return ""
    return (
        f"another user's program listens at OBS's port {at.port}; "
        "if that is your OBS all the same, write host and port under [obs] into config.toml"
    )


def _own(folders: list[Path]) -> Address:
    """Return what OBS's files say about its websocket: those of the OBS that listens now, where there are several."""
    found = [one for folder in folders if (one := _of_folder(folder)) is not None]
    listening = (one for one in found if listens_for_us(one.port))
    enabled = (one for one in found if one.enabled)
    return next(listening, None) or next(enabled, None) or next(iter(found), Address("127.0.0.1", PORT, ""))


def _of_folder(folder: Path) -> Address | None:
    """Return what the files of OBS 30.2 and newer say, else those of before."""
    return _of_json(folder / "plugin_config" / "obs-websocket" / "config.json") or _of_ini(folder / "global.ini")


def listens_for_us(port: int) -> bool | None:
    """Tell whether a program of this user listens at the port; None where nobody does, or the system does not tell."""
    return _linux_user_listens(port) if Path("/proc/net/tcp").exists() else process_of_ours_listens(port)


def _linux_user_listens(port: int) -> bool | None:
    owners = linux_owners(port)
    return owners <= {Path("/proc/self").stat().st_uid} if owners else None


def linux_owners(port: int, proc: Path = Path("/proc/net")) -> set[int]:
    """Return the users whose sockets listen at the port on this machine."""
    owners = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                owners.add(int(fields[7]))
    return owners


_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def process_of_ours_listens(port: int) -> bool | None:
    """Look at the processes of this user, whose sockets a system shows without more rights."""
    import psutil

    ours = psutil.Process().username()
    for process in psutil.process_iter(["username"]):
        if process.info["username"] != ours:
            continue
        try:
            sockets = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
            return True
    return False if _somebody_listens(port) else None


def _somebody_listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _of_json(path: Path) -> Address | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        password = str(data["server_password"]) if data.get("auth_required", True) else ""
        return Address("127.0.0.1", int(data.get("server_port", PORT)), password, bool(data.get("server_enabled")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # another version of OBS; the settings can say it all


def _of_ini(path: Path) -> Address | None:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",), delimiters=("=",))
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
        part = parser["OBSWebSocket"]
        password = part.get("ServerPassword", "") if part.getboolean("AuthRequired", True) else ""
        enabled = part.getboolean("ServerEnabled", False)
        return Address("127.0.0.1", part.getint("ServerPort", PORT), _unescaped(password or ""), enabled)
    except (OSError, ValueError, KeyError, configparser.Error):
        return None


def _unescaped(text: str) -> str:
    r"""Return the text with OBS's escapes undone: \\, \n and \r (its config-file.c writes no others)."""
    return re.sub(r"\\([\\nr])", lambda found: {"n": "\n", "r": "\r"}.get(found[1], "\\"), text)


def obs_runs() -> bool:
    """Tell whether OBS Studio runs on this machine, as far as the system tells."""
    if sys.platform == "win32":
        command, word = ["tasklist", "/FI", "IMAGENAME eq obs64.exe", "/NH"], "obs64.exe"
    else:
        command, word = ["ps", "-A", "-o", "comm="], ""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return True  # unknown: better not to touch its files
    if word:
        return word in told
    return any(Path(line.strip()).name.lower() in ("obs", "obs-studio") for line in told.splitlines())
