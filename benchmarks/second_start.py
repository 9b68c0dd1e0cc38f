"""What stands between a second start and its first translated picture where a TensorRT engine is kept: seconds a part.

    python benchmarks/second_start.py [--model M] [--size 256x256] [--steps 2] [--bank fifo] [--rounds 5] [--stand-in]

The engine is built once, into a folder of its own, and taken for verified. Then each round is a new process: Python's
start and the imports, what is looked up, the text encoders, the engine's bytes with their hash (beside these), and the
library's own work (it is loaded, loads the engine, makes its contexts, compiles, runs). What is left of the whole
without the library's work is ours, and shall take 5 s at most: exit status 1 if its median does not. cpu: the seconds
of the processor that the process took in all, which other programs lengthen less. --stand-in takes the tests' stand-in
for the library, where there is no card: its own seconds then say nothing. Prints one JSON object, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from core.settings import EngineSettings, Policy, Runtime  # noqa: E402  the path first

OURS_S = 5.0


def settings_of(args: argparse.Namespace) -> EngineSettings:
    """Return what the arguments ask for."""
    from core.models.description import describe

    own = describe(args.model)
    width, height = map(int, args.size.split("x")) if args.size else (own.width, own.height)
    bank = Policy(args.bank) if args.bank else own.policy
    settings = EngineSettings(args.model, width, height, args.steps or own.steps, bank, runtime=Runtime.TENSORRT)
    return replace(settings, device="cpu", dtype="float16") if args.stand_in else settings


def take_stand_in() -> None:
    """Have the tests' stand-in be the library, and this machine's CPU the card."""
    from core.runtimes.tensorrt import readiness
    from tests.support import trt_stand_in

    sys.modules["tensorrt_rtx"] = trt_stand_in.module("1.7.1.116", "tensorrt_rtx")
    sys.modules["tensorrt"] = None  # type: ignore[assignment]  # so it is not found
    readiness.DEVICES = ("cuda", "cpu")  # type: ignore[assignment]
    readiness._capability = lambda device: "8.9"


def build(settings: EngineSettings) -> None:
    """Build the engine, and say that it was compared."""
    from core.plans import Verdict
    from core.runtimes.choice import for_plan
    from core.runtimes.tensorrt import cache, make_plan

    resolved = for_plan(settings)
    plan = make_plan.build(resolved, lambda text, share: print(text, file=sys.stderr))
    cache.set_verdict(plan, Verdict.VERIFIED, "taken for right", resolved.tensorrt.machine)


def timed(where: Any, name: str, spent: dict[str, float], part: str) -> None:
    """Have each call of a function add its seconds to a part."""
    function: Callable[..., Any] = getattr(where, name)

    def call(*args: Any, **given: Any) -> Any:
        begun_s = time.perf_counter()
        try:
            return function(*args, **given)
        finally:
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - begun_s

    setattr(where, name, call)


def start(settings: EngineSettings, began: float, library_s: float = 0.0) -> dict[str, float]:
    """Start an engine, and return the seconds of each part until its first picture.

    began: by time.time(). library_s: seconds that the library took before.
    """
    import numpy as np

    from core.engine import Engine
    from core.runtimes.tensorrt import build as building
    from core.runtimes.tensorrt import cache, kernels, readiness
    from core.runtimes.tensorrt import runtime as tensorrt
    from core.runtimes.tensorrt.library import Library
    from core.settings import Look

    spent = {"imports": time.time() - began - library_s, "library": library_s}
    timed(readiness, "look", spent, "looked up")
    timed(tensorrt, "TextParts", spent, "text encoders")
    timed(cache, "read_file", spent, "the engine's bytes and hash")
    timed(Library, "bindings", spent, "library")
    timed(building, "deserialize", spent, "library")
    timed(kernels.Kernels, "context", spent, "library")
    timed(tensorrt.PlanExecution, "_queue", spent, "library")
    engine = Engine(settings, Look("ink person"))
    picture = np.random.default_rng(0).integers(0, 256, (settings.height, settings.width, 3), dtype=np.uint8)
    while engine.translate(picture) is None:
        pass
    spent["whole"] = time.time() - began
    return spent | {"ours": spent["whole"] - spent["library"], "cpu": time.process_time()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--bank")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of the measurement: `build`, or when a start began
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(arguments)
    if args.part:
        import torch  # noqa: F401  ours, which the stand-in imports too

        begun_s = time.perf_counter()
        if args.stand_in:
            take_stand_in()
        library_s = time.perf_counter() - begun_s
        if args.part == "build":
            build(settings_of(args))
        else:
            print(json.dumps(start(settings_of(args), float(args.part), library_s)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"VCAM_ENGINES_FOLDER": folder}

        def part(name: str) -> str:
            command = [sys.executable, __file__, *arguments, "--part", name]
            return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

        part("build")
        rounds = [json.loads(part(repr(time.time()))) for _ in range(args.rounds)]
    medians = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    print(json.dumps(medians))
    return 0 if medians["ours"] <= OURS_S else 1


if __name__ == "__main__":
    sys.exit(main())
