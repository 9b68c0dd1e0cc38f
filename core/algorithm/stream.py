"""The stream batch: a stream's state and the frame that comes next in, its state after that frame out.

In a stream batch (StreamDiffusion, arXiv 2312.12491, section 3.1) every row of one UNet call is another denoising
step, of another frame: at call i, row r works on frame i - r. Each row has its own bank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm.bank import BankUpdate, Keeping, Layout, Reading
from core.algorithm.frame import FrameInputs, FrameScalars, StreamTensors, denoise_batch
from core.algorithm.net import Net, Picture
from core.algorithm.schedule import Prediction, RowCoefficients
from core.settings import OWN_RULES, BankRules, Filling, Guidance, Policy, RowClock

PendingPicture = Callable[[], Picture]  # waits for a result and returns it
Stages = Mapping[str, Callable[[], Any]]  # the name of a frame's stage -> what runs it once, by itself
_NEVER = 2.0  # a cosine is never over this: nothing is fused


class SamplingParameters(NamedTuple):
    """What a look means for the arithmetic of one frame.

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
    rules: BankRules = OWN_RULES


class StreamState(NamedTuple):
    """Everything that a stream remembers from frame to frame.

    positions: the slot that each UNet row's ring takes next (core.algorithm.bank.BankUpdate). frame_index: frames
    since the bank was emptied.
    """

    tensors: StreamTensors
    positions: tuple[int, ...]
    frame_index: int


