"""Frames by three functions that run one after another: encode, UNet, decode. The eager and the onnx runtime do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.frame import denoise_batch, next_sources
from core.algorithm.net import Net, Picture
from core.algorithm.stream import PendingPicture, SamplingParameters, Stages, StreamState
from core.runtimes.stages import sample_update


class ModelParts(NamedTuple):
    """A model as functions: picture RGB uint8 [height, width, 3] to latent [1, channels, h, w], the UNet, and back.

    decode takes the latent and the picture that it came from, uint8 [height, width, 3], empty for an imagined frame.
    """

    encode: Callable[[Picture], Tensor]
    net: Net
    decode: Callable[[Tensor, Tensor], Picture]


@dataclass(frozen=True)
class PartsStep:
    """core.algorithm.stream.Step by those functions; it keeps nothing of a stream."""

    parts: ModelParts

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """See core.algorithm.stream.Step."""
        latent = torch.zeros_like(sampling.noise[:1]) if picture is None else self.parts.encode(picture)
        waiting = state.tensors.sources
        given = torch.empty(0, dtype=torch.uint8) if picture is None else torch.from_numpy(picture).to(waiting.device)
        source, sources = next_sources(given, waiting, sampling.policy)
        clean, state = stream.step(self.parts.net, sampling, state, latent)
        state = state._replace(tensors=state.tensors._replace(sources=sources))
        return partial(self.parts.decode, clean, source), state

    def stages(self, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Stages:
        """See core.algorithm.stream.Step; the encoder's and the decoder's time include the copies."""
        parts, tensors, update = self.parts, state.tensors, sample_update(sampling, state)
        latent, shown = parts.encode(picture), torch.from_numpy(picture).to(sampling.noise.device)
        unet = partial(
            denoise_batch,
            parts.net,
            stream.frame_inputs(sampling, state, update),
            tensors,
            latent,
            prediction=sampling.prediction,
            guidance=sampling.guidance,
        )
        seen, bank = unet().seen, {name: ring.clone() for name, ring in tensors.bank.items()}
        return {
            "copy in": lambda: torch.from_numpy(picture).to(sampling.noise.device),
            "encode": lambda: parts.encode(picture),
            "unet": unet,
            "bank": lambda: banks.apply_update(bank, seen, update, sampling.seed, sampling.rules),
            "decode": lambda: parts.decode(latent, shown),
            "copy out": lambda: shown.cpu(),
        }
