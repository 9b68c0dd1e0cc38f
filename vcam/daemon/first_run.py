"""The first steps in the terminal: told once, and again when the last of them is done; never after that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from vcam.commands import Status
from vcam.control.first_steps import (
    Chosen,
    FirstStep,
    StepMark,
    all_done,
    first_steps,
    has_camera_library,
    nothing_open,
)
from vcam.control.page_memory import PageMemory
from vcam.log_file import callable_here, print_later

LOOK_S = 1.0  # how often it is looked whether a step is done
_SIGNS = {StepMark.DONE: "✓", StepMark.NOTE: "!", StepMark.OPEN: "○", StepMark.OWN: "□"}


def tell(text: str) -> None:
    """Say it where a person watches the terminal; the page and the log have it otherwise."""
    if sys.stderr is not None and sys.stderr.isatty():
        print_later(lambda: callable_here(text))


class FirstRun:
    """Looks at the status now and then, from one thread, until the first steps are done."""

    def __init__(
        self,
        memory: PageMemory,
        say: Callable[[str], None] = tell,
        clock: Callable[[], float] = time.monotonic,
        system: str = sys.platform,
    ) -> None:
        self._memory, self._say, self._clock, self._system = memory, say, clock, system
        self._told = False
        self._next_s = clock()

    def look(self, status: Callable[[], Status], asked: Chosen) -> None:
        """Tell the steps once the camera has opened, and when they are done; keep that they are."""
        if self._memory.now.set_up or self._memory.now.told or self._clock() < self._next_s:
            return
        self._next_s = self._clock() + LOOK_S
        now = status()
        if now.state == "starting":
            return
        steps = first_steps(now, asked, self._system, has_camera_library())
        if not self._told:
            self._told = True
            self._say(as_text(steps))
        if all_done(steps):
            self._memory.change({"set_up": True})
            self._say(f"  {_SIGNS[StepMark.DONE]} {steps[-1].text}")
        elif nothing_open(steps) and steps[-1].mark is StepMark.OWN:
            self._memory.change({"told": True})  # it can never be seen to be done


def as_text(steps: tuple[FirstStep, ...]) -> str:
    """Return the steps as lines for a terminal."""
    lines = ["", "  The first steps:"]
    for number, step in enumerate(steps, 1):
        lines.append(f"  {_SIGNS[step.mark]} {number}. {step.title}: {step.text}")
        if step.command:
            lines.append(f"       {step.command}")
    return "\n".join([*lines, ""])
