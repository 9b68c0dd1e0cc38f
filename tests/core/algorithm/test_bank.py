"""core.algorithm.bank: what is written when, and where; the arithmetic of merging is proved in test_proof.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.algorithm import bank, products
from core.algorithm.bank import Bank, Features
from core.settings import BankRules, Policy, Split
from tests.support.small_models import updated

CPU = torch.device("cpu")
LAYOUT = {"a.key": (3, 2), "a.value": (3, 2), "b.feature": (2, 4)}


def seen_of(frame: float, rows: int = 1) -> Features:
    """Features that are the frame's number everywhere."""
    return {name: torch.full((rows, *shape), frame) for name, shape in LAYOUT.items()}


def empty(rows: int, slots: int) -> Bank:
    return bank.empty(LAYOUT, rows, slots, torch.float32, CPU)


def frames_in(ring: Tensor) -> list[list[float]]:
    """Per row, the frame that each slot holds."""
    assert all((ring[r, s] == ring[r, s].flatten()[0]).all() for r in range(len(ring)) for s in range(ring.shape[1]))
    return ring[:, :, 0, 0].tolist()


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([torch.float64, torch.float32, torch.float16]))
def test_the_bytes_are_those_of_the_rings(rows: int, slots: int, dtype: torch.dtype) -> None:
    rings = bank.empty(LAYOUT, rows, slots, dtype, CPU)
    assert {name: tuple(ring.shape) for name, ring in rings.items()} == {
        name: (rows, slots, *shape) for name, shape in LAYOUT.items()
    }
    assert bank.bank_bytes(LAYOUT, rows, slots, dtype) == sum(ring.nbytes for ring in rings.values())
    assert bank.bank_bytes({}, rows, slots, dtype) == 0


def test_the_first_frame_fills_all_slots_and_kept_ones_go_round() -> None:
    rings = empty(1, 3)
    positions: tuple[int, ...] = (0,)
    held = []
    for age in range(9):
        rings, positions = updated(rings, seen_of(age), positions, [age], policy=Policy.FIFO, interval=2, seed=0)
        held.append([frames_in(ring)[0] for ring in rings.values()])
    assert all(entry == slots[0] for slots in held for entry in slots)  # the three entries hold the same frames
    first = [slots[0] for slots in held]
    assert first[:4] == [[0, 0, 0], [0, 0, 0], [2, 0, 0], [2, 0, 0]]
    assert first[4:] == [[2, 4, 0], [2, 4, 0], [2, 4, 6], [2, 4, 6], [8, 4, 6]]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 14))
def test_each_row_holds_the_last_frames_that_were_due(rows: int, slots: int, interval: int, frames: int) -> None:
    rings, positions = empty(rows, slots), (0,) * rows
    for frame in range(1, frames + 1):  # frame numbers from one, so that an empty slot is told from the first frame
        ages = [frame - 1 - row for row in range(rows)]
        seen = {n: torch.stack([torch.full(s, float(age + 1)) for age in ages]) for n, s in LAYOUT.items()}
        rings, positions = updated(rings, seen, positions, ages, policy=Policy.FIFO, interval=interval, seed=0)
    for row, held in enumerate(frames_in(rings["a.key"])):
        newest = frames - 1 - row
        kept = [1.0] * slots + [age + 1.0 for age in range(1, newest + 1) if age % interval == 0]
        assert sorted(held) == (sorted(kept[-slots:]) if newest >= 0 else [0.0] * slots)


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_a_row_without_a_frame_writes_nothing_and_the_others_do(policy: Policy) -> None:
    rings, _ = updated(empty(3, 1), seen_of(7, 3), (0, 0, 0), [1, 0, -1], policy=policy, interval=5, seed=0)
    assert [held[0] for held in frames_in(rings["a.value"])] == [0, 7, 0]


