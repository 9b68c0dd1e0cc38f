"""An AutoencoderTiny (TAESD) in the form that is quickest on a CPU; it computes what it did.

TAESD is a quarter of a frame of SD 1.5. On a CPU its pictures lie as oneDNN convolves them (channels last); what is
added and cut off at zero is so in the convolution's own result, where a fresh one costs page faults; chains of
convolutions are one (core.runtimes.folding); an upsampling with its convolution is one transposed convolution: 16
multiplications for each four pixels, not 36.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn

from core.models.loading import LoadedParts
from core.runtimes.folding import fold, plain


def quicken(loaded: LoadedParts) -> None:
    """Bring the model's VAE to its quick form, in place; on another device than a CPU, another kind of VAE stays."""
    vae = loaded.vae
    if loaded.device.type != "cpu" or not isinstance(vae, AutoencoderTiny):
        return
    for half in (vae.encoder, vae.decoder):
        layers, _ = fold(half.layers, "layers")
        half.layers = _merged(layers)
    vae.to(memory_format=torch.channels_last).eval().requires_grad_(False)


class UpsampledConv(nn.Module):
    """Nearest-neighbour upsampling by two and a 3 x 3 convolution behind it, as one transposed convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """conv: of stride 1, padded with one row of zeros."""
        super().__init__()
        # an upsampled pixel stands twice: tap s of four sums the convolution's taps 2 - s and 3 - s
        sums = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
        weight = torch.einsum("ya,xb,oiab->ioyx", sums, sums, conv.weight.detach().double())
        self.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        self.bias = conv.bias

    def forward(self, picture: Tensor) -> Tensor:
        """Return [rows, out, 2 * height, 2 * width] of [rows, in, height, width]."""
        return F.conv_transpose2d(picture, self.weight, self.bias, stride=2, padding=1)


class InPlaceBlock(nn.Module):
    """diffusers' AutoencoderTinyBlock: three convolutions, their input added, each cut off at zero where it lies."""

    def __init__(self, block: Any) -> None:
        """Take the block's layers over."""
        super().__init__()
        self.first, self.second, self.third = (block.conv[at] for at in (0, 2, 4))
        self.skip = block.skip

    def forward(self, picture: Tensor) -> Tensor:
        """Return [rows, out, height, width] of [rows, in, height, width], which stays as it is."""
        features = self.second(self.first(picture).relu_()).relu_()
        result: Tensor = self.third(features).add_(self.skip(picture)).relu_()
        return result


def _merged(layers: nn.Sequential) -> nn.Sequential:
    """Return the layers with upsamplings merged into their convolutions, and done in place what can be."""
    given, found = list(layers), list[nn.Module]()
    at = 0
    while at < len(given):
        layer, after = given[at], given[at + 1] if at + 1 < len(given) else None
        if isinstance(layer, nn.Upsample) and isinstance(after, nn.Conv2d) and _merges(layer, after):
            found.append(UpsampledConv(after))
            at += 1
        elif isinstance(layer, nn.ReLU):
            found.append(nn.ReLU(inplace=at > 0))  # what comes in is not ours
        elif isinstance(layer, AutoencoderTinyBlock) and all(isinstance(layer.conv[one], nn.ReLU) for one in (1, 3)):
            found.append(InPlaceBlock(layer))
        else:
            found.append(layer)
        at += 1
    return nn.Sequential(*found)


def _merges(upsampling: nn.Upsample, conv: nn.Conv2d) -> bool:
    return upsampling.mode == "nearest" and upsampling.scale_factor == 2 and plain(conv) and conv.kernel_size == (3, 3)
