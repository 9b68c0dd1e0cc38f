"""The first steps of a new user, as the page and the terminal list them: pure, from a status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from vcam.commands import Status

TEST_PICTURE = "test picture"


class StepMark(StrEnum):
    """done; note: it works otherwise than wished; open: something is to be done."""

    DONE = "done"
    NOTE = "note"
    OPEN = "open"


@dataclass(frozen=True)
class FirstStep:
    """One line: what it is about, how it stands, and the command that helps, "" where none does."""

    id: str
    mark: StepMark
    title: str
    text: str
    command: str = ""


def first_steps(status: Status, system: str, has_library: bool = True) -> tuple[FirstStep, ...]:
    """Return the steps in their order. system: as sys.platform names it; has_library: that feeds the virtual camera."""
    return _camera(status), _virtual_camera(status, system, has_library), _program(status)


def has_camera_library() -> bool:
    """Tell whether the library that feeds the virtual camera is installed: GPL, no part of the plain wheel."""
    return find_spec("pyvirtualcam") is not None


def all_done(steps: tuple[FirstStep, ...]) -> bool:
    """Tell whether nothing is left to be done."""
    return all(step.mark is not StepMark.OPEN for step in steps)


def _camera(status: Status) -> FirstStep:
    if status.source == TEST_PICTURE:
        text = "No camera was found, so here is a test picture. Plug one in and choose it under Advanced."
        return FirstStep("camera", StepMark.NOTE, "Your camera", text)
    if status.state == "waiting":
        return FirstStep("camera", StepMark.OPEN, "Your camera", status.reason)
    return FirstStep("camera", StepMark.DONE, "Your camera", f"Found: {status.source}")


def _virtual_camera(status: Status, system: str, has_library: bool) -> FirstStep:
    title = "The virtual camera"
    if not status.sink.startswith("none"):
        return FirstStep("virtual-camera", StepMark.DONE, title, f"There: {status.sink}")
    if not has_library:
        text = "The package that feeds it is missing. This installs it; then start this program again:"
        return FirstStep("virtual-camera", StepMark.OPEN, title, text, "pip install pyvirtualcam")
    if system == "darwin":
        text = "In OBS 30 or newer click Start Virtual Camera once, allow it, stop it; then start this program again."
        return FirstStep("virtual-camera", StepMark.OPEN, title, text)
    text = "Other programs cannot see you yet. This sets it up, once; then start this program again:"
    return FirstStep("virtual-camera", StepMark.OPEN, title, text, "vcam setup camera")


def _program(status: Status) -> FirstStep:
    title = "Choose it in Zoom, Teams, OBS or your browser"
    if status.reader_count:
        who = ", ".join(status.readers) or "A program"
        return FirstStep("program", StepMark.DONE, title, f"{who} shows it. All is set up.")
    text = "In its video settings choose “StreamV2V Camera”. This mark turns green when it does."
    if status.reader_count is None:
        text = "In its video settings choose “StreamV2V Camera” (or “OBS Virtual Camera”)."
    return FirstStep("program", StepMark.OPEN, title, text)
