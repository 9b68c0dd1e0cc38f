"""core.algorithm.schedule against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from hypothesis import given
from hypothesis import strategies as st

from core.algorithm import schedule
from core.algorithm.schedule import Prediction, RowCoefficients, Schedule, ScheduleKind
from core.errors import SettingsError
from tests.support.small_models import scaled_linear_alphas

ALPHAS = scaled_linear_alphas()
F64, CPU = torch.float64, torch.device("cpu")
timesteps_chosen = st.lists(st.integers(0, 999), min_size=1, max_size=6)


def lcm(prediction: Prediction = Prediction.EPSILON) -> LCMScheduler:
    made: LCMScheduler = LCMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction.value
    )
    return made


def of(chosen: list[int], kind: ScheduleKind = ScheduleKind.LCM) -> RowCoefficients:
    return schedule.row_coefficients(Schedule(ALPHAS, kind), chosen, F64, CPU)


@pytest.mark.parametrize("steps", range(1, 17))
def test_lcm_timesteps_are_those_of_diffusers_at_every_strength(steps: int) -> None:
    theirs = lcm()
    for percent in range(2, 101):
        strength = percent / 100
        try:
            theirs.set_timesteps(steps, strength=strength, original_inference_steps=50)
        except ValueError:
            finer = schedule.timesteps(ScheduleKind.LCM, steps, strength)  # what they refuse is promised here
            assert finer == schedule.timesteps(ScheduleKind.TURBO, steps, strength)
            assert finer == sorted(set(finer), reverse=True)
            assert 0 <= finer[-1] <= finer[0] < 1000 * strength
        else:
            assert schedule.timesteps(ScheduleKind.LCM, steps, strength) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", range(1, 17))
def test_turbo_timesteps_are_trailing_as_diffusers_spaces_them(steps: int) -> None:
    for percent in range(2, 101, 7):
        span = 10 * percent
        theirs = EulerDiscreteScheduler(timestep_spacing="trailing", num_train_timesteps=span)
        theirs.set_timesteps(steps)
        expected = [int(t) for t in theirs.timesteps if t >= 0]  # its arange sometimes runs one over the end
        chosen = schedule.timesteps(ScheduleKind.TURBO, steps, percent / 100)
        assert len(chosen) == len(expected)
        for step, (ours, theirs_) in enumerate(zip(chosen, expected, strict=True)):
            halfway = (2 * span * (steps - step)) % steps == 0 and (2 * span * (steps - step) // steps) % 2
            assert ours == theirs_ or (halfway and abs(ours - theirs_) == 1)


def test_sd_turbos_own_timesteps() -> None:
    assert schedule.timesteps(ScheduleKind.TURBO, 1, 1.0) == [999]
    assert schedule.timesteps(ScheduleKind.TURBO, 4, 1.0) == [999, 749, 499, 249]
    assert schedule.timesteps(ScheduleKind.LCM, 4, 1.0) == [999, 759, 499, 259]


@given(st.sampled_from(ScheduleKind), st.integers(1, 16), st.floats(0, 1, allow_subnormal=False))
def test_timesteps_fall_and_stay_in_the_schedule_or_are_refused(
    kind: ScheduleKind, steps: int, strength: float
) -> None:
    try:
        chosen = schedule.timesteps(kind, steps, strength)
    except SettingsError as error:
        least = float(str(error).rpartition(" ")[2])
        assert strength < least + 1e-3
        assert len(schedule.timesteps(kind, steps, least)) == steps  # what the message asks for is enough
    else:
        assert len(chosen) == steps
        assert chosen == sorted(set(chosen), reverse=True)
        assert chosen[-1] >= 0
        assert chosen[0] <= 1000 * strength


@given(st.sampled_from(ScheduleKind), st.integers(1, 8), st.floats(0.2, 1), st.floats(0.2, 1))
def test_more_strength_never_starts_with_less_noise(kind: ScheduleKind, steps: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert schedule.timesteps(kind, steps, low)[0] <= schedule.timesteps(kind, steps, high)[0]


def test_noise_is_added_as_diffusers_does() -> None:
    chosen = [0, 19, 259, 499, 999]
    clean, noise = torch.randn(2, len(chosen), 4, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    expected = lcm().add_noise(clean, noise, torch.IntTensor(chosen))
    torch.testing.assert_close(schedule.add_noise(of(chosen), clean, noise), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("timestep", [19, 259, 499, 999])
def test_an_lcm_step_is_that_of_diffusers(prediction: Prediction, timestep: int) -> None:
    theirs = lcm(prediction)
    theirs.set_timesteps(timesteps=[timestep])
    generator = torch.Generator().manual_seed(timestep)
    noisy, predicted = torch.randn(2, 1, 4, 3, 2, dtype=F64, generator=generator)
    _, expected = theirs.step(predicted, timestep, noisy, return_dict=False)
    step = of([timestep])
    ours = schedule.boundary(step, noisy, schedule.x0(prediction, step, noisy, predicted))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_turbo_step_is_eulers_estimate_of_the_clean_latent() -> None:
    theirs = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing"
    )
    theirs.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    noisy, predicted = torch.randn(2, 1, 4, 3, 2, generator=generator)
    for index, timestep in enumerate(theirs.timesteps):
        step = of([int(timestep)], ScheduleKind.TURBO)
        # Euler counts in sigma / alpha, so its sample is ours divided by alpha
        expected = theirs.step(predicted, timestep, noisy / step.alpha.float()).pred_original_sample
        ours = schedule.boundary(step, noisy, schedule.x0(Prediction.EPSILON, step, noisy.double(), predicted))
        torch.testing.assert_close(ours.float(), expected, atol=1e-4, rtol=1e-3)
        assert theirs.step_index == index + 1


@given(timesteps_chosen, st.integers(0, 2**31))
def test_the_three_predictions_mean_the_same(chosen: list[int], seed: int) -> None:
    clean, noise = torch.randn(2, len(chosen), 2, 1, 1, dtype=F64, generator=torch.Generator().manual_seed(seed))
    step = of(chosen)
    noisy = schedule.add_noise(step, clean, noise)
    velocity = step.alpha * noise - step.sigma * clean
    for kind, predicted in ((Prediction.EPSILON, noise), (Prediction.V, velocity), (Prediction.SAMPLE, clean)):
        torch.testing.assert_close(schedule.x0(kind, step, noisy, predicted), clean)
        torch.testing.assert_close(schedule.epsilon(kind, step, noisy, predicted), noise)


@given(timesteps_chosen, st.sampled_from(ScheduleKind))
def test_coefficients_keep_the_variance_and_turbo_has_no_boundary(chosen: list[int], kind: ScheduleKind) -> None:
    rows = of(chosen, kind)
    torch.testing.assert_close(rows.alpha**2 + rows.sigma**2, torch.ones_like(rows.alpha))
    if kind is ScheduleKind.TURBO:
        assert (rows.skip == 0).all()
        assert (rows.out == 1).all()
    for index, timestep in enumerate(chosen):
        for all_rows, one in zip(rows.row(index), of([timestep], kind), strict=True):
            assert torch.equal(all_rows, one)


def test_the_boundary_gives_back_a_picture_without_noise() -> None:
    noisy = torch.randn(1, 4, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    clean = schedule.boundary(of([0]), noisy, torch.zeros_like(noisy))
    assert torch.equal(clean, noisy)


def test_rows_have_the_dtype_asked_for() -> None:
    rows = schedule.row_coefficients(Schedule(ALPHAS), [999, 19], torch.float16, CPU)
    assert [t.dtype for t in rows] == [torch.int64, *[torch.float16] * 4]
    assert [tuple(t.shape) for t in rows] == [(2,), *[(2, 1, 1, 1)] * 4]
    assert all(t.isfinite().all() for t in rows)
