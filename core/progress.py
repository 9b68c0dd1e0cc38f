"""How a start tells how far it is: a `Report` hears a sentence and a share between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float], None]
"""Takes what is being done now, and how much of the whole start is done, 0..1."""

BUILDING = 0.6  # the share at which a runtime begins to compile or to build


def silent(text: str, fraction: float) -> None:
    """Ignore a report."""
