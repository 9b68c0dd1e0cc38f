"""Profiles: one TOML file a look, the user's folder first, then those shipped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from core.errors import SettingsError
from core.settings import BLUR, CAMERA, BankPreset, EngineSettings, Framing, Look, Lora, names
from vcam.errors import OptionError, ProfileError
from vcam.settings.engine_options import NOTHING_ASKED, AskedBy, EngineOptions, names_asked_by
from vcam.settings.presets import Preset
from vcam.settings.toml_schema import (
    Check,
    check_values,
    choice,
    did_you_mean,
    expanded,
    flag,
    listed,
    number,
    one_line,
    read_text,
    read_values,
    shown,
    text,
    whole,
    write_atomically,
)

DEFAULT_TRANSITION_MS = 400
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Windows gives these names to devices, whatever the suffix
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_ID_RULE = "a profile's id is its file name: letters, digits, - and _, at most 63"


@dataclass(frozen=True)
class Profile:
    """A look with a name.

    id: the file's stem in small letters. transition_ms: how long the prompt before blends into this one. engine:
    what it asks of the engine; the rest is chosen for the machine. badge: the picture carries an "AI" mark. order: its
    place in lists, small numbers first, equal ones by their ids. path: its file.
    """

    id: str
    name: str
    description: str = ""
    look: Look = field(default_factory=Look)
    transition_ms: int = DEFAULT_TRANSITION_MS
    engine: EngineOptions = NOTHING_ASKED
    badge: bool = False
    order: int = 0
    path: Path | None = None


class LoadedProfiles(NamedTuple):
    """The usable profiles by id, in their order, and one error for each file that is not usable."""

    profiles: dict[str, Profile]
    problems: list[ProfileError]


def shipped_folder() -> Path:
    """Where the shipped profiles lie: inside the installed package, else beside it in a checkout."""
    installed = Path(__file__).parents[1] / "shipped_profiles"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "profiles"


def user_profile_folder() -> Path:
    """Where the user's own profiles lie; it need not exist."""
    from vcam.settings.config import config_folder

    return config_folder() / "profiles"


def load_profiles(user_folder: Path | None = None) -> LoadedProfiles:
    """All profiles: the user's (`user_folder`, or the usual place) and those shipped whose id the user did not take.

    A file that cannot be used becomes an entry of `problems`. It also hides a shipped profile of its id: to show
    another look than the user wrote would be a silent fallback.
    """
    profiles: dict[str, Profile] = {}
    problems: list[ProfileError] = []
    taken: set[str] = set()
    for folder in (user_folder or user_profile_folder(), shipped_folder()):
        try:
            paths = sorted(folder.iterdir()) if folder.exists() else []
        except OSError as error:
            message = f"{folder}: the folder of profiles cannot be read ({error.strerror or error})"
            problems.append(ProfileError(one_line(message), path=folder))
            continue
        here: dict[str, Path] = {}
        # a leading dot: the resource forks of macOS, and files still being written
        for path in (p for p in paths if p.suffix.lower() == ".toml" and not p.name.startswith(".")):
            id = path.stem.lower()
            if id in here:
                message = f"{path.name}: {here[id].name} in {folder} has the same id; rename one of the two"
                problems.append(ProfileError(message, id, path))
                continue
            here[id] = path
            if id in taken:
                continue
            try:
                profiles[id] = parse_profile(path)
            except ProfileError as error:
                problems.append(error)
            except Exception as error:  # noqa: BLE001  a file that nobody foresaw costs itself, not the camera
                what = f"{path.name}: it cannot be read ({type(error).__name__}: {error})"
                problems.append(ProfileError(one_line(what), id, path))
        taken |= here.keys()
    ordered = sorted(profiles.values(), key=lambda profile: (profile.order, profile.id))
    return LoadedProfiles({profile.id: profile for profile in ordered}, problems)


