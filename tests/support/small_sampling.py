"""A stream's sampling parameters for the models of small_models."""

from __future__ import annotations

from typing import Any

import torch

from core.algorithm import schedule as schedules
from core.algorithm.schedule import Prediction, Schedule
from core.algorithm.stream import SamplingParameters
from core.settings import Guidance, Policy
from tests.support.small_models import DEVICE, fixed_noise, random_text, scaled_linear_alphas


def sampling(
    policy: Policy,
    steps: int,
    guidance: Guidance = Guidance.NONE,
    prediction: Prediction = Prediction.EPSILON,
    **values: Any,
) -> SamplingParameters:
    own = SamplingParameters(
        rows=schedules.row_coefficients(
            Schedule(scaled_linear_alphas(), prediction=prediction), [599, 459, 299, 159][:steps], torch.float64, DEVICE
        ),
        noise=fixed_noise(7, steps),
        prediction=prediction,
        text=random_text(2)[None],
        negative_text=random_text(3)[None],
        guidance=guidance,
        scale=1.4,
        residual=0.8,
        policy=policy,
        interval=2,
        fusion_strength=0.75,
        threshold=0.6,
        seed=5,
    )
    return own._replace(**values)
