"""Which source and which sink are taken, and what the user is told of it."""

from __future__ import annotations

from pathlib import Path

from vcam.devices import sinks, sources
from vcam.errors import VcamError
from vcam.frames import FrameSink, FrameSource
from vcam.log_file import announce


def choose_source(wanted: str, size: tuple[int, int], fps: float) -> FrameSource:
    """Open the source `wanted`: auto, camera, camera:NAME, pattern or a file.

    auto takes the first real camera, else the test picture, and says which. size, fps: of a camera or the test
    picture. Raises VcamError.
    """
    if wanted == "auto":
        cameras = sources.list_cameras()
        if cameras:
            announce(f"source: {cameras[0].name} (the first camera found)")
            return sources.Webcam(cameras[0].identity, size, fps)
        announce("source: the test picture, because no camera was found (--source FILE takes a video)")
        return sources.Pattern(size, fps)
    if wanted == "pattern":
        return sources.Pattern(size, fps)
    if wanted == "camera" or wanted.startswith("camera:"):
        name = wanted.partition(":")[2]
        if name.casefold() == sources.OUR_NAME.casefold():
            sources.choose_camera(name, [])  # says why not
        return sources.Webcam(name, size, fps)
    return sources.VideoLoop(Path(wanted))


def choose_sink(wanted: str, size: tuple[int, int], fps: float) -> FrameSink:
    """Open the sink `wanted`: auto, camera, none or a file; auto takes the virtual camera, else none, and says why.

    Raises VcamError.
    """
    if wanted != "auto":
        return sinks.open_sink(wanted, size, fps)
    try:
        sink = sinks.open_sink("camera", size, fps)
        announce(f"sink: {sink.name}")
    except VcamError as error:
        announce(f"sink: none, the panel's preview alone; {error}")
        sink = sinks.open_sink("none", size, fps)
    return sink
