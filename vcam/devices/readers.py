"""Who looks at the virtual camera: so that engine and lens may rest while nobody does (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from vcam.devices.side_sinks import CameraAndMore, SinkThread
from vcam.frames import FrameSink

OPEN_S = 0.3  # a program that only lists the cameras has let go of ours by then
RECOUNT_S = 10.0  # how often names are looked up anew, and a count is held against what is true

_FLAGS = 0
if sys.platform != "win32":
    _FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_DQEVENT = 0x80885659  # struct v4l2_event, 136 bytes
_SUBSCRIBE_EVENT = 0x4020565A  # struct v4l2_event_subscription, 32 bytes
_CLIENT_USAGE = 0x08000000 + 0x08E00000 + 1  # V4L2_EVENT_PRIVATE_START + v4l2loopback's offset + 1, since 0.13
_SEND_INITIAL = 1
_IN_CLOSE, _IN_OPEN = 0x18, 0x20


class Readers(Protocol):
    """Tells how many programs look at a camera now."""

    @property
    def how(self) -> str:
        """How it knows."""

    def count(self) -> int:
        """Programs that look now; does not wait. Raises OSError if the device is gone."""

    def names(self) -> list[str]:
        """Who they are, as "name (pid N)", as far as this user may see."""

    def close(self) -> None:
        """Stop looking."""


def watch(sink: FrameSink) -> Readers | None:
    """Return the readers of the sink if it can tell: a camera of this machine, NDI, several of those; else None."""
    from vcam.devices.sinks import VirtualCamera

    if isinstance(sink, CameraAndMore):
        parts = [watch(one) for one in (sink.main, *sink.more)]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return Together(known)
        for part in known:
            part.close()
        return None
    if isinstance(sink, SinkThread):
        return None if sink.watching is None else Receivers(sink)
    if sys.platform != "linux" or not isinstance(sink, VirtualCamera) or not sink.device.startswith("/dev/"):
        return None
    try:
        return StreamEvents(sink.device)
    except OSError:  # before 0.13 there is no such event
        return Openings(sink.device)


class Receivers:
    """Programs that receive a sink that counts them itself, such as NDI."""

    how = "the sink itself"

    def __init__(self, sink: SinkThread) -> None:
        self._sink = sink

    def count(self) -> int:
        """Return how many there were at the newest picture."""
        return self._sink.watching or 0

    def names(self) -> list[str]:
        """Return one name for all: the sink knows no others."""
        return [f"{self._sink.name}: {self.count()}"] if self.count() else []

    def close(self) -> None:
        """Nothing to close."""


class Together:
    """The readers of several sinks."""

    def __init__(self, parts: Sequence[Readers]) -> None:
        self._parts = parts
        self.how = ", ".join(part.how for part in parts)

    def count(self) -> int:
        """Return the count of all; raises OSError if the device of one is gone."""
        return sum(part.count() for part in self._parts)

    def names(self) -> list[str]:
        """Return the names of all."""
        return [name for part in self._parts for name in part.names()]

    def close(self) -> None:
        """Stop looking."""
        for part in self._parts:
            part.close()


class StreamEvents:
    """By v4l2loopback's own event: who streams. Raises OSError where the module (before 0.13) has none."""

    how = "the module's event"

    def __init__(self, path: str) -> None:
        self._path, self._count = path, 0
        self._fd = os.open(path, os.O_RDWR | _FLAGS)
        try:
            _ioctl(self._fd, _SUBSCRIBE_EVENT, bytearray(struct.pack("<III20x", _CLIENT_USAGE, 0, _SEND_INITIAL)))
        except OSError:
            os.close(self._fd)
            raise

    def count(self) -> int:
        """Return the count of the newest event."""
        while True:
            event = bytearray(136)
            try:
                _ioctl(self._fd, _DQEVENT, event)
            except FileNotFoundError:  # ENOENT: no event is waiting
                return self._count
            kind, count = struct.unpack_from("<I4xI", event)
            if kind == _CLIENT_USAGE:
                self._count = count

    def names(self) -> list[str]:
        """Who has the camera open."""
        return _holders(self._path)

    def close(self) -> None:
        """Give the handle back."""
        os.close(self._fd)


