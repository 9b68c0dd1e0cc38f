"""From what a person asks of the engine to its settings: one way for command line, commands, profiles, config.toml."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, get_type_hints

from core.settings import (
    BANK_RULES,
    BankPreset,
    EngineSettings,
    Guidance,
    Lora,
    Policy,
    Provider,
    Runtime,
    names,
)
from vcam.settings.presets import START, Own, Preset, graded

DEFAULT_MODEL = "embedded"
FILLS = 1.03  # a stretch that nobody sees: vcam.fit makes no bars for it
_SMALLEST, _LARGEST, _MULTIPLE = 64, 2048, 16  # pixels of a side, as EngineSettings takes them


class AskedBy(StrEnum):
    """Who may ask for something of the engine besides the command line."""

    CONFIG = "config.toml"
    PROFILE = "a profile's file"
    COMMAND = "a command to the running camera"


@dataclass(frozen=True)
class EngineOptions:
    """What is asked of the engine, by the names of EngineSettings; None: not asked for.

    Each field says who may ask for it besides the command line. preset stands for width, height and steps; bank for
    policy, slots and rules.
    """

    preset: Annotated[Preset | None, AskedBy.CONFIG, AskedBy.PROFILE, AskedBy.COMMAND] = None
    width: Annotated[int | None, AskedBy.PROFILE, AskedBy.COMMAND] = None
    height: Annotated[int | None, AskedBy.PROFILE, AskedBy.COMMAND] = None
    steps: Annotated[int | None, AskedBy.PROFILE, AskedBy.COMMAND] = None
    bank: Annotated[BankPreset | None, AskedBy.CONFIG, AskedBy.PROFILE, AskedBy.COMMAND] = None
    policy: Annotated[Policy | None, AskedBy.PROFILE, AskedBy.COMMAND] = None
    slots: Annotated[int | None, AskedBy.PROFILE, AskedBy.COMMAND] = None
    model: Annotated[str | None, AskedBy.CONFIG, AskedBy.PROFILE, AskedBy.COMMAND] = None
    guidance: Annotated[Guidance | None, AskedBy.PROFILE] = None
    loras: Annotated[tuple[Lora, ...] | None, AskedBy.PROFILE] = None
    dtype: Annotated[str | None, AskedBy.CONFIG] = None
    device: Annotated[str | None, AskedBy.CONFIG] = None
    runtime: Annotated[Runtime | None, AskedBy.CONFIG] = None
    provider: Annotated[Provider | None, AskedBy.CONFIG] = None

    @staticmethod
    def read(holder: object, size: tuple[int, int] | None = None) -> EngineOptions:
        """Return the options that `holder` (a parsed command line) has as attributes, with width and height of `size`.

        Attributes that `holder` lacks are not asked for.
        """
        found = EngineOptions(**{name: getattr(holder, name, None) for name in names(EngineOptions)})
        return replace(found, width=size[0], height=size[1]) if size else found

    def given(self) -> dict[str, Any]:
        """Return what is asked for, by name."""
        return {name: value for name in names(EngineOptions) if (value := getattr(self, name)) is not None}


NOTHING_ASKED = EngineOptions()


def names_asked_by(who: AskedBy) -> tuple[str, ...]:
    """Return the names of the options that `who` may ask for."""
    hints = get_type_hints(EngineOptions, include_extras=True)
    return tuple(name for name in names(EngineOptions) if who in hints[name].__metadata__)


def engine_settings(
    *asked: EngineOptions, shape: tuple[int, int] | None = None, automatic: Mapping[str, Preset] | None = None
) -> EngineSettings:
    """Return the settings of the engine: of each option the first of `asked` that has it, else the model's own value.

    The usual order is: command line or command, profile, config.toml. shape: width and height of the pictures to come;
    where nobody asked for a size, the engine gets one of this shape with as many pixels as the preset has. automatic:
    what the preset `auto` takes, by model; None: the model's own size and steps.
    Raises SettingsError, core.errors.ModelError.
    """
    from core.models.description import describe

    wanted = _merged(asked)
    preset, bank = wanted.pop("preset", Preset.AUTO), wanted.pop("bank", BankPreset.OWN)
    sized = "width" in wanted or "height" in wanted
    wanted.setdefault("model", DEFAULT_MODEL)
    own = describe(str(wanted["model"]))
    own_values = {name: getattr(own, name) for name in names(EngineSettings) if hasattr(own, name)}
    if preset is Preset.AUTO and automatic is not None and not sized:
        preset = automatic.get(wanted["model"], START)
    if preset is not Preset.AUTO:
        own_values |= graded(preset, Own(own.width, own.height, own.steps))._asdict()
    if bank is not BankPreset.OWN:
        own_values |= {"policy": Policy.MERGE, "slots": 1, "rules": BANK_RULES[bank]}
    settings = EngineSettings(**(own_values | wanted))
    if sized or shape is None:
        return settings
    width, height = engine_size(*shape, settings.width * settings.height)
    return replace(settings, width=width, height=height)


def preset_of(*asked: EngineOptions) -> Preset | None:
    """Return the preset that engine_settings takes; None where a size was asked for, which leaves none to choose."""
    wanted = _merged(asked)
    sized = "width" in wanted or "height" in wanted
    return None if sized else wanted.get("preset", Preset.AUTO)


def _merged(asked: tuple[EngineOptions, ...]) -> dict[str, Any]:
    """Return what is asked for, of each option the first; a preset goes before what comes after it asks of its own."""
    wanted: dict[str, Any] = {}
    for one in reversed(asked):
        if one.preset is not None:
            wanted = {name: value for name, value in wanted.items() if name not in ("width", "height", "steps")}
        if one.bank is not None:
            wanted = {name: value for name, value in wanted.items() if name not in ("policy", "slots")}
        wanted |= one.given()
    return wanted


def engine_size(width: int, height: int, pixels: int, *, pixel_aspect: Fraction = Fraction(1)) -> tuple[int, int]:
    """Return the size at which the engine sees all of a width x height picture with about `pixels` pixels.

    Both sides are the neighbouring multiples of 16 of the exact size (64 to 2048), whichever distort least.
    """
    aspect = width * pixel_aspect / height
    exact = math.sqrt(pixels * aspect)
    candidates = [(w, h) for w in _multiples_around(exact) for h in _multiples_around(float(exact / aspect))]
    return min(
        candidates, key=lambda size: (abs(math.log(size[0] / size[1] / aspect)), abs(size[0] * size[1] - pixels))
    )


def sizes_like(
    shape: tuple[int, int], now: tuple[int, int], factors: Sequence[float] = (0.5, 0.75, 1, 1.25, 1.5)
) -> list[tuple[int, int]]:
    """Return sizes of an engine that fill a picture of `shape` without bars, smallest first.

    About `factors` times as wide as the one of now, which is among them.
    """
    aspect = shape[0] / shape[1]
    grid = range(_SMALLEST, _LARGEST + 1, _MULTIPLE)
    fitting = [
        (width, height)
        for height in grid
        for width in _multiples_around(height * aspect)
        if max(width / height / aspect, aspect * height / width) < FILLS
    ]
    wanted = {min(fitting, key=lambda size: abs(size[0] - now[0] * factor), default=now) for factor in factors}
    return sorted({*(wanted if now in fitting else wanted - {now}), now})


def _multiples_around(side: float) -> tuple[int, int]:
    low = math.floor(side / _MULTIPLE) * _MULTIPLE
    return min(max(low, _SMALLEST), _LARGEST), min(max(low + _MULTIPLE, _SMALLEST), _LARGEST)
