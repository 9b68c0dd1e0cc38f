"""Profiles as the panel edits them: the file's shape as JSON, checked by what reads files, in the user's folder."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

from core.settings import BLUR, CAMERA
from vcam.errors import OptionError, ProfileError
from vcam.settings.profiles import Profile, check_id, parse_profile, save_profile, shipped_folder, to_toml
from vcam.settings.toml_schema import expanded, one_line


def detail(profile: Profile) -> dict[str, Any]:
    """Return the profile in the shape of its file; id, and whether it is the user's own."""
    yours = profile.path is not None and profile.path.parent != shipped_folder()
    return {"id": profile.id, "yours": yours, "profile": tomllib.loads(to_toml(profile))}


def checked(id: str, data: object) -> Profile:
    """Return the profile that `data`, a file's content as JSON, describes; raise ProfileError as for a file."""
    import tomli_w

    check_id(id)
    if not isinstance(data, dict):
        raise ProfileError(f"{id}: a profile is an object with name and look", id)
    try:
        text = tomli_w.dumps(_without_nothing(data))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProfileError(one_line(f"{id}: not what a profile can hold ({error})"), id) from error
    elsewhere = _elsewhere(data)
    if elsewhere not in (CAMERA, BLUR) and not _is_full(elsewhere):
        raise ProfileError(one_line(f"{id}: look.elsewhere: {elsewhere!r} must be {CAMERA}, {BLUR} or a full path"), id)
    for lora in _loras(data):
        if not _is_full(lora):
            raise ProfileError(one_line(f"{id}: engine.loras: {lora!r} must be a full path"), id)
    with tempfile.TemporaryDirectory(prefix="vcam-") as folder:
        path = Path(folder) / f"{id}.toml"
        path.write_text(text, encoding="utf-8")
        return parse_profile(path)


def save(id: str, data: object, folder: Path) -> Path:
    """Write the profile into the user's folder; raise ProfileError."""
    return save_profile(checked(id, data), folder)


def imported(id: str, text: str, folder: Path) -> Path:
    """Write a profile that came as the text of a file into the user's folder; raise ProfileError.

    What it names besides (LoRAs, a model's folder) must be named by full paths: nothing lies beside it here.
    """
    check_id(id)
    with tempfile.TemporaryDirectory(prefix="vcam-") as place:
        path = Path(place) / f"{id}.toml"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        profile = parse_profile(path)
        named = [one.path for one in profile.engine.loras or ()] + [profile.engine.model or ""]
        if any(Path(one).is_relative_to(place) for one in named):
            raise ProfileError(f"{id}: the files that it names must be named by full paths", id)
        return save_profile(profile, folder)


def delete(id: str, folder: Path) -> None:
    """Remove the user's profile; a shipped one of that id is seen again. Raises ProfileError."""
    wanted = f"{check_id(id)}.toml"
    try:
        found = [path for path in folder.iterdir() if path.name.lower() == wanted] if folder.is_dir() else []
        if not found:
            raise ProfileError(f"{id} is no profile of yours: those that came with the program stay", id)
        for path in found:
            path.unlink()
    except OSError as error:
        raise ProfileError(one_line(f"{folder / wanted} cannot be removed ({error.strerror or error})"), id) from error


def _without_nothing(data: dict[str, Any]) -> dict[str, Any]:
    """Without the keys whose value is null: TOML has none; an empty field of a form means "not said"."""
    return {
        key: _without_nothing(value) if isinstance(value, dict) else value
        for key, value in data.items()
        if value is not None
    }


def _is_full(path: str) -> bool:
    try:
        return expanded(path).is_absolute()
    except OptionError:
        return True  # and is told as what it is when the profile is read


def _elsewhere(data: dict[str, Any]) -> str:
    look = data.get("look")
    value = look.get("elsewhere") if isinstance(look, dict) else None
    return value if isinstance(value, str) else CAMERA


def _loras(data: dict[str, Any]) -> list[str]:
    engine = data.get("engine")
    loras = engine.get("loras") if isinstance(engine, dict) else None
    return [one["path"] for one in loras or [] if isinstance(one, dict) and isinstance(one.get("path"), str)]
