"""The first steps of a new user, as the page and the terminal list them: pure, from a status and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from vcam.commands import Status
from vcam.settings.config import SINKS_BESIDE

TEST_PICTURE = "test picture"


class StepMark(StrEnum):
    """How a step stands.

    done; note: it works otherwise than wished; open: something is to be done; own: nobody but the user can see whether
    it is done, so the user ticks it off.
    """

    DONE = "done"
    NOTE = "note"
    OPEN = "open"
    OWN = "own"


@dataclass(frozen=True)
class FirstStep:
    """One line: what it is about, how it stands, and the command that helps, "" where none does."""

    id: str
    mark: StepMark
    title: str
    text: str
    command: str = ""


@dataclass(frozen=True)
class Chosen:
    """What the user asked for, as --source and --sink take it; auto where nothing was said."""

    source: str = "auto"
    sink: str = "auto"


def first_steps(status: Status, asked: Chosen, system: str, has_library: bool = True) -> tuple[FirstStep, ...]:
    """Return the steps in their order; none about other programs where the picture shall not go to any.

    system: as sys.platform names it; has_library: that feeds the virtual camera.
    """
    camera = _camera(status, asked.source)
    if asked.sink in ("auto", "camera"):
        return camera, _virtual_camera(status, system, has_library), _program(status)
    if asked.sink in SINKS_BESIDE:
        return camera, _chosen_sink(f"There, as you chose: {status.sink}"), _receiver(status)
    if asked.sink == "none":
        return camera, _chosen_sink("To no other program, as you chose. You see it on the page.")
    return camera, _chosen_sink(f"Into the file {Path(asked.sink).name}, as you chose.")


def has_camera_library() -> bool:
    """Tell whether the library that feeds the virtual camera is installed: GPL, no part of the plain wheel."""
    return find_spec("pyvirtualcam") is not None


def all_done(steps: tuple[FirstStep, ...]) -> bool:
    """Tell whether all is set up: nothing is left to be done, and other programs can show the picture."""
    return nothing_open(steps) and steps[-1].id == "program" and steps[-1].mark is not StepMark.OWN


def nothing_open(steps: tuple[FirstStep, ...]) -> bool:
    """Tell whether nothing is left that this program can see to be done."""
    return all(step.mark is not StepMark.OPEN for step in steps)


def _camera(status: Status, asked: str) -> FirstStep:
    title = "Your camera"
    if status.state == "waiting":
        return FirstStep("camera", StepMark.OPEN, title, status.reason)
    if status.source != TEST_PICTURE:
        return FirstStep("camera", StepMark.DONE, title, f"Found: {status.source}")
    if asked == "pattern":
        text = "The test picture, as you chose. Under Advanced you can choose a camera."
        return FirstStep("camera", StepMark.DONE, title, text)
    text = "No camera was found, so here is a test picture. Plug one in and choose it under Advanced."
    return FirstStep("camera", StepMark.NOTE, title, text)


def _chosen_sink(text: str) -> FirstStep:
    return FirstStep("sink", StepMark.DONE, "Where your picture goes", text)


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
    if status.sink.startswith("none"):
        return FirstStep("program", StepMark.OPEN, title, "Once the virtual camera is there: “StreamV2V Camera”.")
    camera = "“OBS Virtual Camera”" if "OBS" in status.sink else "“StreamV2V Camera”"
    return _shown(status, title, f"In its video settings choose {camera}.")


def _receiver(status: Status) -> FirstStep:
    return _shown(status, "Choose it in the program that receives", "There it is called “StreamV2V Camera”.")


def _shown(status: Status, title: str, text: str) -> FirstStep:
    """Return the last step: a system that does not say who opens a camera leaves it to the user to tick off."""
    if status.reader_count is None:
        return FirstStep("program", StepMark.OWN, title, f"{text} Nothing tells this program whether you did.")
    if not status.reader_count:
        return FirstStep("program", StepMark.OPEN, title, f"{text} This mark turns green when it does.")
    who = ", ".join(status.readers) or "A program"
    return FirstStep("program", StepMark.DONE, title, f"{who} shows it. All is set up.")
