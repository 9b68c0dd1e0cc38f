"""The stream batch and the sequential loop: StreamState in, StreamState out.

In a stream batch (StreamDiffusion, arXiv 2312.12491, section 3.1) every row of one UNet call is another denoising
step, of another frame: at call i, row r works on frame i - r. In the sequential loop one frame goes through all its
steps, one call each. Each row has its own bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm.bank import BankUpdate, Layout, Reading
from core.algorithm.frame import FrameInputs, FrameScalars, StreamTensors, denoise, next_sources
from core.algorithm.net import Net, Picture
from core.algorithm.schedule import Prediction, RowCoefficients
from core.settings import Guidance, Policy

PendingPicture = Callable[[], Picture]
_NEVER = 2.0  # a cosine is never over this: nothing is fused


class SamplingParameters(NamedTuple):
    """All that a look means for the arithmetic of one frame.

    noise [rows, channels, h, w] is the one fixed noise of each row. text and negative_text [1, words, width].
    """

    rows: RowCoefficients
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

    positions: the slot that each UNet row's ring takes next. frame_index: frames since the bank was emptied.
    """

    tensors: StreamTensors
    positions: tuple[int, ...]
    frame_index: int


class Step(Protocol):
    """How a runtime takes one frame of a stream; a core.runtimes.model.Model opens one for each stream."""

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """(what gives the picture of rows-1 calls ago, state); without a picture one is imagined, from noise alone.

        picture: RGB uint8 [height, width, 3]. The state that is given must not be used again: a runtime may work on its
        tensors in place. What gives the picture is called before the next step, or not at all, unless the model's
        `beside` says that it may run meanwhile.
        """
        ...


class ModelParts(NamedTuple):
    """A model whose parts run apart: RGB uint8 [height, width, 3] to latent [1, channels, h, w], the UNet, and back.

    decode takes the latent, and the picture that it came from, uint8 [height, width, 3]; that is empty for a frame that
    is imagined.
    """

    encode: Callable[[Picture], Tensor]
    net: Net
    decode: Callable[[Tensor, Tensor], Picture]


def by_parts(
    parts: ModelParts, sampling: SamplingParameters, state: StreamState, picture: Picture | None
) -> tuple[PendingPicture, StreamState]:
    """Step, of a model whose parts run apart."""
    latent = torch.zeros_like(sampling.noise[:1]) if picture is None else parts.encode(picture)
    waiting = state.tensors.sources
    given = torch.empty(0, dtype=torch.uint8) if picture is None else torch.from_numpy(picture).to(waiting.device)
    source, sources = next_sources(given, waiting, sampling.policy)
    clean, state = step(parts.net, sampling, state, latent)
    return partial(parts.decode, clean, source), state._replace(tensors=state.tensors._replace(sources=sources))


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


def initial_state(
    layout: Layout,
    rows: int,
    slots: int,
    guidance: Guidance,
    latent: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    sources: tuple[int, int] | None = None,
) -> StreamState:
    """A stream that has seen nothing; latent is (channels, h, w), an empty layout means no bank.

    sources: (height, width) of the pictures that are remembered for a detail stage; None without one.
    """
    count = len(net_rows(guidance, rows))
    in_flight, origins = (torch.zeros(rows - 1, *latent, dtype=dtype, device=device) for _ in range(2))
    waiting = (0, 0, 0) if sources is None else (rows, *sources)
    pictures = torch.zeros(*waiting, 3, dtype=torch.uint8, device=device)
    tensors = StreamTensors(in_flight, origins, banks.empty(layout, count, slots, dtype, device), pictures)
    return StreamState(tensors, (0,) * count, 0)


def with_empty_bank(state: StreamState) -> StreamState:
    """The state with an empty bank: the next frame is the bank's first."""
    return state._replace(positions=(0,) * len(state.positions), frame_index=0)


def bank_update(sampling: SamplingParameters, state: StreamState) -> BankUpdate:
    """What the frame that comes next does to the bank."""
    ages = [state.frame_index - row for row in net_rows(sampling.guidance, sampling.noise.shape[0])]
    slots = banks.slot_count(state.tensors.bank)
    return banks.next_update(slots, state.positions, ages, policy=sampling.policy, interval=sampling.interval)


