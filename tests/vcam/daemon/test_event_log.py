"""What happened in a run, in words."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vcam.daemon.event_log import EventLog


def test_a_state_is_told_once_with_its_reason_unless_that_says_the_same() -> None:
    log = EventLog()
    for state, reason in (("starting", "starting"), ("starting", "loading PyTorch"), ("running", ""), ("running", "")):
        log.state(state, reason)
    assert [line["text"] for line in log.lines()] == ["starting", "starting: loading PyTorch", "running"]


class Meanwhile(str):
    """A text; when it is looked at for the first time, a thread of its own does something and is waited for."""

    does: Callable[[], object] | None = None

    def __bool__(self) -> bool:
        does, self.does = self.does, None
        if does is not None:
            thread = threading.Thread(target=does)
            thread.start()
            thread.join()
        return len(self) > 0


def test_the_troubles_may_be_asked_for_while_another_part_tells_of_one() -> None:
    log = EventLog()
    text = Meanwhile("translate failed")
    log.set_trouble("translate", text)
    text.does = lambda: log.trouble("OSC", "the port is taken")
    assert log.troubles() == ("translate failed",)
    assert log.troubles() == ("translate failed", "the port is taken")
    log.trouble("OSC", "")
    assert log.troubles() == ("translate failed",)
    assert [log.trouble_of(part) for part in ("translate", "OSC", "unknown")] == ["translate failed", "", ""]
