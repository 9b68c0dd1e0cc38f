"""Malformed requests by the thousand, from the API's own description: never a fault of the server's (5xx), no leak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.api_requests import requests, running
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.slow
CASES = 10_000
LIMITED_CASES = 1_000
GROWTH_MB = 40.0  # of the server: allocators keep what they once had
POOL = (os.cpu_count() or 1) + 4  # asyncio's workers, which come when first wanted and stay


@pytest.mark.parametrize(("limits", "cases"), [("none", CASES), ("limits", LIMITED_CASES)])
def test_malformed_requests_by_the_thousand(tmp_path: Path, limits: str, cases: int) -> None:
    with running(tmp_path, limits) as server:
        server.try_all(5)  # what is loaded and allocated once is no leak
        server.seen.clear()
        before = server.held()
        server.try_all(-(-cases // 36))
        after = server.settled(before)
        print(f"{limits}: {sum(server.seen.values())} requests: {dict(sorted(server.seen.items()))}")
        print(f"{limits}: {before} -> {after}")
        assert not [status for status in server.seen if status >= 500], server.seen
        assert sum(server.seen.values()) >= cases / 2
        assert 429 not in server.seen or limits == "limits"
        assert after.files <= before.files, "files are left behind"
        assert after.threads <= before.threads + POOL, "threads are left behind"
        assert after.rss_mb - before.rss_mb < GROWTH_MB
        if limits == "none":
            assert requests.get(f"{server.base}/api/v1/status", headers=server.headers, timeout=PATIENCE_S).ok
