"""All that is to be measured on a GPU, in one run: `python benchmarks/gpu.py --out results.json`.

It needs PyTorch with Triton, and besides diffusers, transformers, platformdirs and psutil, which can be fetched without
PyTorch. Where the machine has no network, fetch them elsewhere, for its Python (`pip download -d wheels --only-binary
:all: --python-version 3.12 diffusers transformers platformdirs psutil`), and give the folder by `--wheels wheels`: they
are unpacked to a folder of their own and imported from there, after what the machine has. Where only so much goes at a
time, as with TensorRT for RTX (95 MB), benchmarks/wheels.py splits them; here they are put together. The weights are
random ones in the shapes of Stable Diffusion 1.5 (benchmarks/random_model.py), made here, unless --model names a
folder. Where TensorRT's library is installed, its engines are built and measured too.

The parts, each figure written to the file as soon as it is known, so that a run that is cut short is not lost, and the
same command goes on where it was:
speed (steps 4, 2, 1; no bank, queues, merge; our runtimes and the paper's way in the same run; fraction of the floor),
stages, profile (the largest costs), parity (PSNR against eager float32), experiments (max-autotune, cuDNN's own choice,
sums in float16, fp8, similar-frame skip), long (54,000 frames, half an hour of video, without growth), sizes (256 to
768 pixels). --minutes: nothing is begun after them; --parts takes some of the parts.
--device cpu --shape small --size 256 measures in miniature what can be compared without a GPU; --smoke only runs
through all of it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.rig import (  # noqa: E402  the path first
    Run,
    accumulating,
    compared,
    eighths,
    engine,
    memory,
    paper_engine,
    pictures,
    say,
    searched,
    timed,
    tuned,
)
from benchmarks.wheels import join  # noqa: E402

if TYPE_CHECKING:
    from core.engine import Engine

NEEDED = ("torch", "diffusers", "transformers", "platformdirs", "psutil")
PARTS = ("speed", "stages", "profile", "parity", "experiments", "long", "sizes")
SIZES = (256, 384, 768)  # beside the run's own
STILL = 12  # pictures in a row that are the same, in the experiment that skips such


class Results(NamedTuple):
    """What was measured, and what writes it down."""

    raw: dict[str, Any]
    keep: Callable[[], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="the file that is written, as benchmarks/report.py reads"
    )
    parser.add_argument("--model", help="a diffusers folder; random weights are made where it is left out")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to import from")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", help="float16 on a GPU, float32 on the CPU where it is left out")
    parser.add_argument("--shape", choices=("full", "small"), default="full", help="of the random weights")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=100, help="measured for each setting")
    parser.add_argument("--long-frames", type=int, default=54_000)
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing new is begun")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--smoke", action="store_true", help="in miniature, on the CPU, without compiling")
    args = parser.parse_args(argv)
    if args.smoke:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # what is compiled runs as it stands: to trace it takes minutes
        args.device, args.shape, args.size, args.frames, args.long_frames = "cpu", "small", 64, 3, 20
    with tempfile.TemporaryDirectory() as folder:
        if args.wheels:
            unpack(args.wheels, Path(folder) / "site")
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            parser.error(f"{', '.join(missing)} must be installed, or in the folder of --wheels")
        from torch import cuda

        if args.device.startswith("cuda") and not cuda.is_available():
            parser.error("PyTorch finds no CUDA device here; --smoke runs through all of it without one")
        _measure(args, Path(folder))
    return 0


def unpack(wheels: Path, site: Path) -> None:
    """Make the wheels of a folder importable, for what is imported from now on; parts of one are put together."""
    join(wheels)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.append(str(site))  # at the end: what the machine has goes first


def _measure(args: argparse.Namespace, folder: Path) -> None:
    import torch

    from benchmarks import random_model
    from benchmarks.report import of_gpu
    from vcam.offline.bench import machine

    dtype = getattr(torch, args.dtype or ("float32" if args.device == "cpu" else "float16"))
    shape = random_model.SHAPES[args.shape]
    run = Run(
        model=args.model or str(random_model.make(folder / f"random-{args.shape}", shape, dtype=dtype)),
        device=args.device,
        dtype=str(dtype).removeprefix("torch."),
        size=args.size,
        frames=args.frames,
        parity_frames=4 if args.smoke else 200,
        long_frames=args.long_frames,
        smoke=args.smoke,
        until_s=time.monotonic() + 60 * args.minutes,
    )
    raw = resumed(args.out, {"facts": machine(run.device), "run": vars(run)})

    def keep() -> None:
        args.out.write_text(json.dumps(of_gpu(raw, time.strftime("%d %B %Y")), indent=1), encoding="utf-8")

    for part in args.parts.split(","):
        if run.over:
            break
        say(f"--- {part}")
        try:
            measure(part, run, Results(raw, keep))
        except Exception as error:  # noqa: BLE001  a part that fails must not cost the others
            raw[part] = {"error": f"{type(error).__name__}: {error}"}
            say(raw[part]["error"])
        keep()
        gc.collect()
        if run.device == "cuda":
            torch.cuda.empty_cache()


def resumed(out: Path, began: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier run of the same on the same machine left in the file, or the beginning of a new one.

    SystemExit where the file is of another machine or other settings: it is not overwritten.
    """
    if not out.exists():
        return began
    raw: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))["raw"]
    same = ("device", "dtype", "size", "frames")
    ours, theirs = ((one["facts"], *(one["run"][name] for name in same)) for one in (began, raw))
    if json.loads(json.dumps(ours)) != list(theirs):
        sys.exit(f"{out} was measured on another machine or with other settings; give another --out")
    return raw