def find_profile(text: str, profiles: Mapping[str, Profile], problems: Iterable[ProfileError] = ()) -> Profile:
    """Return the profile of that id or, failing that, of that name, in any case; raises ProfileError."""
    wanted = text.strip().casefold()
    if wanted in profiles:
        return profiles[wanted]
    for problem in problems:
        if wanted and problem.id == wanted:
            raise problem
    named = [one for one in profiles.values() if one.name.casefold() == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        ids = listed([one.id for one in named], "and")
        raise ProfileError(f"{shown(text)} is the name of more than one profile: {ids}; use the id")
    words = [*(one.name for one in profiles.values()), *profiles]  # of equal ones the last counts: the id
    hint = did_you_mean(wanted, words) or (f"; there are {listed(profiles, 'and')}" if profiles else "")
    raise ProfileError(one_line(f"no profile {shown(text)}{hint or '; there are none'}"), wanted)


def check_id(id: str) -> str:
    """Return the id if a profile may have it; raises ProfileError, so that no id leaves the folder of profiles."""
    if not _ID.fullmatch(id) or id in _DEVICES:
        raise ProfileError(f"profile id {shown(id)} cannot be used; {_ID_RULE}", id)
    return id


def parse_profile(path: Path) -> Profile:
    """Read one profile; raises ProfileError.

    Paths in it (loras, a model's folder, a picture) are relative to the file.
    """
    id = path.stem.lower()
    try:
        if not _ID.fullmatch(id) or id in _DEVICES:
            raise OptionError(one_line(f"{path.name}: this file name cannot be used; {_ID_RULE}"))
        return _made_of(read_values(path, SCHEMA), id, path.name, path)
    except OptionError as error:
        raise ProfileError(str(error), id, path) from error


def parse_profile_text(text: str, id: str) -> Profile:
    """Read one profile that came as the text of its file; raises ProfileError.

    Paths in it must be full ones: it has no folder yet beside whose files they could be.
    """
    name = f"{check_id(id)}.toml"  # the file that it came from, or becomes
    try:
        return _made_of(read_text(text, name, SCHEMA), id, name, None)
    except OptionError as error:
        raise ProfileError(str(error), id) from error


def _made_of(values: dict[str, object], id: str, name: str, path: Path | None) -> Profile:
    """Return the profile of a file's values; name: begins what is wrong. Raises OptionError."""
    if "name" not in values or "look.prompt" not in values:
        missing = "name" if "name" not in values else "look.prompt"
        raise OptionError(f'{name}: {missing} is missing; write {missing.rpartition(".")[2]} = "..."')
    home = path and path.parent.absolute()
    engine: dict[str, Any] = {
        key.removeprefix("engine."): value for key, value in values.items() if key.startswith("engine.")
    }
    try:
        _take_paths_from(home, values, engine)
    except OptionError as error:
        raise OptionError(one_line(f"{name}: {error}")) from error
    look = {key.rpartition(".")[2]: value for key, value in values.items() if key.startswith("look.")}
    transition_ms: Any = look.pop("transition_ms", DEFAULT_TRANSITION_MS)
    return Profile(
        id=id,
        name=str(values["name"]),
        description=str(values.get("description", "")),
        look=Look(**look),  # type: ignore[arg-type]
        transition_ms=transition_ms,
        engine=EngineOptions(**engine),
        badge=bool(values.get("badge", False)),
        order=int(str(values.get("order", 0))),
        path=path,
    )


def _take_paths_from(home: Path | None, values: dict[str, object], engine: dict[str, Any]) -> None:
    """Make each path of a profile a full one, beneath `home`; raises OptionError where there is no home to begin at."""
    if "loras" in engine:
        named = enumerate(engine["loras"])
        engine["loras"] = tuple(
            Lora(_beside(home, f"engine.loras[{n}].path", one.path), one.weight) for n, one in named
        )
    if "/" in (model := str(engine.get("model", ""))) or "\\" in model:  # else it is a name
        engine["model"] = _beside(home, "engine.model", model)
    if (elsewhere := values.get("look.elsewhere", CAMERA)) not in (CAMERA, BLUR):
        values["look.elsewhere"] = _beside(home, "look.elsewhere", str(elsewhere))


def to_toml(profile: Profile, folder: Path | None = None) -> str:
    """Return the profile as the text of its file: what differs from the defaults, paths in `folder` relative to it.

    Raises ProfileError if it holds what `parse_profile` would refuse.
    """
    import tomli_w

    data: dict[str, Any] = {"name": profile.name}
    if profile.description:
        data["description"] = profile.description
    if profile.badge:
        data["badge"] = True
    if profile.order:
        data["order"] = profile.order
    plain = Look()
    look: dict[str, Any] = {"prompt": profile.look.prompt, "strength": profile.look.strength}
    if profile.transition_ms != DEFAULT_TRANSITION_MS:
        look["transition_ms"] = profile.transition_ms
    for key in (*_LOOK_KEYS, *_BANK_KEYS):
        value = getattr(profile.look, key)
        if value != getattr(plain, key) and key not in look:
            written = _picture_relative(folder, value) if key == "elsewhere" else value
            (look.setdefault("bank", {}) if key in _BANK_KEYS else look)[key] = written
    data["look"] = look
    if engine := profile.engine.given():
        data["engine"] = engine
        if "loras" in engine:
            engine["loras"] = [{"path": _relative(folder, one.path), "weight": one.weight} for one in engine["loras"]]
    try:
        flat = {k: v for k, v in data.items() if not isinstance(v, dict)}
        flat |= {f"look.{k}": v for k, v in look.items() if k != "bank"}
        flat |= {f"look.bank.{k}": v for k, v in look.get("bank", {}).items()}
        flat |= {f"engine.{k}": v for k, v in data.get("engine", {}).items()}
        if unknown := [k for k in flat if k not in SCHEMA]:
            raise OptionError(f"unknown key {unknown[0]}{did_you_mean(unknown[0], SCHEMA)}")
        check_values(flat, SCHEMA)
    except OptionError as error:
        raise ProfileError(one_line(f"{profile.id}: {error}"), profile.id) from error
    return tomli_w.dumps(data)


def save_profile(profile: Profile, folder: Path | None = None) -> Path:
    """Write the profile into `folder` (the user's own if None) in one step and return its path; raises ProfileError."""
    folder = folder or user_profile_folder()
    path = folder / f"{check_id(profile.id)}.toml"
    content = to_toml(profile, folder)
    try:
        write_atomically(path, content)
    except OSError as error:
        message = one_line(f"{path}: the profile cannot be written ({error.strerror or error})")
        raise ProfileError(message, profile.id, path) from error
    return path


def _checks_of(kind: type[Look] | type[EngineSettings], names: Iterable[str]) -> dict[str, Check]:
    """Return the check of each of the fields of `kind`, by its type."""
    types = get_type_hints(kind)
    checks: dict[str, Check] = {}
    for name in names:
        if types[name] == tuple[Lora, ...]:
            checks[name] = _lora_list
        elif isinstance(types[name], type) and issubclass(types[name], StrEnum):
            checks[name] = choice(types[name])
        else:
            checks[name] = text(1000) if types[name] is str else _held_by(kind, name)
    return checks


def _held_by(kind: type[Look] | type[EngineSettings], name: str, *types: type) -> Check:
    """Leaves the judgement to the dataclass that will hold the value: one place knows what is allowed."""

    def check(key: str, value: object) -> object:
        if not isinstance(value, types or (bool, int, float)):
            # the dataclass would show all of a long text
            raise OptionError(f"{key} is {shown(value)}; it must be a number")
        try:
            kind(**{name: value})  # type: ignore[arg-type]
        except SettingsError as error:
            raise OptionError(f"{key.removesuffix(name)}{error}") from error
        return value

    return check


def _lora_list(key: str, value: object) -> tuple[Lora, ...]:
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list) or len(value) > 16:
        raise OptionError(
            f'{key} is {shown(value)}; it must be a list such as [{{ path = "x.safetensors", weight = 1.0 }}]'
        )
    loras = []
    for n, one in enumerate(value):
        where = f"{key}[{n}]"
        if not isinstance(one, dict):
            raise OptionError(f'{where} is {shown(one)}; it must be {{ path = "x.safetensors", weight = 1.0 }}')
        if unknown := [k for k in one if k not in ("path", "weight")]:
            raise OptionError(f"unknown key {where}.{unknown[0]}; known here: path and weight")
        if "path" not in one:
            raise OptionError(f'{where}.path is missing; write path = "x.safetensors"')
        path = str(text(1000)(f"{where}.path", one["path"]))
        loras.append(Lora(path, number(-4, 4)(f"{where}.weight", one.get("weight", 1.0))))  # type: ignore[arg-type]
    return tuple(loras)


