"""`vcam uninstall`: takes back what the program has put on this machine, each thing only when it is agreed to."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core import folders
from core.errors import StreamV2VError
from vcam import client
from vcam.cli import service, setup
from vcam.cli.installation import this_installation
from vcam.errors import VcamError
from vcam.log_file import log_folder
from vcam.settings.config import config_folder

Ask = Callable[[str], bool]
Say = Callable[[str], None]
_SIGNS = (".git", "pyproject.toml")  # of a folder that is somebody's work


@dataclass(frozen=True)
class Removable:
    """One thing that is there: what it is for people, and what takes it away, or the folder that goes.

    What takes it away may raise VcamError or OSError. A folder is resolved, but for a link, which stays.
    """

    name: str
    remove: Callable[[], object] | Path


def uninstall(ask: Ask, say: Say, there: Iterable[Removable] | None = None) -> list[str]:
    """Take away what is agreed to; return the names of what stays. Raises VcamError while the camera runs."""
    if _camera_runs():
        raise VcamError("the camera runs; end it first: vcam stop")
    left: list[Removable] = []
    above: set[Path] = set()
    for one in found() if there is None else there:
        if not ask(f"remove {one.name}?"):
            left.append(one)
            continue
        try:
            if isinstance(one.remove, Path):
                kept = [other.remove for other in left if isinstance(other.remove, Path)]
                above.update(_remove_folder(one.remove, kept))
            else:
                one.remove()
            say(f"removed: {one.name}")
        except (OSError, StreamV2VError) as error:
            left.append(one)
            say(f"{one.name} could not be removed ({error})")
    for folder in sorted(above, key=lambda folder: -len(folder.parts)):  # one may hold another, and several of ours
        with contextlib.suppress(OSError):  # something else is in it by now
            folder.rmdir()
    return [one.name for one in left]


def _camera_runs() -> bool:
    try:
        client.status()
    except StreamV2VError:
        return False
    return True


def found() -> list[Removable]:
    """Return what of ours is on this machine, in the order in which it goes."""
    there = []
    ours = service.this_systems_service()
    if ours.path.exists():
        there.append(Removable(f"the start at login ({ours.path})", lambda: service.remove(ours)))
    there += _obs_scripts()
    if _camera_was_set_up():
        there.append(Removable("the virtual camera's set-up (asks for administrator rights)", _undo_camera))
    return there + _folders()


def _folders() -> list[Removable]:
    """Return our folders: what lies in another comes before it, what is one folder is asked about once."""
    places = {
        "the settings and your own looks": config_folder(),
        "what was fetched and signed with": folders.data(),
        "what can be made again (pictures of looks, engines)": folders.cache(),
        "the log": log_folder(),
        "what the page remembers": client.state_folder(),
    }
    held: dict[Path, list[str]] = {}
    for name, folder in places.items():
        if folder.is_dir():
            place = folder.parent.resolve() / folder.name if folder.is_symlink() else folder.resolve()
            held.setdefault(place, []).append(name)
    inner_first = sorted(held, key=lambda folder: -len(folder.parts))
    return [Removable(f"{', '.join(held[folder])} ({folder})", folder) for folder in inner_first]


def last_words() -> str:
    """Return how the program itself is removed, which cannot be while it runs."""
    return f"the program itself: {this_installation().removal()}; your recordings stay in {folders.videos()}"


def _remove_folder(folder: Path, kept: Iterable[Path]) -> list[Path]:
    """Remove a folder of ours but for those to keep, and the one that only held it; return those above we had made.

    Raises VcamError for one that bears another name, is a link, or that somebody works in.
    """
    if folders.NAME not in folder.parts:
        raise VcamError("its name is not ours, and it may hold other things: look into it, and delete it yourself")
    if folder.is_symlink():
        raise VcamError("it is a link: look into where it leads, and delete both yourself")
    if (sign := _sign_of_work(folder)) is not None:
        raise VcamError(f"{sign} tells that somebody works there: look into it, and delete it yourself")
    ours = next(one for one in (folder, *folder.parents) if one.name == folders.NAME)
    above = folders.made_above(ours)
    _remove(folder, [path for one in kept for path in (one, one.resolve()) if path.is_relative_to(folder)])
    parent = folder.parent
    if parent.name == folders.NAME:
        with contextlib.suppress(OSError):  # something else is in it
            if [one.name for one in parent.iterdir()] == [one.name for one in folders.notes(parent)]:
                _remove(parent, [])
    return [] if ours.exists() else above


def _sign_of_work(folder: Path) -> Path | None:
    """Return what tells that our name is that of somebody's project: in the folder, or in one above it of that name."""
    above = [one for one in (folder, *folder.parents) if folders.NAME in one.parts]
    beside = (one / sign for one in above for sign in _SIGNS if (one / sign).exists())
    return next(beside, None) or next((path for sign in _SIGNS for path in folder.rglob(sign)), None)


def _remove(path: Path, kept: list[Path]) -> None:
    if path in kept:
        return
    if not any(one.is_relative_to(path) for one in kept):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it only held one that is gone already
        return
    for inner in list(path.iterdir()):
        _remove(inner, kept)


def _obs_scripts() -> list[Removable]:
    from vcam.obs import install, places

    def remove(folder: Path) -> None:
        for name in (install.SCRIPT, install.PROFILES):
            (folder / name).unlink(missing_ok=True)

    try:
        folders_of_obs = places.config_folders()
    except StreamV2VError:  # nobody's home
        return []
    return [
        Removable(f"the script for OBS ({folder / install.SCRIPT})", partial(remove, folder))
        for folder in install.installed_in(folders_of_obs)
    ]


def _camera_was_set_up() -> bool:
    """Tell whether our script has set up the virtual camera: it leaves a file that says so, or a folder."""
    if sys.platform == "win32":
        return (Path("C:/Program Files") / "StreamV2V Camera").is_dir()
    return Path("/etc/modprobe.d/streamv2v-camera.conf").exists()


def _undo_camera() -> None:
    if setup.carry_out(["yes", "undo"]) != 0:
        raise VcamError("its own script says why, above")
