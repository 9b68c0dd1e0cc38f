"""What benchmarks/gpu.py measures with: the engines that it compares, their pictures, and the clocks."""

from __future__ import annotations

import functools
import gc
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from core.algorithm.net import Picture
    from core.algorithm.stream import Step
    from core.engine import Engine
    from core.settings import EngineSettings, Policy

PROMPT = "claymation, a person talking"
INTERVAL, STRENGTH, THRESHOLD = 4, 0.8, 0.98  # as in the paper's released defaults, for both ways


@dataclass(frozen=True)
class Run:
    """What is measured, and how much of it. until_s: of the monotonic clock, when nothing new is begun."""

    model: str
    device: str
    dtype: str
    size: int
    frames: int
    parity_frames: int
    long_frames: int
    smoke: bool
    until_s: float

    @property
    def over(self) -> bool:
        """Whether nothing new is to be begun."""
        return time.monotonic() > self.until_s

    def settings(self, steps: int, policy: Policy, **other: Any) -> EngineSettings:
        """Of the engine that is measured."""
        from core.settings import EngineSettings, Runtime

        given = {"runtime": Runtime.COMPILED, "device": self.device, "dtype": self.dtype, **other}
        return EngineSettings(self.model, self.size, self.size, steps, policy, **given)


def engine(run: Run, settings: EngineSettings, **look: Any) -> Engine:
    """Return an engine of ours; the one before is gone by then, so that its memory is not counted."""
    import torch

    from core.engine import Engine
    from core.settings import Look

    gc.collect()
    if run.device == "cuda":
        torch.cuda.empty_cache()
    given = {"interval": INTERVAL, "fusion_strength": STRENGTH, "similarity_threshold": THRESHOLD, **look}
    return Engine(settings, Look(PROMPT, **given), lambda text, fraction: say(text))


def paper_engine(run: Run, settings: EngineSettings) -> Engine:
    """Return an engine whose bank is the paper's way: lists and concatenation, in eager PyTorch."""
    from benchmarks.paper_way import PaperNet
    from core.runtimes.eager import RememberedText
    from core.runtimes.parts import PartsStep
    from core.settings import Policy, Runtime

    plain = run.settings(settings.steps, Policy.OFF, runtime=Runtime.EAGER)
    one = engine(run, plain)

    def by_lists(step: Step) -> Step:
        assert isinstance(step, PartsStep)
        assert isinstance(step.parts.net, RememberedText)
        net = PaperNet(
            step.parts.net.net.unet,
            policy=settings.policy,
            slots=settings.slots,
            interval=INTERVAL,
            strength=STRENGTH,
            threshold=THRESHOLD,
        )
        return PartsStep(step.parts._replace(net=net))

    one.wrap_step(by_lists)
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
    """Return an engine whose kernels the compiler has chosen by trying."""
    from core.runtimes import compiled

    with patched(compiled, "load", functools.partial(compiled.load, mode="max-autotune-no-cudagraphs")):
        return engine(run, settings)


def searched(run: Run, settings: EngineSettings) -> Engine:
    """Return an engine whose convolutions cuDNN has chosen by trying; the graph keeps what was chosen."""
    import torch

    with patched(torch.backends.cudnn, "benchmark", True):
        return engine(run, settings)


def accumulating(run: Run, settings: EngineSettings) -> Engine:
    """Return an engine whose matrix products are summed in float16, twice as fast on cards for games."""
    import torch

    with patched(torch.backends.cuda.matmul, "allow_fp16_accumulation", True):
        return engine(run, settings)


def eighths(run: Run, settings: EngineSettings, *, convolutions: bool) -> Engine:
    """Return an engine whose UNet multiplies in fp8."""
    from benchmarks.fp8 import to_fp8
    from core.runtimes import compiled

    optimized_frame = compiled.optimized_frame

    def fewer_bits(*given: Any) -> Any:
        optimized = optimized_frame(*given)
        to_fp8(optimized.frame.net, convolutions=convolutions)
        return optimized

    with patched(compiled, "optimized_frame", fewer_bits):
        return engine(run, settings)


def pictures(run: Run, repeat: int = 1) -> Iterator[Picture]:
    """Yield a pattern that drifts, each picture `repeat` times; RGB uint8 [size, size, 3], made ahead."""
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
    from core.verify import psnr

    found = []
    for picture in itertools.islice(pictures(run, repeat), run.parity_frames + one.delay):
        shown, expected = one.translate(picture), other.translate(picture)
        if shown is None or expected is None:
            continue
        found.append(min(100.0, psnr(shown, expected)))
    return found


def memory(run: Run) -> dict[str, float]:
    """MiB that are held: by this process, and on the device."""
    import torch

    from vcam.offline.bench import held_bytes

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
