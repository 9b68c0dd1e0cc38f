"""A source that can be exchanged for another one while it runs."""

from __future__ import annotations

import threading

from vcam.frames import Frame, FrameSource


class SourceSwitch:
    """A FrameSource: the one it was built with, until `use` gives it another.

    `use` may be called from any thread; the one before is closed by the thread that reads.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._left: list[FrameSource] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """See FrameSource."""
        return self._source.name

    @property
    def trouble(self) -> str:
        """See FrameSource."""
        return self._source.trouble

    @property
    def interval_s(self) -> float:
        """See FrameSource."""
        return self._source.interval_s

    def use(self, source: FrameSource) -> None:
        """Read from this one from now on."""
        with self._lock:
            self._left.append(self._source)
            self._source = source

    def read(self, timeout_s: float) -> Frame | None:
        """See FrameSource."""
        self._close_left()
        return self._source.read(timeout_s)

    def rest(self) -> None:
        """See FrameSource."""
        self._close_left()
        self._source.rest()

    def close(self) -> None:
        """See FrameSource."""
        self._close_left()
        self._source.close()

    def _close_left(self) -> None:
        with self._lock:
            left, self._left = self._left, []
        for source in left:
            source.close()
