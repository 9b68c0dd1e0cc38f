"""What passes between the parts of the daemon: frames, who makes and takes them, and the newest-wins slot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.settings import EngineSettings, Look

Picture = NDArray[np.uint8]  # [height, width, 3], RGB
T = TypeVar("T")


class Focus(NamedTuple):
    """A part of a picture, whatever its shape: its middle and its height, as shares of the picture's sides."""

    x: float
    y: float
    height: float


class Shot(NamedTuple):
    """What of the camera's picture is translated and published.

    whole: all of it, between bars where the shape is another. focus: the part to show, of the picture as the camera
    gives it; None: as much as the shape allows. mirrored: left and right change places.
    """

    whole: bool = False
    focus: Focus | None = None
    mirrored: bool = False


FILLED = Shot()


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, RGB uint8 [height, width, 3], never written to once it is here; when it was captured; which one it is.

    captured_s: seconds of the daemon's clock. index: counts the source's frames from 0. shot: what of it is shown.
    imagined: there is no picture, and what is published comes of the prompt alone; `picture` is empty space.
    """

    picture: Picture
    captured_s: float
    index: int
    shot: Shot = field(default=FILLED, kw_only=True)
    imagined: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Translation(Frame):
    """A translated frame. source: the camera's own picture that it was made of, uncut; look: with which it was made."""

    source: Picture
    look: Look


class FrameSource(Protocol):
    """Where frames come from. It mends itself: after trouble, `read` is simply called again."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def trouble(self) -> str:
        """Why there are no frames, in words for the user; "" while all is well."""

    @property
    def interval_s(self) -> float:
        """Its own seconds between two frames, as far as it is known; 0 while it is not."""

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, waited for at most about timeout_s; None if there is none yet."""

    def rest(self) -> None:
        """Let the device go (a camera's light goes out) until the next `read`; does not raise."""

    def close(self) -> None:
        """End it; does not raise."""


class FrameSink(Protocol):
    """Where pictures go."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every picture it takes."""

    def send(self, picture: Picture, tick: int) -> None:
        """Take a picture of exactly `size` for the pacer's beat `tick`, and do not keep it.

        Beats may be left out, never repeated. Raises VcamError if it was not delivered; the next may be.
        """

    def close(self) -> None:
        """End it; raises VcamError if what it was sent is not all kept."""


class Translator(Protocol):
    """Turns frames into translated frames. One thread calls `translate`; `state` may be read from any."""

    @property
    def ready(self) -> bool:
        """Whether a frame given now would be begun at once."""

    @property
    def state(self) -> TranslatorState:
        """What it is doing."""

    def translate(self, frame: Frame | None) -> Translation | None:
        """Give it a frame of any size, or None; wait a moment (0.1 s at most) for the newest translated frame.

        That has the captured_s and index of the frame it shows. None: nothing new, see `state`.
        """


class EnginePhase(StrEnum):
    """What the engine is doing, in the words of the status."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    FAILED = "failed"


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says about itself once it has loaded.

    model, runtime, device: with what it runs. delay: frames between a picture and its translation. bank_bytes: size
    of the feature bank. changes_loras: whether it takes other LoRAs without being built anew; builds_loras: whether
    another one, of TensorRT's, shall be built for them. pid: of its process.
    note: what the user should know about the runtime. provider: by whose library (TensorRT) or hardware (ONNX
    Runtime) it runs, in words, "" where the runtime says it all. to_build: whether building a TensorRT engine would
    help. refreshes: how often the bank was made anew by itself.
    """

    model: str = ""
    runtime: str = ""
    device: str = ""
    delay: int = 0
    bank_bytes: int = 0
    changes_loras: bool = False
    builds_loras: bool = False
    pid: int | None = None
    note: str = ""
    provider: str = ""
    to_build: bool = False
    refreshes: int = 0

    def noted(self, text: str) -> EngineFacts:
        """Return these facts with one more thing that the user should know."""
        return replace(self, note="; ".join(one for one in (self.note, text) if one))


@dataclass(frozen=True)
class EngineWork:
    """What the engine that shows has done. settings: its own; busy_s: the seconds that `pictures` translations took."""

    settings: EngineSettings
    pictures: int
    busy_s: float


class Spread(NamedTuple):
    """How long something takes, in milliseconds: half of the times at most p50, 95 of 100 at most p95."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class TranslatorState:
    """What a translator is doing.

    text: in words, for the card and the status. progress: 0..1 or None. frame_s: seconds per frame, 0 while unknown.
    restarts: since the run began. facts, work: None until the engine has loaded. changing: whether another engine is
    made ready beside the one that shows. refused: why the newest change was not possible. server: where the engine is,
    host:port, "" on this machine; times: what a picture's way there takes, by its parts. stands_in: why the engine of
    this machine shows in the place of the server's, "" while it does not.
    """

    phase: EnginePhase
    text: str = ""
    progress: float | None = None
    frame_s: float = 0.0
    restarts: int = 0
    facts: EngineFacts | None = None
    work: EngineWork | None = None
    changing: bool = False
    refused: str = ""
    server: str = ""
    times: Mapping[str, Spread] = field(default_factory=dict)
    stands_in: str = ""


class LatestSlot(Generic[T]):
    """Holds one value: the newest put wins, and what nobody took is counted in `dropped`."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._newest: T | None = None
        self._dropped = 0
        self._stirred = False

    def put(self, value: T) -> None:
        """Replace what is held, at once."""
        with self._condition:
            self._dropped += self._value is not None
            self._value = self._newest = value
            self._condition.notify()

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Take the value out; wait for one for at most timeout_s, or until `stir`; None if there is none."""
        with self._condition:
            if self._value is None and timeout_s > 0:
                self._condition.wait_for(lambda: self._value is not None or self._stirred, timeout_s)
            value, self._value = self._value, None
            return value

    def stir(self) -> None:
        """Have who waits in `take` look after something else, at once."""
        with self._condition:
            self._stirred = True
            self._condition.notify()

    def was_stirred(self) -> bool:
        """Return whether `stir` was called since this was asked last."""
        with self._condition:
            stirred, self._stirred = self._stirred, False
            return stirred

    def clear(self) -> None:
        """Forget everything; it does not count as dropped."""
        with self._condition:
            self._value = self._newest = None

    @property
    def newest(self) -> T | None:
        """The value of the last put, taken or not."""
        return self._newest

    @property
    def dropped(self) -> int:
        """Values that were replaced before anybody took them."""
        return self._dropped
