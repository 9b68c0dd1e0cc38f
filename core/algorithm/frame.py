"""One frame as a pure function of tensors: the arithmetic of every runtime, what is captured, compiled and exported.

All that may change between two frames is a tensor of fixed shape (`FrameInputs`), and so is all that a stream remembers
(`StreamTensors`): one graph serves every frame. core.algorithm.stream works out which inputs a frame gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from core.algorithm import bank as banks
from core.algorithm import conditions
from core.algorithm import schedule as schedules
from core.algorithm.bank import Bank, Features, Reading
from core.algorithm.detail import steadied
from core.algorithm.net import Net
from core.algorithm.schedule import Prediction, RowCoefficients
from core.settings import Guidance, Policy

if TYPE_CHECKING:
    from core.algorithm.unet import BankedUNet  # which imports diffusers; not every runtime needs it


class FrameScalars(NamedTuple):
    """The small inputs of a frame: one value each, or one for each row; fields as in FrameInputs, in that order."""

    scale: Tensor
    residual: Tensor
    presence: Tensor
    reading: Reading
    write: Tensor

    def named(self) -> dict[str, Tensor]:
        """Return every tensor by its name; those of `reading` by their own."""
        plain = {"scale": self.scale, "residual": self.residual, "presence": self.presence}
        reading = {name: value for name, value in self.reading._asdict().items() if value is not None}
        return plain | reading | {"write": self.write}


class FrameInputs(NamedTuple):
    """All that may change between two frames. Floating tensors have the latents' dtype.

    noise [rows, channels, h, w] is the one fixed noise of each row. text [net_rows, words, width]: the prompt for each
    row of the UNet call, then the negative prompt for the rows that guidance adds. cross: what the cross-attention
    layers make of that text (core.algorithm.unet.BankedUNet.cross_attention), or empty, and then each call works it
    out. scale and residual [1]: of the guidance. presence [1]: what the picture's latent is multiplied by: 1, or 0
    where a picture is imagined without one. write: bool [net_rows, slots], the slots that take this frame.
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

    @property
    def scalars(self) -> FrameScalars:
        """The small ones among them."""
        return FrameScalars(self.scale, self.residual, self.presence, self.reading, self.write)


class StreamTensors(NamedTuple):
    """The tensors that a stream remembers from frame to frame.

    in_flight and origins [rows-1, channels, h, w]: the clean estimates of the frames between two steps, and the latents
    that residual guidance compares them with. bank: rings [net_rows, slots, tokens, channels], empty without a bank.
    sources: uint8 [rows, height, width, 3], the last pictures, newest first, for the detail stage; none without one.
    """

    in_flight: Tensor
    origins: Tensor
    bank: Bank
    sources: Tensor


class DenoisedBatch(NamedTuple):
    """What one call of the stream batch gives.

    clean [1, channels, h, w]: the finished latent, of rows-1 calls ago. in_flight and origins: as in StreamTensors,
    after the call. seen: the features of every row.
    """

    clean: Tensor
    in_flight: Tensor
    origins: Tensor
    seen: Features


class UpcastVae(nn.Module):
    """A diffusers AutoencoderKL that computes in float32 and is spoken to in float16, in which SDXL's overflows."""

    def __init__(self, vae: Any, dtype: torch.dtype) -> None:
        """Take the VAE, which is in float32, over."""
        super().__init__()
        self.inner = vae
        self.config = vae.config
        self.dtype = dtype

    @staticmethod
    def needed(unet: Mapping[str, Any], vae: Mapping[str, Any], dtype: torch.dtype) -> bool:
        """Return whether parts of those configurations need it, as diffusers' pipeline of SDXL decides."""
        sdxl = unet.get("addition_embed_type") == conditions.KIND
        upcast = vae["_class_name"] == "AutoencoderKL" and vae.get("force_upcast") is not False
        return sdxl and upcast and dtype == torch.float16

    def encode(self, picture: Tensor) -> SimpleNamespace:
        """Return the latents [rows, channels, h, w] of pictures."""
        return SimpleNamespace(latents=self.inner.encode(picture.float()).latent_dist.mode().to(self.dtype))

    def decode(self, latent: Tensor) -> SimpleNamespace:
        """Return the sample [rows, 3, height, width] of latents."""
        return SimpleNamespace(sample=self.inner.decode(latent.float()).sample.to(self.dtype))


class PictureEncoder(nn.Module):
    """picture RGB uint8 [height, width, 3] -> latent [1, channels, h, w], by a diffusers VAE."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scaling, self.dtype = float(vae.config.scaling_factor), vae.dtype

    def forward(self, picture: Tensor) -> Tensor:
        """Return the latent [1, channels, h, w] of a picture uint8 [height, width, 3]."""
        # cast first and last: a cast is all that TensorRT does with bytes
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
        """Return the picture uint8 [height, width, 3] of a latent [1, channels, h, w]; the source is not looked at."""
        return self.levels(latent).to(torch.uint8)

    def levels(self, latent: Tensor) -> Tensor:
        """Return the picture's levels, whole numbers 0..255 in float32: TensorRT takes no bytes inside a graph."""
        return _levels(self.vae.decode(latent / self.scaling).sample)


