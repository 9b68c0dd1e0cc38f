"""What happened is told in the words of who did it."""

from __future__ import annotations

import pytest

from tests.support.every_command import COMMANDS
from vcam.commands import ChangeEngine, ChangeLook, Command, Forget, Mirror, SetPrompt, UseProfile, to_json
from vcam.daemon.command_queue import CommandQueue
from vcam.daemon.event_log import EventLog
from vcam.daemon.told_commands import in_words

OF_THE_CODE = ("forget", "sink", "bank", "fusion", "_", "toggle", "reload", "profile")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_every_command_has_words_of_its_own(command: Command) -> None:
    told = in_words(command)
    assert told
    assert not [word for word in OF_THE_CODE if word in told.lower()], told
    others = [in_words(one) for one in COMMANDS if type(one) is not type(command)]
    assert told not in others, to_json(command)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (UseProfile("ink"), "look: ink"),
        (SetPrompt("a person", 900), "to be seen: a person, within 900 ms"),
        (ChangeLook({"fusion_strength": 0.3, "strength": 0.6}), "steadiness 0.3, strength 0.6"),
        (ChangeEngine({"preset": "fast"}), "quality fast"),
        (Mirror(False), "mirror: off"),
    ],
)
def test_what_was_asked_for_is_in_it(command: Command, told: str) -> None:
    assert in_words(command) == told


def test_the_list_of_what_happened_has_these_words() -> None:
    log = EventLog()
    queue = CommandQueue(lambda command: None, log)
    queue.submit(Forget())
    queue.carry_out(1)
    log.sink_said("it is busy")
    log.sink_said("")
    assert [line["text"] for line in log.lines()] == ["trails cleared", "it is busy", "pictures go out again"]
