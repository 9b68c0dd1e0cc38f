"""core.algorithm.detail: a translation with its detail, and the right source beside each frame."""

from __future__ import annotations

import pytest
import torch

from core.algorithm import stream
from core.algorithm.detail import KNOTS, Detail, ToneCurve, knots, levels, steadied, toned
from core.algorithm.frame import DetailedDecoder, FrameModule, PictureEncoder, PictureSharpener, next_sources
from core.algorithm.unet import BankedUNet
from core.runtimes.parts import ModelParts, PartsStep
from core.settings import Policy
from tests.support.small_details import Source, small_autoencoder, small_detail
from tests.support.small_models import DEVICE, LATENT, small_unet
from tests.support.small_sampling import sampling

SIZE = 64  # pixels; the latents are 8 x 8


@pytest.mark.parametrize("size", [(8, 8), (64, 80), (48, 136)])
def test_it_begins_as_the_identity_at_every_size(size: tuple[int, int]) -> None:
    picture, source = (torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for _ in range(2))
    assert torch.equal(PictureSharpener(Detail())(picture, source), picture)


def test_a_level_lies_between_two_knots() -> None:
    assert torch.allclose(knots().sum(1), torch.ones(256))
    assert int((knots() > 0).sum(1).max()) == 2
    assert torch.equal(knots()[[0, 255]].argmax(1), torch.tensor([0, KNOTS - 1]))


def test_a_level_is_the_brightness_of_the_source() -> None:
    red, white = torch.tensor([[1.0, -1, -1], [1, 1, 1]]).view(2, 3, 1, 1)
    assert levels(torch.stack([red, white, -white])).flatten().tolist() == [76, 255, 0]


def test_tones_are_put_right_by_the_brightness_of_the_source_alone() -> None:
    curve = ToneCurve(4)
    with torch.no_grad():
        bias = dict(curve.named_parameters())["layers.2.bias"]
        bias.view(KNOTS, 3)[:, 1] = torch.linspace(0, 0.5, KNOTS)  # greener where the source is bright
    source = torch.linspace(-1, 1, 64).view(1, 1, 1, 64).expand(1, 3, 8, 64)
    picture = torch.rand(1, 3, 8, 64) - 0.8
    level = levels(source)
    more = toned(picture, level, curve(picture, level)) - picture
    torch.testing.assert_close(more[:, 1], (source[:, 1] + 1) / 4, atol=2e-3, rtol=0)
    assert float(more[:, ::2].detach().abs().max()) < 1e-6


def test_the_curve_sees_what_each_brightness_has_become() -> None:
    """Of two translations that differ in the dark alone; and not how many pixels it is shown."""
    curve: torch.nn.Module = small_detail(0).tones
    level = levels(torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8))
    one, other = torch.zeros(2, 1, 3, 8, 8)
    other[:, :, :2] = 0.5
    assert not torch.allclose(curve(one, level), curve(other, level))
    torch.testing.assert_close(curve(other.repeat(1, 1, 2, 1), level.repeat(1, 2, 1)), curve(other, level))


def test_each_picture_of_several_has_tones_of_its_own() -> None:
    added, level = torch.rand(3, 256, 3) - 0.5, torch.randint(0, 256, (3, 4, 5))
    made = toned(torch.zeros(3, 3, 4, 5), level, added)
    for n, y, x in ((0, 0, 0), (1, 3, 4), (2, 1, 2)):
        assert torch.equal(made[n, :, y, x], added[n, level[n, y, x]])


def test_it_looks_at_both_pictures() -> None:
    sharpen = PictureSharpener(small_detail(0))
    one, other = (torch.randint(0, 256, (32, 40, 3), dtype=torch.uint8) for _ in range(2))
    shown = sharpen(one, other)
    assert not torch.equal(shown, sharpen(one, one))
    assert not torch.equal(shown, sharpen(other, other))


