"""The engine's mathematics against the literal reference, in float64, and the laws that it keeps."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import random_model
from core.algorithm import bank as banks
from core.algorithm import conditions, products, stream
from core.algorithm import schedule as schedules
from core.algorithm.attention import attend, extend, fuse
from core.algorithm.bank import Layout, Reading
from core.algorithm.schedule import Prediction, Schedule, ScheduleKind
from core.algorithm.unet import BankedUNet, PlainUNet, default_places, layout, self_attentions
from core.errors import PlaceError
from core.settings import (
    BANK_RULES,
    BankedFeature,
    BankPreset,
    BankRules,
    Filling,
    FusionPlace,
    Guidance,
    Policy,
    RowClock,
    Split,
)
from tests.support import reference as ref
from tests.support.sequential import sequential
from tests.support.small_models import (
    DEVICE,
    LATENT,
    LATENT_SIZE,
    POOLED,
    fixed_noise,
    moving_latents,
    random_text,
    scaled_linear_alphas,
    small_unet,
    updated,
)

FRAMES = 12
AT_ONCE = BankRules(split=Split.RANDOM, spread=False)
ALPHAS = scaled_linear_alphas()
TEXT, NEGATIVE = random_text(2), random_text(3)
SIZE = (512, 768)
PROMPT, UNLIKE = (
    ref.Prompt(words, random_text(4 + number).flatten()[:POOLED], (*SIZE, 0, 0, *SIZE))
    for number, words in enumerate((TEXT, NEGATIVE))
)

# one of each kind, at low and high resolution
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
BLOCK = "up_blocks.1.attentions.1.transformer_blocks.0"
UP_BLOCK = "up_blocks.3"
MIXED = (ATTENTION, "up_blocks.2.attentions.0.transformer_blocks.0.attn1", BLOCK, "up_blocks.0", UP_BLOCK)


@functools.cache
def stock_unet(**kind: bool) -> Any:
    return small_unet(0, **kind)


@functools.cache
def banked_unet(places: tuple[str, ...], keeps: BankedFeature = BankedFeature.FUSED, **kind: bool) -> BankedUNet:
    return BankedUNet(copy.deepcopy(stock_unet(**kind)), places, keeps=keeps)


@functools.cache
def small_layout(places: tuple[str, ...], **kind: bool) -> Layout:
    return layout(stock_unet(**kind).config, places, LATENT_SIZE, LATENT_SIZE)


def packed(prompt: Tensor | ref.Prompt) -> Tensor:
    """A text as the engine takes it, [1, words, width]."""
    if isinstance(prompt, Tensor):
        return prompt[None]
    return conditions.joined(prompt.words[None], prompt.pooled[None], *SIZE)


def order_of(rules: BankRules, seed: int, frame: int, tokens: int) -> list[int]:
    """The order of a merge as the rules' words say; by chance as the engine draws it."""
    drawn = banks.permutation(seed, frame, tokens).tolist()
    if rules.split is Split.NOW:
        return list(range(2 * tokens))
    if rules.split is Split.GRID:
        return [*range(0, 2 * tokens, 2), *range(1, 2 * tokens, 2)]
    if rules.split is Split.PLACE:
        banked = [one < tokens for one in drawn[:tokens]]
        sources = [place + (0 if first else tokens) for place, first in enumerate(banked)]
        return sources + [place + (tokens if first else 0) for place, first in enumerate(banked)]
    return drawn[tokens:] + drawn[:tokens] if rules.destinations_first else drawn


