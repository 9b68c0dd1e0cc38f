"""Another published size on a real v4l2loopback device, whose readers hold the format that they began with.

The driver itself takes another size from a writer while somebody reads, and shows the readers damaged pictures.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from core.settings import EngineSettings
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S, until
from vcam import client
from vcam.commands import SendAt, Status, Stop
from vcam.daemon.daemon import Daemon, RunParts, keep_running
from vcam.devices import readers, sinks
from vcam.errors import DeviceError, VcamError
from vcam.frames import Picture
from vcam.settings.config import ObsSettings
from vcam.settings.run_options import RunOptions, RunReport

if sys.platform == "linux":
    from vcam.devices import v4l2

pytestmark = pytest.mark.v4l2
BEFORE, AFTER = (160, 120), (320, 240)

# tells each picture's size
READER = """
import cv2, sys
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2)
while True:
    good, picture = capture.read()
    print(*(picture.shape[1::-1] if good else ("nothing", "")), flush=True)
"""


class Reader:
    """A program that shows the camera, and what sizes its pictures had."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", READER, sinks.find_device()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.sizes: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.sizes.extend(line.strip() for line in self.process.stdout)

    def until_more(self, wanted: tuple[int, int]) -> None:
        """Three more pictures have come, all of that size."""
        before = len(self.sizes)
        until(lambda: len(self.sizes) >= before + 3, lambda: self.sizes[-3:])
        assert set(self.sizes[before:]) == {f"{wanted[0]} {wanted[1]}"}

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reading.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def reading() -> Iterator[Reader]:
    reader = Reader()
    try:
        yield reader
    finally:
        reader.end()


class Run:
    """The camera as `vcam run` has it, which may begin again. blind: it cannot tell who looks."""

    def __init__(self, folder: Path, blind: bool = False) -> None:
        self.folder, self.stop = folder, threading.Event()
        options = RunOptions(
            source="pattern", size=BEFORE, fps=5, panel=False, idle_after_s=0, obs=ObsSettings(enabled=False)
        )
        self.parts = RunParts(
            engine=FACTORY,
            settings_of=lambda profile, options: EngineSettings(model="fake", width=96, height=80, steps=1),
            watch_sink=(lambda sink: None) if blind else readers.watch,
            state_folder=lambda: folder,
            signals=False,
        )
        self.done: Future[RunReport] = Future()
        self.thread = threading.Thread(target=self._work, args=(Daemon(options, self.parts, self.stop),))
        self.thread.start()

    def _work(self, daemon: Daemon) -> None:
        try:
            self.done.set_result(keep_running(daemon, self.parts, self.stop, []))
        except BaseException as error:  # noqa: BLE001  told by the test's own thread
            self.done.set_exception(error)

    def status(self) -> Status:
        if self.done.done():
            self.done.result()
        try:
            return client.status(self.folder)
        except VcamError:  # it begins, or begins again
            return Status()

    def until_running(self, size: tuple[int, int]) -> None:
        def so() -> bool:
            now = self.status()
            return (now.state, now.width, now.height) == ("running", *size) and now.translated > 3

        until(so, self.status)

    def end(self) -> None:
        if not self.done.done():
            client.send(Stop(), self.folder)
        self.done.result(PATIENCE_S)
        self.thread.join(PATIENCE_S)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    try:
        run.until_running(BEFORE)
        yield run
    finally:
        run.end()


def test_with_one_command_other_programs_see_the_new_size(run: Run) -> None:
    client.send(SendAt(f"{AFTER[0]}x{AFTER[1]}"), run.folder)
    run.until_running(AFTER)
    assert run.status().sink.startswith("StreamV2V Camera (/dev/video")
    with reading() as reader:
        reader.until_more(AFTER)


def test_while_a_program_shows_it_the_size_stays_and_the_program_is_named(run: Run) -> None:
    with reading() as reader:
        reader.until_more(BEFORE)
        until(lambda: run.status().readers, run.status)
        with pytest.raises(VcamError, match=rf"\(pid {reader.process.pid}\) shows the camera"):
            client.send(SendAt(f"{AFTER[0]}x{AFTER[1]}"), run.folder)
        reader.until_more(BEFORE)
        assert set(reader.sizes) == {f"{BEFORE[0]} {BEFORE[1]}"}, "a picture was missing"
        assert run.status().engine_pid, "it goes on"


def test_a_program_that_nobody_noticed_keeps_its_pictures(tmp_path: Path) -> None:
    """It opened the camera in the moment in which that began again, or the module tells nobody of it."""
    run = Run(tmp_path, blind=True)
    try:
        run.until_running(BEFORE)
        with reading() as reader:
            reader.until_more(BEFORE)
            first = run.status().engine_pid
            client.send(SendAt(f"{AFTER[0]}x{AFTER[1]}"), run.folder)
            until(lambda: run.status().engine_pid not in (None, first), run.status)
            run.until_running(BEFORE)
            assert run.status().sink.startswith("StreamV2V Camera (/dev/video")
            reader.until_more(BEFORE)
            assert set(reader.sizes) == {f"{BEFORE[0]} {BEFORE[1]}"}, "damaged, or missing"
    finally:
        run.end()


def picture(size: tuple[int, int]) -> Picture:
    return np.full((size[1], size[0], 3), (200, 30, 40), np.uint8)


def test_a_camera_that_is_started_with_another_size_than_is_shown_says_who_shows_it() -> None:
    sink = sinks.VirtualCamera(BEFORE, 10)
    sink.send(picture(BEFORE), 0)
    sink.send(picture(BEFORE), 1)
    with reading() as reader:
        reader.until_more(BEFORE)
        sink.close()
        assert v4l2.kept_size(sinks.find_device()) == BEFORE
        with pytest.raises(DeviceError, match=rf"\(pid {reader.process.pid}\) has /dev/video\d+ open at 160x120"):
            sinks.VirtualCamera(AFTER, 10)
        again = sinks.VirtualCamera(BEFORE, 10)
        reader.until_more(BEFORE)
        again.close()
    until(lambda: v4l2.kept_size(sinks.find_device()) is None, "the device keeps its format")
    sinks.VirtualCamera(AFTER, 10).close()
