"""How much of a picture's fine structure a bank keeps when the camera is noisy, the noise apart.

    python benchmarks/sharp_in_noise.py FILM... [--profiles ink,claymation] [--noise 8] [--frames 24]
                                        [--runtime eager] [--out FILE.json]

`sharpness` (core/measure/definitions.py) cannot tell a drawn line from what has come through of a sensor's noise: both
are fine structure. Here the reference is the same film without noise, translated without a bank. Of the fine structure
(L* less its Gaussian mean, sigma 1.5) of a translation of the noisy film, `kept` is its least-squares coefficient on
the reference's, the mean over pictures: 1 keeps all of it at its place, softening and ghosts keep less. `rest` is the
root mean square of what is left, L*: noise, and whatever else the reference does not have. Prints a line for each film
and profile, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from benchmarks.bank import pictures, translated  # noqa: E402
from core.algorithm.net import Picture  # noqa: E402
from core.measure.metrics import fine_structure  # noqa: E402
from core.models.description import describe  # noqa: E402
from core.settings import BankPreset, Policy, Runtime  # noqa: E402
from vcam.offline.suite.run import noisy  # noqa: E402
from vcam.settings.engine_options import EngineOptions, engine_settings  # noqa: E402
from vcam.settings.profiles import Profile, load_profiles  # noqa: E402

BANKS = (BankPreset.PAPER, BankPreset.OWN)


def kept(reference: Picture, picture: Picture) -> tuple[float, float]:
    """Return the coefficient of a picture's fine structure on the reference's, and the rest's root mean square."""
    wanted, found = fine_structure(reference), fine_structure(picture)
    power = float((wanted * wanted).mean())
    share = float((wanted * found).mean()) / power if power else 0.0
    return share, float(np.sqrt(((found - share * wanted) ** 2).mean()))


def measured(clean: list[Picture], noise: float, profile: Profile, runtime: Runtime) -> dict[str, float]:
    """Return `kept` and `rest` of each bank on one film in one profile."""
    height, width = clean[0].shape[:2]
    wanted = EngineOptions(width=width, height=height, runtime=runtime)
    none = engine_settings(replace(wanted, policy=Policy.OFF), profile.engine)
    reference = translated(clean, none, replace(profile.look, steady=0.0))
    found = {}
    for bank in BANKS:
        made = translated(
            noisy(clean, noise), engine_settings(replace(wanted, bank=bank), profile.engine), profile.look
        )
        each = [kept(*pair) for pair in zip(reference, made, strict=True)]
        found[f"{bank} kept"], found[f"{bank} rest"] = (statistics.fmean(values) for values in zip(*each, strict=True))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--profiles", default="claymation,ink,neon,watercolour")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--noise", type=float, default=8.0)
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows, own, profiles = {}, describe("embedded"), load_profiles().profiles
    for film in args.films:
        clean = pictures(film, args.frames, own.width * own.height, 0.0)
        for profile in args.profiles.split(","):
            row = rows[f"{film.stem}, {profile}"] = measured(
                clean, args.noise, profiles[profile], Runtime(args.runtime)
            )
            change = 100 * (row[f"{BankPreset.OWN} kept"] / row[f"{BankPreset.PAPER} kept"] - 1)
            told = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
            print(f"{film.stem:20} {profile:14} {told}  kept {change:+.1f} %", flush=True)
    result = json.dumps({"noise": args.noise, "frames": args.frames, "rows": rows})
    if args.out is not None:
        args.out.write_text(result, encoding="utf-8")
    print(result)


if __name__ == "__main__":
    main()