class Openings:
    """By inotify, which tells that somebody opened or closed the node, and /proc, which tells who has it open.

    Equal events that follow each other are merged into one, so they cannot be counted. Programs of other users are
    not seen, except by root. Raises OSError.
    """

    how = "inotify"

    def __init__(
        self,
        path: str,
        holders: Callable[[str], list[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._clock = path, clock
        self._holders = holders or _holders
        self._library = ctypes.CDLL(None, use_errno=True)
        self._fd = _checked(self._library.inotify_init1(_FLAGS))
        try:
            _checked(self._library.inotify_add_watch(self._fd, os.fsencode(path), _IN_OPEN | _IN_CLOSE))
        except OSError:
            os.close(self._fd)
            raise
        self._names = self._holders(path)
        self._asked_s = clock()
        self._since_s: float | None = self._asked_s - 2 * OPEN_S if self._names else None

    def count(self) -> int:
        """Programs that have had it open for OPEN_S; one that just opened it may only be listing the cameras."""
        now = self._clock()
        if self._something_happened() or (self._names and now - self._asked_s >= RECOUNT_S):
            self._names, self._asked_s = self._holders(self._path), now
        if not self._names:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now
        return len(self._names) if self._since_s is not None and now - self._since_s >= OPEN_S else 0

    def names(self) -> list[str]:
        """Who has the camera open."""
        return self._names

    def close(self) -> None:
        """Stop looking."""
        os.close(self._fd)

    def _something_happened(self) -> bool:
        happened = False
        with contextlib.suppress(BlockingIOError):  # all was read
            while os.read(self._fd, 65536):
                happened = True
        return happened


# ---------------------------------------------------------------------------------------------------- whether to rest


@dataclass(frozen=True)
class Presence:
    """Whether somebody looks, and since when nobody does; seconds of the daemon's clock.

    count: None where it cannot be told: then nothing ever rests. asked_s: when `names` were looked up.
    """

    count: int | None
    names: tuple[str, ...]
    looked_s: float
    resting: bool = False
    asked_s: float = float("-inf")


def look(
    before: Presence, readers: Readers, idle_after_s: float, now_s: float, shown_elsewhere_s: float = float("-inf")
) -> Presence:
    """Return the presence as of now; idle_after_s: seconds without a look until the rest begins, 0: never.

    shown_elsewhere_s: when the picture was last looked at by other ways, such as the panel.
    """
    try:
        count = readers.count()
    except OSError:  # the device is gone; the publisher says so
        return replace(before, count=None, names=(), resting=False)
    looked_s = now_s if count else max(before.looked_s, shown_elsewhere_s)
    names, asked_s = before.names, before.asked_s
    if count != before.count or (count and now_s - asked_s >= RECOUNT_S):
        names, asked_s = tuple(readers.names()) if count else (), now_s
    resting = idle_after_s > 0 and now_s - looked_s >= idle_after_s
    return Presence(count, names, looked_s, resting, asked_s)


class Audience:
    """Who looks at what is published, there or elsewhere. `look` belongs to one thread, the rest to any.

    readers: of the virtual camera, None where they cannot be told: then nothing ever rests.
    """

    def __init__(self, readers: Readers | None, idle_after_s: float, clock: Callable[[], float]) -> None:
        self._readers, self._idle_after_s, self._clock = readers, idle_after_s, clock
        self._seen_s = float("-inf")
        self.presence = Presence(None, (), clock())

    def seen(self) -> None:
        """Somebody looks at the picture another way, such as in the panel."""
        self._seen_s = self._clock()

    def look(self, busy: bool) -> bool:
        """Look who is there; whether a rest has just begun. busy: no rest yet, whoever looks."""
        if self._readers is None:
            return False
        before, now = self.presence, self._clock()
        self.presence = look(before, self._readers, self._idle_after_s, now, now if busy else self._seen_s)
        return self.presence.resting and not before.resting

    def close(self) -> None:
        """Stop looking."""
        if self._readers is not None:
            self._readers.close()


def _holders(path: str) -> list[str]:
    if sys.platform != "linux":
        return []
    from vcam.devices import v4l2

    return v4l2.holders(path)


def _ioctl(fd: int, request: int, buffer: bytearray) -> None:
    if sys.platform == "linux":
        import fcntl

        fcntl.ioctl(fd, request, buffer)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
