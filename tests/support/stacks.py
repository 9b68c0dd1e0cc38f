"""What the threads of a program that a test has started are at: they are asked by a signal, when the test fails."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = "TEST_STACKS_FOLDER"  # in the environment of the program
_ANSWER_S = 5.0


def tell_when_asked() -> None:
    """Have this process write the stacks of all its threads into a file of FOLDER when `asked` wants to know.

    Called where a program begins, so that the engine's process, which imports the program again, does it too.
    """
    folder = os.environ.get(FOLDER)
    if folder and sys.platform != "win32":
        file = open(Path(folder, str(os.getpid())), "w")  # noqa: SIM115  as long as the process lives
        faulthandler.register(signal.SIGUSR1, file, all_threads=True)


def asked(folder: Path) -> str:
    """Return the stacks of all processes that promised them in this folder, as far as they answer."""
    return "\n\n".join(f"process {path.name}: {_asked(path)}" for path in sorted(folder.iterdir()))


def _asked(path: Path) -> str:
    with contextlib.suppress(ProcessLookupError):
        if sys.platform != "win32":
            os.kill(int(path.name), signal.SIGUSR1)
        end_s, before = time.monotonic() + _ANSWER_S, ""
        while time.monotonic() < end_s:
            time.sleep(0.2)
            told = path.read_text()
            if told and told == before:
                return told
            before = told
        return "has not answered"
    return "has ended"
