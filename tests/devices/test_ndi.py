"""NDI for real: sent by our sink, received by NDI's own library on this machine."""

from __future__ import annotations

import threading
from typing import Self
from uuid import uuid4

import numpy as np
import pytest

from tests.support.ndi_receiver import NdiReceiver, find_on_this_machine
from tests.support.patience import until
from vcam.devices.sinks import open_beside
from vcam.frames import FrameSink, Picture

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (245, 55, 225),
    (12, 200, 120),
    (128, 128, 128),
    (255, 255, 255),
    (0, 0, 0),
]


@pytest.fixture(scope="module", autouse=True)
def ndi() -> None:
    find_on_this_machine()
    pytest.importorskip("cyndilib", reason="the extra ndi is not installed")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of this test alone: receivers remember for a while where the source of a name was."""
    name = f"Test {uuid4().hex[:8]}"
    monkeypatch.setattr("vcam.devices.ndi.SOURCE_NAME", name)
    return name


def bars(width: int, height: int) -> Picture:
    """Return the colours side by side, and a soft ramp of grey below them."""
    shown = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        shown[: height // 2, index * width // 8 : (index + 1) * width // 8] = colour
    shown[height // 2 :] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    return shown


class Sending:
    """Sends the picture that it shows again and again, as the camera does: receivers leave out what they like."""

    def __init__(self, sink: FrameSink, shown: Picture) -> None:
        self.shown, self._sink, self._stop = shown, sink, threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        tick = 0
        while not self._stop.wait(1 / 30):
            self._sink.send(self.shown, tick := tick + 1)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sink.close()


def farthest(seen: Picture, shown: Picture) -> int:
    """Return by how much a channel differs, but at edges: colour is halved in width, and the codec takes blocks."""
    height, width = shown.shape[:2]
    edge, differs = 8, np.abs(seen.astype(int) - shown)
    parts = [
        differs[edge : height // 2 - edge, at * width // 8 + edge : (at + 1) * width // 8 - edge] for at in range(8)
    ]
    return max(int(part.max()) for part in [*parts, differs[height // 2 + edge : height - edge]])


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_a_receiver_gets_the_pictures_in_their_colours(size: tuple[int, int], source: str) -> None:
    sink, shown = open_beside("ndi", size, 30), bars(*size)
    with Sending(sink, shown) as sending:
        with NdiReceiver(source) as receiver:
            until(lambda: sink.watching == 1, "the receiver is counted")
            seen = receiver.next()
            assert seen.shape == shown.shape
            assert farthest(seen, shown) <= 6
            sending.shown = np.zeros_like(shown)
            until(lambda: receiver.next().max() <= 6, "the next picture takes the place of the one before")
        until(lambda: sink.watching == 0, "the receiver is gone")
