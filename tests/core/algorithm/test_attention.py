"""core.algorithm.attention: the pure functions at their edges; that they are the paper's is proved in test_proof.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from core.algorithm import attention, products
from core.algorithm.attention import (
    BankCall,
    CrossAttention,
    PlainAttention,
    SelfAttention,
    SubtokenGrid,
    attend,
    extend,
    fuse,
    fuse_at,
    fuse_subtoken,
    quicken_attention,
    subtoken_shares,
)
from core.algorithm.bank import Reading
from core.engine import Engine
from core.settings import EngineSettings, Look, Runtime

FRESH, KNOWN = torch.tensor([True, True]), torch.tensor([False, False])
seeds = st.integers(0, 2**31)


def reading(fresh: torch.Tensor = KNOWN, strength: float = 0.5, threshold: float = -1.0) -> Reading:
    return Reading(fresh, torch.full((2,), strength), torch.full((2,), threshold))


def tensors(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.fixture
def layer() -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Attention(query_dim=8, heads=2, dim_head=4).eval().requires_grad_(False)


def test_without_a_bank_the_processors_are_those_of_diffusers(layer: Attention) -> None:
    hidden, words = tensors(0, (2, 6, 8), (2, 3, 8))
    call = BankCall({}, reading(), {}, {})
    expected = AttnProcessor()(layer, hidden)
    torch.testing.assert_close(SelfAttention("a", fuses=False)(layer, hidden, bank_call=call), expected)
    crossed = CrossAttention("b")(layer, hidden, words, bank_call=call)
    torch.testing.assert_close(crossed, AttnProcessor()(layer, hidden, words))
    torch.testing.assert_close(CrossAttention("b")(layer, hidden), expected)
    assert call.seen.keys() == {"a.key", "a.value"}
    assert torch.equal(call.seen["a.key"], layer.to_k(hidden))


def test_a_mask_and_a_picture_are_what_diffusers_makes_of_them(layer: Attention) -> None:
    hidden, words, picture = tensors(0, (2, 6, 8), (2, 3, 8), (2, 8, 2, 3))
    mask = torch.tensor([[[0.0, -1e4, 0.0]], [[0.0, 0.0, -1e4]]])  # as a UNet hands it over: [rows, 1, words]
    plain, theirs = PlainAttention(), AttnProcessor()
    masked = plain(layer, hidden, words, mask)
    torch.testing.assert_close(masked, theirs(layer, hidden, words, mask))
    assert not torch.allclose(masked, plain(layer, hidden, words))
    torch.testing.assert_close(plain(layer, picture), theirs(layer, picture))


ODD: list[dict[str, Any]] = [
    {"residual_connection": True},
    {"rescale_output_factor": 2.0},
    {"norm_num_groups": 2},
    {"spatial_norm_dim": 4},
    {"qk_norm": "layer_norm"},
    {"cross_attention_norm": "layer_norm"},
    {"scale_qk": False},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda one: next(iter(one)))
def test_a_layer_that_does_more_keeps_its_processor(layer: Attention, odd: dict[str, Any]) -> None:
    other = Attention(query_dim=32, heads=2, dim_head=4, **odd)
    own = other.processor
    quicken_attention(torch.nn.ModuleList([layer, other]))
    assert isinstance(layer.processor, PlainAttention)
    assert other.processor is own


def test_where_onednn_is_no_quicker_attention_is_pytorchs(monkeypatch: pytest.MonkeyPatch, layer: Attention) -> None:
    monkeypatch.setattr(products, "here", lambda: False)
    hidden, words = tensors(0, (2, 6, 8), (2, 3, 8))
    expected = layer(hidden), layer(hidden, words)
    quicken_attention(torch.nn.ModuleList([layer]))
    assert torch.equal(layer(hidden), expected[0])
    assert torch.equal(layer(hidden, words), expected[1])


def test_what_a_layer_sees_is_its_own_and_not_the_banks(layer: Attention) -> None:
    hidden, keys, values, features = tensors(1, (2, 6, 8), (2, 3, 6, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    bank = {"a.key": keys, "a.value": values, "a.feature": features}
    call = BankCall(bank, reading(), {}, {})
    out = SelfAttention("a", fuses=True)(layer, hidden, bank_call=call)
    assert call.seen["a.key"].shape == (2, 6, 8)
    assert torch.equal(call.seen["a.value"], layer.to_v(hidden))
    assert torch.equal(call.seen["a.feature"], out)  # what flows on is what is banked
    plain = SelfAttention("a", fuses=False)(layer, hidden, bank_call=BankCall({}, reading(), {}, {}))
    assert not torch.allclose(out, plain)


@given(seeds, st.integers(1, 3))
def test_the_order_of_the_bag_does_not_matter(seed: int, slots: int) -> None:
    query, keys, values = tensors(seed, (2, 4, 6), (2, slots * 4, 6), (2, slots * 4, 6))
    order = torch.randperm(slots * 4, generator=torch.Generator().manual_seed(seed))
    expected = attend(query, keys, values, 2)
    torch.testing.assert_close(attend(query, keys[:, order], values[:, order], 2), expected, atol=1e-5, rtol=1e-4)


@given(seeds)
def test_attention_stays_between_the_values(seed: int) -> None:
    query, keys, values = tensors(seed, (1, 4, 6), (1, 9, 6), (1, 9, 6))
    out = attend(query * 5, keys, values, 3)
    assert (out <= values.amax(1, keepdim=True) + 1e-5).all()
    assert (out >= values.amin(1, keepdim=True) - 1e-5).all()


def test_an_extension_puts_now_first() -> None:
    now, ring = tensors(2, (2, 3, 4), (2, 2, 3, 4))
    longer = extend(now, ring, KNOWN)
    assert torch.equal(longer[:, :3], now)
    assert torch.equal(longer[:, 3:], ring.flatten(1, 2))


@given(seeds, st.floats(0, 1))
def test_fusion_goes_the_stated_way_towards_a_banked_token(seed: int, strength: float) -> None:
    own, ring = tensors(seed, (1, 5, 4), (1, 2, 5, 4))
    fused = fuse(own, ring, torch.tensor([strength]), torch.tensor([-1.1]))
    whole = fuse(own, ring, torch.ones(1), torch.tensor([-1.1]))
    banked = ring.flatten(1, 2)[0]
    assert all((token == banked).all(1).any() for token in whole[0])
    torch.testing.assert_close(fused, own + strength * (whole - own), atol=1e-5, rtol=1e-4)


@given(seeds, st.floats(-1, 1), st.floats(-1, 1))
def test_a_higher_threshold_fuses_no_more_tokens(seed: int, one: float, other: float) -> None:
    own, ring = tensors(seed, (1, 6, 4), (1, 1, 6, 4))
    moved = [
        (fuse(own, ring, torch.ones(1), torch.tensor([threshold])) != own).any(-1) for threshold in sorted((one, other))
    ]
    assert (moved[1] <= moved[0]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_an_empty_ring_and_tokens_of_zeros_make_no_nonsense(dtype: torch.dtype) -> None:
    own = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    own[0, 2] = 0
    for threshold in (2.0, 0.5):
        fused = fuse(own, torch.zeros(2, 1, 5, 4, dtype=dtype), own.new_full((2,), 0.8), own.new_full((2,), threshold))
        assert torch.equal(fused, own)


def test_a_place_without_a_ring_is_seen_as_it_is() -> None:
    (own,) = tensors(3, (2, 3, 4))
    call = BankCall({}, reading(FRESH), {}, {})
    assert fuse_at("p", own, call) is own
    assert call.seen == {"p.feature": own}


# ------------------------------------------------------------------------------------------- matches between tokens


def scene(seed: int, shift: float, height: int = 6, width: int = 7) -> torch.Tensor:
    """Features [1, height*width, 64] of a scene that is bilinear between its points, moved by `shift` of a token."""
    (points,) = tensors(seed, (64, height + 2, width + 2))
    there = points[:, 1:-1, 1:-1].lerp(points[:, 1:-1, 2:], shift)
    return there.flatten(1).T[None]


@given(seeds, st.sampled_from([0.0, 0.25, 0.5]))
def test_what_moved_by_a_part_of_a_token_is_found_between_tokens(seed: int, shift: float) -> None:
    before, now = scene(seed, 0.0), scene(seed, shift)
    one, never = torch.ones(1), torch.tensor([0.9999])
    fused = fuse_subtoken(now * 3, before[:, None], one, never, SubtokenGrid(subtoken_shares(4), 6, 7))
    inside = (torch.arange(42) % 7 < 6)[None, :, None]  # what comes from beyond the edge was never seen
    torch.testing.assert_close(
        torch.where(inside, fused, 0),
        torch.where(inside, before.lerp(before.roll(-1, 1), shift), 0),
        atol=1e-4,
        rtol=1e-4,
    )


@given(seeds, st.integers(1, 3))
def test_matches_on_tokens_are_those_of_the_paper(seed: int, slots: int) -> None:
    own, ring = tensors(seed, (2, 12, 8), (2, slots, 12, 8))
    strength, threshold = torch.tensor([0.3, 0.9]), torch.tensor([0.1, 0.6])
    centre = subtoken_shares(2)[4:5]
    assert centre.tolist() == [[0, 0, 0, 0, 1, 0, 0, 0, 0]]
    expected = fuse(own, ring, strength, threshold)
    torch.testing.assert_close(
        fuse_subtoken(own, ring, strength, threshold, SubtokenGrid(centre, 3, 4)), expected, atol=1e-5, rtol=1e-5
    )


@given(seeds, st.integers(1, 3), st.sampled_from([2, 4, 8]))
def test_at_once_the_same_points_between_tokens_are_found_as_in_a_graph(seed: int, slots: int, parts: int) -> None:
    own, ring = (each.double() for each in tensors(seed, (2, 42, 16), (2, slots, 42, 16)))
    some, least = torch.tensor([0.3, 0.9]).double(), torch.tensor([0.1, 0.6]).double()
    rest = some, least, SubtokenGrid(subtoken_shares(parts), 6, 7)
    assert not products.at_once(own)
    by_graph = fuse_subtoken(own, ring, *rest)
    with torch.inference_mode():
        assert products.at_once(own)
        torch.testing.assert_close(fuse_subtoken(own, ring, *rest), by_graph, atol=1e-12, rtol=1e-9)


def test_shares_make_up_one_and_reach_half_way() -> None:
    shares = subtoken_shares(8)
    assert shares.shape == (81, 9)
    torch.testing.assert_close(shares.sum(1), torch.ones(81))
    torch.testing.assert_close(shares[0], torch.tensor([0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0, 0]))


def test_neighbours_stay_in_their_slot() -> None:
    (own,) = tensors(5, (1, 12, 8))
    ring = torch.stack([torch.full((1, 12, 8), 100.0), own], dim=1)  # the other slot is like nothing
    between = SubtokenGrid(subtoken_shares(4), 3, 4)
    fused = fuse_subtoken(own, ring, torch.ones(1), torch.tensor([0.9]), between)
    torch.testing.assert_close(fused, own, atol=1e-4, rtol=1e-4)


def test_half_precision_does_not_overflow() -> None:
    own, ring = (t.half() * 60 for t in tensors(6, (1, 12, 320), (1, 1, 12, 320)))
    fused = fuse_subtoken(
        own, ring, own.new_ones(1), own.new_tensor([-1.0]), SubtokenGrid(subtoken_shares(4).half(), 3, 4)
    )
    assert fused.dtype == torch.float16
    assert fused.isfinite().all()


@pytest.mark.parametrize(("dtype", "lost"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_in_half_precision_the_partners_are_as_good_as_those_of_float64(dtype: torch.dtype, lost: float) -> None:
    """Smooth features of a large length, as a UNet's last block has: neighbours differ by little."""
    grid = SubtokenGrid(subtoken_shares(8), 12, 16)
    (coarse,) = tensors(7, (1, 64, 4, 5))
    smooth = torch.nn.functional.interpolate(coarse, (14, 18), mode="bicubic")
    before, now = ((smooth[:, :, y : y + 12, x : x + 16].flatten(2).mT * 30).to(dtype) for y, x in ((1, 1), (1, 2)))
    one, always = now.new_ones(1), now.new_full((1,), -1.0)
    exact = fuse_subtoken(now.double(), before.double()[:, None], one.double(), always.double(), grid)
    half = fuse_subtoken(now, before[:, None], one, always, grid)
    cosines = [torch.cosine_similarity(made.double(), now.double(), dim=-1) for made in (exact, half)]
    assert (cosines[0] - cosines[1]).max() < lost


