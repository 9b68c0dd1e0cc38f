"""Before others: a process whose pictures are due at their time asks the system to run it soon once it wakes."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import platform
import re
import struct
import sys

NICE = -10
SLICE_NS = 100_000  # the least that Linux takes: who wants little at a time is run soon
AUTOGROUP = "/proc/self/autogroup"
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the call's number: the C library has no name for it yet
_ATTRIBUTES = "=IIQiIQQQ"  # size, policy, flags, nice, priority, runtime (the slice), deadline, period


def go_first() -> None:
    """Have this process run before others, as far as the system lets it; nothing is said where it does not.

    To be called before threads are started: they take it from the one that starts them, and so do child processes on
    Linux. Windows lets everybody, others root or whom RLIMIT_NICE names; a short slice needs no permission (Linux 6.12;
    on earlier ones it changes nothing). Seen at a load of 10 on two cores: at most 45 ms between two beats that are
    33 ms apart, 76 to 90 without the slice. Linux shares the processor among sessions before it looks at what is in
    them: so ours goes first too, where that is allowed (seen at a load of 20: at most 50 ms, 163 without).
    """
    import psutil  # the engine's process, which only steps back, does without

    with contextlib.suppress(OSError, psutil.Error):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.ABOVE_NORMAL_PRIORITY_CLASS)
        else:
            psutil.Process().nice(NICE)
    _set_session(NICE)
    _set_slice(SLICE_NS)


def run_soon() -> None:
    """Have this thread, and those that it starts, run soon once they wake: for those that want little at a time.

    For what hands pictures over beside an engine that keeps every core busy, where each hand-over would wait until the
    engine's time is up (three of them on two busy cores: 1.7 ms in the mean without, 0.7 with it; Linux 6.12, on others
    it changes nothing).
    """
    _set_slice(SLICE_NS)


def step_back(nice: int) -> None:
    """Take back in a child process what it has from its parent, and let others go before it by so much.

    In a session of its own: Linux shares the processor among sessions first, and what an engine takes would be missing
    for the pictures that are due (seen at a load of 13: 170 ms between two instead of 45).
    """
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.setsid()
        with contextlib.suppress(OSError):
            os.nice(nice - min(0, os.nice(0)))
    _set_slice(0)


def _set_session(nice: int) -> None:
    """Have the session of this process go before others by so much, where Linux groups by it and lets us.

    As it was again when this process ends: a terminal's session outlives it.
    """
    with contextlib.suppress(OSError), open(AUTOGROUP, "r+", encoding="ascii") as file:  # r+: it makes none
        before = re.search(r"nice (-?\d+)", file.read())  # "/autogroup-6 nice 0"
        file.seek(0)
        file.write(str(nice))
        if before is not None and int(before[1]) != nice:
            atexit.register(_set_session, int(before[1]))


def _set_slice(nanoseconds: int) -> None:
    """Set how long this thread runs at a time where others wait; 0: as the system likes."""
    if sys.platform == "linux" and (number := _SCHED_SETATTR.get(platform.machine())):
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = struct.pack(_ATTRIBUTES, struct.calcsize(_ATTRIBUTES), 0, 0, nice, 0, nanoseconds, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
