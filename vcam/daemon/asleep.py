"""Tells that the computer slept or the program was stopped: then nothing is to blame for what did not happen."""

from __future__ import annotations

import sys
import time

ASLEEP_S = 5.0  # between two looks of the main thread: longer than that, and nothing of the program ran
_GOES_ON: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", 0))  # Linux; macOS


def seconds_through_sleep() -> float:
    """Return seconds of a clock that goes on while the computer sleeps.

    `time.perf_counter` stands still meanwhile on Linux and macOS, which is right for pictures: none was late.
    """
    if sys.platform == "win32":
        return time.perf_counter()  # which counts the sleep there
    return time.clock_gettime(_GOES_ON)


def pause_told(before_s: float, now_s: float) -> str:
    """Return the sentence for the time between two looks, "" where it was no pause."""
    if now_s - before_s <= ASLEEP_S:
        return ""
    return (
        f"nothing ran for {now_s - before_s:.0f} s: the computer slept, or the program was stopped; the camera goes on"
    )
