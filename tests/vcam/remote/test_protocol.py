"""vcam.remote.protocol: what is written is read again as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.settings import BANK_RULES, BankPreset, EngineSettings, Look, Policy
from vcam.errors import RemoteError
from vcam.remote.protocol import (
    Answer,
    Codec,
    GivenPicture,
    Hello,
    from_camera,
    packed,
    packed_answer,
    packed_picture,
    unpacked_answer,
    unpacked_picture,
)


@pytest.mark.parametrize("preset", BankPreset)
def test_an_engines_bank_arrives_as_it_was_asked_for(preset: BankPreset) -> None:
    settings = EngineSettings(policy=Policy.MERGE, rules=BANK_RULES[preset])
    hello = Hello("token", "camera", settings, Look("ink", steady=0.25))
    assert from_camera(packed(hello)) == hello


def test_rules_that_are_none_are_refused() -> None:
    sent = json.loads(packed(Hello("token", "camera", EngineSettings(), Look())))
    wrong: list[Any] = [{"split": "half"}, {"spread": 7}, {"colour": 1}, [], "paper"]
    for rules in wrong:
        sent["settings"]["rules"] = rules
        with pytest.raises(RemoteError, match="cannot be used"):
            from_camera(json.dumps(sent))


def test_pictures_and_answers_arrive_as_they_were() -> None:
    for given in (GivenPicture(7, 2**32 - 1, b"jpeg"), GivenPicture(0, 0, b"", Codec.H264)):
        assert unpacked_picture(packed_picture(given)) == given
    for answer in (Answer(7, 6, 1.5, 2.5, 3.5, 4.5, 9, b"jpeg", 2, receipt=2**32 - 1), Answer(0, None, 0, 0, 0, 0, 0)):
        assert unpacked_answer(packed_answer(answer)) == answer
