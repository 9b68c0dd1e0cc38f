"""`vcam suite`: from what is asked for to report.json and report.html."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vcam.errors import OptionError, VcamError
from vcam.offline.bench import machine
from vcam.offline.suite.page import page
from vcam.offline.suite.plan import OtherSystem, SuitePlan, entries
from vcam.offline.suite.results import CLAIMS, Claim, gathered
from vcam.offline.suite.run import SuiteInstruments, carry_out
from vcam.video import Note, natural, to_stderr
from vcam.video.media import VIDEO_SUFFIXES, reason

_SHOWN = ("warp_error", "edit_strength", "sharpness", "flicker", "ghosting", "frame_consistency")
_MACHINE = ("processor", "cores", "gpu", "system", "torch", "onnxruntime", "numpy")


class MadeReport(NamedTuple):
    """What a suite found, and the same as a table for a person."""

    result: dict[str, Any]
    text: str


def find_clips(given: Iterable[Path]) -> tuple[Path, ...]:
    """Return the films: those named, and of a folder all that it holds; raises OptionError."""
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise OptionError(f"{path}: there is no such film or folder")
        inside = [one for one in entries(path) if one.suffix.lower() in VIDEO_SUFFIXES] if path.is_dir() else [path]
        if not inside:
            raise OptionError(f"{path}: no film in this folder ({', '.join(VIDEO_SUFFIXES)})")
        found += sorted(inside, key=lambda one: natural(one.name))
    stems = [one.stem for one in found]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise OptionError(f"two clips are named {twice[0]}: other systems' films are found by it; rename one")
    return tuple(found)


def others_of(given: Iterable[str]) -> tuple[OtherSystem, ...]:
    """Read NAME=FOLDER; raises OptionError."""
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name.strip() or not Path(folder).is_dir():
            raise OptionError(f"--other is {text!r}; it must be NAME=FOLDER, a folder of films named like the clips")
        found.append(OtherSystem(name.strip(), Path(folder)))
    return tuple(found)


def make_report(
    plan: SuitePlan,
    folder: Path,
    claims: Sequence[Claim] = CLAIMS,
    *,
    lab: SuiteInstruments | None = None,
    progress: bool = True,
    note: Note = to_stderr,
) -> MadeReport:
    """Measure what is not measured yet, and write report.json and report.html into the folder. Raises VcamError."""
    names = [*(one.name for one in plan.settings), *(one.name for one in plan.others)]
    if len(set(names)) != len(names):
        raise OptionError(f"settings and systems are {', '.join(names)}; each must have a name of its own")
    try:
        found = carry_out(plan, folder, lab=lab or SuiteInstruments(), progress=progress, note=note)
        facts = machine("cpu")
        told = {name: facts[name] for name in _MACHINE if facts.get(name) is not None}
        result = gathered(plan, found, told, claims)
        _write(folder / "report.json", json.dumps(result, indent=1, default=str))
        _write(folder / "report.html", page(json.loads((folder / "report.json").read_bytes()), folder / "cells"))
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else folder
        if folder not in (named, *named.parents):
            raise VcamError(f"{named}: cannot be used ({reason(error)}); what was made until then is kept") from error
        raise VcamError(f"{folder}: cannot be written ({reason(error)}); what was made until then is kept") from error
    return MadeReport(result, _table(result, folder))


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _table(result: dict[str, Any], folder: Path) -> str:
    """Return the means, a line for each setting and system."""
    table = result["table"]
    lines = [f"{'':20}" + "".join(f"{name:>18}" for name in _SHOWN) + f"{'fps':>8}"]
    for name, row in table.items():
        cells = [row["figures"].get(one) for one in _SHOWN]
        shown = "".join(f"{'-' if one is None else format(one['mean'], '.4g'):>18}" for one in cells)
        lines.append(f"{name:20}{shown}{row['speed']['fps'] if row['speed'] else '-':>8}")
    return "\n".join([*lines, f"{len(result['rows'])} films; {folder / 'report.html'}"])
