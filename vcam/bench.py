"""Measures the engine on this machine: one figure a setting, with what it was measured on."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.settings import EngineSettings, Look, Policy

if TYPE_CHECKING:
    Clock = Callable[[], float]

WARM_UP_FRAMES = 5  # beside those that fill the pipe: kernels are chosen and memory is taken in the first calls


class EngineLike(Protocol):
    """What is measured: core.engine.Engine. settings: as resolved, no `auto` in it."""

    settings: EngineSettings
    bank_bytes: int

    def translate(self, picture: NDArray[np.uint8], /) -> NDArray[np.uint8] | None:
        """One picture in, one (or None, in the first calls) out."""


@dataclass(frozen=True)
class Row:
    """One setting's figures.

    fps: frames per second over all measured frames; p50_ms, p95_ms: of one call, picture in to picture out on the
    CPU; load_s: the model's loading; warm_up_s: the first calls, which count nowhere else.
    """

    steps: int
    bank: str
    width: int
    height: int
    frames: int
    fps: float
    p50_ms: float
    p95_ms: float
    load_s: float
    warm_up_s: float
    bank_bytes: int
    runtime: str
    device: str
    dtype: str


@dataclass(frozen=True)
class BenchReport:
    """All rows, and what they were measured on (`machine`: hardware, threads and versions)."""

    model: str
    machine: dict[str, object]
    rows: tuple[Row, ...]


def settings_to_measure(
    plain: EngineSettings,
    steps: Sequence[int] | None = None,
    policies: Sequence[Policy] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[EngineSettings]:
    """Every combination; None: steps 1, 2 and 4, all policies, the size of `plain`. Raises SettingsError."""
    return [
        replace(plain, steps=step, policy=policy, width=width, height=height)
        for (width, height), step, policy in itertools.product(
            sizes or [(plain.width, plain.height)],
            steps or (1, 2, 4),
            policies or (Policy.OFF, Policy.FIFO, Policy.MERGE),
        )
    ]


def bench(
    chosen: Sequence[EngineSettings],
    look: Look,
    *,
    frames: int,
    threads: int | None = None,
    make_engine: Callable[[EngineSettings, Look], EngineLike] | None = None,
    clock: Clock = time.perf_counter,
    each: Callable[[Row], None] = lambda row: None,
) -> BenchReport:
    """Measures each of the settings over `frames` frames after its warm-up; `each` hears of every row at once.

    threads: of the CPU, None leaves the choice to torch. Raises core.description.ModelError, SettingsError.
    """
    if make_engine is None:
        make_engine = _real_engine(threads)
    rows = []
    for settings in chosen:
        rows.append(_measured(settings, look, frames, make_engine, clock))
        each(rows[-1])
    return BenchReport(chosen[0].model, machine(rows[0].device), tuple(rows))


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal, under a head."""
    return "\n".join([HEAD, *(line(row) for row in rows)])


HEAD = "size        steps  bank     fps   p50 ms   p95 ms   bank MiB  run by"


def line(row: Row) -> str:
    """One row for a terminal, under HEAD."""
    size = f"{row.width}x{row.height}"
    return (
        f"{size:<10}  {row.steps:>5}  {row.bank:<5} {row.fps:>6.1f} {row.p50_ms:>8.1f} {row.p95_ms:>8.1f} "
        f"{row.bank_bytes / 2**20:>10.1f}  {row.runtime} {row.device} {row.dtype}"
    )


def machine(device: str) -> dict[str, object]:
    """What the figures were measured on: processor, cores, GPU, system, versions."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("torch", "diffusers", "transformers", "numpy"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = None
    if torch := sys.modules.get("torch"):
        facts["threads"] = torch.get_num_threads()
        if device.startswith("cuda"):
            facts["gpu"] = torch.cuda.get_device_name(device)
            facts["cuda"] = torch.version.cuda
    return facts


def _measured(
    settings: EngineSettings,
    look: Look,
    frames: int,
    make_engine: Callable[[EngineSettings, Look], EngineLike],
    clock: Clock,
) -> Row:
    started = clock()
    engine = make_engine(settings, look)
    loaded = clock()
    pictures = _pictures(settings.width, settings.height)
    for _ in range(settings.steps - 1 + WARM_UP_FRAMES):
        engine.translate(next(pictures))
    warm = clock()
    ends = [warm]
    for _ in range(frames):
        engine.translate(next(pictures))
        ends.append(clock())
    taken_ms = [(end - start) * 1000 for start, end in itertools.pairwise(ends)]
    return Row(
        steps=settings.steps,
        bank=settings.policy.value,
        width=settings.width,
        height=settings.height,
        frames=frames,
        fps=frames / (ends[-1] - warm),
        p50_ms=statistics.median(taken_ms),
        p95_ms=float(np.percentile(taken_ms, 95)),
        load_s=loaded - started,
        warm_up_s=warm - loaded,
        bank_bytes=engine.bank_bytes,
        runtime=engine.settings.runtime.value,
        device=engine.settings.device,
        dtype=engine.settings.dtype,
    )


def _pictures(width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """A moving picture, RGB uint8 [height, width, 3], made before it is asked for."""
    across, down = np.linspace(0, 255, width, dtype=np.float32), np.linspace(0, 255, height, dtype=np.float32)
    first = np.stack(np.broadcast_arrays(across[None], down[:, None], 128), axis=-1).astype(np.uint8)
    return itertools.cycle([np.ascontiguousarray(np.roll(first, 4 * n, axis=1)) for n in range(8)])


def _real_engine(threads: int | None) -> Callable[[EngineSettings, Look], EngineLike]:
    import torch

    from core.engine import Engine

    if threads is not None:
        torch.set_num_threads(threads)
    return Engine


def _processor() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                names: list[Any] = [row.partition(":")[2].strip() for row in file if row.startswith("model name")]
        except OSError:
            names = []
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
