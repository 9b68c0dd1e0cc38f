"""How long each stage of a frame takes, each run by itself, as the engine's runtime runs it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from core.algorithm.bank import BankUpdate, slot_count
from core.algorithm.stream import SamplingParameters, Stages, StreamState
from core.settings import Policy

STAGES = ("copy in", "encode", "unet", "bank", "decode", "copy out")


def sample_update(sampling: SamplingParameters, state: StreamState) -> BankUpdate:
    """Return an update in which a frame enters the bank: every row writes a slot, or a group of one row is merged."""
    rows = len(state.positions)
    ages = tuple(range(1, rows + 1))
    merging = sampling.policy is Policy.MERGE and bool(state.tensors.bank)
    writes = ((),) * rows if merging or not state.tensors.bank else tuple((slot,) for slot in state.positions)
    slots = slot_count(state.tensors.bank)
    return BankUpdate(ages, writes, ((0, 0),) if merging else (), state.positions, (slots,) * rows)


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
