"""Presets: how finely the engine draws, in words; and which one `auto` takes on a machine, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from core.settings import EngineSettings

ENOUGH = 15.0  # translated pictures a second that `auto` wants held
WORTH_A_TRY = 0.8  # share of ENOUGH that a sharper preset must be expected to make before it is tried


class Preset(StrEnum):
    """How finely the engine draws. auto: the sharpest that this machine holds ENOUGH pictures a second with."""

    AUTO = "auto"
    FAST = "fast"
    BALANCED = "balanced"
    FINE = "fine"
    SHARP = "sharp"


BY_SHARPNESS = (Preset.FAST, Preset.BALANCED, Preset.FINE, Preset.SHARP)
START = Preset.BALANCED  # of `auto`, on a machine that was not measured yet
# Sides of the square with as many pixels, in sides of the model's own: 192, 240, 336 and 384 lines in 4:3 of 256x256.
_SIDES = {
    Preset.FAST: Fraction(7, 8),
    Preset.BALANCED: Fraction(9, 8),
    Preset.FINE: Fraction(3, 2),
    Preset.SHARP: Fraction(7, 4),
}


class Own(NamedTuple):
    """What a model was made for: pixels of a side, denoising steps."""

    width: int
    height: int
    steps: int


def graded(preset: Preset, own: Own) -> Own:
    """Return the size, in the shape of the model's own, and the steps of a preset; `auto` is none."""
    side = _SIDES[preset]
    steps = own.steps if preset is Preset.SHARP else max(1, own.steps // 2)
    return Own(_multiple(own.width * side), _multiple(own.height * side), steps)


def _multiple(side: Fraction) -> int:
    return min(2048, max(64, round(side / 16) * 16))


def cost(settings: EngineSettings) -> float:
    """Return about how long a picture takes, in any unit: the autoencoder and each step cost by the pixels."""
    return settings.width * settings.height * (1 + settings.steps)


def next_preset(now: Preset, rates: Mapping[Preset, float], expected: Mapping[Preset, float]) -> Preset:
    """Return what `auto` takes after it has measured `now`: one rung up or down, or `now`, which is the answer then.

    rates: pictures a second, of what was measured. expected: of the others, as far as it can be told. A rung that was
    measured is not tried again, so this ends.
    """
    rung = BY_SHARPNESS.index(now)
    if rates[now] < ENOUGH:
        return BY_SHARPNESS[max(0, rung - 1)]
    above = BY_SHARPNESS[min(len(BY_SHARPNESS) - 1, rung + 1)]
    worth = above not in rates and expected.get(above, ENOUGH) >= WORTH_A_TRY * ENOUGH
    return above if worth else now


def expectations(
    now: Preset, rate: float, costs: Mapping[Preset, float], before: Mapping[Preset, float]
) -> dict[Preset, float]:
    """Return the pictures a second that each preset may make, by the one that was just measured.

    costs: see `cost`. before: what this machine made in an earlier run, which tells better how the presets compare.
    """
    known = before.get(now)
    return {
        other: rate * (before[other] / known if known and other in before else costs[now] / costs[other])
        for other in BY_SHARPNESS
    }
