"""Commands and status to JSON and back; nonsense is refused with words."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.every_command import COMMANDS
from vcam.commands import (
    ChangeLook,
    Command,
    SetPrompt,
    Status,
    from_json,
    to_json,
)
from vcam.errors import CommandError

ALL: list[Command] = [*COMMANDS, SetPrompt("a person, neon"), SetPrompt("x", 250), ChangeLook({"strength": 0.4})]


@pytest.mark.parametrize("command", ALL, ids=repr)
def test_a_command_survives_json(command: Command) -> None:
    assert from_json(json.loads(json.dumps(to_json(command)))) == command


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "an object"),
        ({}, "an object"),
        ({"command": 3}, "an object"),
        ({"command": "explode"}, "unknown command 'explode'; there are: use, prompt"),
        ({"command": "use"}, "profile is missing"),
        ({"command": "use", "profile": 3}, "profile must be text"),
        ({"command": "use", "profile": "ink", "x": 1}, "unknown key 'x'; it takes profile"),
        ({"command": "pause", "profile": "ink"}, "unknown key 'profile'; it takes none"),
        ({"command": "prompt", "prompt": "a\nb"}, "one line"),
        ({"command": "prompt", "prompt": "a" * 3000}, "at most 2000"),
        ({"command": "prompt", "prompt": "a", "transition_ms": -1}, "between 0 and 60000"),
        ({"command": "prompt", "prompt": "a", "transition_ms": True}, "whole number"),
        ({"command": "look", "changes": [1]}, "an object of names and values"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(data: object, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        from_json(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["command", "profile", "prompt", "transition_ms", "changes"]), _JSON) | _JSON)
def test_whatever_comes_is_a_command_or_a_command_error(data: Any) -> None:
    with contextlib.suppress(CommandError):
        assert to_json(from_json(data))["command"] == data["command"]


def test_status_survives_json_and_ignores_what_a_later_version_adds() -> None:
    status = Status(state="running", fps=12.5, notes=("a", "b"))
    assert Status.from_json({**json.loads(json.dumps(status.to_json())), "later": 1}) == status
