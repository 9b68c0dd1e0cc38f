"""What OBS says becomes commands: pure functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vcam.commands import (
    Command,
    NextProfile,
    Panic,
    Pause,
    Resume,
    SetPrompt,
    Snapshot,
    Toggle,
    ToggleRecording,
    UseProfile,
    from_text,
)
from vcam.errors import CommandError
from vcam.obs import event_commands as words
from vcam.settings.config import OBS_COMMANDS


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("next", NextProfile()),
        (" Toggle ", Toggle()),
        ("use ink", UseProfile("ink")),
        ("use Oil painting", UseProfile("Oil painting")),
        ("Oil painting", UseProfile("Oil painting")),
        ("ink", UseProfile("ink")),
        ("prompt a person of clay", SetPrompt("a person of clay")),
    ],
)
def test_texts_are_commands(text: str, command: Command) -> None:
    assert from_text(text) == command


@pytest.mark.parametrize("text", ["", "  ", "use", "prompt", "prompt " + "x" * 3000, "use\tx\ny\x00"])
def test_texts_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(CommandError):
        from_text(text)


def test_custom_events_for_others_are_not_ours() -> None:
    assert words.from_event({"other": "next"}) is None
    assert words.from_event({"streamv2v": "next"}) == NextProfile()
    assert words.from_event({"streamv2v": {"command": "prompt", "prompt": "x", "transition_ms": 9}}) == SetPrompt(
        "x", 9
    )
    with pytest.raises(CommandError, match="unknown command 'explode'"):
        words.from_event({"streamv2v": {"command": "explode"}})
    with pytest.raises(CommandError):
        words.from_event({"streamv2v": 3})


def test_items_and_filters_speak_by_their_names() -> None:
    assert words.from_switch("StreamV2V: use ink", True) == UseProfile("ink")
    assert words.from_switch("streamv2v: ink #2", True) == UseProfile("ink")
    assert words.from_switch("StreamV2V: use ink", False) is None
    assert words.from_switch("StreamV2V: pause", True) == Pause()
    assert words.from_switch("StreamV2V: pause", False) == Resume()
    assert words.from_switch("StreamV2V: panic", True) == Panic()
    assert words.from_switch("Webcam", True) is None
    assert words.from_switch("StreamV2V Camera", True) is None


def test_scenes_have_profiles_and_a_text_source_is_a_prompt() -> None:
    scenes = {"Interview": "ink", "Break": "pause"}
    assert words.from_scene("Interview", scenes) == UseProfile("ink")
    assert words.from_scene("Break", scenes) == Pause()
    assert words.from_scene("Other", scenes) is None
    assert words.from_prompt("a person\n of clay ", "") == SetPrompt("a person of clay")
    assert words.from_prompt("a person of clay", "a person of clay") is None
    assert words.from_prompt(" ", "x") is None


def test_every_hotkey_of_the_script_is_a_command_that_obs_may_give() -> None:
    script = Path(words.__file__).with_name("streamv2v-camera.lua").read_text(encoding="utf-8")
    verbs = re.findall(r'^    \{ "([a-z-]+)", "', script, re.MULTILINE)
    meant = {verb: from_text(verb) for verb in verbs}
    assert meant["panic"] == Panic()
    assert (meant["record-toggle"], meant["snapshot"]) == (ToggleRecording(), Snapshot())
    assert set(verbs) <= set(OBS_COMMANDS)
