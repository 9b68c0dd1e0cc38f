"""Does the unit suite pass while the machine is busy? It runs again and again beside loops that take every core.

    python benchmarks/suite_under_load.py            ten times, a busy loop for each core, as the issue of it asks
    python benchmarks/suite_under_load.py --runs 3 tests/vcam/worker tests/vcam/daemon

Ends with 1 at the first run that fails, whose output is then shown; its line tells the load meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUSY = "while True: pass"
SUITE = ("-m", "not slow and not browser and not fuzz", "--dist", "loadfile", "-q", "-p", "no:cacheprovider")


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep so many cores busy, at normal priority, as long as the block lasts."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def suite(tests: Sequence[str], processes: int) -> tuple[bool, str]:
    """Run the tests once; return whether they passed, and what pytest said."""
    command = [sys.executable, "-m", "pytest", *SUITE, "-n", str(processes), *tests]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode == 0, done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite under load; return 0 if it passed every time."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders (default: the whole unit suite)")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--loops", type=int, default=cores, help="busy loops (default: one a core)")
    parser.add_argument("--processes", type=int, default=2 * cores, help="of the suite (default: two a core)")
    given = parser.parse_args(argv)
    with busy(given.loops):
        for run in range(1, given.runs + 1):
            start_s = time.monotonic()
            passed, said = suite(given.tests, given.processes)
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            last = said.strip().splitlines()[-1:] or [""]
            seconds = time.monotonic() - start_s
            print(f"run {run} of {given.runs}: {last[0]}; {seconds:.0f} s, load {load:.1f}", flush=True)
            if not passed:
                print(said)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
