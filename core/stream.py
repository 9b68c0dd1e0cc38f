"""The stream batch and the sequential loop: StreamState in, StreamState out.

In a stream batch (StreamDiffusion, arXiv 2312.12491, section 3.1) every row of one UNet call is another denoising
step, of another frame: at call i, row r works on frame i - r. In the sequential loop one frame goes through all its
steps, one call each. Each row has its own bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core import bank as banks
from core import schedule as schedules
from core.bank import Bank, Layout, Reading
from core.net import Net
from core.schedule import Prediction, Rows
from core.settings import Guidance, Policy

_NEVER = 2.0  # a cosine is never over this: nothing is fused


class Plan(NamedTuple):
    """All that a look means for the arithmetic of one frame.

    noise [rows, channels, h, w] is the one fixed noise of each row. text and negative_text [1, words, width].
    """

    rows: Rows
    noise: Tensor
    prediction: Prediction
    text: Tensor
    negative_text: Tensor
    guidance: Guidance
    scale: float
    residual: float
    policy: Policy
    interval: int
    fusion_strength: float
    threshold: float
    seed: int


class StreamState(NamedTuple):
    """All that a stream remembers.

    in_flight and origins [rows-1, channels, h, w]: the clean estimates of the frames between two steps, and the latents
    that residual guidance compares them with. positions: the slot that each UNet row's ring takes next. frame_index:
    frames since the bank was emptied.
    """

    in_flight: Tensor
    origins: Tensor
    bank: Bank
    positions: tuple[int, ...]
    frame_index: int


def net_rows(guidance: Guidance, rows: int) -> tuple[int, ...]:
    """The denoising row of each row of the UNet call; guidance adds rows for the negative prompt."""
    plain = tuple(range(rows))
    match guidance:
        case Guidance.FULL:
            return plain + plain
        case Guidance.ONETIME_NEGATIVE:
            return (*plain, 0)
        case _:
            return plain


def start(
    layout: Layout,
    rows: int,
    slots: int,
    guidance: Guidance,
    latent: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> StreamState:
    """A stream that has seen nothing; latent is (channels, h, w), an empty layout means no bank."""
    count = len(net_rows(guidance, rows))
    waiting = torch.zeros(rows - 1, *latent, dtype=dtype, device=device)
    bank = banks.empty(layout, count, slots, dtype, device)
    return StreamState(waiting, waiting, bank, (0,) * count, 0)


def forget(state: StreamState) -> StreamState:
    """The state with an empty bank: the next frame is the bank's first."""
    return state._replace(positions=(0,) * len(state.positions), frame_index=0)


def step(net: Net, plan: Plan, state: StreamState, latent: Tensor) -> tuple[Tensor, StreamState]:
    """One call of the stream batch: a latent [1, channels, h, w] in, the clean one of rows-1 calls ago out."""
    clean, origins, state = _advance(
        net, plan, state, torch.cat([latent, state.in_flight]), torch.cat([latent, state.origins]), first_row=0
    )
    return clean[-1:], state._replace(in_flight=clean[:-1], origins=origins[:-1])


def sequential(
    net: Net, plan: Plan, states: Sequence[StreamState], latent: Tensor
) -> tuple[Tensor, tuple[StreamState, ...]]:
    """All steps of one frame, one call each; states[r] is a one-row stream for step r.

    Equals what `step` gives rows-1 calls later.
    """
    clean, origin = latent, latent
    after = []
    for row, state in enumerate(states):
        one = plan._replace(rows=plan.rows.row(row), noise=plan.noise[row : row + 1])
        clean, origin, state = _advance(net, one, state, clean, origin, first_row=row)
        after.append(state)
    return clean, tuple(after)


def _advance(
    net: Net, plan: Plan, state: StreamState, clean: Tensor, origins: Tensor, first_row: int
) -> tuple[Tensor, Tensor, StreamState]:
    """One denoising step of each row: (clean estimates, origins, state)."""
    # only row 0 runs the one-time negative, so later steps of the sequential loop guide as the self-negative does
    guidance = plan.guidance
    if guidance is Guidance.ONETIME_NEGATIVE and first_row > 0:
        guidance = Guidance.SELF_NEGATIVE
    mapping = net_rows(guidance, clean.shape[0])
    ages = [state.frame_index - row for row in mapping]
    noisy = schedules.add_noise(plan.rows, clean, plan.noise)

    negatives = len(mapping) - clean.shape[0]
    batch = torch.cat([noisy, noisy[:negatives]])
    text = torch.cat(
        [
            plan.text.expand(clean.shape[0], -1, -1),
            plan.negative_text.expand(negatives, -1, -1),
        ]
    )
    times = torch.cat([plan.rows.timesteps, plan.rows.timesteps[:negatives]])
    predicted, seen = net(batch, times, text, state.bank, _reading(plan, ages, noisy))
    estimate, origins = _estimate(plan, guidance, noisy, predicted, origins)
    bank, positions = banks.update(
        state.bank, seen, state.positions, ages, policy=plan.policy, interval=plan.interval, seed=plan.seed
    )
    clean = schedules.boundary(plan.rows, noisy, estimate)
    return clean, origins, state._replace(bank=bank, positions=positions, frame_index=state.frame_index + 1)


def _reading(plan: Plan, ages: Sequence[int], like: Tensor) -> Reading:
    fresh = torch.tensor([age <= 0 for age in ages], device=like.device)
    strength = like.new_full((len(ages),), plan.fusion_strength)
    threshold = like.new_tensor([_NEVER if age <= 0 else plan.threshold for age in ages])
    return Reading(fresh, strength, threshold)


def _estimate(
    plan: Plan, guidance: Guidance, noisy: Tensor, predicted: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    """(clean latents by the guided prediction, origins of the frames)."""
    count = noisy.shape[0]
    if guidance is Guidance.NONE:
        return schedules.x0(plan.prediction, plan.rows, noisy, predicted), origins
    positive = schedules.epsilon(plan.prediction, plan.rows, noisy, predicted[:count])
    if guidance is Guidance.FULL:
        negative = schedules.epsilon(plan.prediction, plan.rows, noisy, predicted[count:])
        guided = negative + plan.scale * (positive - negative)
    else:
        if guidance is Guidance.ONETIME_NEGATIVE:
            first = plan.rows.row(0)
            away = schedules.x0(plan.prediction, first, noisy[:1], predicted[count:])
            origins = torch.cat([away, origins[1:]])
        # StreamDiffusion, eq. 5: the noise that would lead back to the origin stands in for the negative prompt's
        virtual = (noisy - plan.rows.alpha * origins) / plan.rows.sigma
        guided = plan.residual * virtual + plan.scale * (positive - plan.residual * virtual)
    return schedules.x0(Prediction.EPSILON, plan.rows, noisy, guided), origins