def _elsewhere(key: str, value: object) -> object:
    word = text(1000)(key, value)
    return _held_by(Look, "elsewhere", str)(key, word)


def full_path_of_elsewhere(key: str, value: object) -> str:
    """Check for a look's `elsewhere`; a picture's path is taken from the folder one stands in."""
    word = str(_elsewhere(key, value))
    return word if word in (CAMERA, BLUR) else _beside(Path.cwd(), key, word)


def _beside(home: Path | None, key: str, path: str) -> str:
    """Return the path as a full one; home: where it begins if it is none, None where it must be one."""
    full = expanded(path)
    if home is None and not full.is_absolute():
        raise OptionError(f"{key} is {shown(path)}; it must be a full path, for no file lies beside this profile yet")
    return str(home / full if home else full)


def _relative(folder: Path | None, path: str) -> str:
    if folder and Path(path).is_relative_to(folder.absolute()):
        return Path(path).relative_to(folder.absolute()).as_posix()
    return path


def _picture_relative(folder: Path | None, elsewhere: str) -> str:
    path = _relative(folder, elsewhere)
    return path if path == elsewhere or "." in path or "/" in path else f"./{path}"  # a word alone is no path


_BANK_KEYS = _checks_of(
    Look, ("fusion_strength", "similarity_threshold", "interval", "steady", "refresh")
)  # in a table of their own
_LOOK_KEYS: dict[str, Check] = {
    **_checks_of(Look, [name for name in names(Look) if name not in _BANK_KEYS]),
    "prompt": text(1000, fold=True),
    "negative_prompt": text(1000, shortest=0, fold=True),
    "framing": choice(Framing),
    "elsewhere": _elsewhere,
}
_ENGINE_KEYS: dict[str, Check] = {
    "preset": choice(Preset),
    "bank": choice(BankPreset),
    **_checks_of(EngineSettings, [name for name in names_asked_by(AskedBy.PROFILE) if name not in ("preset", "bank")]),
}
SCHEMA: dict[str, Check] = {
    "name": text(60),
    "description": text(300, shortest=0),
    "badge": flag,
    "order": whole(-1000, 1000),
    **{f"look.{name}": check for name, check in _LOOK_KEYS.items()},
    "look.transition_ms": whole(0, 10_000),
    **{f"look.bank.{name}": check for name, check in _BANK_KEYS.items()},
    **{f"engine.{name}": check for name, check in _ENGINE_KEYS.items()},
}
"""Every key of a profile's file and what it may hold."""
