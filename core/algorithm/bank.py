"""The feature bank: fixed-shape ring buffers of past features, as plain tensors and pure functions.

A bank maps a name to a ring `[rows, slots, tokens, channels]`. A self-attention layer `L` owns `L.key` and `L.value`; a
place `P` where features are fused owns `P.feature`. Rows are the rows of one UNet call. Paper: section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core.algorithm import products
from core.settings import OWN_RULES, BankRules, Policy, Split

Bank = dict[str, Tensor]
Features = dict[str, Tensor]  # the features of one call: name -> [rows, tokens, channels]
Layout = dict[str, tuple[int, int]]  # name -> (tokens, channels)
GROUPS = 4  # of layers, one after the other merged over the interval: as many as the paper's interval has frames


class Reading(NamedTuple):
    """How each row of a call reads its bank; tensors, so that a change needs no other graph.

    fresh: bool [rows], attention reads the row's own features instead, as where it has no past yet; None: no row does,
    which saves a copy of the rings where one knows it on the host and runs no fixed graph. strength and
    threshold: float [rows], paper section 4.2; a threshold above 1 fuses nothing. held: bool [rows, slots], the slots
    that hold a frame; None: all of them.
    """

    fresh: Tensor | None
    strength: Tensor
    threshold: Tensor
    held: Tensor | None = None


def empty(layout: Layout, rows: int, slots: int, dtype: torch.dtype, device: torch.device) -> Bank:
    """Return a bank of zeros; its rows must be read as fresh until they have been filled."""
    return {
        name: torch.zeros(rows, slots, tokens, channels, dtype=dtype, device=device)
        for name, (tokens, channels) in layout.items()
    }


def slot_count(bank: Bank) -> int:
    """Return how many slots the rings have; 0 without a bank."""
    return next(iter(bank.values())).shape[1] if bank else 0


def bank_bytes(layout: Layout, rows: int, slots: int, dtype: torch.dtype) -> int:
    """Return how many bytes `empty` will take."""
    return sum(math.prod(shape) for shape in layout.values()) * rows * slots * dtype.itemsize


def read(ring: Tensor, now: Tensor, fresh: Tensor) -> Tensor:
    """Return all tokens of the ring, `[rows, slots*tokens, channels]`; a fresh row gets its own features repeated.

    A softmax over repetitions of the row's own keys equals plain attention, so a start needs no other graph.
    """
    return torch.where(fresh[:, None, None, None], now[:, None], ring).flatten(1, 2)


def write(bank: Bank, seen: Features, slots: Tensor) -> Bank:
    """Return the bank with `seen` in the slots marked by `slots` (bool [rows, slots])."""
    mask = slots[:, :, None, None]
    return {name: torch.where(mask, seen[name][:, None], ring) for name, ring in bank.items()}


def slot_mask(slots: int, writes: Sequence[Sequence[int]]) -> Tensor:
    """Return the bool [rows, slots] mask of the slots that each row writes."""
    return torch.tensor([[slot in row for slot in range(slots)] for row in writes], dtype=torch.bool)


def permutation(seed: int, frame: int, tokens: int) -> Tensor:
    """Return the random order of 2*tokens tokens for one frame's merge: sources, then as many destinations."""
    # the same for every row and layer, so that a frame is merged alike at whatever time its row is computed
    generator = torch.Generator().manual_seed((seed * 1_000_003 + frame) % 2**63)
    return torch.randperm(2 * tokens, generator=generator)


def merge_order(seed: int, frame: int, tokens: int, rules: BankRules = OWN_RULES) -> Tensor:
    """Return int64 [2*tokens]: the order of bank tokens, then the frame's, in one frame's merge: sources first."""
    order = permutation(seed, frame, tokens)
    places = torch.arange(tokens)
    match rules.split:
        case Split.NOW:
            return torch.arange(2 * tokens)
        case Split.GRID:
            return torch.arange(2 * tokens).view(tokens, 2).T.flatten()
        case Split.PLACE:
            banked = order[:tokens] < tokens  # by chance, at each place
            return torch.cat(
                [torch.where(banked, places, places + tokens), torch.where(banked, places + tokens, places)]
            )
        case Split.RANDOM:
            return order.roll(tokens) if rules.destinations_first else order


