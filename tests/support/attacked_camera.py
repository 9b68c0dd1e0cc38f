"""`vcam run` as users start it, with a quick engine in place of the included model and the real one for all others.

Its sink is nobody; each interval between two pictures of over NOTED_MS is a line of VCAM_LATE_FILE: seconds since the
epoch, ms, and for how many of them the pacer's thread could have run and had no processor (Linux). Where the next
picture is late by LATE_S, stderr shows what every thread does meanwhile.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the engine's process imports this file too, and has to be as quick as the real one
    from core.settings import EngineSettings, Look
    from vcam.daemon.daemon import RunParts
    from vcam.frames import Picture
    from vcam.settings.run_options import RunOptions, RunReport
    from vcam.worker.factories import EngineProtocol, ReportProgress

NOTED_MS, LATE_S = 50.0, 0.08


def waited() -> float:
    """Return for how many ms this thread had to wait for a processor so far; 0 where the system does not say."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[1]) / 1e6
    except OSError:
        return 0.0


def before_all() -> None:
    """Give this thread real time where we may (Linux, root), so that what other work does is not measured.

    tests.fuzz.live_camera gives it to the other threads of this process, a level below: one that holds Python's lock
    and has no processor would keep this one waiting.
    """
    with suppress(AttributeError, PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(2))


class TimedSink:
    """Notes in a file when a picture came late."""

    name = "none"

    def __init__(self, size: tuple[int, int], file: Path) -> None:
        self.size = size
        self._file, self._before_s = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0.0
        self._waited_ms = 0.0

    def send(self, picture: Picture, tick: int) -> None:
        """Look at the clock."""
        if not self._before_s:
            before_all()
        now = time.perf_counter()
        ms, self._before_s = 1000 * (now - self._before_s), now
        waited_ms, self._waited_ms = self._waited_ms, waited()
        if NOTED_MS < ms < 1e6:
            os.write(self._file, f"{time.time():.1f} {ms:.1f} {self._waited_ms - waited_ms:.1f}\n".encode())
        faulthandler.dump_traceback_later(LATE_S)  # put off by the next picture

    def close(self) -> None:
        """Note no more."""
        faulthandler.cancel_dump_traceback_later()
        os.close(self._file)


def engine(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> EngineProtocol:
    """Return the engine of these settings."""
    if settings.model == "embedded":
        from tests.support.fake_engine import FakeEngine

        return FakeEngine(settings, look, 0.02)
    from vcam.worker.factories import core_engine

    return core_engine(settings, look, threads, report)


def main() -> int:
    """Run it; return the exit status."""
    from vcam.cli.main import main as vcam
    from vcam.daemon import daemon

    run, file = daemon.run, Path(os.environ["VCAM_LATE_FILE"])
    timed = daemon.RunParts(
        engine="tests.support.attacked_camera:engine",
        open_sink=lambda options: TimedSink(options.size or (640, 480), file),
    )

    def run_with_it(options: RunOptions, parts: RunParts | None = None) -> RunReport:
        return run(options, parts or timed)

    daemon.run = run_with_it
    return vcam(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