def measure(part: str, run: Run, results: Results) -> None:
    """One of the PARTS into the results; what is there already stays."""
    raw = results.raw
    if part == "speed":
        speed(run, results)
    elif part == "sizes":
        sizes(run, results)
    elif part == "experiments":
        experiments(run, results)
    elif part not in raw or "error" in raw[part]:
        raw[part] = {"stages": stages, "profile": profile, "parity": parity, "long": long}[part](run)


# ---------------------------------------------------------------------------------------------------------- the parts


class Wanted(NamedTuple):
    """A row of figures: by a runtime of ours, or `paper`."""

    size: int
    steps: int
    bank: str
    slots: int
    way: str


def speed(run: Run, results: Results) -> None:
    """Frames a second by steps, bank and way, and the share of the floor's speed; what matters most comes first."""
    steps = (2,) if run.smoke else (4, 2, 1)
    ways = ("compiled", "paper", *(("tensorrt",) if _tensorrt(run) else ()), "eager")
    asked = [Wanted(run.size, count, "off", 1, "compiled") for count in steps]
    asked += [Wanted(run.size, count, "merge", 1, way) for way in ways for count in steps]
    asked += [Wanted(run.size, count, "fifo", 1, way) for way in ways[:-1] for count in steps]
    if not run.smoke:
        asked += [
            Wanted(run.size, count, "fifo", slots, way) for slots in (2, 4) for way in ways[:2] for count in steps
        ]
        asked += [Wanted(run.size, count, "off", 1, way) for way in ways[2:] for count in steps]
    _rows("speed", run, asked, results)


def sizes(run: Run, results: Results) -> None:
    """Measure the same at other sizes, with the most steps."""
    steps, others = (2, ()) if run.smoke else (4, SIZES)
    asked = [
        Wanted(size, steps, bank, 1, way)
        for size in others
        for bank, way in (("merge", "compiled"), ("off", "compiled"), ("merge", "paper"))
    ]
    _rows("sizes", run, asked, results)


def _rows(part: str, run: Run, asked: Iterable[Wanted], results: Results) -> None:
    from core.measure.flops import peak_flops

    rows = results.raw.setdefault(part, [])
    known = {Wanted(*(row[name] for name in Wanted._fields)) for row in rows}
    peak = results.raw.setdefault("peak_flops", peak_flops(run.device, run.dtype))
    for wanted in asked:
        if wanted in known:
            continue
        if run.over:
            return
        rows.append(wanted._asdict() | _row(run, wanted, peak))
        results.keep()
        say(json.dumps(rows[-1]))


def _row(run: Run, wanted: Wanted, peak: float) -> dict[str, Any]:
    """Return what was measured, or {error: why it could not be}."""
    from core.measure.flops import frame_flops
    from core.runtimes.choice import resolve
    from core.runtimes.tensorrt import readiness
    from core.settings import Policy, Runtime

    run = replace(run, size=wanted.size)
    own = Runtime.EAGER if wanted.way == "paper" else Runtime(wanted.way)
    settings = run.settings(wanted.steps, Policy(wanted.bank), slots=wanted.slots, runtime=own)
    flops = frame_flops(resolve(replace(settings, runtime=Runtime.EAGER)))
    started = time.perf_counter()
    try:
        if own is Runtime.TENSORRT:
            from core.runtimes.choice import for_plan
            from core.verify import ensure_plan

            ensure_plan(for_plan(settings), lambda text, fraction: say(text))
        one = (paper_engine if wanted.way == "paper" else engine)(run, settings)
        ready_s = time.perf_counter() - started
        library = {"library": readiness.of(run.device, run.dtype).name} if own is Runtime.TENSORRT else {}
        row: dict[str, Any] = {"ready_s": ready_s, "gflop": flops / 1e9, **timed(one, run), **library}
    except Exception as error:  # noqa: BLE001  what does not fit or does not run is a result too
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    floor_ms = 1000 * flops / peak
    return row | {"floor_ms": floor_ms, "floor_share": floor_ms / row["p50_ms"]}


