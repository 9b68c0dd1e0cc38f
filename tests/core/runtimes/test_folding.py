"""Folded chains of convolutions equal the chains, at every pixel."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import nn

from core.runtimes.folding import Chain, Conv, Folded, compose, edges, fold

SHAPES = {
    "embedded": ((0, 0, 2, 2), (4, 3, 1, 0)),
    "taesd": ((1, 3, 3, 3), (3, 3, 3, 1)),
    "bare": ((0, 0, 0, 0), (0, 0, 0, 0)),
    "shallow": ((0, 0, 1), (1, 0, 0)),
    "half": ((0, 1, 0, 0), (0, 0, 1, 0)),
}


def tiny(name: str) -> AutoencoderTiny:
    encoder, decoder = SHAPES[name]
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * len(encoder),
        decoder_block_out_channels=(6,) * len(decoder),
        num_encoder_blocks=encoder,
        num_decoder_blocks=decoder,
        latent_channels=5,
    )
    for weight in vae.parameters():  # biases that matter at the edges, and results of about 1
        weight.data = torch.randn_like(weight) * (weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.5)
    frozen: AutoencoderTiny = vae.double().eval().requires_grad_(False)
    return frozen


def sequence(vae: AutoencoderTiny, part: str) -> nn.Sequential:
    found = vae.get_submodule(part)
    assert isinstance(found, nn.Sequential)
    return found


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 64), (64, 144), (112, 208)])
def test_folded_layers_equal_the_layers(name: str, height: int, width: int) -> None:
    vae = tiny(name)
    factor = 2 ** (len(SHAPES[name][0]) - 1)
    given = {
        "encoder.layers": torch.randn(1, 3, height, width, dtype=torch.float64),
        "decoder.layers": torch.randn(1, 5, height // factor, width // factor, dtype=torch.float64),
    }
    for part, picture in given.items():
        layers = sequence(vae, part)
        folded, _ = fold(layers, part)
        torch.testing.assert_close(folded(picture), layers(picture), rtol=0, atol=1e-12)


def test_what_is_folded() -> None:
    found = {
        (name, part): sorted(fold(sequence(tiny(name), part), part)[1])
        for name in SHAPES
        for part in ("encoder.layers", "decoder.layers")
    }
    assert found["embedded", "encoder.layers"] == ["encoder.layers.0-2"]
    assert found["embedded", "decoder.layers"] == ["decoder.layers.14-16"]
    assert found["taesd", "encoder.layers"] == found["taesd", "decoder.layers"] == []
    assert found["half", "decoder.layers"] == ["decoder.layers.7-9"]


def test_the_kernels_come_from_the_weights_alone() -> None:
    layers = tiny("embedded").encoder.layers
    folded, chains = fold(layers, "encoder.layers")
    (chain,) = chains.values()
    again = Chain.from_json(json.loads(json.dumps(chain.to_json())))
    assert again == chain
    weight, bias = compose(again, {f"encoder.layers.{name}": value for name, value in layers.state_dict().items()})
    first = folded[0]
    assert isinstance(first, Folded)
    assert weight.equal(first.weight)
    assert bias.equal(first.bias)
    assert weight.shape == (8, 3, 9, 9)


def test_the_edges_are_as_wide_as_needed_and_no_wider() -> None:
    layers = tiny("embedded").encoder.layers
    folded, _ = fold(layers, "encoder.layers")
    picture = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    first = folded[0]
    assert isinstance(first, Folded)
    inner, expected = first._inner(picture), layers[:3](picture)
    off = (inner - expected).abs().amax(dim=(0, 1)) > 1e-3
    assert off[0].all()
    assert off[:, 0].all()
    assert not off[1:, 1:].any()
    low, high = edges(first.chain)
    assert (low.outputs, high.outputs) == (1, 0)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)],
        [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)],  # 25 weights instead of 18
        [nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1)],
        [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 1, 3, padding=1)],
        [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, stride=2)],
        [nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"), nn.Conv2d(16, 16, 3, stride=2, padding=1)],
        [nn.Conv2d(4, 16, 3, padding=1, groups=4), nn.Conv2d(16, 16, 3, stride=2, padding=1)],
    ],
)
def test_what_does_not_pay_or_cannot_be_folded_is_left_alone(layers: list[nn.Module]) -> None:
    folded, chains = fold(nn.Sequential(*layers), "x")
    assert not chains
    assert list(folded) == layers


def test_a_chain_of_one_is_its_convolution() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1)
    weight, bias = compose(
        Chain(1, (Conv("w", "b", 3, 1),)),
        {"w": conv.weight.detach(), "b": conv.bias.detach()},  # type: ignore[union-attr]
    )
    assert weight.equal(conv.weight)
    assert bias.equal(conv.bias)  # type: ignore[arg-type]
