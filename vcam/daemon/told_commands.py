"""A command in the words of its user, as the page's list of what happened has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    EndRecording,
    Forget,
    Mirror,
    NextProfile,
    Panic,
    Pause,
    PreviousProfile,
    Reload,
    Resume,
    SendAt,
    SetPrompt,
    Snapshot,
    StartRecording,
    Stop,
    Toggle,
    ToggleRecording,
    UseMicrophone,
    UseProfile,
    UseSource,
)

_PLAIN: dict[type[Command], str] = {
    Reload: "looks read anew",
    NextProfile: "the next look",
    PreviousProfile: "the look before",
    Pause: "pause",
    Resume: "go on",
    Toggle: "pause, or go on",
    Panic: "panic: show nothing",
    Forget: "trails cleared",
    StartRecording: "record",
    EndRecording: "end the recording",
    ToggleRecording: "record, or end the recording",
    Snapshot: "keep a picture",
    Stop: "end the camera",
}
_NAMES = {
    "fusion_strength": "steadiness",
    "similarity_threshold": "only where alike",
    "detail": "fine detail",
    "region": "style on",
    "preset": "quality",
    "steps": "passes",
}
"""What the page calls what a look or an engine has under another name."""


def in_words(command: Command) -> str:
    """Return what was asked for, in one line."""
    match command:
        case UseProfile(profile):
            return f"look: {profile}"
        case SetPrompt(prompt, None):
            return f"to be seen: {prompt}"
        case SetPrompt(prompt, transition_ms):
            return f"to be seen: {prompt}, within {transition_ms} ms"
        case ChangeLook(changes) | ChangeEngine(changes):
            return _changes(changes)
        case Mirror(on):
            return "mirror" if on is None else f"mirror: {_on(on)}"
        case SendAt(size):
            return f"sent at {size} from the next start"
        case UseSource(source):
            return f"camera: {source}"
        case UseMicrophone(on):
            return "microphone in recordings" if on is None else f"microphone in recordings: {_on(on)}"
    return _PLAIN[type(command)]


def _on(on: bool) -> str:
    return "on" if on else "off"


def _changes(changes: Mapping[str, Any]) -> str:
    told = [f"{_NAMES.get(name, name.replace('_', ' '))} {value}" for name, value in changes.items()]
    return ", ".join(told) or "nothing changed"
