"""A live source: opened off the caller's thread, judged by what it gives, opened anew after any failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from vcam.devices.capture import CaptureThread, Clock, DeviceCapture
from vcam.devices.health import OPEN_LIMIT_S, Condition, judge, opened, opening
from vcam.errors import VcamError
from vcam.frames import Frame

RETRY_S = 1.0
LOOK_S = 2.0  # how often the device is told that it gives pictures


class LiveDevice(Protocol):
    """What a live source reads: a camera or a network stream."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def has_lens(self) -> bool:
        """Whether black and frozen pictures mean that something is wrong with it."""

    def find(self) -> Callable[[], DeviceCapture]:
        """Look it up; return what opens it, which may block. Raises DeviceError that says what is missing."""

    def gives_pictures(self) -> bool:
        """Take note, now and then, that it does; return whether it is to be left and found anew. Quick."""

    def in_words(self, condition: Condition) -> str:
        """Return the trouble that a condition other than WELL is, for the user."""

    def why_ended(self, failure: str) -> str:
        """Return why its capture ended (see CaptureThread.failure), for the user."""


class LiveSource:
    """A FrameSource that reads a live device. While there is no frame, `trouble` says why."""

    def __init__(
        self, device: LiveDevice, clock: Clock = time.perf_counter, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._device, self._clock, self._sleep = device, clock, sleep
        self._thread: CaptureThread | None = None
        self._left: tuple[CaptureThread, float] | None = None  # not yet ended, and until when that is waited for
        self._health = opening(clock(), has_lens=device.has_lens)
        self._next_try_s = self._next_look_s = clock()
        self._index = -1
        self._trouble = f"opening {device.name}"

    @property
    def name(self) -> str:
        """Return what the user calls it, or what was asked for while it is not there."""
        return self._device.name

    @property
    def trouble(self) -> str:
        """Return why there is no frame, "" while frames come."""
        return self._trouble

    @property
    def interval_s(self) -> float:
        """Return the source's own seconds between two frames, 0 before the first one."""
        return self._health.interval_s

    def read(self, timeout_s: float) -> Frame | None:
        """Return the newest frame, waited for up to timeout_s; None: see `trouble`."""
        thread = self._thread or self._open(timeout_s)
        if thread is None:
            return None
        taken = thread.slot.take(timeout_s)
        now = self._clock()
        if taken is None and thread.ended.is_set():
            self._give_up(self._device.why_ended(thread.failure))
            return None
        if thread.opened.is_set() and not self._health.opened:
            self._health = opened(self._health, now)
        self._health, condition = judge(self._health, taken[0] if taken else None, now)
        if condition is not Condition.WELL or taken is None:
            self._tell(condition)
            return None
        if now >= self._next_look_s:
            self._next_look_s = now + LOOK_S
            if self._device.gives_pictures():
                self.rest()
                return None
        self._trouble = ""
        self._index += 1
        return Frame(*taken, self._index)

    def rest(self) -> None:
        """Let the device go; a camera's light goes out once a blocked driver call has ended."""
        if self._thread is not None:
            self._leave()
            self._trouble = f"opening {self.name}"

    def close(self) -> None:
        """Let the device go for good."""
        self.rest()
        if self._left is not None:
            self._left[0].join(0.5)

    def _open(self, timeout_s: float) -> CaptureThread | None:
        """Return a thread that opens the device, None while it is too early or the device is not there."""
        now = self._clock()
        if now < self._next_try_s:
            self._sleep(min(timeout_s, self._next_try_s - now))
            return None
        if self._left is not None:  # most cameras refuse a second handle, and some drivers break on it
            thread, end_s = self._left
            if now < end_s and not thread.ended.wait(timeout_s):
                return None
            self._left = None
        try:
            opener = self._device.find()
        except VcamError as error:
            self._give_up(str(error))
            return None
        self._health = opening(now, self._health, self._device.has_lens)
        self._thread = CaptureThread(opener, self._clock)
        return self._thread

    def _tell(self, condition: Condition) -> None:
        """Say what the condition is, and let go of what will not give anything more."""
        if condition in (Condition.OPENING, Condition.WAITING):
            return
        words = self._device.in_words(condition)
        if condition in (Condition.STUCK, Condition.LOST):
            self._give_up(words)
        elif condition is Condition.FROZEN:
            self._leave()
        self._trouble = words

    def _give_up(self, trouble: str) -> None:
        """Try again in a while."""
        self._trouble = trouble
        self._leave()
        self._next_try_s = self._clock() + RETRY_S

    def _leave(self) -> None:
        """Let the thread end by itself: its driver may still be at it."""
        if self._thread is not None:
            self._thread.leave()
            self._left, self._thread = (self._thread, self._clock() + OPEN_LIMIT_S), None
