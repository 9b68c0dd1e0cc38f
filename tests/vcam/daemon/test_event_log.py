"""What happened in a run, in words."""

from __future__ import annotations

from vcam.daemon.event_log import EventLog


def test_a_state_is_told_once_with_its_reason_unless_that_says_the_same() -> None:
    log = EventLog()
    for state, reason in (("starting", "starting"), ("starting", "loading PyTorch"), ("running", ""), ("running", "")):
        log.state(state, reason)
    assert [line["text"] for line in log.lines()] == ["starting", "starting: loading PyTorch", "running"]
