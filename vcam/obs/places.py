"""Where OBS Studio keeps its files on this machine, and what they say about its websocket."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

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
    """OBS's settings folders that exist on this machine: OBS_CONFIG_FOLDER, the ordinary one, Flatpak's, Snap's."""
    home = home or Path.home()
    if told := os.environ.get("OBS_CONFIG_FOLDER"):
        places = [Path(told)]
    elif sys.platform == "win32":
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
    """Where OBS is: as the settings say; what they leave open as OBS's own files say, read anew each time."""
    own = _own(config_folders() if folders is None else folders)
    return Address(
        settings.host,
        settings.port or own.port,
        own.password if settings.password is None else settings.password,
        own.enabled,
    )


def _own(folders: list[Path]) -> Address:
    """What OBS's files say about its websocket: of OBS 30.2 and newer, else of those before."""
    for folder in folders:
        found = _of_json(folder / "plugin_config" / "obs-websocket" / "config.json") or _of_ini(folder / "global.ini")
        if found is not None:
            return found
    return Address("127.0.0.1", PORT, "")


def _of_json(path: Path) -> Address | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        password = str(data["server_password"]) if data.get("auth_required", True) else ""
        return Address("127.0.0.1", int(data.get("server_port", PORT)), password, bool(data.get("server_enabled")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # another version of OBS; the settings can say it all


def _of_ini(path: Path) -> Address | None:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
        part = parser["OBSWebSocket"]
        password = part.get("ServerPassword", "") if part.getboolean("AuthRequired", True) else ""
        enabled = part.getboolean("ServerEnabled", False)
        return Address("127.0.0.1", part.getint("ServerPort", PORT), password or "", enabled)
    except (OSError, ValueError, KeyError, configparser.Error):
        return None


def obs_runs() -> bool:
    """Whether OBS Studio runs on this machine, as far as the system tells."""
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
