"""Requests to a server in a process of its own, from the API's own description."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import psutil
import pytest

from tests.support.controlled_daemon import bearer
from tests.support.patience import PATIENCE_S
from vcam import client

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
requests = pytest.importorskip("requests", reason="requests, which comes with schemathesis, is not installed")
ROOT = Path(__file__).parents[2]


class Held(NamedTuple):
    """What the server's process holds."""

    rss_mb: float
    threads: int
    files: int


class Running:
    """A server in a process of its own, so that what it holds is its own."""

    def __init__(self, process: psutil.Process, session: dict[str, Any]) -> None:
        self.process, self.base = process, f"http://127.0.0.1:{session['port']}"
        self.headers = bearer(session["token"])
        self.seen: dict[int, int] = {}

    def held(self) -> Held:
        return Held(self.process.memory_info().rss / 1e6, self.process.num_threads(), self.process.num_fds())

    def settled(self, wanted: Held) -> Held:
        """What it holds, once its files are no more than wanted, or PATIENCE_S are over."""
        end = time.monotonic() + PATIENCE_S
        while (now := self.held()).files > wanted.files and time.monotonic() < end:
            time.sleep(0.5)
        return now

    def call(self, case: Any) -> None:
        """One request; of a picture that never ends, the beginning."""
        asked = case.as_transport_kwargs(base_url=self.base, headers=self.headers)
        with requests.request(**asked, stream=True, timeout=PATIENCE_S, allow_redirects=False) as answer:
            status = answer.status_code
            next(answer.iter_content(1000), b"")
        self.seen[status] = self.seen.get(status, 0) + 1

    def try_all(self, each: int) -> None:
        """So many requests to every operation that the API describes, as it says and otherwise."""
        description = requests.get(f"{self.base}/api/v1/openapi.json", headers=self.headers, timeout=PATIENCE_S).json()
        operations = [one.ok() for one in schemathesis.openapi.from_dict(description).get_all_operations()]
        assert {"/api/v1/picture.mjpeg", "/api/v1/input.mjpeg"} <= {one.path for one in operations}
        for operation in operations:
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                try:
                    repeat(each, operation.as_strategy(generation_mode=mode), self.call)
                except hypothesis.errors.Unsatisfiable:
                    continue  # an operation without anything to get wrong


def repeat(each: int, strategy: Any, call: Any) -> None:
    every = list(hypothesis.HealthCheck)

    @hypothesis.settings(max_examples=each, deadline=None, database=None, suppress_health_check=every)
    @hypothesis.given(case=strategy)
    def calls(case: Any) -> None:
        call(case)

    calls()


@contextmanager
def running(folder: Path, limits: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.support.control_program", str(folder), limits]
    said = folder / "stderr"
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=stderr) as process,
    ):
        session = folder / client.SESSION_FILE
        while not session.exists():
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
        yield Running(psutil.Process(process.pid), json.loads(session.read_text()))
        assert process.poll() is None, said.read_text()
    assert process.returncode == 0
    assert "Traceback" not in said.read_text()
