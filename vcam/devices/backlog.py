"""Packets between a network and a decoder: what has waited too long is left out, from a picture on that needs none."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

LATE_S = 0.4  # that a packet may have waited
HOPELESS_S = 3.0  # that it may have waited where no later picture stands alone
MOST_BYTES = 64 << 20  # that may wait


class Packet(Protocol):
    """What the backlog must know of av.Packet."""

    @property
    def size(self) -> int:
        """Return its bytes."""

    @property
    def is_keyframe(self) -> bool:
        """Return whether its picture needs no earlier one."""


P = TypeVar("P", bound=Packet)


@dataclass(frozen=True)
class Waiting(Generic[P]):
    """A packet, and when it came (seconds of the caller's clock)."""

    packet: P
    came_s: float


class Backlog(Generic[P]):
    """A queue from one thread, which puts what the network gives, to another, which takes what it can decode.

    Packets are left out only up to one whose picture needs no earlier one, so that what is decoded is never torn.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._waiting: deque[Waiting[P]] = deque()
        self._bytes = self._left_out = 0
        self._until_key = False  # nothing is taken before a picture that stands alone
        self._ended = False
        self._failure: Exception | None = None

    @property
    def left_out(self) -> int:
        """Return how many packets were left out."""
        return self._left_out

    def put(self, packet: P) -> None:
        """Add a packet."""
        with self._condition:
            if packet.is_keyframe:
                self._until_key = False
            if self._until_key:
                self._left_out += 1
                return
            self._waiting.append(Waiting(packet, self._clock()))
            self._bytes += packet.size
            if self._bytes > MOST_BYTES:
                self._leave_out(len(self._waiting))
            self._condition.notify()

    def end(self, failure: Exception | None = None) -> None:
        """Let no more come; `failure` is raised by `take` once all is taken."""
        with self._condition:
            self._ended, self._failure = True, failure
            self._condition.notify()

    def take(self) -> Waiting[P] | None:
        """Return the next packet, waited for without end; None when there is no more. Raise what ended it."""
        with self._condition:
            while True:
                self._hurry()
                if self._waiting:
                    first = self._waiting.popleft()
                    self._bytes -= first.packet.size
                    return first
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                self._condition.wait()

    def _hurry(self) -> None:
        """Leave out what is late, up to the newest picture that stands alone; at once where none is newer."""
        if len(self._waiting) > 1 and self._waiting[-1].packet.is_keyframe:
            self._leave_out(len(self._waiting) - 1)
        if not self._waiting or (age_s := self._clock() - self._waiting[0].came_s) < LATE_S:
            return
        newest = max((n for n, waiting in enumerate(self._waiting) if waiting.packet.is_keyframe), default=0)
        if newest:
            self._leave_out(newest)
        elif age_s > HOPELESS_S:
            self._leave_out(len(self._waiting))

    def _leave_out(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._waiting.popleft().packet.size
        self._left_out += count
        self._until_key = not self._waiting
