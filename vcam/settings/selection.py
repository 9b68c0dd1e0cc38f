"""What is to be shown, and by which engine: pure functions from one choice, and a wish, to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import StreamV2VError
from core.settings import BankPreset, EngineSettings, Look, Policy
from vcam.commands import changed
from vcam.errors import CommandError, ProfileError, VcamError
from vcam.settings.config import DEFAULT_PROFILE
from vcam.settings.engine_options import AskedBy, names_asked_by, preset_of
from vcam.settings.presets import START, Preset
from vcam.settings.profiles import LoadedProfiles, Profile, find_profile
from vcam.settings.run_options import RunOptions

ENGINE_CHANGES = names_asked_by(AskedBy.COMMAND)
SettingsFor = Callable[[Profile, RunOptions], EngineSettings]


@dataclass(frozen=True)
class Choice:
    """The profile in use and what is made of it now.

    options: of the run, with what commands changed of them. settings, look: the profile's, until commands change them.
    settings_for: the engine that a profile gets on this machine.
    """

    options: RunOptions
    settings_for: SettingsFor
    profiles: Mapping[str, Profile]
    profile: Profile
    settings: EngineSettings
    look: Look

    @property
    def preset(self) -> Preset | None:
        """The preset that is asked for; None where a size is."""
        return preset_of(self.options.engine, self.profile.engine, self.options.machine)

    @property
    def taken(self) -> Preset:
        """The preset that is asked for, or what `auto` takes now."""
        asked = self.preset or Preset.AUTO
        return self.options.automatic.get(self.settings.model, START) if asked is Preset.AUTO else asked

    def settings_of(self, profile: Profile) -> EngineSettings:
        """Return the engine that a profile gets here."""
        return self.settings_for(profile, self.options)


def first_choice(options: RunOptions, settings_for: SettingsFor, loaded: LoadedProfiles) -> Choice:
    """Return what a run begins with; raises ProfileError, and VcamError if there are no profiles."""
    profile = _first_profile(options, loaded)
    look = _look_of(profile, options)
    if options.prompt is not None:
        look = replace(look, prompt=options.prompt)
    return Choice(options, settings_for, loaded.profiles, profile, settings_for(profile, options), look)


def _first_profile(options: RunOptions, loaded: LoadedProfiles) -> Profile:
    profiles, problems = loaded
    if options.profile is not None:
        return find_profile(options.profile, profiles, problems)
    if not profiles:
        raise VcamError("there are no profiles; install StreamV2V Camera again, or give --profile")
    return profiles.get(DEFAULT_PROFILE) or next(iter(profiles.values()))


def with_profile(choice: Choice, text: str, problems: Iterable[ProfileError]) -> Choice:
    """Another profile, by id or name; raises ProfileError. problems: of the files that could not be read."""
    profile = find_profile(text, choice.profiles, problems)
    return replace(
        choice, profile=profile, settings=choice.settings_of(profile), look=_look_of(profile, choice.options)
    )


def neighbour(choice: Choice, step: int) -> str:
    """Return the id of the profile `step` places after the one in use, round and round."""
    ids = list(choice.profiles)
    at = ids.index(choice.profile.id) if choice.profile.id in ids else -1
    return ids[(at + step) % len(ids)]


def with_look(choice: Choice, changes: Mapping[str, Any]) -> Choice:
    """Another look (see ChangeLook); raises CommandError. Its framing stays with the profiles that are used later."""
    look = changed(choice.look, changes)
    options = replace(choice.options, framing=look.framing) if "framing" in changes else choice.options
    return replace(choice, options=options, look=look)


def with_engine(choice: Choice, changes: Mapping[str, Any]) -> Choice:
    """Another engine for the same look (see ChangeEngine); raises CommandError."""
    if unknown := changes.keys() - ENGINE_CHANGES:
        raise CommandError(f"an engine has no {min(unknown)[:40]!r} to change; it has {', '.join(ENGINE_CHANGES)}")
    given = dict(changes)
    try:
        for name, kind in (("bank", BankPreset), ("policy", Policy), ("preset", Preset)):
            if given.get(name) is not None:
                given[name] = kind(given[name])
    except ValueError as error:
        raise CommandError(f"engine: {error}") from error
    if given.get("preset") is not None:  # what was asked for before it is over
        given = {"width": None, "height": None, "steps": None} | given
    if given.get("bank") is not None:
        given = {"policy": None, "slots": None} | given
    options = replace(choice.options, engine=replace(choice.options.engine, **given))
    try:
        settings = choice.settings_for(choice.profile, options)
    except StreamV2VError as error:
        raise CommandError(f"engine: {error}") from error
    return replace(choice, options=options, settings=settings)


def with_automatic(choice: Choice, preset: Preset) -> Choice:
    """Return the choice once the preset `auto` takes this one for the model in use."""
    automatic = {**choice.options.automatic, choice.settings.model: preset}
    options = replace(choice.options, automatic=automatic)
    return replace(choice, options=options, settings=choice.settings_for(choice.profile, options))


def prompts(choice: Choice) -> list[str]:
    """Return what may have to be shown soon: the prompt in use first, then every profile's."""
    return [choice.look.prompt, *(one.look.prompt for one in choice.profiles.values())]


def profile_list(choice: Choice) -> list[dict[str, Any]]:
    """All profiles: id, name, description, prompt, revision, current."""
    return [
        {
            "id": one.id,
            "name": one.name,
            "description": one.description,
            "prompt": one.look.prompt,
            "revision": f"{hash((one.look, str(one.engine))) & 0xFFFFFFFF:x}",  # another one, another thumbnail
            "current": one.id == choice.profile.id,
        }
        for one in choice.profiles.values()
    ]


def _look_of(profile: Profile, options: RunOptions) -> Look:
    asked = {name: getattr(options, name) for name in ("strength", "region", "elsewhere")}
    given = {name: value for name, value in asked.items() if value is not None}
    framing = options.framing or profile.look.framing or options.usual_framing
    return replace(profile.look, framing=framing, **given)