def _tensorrt(run: Run) -> bool:
    from core.runtimes.tensorrt import readiness

    why = readiness.why_not(run.device, run.dtype)
    say(f"TensorRT is left out: {why}" if why else f"TensorRT: {readiness.of(run.device, run.dtype).name}")
    return not why


def stages(run: Run) -> dict[str, dict[str, float]]:
    """Milliseconds of each stage, compiled by itself."""
    from core.settings import Policy

    picture = next(pictures(run))
    return {
        f"{steps} steps, {policy}": engine(run, run.settings(steps, policy)).stages(picture, 3 if run.smoke else 50)
        for steps, policy in itertools.product((2,) if run.smoke else (4, 1), (Policy.FIFO, Policy.MERGE))
    }


def profile(run: Run) -> list[dict[str, Any]]:
    """Measure the largest costs of a frame with 4 steps and merging, by the profiler: device milliseconds a frame."""
    import torch
    from torch.profiler import ProfilerActivity

    from core.settings import Policy

    one, source = engine(run, run.settings(4, Policy.MERGE)), pictures(run)
    for _ in range(8):
        one.translate(next(source))
    on_gpu = run.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    frames = 2 if run.smoke else 16
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(frames):
            one.translate(next(source))
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    costs = sorted(found.key_averages(), key=lambda event: -getattr(event, key))[:12]
    return [
        {"what": event.key, "ms": getattr(event, key) / 1000 / frames, "calls": event.count / frames} for event in costs
    ]


def parity(run: Run) -> dict[str, Any]:
    """PSNR of what is shown against the eager engine in float32, frame by frame: a bank that drifts would lower it."""
    from core.settings import Policy, Runtime

    settings = run.settings(4, Policy.MERGE)
    plain = run.settings(4, Policy.MERGE, runtime=Runtime.EAGER, dtype="float32")
    found = compared(engine(run, settings), engine(run, plain), run)
    say(f"PSNR against eager float32: least {min(found):.1f} dB, last {found[-1]:.1f} dB")
    return {"psnr_db": found, "least": min(found), "first": found[0], "last": found[-1]}


def experiments(run: Run, results: Results) -> None:
    """Measure what might be quicker: its speed against what is plain in this run, and its PSNR against that."""
    from core.settings import Policy

    rows = results.raw.setdefault("experiments", [])
    settings = run.settings(4, Policy.MERGE)
    tries: dict[str, Callable[[], Engine]] = {
        f"similar-frame skip, {STILL} same pictures in a row": lambda: engine(run, settings, skip_difference=1.0),
    }
    if run.device != "cpu":
        tries = {
            "max-autotune": lambda: tuned(run, settings),
            "cuDNN's kernels chosen by trying": lambda: searched(run, settings),
            "sums of matrix products in float16": lambda: accumulating(run, settings),
            "fp8, linear layers and 1x1 convolutions": lambda: eighths(run, settings, convolutions=False),
            "fp8, all convolutions too": lambda: eighths(run, settings, convolutions=True),
            **tries,
        }
    known = {row["what"] for row in rows}
    for name, build in tries.items():
        if name in known:
            continue
        if run.over:
            return
        rows.append({"what": name} | _tried(run, build, lambda: engine(run, settings), STILL if "skip" in name else 1))
        results.keep()
        say(json.dumps(rows[-1]))


def _tried(run: Run, build: Callable[[], Engine], plain: Callable[[], Engine], repeat: int) -> dict[str, Any]:
    try:
        before, fps = (timed(one(), run, repeat)["fps"] for one in (plain, build))
        psnr = statistics.median(compared(build(), plain(), run, repeat))
    except Exception as error:  # noqa: BLE001  what a card or a version cannot do is a result too
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    times = fps / before
    return {"fps": fps, "times": times, "psnr_db": psnr, "offer": bool(times > 1.2 and psnr > 35)}


def long(run: Run) -> dict[str, Any]:
    """Half an hour's frames through one engine: memory and pace must be at the end what they were at the beginning."""
    from core.settings import Policy

    one, source = engine(run, run.settings(4, Policy.MERGE)), pictures(run)
    samples: list[dict[str, float]] = []
    block = max(1, run.long_frames // 20)
    started = time.perf_counter()
    for number in range(1, run.long_frames + 1):
        one.translate(next(source))
        if number % block == 0:
            fps, started = block / (time.perf_counter() - started), time.perf_counter()
            samples.append({"frames": number, "fps": fps, **memory(run)})
            say(json.dumps(samples[-1]))
            if run.over:
                break
    first, last = samples[0], samples[-1]
    return {"samples": samples, "grown_mib": {key: last[key] - first[key] for key in memory(run)}}


if __name__ == "__main__":
    sys.exit(main())