class Case:
    """The same settings for the engine and for the reference."""

    def __init__(
        self,
        policy: Policy = Policy.FIFO,
        slots: int = 1,
        steps: int = 2,
        interval: int = 1,
        places: tuple[str, ...] = MIXED,
        kind: ScheduleKind = ScheduleKind.LCM,
        prediction: Prediction = Prediction.EPSILON,
        guidance: Guidance = Guidance.NONE,
        scale: float = 1.0,
        residual: float = 1.0,
        fusion_strength: float = 0.75,
        threshold: float = 0.9,
        seed: int = 5,
        unet: dict[str, bool] | None = None,
        rules: BankRules = AT_ONCE,
    ) -> None:
        unet = unet or {}
        self.prompts = (PROMPT, UNLIKE) if unet.get("sdxl") else (TEXT, NEGATIVE)
        text, negative = (packed(one) for one in self.prompts)
        chosen = ref.lcm_timesteps(steps, 0.6)
        off = policy is Policy.OFF
        self.net: Any = PlainUNet(stock_unet(**unet)) if off else banked_unet(places, rules.keeps, **unet)
        self.layout = {} if off else small_layout(places, **unet)
        self.steps, self.slots, self.guidance = steps, slots, guidance
        self.sampling = stream.SamplingParameters(
            rows=schedules.row_coefficients(Schedule(ALPHAS, kind, prediction), chosen, torch.float64, DEVICE),
            noise=fixed_noise(7, steps),
            prediction=prediction,
            text=text,
            negative_text=negative,
            guidance=guidance,
            scale=scale,
            residual=residual,
            policy=policy,
            interval=interval,
            fusion_strength=fusion_strength,
            threshold=threshold,
            seed=seed,
            rules=rules,
        )
        groups = banks.merge_groups(self.layout)
        number = {name.rpartition(".")[0]: group for group, names in enumerate(groups) for name in names}

        def due(name: str, frame: int) -> bool:
            return frame % interval == number[name] * interval // len(groups)

        self.reference = ref.Reference(
            stock_unet(**unet),
            ALPHAS,
            chosen,
            fixed_noise(7, steps),
            prediction=prediction.value,
            schedule=kind.value,
            policy=policy.value,
            slots=slots,
            interval=interval,
            places=places,
            strength=fusion_strength,
            threshold=threshold,
            permutation=lambda frame, tokens: order_of(rules, seed, frame, tokens),
            keeps=rules.keeps.value,
            filling=rules.filling.value,
            attends=rules.attends,
            due=due if rules.spread else None,
            guidance=guidance.value,
            scale=scale,
            residual=residual,
        )

    def start(self, rows: int | None = None, guidance: Guidance | None = None) -> stream.StreamState:
        rows, guidance = self.steps if rows is None else rows, self.guidance if guidance is None else guidance
        return stream.initial_state(self.layout, rows, self.slots, guidance, LATENT, torch.float64, DEVICE)

    @torch.inference_mode()
    def batch(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Every frame by the stream batch; the last frame is repeated to drain it."""
        state, outputs = self.start(), []
        for latent in [*latents, *[latents[-1]] * (self.steps - 1)]:
            clean, state = stream.step(self.net, self.sampling, state, latent[None])
            outputs.append(clean[0])
        return outputs[self.steps - 1 :]

    @torch.inference_mode()
    def one_by_one(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Every frame by the sequential loop."""
        later = Guidance.SELF_NEGATIVE if self.guidance is Guidance.ONETIME_NEGATIVE else self.guidance
        states = tuple(self.start(1, self.guidance if row == 0 else later) for row in range(self.steps))
        outputs = []
        for latent in latents:
            clean, states = sequential(self.net, self.sampling, states, latent[None])
            outputs.append(clean[0])
        return outputs

    def prove(self, frames: int = FRAMES) -> list[Tensor]:
        """The stream batch equals the reference, frame by frame; its outputs."""
        latents = moving_latents(1, frames)
        outputs = self.batch(latents)
        assert_equal(outputs, [self.reference.frame(latent, *self.prompts) for latent in latents])
        return outputs

    def prove_both(self, frames: int = FRAMES) -> None:
        """The stream batch and the sequential loop equal the reference, frame by frame."""
        assert_equal(self.one_by_one(moving_latents(1, frames)), self.prove(frames))


def assert_equal(outputs: list[Tensor], expected: list[Tensor]) -> None:
    differences = [float((a - b).abs().max()) for a, b in zip(outputs, expected, strict=True)]
    assert max(differences) < 1e-9, differences


# ---------------------------------------------------------------------------------------------------------------------
# The engine equals the reference


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_without_a_bank_it_equals_the_reference(steps: int) -> None:
    Case(Policy.OFF, steps=steps).prove_both(3)


@pytest.mark.parametrize(
    ("slots", "steps", "interval"),
    [(1, 1, 1), (1, 2, 4), (1, 4, 2), (2, 1, 2), (2, 2, 1), (2, 4, 4), (3, 1, 4), (3, 2, 2), (3, 4, 1)],
)
def test_a_queue_equals_the_reference(slots: int, steps: int, interval: int) -> None:
    case = Case(Policy.FIFO, slots, steps, interval)
    case.prove_both() if slots == 2 else case.prove()


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (1, 4), (2, 2), (4, 1), (4, 4)])
def test_merging_equals_the_reference(steps: int, interval: int) -> None:
    case = Case(Policy.MERGE, 1, steps, interval)
    case.prove_both() if interval == 2 else case.prove()


@pytest.mark.parametrize(
    "rules",
    [
        BankRules(),  # by place, spread over the interval
        BankRules(split=Split.NOW, spread=False),
        BankRules(split=Split.GRID, spread=False),
        BankRules(split=Split.PLACE, spread=False),
        BankRules(split=Split.RANDOM, destinations_first=True, spread=False),
        BankRules(keeps=BankedFeature.PLAIN),
        BankRules(attends=False),
    ],
    ids=repr,
)
def test_merging_by_other_rules_equals_the_reference(rules: BankRules) -> None:
    outputs = Case(Policy.MERGE, 1, 2, 2, rules=rules).prove(4)
    others = Case(Policy.MERGE, 1, 2, 2).batch(moving_latents(1, 4))
    assert max(float((a - b).abs().max()) for a, b in zip(outputs, others, strict=True)) > 1e-4  # no empty proof


@pytest.mark.parametrize(("interval", "frames"), [(1, 3), (3, 7), (4, 6)])
def test_a_spread_merge_equals_the_reference_at_every_interval(interval: int, frames: int) -> None:
    Case(Policy.MERGE, 1, 1, interval, (), rules=BankRules()).prove(frames)


