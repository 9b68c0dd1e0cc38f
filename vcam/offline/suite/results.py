"""Makes one result of a suite's cells: means and their spread by setting and system, and what was measured on what."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.measure.definitions import DEFINITIONS
from vcam.errors import OptionError
from vcam.offline.suite.plan import FORMAT, SuitePlan

FIGURES = tuple(one.name for one in DEFINITIONS if one.name != "latency_frames")


class Claim(NamedTuple):
    """Frames per second that others say of themselves. None of them was measured here."""

    system: str
    fps: float
    hardware: str
    source: str


CLAIMS = (
    Claim("StreamV2V", 20, "NVIDIA A100", "arXiv 2405.15757v3, abstract"),
    Claim(
        "FlowVid", 1.33, "512x512; the hardware is not named there", "arXiv 2312.17681, abstract: 4 s at 30 in 1.5 min"
    ),
    Claim("CoDeF", 0.43, "NVIDIA A100", "arXiv 2405.15757v3, abstract: StreamV2V is 46 times as fast"),
    Claim("Rerender", 0.19, "NVIDIA A100", "arXiv 2405.15757v3, abstract: StreamV2V is 108 times as fast"),
    Claim("TokenFlow", 0.13, "NVIDIA A100", "arXiv 2405.15757v3, abstract: StreamV2V is 158 times as fast"),
    Claim("StreamDiffusion", 91.07, "NVIDIA RTX 4090, 1 step", "arXiv 2312.12491, abstract: up to"),
)


def read_claims(path: Path | None) -> tuple[Claim, ...]:
    """Return our list, with those of a JSON file in place of a system's own: [{system, fps, hardware, source}].

    Raises OptionError.
    """
    if path is None:
        return CLAIMS
    try:
        told = [(one["system"], one["fps"], one["hardware"], one["source"]) for one in _json(path)]
        given = [Claim(str(system), float(fps), str(hardware), str(source)) for system, fps, hardware, source in told]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptionError(
            f"{path}: no list of claims ({error!r}); it must be [{{system, fps, hardware, source}}], with a source each"
        ) from error
    names = {claim.system for claim in given}
    return (*(claim for claim in CLAIMS if claim.system not in names), *given)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def gathered(
    plan: SuitePlan, found: Mapping[str, Any], machine: Mapping[str, Any], claims: Sequence[Claim] = CLAIMS
) -> dict[str, Any]:
    """Return the suite's result: what was asked, inputs with their hashes, every cell, and the table over all.

    It says nothing of when or in how many goes it was made; what the clock told lies under `speed` and `machine` alone.
    """
    rows = found["rows"]
    names = list(dict.fromkeys([*(one.name for one in plan.settings), *(one.name for one in plan.others)]))
    by = {name: [row for row in rows if row["by"] == name] for name in names}
    first = plan.settings[0].name if plan.settings else None
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "asked": {
            "clips": [clip.name for clip in plan.clips],
            "profiles": {profile.id: profile.look.prompt for profile in plan.profiles},
            "settings": {one.name: {**dict(one.engine), **dict(one.look)} for one in plan.settings},
            "others": [one.name for one in plan.others],
            "frames": plan.frames,
            "side": plan.side,
            "noise": plan.noise,
            "flow": plan.flow,
            "consistency_by": f"clip:{plan.clip}" if plan.clip else "descriptor",
            "model": next((cell.settings.model for cell in plan.cells() if cell.settings), None),
        },
        "inputs": found["inputs"],
        "sources": found["sources"],
        "table": {name: _summary(by[name], by.get(first or "", [])) for name in names if by[name]},
        "claims": [claim._asdict() for claim in claims],
        "rows": rows,
        "left_out": found["left_out"],
        "notes": found["notes"],
    }


def _summary(rows: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, spread (standard deviation, least, most) and change to the first setting of each figure."""
    figures = {}
    for name in FIGURES:
        values = [row["figures"][name] for row in rows if row["figures"][name] is not None]
        if values:
            figures[name] = {
                "mean": round(statistics.fmean(values), 4),
                "sd": round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
                "least": min(values),
                "most": max(values),
                "films": len(values),
                "change_percent": _change(name, rows, baseline),
            }
    speeds = [row["speed"]["fps"] for row in rows if row["speed"] and row["speed"]["fps"]]
    return {
        "films": len(rows),
        "delay": sorted({row["delay"] for row in rows}),
        "figures": figures,
        "speed": {"fps": round(statistics.median(speeds), 2)} if speeds else None,
    }


def _change(name: str, rows: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean over films of the change to the same film by the first setting, percent.

    None for figures that lie about 0, where a share means nothing.
    """
    if name == "ghosting" or name.startswith("drift_"):
        return None
    before = {(row["clip"], row["profile"]): row["figures"][name] for row in baseline}
    changes = [
        100 * (row["figures"][name] / old - 1)
        for row in rows
        if (old := before.get((row["clip"], row["profile"]))) and row["figures"][name] is not None and old > 1e-9
    ]
    return round(statistics.fmean(changes), 2) if changes else None
