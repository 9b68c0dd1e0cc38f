"""How alike tokens and the points between a bank's tokens are, on a CPU at once: less work than a graph does.

A graph multiplies, for each token, the nine tokens about its match with each other, by operators that every runtime
knows. But a point between tokens mixes only tokens that are next to each other, and a bank has just five kinds of such
pairs: what their products are is worked out once for all tokens, and a convolution makes the points' lengths of them.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from core.algorithm.bank import across_rows, gather_tokens

_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))  # rows and columns from a token to the other one of a pair


def cosines(similarity: Tensor, ring: Tensor, index: Tensor, nine: Tensor, shares: Tensor, width: int) -> Tensor:
    """Return the cosines [rows, tokens, points] of tokens and mixes of nine tokens of a ring.

    similarity: those of the tokens themselves, [rows, tokens, slots*tokens]; ring [rows, slots, tokens, channels], its
    tokens a grid of that width; index [rows, tokens] and nine [rows, tokens, 9]: each token's match, and the tokens
    about it; shares [points, 9]: core.algorithm.attention.subtoken_shares.
    """
    rows, slots, tokens, _ = ring.shape
    products = _products(ring, width)
    sizes = products[:, 0, 1:-1, 1:-1].reshape(rows, slots * tokens).sqrt()
    near = similarity.gather(2, nine) * sizes.gather(1, nine.flatten(1)).view(nine.shape)
    squares = F.conv2d(products, _kernel(shares.to(ring.dtype)))  # [rows*slots, points, height, width]
    lengths = squares.permute(0, 2, 3, 1).reshape(rows, slots * tokens, -1)
    found: Tensor = (near @ shares.to(ring.dtype).T) * gather_tokens(lengths, index).clamp_min_(1e-12).rsqrt_()
    return found


def mixes(ring: Tensor, nine: Tensor, shares: Tensor) -> Tensor:
    """Return the mixes [rows, tokens, channels] of nine tokens of a ring each: nine and shares [rows, tokens, 9]."""
    banked = ring.flatten(1, 2)
    rows, count, channels = banked.shape
    bags = across_rows(nine.flatten(1), count).view(-1, 9)
    weights = shares.to(ring.dtype).flatten(0, 1)
    mixed = F.embedding_bag(bags, banked.reshape(-1, channels), mode="sum", per_sample_weights=weights)
    return mixed.view(rows, -1, channels)


def _products(ring: Tensor, width: int) -> Tensor:
    """Return the products of each token and its neighbours, of a grid whose edges repeat.

    [rows*slots, kinds of pairs, height + 2, width + 2], 0 where there is no such neighbour.
    """
    rows, slots, tokens, channels = ring.shape
    height = tokens // width
    columns, lines = (torch.arange(-1, side + 1).clamp_(0, side - 1) for side in (width, height))
    there = (lines[:, None] * width + columns).flatten()
    wide = ring.flatten(0, 1)[:, there].view(rows * slots, height + 2, width + 2, channels)
    made = ring.new_zeros(rows * slots, len(_PAIRS), height + 2, width + 2).contiguous(
        memory_format=torch.channels_last  # a convolution then has a token's points side by side
    )
    for kind, (down, right) in enumerate(_PAIRS):
        first, last = max(0, -right), width + 2 - max(0, right)
        other = wide[:, down:, first + right : last + right]
        made[:, kind, : height + 2 - down, first:last] = (wide[:, : height + 2 - down, first:last] * other).sum(-1)
    return made


def _kernel(shares: Tensor) -> Tensor:
    """Return what makes the squared lengths of mixes of the products of pairs: [points, kinds of pairs, 3, 3]."""
    both = (shares[:, :, None] * shares[:, None]).flatten(1)  # [points, 81]
    return (both @ _places().to(shares.dtype)).view(-1, len(_PAIRS), 3, 3)


@lru_cache(maxsize=1)
def _places() -> Tensor:
    """Return how often each pair of nine tokens counts at each place of a kernel: [81, kinds of pairs * 9]."""
    found = torch.zeros(3, 3, 3, 3, len(_PAIRS), 3, 3)
    for kind, (down, right) in enumerate(_PAIRS):
        for y in range(3 - down):
            for x in range(max(0, -right), 3 - max(0, right)):
                found[y, x, y + down, x + right, kind, y, x] = 2 if kind else 1  # either way round
    return found.view(81, -1)
