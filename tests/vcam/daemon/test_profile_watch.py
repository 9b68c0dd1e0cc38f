"""Profiles that are edited while the camera runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.profile_files import write_profile
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import Command, Reload, UseProfile
from vcam.daemon.profile_watch import LOOK_S, ProfileWatch


class Watched:
    """A watch over a folder, and what it said; time passes only here."""

    def __init__(self, folder: Path, run: SwitchedDaemon) -> None:
        self.clock, self.said, self.run = Clock(), list[str](), run
        self.watch = ProfileWatch(folder, self.said.append, self.clock)

    def looks(self, times: int = 3) -> list[Command]:
        given = []
        for _ in range(times):
            self.clock.now += LOOK_S
            given.append(self.watch.look(self.run.daemon.choice))
        return [command for command in given if command is not None]


@pytest.fixture
def run(tmp_path: Path) -> SwitchedDaemon:
    return SwitchedDaemon(tmp_path)  # built, not started


def test_what_changed_is_used_where_it_is_shown_and_read_where_it_is_not(tmp_path: Path, run: SwitchedDaemon) -> None:
    watched = Watched(run.folder, run)
    assert watched.looks() == []
    write_profile(run.folder, "p0", seed=30)
    assert watched.looks() == [UseProfile("p0")]
    assert watched.looks() == []
    write_profile(run.folder, "p1", seed=40)
    write_profile(run.folder, "new", seed=41)
    assert watched.looks() == [Reload()]
    (run.folder / "p2.toml").unlink()
    assert watched.looks() == [Reload()]
    assert watched.said == []


def test_nonsense_is_told_once_and_changes_nothing_shown(tmp_path: Path, run: SwitchedDaemon) -> None:
    watched = Watched(run.folder, run)
    (run.folder / "p0.toml").write_text("name = 3")
    (run.folder / "deep.toml").write_text("a" + ".a" * 30_000 + " = 1")
    assert watched.looks(6) == [Reload()]
    assert sorted(text.partition(":")[0] for text in watched.said) == ["deep.toml", "p0.toml"]


@pytest.mark.skipif(sys.platform == "win32", reason="who may make links there is another question")
def test_a_link_to_nothing_is_told_and_hides_no_other_file_from_the_watch(tmp_path: Path, run: SwitchedDaemon) -> None:
    watched = Watched(run.folder, run)
    (run.folder / "lost.toml").symlink_to("nowhere.toml")
    assert watched.looks() == [Reload()]
    assert [text.partition(":")[0] for text in watched.said] == ["lost.toml"]
    write_profile(run.folder, "p0", seed=30)
    assert watched.looks() == [UseProfile("p0")]


def test_a_file_that_is_being_written_is_left_until_it_stands_still(tmp_path: Path, run: SwitchedDaemon) -> None:
    watched = Watched(run.folder, run)
    for size in range(5):
        (run.folder / "p0.toml").write_text("name = " + "x" * size)
        assert watched.looks(1) == []
    assert watched.said == []


def test_a_folder_that_comes_and_goes_is_no_fault(tmp_path: Path, run: SwitchedDaemon) -> None:
    watched = Watched(tmp_path / "later", run)
    assert watched.looks() == []
    (tmp_path / "later").mkdir()
    write_profile(tmp_path / "later", "p9", seed=1)
    assert watched.looks() == [Reload()]


def test_an_edited_file_acts_in_a_running_camera_and_a_fault_costs_that_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SwitchedDaemon(tmp_path) as run:
        write_profile(run.folder, "p0", seed=3)
        run.until(lambda: run.shows(3))
        failed, queue = list[Command](), run.daemon._commands
        apply = queue._apply

        def fails(command: Command) -> None:
            failed.append(command)
            raise RecursionError("deep")

        monkeypatch.setattr(queue, "_apply", fails)
        write_profile(run.folder, "p0", seed=2)
        run.until(lambda: failed == [UseProfile("p0")])
        monkeypatch.setattr(queue, "_apply", apply)
        (run.folder / "p0.toml").write_text("nonsense")
        run.until(lambda: any("p0.toml" in line["text"] for line in run.daemon.log()))
        assert run.shows(3)
        write_profile(run.folder, "p0", seed=1)
        run.until(lambda: run.shows(1))
