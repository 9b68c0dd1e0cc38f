"""What the engine is built from: who goes before whom, equal settings on every way, sizes in a picture's shape."""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import SettingsError
from core.settings import BANK_RULES, BankPreset, EngineSettings, Guidance, Look, Policy, Runtime, names
from tests.support.model_folders import make_folder
from vcam.cli import arguments, engines
from vcam.cli import main as cli
from vcam.daemon import daemon
from vcam.offline import bench, translate
from vcam.settings.config import load_config
from vcam.settings.engine_options import (
    AskedBy,
    EngineOptions,
    engine_settings,
    engine_size,
    names_asked_by,
    preset_of,
)
from vcam.settings.presets import Preset
from vcam.settings.profiles import Profile, load_profiles, save_profile
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions, settings_for
from vcam.settings.selection import first_choice, with_engine


def test_every_setting_of_the_engine_can_be_asked_for() -> None:
    assert set(names(EngineOptions)) == {"preset", "bank", *names(EngineSettings)} - {
        "rules"
    }  # which a bank stands for


@dataclass(frozen=True)
class Description:
    """Stands in for core.models.description.ModelDescription."""

    width: int = 320
    height: int = 192
    steps: int = 2
    policy: Policy = Policy.FIFO
    slots: int = 3


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def describe(name: str) -> Description:
        asked.append(name)
        return Description()

    fake = types.ModuleType("core.models.description")
    fake.describe = describe  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "core.models.description", fake)
    return asked


def test_model_description_is_the_default(described: list[str]) -> None:
    assert engine_settings() == EngineSettings(width=320, height=192, steps=2, slots=3)
    assert described == ["embedded"]
    assert engine_settings(EngineOptions(model="mine")).model == "mine"


def test_command_line_goes_before_the_profile_before_the_description(described: list[str]) -> None:
    profile = EngineOptions(steps=4, slots=2, model="other", policy=Policy.MERGE)
    config = EngineOptions(model="mine", dtype="float32")
    assert engine_settings(EngineOptions(steps=1), profile, config) == EngineSettings(
        model="other", width=320, height=192, steps=1, slots=2, policy=Policy.MERGE, dtype="float32"
    )
    asked = EngineOptions(model="third", policy=Policy.OFF, dtype="float16")
    assert engine_settings(asked, profile, config).policy is Policy.OFF
    assert described == ["other", "third"]


def test_wrong_engine_settings_are_named(described: list[str]) -> None:
    with pytest.raises(SettingsError, match="steps is 99; it must be between 1 and 16"):
        engine_settings(EngineOptions(steps=99))


def test_the_models_pixels_are_spent_in_the_shape_of_the_pictures_unless_a_size_was_asked_for(
    described: list[str],
) -> None:
    assert engine_settings(shape=(640, 480)).width == engine_size(640, 480, 320 * 192)[0] == 272
    sized = engine_settings(EngineOptions(width=64), shape=(640, 480))
    assert (sized.width, sized.height) == (64, 192)


def test_a_bank_stands_for_policy_and_rules_and_a_policy_beside_it_goes_first() -> None:
    paper = engine_settings(EngineOptions(bank=BankPreset.PAPER))
    assert (paper.policy, paper.slots, paper.rules) == (Policy.MERGE, 1, BANK_RULES[BankPreset.PAPER])
    assert (paper.bank, engine_settings(EngineOptions(bank=BankPreset.AUTHORS)).bank) == ("paper", "authors")
    queue = engine_settings(EngineOptions(bank=BankPreset.PAPER, policy=Policy.FIFO, slots=4))
    assert (queue.policy, queue.slots, queue.rules) == (Policy.FIFO, 4, BANK_RULES[BankPreset.PAPER])
    # what is asked of the policy below a bank is over, and the command line's policy goes above a profile's bank
    assert engine_settings(EngineOptions(bank=BankPreset.PAPER), EngineOptions(policy=Policy.OFF)).bank == "paper"
    assert engine_settings(EngineOptions(policy=Policy.OFF), EngineOptions(bank=BankPreset.PAPER)).bank == "off"
    assert (
        engine_settings(EngineOptions(bank=BankPreset.OWN), EngineOptions(bank=BankPreset.PAPER)) == engine_settings()
    )


