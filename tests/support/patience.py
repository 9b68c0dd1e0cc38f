"""How a test waits: for a fact, however long a busy machine takes to bring it about."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable

PATIENCE_S = 300.0  # only ever waited for when something is broken


def pause() -> None:
    """Leave the processor to those who are waited for."""
    time.sleep(0.01)


def until(
    true: Callable[[], object],
    what: str | Callable[[], object] = "it did not happen",
    meanwhile: Callable[[], object] = pause,
) -> None:
    """Return once `true` is. what: to be said when it never is; meanwhile: what the test does between two looks.

    When it never is, what every thread of this process is at is printed, too.
    """
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() >= end_s:
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback(sys.__stderr__)
            raise AssertionError(what if isinstance(what, str) else what())
        meanwhile()
