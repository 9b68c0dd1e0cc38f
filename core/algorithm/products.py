"""Matrix products by oneDNN where that is quicker than what PyTorch does: float32 on AMD's processors with AVX-512.

There PyTorch's products come from MKL, which takes wide vectors on Intel's processors alone, and its convolutions from
oneDNN, which takes them everywhere: a product by oneDNN is 2.2 times as fast; on one thread, attention made of such
products 1.5 times (docs/benchmarks.md). Elsewhere, in other precisions, for graphs and for training, all is PyTorch's.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SCORES = 2**20  # of a block of queries, in float32: 4 MiB, which stay in the processor's cache until they are used up
_LEAST = 2**16  # scores of a head; for fewer, PyTorch's one call is quicker than several


@cache
def here() -> bool:
    """Return whether this machine is one where oneDNN multiplies float32 quicker."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return _on_amd() and _multiplies()


def _on_amd() -> bool:
    told, file = os.environ.get("PROCESSOR_IDENTIFIER", ""), Path("/proc/cpuinfo")  # Windows, Linux
    return "AuthenticAMD" in (file.read_text(encoding="utf-8", errors="replace") if file.is_file() else told)


def _multiplies() -> bool:
    """Return whether oneDNN's operator, which PyTorch keeps to itself and may change, still is a linear layer."""
    numbers = torch.arange(-10, 11, dtype=torch.float32, device="cpu")  # whole and small: no product is rounded
    given, weight, bias = numbers[:6].reshape(2, 3), numbers[6:].reshape(5, 3), numbers[:5]
    try:
        return all(torch.equal(_by_onednn(given, weight, b), F.linear(given, weight, b)) for b in (bias, None))
    except (TypeError, RuntimeError):  # other arguments or none of its; NotImplementedError is a RuntimeError
        return False


def at_once(given: Tensor) -> bool:
    """Return whether that tensor is numbers on a CPU, worked on now: no part of a graph, of a trace or of gradients."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return given.device.type == "cpu" and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def quick(given: Tensor) -> bool:
    """Return whether a product with that tensor is to be oneDNN's."""
    # what is traced becomes a graph of others' operators, and oneDNN's gives no gradients
    if not at_once(given) or given.dtype != torch.float32 or not here():
        return False
    return bool(torch.backends.mkldnn.enabled)  # the user's own switch; asked last, as it takes longest


def linear(given: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return given @ weight.T + bias: [..., in], [out, in] -> [..., out]."""
    if not quick(given):
        return F.linear(given, weight, bias)
    return _by_onednn(given, weight, bias)


def _by_onednn(given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(given, weight, bias, "none", [], "")
    return made


def with_each(one: Tensor, other: Tensor) -> Tensor:
    """Return the products of every row of one with every row of other: [n, a, c], [n, b, c] -> [n, a, b]."""
    if not quick(one):
        return one @ other.transpose(1, 2)
    return torch.stack([linear(a, b) for a, b in zip(one, other.contiguous(), strict=True)])


def most_alike(one: Tensor, other: Tensor) -> Tensor:
    """Return which row of other has the largest product with each row of one: [n, a, c], [n, b, c] -> int64 [n, a]."""
    if not at_once(one):
        return with_each(one, other).argmax(dim=-1)
    # in blocks, which are still in the processor's cache when their largest is looked for; the whole is never held
    blocks = torch.split(one, max(1, _SCORES // other.shape[1]), dim=1)
    return torch.cat([largest(with_each(block, other)) for block in blocks], dim=1)


def largest(scores: Tensor) -> Tensor:
    """Return where the largest of each row is, the first of several: [..., n] -> int64 [...]."""
    if not at_once(scores) or scores.dtype != torch.float32:
        return scores.argmax(dim=-1)
    return torch.from_numpy(scores.numpy().argmax(axis=-1))  # a quarter of PyTorch's time, and the same index


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Apply attention: query [n, heads, m, width], keys and values [n, heads, k, width] -> [n, m, heads, width]."""
    count, heads, tokens, width = query.shape
    # in this order: a graph's sizes are not known yet. Several threads would meet after each of many small products,
    # and on a busy machine wait each time for the one that has no core: PyTorch's attention meets once
    if not quick(query) or torch.get_num_threads() > 1 or tokens * keys.shape[2] < _LEAST:
        return F.scaled_dot_product_attention(query, keys, values).transpose(1, 2)
    scaled, keys, turned = query * width**-0.5, keys.contiguous(), values.transpose(2, 3).contiguous()
    made, block = query.new_empty(count, tokens, heads, width), max(1, _SCORES // keys.shape[2])
    for n in range(count):
        for head in range(heads):
            for begin in range(0, tokens, block):
                some = slice(begin, begin + block)
                shares = linear(scaled[n, head, some], keys[n, head]).softmax(-1)  # [block, k]
                made[n, some, head] = linear(shares, turned[n, head])
    return made


class QuickLinear(nn.Linear):
    """A linear layer, by `linear`; the weights are those of the layer that it stands for."""

    def __init__(self, layer: nn.Linear) -> None:
        """Take the layer's weights over."""
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, given: Tensor) -> Tensor:
        """Return [..., out] of [..., in]."""
        return linear(given, self.weight, self.bias)


def quicken_linears(net: nn.Module) -> None:
    """Let every linear layer of the net multiply by `linear`, in place; nothing changes where that is no quicker."""
    if not here():
        return
    for name, layer in list(net.named_modules()):
        if type(layer) is nn.Linear:
            net.set_submodule(name, QuickLinear(layer))