@pytest.mark.parametrize(("slots", "steps", "interval"), [(2, 1, 1), (3, 2, 2)])
def test_a_growing_queue_equals_the_reference(slots: int, steps: int, interval: int) -> None:
    rules = BankRules(filling=Filling.GROWING, keeps=BankedFeature.PLAIN)
    outputs = Case(Policy.FIFO, slots, steps, interval, (ATTENTION, BLOCK), rules=rules).prove(6)
    full = BankRules(keeps=BankedFeature.PLAIN)
    others = Case(Policy.FIFO, slots, steps, interval, (ATTENTION, BLOCK), rules=full).batch(moving_latents(1, 6))
    assert max(float((a - b).abs().max()) for a, b in zip(outputs, others, strict=True)) > 1e-4  # no empty proof


@pytest.mark.parametrize("preset", [BankPreset.PAPER, BankPreset.AUTHORS])
@pytest.mark.parametrize("steps", [1, 3])
@torch.inference_mode()
def test_the_presets_equal_the_reference(preset: BankPreset, steps: int) -> None:
    rules = BANK_RULES[preset]
    assert rules.clock is RowClock.SHARED
    assert rules.interval == 4
    assert rules.fusion_strength is not None
    assert rules.similarity_threshold is not None
    low = default_places(stock_unet())
    places = tuple(name.removesuffix(".attn1") for name in low) if rules.place is FusionPlace.BLOCKS else low
    numbers = {"fusion_strength": rules.fusion_strength, "threshold": rules.similarity_threshold}
    case = Case(Policy.MERGE, 1, steps, rules.interval, places, rules=rules, **numbers)  # type: ignore[arg-type]
    case.net = BankedUNet(copy.deepcopy(stock_unet()), rules.place, keeps=rules.keeps)
    latents, state = moving_latents(1, 6), case.start()
    in_flight = [torch.zeros_like(latents[0]) for _ in range(steps - 1)]
    for latent in latents:
        clean, state = stream.step(case.net, case.sampling, state, latent[None])
        assert_equal([clean[0]], [case.reference.call(in_flight, latent, TEXT)])


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
@pytest.mark.parametrize("places", [(), (ATTENTION,), (BLOCK,), (UP_BLOCK,), (BLOCK + ".attn1", BLOCK)])
def test_each_place_of_fusion_equals_the_reference(policy: Policy, places: tuple[str, ...]) -> None:
    outputs = Case(policy, 1, 2, 1, places).prove(4)
    if places:  # and it is no empty proof
        without = Case(policy, 1, 2, 1, ()).batch(moving_latents(1, 2))
        assert (outputs[1] - without[1]).abs().max() > 1e-3


@pytest.mark.parametrize("unet", [{"last_up_attention": False}, {"like_embedded": True}, {"linear": True}])
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_other_unets_equal_the_reference(policy: Policy, unet: dict[str, bool]) -> None:
    Case(policy, 1, 2, 1, (ATTENTION, BLOCK, UP_BLOCK), unet=unet).prove(3)


@pytest.mark.parametrize(
    ("policy", "guidance"), [(Policy.OFF, Guidance.NONE), (Policy.FIFO, Guidance.FULL), (Policy.MERGE, Guidance.NONE)]
)
def test_an_sdxl_shaped_unet_equals_the_reference(policy: Policy, guidance: Guidance) -> None:
    places = (*default_places(stock_unet(sdxl=True)), "up_blocks.1", "up_blocks.1.attentions.1.transformer_blocks.0")
    Case(policy, 1, 2, 1, places, ScheduleKind.TURBO, guidance=guidance, scale=1.3, unet={"sdxl": True}).prove(4)


