"""The API by its own description, as it says and otherwise, for a time: never a fault of the server's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support import api_requests, fuzzing

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("default")]  # what libraries warn of is no fault


def test_requests_of_any_kind_are_answered(tmp_path: Path) -> None:
    with api_requests.running(tmp_path, "none") as server:
        end = time.monotonic() + fuzzing.SECONDS
        while not server.seen or time.monotonic() < end:
            server.try_all(3)
        print(dict(sorted(server.seen.items())))
        assert not [status for status in server.seen if status >= 500], server.seen
