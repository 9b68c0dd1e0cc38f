"""A receiver of NDI on this machine: cyndilib's own, with the library told to look for sources here alone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.support.patience import PATIENCE_S, pause
from vcam.frames import Picture

_KR, _KB = 0.2126, 0.0722  # BT.709, with which NDI's library makes YUV of RGB at every size


def find_on_this_machine() -> None:
    """Have the library ask this machine for sources, not the network; before it is imported for the first time."""
    folder = Path(tempfile.mkdtemp(prefix="ndi-"))
    (folder / "ndi-config.v1.json").write_text(json.dumps({"ndi": {"networks": {"ips": "127.0.0.1"}}}))
    os.environ["NDI_CONFIG_DIR"] = str(folder)


class NdiReceiver:
    """Receives the source of that name, as YUV like most programs do, from `with` to its end."""

    def __init__(self, source_name: str) -> None:
        from cyndilib.finder import Finder
        from cyndilib.receiver import ReceiveFrameType, Receiver
        from cyndilib.video_frame import VideoRecvFrame
        from cyndilib.wrapper import RecvBandwidth, RecvColorFormat

        self._video = ReceiveFrameType.recv_video
        self._finder = Finder()
        self._finder.open()
        self._frame = VideoRecvFrame()
        self._receiver = Receiver(color_format=RecvColorFormat.UYVY_RGBA, bandwidth=RecvBandwidth.highest)
        self._receiver.set_video_frame(self._frame)
        self._receiver.set_source(self._found(f"({source_name})"))

    def _found(self, ending: str) -> Any:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            for name in self._finder.get_source_names():
                if name.endswith(ending):
                    return self._finder.get_source(name)
            self._finder.wait_for_sources(0.2)
        raise AssertionError(f"no NDI source {ending} was found")

    def next(self) -> Picture:
        """Return the next picture that comes, RGB."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if not self._frame.get_buffer_depth():  # with all its buffers full it would take nothing more, for ever
                self._receiver.receive(self._video, 20)  # ms: without any it gets few, and it holds Python's lock
            if not self._frame.get_buffer_depth():
                pause()
            else:
                width, height = self._frame.get_resolution()
                data = np.zeros(self._frame.get_data_size(), np.uint8)
                self._frame.fill_p_data(data)
                return _rgb(data.reshape(height, 2 * width))
        raise AssertionError("no picture came by NDI")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receiver.disconnect()
        self._finder.close()


def _rgb(uyvy: Picture) -> Picture:
    values = uyvy.astype(np.float32)
    luma = (values[:, 1::2] - 16) / 219
    blue, red = (np.repeat((values[:, first::4] - 128) / 224, 2, axis=1) for first in (0, 2))
    r, b = luma + 2 * (1 - _KR) * red, luma + 2 * (1 - _KB) * blue
    g = (luma - _KR * r - _KB * b) / (1 - _KR - _KB)
    return np.clip(np.stack([r, g, b], axis=-1) * 255, 0, 255).round().astype(np.uint8)
