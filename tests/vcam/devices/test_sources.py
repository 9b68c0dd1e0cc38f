"""Cameras by fakes of OpenCV's calls, the test picture and video files by a clock of their own."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.support import patience
from tests.support.clock import Clock
from tests.support.patience import PATIENCE_S
from vcam.devices import cameras as camera_list
from vcam.devices import capture
from vcam.devices.cameras import Camera, choose_camera
from vcam.devices.health import is_black
from vcam.devices.sinks import VideoFile
from vcam.devices.test_pattern import PatternSource
from vcam.devices.video_loop import VideoLoop
from vcam.devices.webcam import Webcam
from vcam.errors import VcamError
from vcam.frames import Frame

C920 = Camera("HD Pro Webcam C920", "usb-046d_C920-video-index0", "/dev/video0")
BUILT_IN = Camera("Integrated Camera", "usb-0bda_Integrated-video-index0", "/dev/video2")
LOOPBACK = Camera("Dummy", "platform:v4l2loopback-001/Dummy", "/dev/video5", virtual=True)
OURS = Camera("StreamV2V Camera", "platform:v4l2loopback-000/StreamV2V Camera", "/dev/video10", virtual=True)
ALL = [OURS, C920, BUILT_IN, LOOPBACK]


# ------------------------------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("wanted", "camera"),
    [
        ("", C920),
        ("HD Pro Webcam C920", C920),
        ("hd pro webcam c920", C920),
        ("c920", C920),
        ("integrated", BUILT_IN),
        ("/dev/video2", BUILT_IN),
        ("usb-046d_C920-video-index0", C920),
        ("Dummy", LOOPBACK),  # another loopback only by its name
    ],
)
def test_a_camera_is_chosen_by_name_part_of_it_path_or_identity(wanted: str, camera: Camera) -> None:
    assert choose_camera(wanted, ALL) is camera


@pytest.mark.parametrize("wanted", ["StreamV2V Camera", "streamv2v camera"])
def test_our_own_camera_is_refused_with_the_reason(wanted: str) -> None:
    with pytest.raises(VcamError, match="the camera that this program makes; choose a real one"):
        choose_camera(wanted, ALL)


@pytest.mark.parametrize("wanted", ["/dev/video10", "StreamV2V", "cam", "C930"])
def test_what_is_not_there_or_not_clear_is_refused_with_what_there_is(wanted: str) -> None:
    with pytest.raises(VcamError, match=r'there are: "HD Pro Webcam C920", "Integrated Camera", "Dummy" \(virtual\)$'):
        choose_camera(wanted, ALL)


def test_a_virtual_camera_at_work_is_taken_when_there_is_no_other_and_never_our_own() -> None:
    assert choose_camera("", [OURS, LOOPBACK, C920]) is C920
    assert choose_camera("", [OURS, LOOPBACK]) is LOOPBACK
    for rest in ([OURS], [OURS, replace(LOOPBACK, idle=True)]):
        with pytest.raises(VcamError, match="--source pattern"):
            choose_camera("", rest)


TWO = camera_list.told_apart(
    [replace(C920, identity="usb-1"), BUILT_IN, replace(C920, identity="usb-2", path="/dev/video4")]
)


def test_cameras_of_one_name_are_told_apart_and_can_be_chosen() -> None:
    assert [camera.name for camera in TWO] == ["HD Pro Webcam C920", "Integrated Camera", "HD Pro Webcam C920 (2)"]
    assert choose_camera("HD Pro Webcam C920 (2)", TWO).path == "/dev/video4"
    assert choose_camera("/dev/video4", TWO).name == "HD Pro Webcam C920 (2)"
    assert choose_camera("hd pro webcam c920", TWO).path == "/dev/video0"
    with pytest.raises(VcamError, match=r'"HD Pro Webcam C920", "Integrated Camera", "HD Pro Webcam C920 \(2\)"$'):
        choose_camera("Pro Webcam", TWO)


def test_a_camera_is_chosen_by_its_number() -> None:
    assert choose_camera("2", ALL) is BUILT_IN
    assert choose_camera("3", [replace(BUILT_IN, path=3)]).name == BUILT_IN.name
    with pytest.raises(VcamError, match='no camera is called "10"'):
        choose_camera("10", ALL)  # ours


def test_listing_cameras_works_on_any_machine() -> None:
    for camera in camera_list.list_cameras():
        assert camera.name != camera_list.OUR_NAME


@pytest.mark.parametrize(("system", "backend"), [("win32", cv2.CAP_DSHOW), ("darwin", cv2.CAP_AVFOUNDATION)])
def test_other_systems_list_cameras_by_name_with_an_identity(
    system: str, backend: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    known = [
        SimpleNamespace(name="C920", path=r"\\?\usb#vid_046d", index=0),
        SimpleNamespace(name="OBS Virtual Camera", path="obs", index=1),
        SimpleNamespace(name="StreamV2V Camera", path="unity", index=2),
        SimpleNamespace(name="FaceTime HD Camera", path="", index=3),
    ]

    def enumerate_cameras(chosen: int) -> list[SimpleNamespace]:
        asked.append(chosen)
        return known

    fake = SimpleNamespace(enumerate_cameras=enumerate_cameras)
    monkeypatch.setitem(sys.modules, "cv2_enumerate_cameras", fake)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", system)
        cameras = camera_list.list_cameras()
        first = camera_list.first_choice([one for one in cameras if one.virtual])
    assert asked == [backend]
    assert [(one.name, one.identity, one.path) for one in cameras if not one.virtual] == [
        ("C920", r"\\?\usb#vid_046d", 0),
        ("FaceTime HD Camera", "FaceTime HD Camera", 3),
    ]
    virtual = [one.name for one in cameras if one.virtual]
    assert virtual == (["OBS Virtual Camera"] if system == "win32" else []), "on macOS it is what we publish through"
    assert first is None, "what we may publish through is never taken unasked"


@pytest.mark.parametrize(
    ("system", "backend"),
    [("linux", cv2.CAP_V4L2), ("win32", cv2.CAP_DSHOW), ("darwin", cv2.CAP_AVFOUNDATION)],
)
def test_a_camera_is_asked_for_mjpeg_size_and_rate_on_its_systems_own_backend(
    system: str, backend: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[object, int]] = []
    asked: dict[int, float] = {}

    class Device:
        def __init__(self, path: object, chosen: int) -> None:
            opened.append((path, chosen))

        def isOpened(self) -> bool:
            return True

        def set(self, key: int, value: float) -> None:
            assert cv2.CAP_PROP_FOURCC in asked or key == cv2.CAP_PROP_FOURCC, "the format first: it limits the rest"
            asked[key] = value

    monkeypatch.setattr(cv2, "VideoCapture", Device)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", system)
        capture.open_capture(3, (1280, 720), 30.0)
    assert opened == [(3, backend)]
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert (asked[cv2.CAP_PROP_FRAME_WIDTH], asked[cv2.CAP_PROP_FRAME_HEIGHT]) == (1280, 720)
    assert asked[cv2.CAP_PROP_FPS] == 30.0
    assert asked[cv2.CAP_PROP_BUFFERSIZE] == 1


def test_opencvs_waiting_time_is_set_before_it_is_imported() -> None:
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"].isdecimal()


@pytest.mark.parametrize(("grey", "black"), [(0, True), (16, True), (40, False)])
def test_black(grey: int, black: bool) -> None:
    assert is_black(np.full((48, 64, 3), grey, np.uint8)) is black


def test_a_dark_room_with_a_lamp_is_not_black() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[100:140, 200:260] = 200
    assert not is_black(picture)


# ------------------------------------------------------------------------------------------------------ the webcam


class Capture:
    """cv2.VideoCapture by script: each read asks `says`, which gives a grey, None for a failed read, or blocks."""

    def __init__(self, says: Callable[[], int | None], opens: bool = True) -> None:
        self.says, self.opens, self.released = says, opens, threading.Event()

    def isOpened(self) -> bool:  # OpenCV's name
        return self.opens

    def read(self) -> tuple[bool, Any]:
        grey = self.says()
        if grey is None:
            return False, None
        picture = np.full((4, 4, 3), grey, np.uint8)
        picture[..., 0] = 30  # blue, in OpenCV's order
        return True, picture

    def release(self) -> None:
        self.released.set()


class World:
    """The cameras that are there now, and what opening one gives."""

    def __init__(self) -> None:
        self.clock = Clock(10.0)
        self.there: list[Camera] = [OURS, C920]
        self.captures: list[Capture] = []
        self.opened: list[str | int] = []
        self.says: Callable[[], int | None] = lambda: 100
        self.opens = True
        self.open_blocks: threading.Event | None = None

    def open(self, path: str | int, size: tuple[int, int], fps: float) -> Capture:
        self.opened.append(path)
        if self.open_blocks is not None:
            self.open_blocks.wait(PATIENCE_S)
        self.captures.append(Capture(lambda: self.says(), self.opens))
        return self.captures[-1]

    def webcam(self, wanted: str = "c920") -> Webcam:
        return Webcam(
            wanted, clock=self.clock, sleep=self.clock.sleep, cameras=lambda: list(self.there), opener=self.open
        )


def until(webcam: Webcam, done: Callable[[Frame | None], bool], world: World) -> Frame | None:
    """Read until `done`; the fake time goes on a little with each empty read."""
    for _ in range(4000):
        frame = webcam.read(0.005)
        if done(frame):
            return frame
        if frame is None:
            world.clock.now += 0.05
    raise AssertionError(f"it did not happen; trouble: {webcam.trouble!r}")


def a_frame(frame: Frame | None) -> bool:
    return frame is not None


def test_pictures_come_in_rgb_and_are_counted() -> None:
    world = World()
    webcam = world.webcam()
    frame = until(webcam, a_frame, world)
    assert frame is not None
    assert frame.picture[0, 0].tolist() == [100, 100, 30]
    later = until(webcam, a_frame, world)
    assert later is not None
    assert later.index == frame.index + 1
    assert webcam.name == "HD Pro Webcam C920"
    assert webcam.trouble == ""
    webcam.close()
    assert world.captures[0].released.wait(PATIENCE_S)


def test_a_camera_that_is_not_there_yet_is_waited_for() -> None:
    world = World()
    world.there = [OURS]
    webcam = world.webcam()
    until(webcam, lambda frame: 'no camera is called "c920"' in webcam.trouble, world)
    assert webcam.name == "c920"
    world.there.append(C920)
    until(webcam, a_frame, world)
    webcam.close()


def test_unplugged_and_plugged_in_under_another_number_it_goes_on() -> None:
    world = World()
    webcam = world.webcam()
    until(webcam, a_frame, world)
    world.there, world.says = [OURS, BUILT_IN], lambda: None
    until(webcam, lambda frame: webcam.trouble == "HD Pro Webcam C920 is not there: plug it in again", world)
    world.there, world.says = [OURS, BUILT_IN, Camera(C920.name, C920.identity, "/dev/video7")], lambda: 100
    until(webcam, a_frame, world)
    assert world.opened[0] == "/dev/video0"
    assert world.opened[-1] == "/dev/video7"
    assert "/dev/video2" not in world.opened, "another camera must not be taken instead"
    assert webcam.trouble == ""
    webcam.close()


def test_the_same_model_in_another_socket_is_taken_when_the_old_one_is_gone() -> None:
    world = World()
    webcam = world.webcam()
    until(webcam, a_frame, world)
    world.there, world.says = [OURS, Camera(C920.name, "another serial", "/dev/video8")], lambda: None
    until(webcam, lambda frame: world.opened[-1] == "/dev/video8", world)
    webcam.close()


def test_another_camera_of_the_same_name_is_never_taken_instead_of_the_chosen_one() -> None:
    world = World()
    first, second = camera_list.told_apart([C920, replace(C920, identity="usb-2", path="/dev/video4")])
    world.there = [OURS, first, second]
    webcam = world.webcam(C920.name)
    until(webcam, a_frame, world)
    world.there, world.says = [OURS, *camera_list.told_apart([replace(second, name=first.name)])], lambda: None
    missing = "HD Pro Webcam C920 is not there: plug it in again (another one of that name is there: --source camera:"
    until(webcam, lambda frame: webcam.trouble == f"{missing}/dev/video4)", world)
    for _ in range(200):
        assert webcam.read(0.05) is None
        world.clock.now += 0.05
    assert "/dev/video4" not in world.opened
    world.there, world.says = [OURS, replace(first, path="/dev/video6"), second], lambda: 100
    until(webcam, a_frame, world)
    assert world.opened[-1] == "/dev/video6"
    webcam.close()


def test_one_that_was_plugged_in_beside_the_chosen_one_is_no_replacement_either() -> None:
    world = World()
    world.says = lambda: _tick(world, 100, 0.05)
    webcam = world.webcam()
    until(webcam, a_frame, world)
    world.there.append(
        replace(C920, name="HD Pro Webcam C920 (2)", identity="usb-2", path="/dev/video4", model=C920.name)
    )
    looked = world.clock.now + 5
    until(webcam, lambda frame: world.clock.now > looked, world)
    world.there, world.says = [OURS, world.there[-1]], lambda: None
    until(webcam, lambda frame: "is not there" in webcam.trouble, world)
    for _ in range(200):
        assert webcam.read(0.05) is None
        world.clock.now += 0.05
    assert "/dev/video4" not in world.opened
    webcam.close()


def test_a_replacement_is_left_for_the_chosen_camera_when_that_is_back() -> None:
    world = World()
    greys = itertools.cycle(range(60, 160))
    world.says = lambda: _tick(world, next(greys), 0.05)
    webcam = world.webcam()
    until(webcam, a_frame, world)
    other = Camera(C920.name, "usb-2", "/dev/video8")
    world.there, works = [OURS], world.says
    world.captures[0].says = lambda: None
    until(webcam, lambda frame: "is not there" in webcam.trouble, world)
    world.there = [OURS, other]
    until(webcam, a_frame, world)
    assert world.opened[-1] == "/dev/video8"
    world.there, world.says = [OURS, other, C920], works
    until(webcam, lambda frame: world.opened[-1] == "/dev/video0", world)
    until(webcam, a_frame, world)
    webcam.close()


@pytest.mark.parametrize("every_s", [4.0, 8.0])
def test_a_camera_of_few_pictures_is_never_called_silent(every_s: float) -> None:
    world = World()
    turn = threading.Semaphore(0)
    grey = itertools.cycle(range(60, 160))

    def says() -> int:
        turn.acquire()
        return next(grey)

    world.says = says
    webcam = world.webcam()
    until(webcam, lambda frame: bool(world.captures), world)
    for _ in range(8):
        turn.release()
        patience.until(lambda: webcam.read(0.005) is not None)  # its time is the camera's, however busy the machine is
        end = world.clock.now + every_s
        while world.clock.now < end - 0.01:
            assert webcam.read(0.001) is None
            assert webcam.trouble == ""
            world.clock.now += 0.25
    assert webcam.interval_s == pytest.approx(every_s, abs=0.3)
    assert len(world.opened) == 1
    turn.release()
    webcam.close()
    turn.release(100)


def test_a_busy_camera_is_told_and_taken_once_it_is_free() -> None:
    world = World()
    world.opens = False
    webcam = world.webcam()
    until(webcam, lambda frame: "cannot be opened" in webcam.trouble or "no permission" in webcam.trouble, world)
    world.opens = True
    until(webcam, a_frame, world)
    webcam.close()


def test_a_silent_camera_is_told_then_opened_anew() -> None:
    world = World()
    silence = threading.Event()
    world.says = lambda: 100 if world.opened == ["/dev/video0"] and not silence.is_set() else _blocked(silence)
    webcam = world.webcam()
    until(webcam, a_frame, world)
    hold = threading.Event()
    world.says = lambda: _blocked(hold)
    until(webcam, lambda frame: webcam.trouble == "HD Pro Webcam C920 gives no pictures", world)
    world.says = lambda: 100
    until(webcam, lambda frame: len(world.opened) == 2, world)
    until(webcam, a_frame, world)
    assert webcam.trouble == ""
    hold.set()
    webcam.close()


def _blocked(event: threading.Event) -> int | None:
    event.wait(PATIENCE_S)
    return None


def test_a_camera_that_does_not_open_is_left_behind_and_tried_again() -> None:
    world = World()
    world.open_blocks = threading.Event()
    webcam = world.webcam()
    until(webcam, lambda frame: "does not open" in webcam.trouble, world)
    first, world.open_blocks = world.open_blocks, None
    until(webcam, a_frame, world)
    first.set()
    webcam.close()


def test_black_pictures_are_kept_back_and_told_until_there_is_light() -> None:
    world = World()
    webcam = world.webcam()
    until(webcam, a_frame, world)
    world.says = lambda: _tick(world, 3)
    world.captures[0].read = lambda: (True, np.full((4, 4, 3), _tick(world, 3), np.uint8))  # type: ignore[method-assign]
    until(webcam, lambda frame: "black picture: is its cover" in webcam.trouble, world)
    assert webcam.read(1.0) is None
    world.captures[0].read = lambda: (True, np.full((4, 4, 3), 90, np.uint8))  # type: ignore[method-assign]
    until(webcam, a_frame, world)
    assert webcam.trouble == ""
    assert len(world.opened) == 1
    webcam.close()


def test_a_frozen_camera_is_told_and_opened_anew() -> None:
    world = World()
    webcam = world.webcam()
    world.says = lambda: _tick(world, 100, 0.05)
    until(webcam, lambda frame: "the same picture again and again" in webcam.trouble, world)
    assert world.captures[0].released.wait(PATIENCE_S)
    greys = itertools.cycle(range(60, 160))
    world.says = lambda: _tick(world, next(greys), 0.05)
    until(webcam, a_frame, world)
    for _ in range(200):  # what moves is not doubted
        until(webcam, a_frame, world)
    assert (webcam.trouble, len(world.opened)) == ("", 2)
    webcam.close()


def test_a_picture_that_never_moves_is_taken_as_it_is_after_one_doubt() -> None:
    world = World()
    webcam = world.webcam()
    world.says = lambda: _tick(world, 100, 0.05)
    until(webcam, lambda frame: "the same picture" in webcam.trouble, world)
    for _ in range(200):
        until(webcam, a_frame, world)
    assert (webcam.trouble, len(world.opened)) == ("", 2)
    world.says = lambda: _tick(world, 120, 0.05)  # another one that stays: doubted as well
    until(webcam, lambda frame: "the same picture" in webcam.trouble, world)
    webcam.close()


def _tick(world: World, grey: int, seconds: float = 0.01) -> int:
    world.clock.now += seconds
    threading.Event().wait(0.001)
    return grey


def test_resting_lets_the_camera_go_and_reading_takes_it_again() -> None:
    world = World()
    webcam = world.webcam()
    until(webcam, a_frame, world)
    webcam.rest()
    webcam.rest()
    assert world.captures[0].released.wait(PATIENCE_S)
    assert len(world.opened) == 1
    until(webcam, a_frame, world)
    assert len(world.opened) == 2
    webcam.close()


def test_grey_cameras_are_cameras_too() -> None:
    world = World()
    webcam = world.webcam()
    until(webcam, a_frame, world)
    world.captures[0].read = lambda: (True, np.full((3, 5), 90, np.uint8))  # type: ignore[method-assign]
    until(webcam, lambda frame: frame is not None and frame.picture.shape == (3, 5, 3), world)
    webcam.close()


# -------------------------------------------------------------------------------------------- pattern and video files


def test_the_test_picture_keeps_its_rate_and_leaves_out_what_is_late() -> None:
    clock = Clock(10.0)
    source = PatternSource((64, 48), 10, clock=clock, sleep=clock.sleep)
    frames = [source.read(1.0) for _ in range(3)]
    assert [frame and frame.index for frame in frames] == [0, 1, 2]
    assert [frame and round(frame.captured_s, 6) for frame in frames] == [10.0, 10.1, 10.2]
    clock.now += 0.55
    late = source.read(1.0)
    assert late is not None
    assert late.index == 7
    assert source.read(0.01) is None
    source.close()


def film(path: Path, frames: int = 8, rate: int = 10) -> Path:
    """A film whose frame n is grey 20 n."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            picture = np.full((48, 64, 3), 20 + 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_film_is_shown_over_and_over_at_its_own_rate(tmp_path: Path) -> None:
    clock = Clock(10.0)
    source = VideoLoop(film(tmp_path / "a.mp4"), clock, clock.sleep)
    seen = [source.read(1.0) for _ in range(20)]
    greys = [round((int(frame.picture.mean()) - 20) / 20) for frame in seen if frame]
    assert greys == [*range(8), *range(8), *range(4)]
    assert [round(frame.captured_s - 10, 3) for frame in seen if frame] == [round(i / 10, 3) for i in range(20)]
    assert [frame.index for frame in seen if frame] == list(range(20))
    source.close()
    assert source.read(0.1) is None