class Step(Protocol):
    """How a runtime translates one frame of a stream; core.runtimes.model.Model.open makes one for each stream."""

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """Return the translation of the picture given rows-1 calls ago, still pending, and the state after this frame.

        picture: RGB uint8 [height, width, 3]; None imagines one, from noise alone. Do not use the given state again: a
        runtime may work on its tensors in place. Call the pending picture before the next step or not at all, unless
        the model's `beside` allows both at once.
        """
        ...

    def stages(self, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Stages:
        """Return what runs each stage of a frame by itself; empty where the runtime cannot take a frame apart.

        The stream goes on as if no stage had been run.
        """
        ...


def net_rows(guidance: Guidance, rows: int) -> tuple[int, ...]:
    """Return the denoising row of each row of the UNet call; guidance adds rows for the negative prompt."""
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
    """Return the state of a stream before its first frame; latent: (channels, h, w), an empty layout: no bank.

    sources: (height, width) of the pictures that are remembered for a detail stage; None without one.
    """
    count = len(net_rows(guidance, rows))
    in_flight, origins = (torch.zeros(rows - 1, *latent, dtype=dtype, device=device) for _ in range(2))
    waiting = (0, 0, 0) if sources is None else (rows, *sources)
    pictures = torch.zeros(*waiting, 3, dtype=torch.uint8, device=device)
    tensors = StreamTensors(in_flight, origins, banks.empty(layout, count, slots, dtype, device), pictures)
    return StreamState(tensors, (0,) * count, 0)


def with_empty_bank(state: StreamState) -> StreamState:
    """Return the state with an empty bank: the next frame is the bank's first."""
    return state._replace(positions=(0,) * len(state.positions), frame_index=0)


@torch.inference_mode()
def begun_anew(state: StreamState) -> StreamState:
    """Return the state of a stream before its first frame; the given one's tensors are cleared in place.

    What is in flight is lost. In place, for a runtime may work on those very tensors. The rings need no clearing: their
    first frame fills them, or they are read only where they were written.
    """
    for tensor in (state.tensors.in_flight, state.tensors.origins, state.tensors.sources):
        tensor.zero_()
    return with_empty_bank(state)


def bank_update(sampling: SamplingParameters, state: StreamState) -> BankUpdate:
    """Return what the next frame does to the bank."""
    bank = state.tensors.bank
    slots = banks.slot_count(bank)
    kept = keeping(sampling, slots, len(banks.merge_groups(banks.layout_of(bank))))
    return banks.next_update(slots, state.positions, row_ages(sampling, state), kept)


def keeping(sampling: SamplingParameters, slots: int, groups: int) -> Keeping:
    """Return when and how frames are kept by a bank of so many slots and groups of layers to merge."""
    return Keeping(sampling.policy, sampling.interval, groups, sampling.rules.spread, growing(sampling, slots))


def growing(sampling: SamplingParameters, slots: int) -> bool:
    """Return whether slots of the rings may hold nothing yet."""
    return sampling.rules.filling is Filling.GROWING and sampling.policy is Policy.FIFO and slots > 1


def row_ages(sampling: SamplingParameters, state: StreamState) -> list[int]:
    """Return the age, in frames since the bank was emptied, of the frame that each UNet row works on next.

    With a shared clock it is every row's that of the newest frame.
    """
    if sampling.rules.clock is RowClock.SHARED:
        return [state.frame_index for _ in net_rows(sampling.guidance, sampling.noise.shape[0])]
    return [state.frame_index - row for row in net_rows(sampling.guidance, sampling.noise.shape[0])]


def text_rows(sampling: SamplingParameters) -> Tensor:
    """Return the text of each UNet row [net_rows, words, width]: the prompt's, then the negative prompt's."""
    count = sampling.noise.shape[0]
    negatives = len(net_rows(sampling.guidance, count)) - count
    return torch.cat([sampling.text.expand(count, -1, -1), sampling.negative_text.expand(negatives, -1, -1)])


def frame_scalars(
    sampling: SamplingParameters, slots: int, update: BankUpdate, device: torch.device, *, imagined: bool = False
) -> FrameScalars:
    """Return the small inputs of a frame; imagined: it comes from no picture."""
    like = torch.empty(0, dtype=sampling.noise.dtype, device=device)
    fresh = torch.tensor([age <= 0 or not sampling.rules.attends for age in update.ages], device=device)
    strength = like.new_full((len(update.ages),), sampling.fusion_strength)
    threshold = like.new_tensor([_NEVER if age <= 0 else sampling.threshold for age in update.ages])
    return FrameScalars(
        scale=like.new_tensor([sampling.scale]),
        residual=like.new_tensor([sampling.residual]),
        presence=like.new_tensor([0.0 if imagined else 1.0]),
        reading=Reading(fresh, strength, threshold, _held(sampling, slots, update, device)),
        write=banks.slot_mask(slots, update.writes).to(device),
    )


def _held(sampling: SamplingParameters, slots: int, update: BankUpdate, device: torch.device) -> Tensor | None:
    if not growing(sampling, slots):
        return None
    counts = [0 if age <= 0 else held for age, held in zip(update.ages, update.held, strict=True)]
    return torch.arange(slots, device=device) < torch.tensor(counts, device=device)[:, None]


def frame_inputs(
    sampling: SamplingParameters, state: StreamState, update: BankUpdate, *, imagined: bool = False
) -> FrameInputs:
    """Return all inputs of the next frame, `cross` left empty; imagined: it comes from no picture."""
    slots = banks.slot_count(state.tensors.bank)
    scalars = frame_scalars(sampling, slots, update, sampling.noise.device, imagined=imagined)
    return FrameInputs(sampling.rows, sampling.noise, text_rows(sampling), {}, *scalars)


def next_state(state: StreamState, tensors: StreamTensors, update: BankUpdate) -> StreamState:
    """Return the state after a frame: its tensors, and the bank's positions after the update."""
    return StreamState(tensors, update.positions, state.frame_index + 1)


def step(net: Net, sampling: SamplingParameters, state: StreamState, latent: Tensor) -> tuple[Tensor, StreamState]:
    """Run one call of the stream batch: a latent [1, channels, h, w] in, the clean one of rows-1 calls ago out."""
    update, bank = bank_update(sampling, state), state.tensors.bank
    done = denoise_batch(
        net,
        frame_inputs(sampling, state, update),
        state.tensors,
        latent,
        prediction=sampling.prediction,
        guidance=sampling.guidance,
    )
    bank = banks.apply_update(bank, done.seen, update, sampling.seed, sampling.rules)
    tensors = state.tensors._replace(in_flight=done.in_flight, origins=done.origins, bank=bank)
    return done.clean, next_state(state, tensors, update)
