"""All that is to be measured on a GPU, in one run: `python benchmarks/gpu.py --out results.json`.

It needs PyTorch with Triton, and besides diffusers, transformers and platformdirs, which need no PyTorch to be fetched.
Where the machine has no network, fetch them elsewhere, for its Python (`pip download -d wheels --only-binary :all:
--python-version 3.12 diffusers transformers platformdirs`), and give the folder by `--wheels wheels`: they are unpacked
to a folder of their own and imported from there, after what the machine has. The weights are random ones in the shapes
of Stable Diffusion 1.5 (benchmarks/random_model.py), made here, unless --model names a folder.

The parts, each written to the file as soon as it is done, so that a run that is cut short is not lost:
speed (steps 4, 2, 1; no bank, queue, merge; the paper's way in the same run; fraction of the floor), stages, profile
(the largest costs), parity (PSNR against eager float32), experiments (max-autotune, fp8, similar-frame skip), long
(54,000 frames, half an hour of video, without growth). --minutes ends the long part; --parts takes some of them.
--smoke runs all of it in miniature on the CPU.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from core.engine import Engine
    from core.net import Picture
    from core.settings import EngineSettings, Policy

PARTS = ("speed", "stages", "profile", "parity", "experiments", "long")
PROMPT = "claymation, a person talking"
INTERVAL, STRENGTH, THRESHOLD = 4, 0.8, 0.98  # as in the paper's released defaults, for both ways


@dataclass(frozen=True)
class Run:
    """What is measured, and how much of it."""

    model: str
    device: str
    dtype: str
    size: int
    frames: int
    parity_frames: int
    long_frames: int
    smoke: bool
    until_s: float

    def settings(self, steps: int, policy: Policy, **other: Any) -> EngineSettings:
        """Of the engine that is measured."""
        from core.settings import EngineSettings, Runtime

        given = {"runtime": Runtime.COMPILED, "device": self.device, "dtype": self.dtype, **other}
        return EngineSettings(self.model, self.size, self.size, steps, policy, **given)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="the file that is written, as benchmarks/report.py reads"
    )
    parser.add_argument("--model", help="a diffusers folder; random weights are made where it is left out")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to import from")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=100, help="measured for each setting")
    parser.add_argument("--long-frames", type=int, default=54_000)
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing new is begun")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--smoke", action="store_true", help="in miniature, on the CPU")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.wheels:
            unpack(args.wheels, Path(folder) / "site")
        _measure(args, Path(folder))
    return 0


def unpack(wheels: Path, site: Path) -> None:
    """Makes the wheels of a folder importable, for what is imported from now on."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.append(str(site))  # at the end: what the machine has goes first


def _measure(args: argparse.Namespace, folder: Path) -> None:
    import torch

    from benchmarks import random_model
    from benchmarks.report import of_gpu
    from core.runtimes import compiled
    from vcam.bench import machine

    smoke = args.smoke
    shape = random_model.SMALL if smoke else random_model.FULL
    dtype = torch.float32 if smoke else torch.float16
    model = args.model or str(random_model.make(folder / "model", shape, dtype=dtype))
    run = Run(
        model=model,
        device="cpu" if smoke else "cuda",
        dtype=str(dtype).removeprefix("torch."),
        size=64 if smoke else args.size,
        frames=3 if smoke else args.frames,
        parity_frames=4 if smoke else 200,
        long_frames=20 if smoke else args.long_frames,
        smoke=smoke,
        until_s=time.monotonic() + 60 * args.minutes,
    )
    if smoke:
        compiled.load = functools.partial(compiled.load, backend="eager")  # type: ignore[assignment]
    raw: dict[str, Any] = {"facts": machine(run.device), "run": vars(run)}
    measures: dict[str, Callable[[Run, dict[str, Any]], Any]] = {
        "speed": speed,
        "stages": stages,
        "profile": profile,
        "parity": parity,
        "experiments": experiments,
        "long": long,
    }
    for part in args.parts.split(","):
        if time.monotonic() > run.until_s:
            raw.setdefault("left out for want of time", []).append(part)
            continue
        say(f"--- {part}")
        try:
            raw[part] = measures[part](run, raw)
        except Exception as error:  # noqa: BLE001  a part that fails must not cost the others
            raw[part] = {"error": f"{type(error).__name__}: {error}"}
            say(raw[part]["error"])
        args.out.write_text(json.dumps(of_gpu(raw, time.strftime("%d %B %Y")), indent=1), encoding="utf-8")
        gc.collect()
        if run.device == "cuda":
            torch.cuda.empty_cache()


# ---------------------------------------------------------------------------------------------------------- the parts


