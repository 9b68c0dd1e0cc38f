"""The feature bank: fixed-shape ring buffers of past features, as plain tensors and pure functions.

A bank maps a name to a ring `[rows, slots, tokens, channels]`. A self-attention layer `L` owns `L.key` and `L.value`; a
place `P` where features are fused owns `P.feature`. Rows are the rows of one UNet call. Paper: section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core.settings import Policy

Bank = dict[str, Tensor]
Features = dict[str, Tensor]  # the features of one call: name -> [rows, tokens, channels]
Layout = dict[str, tuple[int, int]]  # name -> (tokens, channels)


class Reading(NamedTuple):
    """How each row of a call reads its bank; tensors, so that a change needs no other graph.

    fresh: bool [rows], the row has no past yet and reads its own features. strength and threshold: float [rows], paper
    section 4.2; a threshold above 1 fuses nothing.
    """

    fresh: Tensor
    strength: Tensor
    threshold: Tensor


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


def guide_name(name: str, bank: Mapping[str, Tensor]) -> str:
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
    similarity = source @ destination.transpose(1, 2)  # [rows, sources, destinations]
    target = similarity.argmax(dim=-1)
    ones = torch.ones_like(target, dtype=_wide(keys.dtype))
    # scatter_add and a division: scatter_reduce(mean) exports to a wrong ONNX graph
    count = torch.ones_like(ones).scatter_add(1, target, ones)
    return sources, destinations, target, count


def _average(both: Tensor, sources: Tensor, destinations: Tensor, target: Tensor, count: Tensor) -> Tensor:
    # before a blank wall thousands of tokens may meet in one: half precision neither holds nor adds such sums
    base, added = (gather_tokens(both, index).to(count.dtype) for index in (destinations, sources))
    total = base.scatter_add(1, target[..., None].expand_as(added), added)
    return (total / count[..., None]).to(both.dtype)


def normalized(tokens: Tensor) -> Tensor:
    """Return the tokens [..., channels] at length one; in float32 at least, for squares of half precision overflow."""
    return F.normalize(tokens.to(_wide(tokens.dtype)), dim=-1).to(tokens.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return tokens [rows, n, channels] at index [rows, m] -> [rows, m, channels]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class BankUpdate(NamedTuple):
    """What a call does to the bank; its row r worked on the frame of age ages[r].

    Ages are frames since the bank was emptied; a negative one is a row that holds no frame yet. writes: the slots that
    each row's frame takes. merged: the rows to be merged. positions: the slot that each row takes next.
    """

    ages: tuple[int, ...]
    writes: tuple[tuple[int, ...], ...]
    merged: tuple[int, ...]
    positions: tuple[int, ...]


def next_update(
    slots: int, positions: tuple[int, ...], ages: Sequence[int], *, policy: Policy, interval: int
) -> BankUpdate:
    """Return the update of a bank of so many slots, 0 for none; positions[r] is the slot that row r takes next.

    Age 0 fills every slot; afterwards every interval-th frame is kept: the ring's oldest slot takes it (`fifo`), or it
    is merged into the compact slot (`merge`).
    """
    ages = tuple(ages)
    if not slots:
        return BankUpdate(ages, ((),) * len(ages), (), positions)
    due = [age > 0 and age % interval == 0 for age in ages]
    filled = [tuple(range(slots)) if age == 0 else () for age in ages]
    if policy is Policy.FIFO:
        writes = tuple((slot,) if now else full for slot, now, full in zip(positions, due, filled, strict=True))
        after = tuple((slot + now) % slots for slot, now in zip(positions, due, strict=True))
        return BankUpdate(ages, writes, (), after)
    return BankUpdate(ages, tuple(filled), tuple(row for row, now in enumerate(due) if now), positions)


def apply_update(bank: Bank, seen: Features, update: BankUpdate, seed: int) -> Bank:
    """Return the bank after that update; seed: of the random order in which tokens are merged."""
    if any(update.writes):
        device = next(iter(bank.values())).device
        bank = write(bank, seen, slot_mask(slot_count(bank), update.writes).to(device))
    if update.merged:
        bank = _merge_rows(bank, seen, update, seed)
    return bank


def merge_orders(bank: Bank, seed: int, frames: Sequence[int]) -> dict[int, Tensor]:
    """Return for `merge`: tokens -> int64 [rows, 2*tokens], the permutation of each of those frames, one a row."""
    tokens = {ring.shape[2] for ring in bank.values()}
    return {n: torch.stack([permutation(seed, frame, n) for frame in frames]) for n in tokens}


def _merge_rows(bank: Bank, seen: Features, update: BankUpdate, seed: int) -> Bank:
    index = torch.tensor(update.merged, device=next(iter(bank.values())).device)
    given = merge_orders(bank, seed, [update.ages[row] for row in update.merged])
    part = merge({n: t[index] for n, t in bank.items()}, {n: seen[n][index] for n in bank}, given)
    return {name: ring.index_copy(0, index, part[name]) for name, ring in bank.items()}