@pytest.mark.slow
def test_a_unet_of_sdxls_very_shape_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes, and 7 GB of RAM: the 2,567 million weights lie in half precision, and become float64 layer by layer."""
    config = random_model.SDXL_TURBO.unet
    words, width, pooled = TEXT.shape[0], config["cross_attention_dim"], conditions.pooled_width(config)
    own = globals()  # what the small cases are made of
    for name, seed in (("PROMPT", 4), ("UNLIKE", 5)):
        numbers = torch.randn(words * width + pooled, generator=torch.Generator().manual_seed(seed)).double()
        text = numbers[pooled:].reshape(words, width)
        monkeypatch.setitem(own, name, ref.Prompt(text, numbers[:pooled], (*SIZE, 0, 0, *SIZE)))
    stock = sharing_weights(config)
    assert round(sum(weight.numel() for weight in stock.parameters()) / 1e6) == 2567

    def banked(places: tuple[str, ...], keeps: BankedFeature, **kind: bool) -> BankedUNet:
        return BankedUNet(sharing_weights(config, stock), places, keeps=keeps)

    monkeypatch.setitem(own, "stock_unet", lambda **kind: stock)
    monkeypatch.setitem(own, "banked_unet", banked)
    monkeypatch.setitem(own, "small_layout", lambda places, **kind: layout(config, places, LATENT_SIZE, LATENT_SIZE))
    places = default_places(stock)
    assert len(places) == 40
    for policy in (Policy.FIFO, Policy.MERGE):
        outputs = Case(policy, 1, 1, 1, places, ScheduleKind.TURBO, unet={"sdxl": True}).prove(2)
        assert (outputs[1] - outputs[0]).abs().max() > 1e-4
    alone = Case(Policy.OFF, 1, 1, 1, places, ScheduleKind.TURBO, unet={"sdxl": True}).batch(moving_latents(1, 2)[1:])
    assert (outputs[1] - alone[0]).abs().max() > 1e-4, "the bank changes nothing: an empty proof"


def sharing_weights(config: dict[str, Any], other: Any = None) -> Any:
    """A UNet whose weights lie in half precision, another's or random, and whose layers compute in float64."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval().requires_grad_(False)
    if other is None:
        generator = torch.Generator().manual_seed(0)
        weights = {name: random_weight(name, one.shape, generator) for name, one in unet.state_dict().items()}
    else:
        weights = other.state_dict()
    unet.load_state_dict(weights, assign=True)

    def begin(layer: Any, given: object) -> None:
        for weight in layer.parameters():
            weight.half_precision, weight.data = weight.data, weight.data.double()

    def end(layer: Any, given: object, result: object) -> None:
        for weight in layer.parameters():
            weight.data = weight.half_precision
            del weight.half_precision

    for layer in unet.modules():
        if next(layer.parameters(recurse=False), None) is not None:
            assert next(layer.children(), None) is None, "a layer's own weights, and others below it"
            layer.register_forward_pre_hook(begin)
            layer.register_forward_hook(end)
    return unet


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """As PyTorch's layers are born, but for sharper attention and norms that are not all alike."""
    numbers = torch.empty(shape).uniform_(-1, 1, generator=generator)
    if len(shape) == 1:
        numbers = 0.1 * numbers + ("norm" in name and name.endswith("weight"))
    else:
        numbers *= (3 if name.endswith(("to_q.weight", "to_k.weight")) else 1) / shape[1:].numel() ** 0.5
    return numbers.half()


def test_without_a_bank_an_sdxl_shaped_unet_is_stock_diffusers() -> None:
    stock, latents, times = stock_unet(sdxl=True), torch.stack(moving_latents(1, 2)), torch.tensor([999, 499])
    told = [PROMPT, UNLIKE]
    added = {
        "text_embeds": torch.stack([one.pooled for one in told]),
        "time_ids": torch.tensor([one.sizes for one in told], dtype=torch.float64),
    }
    words, text = torch.stack([one.words for one in told]), torch.cat([packed(one) for one in told])
    expected = stock(latents, times, words, added_cond_kwargs=added).sample
    nothing = Reading(torch.zeros(2, dtype=torch.bool), torch.ones(2), torch.zeros(2))
    banked = banked_unet(default_places(stock), sdxl=True)
    for net in (PlainUNet(stock), banked, partial(banked, cross=banked.cross_attention(text))):
        predicted, _ = net(latents, times, text, {}, nothing)
        torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-12)
    changed = text.clone()
    changed[:, -1, 0] += 1
    assert not torch.allclose(banked(latents, times, changed, {}, nothing)[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", list(ScheduleKind))
@pytest.mark.parametrize("prediction", list(Prediction))
def test_each_schedule_equals_the_reference(kind: ScheduleKind, prediction: Prediction) -> None:
    Case(places=(), kind=kind, prediction=prediction).prove(3)


@pytest.mark.parametrize("guidance", [Guidance.FULL, Guidance.SELF_NEGATIVE, Guidance.ONETIME_NEGATIVE])
@pytest.mark.parametrize(
    ("policy", "steps", "prediction"),
    [
        (Policy.OFF, 2, Prediction.SAMPLE),
        (Policy.FIFO, 1, Prediction.V),
        (Policy.FIFO, 3, Prediction.EPSILON),
        (Policy.MERGE, 2, Prediction.V),
    ],
)
def test_guidance_equals_the_reference(guidance: Guidance, policy: Policy, steps: int, prediction: Prediction) -> None:
    places = () if policy is Policy.OFF else (ATTENTION,)
    case = Case(policy, 1, steps, 1, places, prediction=prediction, guidance=guidance, scale=1.4, residual=0.8)
    case.prove_both(4)


def test_fusion_of_everything_and_of_nothing_equals_the_reference() -> None:
    Case(threshold=-1.0, fusion_strength=0.3).prove(3)
    Case(threshold=-1.0, fusion_strength=1.0).prove(3)
    Case(threshold=1.0).prove(3)


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_forgetting_starts_anew_as_in_the_reference(policy: Policy) -> None:
    case = Case(policy, 2 if policy is Policy.FIFO else 1, steps=3)
    latents = moving_latents(1, 7)
    state = case.start()
    for latent in latents[:4]:
        _, state = stream.step(case.net, case.sampling, state, latent[None])
    state = stream.with_empty_bank(state)
    outputs = []
    for latent in [*latents[4:], latents[-1], latents[-1]]:
        clean, state = stream.step(case.net, case.sampling, state, latent[None])
        outputs.append(clean[0])
    expected = [case.reference.frame(latent, TEXT) for latent in latents[4:]]  # it has seen nothing before
    for output, other in zip(outputs[2:], expected, strict=True):
        torch.testing.assert_close(output, other, rtol=0, atol=1e-9)


def test_forgetting_leaves_nothing_of_the_past() -> None:
    case = Case(steps=2, slots=2)
    state = case.start()
    for latent in moving_latents(1, 4):
        _, state = stream.step(case.net, case.sampling, state, latent[None])
    poisoned = stream.with_empty_bank(state)
    bank = {name: torch.full_like(ring, 1e6) for name, ring in poisoned.tensors.bank.items()}
    poisoned = poisoned._replace(tensors=poisoned.tensors._replace(bank=bank))
    emptied = stream.with_empty_bank(state)
    for latent in moving_latents(2, 4):
        a, poisoned = stream.step(case.net, case.sampling, poisoned, latent[None])
        b, emptied = stream.step(case.net, case.sampling, emptied, latent[None])
        assert a.equal(b)


# ---------------------------------------------------------------------------------------------------------------------
# Laws of the one call


@pytest.mark.parametrize("unet", [{}, {"last_up_attention": False}, {"like_embedded": True}, {"linear": True}])
def test_without_a_bank_it_is_stock_diffusers(unet: dict[str, bool]) -> None:
    stock = stock_unet(**unet)
    latents, text = torch.stack(moving_latents(1, 3)), torch.stack([TEXT, NEGATIVE, TEXT])
    times = torch.tensor([979, 499, 19])
    expected = stock(latents, times, text).sample
    nothing = Reading(torch.zeros(3, dtype=torch.bool), torch.ones(3), torch.zeros(3))
    for net in (PlainUNet(stock), banked_unet((ATTENTION, BLOCK, UP_BLOCK), **unet)):
        predicted, _ = net(latents, times, text, {}, nothing)
        torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-12)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31), slots=st.integers(1, 4), strength=st.floats(0, 1), threshold=st.floats(-1, 1))
