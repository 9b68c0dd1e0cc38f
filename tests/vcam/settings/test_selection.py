"""What becomes of the choice of profile, look and engine: pure functions, no daemon."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings import EngineSettings, Framing, Look, Policy
from vcam.errors import CommandError, ProfileError, VcamError
from vcam.settings.engine_options import EngineOptions
from vcam.settings.profiles import LoadedProfiles, Profile
from vcam.settings.run_options import RunOptions
from vcam.settings.selection import first_choice, neighbour, profile_list, prompts, with_engine, with_look, with_profile

PROFILES = {
    id: Profile(id, id.title(), look=Look(prompt=f"{id} prompt", strength=0.7), engine=engine)
    for id, engine in (("clay", EngineOptions()), ("pen", EngineOptions(width=128)), ("neon", EngineOptions()))
}
LOADED = LoadedProfiles(PROFILES, [])


def settings_for(profile: Profile, options: RunOptions) -> EngineSettings:
    given: dict[str, Any] = {"model": "fake", "width": 64, "height": 64, "steps": 1}
    return EngineSettings(**(given | profile.engine.given() | options.engine.given()))


def test_a_run_begins_with_what_was_asked_for_else_with_the_first_there_is() -> None:
    given = first_choice(RunOptions(profile="Pen", prompt="gold", strength=0.2), settings_for, LOADED)
    assert (given.profile.id, given.look.prompt, given.look.strength, given.settings.width) == ("pen", "gold", 0.2, 128)
    assert first_choice(RunOptions(), settings_for, LOADED).profile.id == "clay"
    with pytest.raises(ProfileError, match="nowhere"):
        first_choice(RunOptions(profile="nowhere"), settings_for, LOADED)
    with pytest.raises(VcamError, match="there are no profiles"):
        first_choice(RunOptions(), settings_for, LoadedProfiles({}, []))


def test_another_profile_brings_its_look_and_its_engine_and_the_strength_that_was_asked_for_stays() -> None:
    before = first_choice(RunOptions(strength=0.2, prompt="gold"), settings_for, LOADED)
    after = with_profile(before, "PEN", [])
    assert (after.look.prompt, after.look.strength, after.settings.width) == ("pen prompt", 0.2, 128)
    assert before.profile.id == "clay"
    assert [one["id"] for one in profile_list(after) if one["current"]] == ["pen"]
    assert prompts(after) == ["pen prompt", "clay prompt", "pen prompt", "neon prompt"]


def test_the_framing_is_the_command_lines_or_pages_then_the_profiles_then_the_configurations() -> None:
    own = Profile("own", "Own", look=Look(prompt="own", framing=Framing.FACE))
    loaded = LoadedProfiles({"clay": PROFILES["clay"], "own": own}, [])

    def framing(profile: str, **options: Framing) -> Framing | None:
        return first_choice(RunOptions(profile=profile, **options), settings_for, loaded).look.framing  # type: ignore[arg-type]

    assert framing("clay") is Framing.FILL
    assert framing("clay", usual_framing=Framing.FIT) is Framing.FIT
    assert framing("own", usual_framing=Framing.FIT) is Framing.FACE
    assert framing("own", usual_framing=Framing.FIT, framing=Framing.FILL) is Framing.FILL
    page = with_look(first_choice(RunOptions(profile="own"), settings_for, loaded), {"framing": "fit"})
    assert with_profile(page, "clay", []).look.framing is Framing.FIT, "it is of the camera's place, not of the look"
    assert with_profile(with_look(page, {"framing": None}), "own", []).look.framing is Framing.FACE
    assert with_profile(with_look(page, {"strength": 0.3}), "own", []).look.framing is Framing.FIT


@pytest.mark.parametrize(("at", "step", "to"), [("clay", 1, "pen"), ("neon", 1, "clay"), ("clay", -1, "neon")])
def test_profiles_go_round_and_round(at: str, step: int, to: str) -> None:
    assert neighbour(first_choice(RunOptions(profile=at), settings_for, LOADED), step) == to


def test_another_engine_keeps_the_look_and_outlives_a_change_of_profile() -> None:
    before = first_choice(RunOptions(), settings_for, LOADED)
    after = with_engine(before, {"width": 96, "policy": "off"})
    assert (after.settings.width, after.settings.policy, after.look) == (96, Policy.OFF, before.look)
    assert with_profile(after, "neon", []).settings.width == 96
    for wrong, words in (
        ({"colour": 1}, "an engine has no 'colour' to change; it has preset, width, height"),
        ({"policy": "all"}, "engine: 'all' is not a valid Policy"),
        ({"width": 97}, "engine: width is 97"),
    ):
        with pytest.raises(CommandError, match=words):
            with_engine(before, wrong)
