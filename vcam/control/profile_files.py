"""Profiles as the panel edits them: the file's shape as JSON, checked by what reads files, in the user's folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from vcam.errors import ProfileError
from vcam.settings.profiles import Profile, check_id, parse_profile_text, save_profile, shipped_folder, to_toml
from vcam.settings.toml_schema import one_line


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
    return parse_profile_text(text, id)


def save(id: str, data: object, folder: Path) -> Path:
    """Write the profile into the user's folder; raise ProfileError."""
    return save_profile(checked(id, data), folder)


def imported(id: str, text: str, folder: Path) -> Path:
    """Write a profile that came as the text of a file into the user's folder; raise ProfileError.

    What it names besides (LoRAs, a model's folder, a picture) must be named by full paths: nothing lies beside it here.
    """
    return save_profile(parse_profile_text(text, id), folder)


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
