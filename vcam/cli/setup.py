"""`vcam setup camera`: the script that sets up the virtual camera, from the checkout or from the installed package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vcam.errors import VcamError

Call = Callable[[Sequence[str]], int]
"""Runs a command in the user's terminal; its exit status."""


def script(system: str = sys.platform) -> Path:
    """Return the script of this system; raises VcamError where the program does not have it."""
    name = "camera.ps1" if system == "win32" else "camera.sh"
    places = (Path(__file__).parents[1] / "setup_scripts" / name, Path(__file__).parents[2] / "install_scripts" / name)
    for place in places:
        if place.is_file():
            return place
    raise VcamError(f"{name} is not there; install StreamV2V Camera again")


def command(words: Sequence[str], system: str = sys.platform) -> list[str]:
    """Return the command line that runs it. words: yes, dry-run, undo."""
    path = str(script(system))
    if system == "win32":
        given = [f"-{''.join(part.title() for part in word.split('-'))}" for word in words]
        return ["powershell", "-NoProfile", "-ExecutionPolicy", "Bypass", "-File", path, *given]
    return ["bash", path, *(f"--{word}" for word in words)]


def carry_out(words: Sequence[str], call: Call = subprocess.call) -> int:
    """Run the script where the user sees it and answers it; return its exit status. Raises VcamError."""
    line = command(words)
    try:
        return call(line)
    except FileNotFoundError as error:
        raise VcamError(f"there is no {line[0]} on this system, which {line[-1]} needs") from error