# --- one way --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_folder(tmp_path_factory.mktemp("model") / "mine"))


side = st.integers(4, 40).map(lambda n: n * 16)
MODELS = st.sampled_from(["embedded", "the folder"])
frame_options: dict[str, Any] = {
    "preset": st.none() | st.sampled_from([preset for preset in Preset if preset is not Preset.AUTO]),
    "steps": st.none() | st.integers(1, 16),
    "slots": st.none() | st.integers(1, 16),
    "bank": st.none() | st.sampled_from(BankPreset),
    "policy": st.none() | st.sampled_from(Policy),
    "model": st.none() | MODELS,
}
machine_options: dict[str, Any] = {
    "dtype": st.none() | st.sampled_from(["auto", "float32", "bfloat16"]),
    "device": st.none() | st.sampled_from(["auto", "cpu"]),
    "runtime": st.none() | st.sampled_from(Runtime),
}
command_lines = st.builds(EngineOptions, **frame_options, **machine_options).map(
    lambda asked: asked if asked.policy is None else replace(asked, bank=None)  # one option for both
)
profile_options = st.builds(
    EngineOptions,
    **frame_options,
    width=st.none() | side,
    height=st.none() | side,
    guidance=st.none() | st.sampled_from(Guidance),
)
config_options = st.builds(EngineOptions, model=st.none() | MODELS, preset=frame_options["preset"], **machine_options)
sizes = st.none() | st.tuples(side, side)


