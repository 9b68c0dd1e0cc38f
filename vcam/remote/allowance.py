"""How much of a camera or an address a server takes: what comes beyond is refused, or waits. Clocks are arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MOST_FPS, MOST_BYTES = 120, 32_000_000  # a second of a camera: what comes beyond waits
AT_ONCE_S = 0.1  # of which so much may come at once
HELD_BACK = (
    f"the server takes at most {MOST_FPS} pictures and {MOST_BYTES // 1_000_000} MB a second of a camera, and this one "
    "offers more: it gets the newest ones translated; --fps sets how many it offers"
)
HANDSHAKES, HANDSHAKES_AT_ONCE = 50, 256  # of one place: a second, and at once: a studio behind one address comes back
LONGEST_TURN_S = 2.0  # that a handshake may have to wait for its turn
MOST_PLACES = 4096  # of which it is remembered what they took
TOLD_S = 5.0  # how long a camera is told so after it was last the case


@dataclass
class Allowance:
    """How much of something may come: `rate` a second, `burst` at once. Its clock is whoever asks.

    Whatever comes beyond is refused (`take`), or has to wait (`wait_s`).
    """

    rate: float
    burst: float
    left: float = field(init=False)
    asked_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.left = self.burst

    def take(self, amount: float, now_s: float) -> bool:
        """Return whether so much may come now, and take it."""
        self._refill(now_s)
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def wait_s(self, amount: float, now_s: float) -> float:
        """Take so much, and return how long it has to wait."""
        self._refill(now_s)
        self.left -= amount
        return max(0.0, -self.left / self.rate)

    def left_at(self, now_s: float) -> float:
        """Return how much may come now; below 0 for what waits already."""
        return min(self.burst, self.left + max(0.0, now_s - self.asked_s) * self.rate)

    def _refill(self, now_s: float) -> None:
        self.left, self.asked_s = self.left_at(now_s), now_s


class PicturePace:
    """Pictures of one camera, no faster than MOST_FPS and MOST_BYTES allow. note: tells the camera that it is so."""

    def __init__(
        self, note: Callable[[str], None], clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._note, self._clock, self._sleep = note, clock, sleep
        self._pictures = Allowance(MOST_FPS, MOST_FPS * AT_ONCE_S)
        self._bytes = Allowance(MOST_BYTES, MOST_BYTES * AT_ONCE_S)
        self._held_back_s: float | None = None  # when a picture last had to wait; None where nothing is told of it

    async def wait(self, length: int) -> float:
        """Wait until a picture of so many bytes may be taken, and return how many seconds."""
        now = self._clock()
        wait_s = max(self._pictures.wait_s(1, now), self._bytes.wait_s(length, now))
        if wait_s:
            if self._held_back_s is None:
                self._note(HELD_BACK)
            self._held_back_s = now
            await self._sleep(wait_s)
        elif self._held_back_s is not None and now - self._held_back_s > TOLD_S:
            self._held_back_s = None
            self._note("")
        return wait_s


class HandshakePace:
    """How soon each place's next connection is secured: HANDSHAKES_AT_ONCE at once, then HANDSHAKES a second of it.

    A handshake costs a server a thousand times what it costs the other side to begin one. Of one thread.
    """

    def __init__(self) -> None:
        self._places: dict[str, Allowance] = {}  # those that came last are last

    def wait_s(self, place: str, now_s: float) -> float | None:
        """Return how long this one has to wait, None where that is longer than it may: then it takes no turn."""
        allowed = self._places.pop(place, None) or Allowance(HANDSHAKES, HANDSHAKES_AT_ONCE)
        self._places[place] = allowed
        if len(self._places) > MOST_PLACES:
            del self._places[next(iter(self._places))]
        if allowed.left_at(now_s) < 1 - HANDSHAKES * LONGEST_TURN_S:
            return None
        return allowed.wait_s(1, now_s)