def test_a_bank_of_the_frames_own_features_changes_nothing(
    seed: int, slots: int, strength: float, threshold: float
) -> None:
    net = banked_unet((ATTENTION, BLOCK, UP_BLOCK))
    latents, text = fixed_noise(seed, 2), torch.stack([random_text(seed), random_text(seed + 1)])
    times = torch.tensor([700, 100])
    reading = Reading(
        torch.tensor([False, False]),
        torch.full((2,), strength, dtype=torch.float64),
        torch.full((2,), threshold, dtype=torch.float64),
    )
    plain, seen = net(latents, times, text, {}, reading)
    own = {name: features[:, None].repeat(1, slots, 1, 1) for name, features in seen.items()}
    predicted, seen_again = net(latents, times, text, own, reading)
    torch.testing.assert_close(predicted, plain, rtol=0, atol=1e-9)
    for name, features in seen.items():
        torch.testing.assert_close(seen_again[name], features, rtol=0, atol=1e-9)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31), slots=st.integers(1, 3))
def test_a_fresh_row_reads_nothing_of_its_ring_and_the_others_do(seed: int, slots: int) -> None:
    net = banked_unet((ATTENTION, BLOCK, UP_BLOCK))
    latents, text = fixed_noise(seed, 2), torch.stack([TEXT, TEXT])
    times = torch.tensor([700, 100])
    shapes = small_layout((ATTENTION, BLOCK, UP_BLOCK))
    generator = torch.Generator().manual_seed(seed)
    ring = {
        name: torch.randn(2, slots, *shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }
    strength, threshold = torch.ones(2, dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64)
    plain, _ = net(latents, times, text, {}, Reading(torch.tensor([True, True]), strength, threshold))
    mixed, _ = net(latents, times, text, ring, Reading(torch.tensor([True, False]), strength, threshold))
    torch.testing.assert_close(mixed[0], plain[0], rtol=0, atol=1e-9)
    assert (mixed[1] - plain[1]).abs().max() > 1e-2


def test_rows_do_not_look_at_each_other() -> None:
    net = banked_unet(MIXED)
    shapes = small_layout(MIXED)
    generator = torch.Generator().manual_seed(0)
    ring = {n: torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
    latents, text = fixed_noise(1, 3), torch.stack([TEXT, NEGATIVE, TEXT])
    times = torch.tensor([700, 400, 100])
    fresh = torch.zeros(3, dtype=torch.bool)
    strength, threshold = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.2, 0.0]], dtype=torch.float64)
    together, seen = net(latents, times, text, ring, Reading(fresh, strength, threshold))
    for row in range(3):
        one = slice(row, row + 1)
        alone, seen_alone = net(
            latents[one],
            times[one],
            text[one],
            {name: slots[one] for name, slots in ring.items()},
            Reading(fresh[one], strength[one], threshold[one]),
        )
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-11)
        for name, features in seen.items():
            torch.testing.assert_close(features[one], seen_alone[name], rtol=0, atol=1e-11)