@pytest.mark.parametrize("kind", ["restarts", "leaps ahead", "goes back"])
def test_a_film_whose_clock_jumps_goes_on_at_its_rate(tmp_path: Path, kind: str) -> None:
    first_s, second_s = {"restarts": (0, 0), "leaps ahead": (0, 500), "goes back": (500, 0)}[kind]
    parts = [film_at(tmp_path / "a.ts", first_s), film_at(tmp_path / "b.ts", second_s)]
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    clock = Clock(10.0)
    source = VideoLoop(whole, clock, clock.sleep)
    seen = [source.read(1.0) for _ in range(100)]
    times = [frame.captured_s for frame in seen if frame]
    assert len(times) == 100, "it never waits for a clock that leapt"
    assert max(np.diff(times)) <= 0.25
    assert times[-1] - times[0] == pytest.approx(99 / 10, abs=1.0), "nothing is squeezed"
    source.close()


def film_at(path: Path, start_s: float, frames: int = 40, rate: int = 10) -> Path:
    """A film whose clock begins at start_s."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg2video", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 400_000
        for index in range(frames):
            picture = np.full((48, 64, 3), 20 + 5 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            for packet in stream.encode(frame):
                packet.pts, packet.dts = packet.pts + start_s * rate, packet.dts + start_s * rate
                container.mux(packet)
        for packet in stream.encode(None):
            packet.pts, packet.dts = packet.pts + start_s * rate, packet.dts + start_s * rate
            container.mux(packet)
    return path


def test_late_frames_of_a_film_are_left_out_and_a_long_sleep_is_not_made_up_for(tmp_path: Path) -> None:
    clock = Clock(10.0)
    source = VideoLoop(film(tmp_path / "a.mp4"), clock, clock.sleep)
    source.read(1.0)
    clock.now += 0.35
    late = source.read(1.0)
    assert late is not None
    assert round((int(late.picture.mean()) - 20) / 20) == 3
    clock.now += 3600
    assert source.read(1.0) is not None
    before = clock.now
    assert source.read(1.0) is not None
    assert clock.now > before, "it keeps its rate again"
    source.close()


def test_reading_a_film_never_waits_longer_than_it_may(tmp_path: Path) -> None:
    clock = Clock(10.0)
    source = VideoLoop(film(tmp_path / "a.mp4", rate=1), clock, clock.sleep)
    source.read(1.0)
    before = clock.now
    assert source.read(0.1) is None
    assert clock.now == pytest.approx(before + 0.1)
    source.close()


@pytest.mark.parametrize("kind", ["missing", "text", "empty"])
def test_what_is_no_film_is_refused_in_a_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    if kind != "missing":
        path.write_text("this is no film\n" * 100 if kind == "text" else "")
    with pytest.raises(VcamError) as caught:
        VideoLoop(path)
    assert "a.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="a process tells its threads in /proc")
def test_a_film_in_the_camera_has_no_threads_whose_end_would_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    sink = VideoFile(path, (96, 64), 30)
    for tick in range(20):
        sink.send(np.full((64, 96, 3), tick, np.uint8), tick)
    sink.close()
    before = set(os.listdir("/proc/self/task"))  # some of them are about to end
    source = VideoLoop(path)
    assert set(os.listdir("/proc/self/task")) <= before
    assert source.read(1.0) is not None
    assert set(os.listdir("/proc/self/task")) <= before
    source.close()
