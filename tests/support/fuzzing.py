"""Searching for faults for a time: rounds of hypothesis with a new seed each, until FUZZ_SECONDS are over.

A kind (profiles, config, API, OBS's messages, model folders, pictures) has FUZZ_SECONDS, also where it is two tests.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import hypothesis
from hypothesis import strategies as st

from core.errors import StreamV2VError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "120"))
_T = TypeVar("_T")


def said(call: Callable[[], object]) -> str:
    """Return what a call says is wrong, on one line, "" if nothing; an error that is not in words is raised."""
    try:
        call()
    except StreamV2VError as error:
        message = str(error)
    else:
        return ""
    assert message.splitlines() == [message], repr(message)
    return message


def search(strategy: st.SearchStrategy[_T], check: Callable[[_T], object], each: int = 200, share: float = 1.0) -> int:
    """Call `check` with examples until the time is over; return how many. What it raises is shown, made small.

    each: examples of a round. share: of the time that its kind has.
    """
    end, tried = time.monotonic() + SECONDS * share, 0

    def once(example: _T) -> None:
        nonlocal tried
        if time.monotonic() < end:
            tried += 1
            check(example)

    while time.monotonic() < end:
        seed = random.SystemRandom().getrandbits(32)
        print(f"seed {seed}")  # pytest shows it beside a failure
        run = hypothesis.given(strategy)(once)
        run = hypothesis.settings(
            max_examples=each, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )(run)
        hypothesis.seed(seed)(run)()
    print(f"{tried} examples")
    assert tried
    return tried
