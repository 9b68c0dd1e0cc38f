"""Sinks: the virtual camera by a pyvirtualcam backend of our own, video files by reading them again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from tests.support.clock import Clock
from vcam.devices import sinks
from vcam.devices.sinks import NullSink, VideoFile, VirtualCamera, open_sink
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.video import probe, read

pyvirtualcam = pytest.importorskip("pyvirtualcam")
SIZE = (64, 48)
ROOT = Path(sinks.__file__).parents[2]


def picture(grey: int, size: tuple[int, int] = SIZE) -> Picture:
    made = np.full((size[1], size[0], 3), grey, np.uint8)
    made[..., 2] = 0  # no blue: swapped channels are seen
    return made


class Backend:
    """What pyvirtualcam needs of a backend; remembers what it was given."""

    made: list[Backend]
    refuses = ""

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.width, self.height, self.fps, self.name = width, height, fps, device or "fake"
        self.frames: list[Any] = []
        self.closed = self.broken = False
        Backend.made.append(self)

    def close(self) -> None:
        self.closed = True

    def send(self, frame: Any) -> None:
        if self.broken:
            raise RuntimeError("the device is gone")
        self.frames.append(frame.copy())

    def device(self) -> str:
        return self.name

    def native_fourcc(self) -> None:
        return None


@pytest.fixture
def backend() -> Iterator[type[Backend]]:
    Backend.made, Backend.refuses = [], ""
    pyvirtualcam.register_backend("fake", Backend)
    yield Backend
    del pyvirtualcam.camera.BACKENDS["fake"]


def test_pictures_reach_the_camera_as_rgb_of_one_size(backend: type[Backend]) -> None:
    sink = VirtualCamera(SIZE, 30, device="cam", backend="fake")
    sink.send(picture(90), 0)
    sink.close()
    (made,) = backend.made
    assert (made.width, made.height, made.fps, made.closed) == (64, 48, 30, True)
    assert made.frames[0].reshape(48, 64, 3)[0, 0].tolist() == [90, 90, 0]
    assert sink.name == "StreamV2V Camera (cam)"
    assert sink.size == SIZE


def test_a_device_that_is_gone_is_an_error_each_time_and_may_come_back(backend: type[Backend]) -> None:
    sink = VirtualCamera(SIZE, 30, device="cam", backend="fake")
    backend.made[0].broken = True
    with pytest.raises(VcamError, match="does not take pictures any more: the device is gone"):
        sink.send(picture(1), 0)
    backend.made[0].broken = False
    sink.send(picture(1), 1)


@pytest.mark.parametrize(
    "error", [OSError(19, "No such device"), RuntimeError("gone"), ValueError("x"), KeyError("y"), MemoryError()]
)
def test_a_device_that_went_away_is_opened_anew_once_it_is_there(backend: type[Backend], error: Exception) -> None:
    clock = Clock()
    sink = VirtualCamera(SIZE, 30, device="cam", backend="fake", clock=clock)
    first = backend.made[0]

    def gone(frame: Any) -> None:
        raise error

    first.send = gone  # type: ignore[method-assign]
    backend.refuses = "there is no such camera"
    for _ in range(100):  # ten seconds
        with pytest.raises(VcamError, match=r"does not take pictures any more: ."):
            sink.send(picture(1), 0)
        clock.now += 0.1
    assert first.closed
    assert len(backend.made) == 1
    backend.refuses = ""
    clock.now += sinks.REOPEN_S
    sink.send(picture(2), 1)
    sink.send(picture(3), 2)
    assert [frame.reshape(48, 64, 3)[0, 0, 0] for frame in backend.made[1].frames] == [2, 3]
    sink.close()
    assert backend.made[1].closed


def test_a_device_that_is_gone_is_not_opened_anew_at_each_picture(
    backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tries = Clock(), list[float]()
    sink = VirtualCamera(SIZE, 30, device="cam", backend="fake", clock=clock)
    backend.made[0].broken = True
    sink._opened = lambda: tries.append(clock.now)  # type: ignore[assignment]
    for _ in range(100):
        with pytest.raises(VcamError):
            sink.send(picture(1), 0)
        clock.now += 0.1
    assert len(tries) == pytest.approx(10 / sinks.REOPEN_S, abs=1)


def test_a_device_that_refuses_is_one_line(backend: type[Backend]) -> None:
    backend.refuses = "Camera cam cannot be opened:\nsomething"
    with pytest.raises(VcamError, match="cannot be opened") as caught:
        VirtualCamera(SIZE, 30, device="cam", backend="fake")
    assert "\n" not in str(caught.value)


def test_odd_sizes_are_refused_before_they_overrun_anything() -> None:
    for size in ((63, 48), (64, 47)):
        with pytest.raises(VcamError, match="needs an even width and height"):
            VirtualCamera(size, 30, backend="fake")


def test_without_pyvirtualcam_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(VcamError, match="pip install pyvirtualcam"):
        VirtualCamera(SIZE, 30)


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback")
def test_without_a_device_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from vcam.devices import v4l2

    loopback = v4l2.Device("/dev/video5", "Dummy", v4l2.LOOPBACK_DRIVER, "platform", False, True)
    camera = v4l2.Device("/dev/video0", "C920", "uvcvideo", "usb", True, False)
    monkeypatch.setattr(v4l2, "devices", lambda: [camera])
    with pytest.raises(VcamError, match="sudo modprobe v4l2loopback exclusive_caps=1"):
        sinks.find_device()
    monkeypatch.setattr(v4l2, "devices", lambda: [camera, loopback])
    with pytest.raises(VcamError, match=r"there are /dev/video5 \(Dummy\)"):
        sinks.find_device()
    ours = v4l2.Device("/dev/video7", "StreamV2V Camera", v4l2.LOOPBACK_DRIVER, "platform", False, True)
    monkeypatch.setattr(v4l2, "devices", lambda: [camera, loopback, ours])
    assert sinks.find_device() == "/dev/video7"


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback")
@pytest.mark.parametrize(
    ("error", "words"), [(PermissionError(13, "denied"), "usermod"), (OSError(19, "No such device"), "No such device")]
)
def test_a_device_that_may_not_be_opened(monkeypatch: pytest.MonkeyPatch, error: OSError, words: str) -> None:
    from vcam.devices import v4l2

    def query(path: str) -> None:
        raise error

    monkeypatch.setattr(v4l2, "query", query)
    with pytest.raises(VcamError, match=words):
        sinks.prepare_device("/dev/video9", SIZE)


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback")
@pytest.mark.parametrize(
    ("told", "kept"),
    [("YU12:640x480@30\n", (640, 480)), ("YUYV:320x240@1000/30\n", (320, 240)), ("", None), (None, None)],
)
def test_the_size_that_a_device_keeps_while_it_is_open(
    tmp_path: Path, told: str | None, kept: tuple[int, int] | None
) -> None:
    from vcam.devices import v4l2

    (tmp_path / "video7").mkdir()
    if told is not None:
        (tmp_path / "video7" / "format").write_text(told)
    assert v4l2.kept_size("/dev/video7", tmp_path) == kept


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback")
def test_a_device_that_is_shown_in_another_size_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver takes them, and shows the pictures of the new size damaged."""
    from vcam.devices import v4l2

    monkeypatch.setattr(v4l2, "kept_size", lambda path: SIZE)
    monkeypatch.setattr(v4l2, "holders", lambda path: ["zoom (pid 7)"])
    monkeypatch.setattr(v4l2, "writers", lambda path: [])
    ours = v4l2.Device("/dev/video7", "StreamV2V Camera", v4l2.LOOPBACK_DRIVER, "platform", False, True)
    monkeypatch.setattr(v4l2, "query", lambda path: ours)
    sinks.prepare_device("/dev/video7", SIZE)
    with pytest.raises(VcamError, match=r"zoom \(pid 7\) has /dev/video7 open at 64x48, .* close it there"):
        sinks.prepare_device("/dev/video7", (128, 96))


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback")
@pytest.mark.parametrize(("mode", "writes"), [("O_WRONLY", True), ("O_RDWR", False), ("O_RDONLY", False)])
def test_a_device_that_another_program_writes_is_left_to_it(tmp_path: Path, mode: str, writes: bool) -> None:
    from vcam.devices import v4l2

    device = tmp_path / "video0"
    device.touch()
    code = f"import os, sys; os.open(sys.argv[1], os.{mode}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert [f"(pid {other.pid})" in user for user in v4l2.holders(str(device))] == [True]
        with pytest.raises(
            VcamError, match=rf"in use by .*\(pid {other.pid}\): close it" if writes else "cannot be used"
        ):
            sinks.prepare_device(str(device), SIZE)  # which is no device
        other.kill()


