"""The `eager` runtime: PyTorch runs the encoder, the UNet and the decoder one after the other, nothing compiled."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from core.algorithm.frame import PictureDecoder, PictureEncoder
from core.algorithm.net import Picture
from core.algorithm.unet import PlainUNet
from core.models import loras
from core.models.loading import banked, load_parts
from core.models.resolved import Resolved
from core.runtimes.model import Model
from core.runtimes.parts import ModelParts, PartsStep


def load(resolved: Resolved) -> Model:
    """Load the model. Raises ModelError, SettingsError."""
    loaded = load_parts(resolved)
    parts = ModelParts(
        encode=partial(_encode, PictureEncoder(loaded.vae), loaded.device),
        net=banked(loaded.unet, resolved) if loaded.layout else PlainUNet(loaded.unet),
        decode=partial(_decode, loaded.decode, loaded.device),
    )
    put = partial(loras.put, loaded.weights)
    return Model.of_parts(resolved, loaded, lambda state: PartsStep(parts), put)


def _encode(encode: PictureEncoder, device: torch.device, picture: Picture) -> Tensor:
    latent: Tensor = encode(torch.from_numpy(picture).to(device))
    return latent


def _decode(decode: PictureDecoder, device: torch.device, latent: Tensor, source: Tensor) -> Picture:
    picture: Picture = decode(latent, source.to(device)).cpu().numpy()
    return picture
