"""Where pictures go: the virtual camera, a video file, nowhere."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.settings import Origin
from vcam.devices.cameras import OUR_NAME as OUR_NAME
from vcam.devices.microphone_process import RATE
from vcam.devices.side_sinks import CameraAndMore, SinkThread
from vcam.errors import DeviceError, VideoError
from vcam.frames import FrameSink, Picture
from vcam.log_file import announce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vcam.video.marking import MarkingWanted

if sys.platform == "linux":
    from vcam.devices import v4l2

_PART = ".part"  # of a file that is not complete: vcam.video.disk.part_of
_COPY = ".marking"  # of one that is being signed: vcam.video.marking
SURELY_LEFT_S = 60.0  # without a byte written
# ... what they are called of a recording by vcam.daemon.recorder, "StreamV2V 2026-05-17 20.15.00 2.mp4"
_HIDDEN = re.compile(r"\.StreamV2V \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d( \d+)?\.(part|marking)\.[a-z0-9]+")
REOPEN_S = 2.0  # how often a camera that takes no pictures is opened anew


class NullSink:
    """Takes pictures and lets them go: the preview page shows them."""

    name = "none"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def send(self, picture: Picture, tick: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to close."""


class VirtualCamera:
    """ "StreamV2V Camera" for all other programs, one size for life.

    device: which one; None finds ours by its label (Linux), by its name (Windows, macOS). backend: pyvirtualcam's.
    Raises DeviceError: pyvirtualcam or the device is missing, busy, or does not take the size. One that takes no
    pictures any more (unplugged, its program ended, whatever its library raises) is opened anew each REOPEN_S.
    """

    def __init__(
        self,
        size: tuple[int, int],
        fps: float,
        device: str | None = None,
        backend: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        width, height = size
        if width % 2 or height % 2:
            raise DeviceError(f"size is {width}x{height}; a virtual camera needs an even width and height")
        try:
            import pyvirtualcam
        except ImportError as error:
            raise DeviceError(
                f"the virtual camera needs the package pyvirtualcam ({error}): pip install pyvirtualcam"
            ) from error
        if sys.platform == "linux" and backend is None:
            device = device or find_device()
            prepare_device(device, size)
        self.size = size
        self._clock, self._reopen_s = clock, float("inf")
        self._opened = functools.partial(_open, pyvirtualcam, size, fps, device, backend)
        try:
            self._camera: Any = self._opened()
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise DeviceError(_why_refused(device, str(error))) from error
        self.device = str(self._camera.device)
        self.name = f"{OUR_NAME} ({self.device})"
        if sys.platform == "linux" and backend is None and device is not None:
            with contextlib.suppress(OSError):  # an old module: the pacer alone must do
                # readers get the last picture again and again, even when this process is gone
                v4l2.set_control(device, "sustain_framerate", 1)

    def send(self, picture: Picture, tick: int) -> None:
        """Show the picture to whoever reads the camera."""
        try:
            if self._clock() >= self._reopen_s:
                self._reopen_s = self._clock() + REOPEN_S
                with contextlib.suppress(Exception):  # it is of no use: what it says to its end is nothing new
                    self._camera.close()
                self._camera = self._opened()
            self._camera.send(picture)
        except Exception as error:  # the library's backends raise what they like
            self._reopen_s = min(self._reopen_s, self._clock() + REOPEN_S)
            raise DeviceError(f"the virtual camera does not take pictures any more: {_reason(error)}") from error
        self._reopen_s = float("inf")

    def close(self) -> None:
        """Give the device back."""
        self._camera.close()


def _open(pyvirtualcam: Any, size: tuple[int, int], fps: float, device: str | None, backend: str | None) -> Any:
    """Open the camera; on Windows first the one of our name (UnityCapture), then OBS's."""
    rgb = pyvirtualcam.PixelFormat.RGB
    if sys.platform == "win32" and backend is None and device is None:
        with contextlib.suppress(RuntimeError):
            return pyvirtualcam.Camera(*size, fps, fmt=rgb, device=OUR_NAME, backend="unitycapture")
    return pyvirtualcam.Camera(*size, fps, fmt=rgb, device=device, backend=backend)


def find_device() -> str:
    """Return the path of the v4l2loopback device with our label; raises DeviceError that says what is missing."""
    if sys.platform == "linux":
        found = v4l2.devices()
        for device in found:
            if device.name == OUR_NAME:
                return device.path
        loopbacks = [f"{device.path} ({device.name})" for device in found if device.is_loopback]
        if loopbacks:
            raise DeviceError(
                f'no virtual camera is labelled "{OUR_NAME}"; there are {", ".join(loopbacks)}: '
                f'load v4l2loopback with card_label="{OUR_NAME}" exclusive_caps=1'
            )
        raise DeviceError(
            "there is no virtual camera (v4l2loopback is not loaded): vcam setup camera, "
            f'or sudo modprobe v4l2loopback exclusive_caps=1 card_label="{OUR_NAME}"'
        )
    raise DeviceError("there is no v4l2loopback on this system")


def prepare_device(path: str, size: tuple[int, int]) -> None:
    """Make the device ready for a writer (0.12.7 refuses every one after the first); raises DeviceError."""
    if sys.platform == "linux":
        if users := v4l2.writers(path):  # the driver itself takes a second writer, and shows both in turns
            raise DeviceError(f"the virtual camera {path} is in use by {', '.join(users)}: close it there")
        kept = v4l2.kept_size(path)
        if kept is not None and kept != size:  # the driver would take them, and show damaged pictures
            who = ", ".join(v4l2.holders(path)) or "another program"
            raise DeviceError(
                f"{who} has {path} open at {kept[0]}x{kept[1]}, and no camera changes its size meanwhile: "
                "close it there, or keep to that size"
            )
        try:
            if not v4l2.query(path).takes_output:
                v4l2.heal(path)
        except PermissionError as error:
            raise DeviceError(f"no permission for {path}: sudo usermod -aG video $USER, then log in again") from error
        except OSError as error:
            raise DeviceError(
                f"{path} cannot be used ({error.strerror}): {_busy(path) or 'load v4l2loopback again'}"
            ) from error


def _busy(path: str | None) -> str:
    if sys.platform == "linux" and path is not None and (users := v4l2.holders(path)):
        return f"it is open in {', '.join(users)}: close it there"
    return ""


def _why_refused(device: str | None, message: str) -> str:
    first = message.strip().splitlines()[0] if message.strip() else "no reason given"
    if device is not None:
        return f"the virtual camera {device} cannot be opened: {_busy(device) or first}"
    app = "OBS (start it once and click Start Virtual Camera)" if sys.platform == "darwin" else "OBS or UnityCapture"
    return f"there is no virtual camera: install {app}; it said: {first}"


class VideoFile:
    """An H.264 video file, one picture a beat, under its final name only once it is complete, then marked.

    Where a beat was left out the picture before lasts longer, so that time in the file is time on the clock: to
    encode it again would make a machine that is late later still. What was written plays, to within two seconds of
    the end, whatever ends the program. Raises VideoError if the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float,
        marking: MarkingWanted | None = None,
        origin: Origin = Origin.TRANSLATED,
        with_sound: bool = False,
    ) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        from vcam.video.disk import errors_of, part_of
        from vcam.video.film_writing import while_writing
        from vcam.video.live_sound import LiveSound
        from vcam.video.marking import film_tags, marker_for
        from vcam.video.media import address

        width, height = size
        if width % 2 or height % 2:
            raise DeviceError(f"size is {width}x{height}; a video file needs an even width and height")
        self.name, self.size = str(path), size
        self._marker = marker_for(marking, announce, origin)
        self._path, self._part = path, part_of(path)
        self._errors = functools.partial(errors_of, path)
        self._first: int | None = None
        self._refused: VideoError | None = None  # why the newest picture is not in the file
        self._end_s = self._silent_until_s = 0.0
        rate = Fraction(fps).limit_denominator(1001)
        self._beat_s, self._reformatter = 1 / rate, VideoReformatter()
        try:
            with self._errors():
                options = while_writing(path.suffix.lower())
                self._container = av.open(address(self._part), "w", options=options)
                self._container.metadata.update(film_tags(origin))
                self._stream: Any = self._container.add_stream("libx264", rate=rate)
                self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
                # superfast: the encoder shares the cores with the engine, and must keep the pace; zerolatency: it
                # holds no picture back that would be lost with the program
                self._stream.options = {"preset": "superfast", "crf": "20", "tune": "zerolatency"}
                self._sound = LiveSound(self._container, path.suffix.lower(), RATE) if with_sound else None
                self._container.start_encoding()
        except VideoError:
            with contextlib.suppress(OSError):
                self._part.unlink()
            raise

    def send(self, picture: Picture, tick: int, heard_from: float = 0.0) -> None:
        """Encode the picture at the time of beat `tick`, counted from the first one, and the sound until its end.

        heard_from: the beat before which there is no sound, math.inf for none with this picture either.
        """
        from av import VideoFrame

        self._first = tick if self._first is None else self._first
        try:
            with self._errors():
                frame = VideoFrame.from_ndarray(picture, format="rgb24")
                frame = self._reformatter.reformat(frame, format="yuv420p", threads=1)
                frame.pts, frame.time_base = tick - self._first, self._beat_s
                self._write(frame)
                if self._sound is not None:
                    self._end_s, self._silent_until_s = self._time_s(tick + 1), self._time_s(heard_from)
                    for packet in self._sound.until(self._end_s, self._silent_until_s):
                        self._container.mux(packet)
        except VideoError as error:
            self._refused = error
            raise
        self._refused = None

    def hear(self, samples: NDArray[np.int16], beat: float) -> None:
        """Take sound [n] (a microphone's, RATE) whose first sample belongs at this beat, parts of one too.

        Only between two pictures, in a file with sound.
        """
        if self._sound is not None:
            with self._errors():
                self._sound.hear(samples, self._time_s(beat))

    def hush(self) -> None:
        """Make silence of all sound that is not written yet."""
        if self._sound is not None:
            self._sound.hush()

    def _time_s(self, beat: float) -> float:
        return (beat - (self._first or 0)) * float(self._beat_s)

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = packet.duration or 1
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and give it its name; raise VideoError for one that cannot be finished: where it is kept."""
        from vcam.video.disk import keep_incomplete

        if self._first is None:
            with contextlib.suppress(VideoError, OSError), self._errors():
                self._container.close()
            self._part.unlink(missing_ok=True)
            return
        try:
            with self._errors():
                try:
                    self._write(None)
                    if self._sound is not None:
                        for packet in self._sound.rest(self._end_s, self._silent_until_s):
                            self._container.mux(packet)
                finally:
                    self._container.close()
                if self._refused is not None:
                    raise self._refused
                self._part.replace(self._path)
            # the program does not end before this, however long it takes; the file is whole already
            marking = threading.Thread(target=self._marker.finished, args=(self._path,), name="vcam-marking")
            marking.start()
            marking.join()
        except VideoError as error:
            kept = self._part
            with contextlib.suppress(OSError):  # it is found under the hidden name then
                kept = keep_incomplete(self._part, self._path)
            why = str(error).partition("cannot be written: ")[2]
            raise DeviceError(f"{self._path} could not be completed: {why}; what was written is in {kept}") from error


def picture_file(picture: Picture, suffix: str, marking: MarkingWanted, origin: Origin = Origin.TRANSLATED) -> bytes:
    """Return the picture as a file of that suffix holds it, marked as what it is; raises VideoError."""
    from vcam.video.marking import marker_for
    from vcam.video.picture_files import encoded

    return encoded(picture, suffix, marker_for(marking, announce, origin))


def recover(folder: Path, say: Callable[[str], None]) -> None:
    """Give recordings that a killed program left under their hidden names in the folder a name that is seen.

    Those alone that vcam.daemon.recorder named, and to which nobody writes: another program's film, or the one that is
    the sink, may lie there too. A copy that was being signed is removed: what it is a copy of is there.
    """
    from vcam.video.disk import keep_incomplete

    try:
        ours = [path for path in folder.iterdir() if _HIDDEN.fullmatch(path.name)]
        old = [path for path in ours if path.stat().st_mtime < time.time() - SURELY_LEFT_S]
        left = [path for path in old if path.stem.endswith(_PART)]
        for copy in old:
            if copy.stem.endswith(_COPY):
                copy.unlink()
    except OSError:  # there is no folder yet, or it cannot be read: nothing to tell
        return
    for part in sorted(left):
        target = part.with_name(part.stem.removesuffix(_PART)[1:] + part.suffix)
        with contextlib.suppress(OSError):
            say(f"an earlier recording was cut short: it is kept in {keep_incomplete(part, target)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _ndi(size: tuple[int, int], fps: float) -> FrameSink:
    from vcam.devices.ndi import NdiSink

    return NdiSink(size, fps)


def _spout(size: tuple[int, int], fps: float) -> FrameSink:
    from vcam.devices.texture_sinks import SpoutSink

    return SpoutSink(size, fps)


def _syphon(size: tuple[int, int], fps: float) -> FrameSink:
    from vcam.devices.texture_sinks import SyphonSink

    return SyphonSink(size, fps)


BESIDE: dict[str, tuple[str, Callable[[tuple[int, int], float], FrameSink]]] = {
    "ndi": ("NDI", _ndi),
    "spout": ("Spout", _spout),
    "syphon": ("Syphon", _syphon),
}
"""What may be a sink beside the camera: its name for people, and what opens it."""
_ALONE_ON = {"spout": ("win32", "Windows"), "syphon": ("darwin", "macOS")}


def open_beside(wanted: str, size: tuple[int, int], fps: float) -> SinkThread:
    """Open one of BESIDE on a thread of its own; raises DeviceError."""
    if wanted not in BESIDE:
        raise DeviceError(f"beside the camera there may be ndi, spout or syphon, not {wanted!r}")
    name, make = BESIDE[wanted]
    system, word = _ALONE_ON.get(wanted, (sys.platform, ""))
    if sys.platform != system:
        raise DeviceError(f"{name} is there on {word} alone; ndi is there everywhere")
    return SinkThread(lambda: make(size, fps), name)


def send_last(sink: FrameSink, card: Picture, tick: int) -> None:
    """Show the card as the last picture wherever one stays to be seen: a file shall not end with it.

    Raises VcamError as `send` does.
    """
    if not isinstance(sink, CameraAndMore):
        if not isinstance(sink, VideoFile):
            sink.send(card, tick)
    elif isinstance(sink.main, VideoFile):
        sink.send_beside(card, tick)
    else:
        sink.send(card, tick)


def open_sink(
    wanted: str,
    size: tuple[int, int],
    fps: float,
    camera: Callable[[tuple[int, int], float], FrameSink] = VirtualCamera,
    marking: MarkingWanted | None = None,
    origin: Origin = Origin.TRANSLATED,
) -> FrameSink:
    """Open the sink that `wanted` names: camera, none, ndi, spout, syphon or a file; raises DeviceError, VideoError.

    marking, origin: how a file says that it is AI-made, and what; None: by metadata alone.
    """
    if wanted == "none":
        return NullSink(size)
    if wanted == "camera":
        return camera(size, fps)
    if wanted in BESIDE:
        return open_beside(wanted, size, fps)
    path = Path(wanted)
    if path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
        raise DeviceError(
            f"sink is {wanted!r}; it must be auto, camera, none, ndi, spout, syphon or a file .mp4, .mkv or .mov"
        )
    if path.is_dir():
        raise DeviceError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise DeviceError(f"{path} cannot be written: there is no folder {path.parent}")
    return VideoFile(path, size, fps, marking, origin)
