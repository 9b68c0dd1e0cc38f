"""The first steps of a new user: what the page and the terminal list, and that they come once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clock import Clock
from vcam.commands import Status
from vcam.control.first_steps import Chosen, StepMark, all_done, first_steps, nothing_open
from vcam.control.page_memory import MEMORY_FILE, PageMemory, Remembered
from vcam.daemon.first_run import FirstRun
from vcam.errors import CommandError, VcamError

DONE, NOTE, OPEN, OWN = StepMark.DONE, StepMark.NOTE, StepMark.OPEN, StepMark.OWN
AUTO = Chosen()
READY = Status(
    state="running", source="Logitech", sink="StreamV2V Camera (/dev/video2)", reader_count=1, readers=("zoom (pid 7)",)
)


@pytest.mark.parametrize(
    ("status", "marks", "words"),
    [
        (READY, [DONE, DONE, DONE], "zoom (pid 7) shows it"),
        (replace(READY, source="test picture"), [NOTE, DONE, DONE], "No camera was found"),
        (replace(READY, state="waiting", reason="it is in use by cheese"), [OPEN, DONE, DONE], "in use by cheese"),
        (replace(READY, sink="none", reader_count=None, readers=()), [DONE, OPEN, OPEN], "sets it up"),
        (replace(READY, reader_count=0, readers=()), [DONE, DONE, OPEN], "turns green"),
    ],
)
def test_what_is_there_and_what_is_to_be_done(status: Status, marks: list[StepMark], words: str) -> None:
    steps = first_steps(status, AUTO, "linux")
    assert [step.mark for step in steps] == marks
    assert all_done(steps) is (OPEN not in marks)
    assert words in " ".join(step.text for step in steps)


def test_what_sets_up_the_camera_is_named_for_each_system() -> None:
    status = replace(READY, sink="none")
    commands = {system: first_steps(status, AUTO, system)[1].command for system in ("linux", "win32", "darwin")}
    assert commands == {"linux": "vcam setup camera", "win32": "vcam setup camera", "darwin": ""}
    assert "OBS" in first_steps(status, AUTO, "darwin")[1].text


PATTERN = replace(READY, source="test picture")
NOWHERE = replace(READY, sink="none", reader_count=None, readers=())


@pytest.mark.parametrize(
    ("status", "asked", "marks", "words"),
    [
        (PATTERN, Chosen(source="pattern"), [DONE, DONE, DONE], "as you chose"),
        (NOWHERE, Chosen(sink="none"), [DONE, DONE], "To no other program, as you chose"),
        (replace(READY, sink="/films/a.mp4"), Chosen(sink="/films/a.mp4"), [DONE, DONE], "Into the file a.mp4"),
        (replace(READY, sink="NDI (StreamV2V Camera)"), Chosen(sink="ndi"), [DONE, DONE, DONE], "NDI"),
        (replace(READY, state="waiting", reason="asleep"), Chosen("clip.mp4", "none"), [OPEN, DONE], "asleep"),
    ],
)
def test_what_was_chosen_is_not_taken_for_a_fault(
    status: Status, asked: Chosen, marks: list[StepMark], words: str
) -> None:
    """To who chose the test picture it said that no camera was found, and spoke of setting up what nobody wanted."""
    steps = first_steps(status, asked, "linux")
    said = " ".join(f"{step.text} {step.command}" for step in steps)
    assert [step.mark for step in steps] == marks
    assert words in said
    assert "No camera was found" not in said
    assert "setup" not in said
    assert all_done(steps) is (len(steps) == 3), "the steps to come for a camera are not done by a run without one"


@pytest.mark.parametrize(("sink", "name"), [("OBS Virtual Camera", "OBS"), ("StreamV2V Camera", "StreamV2V")])
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_what_no_system_tells_is_for_the_user_to_tick_off(system: str, sink: str, name: str) -> None:
    """A mark that waits for a program to be seen there would never turn green."""
    status = replace(READY, sink=f"StreamV2V Camera ({sink})", reader_count=None, readers=())
    steps = first_steps(status, AUTO, system)
    assert [step.mark for step in steps] == [DONE, DONE, OWN]
    assert name in steps[-1].text
    assert "green" not in steps[-1].text
    assert nothing_open(steps)
    assert not all_done(steps)


def test_the_terminal_tells_once_what_it_can_never_see_done(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        clock = Clock()
        run = FirstRun(PageMemory(tmp_path), said.append, clock, "win32")
        for _ in range(3):
            clock.now += 2
            run.look(lambda: replace(READY, reader_count=None, readers=()), AUTO)
    assert len(said) == 1
    assert "□ 3. Choose it in Zoom" in said[0]
    assert not PageMemory(tmp_path).now.set_up, "the page still shows them, to be ticked off"


def test_the_package_that_feeds_it_comes_first() -> None:
    """The wheel alone does not bring it: a camera that is set up would help nobody."""
    step = first_steps(replace(READY, sink="none"), AUTO, "linux", has_library=False)[1]
    assert (step.mark, step.command) == (OPEN, "pip install pyvirtualcam")
    assert first_steps(READY, AUTO, "linux", has_library=False)[1].mark == DONE


def test_the_terminal_tells_them_once_and_that_they_are_done_and_never_again(tmp_path: Path) -> None:
    said: list[str] = []
    clock, now = Clock(), [replace(READY, state="starting")]
    run = FirstRun(PageMemory(tmp_path), said.append, clock, "linux")

    def look() -> None:
        clock.now += 2
        run.look(lambda: now[0], AUTO)

    look()
    assert said == [], "the camera has not opened yet"
    now[0] = replace(READY, reader_count=0, readers=())
    for _ in range(3):
        look()
    assert len(said) == 1
    assert "✓ 1. Your camera: Found: Logitech" in said[0]
    assert "○ 3. Choose it in Zoom" in said[0]
    now[0] = READY
    for _ in range(3):
        look()
    assert len(said) == 2
    assert "zoom (pid 7) shows it" in said[1]
    run = FirstRun(PageMemory(tmp_path), said.append, clock, "linux")
    look()
    assert len(said) == 2, "another start of the program says nothing"


def test_the_page_remembers_from_run_to_run(tmp_path: Path) -> None:
    memory = PageMemory(tmp_path / "state")
    assert memory.now == Remembered()
    memory.change({"favourites": ["ink", "gold", "ink"]})
    memory.change({"set_up": True})
    assert PageMemory(tmp_path / "state").now == Remembered(("ink", "gold"), True)


@pytest.mark.parametrize(
    "given",
    [
        {"favourites": "ink"},
        {"favourites": [3]},
        {"favourites": ["../x"]},
        {"favourites": [f"p{n}" for n in range(10)]},
        {"set_up": "yes"},
        {"told": 1},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_remembered_is_refused(tmp_path: Path, given: dict[str, object]) -> None:
    memory = PageMemory(tmp_path)
    with pytest.raises((CommandError, VcamError)):
        memory.change(given)
    assert memory.now == Remembered()


DAMAGED = ["", "[]", "nonsense", '{"favourites": 3}', '{"colour": 1}', '{"set_up": []}', "[" * 9999]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MEMORY_FILE).write_text(text)
    assert PageMemory(tmp_path).now == Remembered()


def test_a_folder_that_cannot_be_written_costs_the_next_run_its_memory_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = PageMemory(tmp_path / "file" / "state")
    memory.change({"set_up": True})
    assert memory.now.set_up
