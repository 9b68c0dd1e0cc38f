"""Presets: sizes by shape, who goes before whom, what `auto` climbs to, and what is kept of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import EngineSettings
from vcam.settings.engine_options import EngineOptions, engine_settings, preset_of
from vcam.settings.presets import BY_SHARPNESS, ENOUGH, START, Own, Preset, cost, expectations, graded, next_preset
from vcam.settings.run_options import RunOptions
from vcam.settings.speeds import FILE, Speed, place, remember, remembered

FAST, BALANCED, FINE, SHARP = BY_SHARPNESS
FOUR_THIRDS, WIDE = (640, 480), (1280, 720)


def size(*asked: EngineOptions, shape: tuple[int, int] = FOUR_THIRDS) -> tuple[int, int, int]:
    found = engine_settings(*asked, shape=shape, automatic={"embedded": SHARP})
    return found.width, found.height, found.steps


@pytest.mark.parametrize(
    ("preset", "shape", "wanted"),
    [
        (FAST, FOUR_THIRDS, (256, 192, 1)),
        (BALANCED, FOUR_THIRDS, (320, 240, 1)),
        (FINE, FOUR_THIRDS, (448, 336, 1)),
        (SHARP, FOUR_THIRDS, (512, 384, 2)),
        (FAST, WIDE, (288, 160, 1)),
        (BALANCED, WIDE, (400, 224, 1)),
        (FINE, WIDE, (512, 288, 1)),
        (SHARP, WIDE, (592, 336, 2)),
        (BALANCED, (480, 640), (240, 320, 1)),
    ],
)
def test_a_preset_has_its_pixels_in_the_shape_of_what_is_published(
    preset: Preset, shape: tuple[int, int], wanted: tuple[int, int, int]
) -> None:
    assert size(EngineOptions(preset=preset), shape=shape) == wanted


def test_each_preset_costs_more_than_the_one_before_whatever_the_model() -> None:
    for own in (Own(256, 256, 2), Own(512, 512, 4), Own(512, 512, 1), Own(768, 512, 8)):
        costs = [cost(EngineSettings(width=one.width, height=one.height, steps=one.steps)) for one in made(own)]
        assert all(before < after for before, after in pairwise(costs))


def made(own: Own) -> list[Own]:
    return [graded(preset, own) for preset in BY_SHARPNESS]


def test_a_preset_goes_before_what_was_asked_of_the_size_below_it_and_after_what_is_asked_beside_it() -> None:
    profile = EngineOptions(width=640, height=320, steps=4)
    assert size(EngineOptions(preset=FAST), profile) == (256, 192, 1)
    assert size(EngineOptions(steps=3), EngineOptions(preset=FAST)) == (256, 192, 3)
    assert size(EngineOptions(preset=FAST, width=128, height=96)) == (128, 96, 1)
    assert size(profile, EngineOptions(preset=FAST)) == (640, 320, 4)
    assert size(profile) == (640, 320, 4)
    assert size(EngineOptions(width=128, height=96)) == (128, 96, 2), "a size alone: the model's own steps"


def test_auto_is_what_the_machine_was_measured_for_and_offline_the_models_own() -> None:
    assert size() == size(EngineOptions(preset=Preset.AUTO)) == size(EngineOptions(preset=SHARP))
    assert engine_settings(shape=FOUR_THIRDS, automatic={}) == engine_settings(
        EngineOptions(preset=START), shape=FOUR_THIRDS
    )
    own = engine_settings(EngineOptions(preset=Preset.AUTO))
    assert (own.width, own.height, own.steps) == (256, 256, 2)


def test_a_size_leaves_no_preset_to_choose() -> None:
    assert preset_of(EngineOptions(steps=1)) is Preset.AUTO
    assert preset_of(EngineOptions(width=64)) is None
    assert preset_of(EngineOptions(preset=FAST), EngineOptions(width=64)) is FAST
    assert preset_of(EngineOptions(height=64), EngineOptions(preset=FAST)) is None


speeds = st.floats(0.1, 100)


@given(speeds, speeds, speeds, speeds, st.sampled_from(BY_SHARPNESS))
def test_auto_ends_at_the_sharpest_that_is_quick_enough_of_what_it_tried(
    fast: float, balanced: float, fine: float, sharp: float, first: Preset
) -> None:
    true = dict(zip(BY_SHARPNESS, sorted((fast, balanced, fine, sharp), reverse=True), strict=True))
    rates: dict[Preset, float] = {}
    now = first
    while now not in rates:
        rates[now] = true[now]
        now = next_preset(now, rates, true)
    assert len(rates) <= len(BY_SHARPNESS)
    enough = [preset for preset in BY_SHARPNESS if true[preset] >= ENOUGH]
    assert now is (enough[-1] if enough else FAST)


def test_what_cannot_be_quick_enough_is_not_tried() -> None:
    costs = {FAST: 1.0, BALANCED: 2.0, FINE: 8.0, SHARP: 16.0}
    assert next_preset(BALANCED, {BALANCED: 20.0}, expectations(BALANCED, 20.0, costs, {})) is BALANCED
    assert next_preset(BALANCED, {BALANCED: 60.0}, expectations(BALANCED, 60.0, costs, {})) is FINE
    # an earlier run tells better than the arithmetic how the presets compare
    before = {BALANCED: 10.0, FINE: 9.0}
    assert next_preset(BALANCED, {BALANCED: 20.0}, expectations(BALANCED, 20.0, costs, before)) is FINE
    refused = {BALANCED: 60.0, FINE: 0.0}
    assert next_preset(BALANCED, {BALANCED: 60.0}, expectations(BALANCED, 60.0, costs, refused)) is BALANCED


def test_what_was_measured_is_kept_by_machine_model_and_runtime(tmp_path: Path) -> None:
    here = place(RunOptions())
    speed = Speed(SHARP, "onnx", {BALANCED: 30.0, SHARP: 16.5})
    remember(tmp_path, here, "embedded", speed)
    remember(tmp_path, here, "other", Speed(FAST, "eager", {}))
    assert remembered(tmp_path, here) == {"embedded": speed, "other": Speed(FAST, "eager", {})}
    for other in (
        RunOptions(threads=17),
        RunOptions(size=WIDE),
        RunOptions(engine=EngineOptions(device="cuda")),
        RunOptions(machine=EngineOptions(dtype="float64")),
    ):
        assert place(other) != here
        assert remembered(tmp_path, place(other)) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"PLACE": []}',
        '{"PLACE": {"a": 1}}',
        '{"PLACE": {"a": {"preset": "auto", "rates": {}}}}',
        "[" * 9999,
    ],
)
def test_a_file_that_was_spoiled_means_another_measurement(tmp_path: Path, content: str) -> None:
    here = place(RunOptions())
    (tmp_path / FILE).write_text(content.replace("PLACE", here), encoding="utf-8")
    assert remembered(tmp_path, here) == {}
    remember(tmp_path, here, "embedded", Speed(FAST, "onnx", {}))
    assert remembered(tmp_path, here)["embedded"].preset is FAST
