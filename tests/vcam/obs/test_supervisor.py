"""The bridge's process: its start and its end in every order, and whatever it does or says."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.clock import Clock
from tests.support.one_at_a_time import meet
from tests.support.patience import PATIENCE_S, until
from vcam.errors import ObsGone
from vcam.obs import supervisor
from vcam.obs.bridge import LONGEST_WAIT_S, Bridge, Orders
from vcam.obs.supervisor import BridgeProcess, Seldom
from vcam.settings.config import ObsSettings

ORDERS = Orders("nowhere", "token", None, ObsSettings(port=1))
LISTENS = 'import sys; sys.stdin.readline(); print(\'{"state": "connected"}\', flush=True); sys.stdin.read()'


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """Return what ended a thread."""
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(supervisor, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_WAIT_S", 0.01)
    return seen


def bridge(folder: Path, code: str, said: Callable[[str], None] = lambda text: None) -> BridgeProcess:
    return BridgeProcess(ORDERS, said, folder, command=[sys.executable, "-S", "-c", code])


@pytest.mark.parametrize("place", ["before the process is made", "after it was made"])
def test_an_end_while_the_bridge_starts_leaves_no_process_and_no_fault(
    tmp_path: Path, faults: list[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    starting, go_on = threading.Event(), threading.Event()
    made: list[subprocess.Popen[str]] = []

    class Slow(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            if place.startswith("after"):
                super().__init__(*arguments, **named)
            starting.set()
            assert go_on.wait(PATIENCE_S)
            if place.startswith("before"):
                super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    tried = bridge(tmp_path, LISTENS).__enter__()
    assert starting.wait(PATIENCE_S)
    end = threading.Thread(target=tried.__exit__, args=(None, None, None))
    end.start()
    until(tried._stop.is_set)
    go_on.set()
    end.join(PATIENCE_S)
    assert not any(one.is_alive() for one in tried._threads)
    assert [one.returncode is None for one in made] == [False]
    assert not faults


def test_no_bridge_is_started_after_the_end(tmp_path: Path, faults: list[threading.ExceptHookArgs]) -> None:
    tried = bridge(tmp_path, LISTENS)
    tried._stop.set()
    tried._run_once()
    assert tried._process is None
    assert not faults


def test_starts_and_ends_in_a_row_leave_nothing(tmp_path: Path, faults: list[threading.ExceptHookArgs]) -> None:
    before = set(psutil.Process().children())
    for count in range(20):
        with bridge(tmp_path, LISTENS) as tried:
            if count % 2:
                until(lambda: tried._process is not None)
    # on a busy machine the last one may still be ending, and one of an earlier test may have been counted before
    until(lambda: set(psutil.Process().children()) <= before)
    assert not faults


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdin.close()",
        "import os; os.close(0)",
        "import os; os.close(1); os.read(0, 9)",
        "print('[' * 60_000)",
        "print('{\"state\": [1]}')",
        'print(\'{"state": null, "said": 3}\')',
        "import sys; sys.exit(7)",
    ],
)
def test_whatever_a_bridge_does_the_next_one_is_started(
    tmp_path: Path, faults: list[threading.ExceptHookArgs], code: str
) -> None:
    said: list[str] = []
    with bridge(tmp_path, code, said.append) as tried:
        tried._orders = Orders("n" * 200_000, "token", None, ObsSettings())  # longer than what a pipe holds
        seen: set[int] = set()

        def several() -> bool:
            seen.add(0 if tried._process is None else tried._process.pid)
            return len(seen - {0}) >= 3

        until(several)
        assert isinstance(tried.state, str)
    assert not faults


def test_a_bridge_that_takes_no_orders_is_ended(
    tmp_path: Path, faults: list[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "END_S", 0.1)
    tried = bridge(tmp_path, "import time; time.sleep(1000)")
    tried._orders = Orders("n" * 200_000, "token", None, ObsSettings())
    with tried:
        until(lambda: tried._process is not None)
    assert not any(one.is_alive() for one in tried._threads)
    assert not faults


def test_an_error_of_ours_costs_one_bridge(tmp_path: Path, faults: list[threading.ExceptHookArgs]) -> None:
    with bridge(tmp_path, LISTENS) as tried:
        heard = tried._hear

        def fails(line: str) -> None:
            tried._hear = heard  # type: ignore[method-assign]
            raise KeyError("nobody foresaw it")

        tried._hear = fails  # type: ignore[method-assign]
        until(lambda: tried.state == "connected")
    assert not faults


def test_a_text_that_repeats_is_said_once_a_minute_with_its_count() -> None:
    clock, said = Clock(), list[str]()
    seldom = Seldom(said.append, clock)
    for _ in range(100):
        seldom("OBS: waiting")
        seldom("OBS: connected")
        clock.now += 0.3
    assert said == ["OBS: waiting", "OBS: connected"]
    clock.now += supervisor.REPEAT_S
    seldom("OBS: waiting")
    assert said[2:] == ["OBS: waiting (and 99 times more since it was last said)"]
    for number in range(10_000):
        seldom(f"OBS: {number}")
    assert len(said) <= 3 + supervisor.MOST_TEXTS


def test_two_threads_say_one_after_the_other() -> None:
    def saying(clock: Callable[[], float]) -> Callable[[], object]:
        seldom = Seldom(lambda text: None, clock)
        return lambda: seldom("OBS: waiting")

    assert not meet(saying)


def test_a_program_that_ends_each_connection_is_not_asked_for_ever_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        """Ends the bridge."""

    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            raise Enough

    def ended(self: Bridge) -> None:
        self._set("connected (obs-websocket 5.5.0)")
        raise ObsGone("OBS has ended the connection")

    monkeypatch.setattr("vcam.obs.bridge.time.sleep", sleep)
    monkeypatch.setattr(Bridge, "_once", ended)
    with pytest.raises(Enough):
        Bridge(ORDERS, lambda told: None).run()
    assert waits[-1] == LONGEST_WAIT_S
