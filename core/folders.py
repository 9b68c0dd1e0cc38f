"""Where this program keeps its files: the system's usual places for this user."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from core.errors import SettingsError

NAME = "streamv2v-camera"
_ABOVE = ".made-above"  # in our folder: the folders above it that were made with it, the outermost first


def home() -> Path:
    """Return this user's home folder; raises SettingsError where the system knows none."""
    try:
        return Path.home()
    except RuntimeError as error:  # an id without an account, and no HOME: a container, a service
        raise SettingsError(
            "this user has no home folder to keep settings and models in: set HOME to a folder that it may write to"
        ) from error


def config() -> Path:
    """Return the folder for settings: ~/.config on Linux, Application Support on macOS, %APPDATA% on Windows."""
    import platformdirs

    _require_home()
    return platformdirs.user_config_path(NAME, appauthor=False, roaming=True)


def data() -> Path:
    """Return the folder for what was fetched and must be kept."""
    import platformdirs

    _require_home()
    return platformdirs.user_data_path(NAME, appauthor=False)


def cache() -> Path:
    """Return the folder for what can be made again."""
    import platformdirs

    _require_home()
    return platformdirs.user_cache_path(NAME, appauthor=False)


def log() -> Path:
    """Return the folder for logs."""
    import platformdirs

    _require_home()
    return platformdirs.user_log_path(NAME, appauthor=False)


def videos() -> Path:
    """Return the folder for what the user records: one of ours in the system's folder of videos."""
    import platformdirs

    _require_home()
    return platformdirs.user_videos_path() / "StreamV2V Camera"


def state() -> Path:
    """Return the folder for what tells that the program runs: one for all sessions of a user.

    It does not follow XDG_RUNTIME_DIR or XDG_STATE_HOME: a login by ssh or su, or cron, has other ones or none, and
    would not find what runs.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home() / "AppData" / "Local") / NAME
    if sys.platform == "darwin":
        return home() / "Library" / "Application Support" / NAME
    return home() / ".local" / "state" / NAME


def make(folder: Path, mode: int = 0o777) -> None:
    """Make the folder and those above it, and note in ours which of those above were not there; raises OSError."""
    ours = next((one for one in (folder, *folder.parents) if one.name == NAME), None)
    missing = [] if ours is None else [one for one in reversed(ours.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    if ours is not None and missing:
        with contextlib.suppress(OSError):  # an empty folder would stay behind then
            (ours / _ABOVE).write_text("".join(f"{one}\n" for one in missing), encoding="utf-8")


def notes(ours: Path) -> list[Path]:
    """Return the files in ours that only say how it was made."""
    return [one for one in (ours / _ABOVE,) if one.exists()]


def made_above(ours: Path) -> list[Path]:
    """Return the folders above ours that were made with it, the innermost first; none where that is not known."""
    try:
        noted = (ours / _ABOVE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [one for one in ours.parents if str(one) in noted]


def _require_home() -> None:
    """Raise SettingsError where platformdirs would answer a folder named ~ in the folder one stands in."""
    if sys.platform != "win32":
        home()
