"""One frame as a pure function of tensors: the arithmetic of every runtime, what is captured, compiled and exported.

All that may change between two frames is a tensor of fixed shape (`FrameInputs`), and so is all that a stream remembers
(`StreamTensors`): one graph serves every frame. core.algorithm.stream says which inputs a frame gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from core.algorithm import bank as banks
from core.algorithm import schedule as schedules
from core.algorithm.bank import Bank, Features, Reading
from core.algorithm.detail import steadied
from core.algorithm.net import Net
from core.algorithm.schedule import Prediction, RowCoefficients
from core.settings import Guidance, Policy

if TYPE_CHECKING:
    from core.algorithm.unet import BankedUNet  # which imports diffusers; not every runtime needs it


class FrameScalars(NamedTuple):
    """The small ones of the inputs, in their order there."""

    scale: Tensor
    residual: Tensor
    presence: Tensor
    reading: Reading
    write: Tensor


class FrameInputs(NamedTuple):
    """All that may change between two frames. Floating tensors have the latents' dtype.

    noise [rows, channels, h, w] is the one fixed noise of each row. text [net_rows, words, width]: the prompt for each
    row of the UNet call, then the negative prompt for the rows that guidance adds. cross:
    core.algorithm.unet.cross_attention of
    that text, or empty, and then each call works it out. scale and residual [1]: of the guidance. presence [1]: what
    the picture's latents are multiplied by, 1, or 0 where pictures are imagined without an input. write: bool
    [net_rows, slots], the slots that take this frame.
    """

    rows: RowCoefficients
    noise: Tensor
    text: Tensor
    cross: dict[str, Tensor]
    scale: Tensor
    residual: Tensor
    presence: Tensor
    reading: Reading
    write: Tensor


class StreamTensors(NamedTuple):
    """The tensors that a stream remembers.

    in_flight and origins [rows-1, channels, h, w]: the clean estimates of the frames between two steps, and the latents
    that residual guidance compares them with. bank: rings [net_rows, slots, tokens, channels], empty without a bank.
    sources: uint8 [rows, height, width, 3], the last pictures, newest first, for the detail stage; none without one.
    """

    in_flight: Tensor
    origins: Tensor
    bank: Bank
    sources: Tensor


class PictureEncoder(nn.Module):
    """picture RGB uint8 [height, width, 3] -> latent [1, channels, h, w], by a diffusers VAE."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scaling, self.dtype = float(vae.config.scaling_factor), vae.dtype

    def forward(self, picture: Tensor) -> Tensor:
        """uint8 [height, width, 3] -> [1, channels, h, w]."""
        # cast first and last: with bytes TensorRT does nothing else
        values = picture.to(self.dtype).permute(2, 0, 1)[None] / 127.5 - 1
        encoded = self.vae.encode(values)
        latent: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latent * self.scaling


class PictureDecoder(nn.Module):
    """latent [1, channels, h, w] -> picture RGB uint8 [height, width, 3], by a diffusers VAE."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scaling = float(vae.config.scaling_factor)

    def forward(self, latent: Tensor, source: Tensor | None = None) -> Tensor:
        """[1, channels, h, w] -> uint8 [height, width, 3]; the source is not looked at."""
        return _levels(self.vae.decode(latent / self.scaling).sample)


class DetailedDecoder(PictureDecoder):
    """latent and the picture that was translated -> picture, by a VAE and a detail stage."""

    def __init__(self, vae: Any, detail: nn.Module) -> None:
        super().__init__(vae)
        self.sharpen = PictureSharpener(detail)

    def forward(self, latent: Tensor, source: Tensor | None = None) -> Tensor:
        """[1, channels, h, w] and uint8 [height, width, 3], which must be there -> the same as the latter."""
        shown: Tensor = self.sharpen(super().forward(latent), source)
        return shown


class PictureSharpener(nn.Module):
    """Translation and source RGB uint8 [height, width, 3] -> the translation with its detail, the same."""

    def __init__(self, detail: nn.Module) -> None:
        """detail: a core.algorithm.detail.Detail."""
        super().__init__()
        self.detail = detail
        self.dtype = next(detail.parameters()).dtype

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        """Sides are multiples of 8."""
        pair = (one.to(self.dtype).permute(2, 0, 1)[None] / 127.5 - 1 for one in (picture, source))
        return _levels(self.detail(*pair))


def _levels(values: Tensor) -> Tensor:
    """[1, 3, height, width], -1..1 -> uint8 [height, width, 3]."""
    levels: Tensor = ((values[0].float() + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(1, 2, 0).contiguous().to(torch.uint8)


def next_sources(picture: Tensor, sources: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """(the picture of the frame that is shown next, the sources after it); of `StreamTensors`.

    With a bank a source is steadied by the one before it, as features are by those of the bank.
    """
    if not len(sources):  # nobody asks
        return picture, sources
    now = picture if policy is Policy.OFF else steadied(picture, sources[0])
    after = torch.cat([now[None], sources[:-1]])
    return after[-1], after


class FrameModule(nn.Module):
    """A whole frame of the stream batch: (picture, inputs, tensors) -> (picture of rows-1 calls ago, tensors, seen).

    Pictures are RGB uint8 [height, width, 3]. seen: the features that `BankMerge` takes, empty under other policies.
    """

    def __init__(
        self,
        encode: nn.Module,
        net: nn.Module,
        decode: nn.Module,
        *,
        prediction: Prediction,
        guidance: Guidance,
        policy: Policy,
    ) -> None:
        """net: a core.algorithm.unet.BankedUNet; without a bank its tensors's bank is empty."""
        super().__init__()
        self.encode = encode
        self.net = net
        self.decode = decode
        self.prediction = prediction
        self.guidance = guidance
        self.policy = policy

    def forward(
        self, picture: Tensor, inputs: FrameInputs, tensors: StreamTensors
    ) -> tuple[Tensor, StreamTensors, Features]:
        """(picture, tensors after, seen); nothing of what is given is changed."""
        latent = self.encode(picture) * inputs.presence
        clean, origins, seen = denoise(
            partial(self.net, cross=inputs.cross),
            inputs,
            tensors.bank,
            torch.cat([latent, tensors.in_flight]),
            torch.cat([latent, tensors.origins]),
            prediction=self.prediction,
            guidance=self.guidance,
        )
        bank = banks.write(tensors.bank, seen, inputs.write)
        source, sources = next_sources(picture, tensors.sources, self.policy)
        after = StreamTensors(clean[:-1], origins[:-1], bank, sources)
        kept = {name: seen[name] for name in bank} if self.policy is Policy.MERGE else {}
        return self.decode(clean[-1:], source), after, kept


