"""A program that translates a film slowly and says how far it is. Its arguments: the film and the output."""

from __future__ import annotations

import sys
from pathlib import Path

from core.settings import EngineSettings, Look
from tests.support.late_engine import SlowEngine
from vcam.offline.translate import Job, translate

SMALL = EngineSettings(width=64, height=64, steps=3)


def main(source: str, target: str) -> None:
    """Print each picture's number; at the end how many pictures were written, and whether it was stopped."""
    report = translate(
        Job(Path(source), Path(target), SMALL, Look()),
        make_engine=SlowEngine,
        progress=lambda done, of: print(done, flush=True),
    )
    print("done", report.frames_out, report.interrupted)


if __name__ == "__main__":
    main(*sys.argv[1:])
