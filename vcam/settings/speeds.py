"""What this machine was measured to do: which preset `auto` takes, by model, kept between runs in a small file."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcam.settings.presets import BY_SHARPNESS, Preset
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions, cores, engine_threads, processor
from vcam.settings.toml_schema import LARGEST_FILE, write_atomically

FILE = "speeds.json"
_KEPT = 50  # machines and ways of running; the oldest go first


@dataclass(frozen=True)
class Speed:
    """What was measured of a model. runtime: that ran it; rates: translated pictures a second, by preset."""

    preset: Preset
    runtime: str
    rates: Mapping[Preset, float]


def place(options: RunOptions) -> str:
    """Return what the speed of a model depends on besides the model: the machine, and how the engine is run there."""
    asked = options.engine, options.machine
    runtime, provider, device, dtype = (
        next((str(value) for one in asked if (value := getattr(one, name)) is not None), "auto")
        for name in ("runtime", "provider", "device", "dtype")
    )
    width, height = options.size or DEFAULT_SIZE
    machine = f"{processor()}, {cores()} cores, {platform.node()}"
    if options.remote:
        machine = f"{options.remote} from {platform.node()}"
    return f"{machine}; {runtime} {provider} {device} {dtype}, {engine_threads(options)} threads, {width}x{height}"


def remembered(folder: Path, place: str) -> dict[str, Speed]:
    """Return what is kept of a place, by model; what cannot be read is measured again."""
    found = {}
    for model, one in _read(folder).get(place, {}).items():
        try:
            rates = {Preset(name): float(rate) for name, rate in one["rates"].items()}
            preset = Preset(one["preset"])
            if preset in BY_SHARPNESS:
                found[model] = Speed(preset, str(one["runtime"]), rates)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def remember(folder: Path, place: str, model: str, speed: Speed) -> None:
    """Keep what was measured. Raises OSError."""
    places = _read(folder)
    own = places.pop(place, {})
    own[model] = {"preset": speed.preset, "runtime": speed.runtime, "rates": dict(speed.rates)}
    places[place] = own  # the newest last
    kept = dict(list(places.items())[-_KEPT:])
    write_atomically(folder / FILE, json.dumps(kept, indent=1))


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        with (folder / FILE).open("rb") as file:
            data = json.loads(file.read(LARGEST_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {place: models for place, models in data.items() if isinstance(models, dict)}
