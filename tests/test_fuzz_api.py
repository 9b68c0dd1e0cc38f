"""Malformed requests by the thousand, from the API's own description: never a fault of the server's (5xx), no leak."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from tests.test_control import Daemon, ask, bearer
from vcam import client
from vcam.control import guard
from vcam.control.server import Server

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytestmark = pytest.mark.slow
CASES = 10_000
LIVE = ("/api/v1/picture.mjpeg", "/api/v1/input.mjpeg")  # never end


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, dict[str, str]]]:
    monkeypatch.setattr(guard, "CHANGES_PER_S", 1e9)
    monkeypatch.setattr(guard, "REFUSALS_PER_S", 1e9)
    with Server(Daemon(), 0, tmp_path) as server:
        yield server, bearer(json.loads((tmp_path / client.SESSION_FILE).read_text())["token"])


def test_ten_thousand_malformed_requests(running: tuple[Server, dict[str, str]]) -> None:
    server, headers = running
    description = ask(server, "GET", "/api/v1/openapi.json", **headers).data
    description["paths"] = {path: item for path, item in description["paths"].items() if path not in LIVE}
    schema = schemathesis.openapi.from_dict(description)
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) >= 12
    each = -(-CASES // (2 * len(operations)))
    seen: dict[int, int] = {}
    process = psutil.Process()
    before = process.memory_info().rss
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for operation in operations:
        for mode in modes:
            try:
                strategy = operation.as_strategy(generation_mode=mode)
                count_calls(strategy, each, f"http://127.0.0.1:{server.port}", headers, seen)
            except hypothesis.errors.Unsatisfiable:
                continue  # an operation without anything to get wrong
    print(f"{sum(seen.values())} requests: {dict(sorted(seen.items()))}")
    assert not [status for status in seen if status >= 500], seen
    assert sum(seen.values()) >= CASES / 2
    assert ask(server, "GET", "/api/v1/status", **headers).status == 200
    assert process.memory_info().rss - before < 200 * 2**20


def count_calls(strategy: Any, each: int, base: str, headers: dict[str, str], seen: dict[int, int]) -> None:
    settings = hypothesis.settings(
        max_examples=each, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )

    @settings
    @hypothesis.given(case=strategy)
    def call(case: Any) -> None:
        status = case.call(base_url=base, headers=headers).status_code
        seen[status] = seen.get(status, 0) + 1

    call()