def merge_groups(layout: Mapping[str, tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the entries that are merged together, in at most GROUPS groups of about the same work.

    What follows the same keys is in the same group.
    """
    return _groups(tuple(layout.items()))


def layout_of(bank: Bank) -> Layout:
    """Return the layout of a bank's rings."""
    return {name: (ring.shape[2], ring.shape[3]) for name, ring in bank.items()}


@lru_cache(maxsize=16)
def _groups(layout: tuple[tuple[str, tuple[int, int]], ...]) -> tuple[tuple[str, ...], ...]:
    shapes = dict(layout)
    together: dict[str, list[str]] = {}
    for name in shapes:
        together.setdefault(guide_name(name, shapes), []).append(name)
    groups: list[list[str]] = [[] for _ in range(min(GROUPS, len(together)))]
    work = [0] * len(groups)
    # the largest first, each to the group that has the least to do yet
    for guide, names in sorted(together.items(), key=lambda one: -_work(*shapes[one[0]])):
        least = work.index(min(work))
        groups[least] += names
        work[least] += _work(*shapes[guide])
    return tuple(map(tuple, groups))


def _work(tokens: int, channels: int) -> int:
    return tokens * tokens * channels  # of finding each token's match, which takes most of a merge


def merge(bank: Bank, seen: Features, orders: Mapping[int, Tensor]) -> Bank:
    """Merge bank and current tokens into one compact slot: dynamic merging (paper, section 4.3).

    bank: rings with one slot. orders: tokens -> int64 [rows, 2*tokens], a permutation per row. Each source is averaged
    into the destination of most similar key; values and features follow their layer's keys, and a place that is no
    attention layer follows its own features.
    """
    merged: Bank = {}
    matches: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    for name, ring in bank.items():
        guide = guide_name(name, bank)
        both = torch.cat([ring[:, 0], seen[name]], dim=1)  # [rows, 2*tokens, channels]
        if guide not in matches:
            keys = torch.cat([bank[guide][:, 0], seen[guide]], dim=1)
            matches[guide] = _match_tokens(keys, orders[ring.shape[2]].to(keys.device))
        merged[name] = _average(both, *matches[guide])[:, None]
    return merged


def guide_name(name: str, bank: Mapping[str, object]) -> str:
    """Return the entry by whose similarity `name` is merged: its attention layer's keys, or itself."""
    place = name.rpartition(".")[0]
    for guide in (f"{place}.key", f"{place}.attn1.key"):
        if guide in bank:
            return guide
    return name


def _match_tokens(keys: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (sources, destinations, target, count): token indices, each source's destination, and group sizes."""
    tokens = keys.shape[1] // 2
    sources, destinations = order[:, :tokens], order[:, tokens:]
    directions = normalized(keys)
    source, destination = gather_tokens(directions, sources), gather_tokens(directions, destinations)
    target = products.most_alike(source, destination)
    ones = torch.ones_like(target, dtype=_wide(keys.dtype))
    # scatter_add and a division: scatter_reduce(mean) exports to a wrong ONNX graph
    count = torch.ones_like(ones).scatter_add(1, target, ones)
    return sources, destinations, target, count


def _average(both: Tensor, sources: Tensor, destinations: Tensor, target: Tensor, count: Tensor) -> Tensor:
    # before a blank wall thousands of tokens may meet in one: half precision neither holds nor adds such sums
    base, added = (gather_tokens(both, index).to(count.dtype) for index in (destinations, sources))
    if products.at_once(both):
        rows, kept = base.flatten(0, 1), across_rows(target, base.shape[1])
        total = rows.index_add_(0, kept, added.flatten(0, 1)).view_as(base)
    else:
        total = base.scatter_add(1, target[..., None].expand_as(added), added)
    return (total / count[..., None]).to(both.dtype)


def normalized(tokens: Tensor) -> Tensor:
    """Return the tokens [..., channels] at length one; in float32 at least, for squares of half precision overflow."""
    return F.normalize(tokens.to(_wide(tokens.dtype)), dim=-1).to(tokens.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return tokens [rows, n, channels] at index [rows, m] -> [rows, m, channels], of their own memory."""
    # a token moved as one piece is four to nine times as fast as number by number; a graph has the operator that every
    # runtime knows
    if products.at_once(tokens):
        rows, count, channels = tokens.shape
        taken = tokens.reshape(rows * count, channels).index_select(0, across_rows(index, count))
        return taken.view(rows, index.shape[1], channels)
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def across_rows(index: Tensor, count: int) -> Tensor:
    """Return indices [rows, m] of a row's `count` tokens as indices [rows*m] of the tokens of all rows."""
    if len(index) == 1:
        return index[0]
    return (index + count * torch.arange(len(index), device=index.device)[:, None]).flatten()


class BankUpdate(NamedTuple):
    """What a call does to the bank; its row r worked on the frame of age ages[r].

    Ages are frames since the bank was emptied; a negative one is a row that holds no frame yet. writes: the slots that
    each row's frame takes. merged: (row, number of the group of `merge_groups`) of what is to be merged. positions: the
    slot that each row takes next; in a growing ring plus the slots' count once it is full. held: how many slots of each
    row hold a frame when it is read.
    """

    ages: tuple[int, ...]
    writes: tuple[tuple[int, ...], ...]
    merged: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    held: tuple[int, ...]


class Keeping(NamedTuple):
    """When frames are kept, and how: every interval-th, by that policy.

    groups: how many groups of layers are merged, one after the other where `spread`. growing: slots that were not
    written yet are not read; otherwise the first frame fills them all.
    """

    policy: Policy
    interval: int
    groups: int = 1
    spread: bool = True
    growing: bool = False

    def due(self, age: int, group: int = 0) -> bool:
        """Return whether a frame of that age is kept (by a ring), or merged into that group of layers."""
        phase = group * self.interval // self.groups if self.spread else 0
        return age > 0 and age % self.interval == phase


def next_update(slots: int, positions: tuple[int, ...], ages: Sequence[int], keeping: Keeping) -> BankUpdate:
    """Return the update of a bank of so many slots, 0 for none; positions: of the update before, of zeros at first.

    Age 0 fills every slot, or the first of a growing ring; afterwards every interval-th frame is kept: the ring's
    oldest slot takes it (`fifo`), or it is merged into the compact slot (`merge`).
    """
    ages = tuple(ages)
    if not slots:
        return BankUpdate(ages, ((),) * len(ages), (), positions, (0,) * len(ages))
    if keeping.policy is Policy.FIFO:
        return _ring_update(slots, positions, ages, keeping)
    filled = tuple(tuple(range(slots)) if age == 0 else () for age in ages)
    merged = [
        (row, group) for row, age in enumerate(ages) for group in range(keeping.groups) if keeping.due(age, group)
    ]
    return BankUpdate(ages, filled, tuple(merged), positions, (slots,) * len(ages))


def _ring_update(slots: int, positions: tuple[int, ...], ages: tuple[int, ...], keeping: Keeping) -> BankUpdate:
    writes: list[tuple[int, ...]] = []
    after: list[int] = []
    for position, age in zip(positions, ages, strict=True):
        due, first = keeping.due(age), age == 0
        at = 0 if first else position
        writes.append(tuple(range(slots)) if first and not keeping.growing else (at % slots,) if due or first else ())
        if keeping.growing:
            moved = at + (due or first)
            after.append(moved if moved < 2 * slots else moved - slots)
        else:
            after.append((position + due) % slots)
    held = [min(position, slots) if keeping.growing else slots for position in positions]
    return BankUpdate(ages, tuple(writes), (), tuple(after), tuple(held))


def apply_update(bank: Bank, seen: Features, update: BankUpdate, seed: int, rules: BankRules = OWN_RULES) -> Bank:
    """Return the bank after that update; nothing given is changed.

    seed, rules: of the order in which tokens are merged.
    """
    if all(len(slots) == 1 for slots in update.writes) and slot_count(bank) == 1:
        bank = {name: seen[name][:, None] for name in bank}  # nothing of the rings is left: no copy
    elif any(update.writes):
        device = next(iter(bank.values())).device
        bank = write(bank, seen, slot_mask(slot_count(bank), update.writes).to(device))
    for group in sorted({group for _, group in update.merged}):
        rows = [row for row, due in update.merged if due == group]
        bank = bank | _merged_group(bank, seen, update, rows, group, seed, rules)
    return bank


def _merged_group(
    bank: Bank, seen: Features, update: BankUpdate, rows: Sequence[int], group: int, seed: int, rules: BankRules
) -> Bank:
    """Return the rings of a group of layers, those rows of them merged."""
    names = merge_groups(layout_of(bank))[group]
    made: dict[int, Bank] = {}
    for row in rows:
        one = slice(row, row + 1)
        part = {name: bank[name][one] for name in names}
        orders = merge_orders(layout_of(part), seed, [update.ages[row]], rules)
        made[row] = merge(part, {name: seen[name][one] for name in names}, orders)
    if len(made) == len(next(iter(bank.values()))):
        return made[rows[0]] if len(rows) == 1 else {n: torch.cat([made[row][n] for row in rows]) for n in names}
    return {
        name: torch.cat([made[row][name] if row in made else ring[None] for row, ring in enumerate(bank[name])])
        for name in names
    }


def merge_orders(layout: Layout, seed: int, frames: Sequence[int], rules: BankRules = OWN_RULES) -> dict[int, Tensor]:
    """Return for `merge`: tokens -> int64 [rows, 2*tokens], the order of each of those frames, one a row."""
    tokens = {tokens for tokens, _ in layout.values()}
    return {n: torch.stack([merge_order(seed, frame, n, rules) for frame in frames]) for n in tokens}
