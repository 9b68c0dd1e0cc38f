"""core.settings: what is taken, and what is said to each value that is not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.settings import (
    BANK_RULES,
    BankedFeature,
    BankPreset,
    BankRules,
    EngineSettings,
    Filling,
    FusionPlace,
    Guidance,
    Look,
    Lora,
    OnSwitch,
    Policy,
    RowClock,
    Runtime,
    Split,
    in_range,
    names,
)

NAN, INFINITE = float("nan"), float("inf")
LOOK_RANGES = {
    "strength": (0.02, 1),
    "guidance": (0, 30),
    "residual": (0, 2),
    "fusion_strength": (0, 1),
    "similarity_threshold": (-1, 1),
    "steady": (0, 0.9),
    "skip_difference": (0, 255),
    "wander": (0, 90),
}
LOOK_WHOLES = {"seed": (0, 2**32 - 1), "interval": (1, 1000), "refresh": (0, 1_000_000), "skip_limit": (0, 100_000)}
ENGINE_WHOLES = {"width": (64, 2048), "height": (64, 2048), "steps": (1, 16), "slots": (1, 16)}
NOT_NUMBERS: list[Any] = [True, False, "0.5", [0.5], {}, 1j]


def made(kind: type, **values: Any) -> Any:
    return kind(**values)


def refused(kind: type, **values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        kind(**values)
    (name,) = values
    message = str(caught.value)
    assert name in message
    assert repr(values[name]) in message
    assert "\n" not in message
    assert "must be" in message
    return message


def test_the_defaults_are_allowed_and_frozen() -> None:
    for value in (EngineSettings(), Look(), Lora("a.safetensors")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.weight = 3  # type: ignore[misc, union-attr]
        assert hash(value) == hash(dataclasses.replace(value))


@pytest.mark.parametrize(("name", "ends"), LOOK_RANGES.items())
def test_a_looks_numbers_have_ranges(name: str, ends: tuple[float, float]) -> None:
    low, high = ends
    for value in (low, high, (low + high) / 2):
        assert getattr(made(Look, **{name: value}), name) == value
    for value in (math.nextafter(low, -INFINITE), math.nextafter(high, INFINITE), NAN, INFINITE, -INFINITE, 10**400):
        assert f"between {low:g} and {high:g}" in refused(Look, **{name: value})
    for value in NOT_NUMBERS:
        refused(Look, **{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "ends"),
    [(Look, n, e) for n, e in LOOK_WHOLES.items()] + [(EngineSettings, n, e) for n, e in ENGINE_WHOLES.items()],
)
def test_whole_numbers_have_ranges(kind: type, name: str, ends: tuple[int, int]) -> None:
    for value in ends:
        assert getattr(kind(**{name: value}), name) == value
    for value in (ends[0] - 1, ends[1] + 1, -(10**400), 10**400, 64.0, NAN, *NOT_NUMBERS):
        refused(kind, **{name: value})


def test_a_refresh_is_complete_before_the_next_begins() -> None:
    assert Look(refresh=9).refresh == 9
    for value in (1, 8):
        assert "over 8" in refused(Look, refresh=value)


@given(st.integers(64, 2048))
def test_sizes_are_multiples_of_sixteen(size: int) -> None:
    for name in ("width", "height"):
        if size % 16:
            assert "multiple of 16" in refused(EngineSettings, **{name: size})
        else:
            assert getattr(made(EngineSettings, **{name: size}), name) == size


@given(st.floats(), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_range_takes_what_lies_in_it_and_nothing_else(value: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if low <= value <= high:
        in_range("x", value, low, high)
    else:
        with pytest.raises(SettingsError, match=r"^x is "):
            in_range("x", value, low, high)


@pytest.mark.parametrize("value", [None, 3, b"ink", ["ink"], "\ud83d", "ink \udcff"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(Look, "prompt"), (Look, "negative_prompt"), (EngineSettings, "model"), (EngineSettings, "device")],
)
def test_texts_are_texts(kind: type, name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is "):
        kind(**{name: value})


def test_any_language_is_a_text() -> None:
    assert Look(prompt="水墨画, ein Gemälde 🎨").prompt.endswith("🎨")


@pytest.mark.parametrize(
    ("kind", "name", "choices"),
    [
        (EngineSettings, "policy", Policy),
        (EngineSettings, "guidance", Guidance),
        (EngineSettings, "runtime", Runtime),
        (Look, "on_switch", OnSwitch),
        (BankRules, "place", FusionPlace),
        (BankRules, "keeps", BankedFeature),
        (BankRules, "filling", Filling),
        (BankRules, "clock", RowClock),
        (BankRules, "split", Split),
    ],
)
def test_a_choice_is_one_of_its_kind(kind: type, name: str, choices: Any) -> None:
    for choice in choices:
        assert getattr(kind(**{name: choice}), name) is choice
        refused(kind, **{name: str(choice.value)})  # equal to the choice, but no `is` would find it
    for value in ("nonsense", None, 0, True):
        message = refused(kind, **{name: value})
        assert all(choice in message for choice in choices)


@pytest.mark.parametrize("dtype", ["int8", "half", "", None, 3])
def test_a_dtype_is_a_float(dtype: Any) -> None:
    refused(EngineSettings, dtype=dtype)


@pytest.mark.parametrize("loras", ["a.safetensors", ("a.safetensors",), [Lora("a.safetensors")], None])
def test_loras_are_a_tuple_of_loras(loras: Any) -> None:
    refused(EngineSettings, loras=loras)


@pytest.mark.parametrize("weight", [-4.1, 4.1, NAN, "1", True, None])
def test_a_loras_weight_has_a_range(weight: Any) -> None:
    with pytest.raises(SettingsError, match="lora weight is"):
        Lora("a.safetensors", weight)
    with pytest.raises(SettingsError, match=r"lora path is 3; it must be text"):
        Lora(3)  # type: ignore[arg-type]


def test_names_are_the_fields_in_order() -> None:
    assert names(Lora) == ["path", "weight"]
    assert names(Look)[:3] == ["prompt", "negative_prompt", "strength"]


def test_a_bank_is_called_by_whose_it_is_and_says_what_it_changes_in_the_unet() -> None:
    own = EngineSettings()
    assert (own.bank, own.bank_graph, EngineSettings(policy=Policy.OFF).bank) == ("fifo", "", "off")
    for preset in (BankPreset.PAPER, BankPreset.AUTHORS):
        merged = EngineSettings(policy=Policy.MERGE, rules=BANK_RULES[preset])
        assert merged.bank == preset
        assert f"fusion at {merged.rules.place}" in merged.bank_graph
        assert dataclasses.replace(merged, policy=Policy.FIFO).bank == "fifo"
        assert dataclasses.replace(merged, policy=Policy.OFF).bank_graph == ""
    growing = EngineSettings(slots=2, rules=BankRules(filling=Filling.GROWING))
    assert growing.bank_graph == "a growing ring"
    assert dataclasses.replace(growing, slots=1).bank_graph == ""  # one slot is full with the first frame
    with pytest.raises(SettingsError, match="rules is 'paper'; it must be BankRules"):
        EngineSettings(rules="paper")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["destinations_first", "spread", "attends"])
def test_a_rule_of_two_answers_takes_no_third(name: str) -> None:
    assert getattr(made(BankRules, **{name: True}), name) is True
    for value in (1, 0, None, "true"):
        assert "must be true or false" in refused(BankRules, **{name: value})
