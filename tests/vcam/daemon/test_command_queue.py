"""Commands wait in a queue whose reader comes back, whatever interrupts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[3]
# a busy machine gives the processor back only after the time to wait is over
INTERRUPTED = """
import os, signal, threading, time
from vcam.daemon.command_queue import CommandQueue
from vcam.daemon.event_log import EventLog

signal.signal(signal.SIGUSR1, lambda *_: time.sleep(0.5))
commands = CommandQueue(lambda command: None, EventLog())
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
assert not commands.carry_out(0.3)
print("it came back")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")
def test_a_signal_that_comes_as_the_time_runs_out_holds_nobody_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout == "it came back\n", done.stderr


def test_nothing_of_ours_waits_with_a_limit_on_a_queue_that_signals_can_hold() -> None:
    for path in (*ROOT.glob("core/**/*.py"), *ROOT.glob("vcam/**/*.py")):
        code = path.read_text(encoding="utf-8")
        assert "queue.SimpleQueue" not in code or ".get(timeout" not in code, f"{path}: a SimpleQueue and a limit"
