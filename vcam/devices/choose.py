"""Which source and which sink are taken, and what the user is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.settings import Origin
from vcam.devices import cameras, sinks
from vcam.devices.imagined import ImaginedSource
from vcam.devices.network import NetworkStream, is_address
from vcam.devices.side_sinks import CameraAndMore, SinkThread
from vcam.devices.test_pattern import PatternSource
from vcam.devices.video_loop import VideoLoop
from vcam.devices.webcam import Webcam
from vcam.errors import DeviceError, VcamError
from vcam.frames import FrameSink, FrameSource
from vcam.log_file import announce, announce_later

if TYPE_CHECKING:
    from vcam.video.marking import MarkingWanted


def load_readers() -> None:
    """Load what reads, writes and signs films and pictures: one may become the source, or be recorded, at any time."""
    import av.subtitles.stream  # noqa: F401  which PyAV loads with the first file that is closed

    from vcam.video import marking

    marking.load()


def choose_source(wanted: str, size: tuple[int, int], fps: float) -> FrameSource:
    """Open the source `wanted`: auto, camera, camera:NAME, a camera's number, pattern, imagine, an address or a file.

    auto takes the first physical camera, else the first virtual one at work, else the test picture, and says which.
    size, fps: of a camera, the test picture or what is imagined. Raises DeviceError.
    """
    if wanted == "auto":
        camera = cameras.first_choice(cameras.list_cameras())
        if camera is not None:
            announce(f"source: {camera.name} (the first {'virtual ' * camera.virtual}camera found)")
            return Webcam(camera.identity, size, fps)
        announce("source: the test picture, because no camera was found (--source FILE takes a video)")
        return PatternSource(size, fps)
    if wanted == "pattern":
        return PatternSource(size, fps)
    if wanted == "imagine":
        return ImaginedSource(size, fps)
    if is_address(wanted):
        return NetworkStream(wanted)
    path = Path(wanted)
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DeviceError(f"source {wanted[:60]!r} cannot be opened ({error.strerror})") from error
    if wanted.isdecimal() and not there:
        return Webcam(wanted, size, fps)
    if wanted == "camera" or wanted.startswith("camera:"):
        name = wanted.partition(":")[2]
        cameras.refuse_ours(name)
        return Webcam(name, size, fps)
    return VideoLoop(path)


def choose_sink(
    wanted: str,
    size: tuple[int, int],
    fps: float,
    marking: MarkingWanted | None = None,
    also: Sequence[str] = (),
    origin: Origin = Origin.TRANSLATED,
) -> FrameSink:
    """Open the sink `wanted`, and beside it those of `also` (ndi, spout, syphon); raises DeviceError, VideoError.

    wanted: auto, camera, none, ndi, spout, syphon or a file; auto takes the virtual camera, else none, and says why.
    marking, origin: how a file says that it is AI-made, and what.
    """
    more: list[SinkThread] = []
    try:
        more += (sinks.open_beside(one, size, fps) for one in also)
        for one in more:
            announce(f"sink: {one.name}, beside the camera")
        if wanted == "ndi" or "ndi" in also:
            announce("NDI: whoever is in this network can receive the picture")
        main = _main_sink(wanted, size, fps, marking, origin)
    except BaseException:
        for one in more:
            with contextlib.suppress(VcamError):
                one.close()
        raise
    return CameraAndMore(main, more, announce_later) if more else main


def _main_sink(
    wanted: str, size: tuple[int, int], fps: float, marking: MarkingWanted | None, origin: Origin
) -> FrameSink:
    if wanted != "auto":
        return sinks.open_sink(wanted, size, fps, marking=marking, origin=origin)
    try:
        sink = sinks.open_sink("camera", size, fps)
        announce(f"sink: {sink.name}")
    except VcamError as error:
        announce(f"sink: none, the panel's preview alone; {error}")
        sink = sinks.open_sink("none", size, fps)
    return sink
