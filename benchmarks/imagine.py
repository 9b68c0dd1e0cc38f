"""How smoothly text-to-image streaming goes from one prompt to the next, with each bank and without.

    python benchmarks/imagine.py FOLDER [--size 256] [--steps 1] [--frames 24] [--wander 0,2] [--transition 8]
                                        [--prompt "ink a person" --prompt "neon a person"] [--strip FILE.png]

The same prompts, noise and times for every bank (vcam.offline.imagine): only what the bank does differs. Of each
transition: the change from a picture to the next one in grey levels (root of the mean square), mean and largest, their
ratio (1: even steps), and the mean change while the prompt stood, which is what wandering noise makes. A strip shows
every picture, a bank a row. Weights that are random (benchmarks/random_model.py) show what blends and what the bank
does to it, not how it looks. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.engine import Engine
from core.settings import EngineSettings, Look, Policy, Runtime
from vcam.offline.imagine import PromptSwitch, change, imagined, timetable, transitions
from vcam.video import Pixels

COLUMNS = ("wander", "bank", "mean", "largest", "largest / mean", "standing")
PROMPTS = ("ink a person", "neon a person")


def film(
    settings: EngineSettings, look: Look, switches: Sequence[PromptSwitch], frames: int
) -> tuple[list[Pixels], int]:
    """Return the pictures, and the engine's delay."""
    engine = Engine(settings, replace(look, prompt=switches[0].prompt))
    return list(imagined(engine, look, switches, frames)), engine.delay


def measured(settings: EngineSettings, look: Look, switches: Sequence[PromptSwitch], frames: int) -> dict[str, Any]:
    """Return the figures of a film's transitions, averaged, and its pictures."""
    pictures, delay = film(settings, look, switches, frames)
    changes = [change(before, after) for before, after in itertools.pairwise(pictures)]
    found = transitions(switches, changes, delay)
    figures = {name: float(np.mean([asdict(one)[name] for one in found])) for name in ("mean", "largest", "rest")}
    return {
        "wander": look.wander,
        "bank": str(settings.policy),
        **figures,
        "unevenness": float(np.mean([one.unevenness for one in found])),
        "pictures": pictures,
    }


def line(row: dict[str, Any]) -> list[str]:
    """Return a row of the table, as text."""
    given = [f"{row[name]:.2f}" for name in ("mean", "largest", "unevenness", "rest")]
    return [f"{row['wander']:g}", row["bank"], *given]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--transition", type=int, default=8, help="pictures from one prompt to the next")
    parser.add_argument("--wander", default="0,2", help="degrees a picture, one film each")
    parser.add_argument("--banks", default="off,fifo,merge")
    parser.add_argument("--prompt", action="append", dest="prompts")
    parser.add_argument("--runtime", choices=[*Runtime], default="eager")
    parser.add_argument("--strip", type=Path)
    args = parser.parse_args(argv)
    switches = timetable(args.prompts or PROMPTS, args.frames, args.transition)
    rows = []
    print(" | ".join(COLUMNS))
    for wander in (float(one) for one in args.wander.split(",")):
        for bank in args.banks.split(","):
            policy, runtime = Policy(bank), Runtime(args.runtime)
            settings = EngineSettings(args.model, args.size, args.size, args.steps, policy, runtime=runtime)
            rows.append(measured(settings, Look(wander=wander), switches, args.frames))
            print(" | ".join(line(rows[-1])), flush=True)
    shown = [np.hstack(row.pop("pictures")) for row in rows]
    if args.strip:
        cv2.imwrite(str(args.strip), cv2.cvtColor(np.vstack(shown), cv2.COLOR_RGB2BGR))
    print(json.dumps({"size": args.size, "steps": args.steps, "frames": args.frames, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