@dataclass
class Ways:
    """A user's folder with a profile and a config.toml, and the settings that each verb makes of a command line."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def words(self, asked: EngineOptions) -> list[str]:
        """The options of a command line."""
        flags = {name: "--bank" if name == "policy" else f"--{name}" for name in names(EngineOptions)}
        return [word for name, value in asked.given().items() for word in (flags[name], str(value))]

    def taken(self, module: Any, name: str, *argv: str) -> tuple[Any, ...]:
        """The arguments that a verb calls this function with, which is not carried out."""
        found: list[tuple[Any, ...]] = []

        def stand_in(*args: Any, **_: Any) -> Any:
            found.append(args)
            raise KeyboardInterrupt

        self.monkeypatch.setattr(module, name, stand_in)
        assert cli.main(argv) == 130
        return found[0]

    def run(self, asked: EngineOptions, size: tuple[int, int] | None) -> EngineSettings:
        size_words = ["--engine-size", "{}x{}".format(*size)] if size else []
        self.monkeypatch.setattr("vcam.daemon.surfaces.go_first", lambda: None)
        (options,) = self.taken(daemon, "run", "run", *self.words(asked), *size_words)
        return settings_for(load_profiles().profiles[options.profile], options)

    def engines_build(self, asked: EngineOptions, size: tuple[int, int] | None) -> EngineSettings:
        size_words = ["--engine-size", "{}x{}".format(*size)] if size else []
        args = arguments.build_parser().parse_args(["engines", "build", *self.words(asked), *size_words])
        arguments.check(args)
        return engines.settings_of(args)

    def translate(self, asked: EngineOptions, size: tuple[int, int] | None) -> EngineSettings:
        size_words = ["--engine-size", "{}x{}".format(*size)] if size else []
        taken = self.taken(translate, "translate", "translate", "a.mp4", "b.mp4", *self.words(asked), *size_words)
        found: EngineSettings = taken[0].settings
        return found

    def bench(self, asked: EngineOptions) -> EngineSettings:
        chosen = self.taken(bench, "bench", "bench", *self.words(asked))[0]
        found: EngineSettings = chosen[0]
        return found

    def commands(self, asked: EngineOptions, size: tuple[int, int] | None) -> EngineSettings:
        """What a command to the running camera changes; what it cannot is asked for at the start."""
        if size:
            asked = replace(asked, width=size[0], height=size[1])
        changes = {name: value for name, value in asked.given().items() if name in names_asked_by(AskedBy.COMMAND)}
        start = replace(asked, **dict.fromkeys(changes))
        options = RunOptions(profile="mine", engine=start, machine=load_config().engine)
        choice = first_choice(options, settings_for, load_profiles())
        as_json = {name: str(value) if isinstance(value, Policy) else value for name, value in changes.items()}
        return with_engine(choice, as_json).settings


@pytest.fixture
def ways() -> Iterator[Ways]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("VCAM_CONFIG_FOLDER", folder)
        monkeypatch.setenv("VCAM_STATE_FOLDER", folder)
        monkeypatch.setenv("VCAM_LOG_FOLDER", folder)
        yield Ways(Path(folder), monkeypatch)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=command_lines, of_profile=profile_options, of_config=config_options, size=sizes)
def test_equal_options_give_equal_settings_on_every_way(
    ways: Ways,
    folder_model: str,
    asked: EngineOptions,
    of_profile: EngineOptions,
    of_config: EngineOptions,
    size: tuple[int, int] | None,
) -> None:
    asked, of_profile, of_config = (
        replace(one, model=folder_model) if one.model == "the folder" else one for one in (asked, of_profile, of_config)
    )
    save_profile(Profile("mine", "Mine", look=Look(prompt="ink"), engine=of_profile), ways.folder / "profiles")
    lines = [f"{name} = {str(value)!r}" for name, value in of_config.given().items()]
    (ways.folder / "config.toml").write_text("\n".join(['profile = "mine"', "[engine]", *lines]), encoding="utf-8")

    wanted = ways.run(asked, size)
    assert ways.engines_build(asked, size) == wanted
    assert ways.commands(asked, size) == wanted
    film = ways.translate(asked, size)
    preset = preset_of(replace(asked, width=size and size[0]), of_profile, of_config)
    if preset is Preset.AUTO:
        # no film runs late: where nobody asked, it gets the model's own size and steps
        film = replace(film, width=wanted.width, height=wanted.height, steps=wanted.steps)
    elif preset is not None:  # its size follows when the film is open
        width, height = engine_size(*DEFAULT_SIZE, film.width * film.height)
        film = replace(film, width=width, height=height)
    assert film == wanted
    measured = ways.bench(replace(asked, steps=None, slots=None, policy=None))
    for name in ("dtype", "device", "runtime"):
        assert getattr(measured, name) == getattr(wanted, name)
    assert measured.model == wanted.model or (asked.model is None and of_profile.model is not None)


# --- sizes ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(16, 8192),
    st.integers(16, 8192),
    st.sampled_from([64 * 64, 256 * 256, 512 * 512, 512 * 288, 1024 * 1024]),
)
def test_the_engine_size_distorts_no_more_than_rounding_demands(width: int, height: int, pixels: int) -> None:
    w, h = engine_size(width, height, pixels)
    assert w % 16 == h % 16 == 0
    assert 64 <= w <= 2048
    assert 64 <= h <= 2048
    exact_w, exact_h = (pixels * width / height) ** 0.5, (pixels * height / width) ** 0.5
    if 80 <= exact_w <= 2032 and 80 <= exact_h <= 2032:
        assert abs(w - exact_w) <= 16
        assert abs(h - exact_h) <= 16
        ratio = w / h / (width / height)
        assert max(ratio, 1 / ratio) <= (1 + 8 / exact_w) * (1 + 8 / exact_h) * 1.02


@pytest.mark.parametrize(
    ("size", "pixels", "wanted"),
    [
        ((512, 512), 256 * 256, (256, 256)),
        ((1920, 1080), 256 * 256, (336, 192)),
        ((640, 480), 512 * 512, (576, 432)),
        ((480, 640), 512 * 512, (432, 576)),
    ],
)
def test_usual_engine_sizes(size: tuple[int, int], pixels: int, wanted: tuple[int, int]) -> None:
    assert engine_size(*size, pixels) == wanted


def test_pixels_that_are_not_square_count() -> None:
    assert engine_size(720, 576, 256 * 256, pixel_aspect=Fraction(64, 45)) == engine_size(1024, 576, 256 * 256)
