"""Who looks at the virtual camera: by inotify on a real file, by the module's event with a fake of its calls."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clock import Clock
from vcam.devices import readers
from vcam.devices.readers import OPEN_S, RECOUNT_S, Openings, Presence, StreamEvents
from vcam.devices.sinks import NullSink

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify and V4L2 are Linux")


# ------------------------------------------------------------------------------------------------------------ inotify


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    path = tmp_path / "video"
    path.touch()
    return path


@on_linux
def test_who_opens_counts_after_a_moment_and_who_lists_cameras_does_not(camera: Path) -> None:
    held: list[str] = []
    clock = Clock()
    looking = Openings(str(camera), lambda path: list(held), clock)
    try:
        assert looking.count() == 0
        held.append("zoom (pid 7)")
        assert looking.count() == 0, "without an event nobody is asked"
        with camera.open("rb"):
            assert looking.count() == 0, "it may only be listing the cameras"
            clock.now += 2 * OPEN_S
            assert looking.count() == 1
            assert looking.names() == held
            held.clear()
        assert looking.count() == 0
        with camera.open("rb"):
            held.append("lister (pid 8)")
            assert looking.count() == 0
            held.clear()
        clock.now += 2 * OPEN_S
        assert looking.count() == 0
    finally:
        looking.close()


@on_linux
def test_a_close_that_was_merged_with_another_is_found_later(camera: Path) -> None:
    held = ["zoom (pid 7)"]
    clock = Clock()
    looking = Openings(str(camera), lambda path: list(held), clock)
    assert looking.count() == 1, "who reads already counts at once"
    held.clear()
    clock.now += RECOUNT_S
    assert looking.count() == 0
    looking.close()


@on_linux
def test_another_process_is_seen_and_so_is_its_death(camera: Path) -> None:
    clock = Clock()
    looking = Openings(str(camera), None, clock)
    code = "import sys, time; file = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(600)"
    try:
        with subprocess.Popen([sys.executable, "-c", code, str(camera)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            looking.count()
            clock.now += 2 * OPEN_S
            assert looking.count() == 1
            assert looking.names()[0].endswith(f"(pid {process.pid})")
            process.kill()
            process.wait()
            assert looking.count() == 0
    finally:
        looking.close()


@on_linux
def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Openings(str(tmp_path / "nothing"))


# --------------------------------------------------------------------------------------------------- the module's event


@on_linux
def test_the_modules_event_tells_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video"
    path.touch()
    waiting: list[tuple[int, int]] = [(readers._CLIENT_USAGE, 1)]

    def ioctl(fd: int, request: int, buffer: bytearray) -> None:
        if request == readers._SUBSCRIBE_EVENT:
            assert struct.unpack("<8I", buffer)[:3] == (0x10E00001, 0, 1)
            return
        assert request == readers._DQEVENT
        if not waiting:
            raise FileNotFoundError(errno.ENOENT, "no event")
        struct.pack_into("<I4xI", buffer, 0, *waiting.pop(0))

    monkeypatch.setattr(readers, "_ioctl", ioctl)
    looking = StreamEvents(str(path))
    assert looking.count() == 1
    assert looking.count() == 1
    waiting += [(readers._CLIENT_USAGE, 2), (7, 9), (readers._CLIENT_USAGE, 0)]
    assert looking.count() == 0
    looking.close()


@on_linux
def test_an_older_module_refuses_the_event(tmp_path: Path) -> None:
    (tmp_path / "video").touch()
    with pytest.raises(OSError, match="ioctl"):
        StreamEvents(str(tmp_path / "video"))


def test_only_a_virtual_camera_has_readers() -> None:
    assert readers.watch(NullSink((64, 64))) is None


# ------------------------------------------------------------------------------------------------------ whether to rest


class Readers:
    how = "fake"

    def __init__(self) -> None:
        self.now, self.gone, self.asked = 0, False, 0

    def count(self) -> int:
        if self.gone:
            raise OSError(errno.ENODEV, "no such device")
        return self.now

    def names(self) -> list[str]:
        self.asked += 1
        return ["zoom (pid 7)"]

    def close(self) -> None:
        pass


def test_the_rest_begins_after_its_time_and_ends_at_once() -> None:
    fake = Readers()
    seen = readers.look(Presence(None, (), 0.0), fake, 10.0, 9.9)
    assert (seen.count, seen.resting) == (0, False)
    seen = readers.look(seen, fake, 10.0, 10.0)
    assert seen.resting
    assert not readers.look(seen, fake, 0.0, 1000.0).resting, "0 switches it off"
    assert not readers.look(seen, fake, 10.0, 1000.0, shown_elsewhere_s=995.0).resting
    fake.now = 1
    seen = readers.look(seen, fake, 10.0, 1000.0)
    assert (seen.resting, seen.names, seen.looked_s) == (False, ("zoom (pid 7)",), 1000.0)
    fake.now = 0
    seen = readers.look(seen, fake, 10.0, 1001.0)
    assert (seen.resting, seen.names) == (False, ())
    assert readers.look(seen, fake, 10.0, 1010.0).resting


def test_names_are_looked_up_when_the_count_changes_and_now_and_then() -> None:
    fake = Readers()
    fake.now = 1
    seen = Presence(None, (), 0.0)
    for now in (0.0, 1.0, RECOUNT_S - 0.1):
        seen = readers.look(seen, fake, 10.0, now)
    assert fake.asked == 1
    readers.look(seen, fake, 10.0, RECOUNT_S)
    assert fake.asked == 2


def test_a_device_that_is_gone_wakes_everything() -> None:
    fake = Readers()
    fake.gone = True
    seen = readers.look(Presence(0, (), 0.0, resting=True), fake, 10.0, 100.0)
    assert (seen.count, seen.resting) == (None, False)