def test_the_layout_is_what_a_call_sees() -> None:
    for kind in ({}, {"last_up_attention": False}, {"like_embedded": True}):
        net = banked_unet((ATTENTION, BLOCK, UP_BLOCK), **kind)
        nothing = Reading(torch.tensor([True]), torch.ones(1), torch.ones(1))
        _, seen = net(moving_latents(1, 1)[0][None], torch.tensor([5]), TEXT[None], {}, nothing)
        shapes = small_layout((ATTENTION, BLOCK, UP_BLOCK), **kind)
        assert shapes == {name: tuple(features.shape[1:]) for name, features in seen.items()}
        layers = ref.self_attention_layers(stock_unet(**kind))
        assert set(shapes) == {f"{layer}.{what}" for layer in layers for what in ("key", "value")} | {
            f"{place}.feature" for place in (ATTENTION, BLOCK, UP_BLOCK)
        }
        rings = banks.empty(shapes, 4, 3, torch.float16, DEVICE)
        assert banks.bank_bytes(shapes, 4, 3, torch.float16) == sum(ring.nbytes for ring in rings.values())


def test_layers_are_listed_in_the_order_in_which_they_run() -> None:
    nothing = Reading(torch.tensor([True]), torch.ones(1), torch.ones(1))
    _, seen = banked_unet(())(moving_latents(1, 1)[0][None], torch.tensor([5]), TEXT[None], {}, nothing)
    ran = [name.removesuffix(".key") for name in seen if name.endswith(".key")]
    assert self_attentions(stock_unet()) == ran
    assert default_places(stock_unet()) == tuple(
        name for name in ran if name.startswith(("mid_block.", "up_blocks.0.", "up_blocks.1."))
    )


@pytest.mark.parametrize("place", ["up_blocks.9", "mid_block", "conv_in", ATTENTION.replace("attn1", "attn2"), "x", ""])
def test_a_place_that_cannot_fuse_is_refused_by_name(place: str) -> None:
    with pytest.raises(PlaceError, match=repr(place)):
        BankedUNet(small_unet(0), [place])


# ---------------------------------------------------------------------------------------------------------------------
# Laws of the bank


tensors = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(tensors, st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_attention_over_the_bag_equals_the_reference(
    generator: torch.Generator, rows: int, slots: int, tokens: int, heads: int, width: int
) -> None:
    query, key, value = normal(generator, 3, rows, tokens, heads * width) * 2
    ring_k, ring_v = normal(generator, 2, rows, slots, tokens, heads * width)
    fresh = torch.zeros(rows, dtype=torch.bool)
    fresh[0] = True
    out = attend(query, extend(key, ring_k, fresh), extend(value, ring_v, fresh), heads)
    for row in range(rows):
        bags = [] if row == 0 else range(slots)
        keys, values = torch.cat([key[row], *ring_k[row, bags]]), torch.cat([value[row], *ring_v[row, bags]])
        torch.testing.assert_close(out[row], ref.attend(query[row], keys, values, heads), rtol=0, atol=1e-12)


@given(
    tensors,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 4),
    st.floats(0, 1),
    st.floats(-1, 1),
)
def test_fusion_equals_the_reference(
    generator: torch.Generator, rows: int, slots: int, tokens: int, width: int, strength: float, threshold: float
) -> None:
    own, ring = normal(generator, rows, tokens, width), normal(generator, rows, slots, tokens, width)
    strengths, thresholds = torch.full((2, rows), strength, dtype=torch.float64)
    thresholds = torch.full((rows,), threshold, dtype=torch.float64)
    fused = fuse(own, ring, strengths, thresholds)
    for row in range(rows):
        expected = ref.fuse(own[row], list(ring[row]), strength, threshold)
        torch.testing.assert_close(fused[row], expected, rtol=0, atol=1e-12)


def test_a_cosine_at_the_threshold_is_not_over_it() -> None:
    own, ring = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[[4.0, 0.0]]]])
    assert fuse(own, ring, torch.tensor([1.0]), torch.tensor([1.0])).equal(own)
    assert fuse(own, ring, torch.tensor([1.0]), torch.tensor([0.9999])).equal(ring[:, 0])


