"""Going first: what is asked of the system, and nothing where it has no such thing."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vcam.worker import priority


def test_the_whole_session_goes_first_where_linux_shares_by_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "autogroup"
    monkeypatch.setattr(priority, "AUTOGROUP", str(group))
    monkeypatch.setattr("psutil.Process.nice", lambda self, value: None)
    monkeypatch.setattr(priority, "_set_slice", lambda nanoseconds: None)
    priority.go_first()
    assert not group.exists()  # a system without it
    group.write_text("/autogroup-6 nice 3\n")
    at_the_end: list[tuple[Callable[[int], None], int]] = []
    monkeypatch.setattr("atexit.register", lambda call, value: at_the_end.append((call, value)))
    priority.go_first()
    assert group.read_text().startswith(str(priority.NICE))
    for call, value in at_the_end:
        call(value)
    assert group.read_text().startswith("3")


GETATTR = {"x86_64": 315, "aarch64": 275}
LARGEST_ATTRIBUTES = 56  # bytes


def slice_ns() -> int:
    """The least time that this thread runs at a time where others wait, as Linux has it; 0 where it does not tell."""
    read = ctypes.create_string_buffer(LARGEST_ATTRIBUTES)
    number = GETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is None or ctypes.CDLL(None).syscall(number, 0, read, LARGEST_ATTRIBUTES, 0):
        return 0
    return int(struct.unpack_from("=IIQiIQ", read)[-1])


def test_a_thread_that_hands_pictures_over_runs_soon_and_no_other_one_of_its_process() -> None:
    usual, seen = slice_ns(), dict[str, int]()
    if not usual:
        pytest.skip("this system does not tell how long a thread runs at a time")

    def handing_over() -> None:
        priority.run_soon()
        seen["itself"] = slice_ns()
        started = threading.Thread(target=lambda: seen.update(started=slice_ns()))
        started.start()
        started.join()

    one = threading.Thread(target=handing_over)
    one.start()
    one.join()
    assert seen == {"itself": priority.SLICE_NS, "started": priority.SLICE_NS}
    assert slice_ns() == usual
