"""A control server in a process of its own, until its stdin ends. Its arguments: the folder, "limits" or "none"."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.controlled_daemon import ControlledDaemon
from vcam.control import guard
from vcam.control.server import Server


def main(folder: str, limits: str) -> None:
    """Serve. limits: "limits" as users have them, "none" without."""
    if limits == "none":
        guard.CHANGES_PER_S = guard.REFUSALS_PER_S = 10**9
    with Server(ControlledDaemon(), 0, Path(folder)):
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
