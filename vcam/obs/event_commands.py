"""What OBS says, as commands: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcam.commands import Command, Panic, Pause, Resume, from_json, from_text

KEY = "streamv2v"
"""In a custom event's data: the command, as an object or as text."""
PREFIX = "streamv2v:"
"""Begins the names of items, filters and throw-away sources that are commands: "StreamV2V: use ink"."""
SOURCE_NAME = "StreamV2V Camera"


def from_event(data: Mapping[str, Any]) -> Command | None:
    """Return the command in a custom event's data, None if it is not for us; raise CommandError."""
    if KEY not in data:
        return None
    wanted = data[KEY]
    return from_text(wanted) if isinstance(wanted, str) else from_json(wanted)


def from_name(name: str) -> Command | None:
    """Return the command in the name of an item, filter or source; None if it is not for us."""
    if not name.lower().startswith(PREFIX):
        return None
    return from_text(name[len(PREFIX) :].partition("#")[0])


def from_switch(name: str, enabled: bool) -> Command | None:
    """Return a switched item's or filter's command: on does what its name says, off ends a pause or a panic."""
    command = from_name(name)
    if enabled:
        return command
    return Resume() if isinstance(command, Pause | Panic) else None


def from_scene(scene: str, scenes: Mapping[str, str]) -> Command | None:
    """Return what the config says about a scene: a profile, or a verb such as pause."""
    wanted = scenes.get(scene)
    return None if wanted is None else from_text(wanted)


def from_prompt(text: str, before: str) -> Command | None:
    """Return a new prompt out of a text source's text; None if it is empty or what it was."""
    prompt = " ".join(text.split())
    if not prompt or prompt == before:
        return None
    return from_json({"command": "prompt", "prompt": prompt})