class BankMerge(nn.Module):
    """Dynamic merging (core.algorithm.bank.merge) of the rows of a bank that are given; run apart, for few frames need
    it.

    bank: rings [rows, 1, tokens, channels], seen: [rows, tokens, channels], of those rows only. orders: tokens -> int64
    [rows, 2*tokens], core.algorithm.bank.permutation of each row's frame. The rings after it come back.
    """

    def forward(self, bank: Bank, seen: Features, orders: Mapping[int, Tensor]) -> Bank:
        """The rings after the merge; nothing of what is given is changed."""
        return banks.merge(bank, seen, orders)


def example_inputs(
    net: BankedUNet | None, tensors: StreamTensors, net_rows: int, words: tuple[int, int]
) -> FrameInputs:
    """Return inputs of the right shapes and of no meaning, to make a graph with before a look is known.

    words: (words, width) of the text. net: works out `cross`, which is empty without one. Ones rather than zeros, for
    the arithmetic divides by some of them.
    """
    like, slots = tensors.in_flight, banks.slot_count(tensors.bank)
    count = len(like) + 1
    text = like.new_zeros(net_rows, *words)
    flags = torch.zeros(net_rows, slots + 1, dtype=torch.bool, device=like.device)
    times = torch.zeros(count, dtype=torch.int64, device=like.device)
    with torch.no_grad():
        cross = {} if net is None else net.cross_attention(text)
    return FrameInputs(
        RowCoefficients(times, *(like.new_ones(count, 1, 1, 1) for _ in range(4))),
        like.new_zeros(count, *like.shape[1:]),
        text,
        cross,
        like.new_ones(1),
        like.new_ones(1),
        like.new_ones(1),
        Reading(flags[:, 0].clone(), like.new_ones(net_rows), like.new_ones(net_rows)),
        flags[:, 1:].clone(),
    )


def denoise(
    net: Net,
    inputs: FrameInputs,
    bank: Bank,
    clean: Tensor,
    origins: Tensor,
    *,
    prediction: Prediction,
    guidance: Guidance,
) -> tuple[Tensor, Tensor, Features]:
    """One denoising step of each row: (clean estimates, origins, features seen).

    clean and origins [rows, channels, h, w]: what each row starts from.
    """
    noisy = schedules.add_noise(inputs.rows, clean, inputs.noise)
    negatives = inputs.text.shape[0] - clean.shape[0]
    batch = torch.cat([noisy, noisy[:negatives]])
    times = torch.cat([inputs.rows.timesteps, inputs.rows.timesteps[:negatives]])
    predicted, seen = net(batch, times, inputs.text, bank, inputs.reading)
    estimate, origins = _estimate(prediction, guidance, inputs, noisy, predicted, origins)
    return schedules.boundary(inputs.rows, noisy, estimate), origins, seen


def _estimate(
    prediction: Prediction, guidance: Guidance, inputs: FrameInputs, noisy: Tensor, predicted: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    """(clean latents by the guided prediction, origins of the frames)."""
    count, rows = noisy.shape[0], inputs.rows
    if guidance is Guidance.NONE:
        return schedules.x0(prediction, rows, noisy, predicted), origins
    positive = schedules.epsilon(prediction, rows, noisy, predicted[:count])
    if guidance is Guidance.FULL:
        negative = schedules.epsilon(prediction, rows, noisy, predicted[count:])
        guided = negative + inputs.scale * (positive - negative)
    else:
        if guidance is Guidance.ONETIME_NEGATIVE:
            away = schedules.x0(prediction, rows.row(0), noisy[:1], predicted[count:])
            origins = torch.cat([away, origins[1:]])
        # StreamDiffusion, eq. 5: the noise that would lead back to the origin stands in for the negative prompt's
        virtual = (noisy - rows.alpha * origins) / rows.sigma
        guided = inputs.residual * virtual + inputs.scale * (positive - inputs.residual * virtual)
    return schedules.x0(Prediction.EPSILON, rows, noisy, guided), origins