@torch.inference_mode()
def test_between_decoder_and_detail_stage_there_are_levels_but_no_bytes() -> None:
    """TensorRT takes bytes as inputs and outputs of a graph alone."""
    vae, latent = small_autoencoder(), torch.randn(1, 4, 8, 8, dtype=torch.float64)
    given: list[torch.Tensor] = []

    class Seen(Source):
        def forward(self, picture: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
            given.append((picture[0].permute(1, 2, 0) + 1) * 127.5)
            return picture

    decode = DetailedDecoder(vae, Seen().double())
    levels = decode.levels(latent)
    assert levels.dtype == torch.float32
    shown = decode(latent, torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8))
    assert torch.equal(levels, shown.float())
    torch.testing.assert_close(given[0], shown.double())


def test_a_source_waits_until_its_frame_is_shown() -> None:
    waiting, shown = torch.zeros(3, 1, 1, 3, dtype=torch.uint8), []
    for number in range(1, 6):
        source, waiting = next_sources(torch.full((1, 1, 3), number, dtype=torch.uint8), waiting, Policy.OFF)
        shown.append(int(source[0, 0, 0]))
    assert shown == [0, 0, 1, 2, 3]


def test_where_nobody_asks_nothing_is_remembered() -> None:
    picture, none = torch.ones(8, 8, 3, dtype=torch.uint8), torch.zeros(0, 0, 0, 3, dtype=torch.uint8)
    source, after = next_sources(picture, none, Policy.FIFO)
    assert source is picture
    assert after is none


@pytest.mark.parametrize("steps", [1, 2, 4])
@torch.inference_mode()
def test_each_frame_is_shown_with_its_own_source(steps: int) -> None:
    own, vae = sampling(Policy.OFF, steps), small_autoencoder()
    encode, decode = PictureEncoder(vae), DetailedDecoder(vae, Source().double())
    net = BankedUNet(small_unet(0), ())
    frame = FrameModule(encode, net, decode, prediction=own.prediction, guidance=own.guidance, policy=own.policy)
    state, apart = (
        stream.initial_state({}, steps, 1, own.guidance, LATENT, torch.float64, DEVICE, (SIZE, SIZE)) for _ in range(2)
    )
    parts = ModelParts(
        encode=lambda picture: encode(torch.from_numpy(picture)),
        net=net,
        decode=lambda latent, source: decode(latent, source).numpy(),
    )
    given = torch.randint(0, 256, (steps + 2, SIZE, SIZE, 3), dtype=torch.uint8)
    for number, picture in enumerate(given):
        now = stream.bank_update(own, state)
        shown, tensors, _ = frame(picture, stream.frame_inputs(own, state, now), state.tensors)
        state = stream.next_state(state, tensors, now)
        pending, apart = PartsStep(parts)(own, apart, picture.numpy())
        assert torch.equal(torch.from_numpy(pending()), shown)
        if number >= steps - 1:
            assert torch.equal(shown, given[number - steps + 1])
    assert state.tensors.sources.shape == (steps, SIZE, SIZE, 3)


def test_noise_is_steadied_and_what_moves_is_not() -> None:
    random = torch.Generator().manual_seed(0)
    scene = torch.full((64, 64, 3), 90.0)
    steady, off = torch.zeros(64, 64, 3, dtype=torch.uint8), []
    for _ in range(12):
        noisy = (scene + 6 * torch.randn(64, 64, 3, generator=random)).round().clamp(0, 255).to(torch.uint8)
        steady = steadied(noisy, steady)
        off.append(((noisy.float() - 90).abs().mean(), (steady.float() - 90).abs().mean()))
    assert off[-1][1] < 0.5 * off[-1][0]
    moved = steady.clone()
    moved[:, 32:] = 200
    assert torch.equal(steadied(moved, steady)[:, 36:], moved[:, 36:])
    assert torch.equal(steadied(moved, steady)[:, :28], steady[:, :28])
