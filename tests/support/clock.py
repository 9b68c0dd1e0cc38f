"""A clock that the test moves: time passes only when somebody sleeps, works or says so."""

from __future__ import annotations


class Clock:
    """Takes the place of time.perf_counter, and its `sleep` that of time.sleep."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