def speed(run: Run, raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Frames a second by steps and bank, our way and the paper's, with what share of the floor's speed that is."""
    from core.description import describe
    from core.flops import frame_flops, peak_flops
    from core.settings import Policy

    peak = raw["peak_flops"] = peak_flops(run.device, run.dtype)
    rows = []
    for steps in (2,) if run.smoke else (4, 2, 1):
        for policy, slots in ((Policy.OFF, 1), (Policy.FIFO, 1), (Policy.MERGE, 1)):
            settings = run.settings(steps, policy, slots=slots)
            flops = frame_flops(describe(run.model), settings)
            for way, build in (("ours", engine), ("paper", paper_engine)):
                if way == "paper" and policy is Policy.OFF:
                    continue
                row = {"steps": steps, "bank": policy.value, "slots": slots, "way": way, "gflop": flops / 1e9}
                row |= timed(build(run, settings), run)
                row["floor_ms"] = 1000 * flops / peak
                row["floor_share"] = row["floor_ms"] / row["p50_ms"]
                rows.append(row)
                say(f"{steps} steps, {policy}, {way}: {row['fps']:.1f} frames/s, {row['floor_share']:.0%} of the floor")
    return rows


def stages(run: Run, _: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds of each stage, compiled by itself."""
    from core.settings import Policy

    picture = next(pictures(run))
    return {
        f"{steps} steps, {policy}": engine(run, run.settings(steps, policy)).stages(picture, 3 if run.smoke else 50)
        for steps, policy in itertools.product((2,) if run.smoke else (4, 1), (Policy.FIFO, Policy.MERGE))
    }


def profile(run: Run, _: dict[str, Any]) -> list[dict[str, Any]]:
    """The largest costs of a frame with 4 steps and merging, by the profiler: milliseconds of the device a frame."""
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


def parity(run: Run, _: dict[str, Any]) -> dict[str, Any]:
    """PSNR of what is shown against the eager engine in float32, frame by frame: a bank that drifts would lower it."""
    from core.settings import Policy, Runtime

    settings = run.settings(4, Policy.MERGE)
    plain = run.settings(4, Policy.MERGE, runtime=Runtime.EAGER, dtype="float32")
    found = compared(engine(run, settings), engine(run, plain), run)
    say(f"PSNR against eager float32: least {min(found):.1f} dB, last {found[-1]:.1f} dB")
    return {"psnr_db": found, "least": min(found), "first": found[0], "last": found[-1]}


def experiments(run: Run, _: dict[str, Any]) -> list[dict[str, Any]]:
    """What might be quicker: its speed against plain float16 in this run, and its PSNR against that."""
    from core.settings import Policy

    settings = run.settings(4, Policy.MERGE)
    plain = timed(engine(run, settings), run)["fps"]
    tries: list[tuple[str, Callable[[], Engine]]] = [
        ("similar-frame skip, every second picture the same", lambda: engine(run, settings, skip_difference=1.0)),
    ]
    if not run.smoke:
        tries = [
            ("max-autotune", lambda: tuned(run, settings)),
            ("fp8, linear layers and 1x1 convolutions", lambda: eighths(run, settings, convolutions=False)),
            ("fp8, all convolutions too", lambda: eighths(run, settings, convolutions=True)),
            *tries,
        ]
    rows: list[dict[str, Any]] = []
    for name, build in tries:
        if time.monotonic() > run.until_s:
            rows.append({"what": name, "error": "no time left"})
            continue
        try:
            twice = name.startswith("similar")
            fps = timed(build(), run, repeat=2 if twice else 1)["fps"]
            psnr = statistics.median(compared(build(), engine(run, settings), run, repeat=2 if twice else 1))
            rows.append({"what": name, "fps": fps, "times": fps / plain, "psnr_db": psnr})
            rows[-1]["offer"] = bool(fps / plain > 1.2 and psnr > 35)
        except Exception as error:  # noqa: BLE001  what a card or a version cannot do is a result too
            rows.append({"what": name, "error": f"{type(error).__name__}: {error}"[:300]})
        say(json.dumps(rows[-1]))
    return rows


def long(run: Run, _: dict[str, Any]) -> dict[str, Any]:
    """Half an hour's frames through one engine: memory and pace must be at the end what they were at the beginning."""
    from core.settings import Policy

    one, source = engine(run, run.settings(4, Policy.MERGE)), pictures(run)
    samples: list[dict[str, float]] = []
    block = max(1, run.long_frames // 20)
    for number in range(1, run.long_frames + 1):
        if number % block == 1 or block == 1:
            started = time.perf_counter()
        one.translate(next(source))
        if number % block == 0:
            fps = block / (time.perf_counter() - started)
            samples.append({"frames": number, "fps": fps, **memory(run)})
            say(json.dumps(samples[-1]))
            if time.monotonic() > run.until_s:
                break
    first, last = samples[0], samples[-1]
    return {"samples": samples, "grown_mib": {key: last[key] - first[key] for key in memory(run)}}


# ------------------------------------------------------------------------------------------------------- the machinery


def engine(run: Run, settings: EngineSettings, **look: Any) -> Engine:
    """An engine of ours; the one before is gone by then, so that its memory is not counted."""
    import torch

    from core.engine import Engine
    from core.settings import Look

    gc.collect()
    if run.device == "cuda":
        torch.cuda.empty_cache()
    given = {"interval": INTERVAL, "fusion_strength": STRENGTH, "similarity_threshold": THRESHOLD, **look}
    return Engine(settings, Look(PROMPT, **given), lambda text, fraction: say(text))


def paper_engine(run: Run, settings: EngineSettings) -> Engine:
    """An engine whose bank is the paper's way: lists and concatenation, in eager PyTorch."""
    from benchmarks.paper_way import PaperNet
    from core import stream
    from core.settings import Policy, Runtime

    plain = run.settings(settings.steps, Policy.OFF, runtime=Runtime.EAGER)
    one = engine(run, plain)
    parts = one._step.args[0]  # type: ignore[attr-defined]
    net = PaperNet(
        parts.net.unet,
        policy=settings.policy,
        slots=settings.slots,
        interval=INTERVAL,
        strength=STRENGTH,
        threshold=THRESHOLD,
    )
    one._step = functools.partial(stream.by_parts, parts._replace(net=net))
    return one


@contextmanager
def patched(place: Any, name: str, value: Any) -> Iterator[None]:
    """For an experiment: what an engine is built of, another for a while."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def tuned(run: Run, settings: EngineSettings) -> Engine:
    """An engine whose kernels the compiler has chosen by trying."""
    from core.runtimes import compiled

    with patched(compiled, "load", functools.partial(compiled.load, mode="max-autotune-no-cudagraphs")):
        return engine(run, settings)


def eighths(run: Run, settings: EngineSettings, *, convolutions: bool) -> Engine:
    """An engine whose UNet multiplies in fp8."""
    from benchmarks.fp8 import to_fp8
    from core.runtimes import compiled

    whole = compiled.whole

    def fewer_bits(*given: Any) -> Any:
        quick = whole(*given)
        to_fp8(quick.frame.net, convolutions=convolutions)
        return quick

    with patched(compiled, "whole", fewer_bits):
        return engine(run, settings)


def pictures(run: Run, repeat: int = 1) -> Iterator[Picture]:
    """A pattern that drifts, each picture `repeat` times; RGB uint8 [size, size, 3], made before it is asked for."""
    import numpy as np

    y, x = np.mgrid[: run.size, : run.size]
    found = []
    for number in range(64):
        waves = (np.sin((x + 5 * number) / 29), np.sin(y / 17 + number / 9), np.sin((x + y - 3 * number) / 41))
        found.append(np.stack([(127.5 + 110 * wave).astype(np.uint8) for wave in waves], axis=-1))
    return itertools.cycle(one for one in found for _ in range(repeat))


def timed(one: Engine, run: Run, repeat: int = 1) -> dict[str, float]:
    """Frames a second, and p50 and p95 of one call, picture in to picture out on the CPU, after a warm-up."""
    import numpy as np

    source = pictures(run, repeat)
    for _ in range(2 if run.smoke else 20):
        one.translate(next(source))
    ends = [time.perf_counter()]
    for _ in range(run.frames):
        one.translate(next(source))
        ends.append(time.perf_counter())
    taken = [1000 * (end - start) for start, end in itertools.pairwise(ends)]
    fps = run.frames / (ends[-1] - ends[0])
    p50, p95 = (float(np.percentile(taken, share)) for share in (50, 95))
    return {"fps": fps, "p50_ms": p50, "p95_ms": p95, **memory(run)}


def compared(one: Engine, other: Engine, run: Run, repeat: int = 1) -> list[float]:
    """PSNR (dB, 100 at most) of what both show, frame by frame."""
    import numpy as np

    found = []
    for picture in itertools.islice(pictures(run, repeat), run.parity_frames + one.delay):
        shown, expected = one.translate(picture), other.translate(picture)
        if shown is None or expected is None:
            continue
        error = float(np.square(shown.astype(np.float64) - expected).mean())
        found.append(min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-9)))))
    return found


def memory(run: Run) -> dict[str, float]:
    """MiB that are held: by this process, and on the device."""
    import torch

    from vcam.bench import held_bytes

    held = {"process_mib": held_bytes() / 2**20}
    if run.device == "cuda":
        held |= {
            "gpu_mib": torch.cuda.memory_allocated() / 2**20,
            "gpu_taken_mib": torch.cuda.memory_reserved() / 2**20,
        }
    return held


def say(text: str) -> None:
    """To whoever waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