def text_rows(sampling: SamplingParameters) -> Tensor:
    """The text of each UNet row [net_rows, words, width]: the prompt's, then the negative prompt's."""
    count = sampling.noise.shape[0]
    negatives = len(net_rows(sampling.guidance, count)) - count
    return torch.cat([sampling.text.expand(count, -1, -1), sampling.negative_text.expand(negatives, -1, -1)])


def frame_scalars(
    sampling: SamplingParameters, slots: int, now: BankUpdate, device: torch.device, *, imagined: bool = False
) -> FrameScalars:
    """The small inputs of a frame whose turn is `now`; imagined: there is no picture that it comes from."""
    like = torch.empty(0, dtype=sampling.noise.dtype, device=device)
    fresh = torch.tensor([age <= 0 for age in now.ages], device=device)
    strength = like.new_full((len(now.ages),), sampling.fusion_strength)
    threshold = like.new_tensor([_NEVER if age <= 0 else sampling.threshold for age in now.ages])
    return FrameScalars(
        scale=like.new_tensor([sampling.scale]),
        residual=like.new_tensor([sampling.residual]),
        presence=like.new_tensor([0.0 if imagined else 1.0]),
        reading=Reading(fresh, strength, threshold),
        write=banks.slot_mask(slots, now.writes).to(device),
    )


def frame_inputs(
    sampling: SamplingParameters, state: StreamState, now: BankUpdate, *, imagined: bool = False
) -> FrameInputs:
    """What the frame that comes next is given; now is its turn, imagined: there is no picture that it comes from."""
    slots = banks.slot_count(state.tensors.bank)
    return FrameInputs(
        sampling.rows,
        sampling.noise,
        text_rows(sampling),
        {},
        *frame_scalars(sampling, slots, now, sampling.noise.device, imagined=imagined),
    )


def next_state(state: StreamState, tensors: StreamTensors, now: BankUpdate) -> StreamState:
    """The state after a frame that left the tensors so."""
    return StreamState(tensors, now.positions, state.frame_index + 1)


def step(net: Net, sampling: SamplingParameters, state: StreamState, latent: Tensor) -> tuple[Tensor, StreamState]:
    """One call of the stream batch: a latent [1, channels, h, w] in, the clean one of rows-1 calls ago out."""
    tensors = state.tensors
    clean, origins, state = _advance(
        net, sampling, state, torch.cat([latent, tensors.in_flight]), torch.cat([latent, tensors.origins])
    )
    return clean[-1:], state._replace(tensors=state.tensors._replace(in_flight=clean[:-1], origins=origins[:-1]))


def sequential(
    net: Net, sampling: SamplingParameters, states: Sequence[StreamState], latent: Tensor
) -> tuple[Tensor, tuple[StreamState, ...]]:
    """All steps of one frame, one call each; states[r] is a one-row stream for step r.

    Equals what `step` gives rows-1 calls later.
    """
    clean, origin = latent, latent
    done = []
    for row, state in enumerate(states):
        one = sampling._replace(rows=sampling.rows.row(row), noise=sampling.noise[row : row + 1])
        # only row 0 runs the one-time negative, so later steps guide as the self-negative does
        if sampling.guidance is Guidance.ONETIME_NEGATIVE and row > 0:
            one = one._replace(guidance=Guidance.SELF_NEGATIVE)
        clean, origin, state = _advance(net, one, state, clean, origin)
        done.append(state)
    return clean, tuple(done)


def _advance(
    net: Net, sampling: SamplingParameters, state: StreamState, clean: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor, StreamState]:
    """One denoising step of each row: (clean estimates, origins, state)."""
    now, bank = bank_update(sampling, state), state.tensors.bank
    clean, origins, seen = denoise(
        net,
        frame_inputs(sampling, state, now),
        bank,
        clean,
        origins,
        prediction=sampling.prediction,
        guidance=sampling.guidance,
    )
    tensors = state.tensors._replace(bank=banks.apply_update(bank, seen, now, sampling.seed))
    return clean, origins, next_state(state, tensors, now)
