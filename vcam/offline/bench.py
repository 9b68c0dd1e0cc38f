"""Measure the engine on this machine: one figure a setting, with what it was measured on."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from core.settings import BANK_RULES, BankPreset, EngineSettings, Look, Policy, Runtime
from vcam.settings.run_options import cores, processor

if TYPE_CHECKING:
    Clock = Callable[[], float]

WARM_UP_FRAMES = 5  # beside those that fill the pipe: kernels are chosen and memory is taken in the first calls


class MeasuredEngine(Protocol):
    """What is measured: core.engine.Engine."""

    @property
    def settings(self) -> EngineSettings:
        """The settings as resolved, no `auto` in them."""

    @property
    def bank_bytes(self) -> int:
        """Bytes that the bank takes."""

    def stages(self, picture: NDArray[np.uint8], /) -> dict[str, float]:
        """Milliseconds of each stage of a frame, run by itself; empty where the runtime cannot."""

    def translate(self, picture: NDArray[np.uint8], /) -> NDArray[np.uint8] | None:
        """One picture in, one (or None, in the first calls) out."""


ReportProgress = Callable[[str, float], None]


class Instruments(NamedTuple):
    """What measures: core.engine.Engine, core.measure.flops, and what is held; replaced in tests.

    engine: with what hears of its start. flops: of a frame of the engine, None where they cannot be counted. peak:
    operations a second of a device and dtype. memory: bytes held by this process and by the device.
    """

    engine: Callable[[EngineSettings, Look, ReportProgress], MeasuredEngine]
    flops: Callable[[Any], int | None]
    peak: Callable[[str, str], float]
    memory: Callable[[str], tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """One setting's figures.

    fps: frames per second over all measured frames; p50_ms, p95_ms: of one call, picture in to picture out on the
    CPU; load_s: the model's loading; compile_s: compiling, where the runtime does; warm_up_s: the first calls; these
    count nowhere else. tflop: a frame's arithmetic (core.measure.flops); floor_ms: its time at the speed at which this
    machine
    multiplies large matrices; floor_share: floor_ms / p50_ms. memory_bytes, device_bytes: held at the end, by the
    process and on a GPU. stages_ms: core.runtimes.stages, where they were asked for.
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
    slots: int = 1
    compile_s: float = 0.0
    tflop: float | None = None
    floor_ms: float | None = None
    floor_share: float | None = None
    memory_bytes: int = 0
    device_bytes: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchReport:
    """All rows, and what they were measured on (`machine`: hardware, threads and versions)."""

    model: str
    machine: dict[str, object]
    rows: tuple[Row, ...]


def settings_to_measure(
    plain: EngineSettings,
    steps: Sequence[int] | None = None,
    banks: Sequence[Policy | BankPreset] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    slots: Sequence[int] | None = None,
    runtimes: Sequence[Runtime] | None = None,
) -> list[EngineSettings]:
    """Every combination; None: steps 1, 2 and 4, all policies, what else `plain` has. Raises SettingsError.

    slots: of a fifo bank; the others have one.
    """
    every = itertools.product(
        sizes or [(plain.width, plain.height)],
        steps or (1, 2, 4),
        banks or (Policy.OFF, Policy.FIFO, Policy.MERGE),
        slots or (1,),
        runtimes or [plain.runtime],
    )
    chosen = [
        replace(
            plain,
            steps=step,
            width=width,
            height=height,
            runtime=runtime,
            **_bank_values(plain, bank, count),
        )
        for (width, height), step, bank, count, runtime in every
    ]
    return list(dict.fromkeys(chosen))


def _bank_values(plain: EngineSettings, bank: Policy | BankPreset, slots: int) -> dict[str, Any]:
    """Return the settings of a bank of that policy, or of that preset."""
    if isinstance(bank, Policy):
        return {"policy": bank, "slots": slots if bank is Policy.FIFO else 1}
    if bank is BankPreset.OWN:
        return {"policy": plain.policy, "slots": plain.slots}
    return {"policy": Policy.MERGE, "slots": 1, "rules": BANK_RULES[bank]}


def bench(
    chosen: Sequence[EngineSettings],
    look: Look,
    *,
    frames: int,
    stages: bool = False,
    threads: int | None = None,
    instruments: Instruments | None = None,
    clock: Clock = time.perf_counter,
    each: Callable[[Row], None] = lambda row: None,
) -> BenchReport:
    """Measure each of the settings over `frames` frames after its warm-up; `each` hears of every row at once.

    stages: whether each stage is measured by itself too. threads: of the CPU, None leaves the choice to torch.
    Raises core.errors.ModelError, SettingsError.
    """
    if instruments is None:
        instruments = _real_instruments(threads)
    rows: list[Row] = []
    peaks: dict[tuple[str, str], float] = {}
    for settings in chosen:
        rows.append(_measured(settings, look, frames, stages, instruments, peaks, clock))
        each(rows[-1])
    peak = {f"peak_tflops_{device}_{dtype}": value / 1e12 for (device, dtype), value in peaks.items()}
    return BenchReport(chosen[0].model, machine(rows[0].device) | peak, tuple(rows))


