"""What skipping similar frames (`look.skip_difference`) saves and costs, film by film.

    python benchmarks/skip.py FILM... [--prompt "claymation, a person talking"] [--frames 72] [--differences 0.5,1,2,3]

Each film is translated in one run without skipping and with each difference; `times` is how much sooner it was done,
`shown again` the share of pictures that were not translated, `psnr` the median over all pictures against the run
without, `worst` that of the worst picture. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from benchmarks.bank import pictures  # noqa: E402
from core.algorithm.net import Picture  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.models.description import describe  # noqa: E402
from core.settings import EngineSettings, Look  # noqa: E402
from core.verify import psnr  # noqa: E402


def timed(source: list[Picture], settings: EngineSettings, look: Look) -> tuple[list[Picture], float]:
    """Every picture's translation, and the seconds that they took."""
    engine = Engine(settings, look)
    for _ in range(engine.delay + 3):  # the first calls are no measure
        engine.translate(source[0])
    engine.forget()
    started = time.perf_counter()
    shown = [engine.translate(picture) for picture in source]
    return [picture for picture in shown if picture is not None], time.perf_counter() - started


def compared(film: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    """Return the figures of one film."""
    own = describe(args.model)
    source = pictures(film, args.frames, own.width, 0)
    height, width = source[0].shape[:2]
    settings = EngineSettings(args.model, width, height, own.steps, own.policy, own.slots)
    plain, plain_s = timed(source, settings, Look(args.prompt))
    rows: list[dict[str, object]] = []
    for difference in args.differences:
        look = Look(args.prompt, skip_difference=difference)
        shown, taken_s = timed(source, settings, look)
        again = [bool(np.array_equal(a, b)) for a, b in itertools.pairwise(shown)]
        found = [min(100.0, psnr(*pair)) for pair in zip(plain, shown, strict=True)]
        rows.append(
            {
                "film": film.stem,
                "difference": difference,
                "again": statistics.mean(again),
                "times": plain_s / taken_s,
                "psnr_db": statistics.median(found),
                "worst_db": min(found),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prompt", default="claymation, a person talking")
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--differences", type=lambda text: [float(one) for one in text.split(",")], default="0.5,1,2,3")
    args = parser.parse_args()
    rows = [row for film in args.films for row in compared(film, args)]
    print("film                 difference  shown again  times  psnr  worst")
    for row in rows:
        print(
            f"{row['film']:<20} {row['difference']:>10} {row['again']:>12.0%} {row['times']:>6.2f} "
            f"{row['psnr_db']:>5.1f} {row['worst_db']:>6.1f}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
