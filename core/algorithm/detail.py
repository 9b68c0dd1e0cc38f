"""The detail stage: what a small decoder has lost, given back from the picture that was translated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(given: int, made: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(given, made, size, stride, size // 2)


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


QUIET = 2.0  # levels of 255 that a sensor's noise changes the mean of some pixels by
MOVES = 12.0  # levels over that, from which on a change is taken as it is
LEAST = 0.2  # share of the new picture where nothing but noise is seen


def steadied(picture: Tensor, before: Tensor) -> Tensor:
    """Return the picture, less its sensor's noise where it is as it was before; both uint8 [height, width, 3]."""
    was = before.float().permute(2, 0, 1)[None]
    change = picture.float().permute(2, 0, 1)[None] - was
    seen = F.avg_pool2d(F.avg_pool2d(change, 2).abs().mean(1, keepdim=True), 3, 1, 1)
    share = _twice(((seen - QUIET) / MOVES).clamp(LEAST, 1))
    levels = (was + share * change).round().clamp(0, 255)
    return levels[0].permute(1, 2, 0).contiguous().to(torch.uint8)


class Detail(nn.Module):
    """Translation and source [n, 3, h, w], -1..1, to the translation with its detail; sides are multiples of 8.

    The full resolution sees few filters; which of them matter, and where, is decided at a half, a quarter and an eighth
    of it, and by the mean of the whole picture, which knows the style. It begins as the identity.
    """

    def __init__(self, full: int = 16, half: int = 32, quarter: int = 32, eighth: int = 48, whole: int = 64) -> None:
        super().__init__()
        self.widths = {"full": full, "half": half, "quarter": quarter, "eighth": eighth, "whole": whole}
        self.enter = _conv(6, full)
        self.to_half, self.to_quarter = _conv(full, half, stride=2), _conv(half, quarter, stride=2)
        self.to_eighth = _conv(quarter, eighth, stride=2)
        self.eighth = nn.ModuleList([_conv(eighth, eighth) for _ in range(2)])
        self.whole = nn.Sequential(nn.Linear(eighth, whole), nn.ReLU(), nn.Linear(whole, 2 * eighth))
        self.from_eighth, self.quarter = _conv(eighth, quarter, 1), _conv(quarter, quarter)
        self.gate_half, self.gate_full = _conv(quarter, 2 * half, 1), _conv(half, 2 * full, 1)
        self.full, self.leave = _conv(full, full), _conv(full, 3)
        for weight in self.leave.parameters():
            nn.init.zeros_(weight)

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        """Return the translation with its detail, both -1..1."""
        full = F.relu(self.enter(torch.cat([picture, source], 1)))
        half = F.relu(self.to_half(full))
        quarter = F.relu(self.to_quarter(half))
        eighth = F.relu(self.to_eighth(quarter))
        for layer in self.eighth:
            eighth = eighth + F.relu(layer(eighth))
        gain, shift = self.whole(eighth.mean((2, 3)))[:, :, None, None].chunk(2, 1)
        quarter = F.relu(quarter + _twice(self.from_eighth(eighth * (1 + gain) + shift)))
        quarter = quarter + F.relu(self.quarter(quarter))
        gain, shift = _twice(self.gate_half(quarter)).chunk(2, 1)
        half = F.relu(half * (1 + gain) + shift)
        gain, shift = _twice(self.gate_full(half)).chunk(2, 1)
        full = F.relu(full * (1 + gain) + shift)
        full = full + F.relu(self.full(full))
        out: Tensor = picture + self.leave(full)
        return out