def test_only_the_rows_that_are_due_are_merged() -> None:
    generator = torch.Generator().manual_seed(0)
    rings = {n: torch.randn(2, 1, *s, generator=generator) for n, s in LAYOUT.items()}
    seen = {n: torch.randn(2, *s, generator=generator) for n, s in LAYOUT.items()}
    given = {name: ring.clone() for name, ring in rings.items()}
    after, positions = updated(given, seen, (0, 0), [4, 3], policy=Policy.MERGE, interval=4, seed=1)
    assert positions == (0, 0)
    for name, ring in rings.items():
        assert not torch.equal(after[name][0], ring[0])
        assert torch.equal(after[name][1], ring[1])


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_merge_stays_between_what_was_merged(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    rings = {n: torch.randn(1, 1, *s, generator=generator).to(dtype) for n, s in LAYOUT.items()}
    seen = {n: torch.randn(1, *s, generator=generator).to(dtype) for n, s in LAYOUT.items()}
    orders = {n: bank.permutation(seed, 1, n)[None] for n in (2, 3)}
    for name, merged in bank.merge(rings, seen, orders).items():
        both = torch.cat([rings[name][:, 0], seen[name]], dim=1).float()
        assert merged.dtype is dtype
        assert (merged.float() <= both.amax() + 0.02).all()
        assert (merged.float() >= both.amin() - 0.02).all()


class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator's name, and the size of the largest tensor that one made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.names.add(func._schema.name)
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.numel())
        return made


@pytest.mark.parametrize("rows", [1, 3])
def test_a_frames_merge_holds_no_matrix_of_all_similarities_and_moves_whole_tokens(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(products, "_SCORES", 2**12)
    generator = torch.Generator().manual_seed(0)
    ring = {n: torch.randn(rows, 1, 300, 8, generator=generator) for n in ("a.key", "a.value", "a.feature")}
    seen = {n: torch.randn(rows, 300, 8, generator=generator) for n in ring}
    orders = {300: torch.stack([bank.permutation(0, row, 300) for row in range(rows)])}
    with torch.no_grad(), Seen() as now:
        at_once = bank.merge(ring, seen, orders)
    assert now.largest == rows * 2 * 300 * 8, "of the tokens that are merged"
    assert not {"aten::gather"} & now.names
    with Seen() as graph:  # where gradients could be wanted, as where a graph is made
        expected = bank.merge(ring, seen, orders)
    assert graph.largest == rows * 300 * 300
    assert not {"aten::index_select", "aten::index_add_"} & graph.names
    for name, merged in at_once.items():
        assert torch.equal(merged, expected[name])


def test_what_is_alike_merges_to_itself() -> None:
    rings = {n: torch.full((1, 1, *s), 3.0) for n, s in LAYOUT.items()}
    orders = {n: bank.permutation(0, 1, n)[None] for n in (2, 3)}
    for name, merged in bank.merge(rings, seen_of(3), orders).items():
        torch.testing.assert_close(merged, rings[name])


def test_no_bank_stays_none() -> None:
    assert updated({}, {}, (0, 0), [0, -1], policy=Policy.OFF, interval=1, seed=0) == ({}, (0, 0))


def test_values_and_features_are_merged_by_their_layers_keys() -> None:
    names = dict.fromkeys(["x.attn1.key", "x.attn1.value", "x.attn1.feature", "x.feature", "up_blocks.1.feature"])
    guides = {name: bank.guide_name(name, names) for name in names}
    assert guides.pop("up_blocks.1.feature") == "up_blocks.1.feature"
    assert set(guides.values()) == {"x.attn1.key"}


def test_a_fresh_row_reads_itself_and_another_its_ring() -> None:
    ring = torch.arange(2 * 2 * 3 * 1.0).view(2, 2, 3, 1)
    now = -torch.arange(1, 7.0).view(2, 3, 1)
    bag = bank.read(ring, now, torch.tensor([True, False]))
    assert torch.equal(bag[0], torch.cat([now[0], now[0]]))
    assert torch.equal(bag[1], ring[1].flatten(0, 1))


def test_marks() -> None:
    assert bank.slot_mask(3, [(0, 2), (), (1,)]).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_before_a_blank_wall_half_precision_still_merges_to_the_mean(dtype: torch.dtype) -> None:
    """All tokens are alike, so that all of them meet in one: sums of 3 would stop at 8192 in float16."""
    tokens, channels = 2048, 3
    ring = {"a.key": torch.full((1, 1, tokens, channels), 3.0, dtype=dtype)}
    ring["a.value"] = torch.full_like(ring["a.key"], 60.0)
    seen = {name: value[:, 0] for name, value in ring.items()}
    merged = bank.merge(ring, seen, bank.merge_orders(bank.layout_of(ring), 0, [4]))
    for name, value in merged.items():
        torch.testing.assert_close(value, ring[name], rtol=0.01, atol=0)


def test_the_length_of_large_features_does_not_overflow_in_half_precision() -> None:
    large = torch.full((1, 2, 16), 300.0, dtype=torch.float16)
    torch.testing.assert_close(bank.normalized(large), torch.full_like(large, 0.25))


def test_a_split_by_place_keeps_the_pictures_order() -> None:
    order = bank.merge_order(3, 7, 50, BankRules(split=Split.PLACE)).tolist()
    assert sorted(order) == list(range(100))
    assert [one % 50 for one in order] == [*range(50), *range(50)]
    assert 10 < sum(one < 50 for one in order[:50]) < 40  # by chance


def test_groups_hold_every_layer_once_and_have_about_the_same_to_do() -> None:
    sizes = {f"{level}.{n}.attn1": (4096 >> 2 * level, 320 << level) for level in range(3) for n in range(5)}
    layout = {f"{place}.{kind}": shape for place, shape in sizes.items() for kind in ("key", "value")}
    layout |= {"2.0.feature": sizes["2.0.attn1"], "up_blocks.1.feature": (1024, 640)}
    groups = bank.merge_groups(layout)
    assert len(groups) == bank.GROUPS
    assert sorted(name for names in groups for name in names) == sorted(layout)
    for names in groups:  # what follows the same keys goes with them
        assert {name for name in names if name.startswith("2.0.")} in (
            {*()},
            {n for n in layout if n.startswith("2.0.")},
        )
    large = [sum(name.startswith("0.") and name.endswith("key") for name in names) for names in groups]
    assert sorted(large) == [1, 1, 1, 2]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 40))