@given(tensors, st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(1, 30))
def test_merging_equals_the_reference_for_any_permutation(
    generator: torch.Generator, rows: int, tokens: int, width: int, graph: bool, scores: int
) -> None:
    """graph: by the operators that graphs have; otherwise as at each frame, in blocks of so many scores."""
    layer, wide, plain = "up_blocks.1.attentions.0.transformer_blocks.0.attn1", 3 * width, "up_blocks.1"
    block = layer.removesuffix(".attn1")
    names = {f"{layer}.key": width, f"{layer}.value": width, f"{layer}.feature": wide, f"{block}.feature": wide}
    names[f"{plain}.feature"] = wide
    bank = {name: normal(generator, rows, 1, tokens, size) for name, size in names.items()}
    seen = {name: normal(generator, rows, tokens, size) for name, size in names.items()}
    orders = [torch.randperm(2 * tokens, generator=generator) for _ in range(rows)]
    with pytest.MonkeyPatch.context() as changed, torch.set_grad_enabled(graph):
        changed.setattr(products, "_SCORES", scores)
        merged = banks.merge(bank, seen, {tokens: torch.stack(orders)})

    def of_row(entries: dict[str, Tensor], row: int) -> ref.Features:
        return ref.Features(
            {layer: entries[f"{layer}.key"][row]},
            {layer: entries[f"{layer}.value"][row]},
            {place: entries[f"{place}.feature"][row] for place in (layer, block, plain)},
        )

    for row, order in enumerate(orders):
        compact = of_row({name: ring[:, 0] for name, ring in bank.items()}, row)
        drawn: list[int] = order.tolist()

        def the_order(frame: int, tokens: int, drawn: list[int] = drawn) -> list[int]:
            return drawn

        expected = ref.merge(compact, of_row(seen, row), 1, the_order)
        actual = of_row({name: ring[:, 0] for name, ring in merged.items()}, row)
        torch.testing.assert_close(actual.keys, expected.keys, rtol=0, atol=1e-12)
        torch.testing.assert_close(actual.values, expected.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(actual.features, expected.features, rtol=0, atol=1e-12)


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(1, 300))
def test_a_permutation_is_one_and_always_the_same(seed: int, frame: int, tokens: int) -> None:
    order = banks.permutation(seed, frame, tokens)
    assert sorted(order.tolist()) == list(range(2 * tokens))
    assert order.equal(banks.permutation(seed, frame, tokens))


def test_permutations_differ_from_frame_to_frame_and_from_seed_to_seed() -> None:
    orders = {tuple(banks.permutation(seed, frame, 64).tolist()) for seed in range(4) for frame in range(1, 5)}
    assert len(orders) == 16


def run_ring(slots: int, rows: int, interval: int, frames: int) -> list[list[list[int]]]:
    """What each row's ring holds before each call, where frame j's only feature is the number j; oldest not first."""
    bank = {"l.key": torch.full((rows, slots, 1, 1), -7.0, dtype=torch.float64)}  # what no frame has left there
    positions: tuple[int, ...] = (0,) * rows
    history = []
    for call in range(frames):
        history.append([sorted(int(x) for x in ring.flatten()) for ring in bank["l.key"]])
        ages = [call - row for row in range(rows)]
        seen = {"l.key": torch.tensor(ages, dtype=torch.float64)[:, None, None]}
        bank, positions = updated(bank, seen, positions, ages, policy=Policy.FIFO, interval=interval, seed=0)
    return history


@given(slots=st.integers(1, 5), rows=st.integers(1, 4), interval=st.integers(1, 6))
def test_the_ring_wraps_and_holds_what_the_queue_holds(slots: int, rows: int, interval: int) -> None:
    frames = 2 * slots * interval + rows + 2  # round at least twice
    for call, rings in enumerate(run_ring(slots, rows, interval, frames)):
        for row, held in enumerate(rings):
            if call - row > 0:
                assert held == sorted(ref.slot_frames(call - row, slots, interval))


@given(tensors, st.integers(1, 3), st.integers(1, 3), st.sampled_from([Policy.FIFO, Policy.MERGE]))
def test_an_update_leaves_what_it_was_given_as_it_was(
    generator: torch.Generator, rows: int, age: int, policy: Policy
) -> None:
    bank, seen = {"l.key": normal(generator, rows, 1, 4, 3)}, {"l.key": normal(generator, rows, 4, 3)}
    before = copy.deepcopy((bank, seen))
    for ages in ([age] * rows, [0] * rows, [-1] * rows):
        after, _ = updated(bank, seen, (0,) * rows, ages, policy=policy, interval=1, seed=0)
        assert bank["l.key"].equal(before[0]["l.key"])
        assert seen["l.key"].equal(before[1]["l.key"])
        assert after["l.key"].equal(bank["l.key"]) == (ages[0] < 0)


# ---------------------------------------------------------------------------------------------------------------------
# Laws of the schedule


@given(st.integers(1, 12), st.floats(0.02, 1))
def test_timesteps_are_those_of_the_reference(steps: int, strength: float) -> None:
    chosen = schedules.timesteps(ScheduleKind.LCM, steps, strength)
    if int(50 * strength) >= steps:
        assert chosen == ref.lcm_timesteps(steps, strength)
    else:  # fewer than the model was distilled on are left: the same share of all, evenly
        assert chosen == [round(1000 * strength * (1 - step / steps)) - 1 for step in range(steps)]
        assert sorted(set(chosen), reverse=True) == chosen
        assert chosen[-1] >= 0


def test_turbo_timesteps_are_spaced_trailing() -> None:
    assert schedules.timesteps(ScheduleKind.TURBO, 1, 1.0) == [999]
    assert schedules.timesteps(ScheduleKind.TURBO, 4, 1.0) == [999, 749, 499, 249]
    assert schedules.timesteps(ScheduleKind.TURBO, 2, 0.5) == [499, 249]


