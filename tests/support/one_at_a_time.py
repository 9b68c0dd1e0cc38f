"""Whether a piece of work lets only one thread in at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.patience import PATIENCE_S

_MEET_S = 1.0  # that the first in waits for a second one, who is kept out


def meet(work: Callable[[Callable[[], float]], Callable[[], object]]) -> bool:
    """Return whether two threads meet in it. work: makes it with a clock, which it reads inside."""
    meeting = threading.Barrier(2)
    met = []

    def clock() -> float:
        try:
            meeting.wait(_MEET_S)
            met.append(True)
        except threading.BrokenBarrierError:
            pass  # nobody came
        return 0.0

    at = work(clock)
    threads = [threading.Thread(target=at) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE_S)
    return bool(met)
