"""What the feature bank brings: warp error, edit strength and ghosting with the bank and without, film by film.

    python benchmarks/bank.py FILM... [--prompts "claymation;ink"] [--frames 48] [--noise 0]
                              [--threshold T] [--fusion S]

Each film is translated twice in one run by the same engine settings, once with the model's own bank and once with none.
`change` is the warp error's, in percent; `ghosting` and `edit` are core.measure.metrics' own figures. noise: sigma of
sensor noise added to the input, grey levels. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from core.algorithm.net import Picture  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.measure import metrics  # noqa: E402
from core.models.description import describe  # noqa: E402
from core.settings import EngineSettings, Look, Policy  # noqa: E402
from vcam.settings.engine_options import engine_size  # noqa: E402
from vcam.video import probe, read, resized  # noqa: E402


def pictures(film: Path, frames: int, pixels: int, noise: float) -> list[Picture]:
    """Return the film's first frames at the engine's size."""
    media = probe(film)
    size = engine_size(media.width, media.height, pixels, pixel_aspect=media.pixel_aspect)
    found = [resized(picture.rgb, *size) for picture in islice(read(media), frames)]
    random = np.random.default_rng(0)
    return [(p + random.normal(0, noise, p.shape)).clip(0, 255).astype(np.uint8) for p in found] if noise else found


def translated(source: list[Picture], settings: EngineSettings, look: Look) -> list[Picture]:
    """Every picture's translation."""
    engine = Engine(settings, look)
    shown = [engine.translate(picture) for picture in source]
    return [picture for picture in shown if picture is not None] + list(engine.drain())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prompts", default="claymation, a person talking", help="several: separated by ;")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--noise", type=float, default=0)
    parser.add_argument("--threshold", type=float, help="similarity threshold (the model's own)")
    parser.add_argument("--fusion", type=float, help="fusion strength (the model's own)")
    args = parser.parse_args()
    own = describe(args.model)
    rows = []
    heads = f"{'film':24} {'prompt':24} {'input':>7} {'off':>7} {'on':>7} {'change':>8}"
    print(f"{heads} {'edit off':>9} {'on':>7} {'ghost on':>9}")
    for film in args.films:
        source = pictures(film, args.frames, own.width * own.height, args.noise)
        height, width = source[0].shape[:2]
        for prompt in args.prompts.split(";"):
            look = Look(
                prompt=prompt, strength=own.strength, similarity_threshold=args.threshold, fusion_strength=args.fusion
            )
            found = {}
            for policy in (Policy.OFF, own.policy):
                settings = EngineSettings(
                    args.model, width, height, args.steps or own.steps, policy=policy, slots=own.slots
                )
                found[policy] = metrics.measure(source, translated(source, settings, look))
            off, on = found[Policy.OFF], found[own.policy]
            change = 100 * ((on.warp_error or 0) / (off.warp_error or 1) - 1)
            rows.append({"film": film.stem, "prompt": prompt, "change": change, "off": asdict(off), "on": asdict(on)})
            print(
                f"{film.stem:24} {prompt[:24]:24} {on.warp_error_input or 0:7.1f} {off.warp_error or 0:7.1f} "
                f"{on.warp_error or 0:7.1f} {change:7.1f}% {off.edit_strength:9.3f} {on.edit_strength:7.3f} "
                f"{'-' if on.ghosting is None else format(on.ghosting, '9.3f')}",
                flush=True,
            )
    means = {
        "warp_error_off": float(np.mean([row["off"]["warp_error"] for row in rows])),
        "warp_error_on": float(np.mean([row["on"]["warp_error"] for row in rows])),
        "mean_change_percent": float(np.mean([row["change"] for row in rows])),
        "edit_change_percent": float(
            100 * (np.mean([row["on"]["edit_strength"] / row["off"]["edit_strength"] for row in rows]) - 1)
        ),
    }
    print(json.dumps({"frames": args.frames, "noise": args.noise, "means": means, "rows": rows}))


if __name__ == "__main__":
    main()