def test_in_half_precision_the_included_models_own_features_find_as_good_partners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a picture that moves, against float64."""
    sheet = cv2.imread(str(Path(__file__).parents[3] / "docs" / "contact-sheet.jpg"), cv2.IMREAD_COLOR_RGB)
    assert sheet is not None
    seen: list[tuple[torch.Tensor, torch.Tensor, SubtokenGrid]] = []

    def recorded(own: torch.Tensor, ring: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append((own.clone(), ring.clone(), rest[2]))
        return fuse_subtoken(own, ring, *rest)

    monkeypatch.setattr(attention, "fuse_subtoken", recorded)
    given = EngineSettings(width=128, height=128, steps=1, runtime=Runtime.EAGER, device="cpu", dtype="float32")
    engine = Engine(given, Look("ink", interval=1))
    for at in range(3):
        engine.translate(np.ascontiguousarray(sheet[:128, 3 * at : 3 * at + 128]))
    own, ring, grid = seen[-1]

    def found(dtype: torch.dtype) -> torch.Tensor:
        """How alike each token and what it would be fused with are."""
        one, always = torch.ones(1, dtype=dtype), torch.full((1,), -1.0, dtype=dtype)
        shares = SubtokenGrid(grid.shares.to(dtype), *grid[1:])
        made = fuse_subtoken(own.to(dtype), ring.to(dtype), one, always, shares)
        return torch.cosine_similarity(made.double(), own.double(), dim=-1)

    lost = found(torch.float64) - found(torch.float16)
    assert own.shape[1] > 50
    # of two tokens that are all but equally alike half precision may take the other, which fits a little less
    assert lost.mean() < 2e-4
    assert (lost > 2e-3).double().mean() < 0.02
    assert lost.max() < 0.03


def test_in_half_precision_no_matrix_is_multiplied_in_float32() -> None:
    """TensorRT for RTX has no such product for Turing (RTX 20, GTX 16)."""
    own, ring = (t.half() for t in tensors(8, (1, 12, 64), (1, 1, 12, 64)))
    kinds: set[torch.dtype] = set()

    class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._schema.name in ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"):
                kinds.update(one.dtype for one in args)
            return func(*args, **(kwargs or {}))

    with Products():  # type: ignore[no-untyped-call]
        fuse_subtoken(own, ring, own.new_ones(1), own.new_zeros(1), SubtokenGrid(subtoken_shares(8).half(), 3, 4))
    assert kinds == {torch.float16}
