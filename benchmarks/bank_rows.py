"""The rows of StreamV2V's paper, by our engine: bank off, queues, DyMe, EA and FF alone, interval, threshold, steps.

    python benchmarks/bank_rows.py FILM... [--rows off,paper,own] [--prompts "claymation;ink"] [--frames 24]
                                   [--noise 0] [--model embedded] [--runtime auto] [--out rows.json]

Each row is one setting of the bank (`ROWS`), each film and prompt is translated by every row in turn, and what is
written to `--out` is not measured again: an interrupted run goes on. Warp error, edit strength and ghosting are those
of core.measure.metrics; sharpness is the mean square of the Laplacian of grey levels, in pictures of the engine's size;
ms: the processor's time of a picture, and of the dearest one, start excluded. Prints the means, and one JSON object on
the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402  the path first
import numpy as np  # noqa: E402

from benchmarks.bank import pictures  # noqa: E402
from core.algorithm.net import Picture  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.measure import metrics  # noqa: E402
from core.models.description import describe  # noqa: E402
from core.settings import (  # noqa: E402
    BANK_RULES,
    OWN_RULES,
    BankedFeature,
    BankPreset,
    BankRules,
    EngineSettings,
    Filling,
    Look,
    Policy,
    RowClock,
    Runtime,
    Split,
)
from vcam.offline.suite.inputs import model_hashes, program_hash  # noqa: E402

PAPER = BANK_RULES[BankPreset.PAPER]
FIGURES = ("warp_error", "edit_strength", "sharpness", "ghosting", "ms", "largest_ms")


@dataclass(frozen=True)
class Row:
    """One setting of the bank; None: the model's own. look: further values of the Look; steps: of the engine."""

    policy: Policy | None = None
    slots: int | None = None
    rules: BankRules = OWN_RULES
    look: tuple[tuple[str, Any], ...] = ()
    steps: int | None = None


def _queue(slots: int) -> Row:
    return Row(Policy.FIFO, slots, PAPER)


def _paper(**changes: Any) -> Row:
    return Row(Policy.MERGE, 1, replace(PAPER, **changes))


def _merged(split: Split, *, spread: bool) -> Row:
    return Row(Policy.MERGE, 1, BankRules(split=split, spread=spread), (("interval", 4),))


ROWS: dict[str, Row] = {
    "off": Row(Policy.OFF, 1),
    "own": Row(),
    "paper": _paper(),
    "authors": Row(Policy.MERGE, 1, BANK_RULES[BankPreset.AUTHORS]),
    "queue 1": _queue(1),
    "queue 2": _queue(2),
    "queue 4": _queue(4),
    "EA only": _paper(fusion_strength=0.0),
    "FF only": _paper(attends=False),
    **{f"interval {n}": _paper(interval=n) for n in (1, 2, 8, 16)},
    **{f"threshold {x}": _paper(similarity_threshold=x) for x in (0.0, 0.8, 1.0)},
    **{f"FF strength {x}": _paper(fusion_strength=x) for x in (0.25, 0.5, 1.0)},
    **{f"split {one}": _paper(split=one) for one in (Split.GRID, Split.NOW, Split.PLACE)},
    **{f"steps {n}": replace(_paper(), steps=n) for n in (1, 2, 4)},
    **{f"noise strength {x}": replace(_paper(), look=(("strength", x),)) for x in (0.3, 0.4, 0.6)},
    "keeps fused": _paper(keeps=BankedFeature.FUSED),
    "clock each": _paper(clock=RowClock.EACH),
    "sources first": _paper(destinations_first=False),
    "own no steady": Row(look=(("steady", 0.0),)),
    "own queue 2": Row(Policy.FIFO, 2),
    "own growing queue 2": Row(Policy.FIFO, 2, BankRules(filling=Filling.GROWING)),
    "own keeps plain": Row(rules=BankRules(keeps=BankedFeature.PLAIN)),
    "own shared clock": Row(rules=BankRules(clock=RowClock.SHARED)),
    "own FF only": Row(rules=BankRules(attends=False)),
    "own merge at once": _merged(Split.RANDOM, spread=False),
    "own merge spread": _merged(Split.RANDOM, spread=True),
    "own merge by place": _merged(Split.PLACE, spread=True),
}


