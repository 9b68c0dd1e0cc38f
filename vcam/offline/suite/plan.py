"""What a suite measures: clips, profiles, settings and other systems' films, and the cells that these make."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from core.settings import BankPreset, EngineSettings, Look, Policy
from vcam.errors import OptionError
from vcam.offline.suite.inputs import aligned_by, made_by
from vcam.settings.engine_options import EngineOptions, engine_settings
from vcam.settings.profiles import Profile
from vcam.settings.toml_schema import did_you_mean, listed
from vcam.video.media import VIDEO_SUFFIXES, reason

_BANKS = (*Policy, *(one for one in BankPreset if one is not BankPreset.OWN))
MOST_NOISE = 64.0  # grey levels; in more nothing is seen
FORMAT = 2  # of the cells' files; another makes all of them anew
_ENGINE = get_type_hints(EngineOptions)  # each `X | None`
_LOOK = get_type_hints(Look)


class Setting(NamedTuple):
    """What is changed of a profile: fields of EngineOptions and of Look."""

    name: str
    engine: Mapping[str, Any]
    look: Mapping[str, Any]


class OtherSystem(NamedTuple):
    """A folder of another system's films, named like the clips."""

    name: str
    folder: Path


@dataclass(frozen=True)
class SuiteCell:
    """One film to make or to read, and to measure: of a clip, in a profile (None: not told), by a setting or a system.

    settings, look: with what it is made; None where another system has made `film`. prompt: with which its alignment
    is measured; None: it is not.
    """

    clip: Path
    profile: str | None
    by: str
    settings: EngineSettings | None = None
    look: Look | None = None
    film: Path | None = None
    prompt: str | None = None

    @property
    def claimed(self) -> bool:
        """Return whether another system has made it."""
        return self.film is not None

    def key(self, hashes: Mapping[Path, str], measured: Mapping[str, Any]) -> str:
        """Return a name for all that the result depends on. measured: how it is measured, and by which program.

        Raises ModelError, SettingsError, VcamError.
        """
        stand_in = self.prompt is not None and not measured.get("by")
        facts = {
            "format": FORMAT,
            "clip": hashes[self.clip],
            "film": hashes[self.film] if self.film else None,
            "settings": asdict(self.settings) if self.settings else None,
            "look": asdict(self.look) if self.look else None,
            "prompt": self.prompt,
            "made_by": made_by(self.settings, self.look) if self.settings and self.look else None,
            "aligned_by": aligned_by() if stand_in else None,
            **measured,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class SuitePlan:
    """What is measured, and how: frames of each clip (None: all), at about side x side pixels, by which flow and CLIP.

    faces: whether they are looked for; None: where the model is here. noise: sigma of the noise that is added to the
    clips at that size, grey levels. Raises OptionError.
    """

    clips: tuple[Path, ...]
    profiles: tuple[Profile, ...]
    settings: tuple[Setting, ...]
    others: tuple[OtherSystem, ...] = ()
    asked: EngineOptions = field(default_factory=EngineOptions)
    machine: EngineOptions = field(default_factory=EngineOptions)
    frames: int | None = 64
    side: int = 256
    flow: str = "dis"
    clip: str | None = None
    faces: bool | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= MOST_NOISE:
            raise OptionError(f"--noise is {self.noise:g}; it must be from 0 to {MOST_NOISE:g} grey levels")
        if self.noise and self.others:
            raise OptionError(
                f"--noise with {self.others[0].name}'s films: those were made of the clips as they are; leave out one"
            )

    def cells(self) -> list[SuiteCell]:
        """Return all cells, clip by clip: its motion is found once."""
        return [cell for clip in self.clips for cell in (*self._own(clip), *self._of_others(clip))]

    def missing(self) -> list[str]:
        """Return what other systems' folders lack, in words."""
        there = {(cell.by, cell.clip) for cell in self.cells() if cell.claimed}
        return [
            f"{other.folder}: no film named like {clip.name}"
            for other in self.others
            for clip in self.clips
            if (other.name, clip) not in there
        ]

    def engine_options(self, profile: Profile, setting: Setting) -> EngineSettings:
        """Return the engine's settings; raises SettingsError, ModelError."""
        return engine_settings(EngineOptions(**setting.engine), self.asked, profile.engine, self.machine)

    def _own(self, clip: Path) -> Iterator[SuiteCell]:
        for setting in self.settings:
            for profile in self.profiles:
                look = replace(profile.look, **setting.look)
                settings = self.engine_options(profile, setting)
                yield SuiteCell(clip, profile.id, setting.name, settings, look, prompt=look.prompt)

    def _of_others(self, clip: Path) -> Iterator[SuiteCell]:
        prompts = {profile.id: profile.look.prompt for profile in self.profiles}
        for other in self.others:
            for film, profile in films_of(other.folder, clip, prompts):
                prompt = None if profile is None else prompts[profile]
                yield SuiteCell(clip, profile, other.name, film=film, prompt=prompt)


def films_of(folder: Path, clip: Path, profiles: Iterable[str]) -> list[tuple[Path, str | None]]:
    """Return a folder's films of a clip, and in which profile each is, where its name or its folder says so.

    `walk.mp4` and `walk/` (a folder of pictures) are of the clip walk.mp4; so are `walk-ink.mp4`, `walk_ink.mp4`,
    `walk.ink.mp4` and `ink/walk.mp4`, in the profile ink.
    """
    endings = {f"{joint}{one}": one for one in profiles for joint in "-_."}
    found: list[tuple[Path, str | None]] = []
    for where, told in [(folder, None), *((folder / one, one) for one in profiles)]:
        for path in entries(where) if where.is_dir() else ():
            if not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
                continue
            name = path.name if path.is_dir() else path.stem
            if name == clip.stem:
                found.append((path, told))
            elif told is None and name.startswith(clip.stem) and name[len(clip.stem) :] in endings:
                found.append((path, endings[name[len(clip.stem) :]]))
    return found


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted; raises OptionError."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise OptionError(
            f"{folder}: this folder cannot be read ({reason(error)}); allow it, or name another"
        ) from error