@given(tensors, st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(list(Prediction)))
def test_the_arithmetic_of_a_step_equals_the_reference(
    generator: torch.Generator, chosen: list[int], prediction: Prediction
) -> None:
    clean, noise, predicted = normal(generator, 3, len(chosen), 4, 2, 2)
    for kind in ScheduleKind:
        rows = schedules.row_coefficients(Schedule(ALPHAS, kind, prediction), chosen, torch.float64, DEVICE)
        noisy = schedules.add_noise(rows, clean, noise)
        epsilon = schedules.epsilon(prediction, rows, noisy, predicted)
        estimate = schedules.x0(prediction, rows, noisy, predicted)
        result = schedules.boundary(rows, noisy, estimate)
        for row, timestep in enumerate(chosen):
            abar = ALPHAS[timestep]
            expected = ref.add_noise(clean[row], noise[row], abar)
            torch.testing.assert_close(noisy[row], expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(epsilon[row], ref.to_epsilon(predicted[row], expected, abar, prediction.value))
            x0 = ref.to_clean(predicted[row], expected, abar, prediction.value)
            torch.testing.assert_close(estimate[row], x0)
            torch.testing.assert_close(result[row], ref.boundary(x0, expected, timestep, kind.value))


# ---------------------------------------------------------------------------------------------------------------------
# Laws of the stream


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_two_streams_on_one_net_do_not_disturb_each_other(policy: Policy) -> None:
    case = Case(policy, steps=2)
    films = [moving_latents(1, 6), moving_latents(2, 6)]
    alone = [case.batch(film) for film in films]
    states, outputs = [case.start(), case.start()], [[], []]  # type: ignore[var-annotated]
    for pair in zip(*films, strict=True):
        for which, latent in enumerate(pair):
            clean, states[which] = stream.step(case.net, case.sampling, states[which], latent[None])
            outputs[which].append(clean[0])
    for which in (0, 1):
        assert all(a.equal(b) for a, b in zip(outputs[which][1:], alone[which], strict=False))


@pytest.mark.parametrize("policy", [Policy.OFF, Policy.FIFO, Policy.MERGE])
def test_the_same_seed_and_frames_give_the_same_bytes(policy: Policy) -> None:
    first, second = (
        Case(policy, guidance=Guidance.ONETIME_NEGATIVE, scale=1.3).batch(moving_latents(1, 5)) for _ in "ab"
    )
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(first, second, strict=True))
    if policy is Policy.MERGE:
        other = Case(policy, guidance=Guidance.ONETIME_NEGATIVE, scale=1.3, seed=6).batch(moving_latents(1, 5))
        assert not other[-1].equal(first[-1])


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_a_step_changes_nothing_that_it_was_given(policy: Policy) -> None:
    case = Case(policy, steps=2)
    state = case.start()
    for latent in moving_latents(1, 3):
        _, state = stream.step(case.net, case.sampling, state, latent[None])
    before = copy.deepcopy(state)
    latent = moving_latents(2, 1)[0][None]
    first, after = stream.step(case.net, case.sampling, state, latent)
    again, after_again = stream.step(case.net, case.sampling, state, latent)
    assert first.equal(again)
    for old, new in ((before, state), (after, after_again)):
        assert old.positions == new.positions
        assert old.frame_index == new.frame_index
        assert old.tensors.in_flight.equal(new.tensors.in_flight)
        assert all(ring.equal(new.tensors.bank[name]) for name, ring in old.tensors.bank.items())


def test_the_stream_keeps_its_shapes_and_layouts() -> None:
    for policy, guidance in itertools.product((Policy.FIFO, Policy.MERGE), Guidance):
        case = Case(policy, steps=3, guidance=guidance)
        state = case.start()
        before = {name: ring.shape for name, ring in state.tensors.bank.items()}
        for latent in moving_latents(1, 3):
            clean, state = stream.step(case.net, case.sampling, state, latent[None])
            assert clean.shape == (1, *LATENT)
            assert state.tensors.in_flight.shape == state.tensors.origins.shape == (2, *LATENT)
            assert {name: ring.shape for name, ring in state.tensors.bank.items()} == before
            # the memory layout too, or a compiled call is compiled anew
            assert all(ring.is_contiguous() and ring.dtype == torch.float64 for ring in state.tensors.bank.values())


# ---------------------------------------------------------------------------------------------------------------------
# The one call, compiled


def compiled_equals_eager(case: Case, backend: str, tolerance: float) -> None:
    torch.compiler.reset()
    eager, latents = case.net, moving_latents(1, 5)
    expected = case.batch(latents)
    case.net = torch.compile(eager, fullgraph=True, backend=backend, dynamic=False)
    state, outputs = case.start(), []
    with torch.no_grad():
        for call, latent in enumerate([*latents, latents[-1]]):
            # one graph for the first frame and for all others
            with torch.compiler.set_stance("default" if call == 0 else "fail_on_recompile"):
                clean, state = stream.step(case.net, case.sampling, state, latent[None])
            outputs.append(clean[0])
    torch.compiler.reset()
    for a, b in zip(outputs[1:], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_the_one_call_is_one_graph() -> None:
    compiled_equals_eager(Case(Policy.FIFO, 2), "eager", 1e-9)


@pytest.mark.slow
def test_the_one_call_compiles() -> None:
    compiled_equals_eager(Case(Policy.FIFO, 2), "inductor", 1e-6)  # the sinusoids of the timestep are float32
