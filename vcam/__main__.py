"""`python -m vcam` is `vcam`."""

import os
import sys


def start() -> int:
    """Run the program; no Python that it starts takes files of the folder that one stands in for its own."""
    os.environ["PYTHONSAFEPATH"] = "1"
    _leave_out(os.getcwd(), os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from vcam.cli.main import main

    return main()


def _leave_out(here: str, ours: str) -> None:
    """Take the folder `here` from where Python looks for modules, unless this program itself lies there."""
    if sys.path and not sys.flags.safe_path and os.path.realpath(here) != os.path.realpath(ours):
        sys.path[:] = [place for place in sys.path if os.path.realpath(place) != os.path.realpath(here)]


if __name__ == "__main__":  # the engine's child process imports this file again
    sys.exit(start())
