"""What waits between a network and a decoder: nothing old, and nothing torn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.clock import Clock
from vcam.devices.backlog import HOPELESS_S, LATE_S, MOST_BYTES, Backlog


@dataclass(frozen=True)
class Packet:
    number: int
    is_keyframe: bool = False
    size: int = 1000


def put(backlog: Backlog[Packet], numbers: range, keys: tuple[int, ...], size: int = 1000) -> None:
    for number in numbers:
        backlog.put(Packet(number, number in keys, size))


def taken(backlog: Backlog[Packet]) -> list[int]:
    backlog.end()
    numbers = []
    while (waiting := backlog.take()) is not None:
        numbers.append(waiting.packet.number)
    return numbers


def test_what_comes_in_time_is_taken_whole() -> None:
    backlog: Backlog[Packet] = Backlog(Clock())
    put(backlog, range(10), keys=(0, 5))
    assert (taken(backlog), backlog.left_out) == (list(range(10)), 0)


def test_what_is_late_is_left_out_up_to_the_newest_picture_that_stands_alone() -> None:
    clock = Clock()
    backlog: Backlog[Packet] = Backlog(clock)
    put(backlog, range(15), keys=(0, 5, 10))
    clock.now += LATE_S + 0.01
    assert (taken(backlog), backlog.left_out) == ([10, 11, 12, 13, 14], 10)


def test_where_none_stands_alone_what_is_a_little_late_is_decoded() -> None:
    clock = Clock()
    backlog: Backlog[Packet] = Backlog(clock)
    put(backlog, range(5), keys=(0,))
    clock.now += LATE_S + 0.01
    assert taken(backlog) == [0, 1, 2, 3, 4]


def test_what_is_hopelessly_late_is_left_out_and_the_next_that_stands_alone_waited_for() -> None:
    clock = Clock()
    late: Backlog[Packet] = Backlog(clock)
    put(late, range(1, 5), keys=())
    clock.now += HOPELESS_S + 0.01
    late.end()
    assert late.take() is None
    put(late, range(5, 9), keys=(7,))
    assert (taken(late), late.left_out) == ([7, 8], 6)


def test_pictures_that_all_stand_alone_are_never_waited_for() -> None:
    backlog: Backlog[Packet] = Backlog(Clock())
    put(backlog, range(5), keys=tuple(range(5)))
    assert (taken(backlog), backlog.left_out) == ([4], 4)


def test_memory_is_bounded() -> None:
    backlog: Backlog[Packet] = Backlog(Clock())
    put(backlog, range(10), keys=(0,), size=MOST_BYTES // 4)
    put(backlog, range(10, 13), keys=(11,))
    assert taken(backlog) == [11, 12]


def test_what_ended_it_is_raised_once_all_is_taken() -> None:
    backlog: Backlog[Packet] = Backlog(Clock())
    put(backlog, range(1), keys=())
    backlog.end(OSError("gone"))
    assert backlog.take() is not None
    with pytest.raises(OSError, match="gone"):
        backlog.take()