class DetailedDecoder(PictureDecoder):
    """A decoder with a detail stage behind it, which looks at the picture that was translated."""

    def __init__(self, vae: Any, detail: nn.Module) -> None:
        super().__init__(vae)
        self.sharpen = PictureSharpener(detail)

    def forward(self, latent: Tensor, source: Tensor | None = None) -> Tensor:
        """Return the picture uint8 [height, width, 3] of a latent and its source, of the same shape, which must be."""
        shown: Tensor = self.sharpen(self.levels(latent), source)
        return shown


class PictureSharpener(nn.Module):
    """A translation and its source, both RGB uint8 [height, width, 3], to the translation with its detail."""

    def __init__(self, detail: nn.Module) -> None:
        """detail: a core.algorithm.detail.Detail."""
        super().__init__()
        self.detail = detail
        self.dtype = next(detail.parameters()).dtype

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        """Return the picture with its detail; sides are multiples of 8. A picture's levels may be floats too."""
        pair = (one.to(self.dtype).permute(2, 0, 1)[None] / 127.5 - 1 for one in (picture, source))
        return _levels(self.detail(*pair)).to(torch.uint8)


def _levels(values: Tensor) -> Tensor:
    """Return the levels 0..255 [height, width, 3], whole numbers, of a picture [1, 3, height, width], -1..1."""
    levels: Tensor = ((values[0].float() + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(1, 2, 0).contiguous()


def next_sources(picture: Tensor, sources: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return (the picture of the frame that is shown next, the sources after it), of `StreamTensors`.

    With a bank a source is steadied by the one before it, as features are by those of the bank.
    """
    if not len(sources):  # nobody asks
        return picture, sources
    now = picture if policy is Policy.OFF else steadied(picture, sources[0])
    after = torch.cat([now[None], sources[:-1]])
    return after[-1], after


class FrameModule(nn.Module):
    """A whole frame of the stream batch: encoder, UNet with its bank, decoder."""

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
        """Take the parts over; net: a core.algorithm.unet.BankedUNet, whose bank may be empty."""
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
        """Return (picture of rows-1 calls ago, tensors after this frame, features for `BankMerge`).

        Nothing given is changed. Pictures are RGB uint8 [height, width, 3]. The features are empty where the policy
        does not merge.
        """
        source, sources = next_sources(picture, tensors.sources, self.policy)
        shown, done = self.translate(picture, inputs, tensors, source)
        bank = banks.write(tensors.bank, done.seen, inputs.write)
        kept = {name: done.seen[name] for name in bank} if self.policy is Policy.MERGE else {}
        return shown, StreamTensors(done.in_flight, done.origins, bank, sources), kept

    def translate(
        self, picture: Tensor, inputs: FrameInputs, tensors: StreamTensors, source: Tensor
    ) -> tuple[Tensor, DenoisedBatch]:
        """Return (picture of rows-1 calls ago, what the UNet call gave); the bank is left as it is.

        source: the picture given rows-1 calls ago, for a detail stage.
        """
        done = self.denoise(self.encode(picture) * inputs.presence, inputs, tensors)
        return self.decode(done.clean, source), done

    def denoise(self, latent: Tensor, inputs: FrameInputs, tensors: StreamTensors) -> DenoisedBatch:
        """Return `denoise_batch` of this frame's UNet."""
        net = partial(self.net, cross=inputs.cross)
        return denoise_batch(net, inputs, tensors, latent, prediction=self.prediction, guidance=self.guidance)


class BankMerge(nn.Module):
    """Dynamic merging (core.algorithm.bank.merge) of some rows of a bank; run apart, for few frames need it."""

    def forward(self, bank: Bank, seen: Features, orders: Mapping[int, Tensor]) -> Bank:
        """Return the rings after the merge; nothing given is changed.

        bank: rings [rows, 1, tokens, channels], seen: [rows, tokens, channels], of those rows only. orders: tokens ->
        int64 [rows, 2*tokens], core.algorithm.bank.merge_order of each row's frame.
        """
        return banks.merge(bank, seen, orders)


def example_inputs(
    net: BankedUNet | None, tensors: StreamTensors, net_rows: int, words: tuple[int, int], *, growing: bool = False
) -> FrameInputs:
    """Return inputs of the right shapes and of no meaning, to make a graph with before a look is known.

    words: (words, width) of the text. growing: slots of the rings may hold nothing. net: works out `cross`, which is
    empty without one. Ones rather than zeros, for the arithmetic divides by some of them.
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
        Reading(
            flags[:, 0].clone(),
            like.new_ones(net_rows),
            like.new_ones(net_rows),
            torch.ones(net_rows, slots, dtype=torch.bool, device=like.device) if growing else None,
        ),
        flags[:, 1:].clone(),
    )


def denoise_batch(
    net: Net,
    inputs: FrameInputs,
    tensors: StreamTensors,
    latent: Tensor,
    *,
    prediction: Prediction,
    guidance: Guidance,
) -> DenoisedBatch:
    """Take one denoising step of every frame in flight, the latent [1, channels, h, w] being the newest of them."""
    clean, origins, seen = denoise(
        net,
        inputs,
        tensors.bank,
        torch.cat([latent, tensors.in_flight]),
        torch.cat([latent, tensors.origins]),
        prediction=prediction,
        guidance=guidance,
    )
    return DenoisedBatch(clean[-1:], clean[:-1], origins[:-1], seen)


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
    """Take one denoising step of each row; return (clean estimates, origins, features seen).

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
    """Return (clean latents by the guided prediction, origins of the frames)."""
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
