"""What the tests of the command line share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def goes_first(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`vcam run` carried out in this process does not go before others; each time that it would is noted."""
    calls: list[str] = []
    monkeypatch.setattr("vcam.daemon.surfaces.go_first", lambda: calls.append("goes first"))
    return calls