def test_spread_over_the_interval_each_group_is_merged_once_in_it(interval: int, groups: int, frame: int) -> None:
    kept = bank.Keeping(Policy.MERGE, interval, groups)
    due = [[group for group in range(groups) if kept.due(age, group)] for age in range(frame, frame + interval)]
    assert sorted(group for groups_due in due for group in groups_due) == list(range(groups))
    if interval >= groups:
        assert max(map(len, due)) == 1


def test_a_growing_ring_holds_what_there_is() -> None:
    rings = empty(1, 3)
    positions: tuple[int, ...] = (0,)
    kept = bank.Keeping(Policy.FIFO, 2, growing=True)
    held = []
    for age in range(11):
        now = bank.next_update(3, positions, [age], kept)
        count = 0 if age == 0 else now.held[0]
        held.append(frames_in(rings["a.key"])[0][:count])
        rings, positions = bank.apply_update(rings, seen_of(age), now, 0), now.positions
    assert held == [[], [0], [0], [0, 2], [0, 2], [0, 2, 4], [0, 2, 4], [6, 2, 4], [6, 2, 4], [6, 8, 4], [6, 8, 4]]


def test_where_every_row_writes_its_only_slot_nothing_is_copied() -> None:
    rings, positions = empty(2, 1), (0, 0)
    seen = seen_of(3, 2)
    now = bank.next_update(1, positions, [2, 1], bank.Keeping(Policy.FIFO, 1))
    after = bank.apply_update(rings, seen, now, 0)
    for name, ring in after.items():
        assert ring.data_ptr() == seen[name].data_ptr()
        assert torch.equal(ring, bank.write(rings, seen, bank.slot_mask(1, now.writes))[name])
