"""Sinks beside the camera: both get every picture, and a slow, failing or dead one costs the camera nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from tests.support.clock import Clock
from tests.support.fake_sink import FakeSink
from tests.support.patience import PATIENCE_S, until
from tests.support.recorders import recorder_in
from vcam.daemon.cards import Halt, card_for, draw_card
from vcam.daemon.publisher import Publisher
from vcam.devices import choose, readers, sinks
from vcam.devices.side_sinks import STUCK_S, CameraAndMore, SinkThread
from vcam.errors import DeviceError, VcamError
from vcam.frames import FrameSink, LatestSlot, Picture
from vcam.settings.config import CardTexts
from vcam.settings.run_options import RunOptions

SIZE = (64, 48)


def picture(grey: int) -> Picture:
    return np.full((48, 64, 3), grey, np.uint8)


class Watched(FakeSink):
    watching = 0


def greys(sink: FakeSink) -> list[int]:
    return [one.colour[0] for one in sink.sent]


def thread_of(side: FakeSink) -> SinkThread:
    return SinkThread(lambda: side, "NDI")


def test_all_get_each_picture_and_the_last_one_before_the_end() -> None:
    main, side = FakeSink(SIZE), FakeSink(SIZE)
    both = CameraAndMore(main, [SinkThread(lambda: side, "NDI")], lambda text: None)
    for tick in range(5):
        both.send(picture(tick), tick)
        until(lambda: greys(side)[-1:] == [tick], "the picture arrives beside the camera")  # noqa: B023
    both.send(picture(99), 5)
    both.close()
    assert greys(main) == greys(side) == [0, 1, 2, 3, 4, 99]
    assert (main.closed, side.closed, both.name) == (True, True, "fake sink, fake sink")


def test_where_the_camera_is_a_file_the_others_end_with_the_card_and_the_file_does_not(tmp_path: Path) -> None:
    main, side = sinks.VideoFile(tmp_path / "a.mp4", SIZE, 30, None), FakeSink(SIZE)
    both = CameraAndMore(main, [SinkThread(lambda: side, "NDI")], lambda text: None)
    publisher = Publisher(both, RunOptions(size=SIZE), LatestSlot(), Clock(), recorder_in(tmp_path))
    both.send(picture(7), 0)
    publisher.close(1)
    assert (side.last == draw_card(card_for(Halt.PANIC, None, CardTexts()), SIZE)).all()
    with av.open(tmp_path / "a.mp4") as film:
        assert len(list(film.decode(video=0))) == 1


@pytest.mark.parametrize("at_main", ["the file is not whole", ""])
def test_what_cannot_be_closed_leaves_nothing_else_open(at_main: str) -> None:
    main, sides = FakeSink(SIZE), [FakeSink(SIZE), FakeSink(SIZE)]
    main.incomplete, sides[0].incomplete = at_main, "hangs"
    both = CameraAndMore(main, [thread_of(side) for side in sides], lambda text: None)
    with pytest.raises(VcamError, match=at_main or "hangs"):
        both.close()
    assert [one.closed for one in (main, *sides)] == [True] * 3


def test_one_that_hangs_costs_the_camera_nothing_and_is_said_once() -> None:
    gate, clock, said = threading.Event(), Clock(), list[str]()
    main, side = FakeSink(SIZE), FakeSink(SIZE, at_send=lambda number: gate.wait(PATIENCE_S))
    both = CameraAndMore(main, [SinkThread(lambda: side, "NDI", clock)], said.append)
    both.send(picture(0), 0)
    until(lambda: bool(side.sent), "the sink hangs")
    for tick in range(1, 100):
        clock.now += STUCK_S / 50
        both.send(picture(tick), tick)
    assert len(main.sent) == 100
    assert said == ["NDI has taken no picture for more than 3 s"]
    gate.set()
    until(lambda: greys(side)[-1:] == [99], "the newest picture, and not those that nobody waits for")
    assert len(side.sent) <= 3
    both.send(picture(100), 100)
    assert said[1:] == ["fake sink takes pictures again"]
    both.close()


_FULL_TERMINAL = """
import os, sys, threading
from tests.support.fake_sink import FakeSink
from vcam.daemon.event_log import EventLog
from vcam.devices import choose, sinks
import numpy as np

