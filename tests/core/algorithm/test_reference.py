"""The reference itself, on cases that can be worked out by hand or compared with stock diffusers."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler

from tests.support import reference as ref
from tests.support import small_models
from tests.support.small_models import fixed_noise, moving_latents, random_text, scaled_linear_alphas

small_unet = functools.cache(small_models.small_unet)
ALPHAS = scaled_linear_alphas()
KINDS: tuple[dict[str, bool], ...] = ({}, {"last_up_attention": False}, {"like_embedded": True}, {"linear": True})


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def places() -> list[str]:
    """One place of each kind, at two resolutions."""
    return [
        "mid_block.attentions.0.transformer_blocks.0.attn1",
        "up_blocks.3.attentions.1.transformer_blocks.0",
        "up_blocks.3",
    ]


def reference(unet: object, steps: int = 2, **settings: object) -> ref.Reference:
    return ref.Reference(unet, ALPHAS, ref.lcm_timesteps(steps, 0.6), fixed_noise(7, steps), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [979, 259, 19])
def test_without_a_bank_it_is_stock_diffusers(kind: dict[str, bool], timestep: int) -> None:
    unet = small_unet(0, **kind)
    latent, text = moving_latents(1, 1)[0], random_text(2)
    stock = unet(latent[None], timestep, text[None]).sample[0]
    torch.testing.assert_close(ref.Call(unet, text).output(latent, timestep), stock, rtol=0, atol=1e-12)


def test_every_self_attention_layer_is_seen() -> None:
    unet = small_unet(0)
    call = ref.Call(unet, random_text(2), places=frozenset(places()))
    call.output(moving_latents(1, 1)[0], 500)
    assert set(call.seen.keys) == set(call.seen.values) == set(ref.self_attention_layers(unet))
    assert len(call.seen.keys) == 13
    assert {len(keys) for keys in call.seen.keys.values()} == {64, 16, 4, 1}
    assert {place: tuple(feature.shape) for place, feature in call.seen.features.items()} == {
        "mid_block.attentions.0.transformer_blocks.0.attn1": (1, 32),
        "up_blocks.3.attentions.1.transformer_blocks.0": (64, 16),
        "up_blocks.3": (64, 16),
    }


def test_attention_weighs_by_the_exponential_of_the_similarity() -> None:
    # one head of width 1: weights 1 : 3 : 6, and with a zero query equal ones
    keys, values = column(0, math.log(3), math.log(6)), column(10, 20, 30)
    attended = ref.attend(column(1, 0), keys, values, heads=1)
    torch.testing.assert_close(attended, column((10 + 3 * 20 + 6 * 30) / 10, 20))


def test_heads_attend_apart_and_are_scaled_by_their_width() -> None:
    queries = torch.tensor([[2.0, 0, 1, 0]], dtype=torch.float64)
    keys = torch.tensor([[math.log(3) / math.sqrt(2), 9, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    values = torch.tensor([[8.0, 4, 1, 0], [0, 0, 3, 2]], dtype=torch.float64)
    # head 0: logits 2 log 3 / sqrt 2 / sqrt 2 = log 3 and 0, weights 3/4 and 1/4; head 1: equal weights
    torch.testing.assert_close(
        ref.attend(queries, keys, values, heads=2), torch.tensor([[6.0, 3, 2, 1]], dtype=torch.float64)
    )


def test_copies_of_the_frame_itself_change_no_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 6, 8, generator=generator, dtype=torch.float64)
    plain = ref.attend(queries, keys, values, heads=2)
    for copies in (2, 3, 5):
        extended = ref.attend(queries, keys.repeat(copies, 1), values.repeat(copies, 1), heads=2)
        torch.testing.assert_close(extended, plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("slots", "interval", "expected"),
    [
        (1, 1, [[], [0], [1], [2], [3], [4]]),
        (2, 1, [[], [0, 0], [0, 1], [1, 2], [2, 3], [3, 4]]),
        (3, 1, [[], [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (1, 2, [[], [0], [0], [2], [2], [4], [4], [6]]),
        (2, 2, [[], [0, 0], [0, 0], [0, 2], [0, 2], [2, 4], [2, 4], [4, 6]]),
        (2, 4, [[], [0, 0], [0, 0], [0, 0], [0, 0], [0, 4], [0, 4], [0, 4], [0, 4], [4, 8]]),
    ],
)
def test_a_queue_holds_the_last_kept_frames(slots: int, interval: int, expected: list[list[int]]) -> None:
    assert [ref.slot_frames(frame, slots, interval) for frame in range(len(expected))] == expected


def test_each_source_goes_to_its_most_similar_destination() -> None:
    angles = torch.tensor([0, 90, 10, 80, 20, 60], dtype=torch.float64).deg2rad()
    lengths = torch.tensor([1, 5, 2, 7, 1, 3], dtype=torch.float64)[:, None]  # must not matter
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1) * lengths
    # sources 0 (0 deg), 3 (80 deg), 4 (20 deg); destinations 1 (90), 2 (10), 5 (60)
    groups = ref.assign(tokens, [0, 3, 4, 1, 2, 5])
    assert groups == [(1, [3]), (2, [0, 4]), (5, [])]
    merged = ref.merge_tokens(column(1, 2, 3, 4, 5, 6), groups)
    torch.testing.assert_close(merged, column((2 + 4) / 2, (3 + 1 + 5) / 3, 6))


def test_the_order_of_the_destinations_is_the_order_of_the_new_slot() -> None:
    tokens = torch.eye(4, dtype=torch.float64)
    tokens[0], tokens[1] = tokens[3], tokens[2]
    assert ref.assign(tokens, [1, 0, 3, 2]) == [(3, [0]), (2, [1])]
    with pytest.raises(ValueError, match="permutation"):
        ref.assign(tokens, [0, 0, 1, 2])


def test_keys_decide_how_values_and_features_are_merged() -> None:
    def seen(key: tuple[float, float], number: float, pixel: tuple[float, float]) -> ref.Features:
        one = torch.tensor([key], dtype=torch.float64)
        return ref.Features(
            {"a.attn1": one},
            {"a.attn1": column(number)},
            {
                "a.attn1": column(10 * number),
                "a": column(100 * number),
                "up": torch.tensor([pixel], dtype=torch.float64),
            },
        )

    asked = []

    def permutation(frame: int, tokens: int) -> list[int]:
        asked.append((frame, tokens))
        return [1, 0]  # the current token goes to the banked one

    merged = ref.merge(seen((1, 0), 1, (4, 0)), seen((0, 1), 2, (0, 2)), 5, permutation)
    torch.testing.assert_close(merged.keys["a.attn1"], torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(merged.values["a.attn1"], column(1.5))
    torch.testing.assert_close(merged.features["a.attn1"], column(15))
    torch.testing.assert_close(merged.features["a"], column(150))
    torch.testing.assert_close(merged.features["up"], torch.tensor([[2.0, 1.0]], dtype=torch.float64))
    assert set(asked) == {(5, 1)}


def test_a_place_without_keys_is_merged_by_its_own_features() -> None:
    # by keys token 0 would go to 2 and token 1 to 3; by features the other way round
    keys = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    bank = ref.Features({"l.attn1": keys}, {"l.attn1": keys}, {"up_blocks.1": keys.flip(0), "l.attn1": column(1, 2)})
    now = ref.Features({"l.attn1": keys}, {"l.attn1": keys}, {"up_blocks.1": keys, "l.attn1": column(3, 4)})
    merged = ref.merge(bank, now, 1, lambda frame, tokens: [0, 1, 2, 3])
    torch.testing.assert_close(merged.features["up_blocks.1"], keys)
    torch.testing.assert_close(merged.features["l.attn1"], column(2, 3))


def test_fusion_takes_the_most_similar_token_of_all_slots_over_the_threshold() -> None:
    own = torch.tensor([[1.0, 0], [0, 2], [3, 3]], dtype=torch.float64)
    slots = [
        torch.tensor([[-0.6, 0.8], [1, 0.1], [-1, -1]], dtype=torch.float64),
        torch.tensor([[10, 0.0], [1, 1.5], [-1, -1]], dtype=torch.float64),
    ]
    # token 0: (10, 0), cosine 1; token 1: (1, 1.5), cosine 0.83, too little; token 2: (1, 1.5), cosine 0.98
    fused = ref.fuse(own, slots, strength=0.75, threshold=0.9)
    expected = torch.tensor([[0.25 + 7.5, 0], [0, 2], [0.75 + 0.75, 0.75 + 1.125]], dtype=torch.float64)
    torch.testing.assert_close(fused, expected)
    assert ref.fuse(own, slots, strength=0.75, threshold=1.0).equal(own)
    assert ref.fuse(own, [], strength=0.75, threshold=-1).equal(own)


def test_timesteps_are_those_of_diffusers() -> None:
    scheduler = LCMScheduler()
    for steps in (1, 2, 3, 4, 6, 7, 8):
        for percent in range(2, 101):
            strength = percent / 100
            if int(50 * strength) < steps:
                with pytest.raises(ValueError, match="timesteps"):
                    ref.lcm_timesteps(steps, strength)
                continue
            scheduler.set_timesteps(steps, original_inference_steps=50, strength=strength)
            assert ref.lcm_timesteps(steps, strength) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_that_of_diffusers(prediction: str) -> None:
    scheduler = LCMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.alphas_cumprod = ALPHAS
    scheduler.set_timesteps(4, original_inference_steps=50, strength=0.6)
    clean, noise, output = fixed_noise(0, 3)
    for timestep in scheduler.timesteps.tolist():
        abar = ALPHAS[timestep]
        noisy = ref.add_noise(clean, noise, abar)
        torch.testing.assert_close(noisy, scheduler.add_noise(clean[None], noise[None], torch.tensor([timestep]))[0])
        predicted = ref.to_clean(output, noisy, abar, prediction)
        denoised = scheduler.step(output, timestep, noisy, generator=torch.Generator().manual_seed(0)).denoised
        torch.testing.assert_close(ref.boundary(predicted, noisy, timestep, "lcm"), denoised, rtol=1e-12, atol=1e-12)
        assert ref.boundary(predicted, noisy, timestep, "turbo") is predicted
        epsilon = ref.to_epsilon(output, noisy, abar, prediction)
        torch.testing.assert_close(ref.to_clean(epsilon, noisy, abar, "epsilon"), predicted)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_without_a_bank_a_frame_is_denoised_as_by_diffusers(steps: int) -> None:
    unet = small_unet(0)
    latent, text = moving_latents(1, 1)[0], random_text(2)
    stream = reference(unet, steps)
    scheduler = LCMScheduler(clip_sample=False)
    scheduler.alphas_cumprod = ALPHAS
    scheduler.set_timesteps(steps, original_inference_steps=50, strength=0.6)
    x = latent[None]
    for row, timestep in enumerate(scheduler.timesteps.tolist()):
        noisy = scheduler.add_noise(x, stream.noise[row][None], torch.tensor([timestep]))
        output = unet(noisy, timestep, text[None]).sample
        x = scheduler.step(output, timestep, noisy, generator=torch.Generator().manual_seed(0)).denoised
    torch.testing.assert_close(stream.frame(latent, text), x[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("policy", ["fifo", "merge"])
def test_the_first_frame_knows_no_bank_and_the_next_ones_do(policy: str) -> None:
    unet, text = small_unet(0), random_text(2)
    for fused, strength in ((), 0.0), (places(), 0.75):
        banked = reference(
            unet, policy=policy, places=fused, strength=strength, threshold=0.8, permutation=ref.seeded_permutation(0)
        )
        plain = banked.with_(policy="off")
        pairs = [(banked.frame(latent, text), plain.frame(latent, text)) for latent in moving_latents(1, 3)]
        assert pairs[0][0].equal(pairs[0][1])
        assert all((a - b).abs().max() > 0.01 for a, b in pairs[1:])


def test_a_still_picture_stays_still() -> None:
    # every slot holds the frame's own features: extended attention is plain attention, each token matches itself
    unet, text = small_unet(0), random_text(2)
    stream = reference(unet, policy="fifo", slots=2, places=places(), strength=0.75, threshold=0.8)
    first, *later = [stream.frame(moving_latents(1, 1)[0], text) for _ in range(4)]
    for frame in later:
        torch.testing.assert_close(frame, first, rtol=0, atol=1e-10)


def test_the_interval_decides_which_frames_are_looked_back_at() -> None:
    unet, text = small_unet(0), random_text(2)
    latents = moving_latents(1, 5)
    every, fourth = (reference(unet, policy="fifo", interval=interval) for interval in (1, 4))
    pairs = [(every.frame(latent, text), fourth.frame(latent, text)) for latent in latents]
    assert [a.equal(b) for a, b in pairs] == [True, True, False, False, False]


def test_forgetting_starts_anew() -> None:
    unet, text = small_unet(0), random_text(2)
    latents = moving_latents(1, 6)
    stream = reference(unet, policy="merge", permutation=ref.seeded_permutation(3))
    for latent in latents[:3]:
        stream.frame(latent, text)
    stream.forget()
    fresh = stream.with_()
    for latent in latents[3:]:
        assert stream.frame(latent, text).equal(fresh.frame(latent, text))


def test_each_row_has_its_own_bank() -> None:
    unet = small_unet(0)
    stream = reference(unet, steps=2, policy="fifo")
    stream.frame(moving_latents(1, 1)[0], random_text(2))
    first, second = (stream.past[row, "positive"][0].keys for row in (0, 1))
    assert all((first[layer] - second[layer]).abs().max() > 0.1 for layer in first)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_guidance_keeps_its_laws(prediction: str) -> None:
    unet = small_unet(0)
    latent, text, negative = moving_latents(1, 1)[0], random_text(2), random_text(3)

    def result(guidance: str, scale: float = 1.0, residual: float = 1.0, steps: int = 1) -> torch.Tensor:
        stream = reference(unet, steps, prediction=prediction, guidance=guidance, scale=scale, residual=residual)
        return stream.frame(latent, text, negative)

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return bool((a - b).abs().max() < 1e-9)

    plain = result("none", steps=2)
    assert same(result("full", steps=2), plain)  # a scale of 1 is no guidance
    assert same(result("self-negative", steps=2), plain)
    assert same(result("onetime-negative", steps=2), plain)
    assert not same(result("full", 1.5, steps=2), plain)
    # at the first step the one-time negative is the true one
    assert same(result("onetime-negative", 1.5), result("full", 1.5))
    assert not same(result("onetime-negative", 1.5, steps=2), result("full", 1.5, steps=2))
    # a scale of 0 without moderation leads back to the picture itself
    row = reference(unet, 1)
    noisy = ref.add_noise(latent, row.noise[0], ALPHAS[row.timesteps[0]])
    assert same(result("self-negative", 0.0), ref.boundary(latent, noisy, row.timesteps[0], "lcm"))
    # residual 0 leaves the positive noise, scaled
    timestep = row.timesteps[0]
    epsilon = ref.to_epsilon(ref.Call(unet, text).output(noisy, timestep), noisy, ALPHAS[timestep], prediction)
    clean = ref.to_clean(1.5 * epsilon, noisy, ALPHAS[timestep], "epsilon")
    assert same(result("self-negative", 1.5, 0.0), ref.boundary(clean, noisy, timestep, "lcm"))


def test_the_negative_pass_has_a_bank_of_its_own() -> None:
    unet = small_unet(0)
    stream = reference(unet, 2, policy="fifo", guidance="full", scale=1.5)
    onetime = stream.with_(guidance="onetime-negative")
    for each in (stream, onetime):
        each.frame(moving_latents(1, 1)[0], random_text(2), random_text(3))
    assert set(stream.past) == {(0, "positive"), (1, "positive"), (0, "negative"), (1, "negative")}
    assert set(onetime.past) == {(0, "positive"), (1, "positive"), (0, "negative")}