# ------------------------------------------------------------------------------------------------------- video files


def frames_of(path: Path) -> tuple[list[Picture], Fraction]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        shown = [frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False) for frame in container.decode(video=0)]
        return shown, Fraction(rate)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_file_holds_what_was_sent_at_its_rate(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sink = VideoFile(path, SIZE, 25)
    for tick in range(10):
        sink.send(picture(20 * tick), tick)
    assert not path.exists(), "a half-written file has no final name"
    sink.close()
    frames, rate = frames_of(path)
    assert rate == 25
    assert len(frames) == 10
    for tick, frame in enumerate(frames):
        assert np.abs(frame[..., :2].astype(int) - 20 * tick).max() <= 6
        assert frame[..., 2].max() <= 12 + 20  # no blue
    assert list(tmp_path.iterdir()) == [path]


def test_where_ticks_were_left_out_the_picture_before_lasts_so_that_time_is_time(tmp_path: Path) -> None:
    sink = VideoFile(tmp_path / "a.mp4", SIZE, 30)
    for tick, grey in ((5, 40), (6, 80), (10, 160)):
        sink.send(picture(grey), tick)
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [
            (round((frame.time or 0) * 30), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    assert [beat for beat, _ in shown] == [0, 1, 5]
    assert [round(int(frame[..., 0].mean()) / 40) for _, frame in shown] == [1, 2, 4]


def test_a_file_to_which_nothing_was_sent_does_not_come_to_be(tmp_path: Path) -> None:
    VideoFile(tmp_path / "a.mp4", SIZE, 30).close()
    assert list(tmp_path.iterdir()) == []


def _send_until_it_fails(sink: VideoFile) -> None:
    for tick in range(1, 500):  # the encoder holds some pictures back before it writes
        sink.send(picture(90), tick)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_is_on_the_disk_plays_up_to_two_seconds_before_the_end_whatever_ends_the_program(
    tmp_path: Path, suffix: str
) -> None:
    sink = VideoFile(tmp_path / f"a{suffix}", SIZE, 25)
    for tick in range(250):
        sink.send(picture(tick % 200), tick)
    killed = tmp_path / f"killed{suffix}"
    shutil.copy(sink._part, killed)  # as kill -9 or a full disk leave it
    sink.close()
    assert len(frames_of(killed)[0]) >= 200


def test_a_file_that_could_not_be_completed_does_not_get_its_name(tmp_path: Path) -> None:
    sink = VideoFile(tmp_path / "a.mp4", SIZE, 30)
    sink.send(picture(90), 0)

    def full(packets: Any) -> None:
        raise OSError(28, "No space left on device")

    container: Any = sink._container
    sink._container = cast(Any, SimpleNamespace)(mux=full, close=container.close)
    with pytest.raises(VcamError, match="cannot be written: No space left on device"):
        _send_until_it_fails(sink)
    with pytest.raises(VcamError, match="could not be completed: No space left on device; free some space") as raised:
        sink.close()
    assert "a.incomplete.mp4" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.incomplete.mp4"]


RECORDER = """
import sys
from pathlib import Path
import numpy as np
from vcam.devices.sinks import VideoFile

rng = np.random.default_rng(0)
sink = VideoFile(Path(sys.argv[1]), (64, 48), 25)
for tick in range(int(sys.argv[2])):
    sink.send(rng.integers(0, 255, (48, 64, 3), np.uint8), tick)
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("pictures", [60, 100, 137])
def test_a_recording_whose_program_is_killed_plays_to_within_two_seconds_of_the_end(
    tmp_path: Path, suffix: str, pictures: int
) -> None:
    command = [sys.executable, "-c", RECORDER, str(tmp_path / f"a{suffix}"), str(pictures)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == b"sent\n"
        recorder.kill()
    (left,) = tmp_path.iterdir()
    assert pictures - 50 <= len(frames_of(left)[0]) <= pictures


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_recording_on_a_full_disk_is_kept_and_said(tmp_path: Path, suffix: str) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from vcam.devices.sinks import VideoFile
from vcam.errors import VcamError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
sink = VideoFile(Path(sys.argv[1]), (64, 48), 25)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
refused = 0
for tick in range(300):
    try:
        sink.send(rng.integers(0, 255, (48, 64, 3), np.uint8), tick)
    except VcamError as error:
        refused += "another disk" in str(error)
try:
    sink.close()
except VcamError as error:
    print(refused > 0, error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / f"a{suffix}")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True ")
    assert "could not be completed" in done.stdout
    kept = tmp_path / f"a.incomplete{suffix}"
    assert str(kept) in done.stdout
    assert list(tmp_path.iterdir()) == [kept]
    assert len(list(read(probe(kept), lambda text: None))) >= 20


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sink = open_sink("12:30.mp4", SIZE, 25)
    sink.send(picture(90), 0)
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["12:30.mp4"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.txt", "auto, camera, none, ndi, spout, syphon or a file .mp4"),
        ("nowhere/a.mp4", "there is no folder"),
        ("folder.mp4", "is a folder"),
    ],
)
def test_files_that_cannot_be_written_are_refused_in_a_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VcamError, match=words) as caught:
        open_sink(str(tmp_path / name), SIZE, 30)
    assert "\n" not in str(caught.value)


def test_an_odd_size_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VcamError, match="even width and height"):
        VideoFile(tmp_path / "a.mp4", (63, 48), 30)


def test_none_takes_everything() -> None:
    sink = open_sink("none", SIZE, 30)
    assert isinstance(sink, NullSink)
    sink.send(picture(1), 0)
    sink.close()
    assert sink.name == "none"
