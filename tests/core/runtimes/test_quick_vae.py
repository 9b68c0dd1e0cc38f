"""The quick form of an AutoencoderTiny gives what the plain one gives, and is left alone what it is not for."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import nn

from core.runtimes.folding import Folded
from core.runtimes.quick_vae import InPlaceBlock, UpsampledConv, quicken


def quick(vae: Any, device: str = "cpu") -> Any:
    """A copy of it, in its quick form."""
    own: Any = SimpleNamespace(vae=copy.deepcopy(vae), device=torch.device(device))
    quicken(own)
    return own.vae


def taesd(**changes: Any) -> AutoencoderTiny:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (6, 6, 6, 6),
        "num_encoder_blocks": (1, 3, 3, 3),
        "num_decoder_blocks": (3, 3, 3, 1),
        "latent_channels": 4,
    }
    vae = AutoencoderTiny(**given | changes)
    for weight in vae.parameters():  # results of about 1
        weight.data = torch.randn_like(weight) * (weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.5)
    frozen: AutoencoderTiny = vae.double().eval().requires_grad_(False)
    return frozen


@pytest.mark.parametrize(
    "changes", [{}, {"num_encoder_blocks": (0, 0, 2, 2), "num_decoder_blocks": (4, 3, 1, 0)}], ids=["taesd", "embedded"]
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (112, 208)])
def test_what_it_computes_is_what_it_was(changes: dict[str, Any], height: int, width: int) -> None:
    vae = taesd(**changes)
    own = quick(vae)
    picture, latent = torch.rand(1, 3, height, width).double(), torch.randn(1, 4, height // 8, width // 8).double()
    given = picture.clone(), latent.clone()
    for _ in range(2):  # nothing that is given is written to, nor anything that the next frame needs
        torch.testing.assert_close(own.encode(picture).latents, vae.encode(picture).latents, rtol=0, atol=1e-12)
        torch.testing.assert_close(own.decode(latent).sample, vae.decode(latent).sample, rtol=0, atol=1e-12)
    assert picture.equal(given[0])
    assert latent.equal(given[1])


def test_what_is_made_quick() -> None:
    kinds = [type(layer) for layer in quick(taesd()).decoder.layers]
    assert kinds.count(UpsampledConv) == 3
    assert kinds.count(InPlaceBlock) == 10
    assert nn.Upsample not in kinds
    assert all(layer.inplace for layer in quick(taesd()).decoder.layers if isinstance(layer, nn.ReLU))
    embedded = quick(taesd(num_encoder_blocks=(0, 0, 2, 2), num_decoder_blocks=(4, 3, 1, 0)))
    assert isinstance(embedded.encoder.layers[0], Folded)
    assert isinstance(embedded.decoder.layers[-1], Folded)


def test_an_upsampling_that_is_no_doubling_stays() -> None:
    assert nn.Upsample in [type(layer) for layer in quick(taesd(upsampling_scaling_factor=4)).decoder.layers]


def test_others_activations_stay() -> None:
    vae = taesd(act_fn="silu")
    latent = torch.randn(1, 4, 8, 8).double()
    assert InPlaceBlock not in [type(layer) for layer in quick(vae).decoder.layers]
    torch.testing.assert_close(quick(vae).decode(latent).sample, vae.decode(latent).sample, rtol=0, atol=1e-12)


def test_another_device_and_another_kind_keep_their_own() -> None:
    assert nn.Upsample in [type(layer) for layer in quick(taesd(), "cuda").decoder.layers]
    other = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    assert quick(other).state_dict().keys() == other.state_dict().keys()
