"""Another published size: the run begins again by itself, as it was, and never where that would cost something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.settings import EngineSettings
from tests.support.fake_camera import FakeCamera
from tests.support.fake_engine import FACTORY
from tests.support.fake_sink import FakeSink
from tests.support.patience import PATIENCE_S, until
from tests.support.profile_files import write_profile
from vcam.commands import ChangeLook, Command, Mirror, Panic, Pause, Resume, SendAt, Status, Stop, UseProfile
from vcam.daemon.begin_again import begin_again
from vcam.daemon.daemon import Daemon, RunParts, keep_running
from vcam.errors import DeviceError, OptionError, VcamError
from vcam.frames import FrameSink
from vcam.settings.config import ObsSettings, RecordSettings
from vcam.settings.run_options import RunOptions, RunReport

BEFORE, AFTER = (640, 480), (1280, 720)


class ResizedRun:
    """A run whose daemons, one after the other, are in `daemons`; `refused`: a size that no camera here has."""

    def __init__(self, folder: Path) -> None:
        self.sinks: list[FakeSink] = []
        self.daemons: list[Daemon] = []
        self.refused: tuple[int, int] | None = None
        self.stop, self.reasons = threading.Event(), list[str]()
        profiles = folder / "profiles"
        profiles.mkdir()
        for n in range(2):
            write_profile(profiles, f"p{n}", seed=n)
        self.parts = RunParts(
            engine=FACTORY,
            settings_of=lambda profile, options: EngineSettings(model="fake", width=96, height=64, steps=1),
            open_source=lambda options: self._source(),
            open_sink=self._sink,
            state_folder=lambda: folder,
            signals=False,
        )
        options = RunOptions(
            size=BEFORE,
            panel=False,
            obs=ObsSettings(enabled=False),
            profile="p0",
            profiles_folder=profiles,
            record=RecordSettings(str(folder / "videos")),
        )
        self.done: Future[RunReport] = Future()
        self.thread = threading.Thread(target=self._work, args=(options,))

    def _source(self) -> FakeCamera:
        return FakeCamera(pause_s=0.03)

    def _sink(self, options: RunOptions) -> FrameSink:
        if options.size == self.refused:
            raise DeviceError("no such size")
        self.sinks.append(FakeSink(options.size or BEFORE))
        return self.sinks[-1]

    def _work(self, options: RunOptions) -> None:
        build = Daemon.__init__

        def noted(daemon: Daemon, *given: Any) -> None:
            build(daemon, *given)
            self.daemons.append(daemon)

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Daemon, "__init__", noted)
                first = Daemon(options, self.parts, self.stop, self.reasons)
                self.done.set_result(keep_running(first, self.parts, self.stop, self.reasons))
        except BaseException as error:  # noqa: BLE001  told by the test's own thread
            self.done.set_exception(error)

    @property
    def status(self) -> Status:
        return self.daemons[-1].status()

    def tell(self, command: Command) -> None:
        self.daemons[-1].submit(command).result(PATIENCE_S)

    def until_running(self, count: int) -> None:
        until(lambda: len(self.daemons) == count and self.status.state == "running", lambda: self.daemons)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[ResizedRun]:
    run = ResizedRun(tmp_path)
    run.thread.start()
    run.until_running(1)
    yield run
    if not run.done.done():
        run.tell(Stop())
    run.done.result(PATIENCE_S)
    run.thread.join(PATIENCE_S)  # else it takes its patch of Daemon away from under the next test's


def test_it_begins_again_as_it_was_with_the_new_size(run: ResizedRun) -> None:
    run.tell(UseProfile("p1"))
    run.tell(ChangeLook({"strength": 0.7, "prompt": "a person of gold"}))
    run.tell(Mirror(True))
    run.tell(SendAt("1280x720"))
    run.until_running(2)
    assert run.sinks[0].closed
    now = run.status
    assert (now.width, now.height, now.profile, now.mirror) == (*AFTER, "p1", True)
    until(lambda: run.daemons[-1].choice.look.strength == 0.7, "the look is another")
    assert run.status.prompt == "a person of gold"
    until(lambda: run.sinks[1].sent, "nothing is sent in that size")
    assert run.sinks[1].last.shape == (720, 1280, 3)
    assert any("it begins again at 1280x720" in line["text"] for line in run.daemons[0].log())


def test_the_size_that_is_so_already_changes_nothing(run: ResizedRun) -> None:
    run.tell(SendAt("640x480"))
    run.tell(Mirror(True))
    assert len(run.daemons) == 1
    assert not run.stop.is_set()


def test_a_size_that_the_camera_does_not_take_leaves_the_one_before(run: ResizedRun) -> None:
    run.refused = AFTER
    run.tell(SendAt("1280x720"))
    run.until_running(2)
    assert (run.status.width, run.status.height) == BEFORE
    assert any("no such size; the picture goes on at 640x480" in one["text"] for one in run.daemons[-1].log())


def test_a_signal_meanwhile_ends_it(run: ResizedRun) -> None:
    run.reasons.append("the signal SIGTERM")
    run.tell(SendAt("1280x720"))
    run.done.result(PATIENCE_S)
    assert run.status.published == 0 or len(run.daemons) == 1


@pytest.mark.parametrize("halt", [Pause(), Panic()], ids=["pause", "panic"])
def test_it_never_ends_a_panic(run: ResizedRun, halt: Command) -> None:
    run.tell(halt)
    with pytest.raises(VcamError, match="resume first"):
        run.tell(SendAt("1280x720"))
    assert len(run.daemons) == 1
    run.tell(Resume())


@pytest.mark.parametrize("size", ["big", "63x480", "641x480", "99999x2"])
def test_nonsense_is_refused(run: ResizedRun, size: str) -> None:
    with pytest.raises(OptionError):
        run.tell(SendAt(size))


@pytest.mark.parametrize(
    ("changes", "sink", "words"),
    [
        ({"recording": "a.mp4"}, "auto", "a recording is not finished"),
        ({"finishing": "a.mp4"}, "auto", "a recording is not finished"),
        ({"reader_count": 1, "readers": ("zoom (pid 7)",)}, "auto", r"zoom \(pid 7\) shows the camera"),
        ({}, "film.mp4", "film.mp4, which has one size"),
    ],
)
def test_what_it_would_cost_is_said(run: ResizedRun, changes: dict[str, Any], sink: str, words: str) -> None:
    choice = run.daemons[-1].choice
    choice = replace(choice, options=replace(choice.options, sink=sink))
    with pytest.raises(VcamError, match=words):
        begin_again(choice, replace(run.status, **changes), "1280x720")


@pytest.mark.parametrize(
    ("asked", "found", "wanted"),
    [
        ("auto", "StreamV2V Camera (/dev/video2)", "camera"),
        ("auto", "none", "auto"),
        ("auto", "none, NDI (StreamV2V Camera)", "auto"),
        ("none", "none", "none"),
    ],
)
def test_a_camera_that_was_found_is_not_left_for_none_if_it_refuses_the_size(
    run: ResizedRun, asked: str, found: str, wanted: str
) -> None:
    """`auto` takes none where the camera does not open: the picture would be gone for all other programs."""
    choice = run.daemons[-1].choice
    choice = replace(choice, options=replace(choice.options, sink=asked))
    again = begin_again(choice, replace(run.status, sink=found), "1280x720")
    assert again is not None
    assert (again.options.sink, again.before.sink) == (wanted, asked)
