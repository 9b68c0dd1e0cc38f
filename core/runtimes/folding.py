"""Chains of convolutions without a nonlinearity between them, folded into one convolution each; exactly.

An AutoencoderTiny whose outer levels have no blocks is such a chain there: its full-resolution features, which take
most of the time on a CPU, need not be computed. One convolution equals the chain except where the chain pads features
with zeros; so the outermost rows and columns are computed by the chain itself, on narrow strips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WORTH = 0.5  # of the multiplications: a shuffle of the phases, the edges and a wide kernel cost too


@dataclass(frozen=True)
class Conv:
    """A convolution of a chain, `same`-padded; weight and bias are names."""

    weight: str
    bias: str | None
    kernel: int
    stride: int


@dataclass(frozen=True)
class Chain:
    """Nearest-neighbour upsampling by `upsampling` (1: none), then convolutions; with an upsampling all of stride 1."""

    upsampling: int
    convs: tuple[Conv, ...]

    @property
    def stride(self) -> int:
        """The stride of the one convolution that equals the chain."""
        return math.prod(conv.stride for conv in self.convs)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"upsampling": self.upsampling, "convs": [list(vars(conv).values()) for conv in self.convs]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Chain:
        """Return the chain of that JSON. Raises KeyError, TypeError."""
        return Chain(int(values["upsampling"]), tuple(Conv(*conv) for conv in values["convs"]))


def compose(chain: Chain, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (weight, bias) of the one convolution, in the weights' dtype [out * upsampling^2, in, width, width].

    The phases of the upsampling come last in `out`. Computed in float64.
    """
    dtype = weights[chain.convs[0].weight].dtype

    def one(conv: Conv) -> tuple[Tensor, Tensor]:
        weight = weights[conv.weight].double()
        bias = torch.zeros(len(weight), dtype=torch.float64) if conv.bias is None else weights[conv.bias].double()
        return weight, bias

    weight, bias = one(chain.convs[0])
    stride = chain.convs[0].stride
    for conv in chain.convs[1:]:
        after, added = one(conv)
        bias = torch.einsum("omyx,m->o", after, bias) + added
        # out[c] = sum over b of after[b] * before[c - stride * b], which is what a transposed convolution sums
        weight = F.conv_transpose2d(after, weight, stride=stride)
        stride *= conv.stride
    if chain.upsampling == 1:
        return weight.to(dtype), bias.to(dtype)
    reach, kernel = _reach(chain), weight.shape[-1]
    gather = torch.zeros(chain.upsampling, 2 * reach + 1, kernel, dtype=torch.float64)
    for phase in range(chain.upsampling):
        for at in range(kernel):
            gather[phase, (phase - kernel // 2 + at) // chain.upsampling + reach, at] = 1
    weight = torch.einsum("ayp,bxq,oipq->oabiyx", gather, gather, weight).flatten(0, 2)
    return weight.to(dtype), bias.repeat_interleave(chain.upsampling**2).to(dtype)


def _kernel(chain: Chain) -> int:
    size, stride = 1, 1
    for conv in chain.convs:
        size, stride = size + (conv.kernel - 1) * stride, stride * conv.stride
    return size


def _reach(chain: Chain) -> int:
    """Return how many pixels of the input the one convolution looks at to either side."""
    return -(-(_kernel(chain) // 2) // chain.upsampling)


def _field(chain: Chain, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last index that outputs first..last look at, of each convolution's input, the last first."""
    for conv in reversed(chain.convs):
        half = conv.kernel // 2
        first, last = first * conv.stride - half, last * conv.stride + half
        yield first, last


class Edges(NamedTuple):
    """One side's edge: how many outputs the one convolution gets wrong, and how many inputs decide them."""

    outputs: int
    inputs: int


def edges(chain: Chain) -> tuple[Edges, Edges]:
    """Return the edges at the low and at the high side, for inputs whose size the stride divides."""
    size = 64 * chain.stride  # any that is larger than both edges together
    sizes = [size * chain.upsampling]
    for conv in chain.convs:
        sizes.append(sizes[-1] // conv.stride)

    def wrong(output: int) -> bool:
        # the first input's padding is the one convolution's own
        inner = zip(list(_field(chain, output, output))[:-1], reversed(sizes[1:-1]), strict=True)
        return any(first < 0 or last >= count for (first, last), count in inner)

    low = next(n for n in range(size) if not wrong(n))
    high = next(n for n in range(size) if not wrong(sizes[-1] - 1 - n))
    unit = chain.stride
    reach = list(_field(chain, 0, low - 1))[-1][1] // chain.upsampling
    begin = list(_field(chain, sizes[-1] - high, sizes[-1] - 1))[-1][0] // chain.upsampling
    return Edges(low, (reach // unit + 1) * unit if low else 0), Edges(high, size - begin // unit * unit if high else 0)


class Folded(nn.Module):
    """A chain of modules as one convolution, with the same results."""

    def __init__(self, chain: Chain, original: nn.Sequential, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.chain = chain
        self.original = original
        # worked out here: torch.compile, which sees `forward`, takes plain numbers and refuses math.prod of a generator
        self.stride, self.padding, self.upsampling = chain.stride, _reach(chain), chain.upsampling
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.edges = edges(chain)

    def forward(self, picture: Tensor) -> Tensor:
        """Convolve a picture [1, channels, height, width]; height and width are multiples of the chain's stride."""
        inner = self._inner(picture)
        height, width = inner.shape[2:]
        low, high = self.edges
        first, last = slice(0, low.outputs), slice(-high.outputs, None)
        middle = inner[:, :, low.outputs : height - high.outputs, low.outputs : width - high.outputs]
        rows = slice(low.outputs, height - high.outputs)
        columns = [middle]
        if low.outputs:
            columns.insert(0, self.original(picture[:, :, :, : low.inputs])[:, :, rows, first])
        if high.outputs:
            columns.append(self.original(picture[:, :, :, -high.inputs :])[:, :, rows, last])
        parts = [torch.cat(columns, dim=3)]
        if low.outputs:
            parts.insert(0, self.original(picture[:, :, : low.inputs])[:, :, first])
        if high.outputs:
            parts.append(self.original(picture[:, :, -high.inputs :])[:, :, last])
        return torch.cat(parts, dim=2)

    def _inner(self, picture: Tensor) -> Tensor:
        if self.upsampling == 1:
            return F.conv2d(picture, self.weight, self.bias, stride=self.stride, padding=self.padding)
        found = F.conv2d(picture, self.weight, self.bias, padding=self.padding)
        return F.pixel_shuffle(found, self.upsampling)


def fold(layers: nn.Sequential, prefix: str) -> tuple[nn.Sequential, dict[str, Chain]]:
    """Fold every chain of the layers that is cheaper so; return the layers, and the chains by their modules' names.

    prefix: the name of `layers`, with which the names of the chains' weights begin.
    """
    children = list(layers.named_children())
    folded: list[nn.Module] = []
    chains: dict[str, Chain] = {}
    at = 0
    while at < len(children):
        end = _longest(children, at, prefix)
        if end is None:
            folded.append(children[at][1])
            at += 1
            continue
        chain = _chain(children[at:end], prefix)
        assert chain is not None
        weights = {f"{prefix}.{name}": value.detach() for name, value in layers.named_parameters()}
        original = nn.Sequential(*(module for _, module in children[at:end]))
        chains[f"{prefix}.{children[at][0]}-{children[end - 1][0]}"] = chain
        folded.append(Folded(chain, original, *compose(chain, weights)))
        at = end
    return nn.Sequential(*folded), chains


def _longest(children: Sequence[tuple[str, nn.Module]], at: int, prefix: str) -> int | None:
    for end in range(len(children), at + 1, -1):
        chain = _chain(children[at:end], prefix)
        if chain is not None and _pays(chain, [module for _, module in children[at:end]]):
            return end
    return None


def _chain(children: Sequence[tuple[str, nn.Module]], prefix: str) -> Chain | None:
    """Return the chain that the modules are, if they are one."""
    upsampling, convs = 1, []
    for place, (name, module) in enumerate(children):
        if isinstance(module, nn.Upsample) and place == 0 and module.mode == "nearest":
            upsampling = int(float(module.scale_factor or 1))  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv2d) and plain(module) and (upsampling == 1 or module.stride == (1, 1)):
            bias = None if module.bias is None else f"{prefix}.{name}.bias"
            convs.append(Conv(f"{prefix}.{name}.weight", bias, module.kernel_size[0], module.stride[0]))
        else:
            return None
    return Chain(upsampling, tuple(convs)) if convs else None


def plain(conv: nn.Conv2d) -> bool:
    """Return whether it is an ordinary convolution, square and padded with zeros to the same size."""
    size = conv.kernel_size[0]
    return (
        conv.kernel_size == (size, size)
        and size % 2 == 1
        and conv.padding == (size // 2, size // 2)
        and conv.stride[0] == conv.stride[1]
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _pays(chain: Chain, modules: Sequence[nn.Module]) -> bool:
    """Return whether the one convolution is quicker than the chain, by the multiplications of both."""
    convs = [module for module in modules if isinstance(module, nn.Conv2d)]
    shrunk = [math.prod(conv.stride for conv in chain.convs[: n + 1]) for n in range(len(convs))]
    apart = sum(conv.weight.numel() * (chain.upsampling / by) ** 2 for conv, by in zip(convs, shrunk, strict=True))
    ends = convs[0].in_channels * convs[-1].out_channels
    together = (2 * _reach(chain) + 1) ** 2 * ends * (chain.upsampling / chain.stride) ** 2
    return together < _WORTH * apart
