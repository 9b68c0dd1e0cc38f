"""What passes between the parts of the daemon: frames, who makes and takes them, and the newest-wins slot."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [height, width, 3], RGB
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, RGB uint8 [height, width, 3], never written to once it is here; when it was captured; which one it is.

    captured_s: seconds of the daemon's clock. index: counts the source's frames from 0.
    """

    picture: Picture
    captured_s: float
    index: int


class FrameSource(Protocol):
    """Where frames come from.

    `read` waits at most `timeout_s` and gives the next frame, or None if there is none yet. `trouble` then says why,
    in words for the user ("" while all is well). A source mends itself: after trouble, read() is simply called again.
    `close` ends it; it does not raise.
    """

    @property
    def name(self) -> str: ...

    @property
    def trouble(self) -> str: ...

    def read(self, timeout_s: float) -> Frame | None: ...

    def close(self) -> None: ...


class FrameSink(Protocol):
    """Where pictures go: `send` takes one of exactly `size` (width, height) and does not keep it.

    tick: which beat of the pacer this is; beats may be left out, never repeated. `send` raises VcamError if the
    picture could not be delivered; the next call may work again. `close` ends the sink and does not raise.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def send(self, picture: Picture, tick: int) -> None: ...

    def close(self) -> None: ...


class Translator(Protocol):
    """Turns frames into translated frames.

    `translate` takes a frame of any size, waits for at most about `PATIENCE_S`, and gives the newest translated
    frame (its captured_s and index are those of the frame it shows, its size the engine's) or None when there is
    nothing new: starting, warming up, failed. `state` says which. Called from one thread; the rest from any.
    """

    def translate(self, frame: Frame | None) -> Frame | None: ...

    @property
    def state(self) -> TranslatorState: ...


@dataclass(frozen=True)
class TranslatorState:
    """What a translator is doing.

    phase: "starting", "running", "restarting" or "failed". text: in words, for the card and the status. progress:
    0..1 or None. frame_s: seconds per frame, 0 while unknown. facts: model, runtime, device, bank_bytes, delay and
    what else the engine tells.
    """

    phase: str
    text: str = ""
    progress: float | None = None
    frame_s: float = 0.0
    restarts: int = 0
    facts: dict[str, Any] | None = None


class LatestSlot(Generic[T]):
    """Holds one value: the newest put wins, and what nobody took is counted in `dropped`."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._dropped = 0

    def put(self, value: T) -> None:
        """Replace what is held, at once."""
        with self._condition:
            self._dropped += self._value is not None
            self._value = value
            self._condition.notify()

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Take the value out; wait for one for at most timeout_s; None if there is none."""
        with self._condition:
            if self._value is None and timeout_s > 0:
                self._condition.wait_for(lambda: self._value is not None, timeout_s)
            value, self._value = self._value, None
            return value

    def clear(self) -> None:
        """Forget what is held; it does not count as dropped."""
        with self._condition:
            self._value = None

    @property
    def dropped(self) -> int:
        """Values that were replaced before anybody took them."""
        return self._dropped
