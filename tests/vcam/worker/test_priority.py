"""Going first: what is asked of the system, and nothing where it has no such thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vcam.worker import priority


def test_the_whole_session_goes_first_where_linux_shares_by_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "autogroup"
    monkeypatch.setattr(priority, "AUTOGROUP", str(group))
    monkeypatch.setattr("psutil.Process.nice", lambda self, value: None)
    monkeypatch.setattr(priority, "_set_slice", lambda nanoseconds: None)
    priority.go_first()
    assert not group.exists()  # a system without it
    group.write_text("/autogroup-6 nice 3\n")
    at_the_end: list[tuple[Callable[[int], None], int]] = []
    monkeypatch.setattr("atexit.register", lambda call, value: at_the_end.append((call, value)))
    priority.go_first()
    assert group.read_text().startswith(str(priority.NICE))
    for call, value in at_the_end:
        call(value)
    assert group.read_text().startswith("3")