def table(rows: Sequence[Row]) -> str:
    """Return the rows for a terminal, under a head."""
    return "\n".join([HEAD, *(line(row) for row in rows)])


HEAD = "size        steps  bank      fps   p50 ms   p95 ms   bank MiB  of floor  run by"


def line(row: Row) -> str:
    """One row for a terminal, under HEAD."""
    size = f"{row.width}x{row.height}"
    bank = f"{row.bank} {row.slots}" if row.slots > 1 else row.bank
    share = "-" if row.floor_share is None else f"{row.floor_share:.0%}"
    stages = "".join(f"\n            {stage} {taken:.2f} ms" for stage, taken in row.stages_ms.items())
    return (
        f"{size:<10}  {row.steps:>5}  {bank:<6} {row.fps:>6.1f} {row.p50_ms:>8.1f} {row.p95_ms:>8.1f} "
        f"{row.bank_bytes / 2**20:>10.1f}  {share:>8}  {row.runtime} {row.device} {row.dtype}{stages}"
    )


def machine(device: str) -> dict[str, object]:
    """Return what the figures were measured on: processor, cores, GPU, system, versions."""
    facts: dict[str, object] = {
        "processor": processor(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("torch", "triton", "diffusers", "transformers", "onnxruntime", "numpy"):
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
    stages: bool,
    instruments: Instruments,
    peaks: dict[tuple[str, str], float],
    clock: Clock,
) -> Row:
    engine, load_s, compile_s = _built(settings, look, instruments, clock)
    pictures = _pictures(settings.width, settings.height)
    warm_up_s = sum(_times(engine, islice(pictures, settings.steps - 1 + WARM_UP_FRAMES), clock))
    taken_s = _times(engine, islice(pictures, frames), clock)
    p50_ms = 1000 * statistics.median(taken_s)
    place = engine.settings.device, engine.settings.dtype
    if place not in peaks:
        peaks[place] = instruments.peak(*place)
    flops = instruments.flops(engine)
    floor_ms = None if flops is None else 1000 * flops / peaks[place]
    held, on_device = instruments.memory(engine.settings.device)
    return Row(
        steps=settings.steps,
        bank=settings.bank,
        width=settings.width,
        height=settings.height,
        frames=frames,
        fps=frames / sum(taken_s),
        p50_ms=p50_ms,
        p95_ms=1000 * float(np.percentile(taken_s, 95)),
        load_s=load_s,
        compile_s=compile_s,
        warm_up_s=warm_up_s,
        bank_bytes=engine.bank_bytes,
        runtime=engine.settings.runtime.value,
        device=engine.settings.device,
        dtype=engine.settings.dtype,
        slots=settings.slots,
        tflop=None if flops is None else flops / 1e12,
        floor_ms=floor_ms,
        floor_share=None if floor_ms is None else floor_ms / p50_ms,
        memory_bytes=held,
        device_bytes=on_device,
        stages_ms=engine.stages(next(pictures)) if stages else {},
    )


def _built(
    settings: EngineSettings, look: Look, instruments: Instruments, clock: Clock
) -> tuple[MeasuredEngine, float, float]:
    """Return the engine, and the seconds that it took to load and to compile."""
    from core.progress import BUILDING

    building: list[float] = []

    def told(text: str, fraction: float) -> None:
        if fraction >= BUILDING:
            building.append(clock())

    started = clock()
    engine = instruments.engine(settings, look, told)
    loaded = clock()
    compiles = building[0] if building else loaded
    return engine, compiles - started, loaded - compiles


def _times(engine: MeasuredEngine, pictures: Iterable[NDArray[np.uint8]], clock: Clock) -> list[float]:
    """Return the seconds that each picture took."""
    ends = [clock()]
    for picture in pictures:
        engine.translate(picture)
        ends.append(clock())
    return [end - start for start, end in itertools.pairwise(ends)]


def _pictures(width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Return a moving picture, RGB uint8 [height, width, 3], made before it is asked for."""
    across, down = np.linspace(0, 255, width, dtype=np.float32), np.linspace(0, 255, height, dtype=np.float32)
    first = np.stack(np.broadcast_arrays(across[None], down[:, None], 128), axis=-1).astype(np.uint8)
    return itertools.cycle([np.ascontiguousarray(np.roll(first, 4 * n, axis=1)) for n in range(8)])


def _real_instruments(threads: int | None) -> Instruments:
    import torch

    from core.engine import Engine
    from core.measure.flops import frame_flops, peak_flops

    if threads is not None:
        torch.set_num_threads(threads)

    def memory(device: str) -> tuple[int, int]:
        on_gpu = 0
        if device.startswith("cuda"):
            on_gpu = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        return held_bytes(), on_gpu

    return Instruments(Engine, lambda engine: frame_flops(engine.resolved), peak_flops, memory)


def held_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    try:
        resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(resident) * os.sysconf("SC_PAGE_SIZE")
