"""Muon for matrices and convolution kernels, Adam for everything else; the learning rate is given at each step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration on [n, rows, columns]: all singular values towards 1."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    out: Tensor = x.mT if tall else x
    return out


class Muon:
    """Muon on `matrices`, Adam on `others`; `state_dict` and `load_state_dict` make a run resumable."""

    def __init__(self, matrices: Iterable[Tensor], others: Iterable[Tensor], decay: float = 0.01) -> None:
        self.decay, self.count = decay, 0
        self.groups: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for weight in matrices:
            rows = weight.shape[0]
            self.groups[rows, weight.numel() // rows].append(weight)
        self.momentum = {shape: torch.zeros(len(ws), *shape, device=ws[0].device) for shape, ws in self.groups.items()}
        self.others = list(others)
        self.first = [torch.zeros_like(weight) for weight in self.others]
        self.second = [torch.zeros_like(weight) for weight in self.others]

    @torch.no_grad()
    def step(self, matrix_rate: float, other_rate: float) -> None:
        self.count += 1
        for shape, weights in self.groups.items():
            gradient = torch.stack(
                [torch.zeros(shape, device=w.device) if w.grad is None else w.grad.reshape(shape) for w in weights]
            )  # [n, rows, columns]
            momentum = self.momentum[shape].mul_(0.95).add_(gradient)
            update = orthogonalise(gradient + 0.95 * momentum) * (0.2 * max(shape) ** 0.5)
            for weight, change in zip(weights, update, strict=True):
                weight.mul_(1 - matrix_rate * self.decay).sub_((matrix_rate * change).reshape(weight.shape))
        for weight, first, second in zip(self.others, self.first, self.second, strict=True):
            if weight.grad is None:
                continue
            first.lerp_(weight.grad, 0.1)
            second.lerp_(weight.grad.square(), 0.02)
            scale = (1 - 0.98**self.count) ** 0.5 / (1 - 0.9**self.count)
            weight.sub_(other_rate * scale * first / (second.sqrt() + 1e-8))
        for weight in (*self.others, *(w for ws in self.groups.values() for w in ws)):
            weight.grad = None

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count, "momentum": self.momentum, "first": self.first, "second": self.second}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.count = state["count"]  # type: ignore[assignment]
        self.momentum, self.first, self.second = state["momentum"], state["first"], state["second"]  # type: ignore[assignment]


def split(weights: Mapping[str, Tensor], *, outside: tuple[str, ...] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters for Muon (matrices) and for Adam (vectors, embeddings, and names that start with `outside`)."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in weights.items():
        vector = weight.ndim < 2 or min(weight.shape[0], weight[0].numel()) < 4
        (others if vector or "embedding." in name or name.startswith(outside or ("\0",)) else matrices).append(weight)
    return matrices, others


def rate(part: float, warm: float = 0.02, fall_from: float = 0.4) -> float:
    """Learning rate over a run, `part` from 0 to 1: up, level, down to 0.02."""
    if part < warm:
        return 0.05 + 0.95 * part / warm
    return 1.0 if part < fall_from else max(0.02, (1 - part) / (1 - fall_from))
