"""vcam.remote.protocol: what is written is read again as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.settings import BANK_RULES, BankPreset, EngineSettings, Look, Policy
from vcam.errors import RemoteError
from vcam.remote.protocol import Hello, Purpose, from_camera, packed


@pytest.mark.parametrize("preset", BankPreset)
def test_an_engines_bank_arrives_as_it_was_asked_for(preset: BankPreset) -> None:
    settings = EngineSettings(policy=Policy.MERGE, rules=BANK_RULES[preset])
    hello = Hello("token", "camera", next(iter(Purpose)), settings, Look("ink", steady=0.25))
    assert from_camera(packed(hello)) == hello


def test_rules_that_are_none_are_refused() -> None:
    sent = json.loads(packed(Hello("token", "camera", next(iter(Purpose)), EngineSettings(), Look())))
    wrong: list[Any] = [{"split": "half"}, {"spread": 7}, {"colour": 1}, [], "paper"]
    for rules in wrong:
        sent["settings"]["rules"] = rules
        with pytest.raises(RemoteError, match="cannot be used"):
            from_camera(json.dumps(sent))
