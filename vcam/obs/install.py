"""`vcam obs install`: our script where OBS can load it, and the profiles beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from vcam.errors import ObsError
from vcam.settings.toml_schema import write_atomically

SCRIPT = "streamv2v-camera.lua"
PROFILES = "streamv2v-profiles.json"
_OURS = Path(__file__).parent / SCRIPT
_BACKUP = ".before-streamv2v"


class Installed(NamedTuple):
    """Where the script lies, and the scene collections to which it was added."""

    script: Path
    added_to: list[Path]


def install(folder: Path, profiles: Iterable[tuple[str, str]], add_to_scenes: bool) -> Installed:
    """Put the script and the profiles (id, name) into the settings folder of an OBS; again and again is no harm.

    add_to_scenes: also into every scene collection (OBS must not run). Raises ObsError.
    """
    script = folder / "scripts" / SCRIPT
    try:
        write_atomically(script, _OURS.read_text(encoding="utf-8"))
        write_profiles(script.parent, profiles)
        added = [one for one in collections(folder) if add_to_scenes and _add(one, script)]
    except OSError as error:
        raise ObsError(f"{error.filename or script} cannot be written ({error.strerror or error})") from error
    return Installed(script, added)


def write_profiles(folder: Path, profiles: Iterable[tuple[str, str]]) -> bool:
    """Tells the script in `folder` of the profiles (id, name); whether they are news. Raises OSError."""
    content = json.dumps({"profiles": [{"id": id, "name": name} for id, name in profiles]}, indent=1)
    path = folder / PROFILES
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return False
    write_atomically(path, content)
    return True


def installed_in(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that hold our script, of these settings folders of OBS."""
    return [folder / "scripts" for folder in folders if (folder / "scripts" / SCRIPT).is_file()]


def collections(folder: Path) -> list[Path]:
    """OBS's scene collections."""
    return sorted((folder / "basic" / "scenes").glob("*.json"))


def steps(installed: Installed) -> str:
    """Return what the user does next in OBS, as text."""
    lines = [f"The script is at {installed.script}", ""]
    if installed.added_to:
        names = ", ".join(path.stem for path in installed.added_to)
        lines += [f"It was added to the scene collections: {names} (copies of before end in {_BACKUP}).", "In OBS:"]
    else:
        lines += ["In OBS, once for each scene collection:", "  Tools > Scripts > + > choose that file"]
    return "\n".join(
        [
            *lines,
            "  Tools > WebSocket Server Settings > Enable WebSocket server > OK",
            '  Settings > Hotkeys > search "StreamV2V" > click a field, press a key > OK',
            "Then, with the camera running: vcam obs test",
        ]
    )


def _add(collection: Path, script: Path) -> bool:
    """Add the script to a scene collection, after a copy; return whether it was not there."""
    content = collection.read_text(encoding="utf-8")
    try:
        data: dict[str, Any] = json.loads(content)
        scripts: list[Any] = data.setdefault("modules", {}).setdefault("scripts-tool", [])
        if any(Path(str(one.get("path", ""))).name == SCRIPT for one in scripts):
            return False
        scripts.append({"path": script.as_posix(), "settings": {}})
    except (ValueError, AttributeError) as error:
        raise ObsError(f"{collection} is no scene collection of OBS ({error}); add the script in OBS") from error
    backup = collection.with_name(collection.name + _BACKUP)
    if not backup.exists():
        backup.write_text(content, encoding="utf-8")
    write_atomically(collection, json.dumps(data, indent=4))
    return True
