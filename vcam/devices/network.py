"""A network camera or stream (RTSP, HTTP, ...) as a source of frames: it connects anew and tells no secret."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import cv2

from vcam.devices.backlog import LATE_S, Backlog
from vcam.devices.capture import Clock, DeviceCapture
from vcam.devices.health import OPEN_LIMIT_S, Condition
from vcam.devices.live_source import LiveSource
from vcam.errors import DeviceError
from vcam.log_file import without_secrets

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp", "rtp")
READ_LIMIT_S = 10.0  # without a byte, after which the connection is given up
# What a stream may lead on to; not file: a playlist from the network shall not open files of this machine.
_PROTOCOLS = "rtsp,rtsps,rtp,rtcp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,rtmp,rtmps,rtmpt,srt"


def is_address(text: str) -> bool:
    """Return whether a source is the address of a stream, not a file's name."""
    return re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE) is not None


def check_address(address: str) -> None:
    """Raise DeviceError for an address that cannot be one of a stream."""
    scheme = address.partition(":")[0].lower()
    if scheme not in SCHEMES:
        hint = ": give the file's path" if scheme == "file" else f"; it must begin with {', '.join(SCHEMES)}"
        raise DeviceError(f"source {without_secrets(address)} is of a kind that is not read{hint}")
    try:
        host = urlsplit(address).hostname
    except ValueError:
        host = None
    if not host:
        raise DeviceError(f"source {without_secrets(address)} names no host; an address is {scheme}://HOST/PATH")


class StreamCapture:
    """A stream that is read by FFmpeg, as DeviceCapture. Raises DeviceError that says why there is none.

    A thread of its own takes what the network gives, so that nothing waits in the server or in between. What is too
    much for the decoder is left out. A film is read whole, at its own pace.
    """

    def __init__(self, address: str, clock: Clock = time.monotonic) -> None:
        import av

        # by TCP where the server can: what UDP loses tears pictures
        options = {"rtsp_flags": "prefer_tcp", "fflags": "nobuffer", "protocol_whitelist": _PROTOCOLS}
        self._clock = clock
        self._errors = (OSError, ValueError, av.error.FFmpegError)
        try:
            self._container: Any = av.open(address, options=options, timeout=(OPEN_LIMIT_S - 5, READ_LIMIT_S))
        except self._errors as error:
            raise DeviceError(_reason(error)) from None  # whose text has the whole address
        videos = self._container.streams.video
        if not videos or videos[0].codec_context is None:
            self._container.close()
            raise DeviceError("there is no picture in the stream" if not videos else "its video codec is not known")
        self._stream = videos[0]
        self._stream.thread_type = "SLICE"  # threads by frame would hold pictures back
        self._pace = _Pace() if self._container.duration is not None or self._container.format.name == "hls" else None
        self._backlog: Backlog[Any] = Backlog(clock)
        self._left = threading.Event()
        self._receiver = threading.Thread(target=self._receive, name="vcam-stream", daemon=True)
        if self._pace is None:
            self._receiver.start()
        self._frames = self._decoded()
        self._given_s = clock()

    def isOpened(self) -> bool:
        """Return True: a stream that does not open raises."""
        return True

    def read(self) -> tuple[bool, Any]:
        """Return whether there is a picture, and the picture (BGR); see DeviceCapture."""
        try:
            frame = next(self._frames, None)
        except self._errors as error:
            raise DeviceError(_reason(error)) from None
        if frame is None:
            return False, None
        if self._pace is not None and frame.time is not None:
            self._pace.wait_for(float(frame.time))
        return True, cv2.cvtColor(frame.to_ndarray(format="rgb24", threads=1), cv2.COLOR_RGB2BGR)

    def release(self) -> None:
        """Close the connection, once what is asked of it is answered or has run out of time."""
        self._left.set()
        if self._pace is None:
            self._receiver.join(READ_LIMIT_S + 1)
        if not self._receiver.is_alive():
            self._container.close()

    def _receive(self) -> None:
        try:
            for packet in self._container.demux(self._stream):
                if self._left.is_set():
                    break
                if packet.size:
                    self._backlog.put(packet)
        except self._errors as error:
            self._backlog.end(error)
        else:
            self._backlog.end()

    def _decoded(self) -> Iterator[Any]:
        """Yield the pictures; what is behind the stream is decoded and, but for a few, not converted."""
        if self._pace is not None:
            yield from self._container.decode(self._stream)
            return
        while (waiting := self._backlog.take()) is not None:
            for frame in self._stream.decode(waiting.packet):
                now = self._clock()
                if now - waiting.came_s < LATE_S or now - self._given_s > LATE_S:
                    self._given_s = now
                    yield frame


class _Pace:
    """Keeps a film's own time: a server gives it as fast as it can."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None

    def wait_for(self, time_s: float) -> None:
        """Return when the picture of that time is due."""
        now = time.monotonic()
        started_s, first_s = self._start or (now, time_s)
        if not -1.0 < started_s + time_s - first_s - now < 5.0:  # its clock has jumped
            started_s, first_s = now, time_s
        self._start = started_s, first_s
        time.sleep(max(0.0, started_s + time_s - first_s - now))


def _reason(error: Exception) -> str:
    """Return why FFmpeg failed, without the address that its message has."""
    name = type(error).__name__
    if name in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
        return "user or password is refused"
    if name == "HTTPNotFoundError":
        return "the server has no such stream"
    if name == "ExitError":  # by our own time limit
        return "no answer in time"
    return str(getattr(error, "strerror", None) or name)


class NetworkStream(LiveSource):
    """A stream as FrameSource: read in a thread of its own, connected anew whenever it ends.

    Raises DeviceError for an address that cannot be one.
    """

    def __init__(
        self,
        address: str,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        opener: Callable[[str], DeviceCapture] = StreamCapture,
    ) -> None:
        check_address(address)
        super().__init__(_StreamDevice(address, opener), clock, sleep)


class _StreamDevice:
    """The stream at an address, as LiveDevice."""

    has_lens = False  # a film or a camera at night may be black, a slide may stay

    def __init__(self, address: str, opener: Callable[[str], DeviceCapture]) -> None:
        self._address, self._opener, self.name = address, opener, without_secrets(address)

    def find(self) -> Callable[[], DeviceCapture]:
        return lambda: self._opener(self._address)

    def gives_pictures(self) -> bool:
        return False

    def in_words(self, condition: Condition) -> str:
        if condition is Condition.STUCK:
            return f"{self.name} does not answer (waited {OPEN_LIMIT_S:g} s): is it on, and in this network?"
        return f"{self.name} gives no pictures"

    def why_ended(self, failure: str) -> str:
        why = "it ended" if failure in ("", "open", "read") else without_secrets(failure)
        return f"{self.name} gives no pictures ({why}): trying again"