os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)  # from here on a write to the terminal does not come back

def at_send(number):
    raise RuntimeError(f"NDI's library, {number}")

main = FakeSink((64, 48))
sinks.BESIDE["ndi"] = ("NDI", lambda size, fps: FakeSink(size, at_send=at_send))
choose.announce = lambda text: None
choose._main_sink = lambda *rest: main
both, log, waits = choose.choose_sink("camera", (64, 48), 30, also=["ndi"]), EventLog(), threading.Event()
for tick in range(100):
    both.send(np.zeros((48, 64, 3), np.uint8), tick)
    log.sink_said(f"trouble {tick}")
    log.fault("the sink failed", RuntimeError(str(tick)))
    waits.wait(0.002)
print(len(main.sent), len(log.lines()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="fills a pipe")
def test_a_terminal_that_takes_no_words_costs_the_camera_nothing() -> None:
    # its standard error is a pipe that is full and that nobody reads
    child = subprocess.Popen([sys.executable, "-c", _FULL_TERMINAL], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().split() == [b"100", b"200"]
        assert child.wait(PATIENCE_S) == 0
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("error", [VcamError("no"), RuntimeError("its library"), MemoryError()])
def test_one_that_fails_is_said_once_and_tried_again(error: Exception) -> None:
    said: list[str] = []
    failing = [True]

    def at_send(number: int) -> None:
        if failing[0]:
            raise error

    main, side = FakeSink(SIZE), FakeSink(SIZE, at_send=at_send)
    both = CameraAndMore(main, [SinkThread(lambda: side, "NDI")], said.append)

    def sent_until(done: Callable[[], bool]) -> None:
        def once() -> bool:
            both.send(picture(1), len(main.sent))
            return done()

        until(once, "the state is told")

    sent_until(lambda: bool(said))
    assert said[0] == (
        "no" if isinstance(error, VcamError) else f"NDI takes no pictures ({type(error).__name__}: {error})"
    )
    failing[0] = False
    sent_until(lambda: len(said) == 2)
    assert said[1] == "fake sink takes pictures again"
    both.close()
    assert len(main.sent) == main.sent[-1].tick + 1, "the camera had every picture"


@pytest.mark.parametrize("error", [DeviceError("it needs a package"), OSError("no library")])
def test_one_that_does_not_open_says_why(error: Exception) -> None:
    def make() -> FrameSink:
        raise error

    with pytest.raises(DeviceError, match=str(error)):
        SinkThread(make, "NDI")


def test_a_camera_that_takes_nothing_is_told_by_the_camera_and_the_others_go_on() -> None:
    main, side = FakeSink(SIZE), FakeSink(SIZE)
    main.trouble = "unplugged"
    both = CameraAndMore(main, [SinkThread(lambda: side, "NDI")], lambda text: None)
    with pytest.raises(VcamError, match="unplugged"):
        both.send(picture(7), 0)
    until(lambda: greys(side) == [7], "the others have it")
    both.close()


def test_the_camera_rests_only_while_nobody_receives_anything() -> None:
    side = Watched(SIZE)
    alone = SinkThread(lambda: side, "NDI")
    seen = readers.watch(alone)
    assert seen is not None
    assert (seen.count(), seen.names()) == (0, [])
    side.watching = 2
    assert (seen.count(), seen.names()) == (2, ["fake sink: 2"])
    together = readers.Together([seen, seen])
    assert (together.count(), len(together.names())) == (4, 2)
    cannot_tell = SinkThread(lambda: FakeSink(SIZE), "Spout")
    assert readers.watch(cannot_tell) is None
    assert readers.watch(CameraAndMore(alone, [cannot_tell], lambda text: None)) is None
    assert readers.watch(CameraAndMore(alone, [alone], lambda text: None)) is not None
    for one in (alone, cannot_tell):
        one.close()


# ------------------------------------------------------------------------------------------------------ Spout, Syphon


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    made = ModuleType(name)
    vars(made).update(content)
    monkeypatch.setitem(sys.modules, name, made)


class TextureProgram:
    """What SpoutGL's sender and syphon's server are called with."""

    device = "a graphics card"

    def __init__(self, *names: str) -> None:
        self.told: list[Any] = list(names)
        self.takes = True
        self.has_clients = True

    def setSenderName(self, name: str) -> None:
        self.told.append(name)

    def sendImage(self, pixels: Any, *rest: Any) -> bool:
        self.told.append((pixels.shape, pixels[0, 0].tolist(), *rest))
        return self.takes

    def publish_frame_texture(self, texture: Any, is_flipped: bool) -> None:
        self.told.append((texture.shape, texture[0, 0].tolist(), is_flipped))

    def releaseSender(self) -> None:
        self.told.append("gone")

    stop = releaseSender


def test_spout_is_called_as_its_package_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = TextureProgram()
    module(monkeypatch, "SpoutGL", SpoutSender=lambda: program)
    monkeypatch.setattr(sinks, "sys", SimpleNamespace(platform="win32"))
    sink = sinks.open_beside("spout", SIZE, 30)
    assert (sink.name, sink.size, sink.watching) == ("Spout (StreamV2V Camera)", SIZE, None)
    sink.send(np.full((48, 64, 3), (1, 2, 3), np.uint8), 0)
    until(lambda: len(program.told) == 2, "the picture is shared")
    program.takes = False

    def refused() -> bool:
        try:
            sink.send(picture(0), 1)
        except DeviceError as error:
            return "graphics driver" in str(error)
        return False

    until(refused, "what Spout refuses is said")
    sink.close()
    assert program.told[:2] == ["StreamV2V Camera", ((48, 64, 4), [1, 2, 3, 255], 64, 48, 0x1908, False, 0)]
    assert program.told[-1] == "gone"


def test_syphon_is_called_as_its_package_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[TextureProgram] = []

    def server(name: str) -> TextureProgram:
        programs.append(TextureProgram(name))
        return programs[0]

    module(monkeypatch, "syphon", SyphonMetalServer=server)
    module(monkeypatch, "syphon.utils")
    module(
        monkeypatch, "syphon.utils.numpy", copy_image_to_mtl_texture=lambda image, texture: np.copyto(texture, image)
    )
    module(
        monkeypatch,
        "syphon.utils.raw",
        create_mtl_texture=lambda device, width, height: np.zeros((height, width, 4), np.uint8),
    )
    monkeypatch.setattr(sinks, "sys", SimpleNamespace(platform="darwin"))
    sink = sinks.open_beside("syphon", SIZE, 30)
    sink.send(np.full((48, 64, 3), (1, 2, 3), np.uint8), 0)
    until(lambda: sink.watching == 1, "the picture is shared")
    sink.close()
    assert programs[0].told == ["StreamV2V Camera", ((48, 64, 4), [1, 2, 3, 255], True), "gone"]


@pytest.mark.parametrize(
    ("wanted", "system", "why"),
    [
        ("spout", "linux", "Spout is there on Windows alone; ndi is there everywhere"),
        ("syphon", "win32", "Syphon is there on macOS alone"),
        ("spout", "win32", "pip install SpoutGL"),
        ("syphon", "darwin", "pip install syphon-python"),
        ("ndi", sys.platform, "pip install cyndilib"),
        ("pipewire", sys.platform, "may be ndi, spout or syphon"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, wanted: str, system: str, why: str
) -> None:
    for name in ("SpoutGL", "syphon", "cyndilib", "cyndilib.sender"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sinks, "sys", SimpleNamespace(platform=system))
    opened: list[FakeSink] = []

    def camera(size: tuple[int, int], fps: float) -> FakeSink:
        opened.append(FakeSink(size))
        return opened[-1]

    monkeypatch.setattr(sinks, "VirtualCamera", camera)
    with pytest.raises(DeviceError, match=why):
        choose.choose_sink("camera", SIZE, 30, also=[wanted])
    assert opened == [], "nothing is left open"
