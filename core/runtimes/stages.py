"""How long each stage of a frame takes, each run by itself, as the engine's runtime runs it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.bank import BankUpdate
from core.algorithm.stream import SamplingParameters, Stages, StreamState

STAGES = ("copy in", "encode", "unet", "bank", "decode", "copy out")


def sample_update(sampling: SamplingParameters, state: StreamState) -> BankUpdate:
    """Return the update of a stream's frame in which most is kept: of all that an interval has, the first of these."""
    bank = state.tensors.bank
    slots = banks.slot_count(bank)
    kept = stream.keeping(sampling, slots, len(banks.merge_groups(banks.layout_of(bank))))
    begun = len(state.positions)  # by then every row has a past
    ages = (stream.row_ages(sampling, state._replace(frame_index=begun + n)) for n in range(sampling.interval))
    return max((banks.next_update(slots, state.positions, one, kept) for one in ages), key=_work)


def _work(update: BankUpdate) -> int:
    return len(update.merged) + sum(map(len, update.writes))


@torch.inference_mode()
def measured_ms(stages: Stages, device: torch.device, repeats: int) -> dict[str, float]:
    """Return each stage's median time in milliseconds: by CUDA events on such a device, else by the clock."""
    timed = _by_events if device.type == "cuda" else _by_clock
    return {name: statistics.median(timed(run) for _ in range(repeats + 2)) for name, run in stages.items()}


def _by_clock(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    if torch.accelerator.is_available():  # whose work is queued
        torch.accelerator.synchronize()
    return (time.perf_counter() - started) * 1000


def _by_events(run: Callable[[], Any]) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    before.record()
    run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))
