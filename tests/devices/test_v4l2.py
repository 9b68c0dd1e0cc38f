"""Against real V4L2 devices: a v4l2loopback labelled "StreamV2V Camera", and one labelled "Physical Camera" to read.

They run on any Linux machine that has the first; those that need the second are skipped where it is not there. A slow
machine (an emulator) is no failure: nothing here is measured in seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from core.settings import EngineSettings
from tests.support.patience import PATIENCE_S, until
from vcam.daemon.daemon import Daemon, RunParts, run
from vcam.devices import cameras, choose, sinks
from vcam.devices.webcam import Webcam
from vcam.errors import VcamError
from vcam.frames import Frame, Picture
from vcam.settings.run_options import RunOptions

if sys.platform == "linux":
    from vcam.devices import v4l2

pytestmark = pytest.mark.v4l2
SIZE = (160, 120)
COLOURS = [(200, 30, 40), (20, 180, 60), (40, 60, 210), (220, 220, 90)]

READER = """
import sys, cv2, numpy as np
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2)
for _ in range(int(sys.argv[3])):
    good, picture = capture.read()
    if not good:
        sys.exit(3)
np.save(sys.argv[2], cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
"""


def blocks() -> Picture:
    """Four flat colours, all corners different, so that a flip or swapped channels are seen."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        y, x = divmod(i, 2)
        picture[y * 60 : y * 60 + 60, x * 80 : x * 80 + 80] = colour
    return picture


def inner_error(seen: Picture, wanted: Picture) -> int:
    """The largest difference 8 pixels away from all edges of colour."""
    error = np.abs(seen.astype(int) - wanted.astype(int))
    return max(int(error[y + 8 : y + 52, x + 8 : x + 72].max()) for y in (0, 60) for x in (0, 80))


def read_back(path: str, tmp_path: Path, frames: int = 5) -> Picture:
    """What another process sees."""
    shot = tmp_path / "shot.npy"
    subprocess.run([sys.executable, "-c", READER, path, str(shot), str(frames)], check=True, timeout=PATIENCE_S)
    picture: Picture = np.load(shot)
    return picture


def physical() -> str:
    """The path of the camera to read from, if somebody feeds it."""
    for device in v4l2.devices():
        if device.name == "Physical Camera" and device.captures:
            return device.path
    pytest.skip('no fed device is called "Physical Camera"')


@contextmanager
def publishing(sink: sinks.VirtualCamera, picture: Picture) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        tick = 0
        while not stop.is_set():
            sink.send(picture, tick)
            tick += 1
            time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_is_published_is_what_another_program_sees(tmp_path: Path) -> None:
    sink = sinks.VirtualCamera(SIZE, 10)
    try:
        with publishing(sink, blocks()):
            assert inner_error(read_back(sinks.find_device(), tmp_path), blocks()) <= 6
    finally:
        sink.close()


def test_it_can_be_opened_again_after_it_was_closed() -> None:
    for _ in range(3):
        sink = sinks.VirtualCamera(SIZE, 10)
        sink.send(blocks(), 0)
        assert v4l2.query(sinks.find_device()).captures
        sink.close()


def test_the_last_picture_stays_when_the_writer_says_nothing_more(tmp_path: Path) -> None:
    sink = sinks.VirtualCamera(SIZE, 10)
    try:
        sink.send(blocks(), 0)
        sink.send(blocks(), 1)
        assert inner_error(read_back(sinks.find_device(), tmp_path, 3), blocks()) <= 6
    finally:
        sink.close()


def test_our_own_camera_is_never_offered_as_input() -> None:
    assert sinks.OUR_NAME not in [camera.name for camera in cameras.list_cameras()]
    with pytest.raises(VcamError, match="the camera that this program makes"):
        cameras.choose_camera("StreamV2V Camera", cameras.list_cameras())
    with pytest.raises(VcamError, match="no camera is called"):
        cameras.choose_camera(sinks.find_device(), cameras.list_cameras())


def test_a_camera_is_found_and_read_by_name() -> None:
    physical()
    camera = Webcam("Physical Camera", (320, 240), 15)
    frames: list[Frame] = []

    def more() -> bool:
        frame = camera.read(0.5)
        if frame is not None:
            frames.append(frame)
        return len(frames) >= 3

    try:
        until(more, f"no pictures: {camera.trouble}")
        assert camera.trouble == ""
    finally:
        camera.close()
    assert frames[-1].picture.shape == (240, 320, 3)
    assert frames[-1].picture.std() > 5


def read_until(camera: Webcam, done: Callable[[Frame | None], bool]) -> None:
    until(lambda: done(camera.read(0.5)), f"it did not happen; trouble: {camera.trouble!r}")


def test_an_unplugged_camera_is_told_and_taken_again_when_it_is_back() -> None:
    driver = Path("/sys/bus/platform/drivers/vivid")
    if not driver.is_dir() or not os.access(driver / "unbind", os.W_OK):
        pytest.skip("no simulated camera (vivid) that can be unplugged")
    device = next(path.name for path in driver.iterdir() if path.name.startswith("vivid."))
    name = next(camera.name for camera in cameras.list_cameras() if "vivid" in camera.name)
    camera = Webcam(name, (320, 180), 15)
    try:
        read_until(camera, lambda frame: frame is not None)
        (driver / "unbind").write_text(device)
        try:
            read_until(camera, lambda frame: camera.trouble == f"{name} is not there: plug it in again")
        finally:
            (driver / "bind").write_text(device)
        read_until(camera, lambda frame: frame is not None)
        assert camera.trouble == ""
    finally:
        camera.close()


def plain(colour: tuple[int, int, int]) -> Picture:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


def shows(frame: Frame | None, colour: tuple[int, int, int]) -> bool:
    return frame is not None and int(np.abs(frame.picture.astype(int) - colour).max()) <= 12


def test_of_two_cameras_of_one_name_the_other_never_goes_live_instead() -> None:
    nodes = [device.path for device in v4l2.devices() if device.name == "Twin Camera"]
    if len(nodes) < 2:
        pytest.skip('no two loopback devices are called "Twin Camera"')
    writers = [sinks.VirtualCamera(SIZE, 10, device=path) for path in nodes]
    with publishing(writers[1], plain(COLOURS[1])):
        with publishing(writers[0], plain(COLOURS[0])):
            names = {str(one.path): one.name for one in cameras.list_cameras()}
            assert [names[path] for path in nodes] == ["Twin Camera", "Twin Camera (2)"]
            second = Webcam("Twin Camera (2)", SIZE, 10)
            read_until(second, lambda frame: shows(frame, COLOURS[1]))
            second.close()
            camera = Webcam("Twin Camera", SIZE, 10)
            read_until(camera, lambda frame: shows(frame, COLOURS[0]))
        v4l2.set_control(nodes[0], "sustain_framerate", 0)  # else the driver repeats the last picture
        writers[0].close()
        seen: list[Frame | None] = []

        def silent() -> bool:
            seen.append(camera.read(0.5))
            return camera.trouble != ""

        until(silent, "the first camera's end was not noticed")
        seen += [camera.read(0.5) for _ in range(20)]
        assert not [frame for frame in seen if shows(frame, COLOURS[1])]
        v4l2.heal(nodes[0])
        again = sinks.VirtualCamera(SIZE, 10, device=nodes[0])
        with publishing(again, plain(COLOURS[3])):
            read_until(camera, lambda frame: shows(frame, COLOURS[3]))
        camera.close()
        again.close()
    writers[1].close()


def test_a_relay_that_is_the_only_camera_is_listed_and_taken_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    path = physical()
    relays = [camera for camera in cameras.list_cameras() if camera.virtual]
    assert path in [camera.path for camera in relays if not camera.idle]
    assert sinks.OUR_NAME not in [camera.name for camera in relays]
    monkeypatch.setattr(cameras, "list_cameras", lambda: relays)
    source = choose.choose_source("auto", (320, 240), 15)
    try:
        until(lambda: source.read(0.5) is not None, f"no pictures: {source.trouble}")
        assert source.name == "Physical Camera"
    finally:
        source.close()


def test_the_whole_way_from_the_physical_camera_to_another_program(tmp_path: Path) -> None:
    physical()
    options = RunOptions(source="camera:Physical Camera", sink="camera", size=SIZE, fps=5, panel=False, idle_after_s=0)
    settings = EngineSettings(model="fake", width=96, height=80, steps=1)
    parts = RunParts(
        engine="tests.support.fake_engine:make",
        settings_of=lambda profile, options: settings,
        state_folder=lambda: tmp_path,
        signals=False,
    )
    stop, done = threading.Event(), Future[None]()
    daemon = Daemon(options, parts, stop)

    def work() -> None:
        try:
            daemon.run()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001  told by the test's own thread
            done.set_exception(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: daemon.status().translated > 3, "nothing was translated")
        status = daemon.status()
        assert status.state == "running"
        assert status.source == "Physical Camera"
        assert status.sink.startswith("StreamV2V Camera (/dev/video")
        seen = read_back(sinks.find_device(), tmp_path)
        assert seen.shape == (120, 160, 3)
        assert seen.std() > 5
    finally:
        stop.set()
        thread.join()
    done.result()


def test_run_in_one_call_ends_after_its_frames(tmp_path: Path) -> None:
    settings = EngineSettings(model="fake", width=96, height=80, steps=1)
    parts = RunParts(
        engine="tests.support.fake_engine:make",
        settings_of=lambda profile, options: settings,
        state_folder=lambda: tmp_path,
    )
    report = run(RunOptions(source="pattern", sink="auto", size=SIZE, fps=5, frames=20, panel=False), parts)
    assert report.published == 20
    assert report.sink.startswith("StreamV2V Camera (/dev/video")
