"""core.algorithm.unet: layers, places and layouts; that the call is right is proved in test_proof.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.overrides import TorchFunctionMode

from core.algorithm import bank, unet
from core.algorithm.attention import quicken_attention
from core.algorithm.bank import Reading
from core.algorithm.unet import BankedUNet, PlainUNet
from core.errors import PlaceError
from tests.support.small_models import TEXT_TOKENS, TEXT_WIDTH, small_unet

MID = "mid_block.attentions.0.transformer_blocks.0"
UP = "up_blocks.1.attentions.0.transformer_blocks.0"
DOWN = "down_blocks.0.attentions.0.transformer_blocks.0"
FRESH, STRENGTH, THRESHOLD = torch.tensor([False, True]), torch.full((2,), 0.8), torch.full((2,), 0.2)
READING = Reading(FRESH, STRENGTH, THRESHOLD)


def call(net: BankedUNet | PlainUNet, height: int, width: int, dtype: torch.dtype = torch.float32) -> bank.Features:
    """Two calls, the second with the bank that the first one filled; the features seen by the second."""
    net = net.to(dtype)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, height, width, generator=generator).to(dtype)
    text = torch.randn(2, TEXT_TOKENS, TEXT_WIDTH, generator=generator).to(dtype)
    reading = Reading(FRESH, STRENGTH.to(dtype), THRESHOLD.to(dtype))
    rings: bank.Bank = {}
    seen: bank.Features = {}
    for _ in range(2):
        predicted, seen = net(latents, torch.tensor([499, 19]), text, rings, reading)
        rings = {name: feature[:, None].repeat(1, 2, 1, 1) for name, feature in seen.items()}
        assert predicted.shape == latents.shape
        assert predicted.dtype is dtype
        assert predicted.isfinite().all()
    return seen


@pytest.mark.parametrize(("height", "width"), [(9, 13), (26, 12)])
@pytest.mark.parametrize(
    "places", [(), (f"{MID}.attn1",), (DOWN,), ("up_blocks.0", "up_blocks.3"), (UP, "up_blocks.1")]
)
def test_the_layout_is_right_for_odd_and_oblong_latents(places: tuple[str, ...], height: int, width: int) -> None:
    net = BankedUNet(small_unet(0), places)
    expected = unet.layout(small_unet(0).config, places, height, width)
    seen = call(net, height, width)
    assert {name: tuple(feature.shape[1:]) for name, feature in seen.items()} == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("places", [None, (DOWN,), ("up_blocks.2",)])
def test_half_precision_runs_at_every_kind_of_place(places: tuple[str, ...] | None, dtype: torch.dtype) -> None:
    net = small_unet(0)
    call(BankedUNet(net, unet.default_places(net) if places is None else places), 8, 12, dtype)


def test_the_papers_places_are_the_low_resolutions_attention_outputs() -> None:
    places = unet.default_places(small_unet(0))
    assert f"{MID}.attn1" in places
    assert {place.split(".attentions")[0] for place in places} == {"mid_block", "up_blocks.0", "up_blocks.1"}
    config = dict(small_unet(0).config)
    config["up_block_types"] = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
    config["down_block_types"] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    like_sd15 = unet.default_places(UNet2DConditionModel.from_config(config))
    assert {place.split(".attentions")[0] for place in like_sd15} == {"mid_block", "up_blocks.1"}


def test_a_plain_unet_sees_nothing_and_predicts_what_a_banked_one_does_without_bank() -> None:
    latents, text = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
    times = torch.tensor([499, 19])
    predicted, seen = PlainUNet(small_unet(0))(latents, times, text, {}, READING)
    assert seen == {}
    banked, _ = BankedUNet(small_unet(0), ())(latents, times, text, {}, READING)
    torch.testing.assert_close(predicted, banked)


def test_a_plain_unet_takes_what_its_layers_made_of_the_text() -> None:
    latents, text = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
    times, net = torch.tensor([499, 19]), PlainUNet(small_unet(0))
    assert net.cross_attention(text) == {}, "diffusers' own processors take none"
    expected, _ = net(latents, times, text, {}, READING)
    quicken_attention(net.unet)
    cross = net.cross_attention(text)
    assert cross.keys() == BankedUNet(small_unet(0), ()).cross_attention(text).keys()
    for given in (None, cross):
        torch.testing.assert_close(net(latents, times, text, {}, READING, given)[0], expected)
    other = net.cross_attention(torch.flip(text, [1]) * 2)
    assert not torch.allclose(net(latents, times, text, {}, READING, other)[0], expected), "what is given is used"


def test_a_bank_and_each_place_matter() -> None:
    latents, text = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
    reading = Reading(torch.tensor([False, False]), STRENGTH.double(), THRESHOLD.double())
    results: list[Tensor] = []
    for places in ((), (f"{MID}.attn1",), (MID,), ("up_blocks.1",)):
        net = BankedUNet(small_unet(0), places)
        _, seen = net(latents[0], torch.tensor([499, 19]), text, {}, reading)
        rings = {name: feature[:, None] for name, feature in seen.items()}
        results.extend(net(latents[1], torch.tensor([499, 19]), text, given, reading)[0] for given in ({}, rings))
    plain = results[0::2]
    assert all(torch.allclose(one, plain[0]) for one in plain)
    banked = [plain[0], *results[1::2]]
    for number, one in enumerate(banked):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in banked[:number])


@pytest.mark.parametrize("place", ["mid_block", "up_blocks.x", "up_blocks.9", "up_blocks", f"{MID}.attn2", "", "nope"])
def test_another_place_is_refused_by_name(place: str) -> None:
    with pytest.raises(PlaceError, match="fusion place"):
        BankedUNet(small_unet(0), [place])


def test_what_sdxl_joins_is_of_one_type() -> None:
    # PyTorch makes one type of two by itself; in a graph for TensorRT they must be one
    net = BankedUNet(small_unet(0, sdxl=True), ()).half()
    joined: list[list[torch.dtype]] = []

    class Watched(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (torch.cat, torch.concat):
                joined.append([one.dtype for one in args[0]])
            return function(*args, **(kwargs or {}))

    text = torch.zeros(2, TEXT_TOKENS + 2, TEXT_WIDTH).half()
    reading = Reading(FRESH, STRENGTH.half(), THRESHOLD.half())
    with Watched():
        net(torch.zeros(2, 4, 8, 8).half(), torch.tensor([499, 19]), text, {}, reading)
    assert len(joined) > 3
    assert all(len(set(types)) == 1 for types in joined)
