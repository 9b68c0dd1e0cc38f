"""How long each stage of a frame takes, each run by itself, as the engine's runtime runs it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.bank import BankUpdate
from core.algorithm.frame import denoise
from core.algorithm.net import Picture
from core.algorithm.stream import ModelParts, SamplingParameters, Step, StreamState, by_parts
from core.settings import Policy

STAGES = ("copy in", "encode", "unet", "bank", "decode", "copy out")
Runs = Mapping[str, Callable[[], Any]]


@torch.inference_mode()
def of_step(step: Step, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Runs:
    """The stages of that step, none where its runtime cannot take a frame apart."""
    if isinstance(step, partial) and step.func is by_parts:
        return of_parts(step.args[0], sampling, state, picture)
    apart: Callable[[SamplingParameters, StreamState, Picture], Runs] | None = getattr(step, "stages", None)
    return {} if apart is None else apart(sampling, state, picture)


def of_parts(parts: ModelParts, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Runs:
    """The stages of a model whose parts run apart; its encoder and decoder have the copies in them."""
    tensors, device = state.tensors, sampling.noise.device
    now, clean = busy_update(sampling, state), parts.encode(picture)
    inputs = stream.frame_inputs(sampling, state, now)
    batch, origins = (torch.cat([clean, waiting]) for waiting in (tensors.in_flight, tensors.origins))
    unet = partial(
        denoise,
        parts.net,
        inputs,
        tensors.bank,
        batch,
        origins,
        prediction=sampling.prediction,
        guidance=sampling.guidance,
    )
    seen = unet()[2]
    shown = torch.from_numpy(picture).to(device)
    return {
        "copy in": lambda: torch.from_numpy(picture).to(device),
        "encode": lambda: parts.encode(picture),
        "unet": unet,
        "bank": lambda: banks.apply_update(tensors.bank, seen, now, sampling.seed),
        "decode": lambda: parts.decode(clean, shown),
        "copy out": lambda: shown.cpu(),
    }


def busy_update(sampling: SamplingParameters, state: StreamState) -> BankUpdate:
    """A turn in which a frame enters the bank: every row writes a slot, or one row is merged."""
    rows = len(state.positions)
    ages = tuple(range(1, rows + 1))
    merging = sampling.policy is Policy.MERGE and bool(state.tensors.bank)
    writes = ((),) * rows if merging or not state.tensors.bank else tuple((slot,) for slot in state.positions)
    return BankUpdate(ages, writes, (0,) if merging else (), state.positions)


@torch.inference_mode()
def measured_ms(runs: Runs, device: torch.device, repeats: int) -> dict[str, float]:
    """The median time of each run: by CUDA events on such a device, else by the clock."""
    clock = _events if device.type == "cuda" else _clock
    return {name: statistics.median(clock(run) for _ in range(repeats + 2)) for name, run in runs.items()}


def _clock(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def _events(run: Callable[[], Any]) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    before.record()
    run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))
