"""Whatever OBS sends, as events and as answers: a command, nothing, or an error in words."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.fuzz_inputs import OBS_DATA, OBS_EVENTS
from tests.support.fuzzing import said, search
from tests.support.model_faults import JSON
from tests.support.obs_stand_in import PASSWORD, StandIn, standing_in
from vcam.commands import Command
from vcam.obs import library
from vcam.obs.listener import Listener
from vcam.obs.places import Address
from vcam.settings.config import ObsSettings

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("default")]  # what libraries warn of is no fault


def test_any_event_with_any_answer_is_a_command_or_an_error_in_words() -> None:
    def check(example: tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]) -> None:
        events, answers = example
        given: list[Command] = []

        def ask(request: str, **data: Any) -> dict[str, Any]:
            return answers[len(request) % len(answers)]

        def give(command: Command) -> list[str]:
            given.append(command)
            return ["a note"]

        listener = Listener(ObsSettings(), ask, give, lambda text: None, 8765)
        for kind, data in events:
            said(partial(listener.hear, kind, data))

    search(
        st.tuples(st.lists(st.tuples(OBS_EVENTS, OBS_DATA), max_size=4), st.lists(OBS_DATA, min_size=1, max_size=3)),
        check,
        share=0.5,
    )


def test_any_message_in_place_of_an_answer_is_an_error_in_words() -> None:
    stand_in = StandIn()
    hello = stand_in.hello
    texts = st.one_of(
        JSON.map(json.dumps),
        JSON.map(lambda value: json.dumps({"op": 7, "d": value})),
        OBS_DATA.map(lambda value: json.dumps({"op": 7, "d": {"requestStatus": value, "responseData": value}})),
        st.text(max_size=40),
        st.just('{"op": 7, "d": ' + "[" * 100_000),
    )

    def check(example: tuple[str, bool]) -> None:
        text, first = example
        stand_in.malformed = None if first else text
        stand_in.hello = text if first else hello
        said(lambda: library.ask(Address("127.0.0.1", port, PASSWORD), "GetVersion"))

    with standing_in(stand_in) as port:
        search(st.tuples(texts, st.booleans()), check, share=0.5)
