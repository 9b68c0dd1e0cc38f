"""Where a frame's time goes on a CPU, and how near each part is to the same matrix products alone.

    python benchmarks/frame_costs.py [--model embedded] [--size 256] [--steps 2] [--runtime onnx] [--frames 30]
                                     [--published 640x480]

Everything on one thread, in processor time, medians of frames: encoder, the UNet's rows, the bank's update, decoder,
detail stage, and what is left of the frame (noise, copies, the steadied source); then what the camera does around it:
the cut to the engine's size, the two pictures and two messages between the processes, the enlarging with edges.

The floor of a part is the time that its matrix products take as plain GEMMs: each convolution and product of eager's
operations with its shape (a convolution as pixels x filters over kernel x channels), by torch.mm on the same core in
float32. So neither copies nor activations nor norms are in it, and no cleverer way to convolve. A convolution of one
channel a group is left out. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.rig import PROMPT, Run, patched, pictures
from core.algorithm import bank as banks
from core.algorithm.frame import next_sources
from core.algorithm.stream import Step
from core.engine import Engine
from core.runtimes import parts as runtime_parts
from core.settings import EngineSettings, Look, Policy, Runtime
from vcam import fit
from vcam.worker.messages import FrameDone, TranslateFrame
from vcam.worker.shared_pictures import SharedPictures

WARM_UP = 4  # frames
GEMMS = 5  # times that each product is timed
_PARTS = {"encode": "encode", "net": "rows", "decode": "decode"}  # of ModelParts: their names here
Product = tuple[int, int, int]  # rows, what is summed over, columns


class Clock:
    """Processor time by part, of one frame after the other."""

    def __init__(self) -> None:
        self._now: dict[str, float] = defaultdict(float)
        self.frames: list[dict[str, float]] = []

    def timed(self, part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return `run`, whose time counts for that part."""

        def timed(*given: Any, **named: Any) -> Any:
            before = time.thread_time()
            try:
                return run(*given, **named)
            finally:
                self._now[part] += time.thread_time() - before

        return timed

    def end_frame(self) -> None:
        """Begin with the next frame."""
        self.frames.append(dict(self._now))
        self._now.clear()

    def medians_ms(self) -> dict[str, float]:
        """Return each part's median, in milliseconds; the first frames do not count."""
        frames = self.frames[WARM_UP:]
        return {part: 1000 * statistics.median(one.get(part, 0.0) for one in frames) for part in frames[0]}


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products that run meanwhile, by their shapes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch; what is made of other operations is taken apart first, which inference mode leaves out."""
        with self:
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = func(*args, **(kwargs or {}))
        for product, times in products(func.overloadpacket.__name__, args, result):
            self.found[product] += times
        return result


def products(name: str, args: Sequence[Any], result: Any) -> Iterator[tuple[Product, int]]:
    """Yield what an operation of aten multiplies, and how often."""
    if name in ("convolution", "_convolution", "mkldnn_convolution"):
        weight, transposed = args[1], len(args) > 6 and bool(args[6])
        pixels = math.prod((args[0] if transposed else result).shape[i] for i in (0, 2, 3))
        filters, inner = weight.shape[0], math.prod(weight.shape[1:])
        if transposed:
            filters, inner = math.prod(weight.shape[1:]), weight.shape[0]
        groups = args[8] if len(args) > 8 else 1
        if groups == 1:
            yield (pixels, inner, filters), 1
    elif name in ("mm", "bmm"):
        left, right = args[0], args[1]
        yield (left.shape[-2], left.shape[-1], right.shape[-1]), math.prod(left.shape[:-2])
    elif name == "addmm":
        yield (args[1].shape[0], args[1].shape[1], args[2].shape[1]), 1
    elif name.startswith("_scaled_dot_product"):
        query, key, value = args[:3]
        times = math.prod(query.shape[:2])
        yield (query.shape[-2], query.shape[-1], key.shape[-2]), times
        yield (query.shape[-2], key.shape[-2], value.shape[-1]), times


def floor_ms(found: Counter[Product]) -> float:
    """Return how long those products take as plain GEMMs on one thread, in milliseconds of processor time."""
    total = 0.0
    for (rows, inner, columns), times in found.items():
        left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
        taken = []
        repeats = max(1, round(2e7 / (rows * inner * columns)))  # the clock's steps are coarse
        for _ in range(GEMMS):
            before = time.thread_time()
            for _ in range(repeats):
                torch.mm(left, right, out=out)
            taken.append((time.thread_time() - before) / repeats)
        total += times * min(taken)
    return 1000 * total


def gemm_gflops() -> float:
    """Return what one thread multiplies at best: large float32 products, in GFLOP a second of processor time."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    taken = []
    for _ in range(8):
        before = time.thread_time()
        torch.mm(left, right)
        taken.append(time.thread_time() - before)
    return float(2 * 1024**3 / min(taken) / 1e9)


@contextmanager
def graphs_timed(clock: Clock) -> Iterator[None]:
    """Have each graph of ONNX Runtime count for its part."""
    import onnxruntime

    names = {("latents",): "rows", ("latent",): "decode", ("picture",): "encode", ("picture", "source"): "detail"}
    own: Callable[..., Any] = onnxruntime.InferenceSession.run

    def run(session: Any, outputs: Any, feed: Any, *more: Any) -> Any:
        inputs = tuple(feed)
        part = names.get(inputs, "rows" if "latents" in inputs else "text")
        return clock.timed(part, own)(session, outputs, feed, *more)

    with patched(onnxruntime.InferenceSession, "run", run):
        yield


