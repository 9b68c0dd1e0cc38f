"""Few-step schedules (LCM, turbo): which timesteps, how much noise, and back from a prediction to a clean latent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import SettingsError

_LCM_GRID = 50  # timesteps that an LCM was distilled on (arXiv 2310.04378, section 5.1)
_TIMESTEP_SCALING, _SIGMA_DATA = 10.0, 0.5  # of the boundary condition (LCM, section 3; diffusers LCMScheduler)


class ScheduleKind(StrEnum):
    """How a model was distilled."""

    LCM = "lcm"
    TURBO = "turbo"


class Prediction(StrEnum):
    """What the UNet predicts; diffusers' names."""

    EPSILON = "epsilon"
    V = "v_prediction"
    SAMPLE = "sample"


@dataclass(frozen=True)
class Schedule:
    """A model's noise schedule: alphas_cumprod [train timesteps], float64."""

    alphas_cumprod: Tensor
    kind: ScheduleKind = ScheduleKind.LCM
    prediction: Prediction = Prediction.EPSILON


class RowCoefficients(NamedTuple):
    """The noise schedule at each row's timestep: timesteps [rows] int64; the others [rows, 1, 1, 1]."""

    timesteps: Tensor
    alpha: Tensor  # square root of alphas_cumprod: how much picture
    sigma: Tensor  # square root of 1 - alphas_cumprod: how much noise
    skip: Tensor  # LCM's boundary condition: clean = out * x0 + skip * noisy
    out: Tensor

    def row(self, row: int) -> RowCoefficients:
        """Return the coefficients of that row only."""
        return RowCoefficients(*(t[row : row + 1] for t in self))


def timesteps(kind: ScheduleKind, steps: int, strength: float, train_timesteps: int = 1000) -> list[int]:
    """Return the timesteps of `steps` denoising steps, falling, the first at about strength * train_timesteps.

    LCM: as diffusers' LCMScheduler with original_inference_steps=50. Turbo: trailing spacing, as sd-turbo was trained,
    and for LCM where the strength leaves fewer of its 50 timesteps than steps.
    Raises SettingsError where it leaves fewer than steps of all.
    """
    available = int(_LCM_GRID * strength)
    if kind is ScheduleKind.LCM and available >= steps:
        stride = train_timesteps // _LCM_GRID
        falling = [step * stride - 1 for step in range(available, 0, -1)]
        return [falling[int(step * available / steps)] for step in range(steps)]
    span = train_timesteps * strength
    chosen = [round(span * (1 - step / steps)) - 1 for step in range(steps)]
    if len(set(chosen)) < steps or min(chosen) < 0:
        least = steps / train_timesteps
        raise SettingsError(f"strength is {strength:g}; {steps} steps need at least {least:g}")
    return chosen


def row_coefficients(
    schedule: Schedule, chosen: list[int], dtype: torch.dtype, device: torch.device
) -> RowCoefficients:
    """Return the coefficients of those timesteps."""
    t = torch.tensor(chosen)
    kept = schedule.alphas_cumprod[t]
    scaled = t.double() * _TIMESTEP_SCALING
    if schedule.kind is ScheduleKind.LCM:
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        out = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
    else:
        skip, out = torch.zeros_like(scaled), torch.ones_like(scaled)
    # the dtype first: not every device has float64
    shaped = [c.to(dtype).to(device).view(-1, 1, 1, 1) for c in (kept.sqrt(), (1 - kept).sqrt(), skip, out)]
    return RowCoefficients(t.to(device), *shaped)


def add_noise(step: RowCoefficients, clean: Tensor, noise: Tensor) -> Tensor:
    """Return the clean latents [rows, channels, h, w] with the noise of each row's timestep."""
    return step.alpha * clean + step.sigma * noise


def epsilon(kind: Prediction, step: RowCoefficients, noisy: Tensor, predicted: Tensor) -> Tensor:
    """Return the noise in `noisy` that a prediction of that kind means."""
    if kind is Prediction.EPSILON:
        return predicted
    if kind is Prediction.V:
        return step.alpha * predicted + step.sigma * noisy
    return (noisy - step.alpha * predicted) / step.sigma


def x0(kind: Prediction, step: RowCoefficients, noisy: Tensor, predicted: Tensor) -> Tensor:
    """Return the clean latents that a prediction of that kind means."""
    if kind is Prediction.EPSILON:
        return (noisy - step.sigma * predicted) / step.alpha
    if kind is Prediction.V:
        return step.alpha * noisy - step.sigma * predicted
    return predicted


def boundary(step: RowCoefficients, noisy: Tensor, estimate: Tensor) -> Tensor:
    """Return the consistency function's output for an estimate of the clean latent."""
    return step.out * estimate + step.skip * noisy