def sharpness(picture: Picture) -> float:
    """Return the mean square of the Laplacian of a picture's grey levels."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((cv2.Laplacian(grey, cv2.CV_32F) ** 2).mean())


def translated(
    source: list[Picture], settings: EngineSettings, look: Look, clock: Callable[[], float]
) -> tuple[list[Picture], list[float]]:
    """Return every picture's translation, and the milliseconds that each picture took."""
    engine = Engine(settings, look)
    engine.translate(source[0])  # a start is no frame of the film
    list(engine.drain())
    shown, taken = [], []
    for picture in source:
        started = clock()
        shown.append(engine.translate(picture))
        taken.append(1000 * (clock() - started))
    return [picture for picture in shown if picture is not None] + list(engine.drain()), taken


def measured(source: list[Picture], settings: EngineSettings, look: Look) -> dict[str, float | None]:
    """Return the row's figures (`FIGURES`) on one film."""
    output, taken = translated(source, settings, look, time.process_time)
    found = metrics.measure(source, output)
    return {
        "warp_error": found.warp_error,
        "edit_strength": found.edit_strength,
        "sharpness": statistics.fmean(map(sharpness, output)),
        "ghosting": found.ghosting,
        "ms": statistics.fmean(taken),
        "largest_ms": max(taken[2:]) if len(taken) > 2 else max(taken),
    }


def means(found: dict[str, dict[str, float | None]], names: list[str]) -> dict[str, dict[str, float]]:
    """Return each row's figures, the mean over films and prompts; found: by "row | film | prompt"."""
    result = {}
    for name in names:
        rows = [one for key, one in found.items() if key.startswith(f"{name} | ")]
        figures = {figure: [value for row in rows if (value := row[figure]) is not None] for figure in FIGURES}
        result[name] = {figure: statistics.fmean(values) for figure, values in figures.items() if values}
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--prompts", default="claymation, a person talking;ink, a person talking")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = args.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]!r}; there are {', '.join(ROWS)}")
    own = describe(args.model)
    asked = {
        "frames": args.frames,
        "noise": args.noise,
        "model": args.model,
        "runtime": args.runtime,
        "parts": model_hashes(EngineSettings(args.model)),  # else rows of two models, or programs, would mix
        "program": program_hash(),
    }
    found: dict[str, dict[str, float | None]] = {}
    if args.out is not None and args.out.exists():
        told = json.loads(args.out.read_text(encoding="utf-8"))
        found = told["found"] if told["asked"] == asked else {}
    for film in args.films:
        source = pictures(film, args.frames, own.width * own.height, args.noise)
        height, width = source[0].shape[:2]
        for prompt in args.prompts.split(";"):
            for name in names:
                key, row = f"{name} | {film.stem} | {prompt}", ROWS[name]
                if key in found:
                    continue
                settings = EngineSettings(
                    args.model,
                    width,
                    height,
                    row.steps or own.steps,
                    own.policy if row.policy is None else row.policy,
                    row.slots or own.slots,
                    runtime=Runtime(args.runtime),
                    rules=row.rules,
                )
                look = Look(**{"prompt": prompt, "strength": own.strength} | dict(row.look))
                found[key] = measured(source, settings, look)
                print(f"{key:60} {'  '.join(f'{n} {v or 0:.3f}' for n, v in found[key].items())}", flush=True)
                if args.out is not None:
                    args.out.write_text(json.dumps({"asked": asked, "found": found}), encoding="utf-8")
    result = means(found, names)
    print(f"{'':24}" + "".join(f"{figure:>16}" for figure in FIGURES))
    for name, figures in result.items():
        print(f"{name:24}" + "".join(f"{figures.get(figure, float('nan')):16.3f}" for figure in FIGURES))
    print(json.dumps(asked | {"rows": result}))


if __name__ == "__main__":
    main()
