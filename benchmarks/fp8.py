"""An experiment: a UNet that multiplies in 8-bit floating point (e4m3), by torch._scaled_mm (compute capability 8.9).

Weights are scaled once, activations at every call, each by its largest value. A 3x3 convolution is unfolded to a matrix
product, which reads its input nine times: whether that pays is what is to be measured.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST = 448.0  # of torch.float8_e4m3fn
_EIGHT = torch.float8_e4m3fn


def scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    """(values in e4m3, the float32 scale by which they are to be multiplied)."""
    scale = (values.abs().amax().float() / _LARGEST).clamp(min=1e-12)
    return (values / scale).clamp(-_LARGEST, _LARGEST).to(_EIGHT), scale


class Fp8Linear(nn.Module):
    """A linear layer in e4m3: [..., in] -> [..., out]; in and out are multiples of 16."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight [out, in]."""
        super().__init__()
        eight, scale = scaled(weight)
        self.register_buffer("weight", eight)
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        flat, scale = scaled(values.flatten(0, -2))
        out = torch._scaled_mm(
            flat, self.weight.t(), scale_a=scale, scale_b=self.scale, bias=self.bias, out_dtype=values.dtype
        )
        return torch.unflatten(out, 0, values.shape[:-1])


class Fp8Conv(nn.Module):
    """A convolution in e4m3, by unfolding: [rows, in, h, w] -> [rows, out, h', w']."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """conv: of equal steps and padding in both directions, without groups."""
        super().__init__()
        self.size, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.product = Fp8Linear(conv.weight.flatten(1), conv.bias)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        height, width = ((side + 2 * self.padding - self.size) // self.stride + 1 for side in values.shape[-2:])
        columns = F.unfold(values, self.size, padding=self.padding, stride=self.stride)  # [rows, in*size*size, places]
        out: Tensor = self.product(columns.transpose(1, 2)).transpose(1, 2)
        return torch.unflatten(out, 2, (height, width))


def to_fp8(module: nn.Module, *, convolutions: bool) -> None:
    """Replace, in place, linear layers and 1x1 convolutions, and with `convolutions` the larger ones too."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and _fits(child.in_features, child.out_features):
            setattr(module, name, Fp8Linear(child.weight, child.bias))
        elif isinstance(child, nn.Conv2d) and _plain(child) and (convolutions or child.kernel_size == (1, 1)):
            setattr(module, name, Fp8Conv(child))
        else:
            to_fp8(child, convolutions=convolutions)


def _plain(conv: nn.Conv2d) -> bool:
    square = conv.kernel_size[0] == conv.kernel_size[1] and conv.stride[0] == conv.stride[1]
    size = conv.kernel_size[0]
    return square and conv.groups == 1 and _fits(conv.in_channels * size * size, conv.out_channels)


def _fits(inner: int, outer: int) -> bool:
    return inner % 16 == 0 and outer % 16 == 0
