"""The `eager` runtime: PyTorch runs the encoder, the UNet and the decoder one after the other, nothing compiled."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from core.algorithm.attention import quicken_attention
from core.algorithm.bank import Bank, Features, Reading
from core.algorithm.frame import PictureDecoder, PictureEncoder
from core.algorithm.net import Picture
from core.algorithm.products import quicken_linears
from core.algorithm.stream import StreamState
from core.algorithm.unet import BankedUNet, PlainUNet
from core.models import loras
from core.models.loading import banked, load_parts
from core.models.resolved import Resolved
from core.runtimes.model import Model
from core.runtimes.parts import ModelParts, PartsStep
from core.runtimes.quick_vae import quicken


def load(resolved: Resolved) -> Model:
    """Load the model. Raises ModelError, SettingsError."""
    loaded = load_parts(resolved)
    quicken(loaded)
    encode = partial(_encode, PictureEncoder(loaded.vae), loaded.device)
    decode = partial(_decode, loaded.decode, loaded.device)
    quicken_linears(loaded.unet)
    if loaded.layout:
        net: BankedUNet | PlainUNet = banked(loaded.unet, resolved)
    else:
        quicken_attention(loaded.unet)
        net = PlainUNet(loaded.unet)
    opened: weakref.WeakSet[RememberedText] = weakref.WeakSet()

    def open_stream(state: StreamState) -> PartsStep:
        own = RememberedText(net)
        opened.add(own)
        return PartsStep(ModelParts(encode, own, decode))

    def put(values: Mapping[str, Tensor]) -> None:
        loras.put(loaded.weights, values)
        for one in opened:
            one.forget()

    return Model.of_parts(resolved, loaded, open_stream, put)


class RememberedText:
    """core.algorithm.net.Net of one stream: what the layers make of a text is worked out when it changes, and kept."""

    def __init__(self, net: BankedUNet | PlainUNet) -> None:
        """net: may serve other streams too."""
        self.net = net
        self._text: Tensor | None = None
        self._cross: dict[str, Tensor] = {}

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading
    ) -> tuple[Tensor, Features]:
        """See core.algorithm.net.Net."""
        if self._text is None or not torch.equal(text, self._text):
            self._cross, self._text = self.net.cross_attention(text), text
        fresh = reading.fresh
        if fresh is not None and fresh.device.type == "cpu" and not fresh.any():  # elsewhere to ask is to wait
            reading = reading._replace(fresh=None)
        done: tuple[Tensor, Features] = self.net(latents, timesteps, text, bank, reading, self._cross)
        return done

    def forget(self) -> None:
        """Work it out anew: the weights have changed."""
        self._text = None


def _encode(encode: PictureEncoder, device: torch.device, picture: Picture) -> Tensor:
    latent: Tensor = encode(torch.from_numpy(picture).to(device))
    return latent


def _decode(decode: PictureDecoder, device: torch.device, latent: Tensor, source: Tensor) -> Picture:
    picture: Picture = decode(latent, source.to(device)).cpu().numpy()
    return picture