# ------------------------------------------------------------------------------------------------------- settings


def parse_setting(text: str) -> Setting:
    """Read `default`, a bank (`off`, `paper`), or `NAME:key=value,key=value` of the engine's and the look's keys.

    Raises OptionError.
    """
    name, colon, changes = text.partition(":")
    name = name.strip()
    if not colon:
        if name == "default":
            return Setting(name, {}, {})
        if name in _BANKS:
            return Setting(name, _bank(name), {})
        raise OptionError(
            f"--settings: {name!r} is no setting; it must be default, {listed(_BANKS)}, or NAME:key=value,key=value"
        )
    engine: dict[str, Any] = {}
    look: dict[str, Any] = {}
    for change in changes.split(","):
        key, equals, value = (part.strip() for part in change.partition("="))
        key = key.replace("-", "_")
        if not equals or key not in _ENGINE | _LOOK:
            known = [one for one in (*_ENGINE, *_LOOK) if one not in ("loras", "model")]
            raise OptionError(f"--settings: {change!r} in {text!r} is no key=value{did_you_mean(key, known)}")
        if key == "bank":
            engine |= _bank(value)
        elif key in _ENGINE:
            engine[key] = _value(key, value, _ENGINE[key])
        else:
            look[key] = _value(key, value, _LOOK[key])
    return Setting(name, engine, look)


def _bank(text: str) -> dict[str, Any]:
    """Return what the command line's --bank means: a policy, or whose bank it is."""
    return {"policy": Policy(text)} if text in list(Policy) else {"bank": _value("bank", text, BankPreset)}


def _value(key: str, text: str, kind: Any) -> Any:
    """Return the value that the text means for a field of that type; its range is checked where it is used."""
    kinds = [one for one in get_args(kind) if one is not type(None)] if isinstance(kind, types.UnionType) else [kind]
    kind = kinds[0]
    try:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return kind(text)
        if kind in (int, float, str):
            return kind(text)
    except ValueError as error:
        allowed = f"one of {', '.join(kind)}" if issubclass(kind, StrEnum) else "a number"
        raise OptionError(f"--settings: {key} is {text!r}; it must be {allowed}") from error
    raise OptionError(f"--settings: {key} cannot be set here; put it into a profile")