def frame(settings: EngineSettings, frames: int) -> dict[str, float]:
    """Return the milliseconds of each part of a frame, and of the `whole` of it."""
    clock, source = Clock(), pictures(_run(settings))
    with (
        graphs_timed(clock),
        patched(banks, "apply_update", clock.timed("bank", banks.apply_update)),
        patched(runtime_parts, "next_sources", clock.timed("source", next_sources)),
    ):
        engine = Engine(settings, Look(PROMPT))
        if settings.runtime is Runtime.EAGER:
            engine.wrap_step(partial(_parts_timed, clock))
        translate = clock.timed("whole", engine.translate)
        for _ in range(WARM_UP + frames):
            translate(next(source))
            clock.end_frame()
    taken = clock.medians_ms()
    if settings.runtime is Runtime.EAGER:
        taken["decode"] -= taken.get("detail", 0.0)  # which runs inside
    return taken


def _parts_timed(clock: Clock, step: Step) -> Step:
    assert isinstance(step, runtime_parts.PartsStep)
    own = step.parts
    decode = getattr(own.decode, "args")[0]  # noqa: B009  of a partial: core.runtimes.eager
    sharpen = getattr(decode, "sharpen", None)
    if sharpen is not None:
        sharpen.forward = clock.timed("detail", sharpen.forward)
    changed = {key: clock.timed(part, getattr(own, key)) for key, part in _PARTS.items()}
    return runtime_parts.PartsStep(own._replace(**changed))


def floors(settings: EngineSettings) -> dict[str, float]:
    """Return the floor of each part with matrix products, in milliseconds."""
    counters: dict[str, Products] = defaultdict(Products)

    def counted(step: Step) -> Step:
        assert isinstance(step, runtime_parts.PartsStep)
        own, decode = step.parts, getattr(step.parts.decode, "args")[0]  # noqa: B009
        sharpen = getattr(decode, "sharpen", None)

        def of(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*given: Any) -> Any:
                with counters[part]:
                    return run(*given)

            return counting

        if sharpen is not None:
            sharpen.forward = of("detail", sharpen.forward)
        changed = {key: of(part, getattr(own, key)) for key, part in _PARTS.items()}
        return runtime_parts.PartsStep(own._replace(**changed))

    engine = Engine(_replaced(settings, Runtime.EAGER), Look(PROMPT))
    source = pictures(_run(settings))
    engine.translate(next(source))  # the text's keys and values are not of every frame
    engine.wrap_step(counted)
    engine.translate(next(source))
    found = {part: counter.found for part, counter in counters.items()}
    if "detail" in found:
        found["decode"] -= found["detail"]  # which ran inside
    return {part: floor_ms(one) for part, one in found.items()}


def around(settings: EngineSettings, published: tuple[int, int], frames: int) -> dict[str, float]:
    """Return the milliseconds of what the camera does around a frame, by part."""
    clock, random = Clock(), np.random.default_rng(0)
    camera = random.integers(0, 255, (published[1], published[0], 3), dtype=np.uint8)
    size = (settings.width, settings.height)
    shared = SharedPictures(settings)
    ours, theirs = Pipe()
    small = fit.viewed(camera, size)

    def crossed() -> None:
        shared.given[:] = small
        ours.send(TranslateFrame(1, 1.0))
        theirs.recv()
        given = shared.given.copy()  # as the engine does
        shared.result[:] = given
        theirs.send(FrameDone(TranslateFrame(1, 1.0), 1))
        ours.recv()
        shared.result.copy()

    try:
        for _ in range(WARM_UP + frames):
            clock.timed("cut to the engine's size", fit.viewed)(camera, size)
            clock.timed("between the processes", crossed)()
            clock.timed("enlarged with edges", fit.enlarged)(small, camera, published, 0.75)
            clock.end_frame()
    finally:
        shared.remove()
    return clock.medians_ms()


def _replaced(settings: EngineSettings, runtime: Runtime) -> EngineSettings:
    from dataclasses import replace

    return replace(settings, runtime=runtime)


def _run(settings: EngineSettings) -> Run:
    return Run(settings.model, "cpu", "float32", settings.width, 0, 0, 0, smoke=False, until_s=math.inf)


def table(own: dict[str, float], least: dict[str, float], outside: dict[str, float]) -> list[list[str]]:
    """Return rows: part, milliseconds, share of the frame, floor, how much of the time the floor is."""
    whole = own["whole"]
    inside: dict[str, float] = {
        part: own[part] for part in ("encode", "rows", "bank", "decode", "detail", "source") if part in own
    }
    inside["the rest of the frame"] = whole - sum(inside.values())
    rows = []
    for part, taken in {**inside, "the frame": whole, **outside}.items():
        floor = sum(least.values()) if part == "the frame" else least.get(part)
        rows.append(
            [
                part,
                f"{taken:.2f}",
                "-" if part in outside else f"{taken / whole:.0%}",
                "-" if floor is None else f"{floor:.2f}",
                "-" if floor is None else f"{floor / taken:.0%}",
            ]
        )
    return rows


COLUMNS = ["part", "CPU ms", "of the frame", "GEMMs alone, ms", "of the part"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--bank", choices=[*Policy], default="fifo")
    parser.add_argument("--runtime", choices=["onnx", "eager"], default="onnx")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--published", default="640x480")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = EngineSettings(
        args.model, args.size, args.size, args.steps, Policy(args.bank), runtime=Runtime(args.runtime), device="cpu"
    )
    own, least = frame(settings, args.frames), floors(settings)
    width, height = args.published.split("x")
    rows = table(own, least, around(settings, (int(width), int(height)), args.frames))
    for row in [COLUMNS, *rows]:
        print(" | ".join(row))
    print(json.dumps({"columns": COLUMNS, "rows": rows, "gemm_gflops": round(gemm_gflops(), 1), **vars(args)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
