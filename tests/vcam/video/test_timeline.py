"""The clock of a film: what leaps is continued, what is a pause of the film's own stays one."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vcam.video.timeline import BACK_S, BROADCAST_HOLD_S, HOLD_S, Timeline

PICTURES, SOUND = 0, 1


def placed(times: list[float], hold_s: float = BROADCAST_HOLD_S, every: float = 0.04) -> list[float]:
    """Where the packets of one stream come to lie."""
    timeline = Timeline(Fraction(0), hold_s, {PICTURES: every})
    return [time + float(timeline.shift(PICTURES, time, time, every)) for time in times]


def beats(start: float, count: int, every: float = 0.04) -> list[float]:
    return [start + n * every for n in range(count)]


@pytest.mark.parametrize("hold_s", [BROADCAST_HOLD_S, HOLD_S])
@pytest.mark.parametrize(
    "second", [0.0, 0.5, -5.0, 3600.0, 1e6], ids=["again from zero", "back", "below zero", "an hour on", "far"]
)
def test_a_leap_is_a_continuation(second: float, hold_s: float) -> None:
    assert placed([*beats(0, 25), *beats(second, 25)], hold_s) == pytest.approx(beats(0, 50), abs=1e-3)


@example([(0.0, 26), (1.0, 6)])  # the clock stands for one picture
@example([(0.0, 26), (0.95, 6)])  # and goes back by one and a half
@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.integers(6, 40)), min_size=1, max_size=6))
def test_parts_of_any_clock_come_one_after_the_other(parts: list[tuple[float, int]]) -> None:
    got = placed([time for start, count in parts for time in beats(start, count)])
    # a clock that goes back by less is inexact: whoever reads the film puts such pictures in order, once decoded
    assert all(a - BACK_S - 1e-3 < b for a, b in itertools.pairwise(got))
    frames = sum(count for _, count in parts)
    # where two parts happen to follow each other within the hold nothing has leapt
    assert got[-1] - got[0] <= (frames - 1) * 0.04 + len(parts) * BROADCAST_HOLD_S + 1e-3


@pytest.mark.parametrize("every", [1.0, 4.0, 30.0])
def test_a_film_that_is_always_slow_is_no_leap(every: float) -> None:
    assert placed(beats(0, 9, every), every=every) == beats(0, 9, every)


def test_a_still_of_many_seconds_is_none_outside_broadcasts() -> None:
    times = [*beats(0, 25), *beats(31, 25)]
    assert placed(times, HOLD_S) == times


def test_sound_that_goes_on_tells_a_pause_from_a_leap() -> None:
    timeline = Timeline(Fraction(0), BROADCAST_HOLD_S, {PICTURES: 0.04})
    for time in beats(0, 25):
        assert timeline.shift(PICTURES, time, time, 0.04) == 0
    for time in beats(0, 500, 0.02):
        assert timeline.shift(SOUND, time, time, 0.02) == 0
    assert timeline.shift(PICTURES, 10.0, 10.0, 0.04) == 0
    assert timeline.leaps == 0


@pytest.mark.parametrize("second", [0.0, 3600.0])
@pytest.mark.parametrize("first", [PICTURES, SOUND])
def test_picture_and_sound_leap_together_whichever_comes_first(second: float, first: int) -> None:
    timeline = Timeline(Fraction(0), BROADCAST_HOLD_S, {PICTURES: 0.04})
    streams = {PICTURES: beats(0, 25), SOUND: beats(0, 50, 0.02)}
    order = sorted((time, stream) for stream, times in streams.items() for time in times)
    ends = {PICTURES: 0.04, SOUND: 0.02}
    for time, stream in order:
        timeline.shift(stream, time, time, ends[stream])
    shifts = [timeline.shift(s, second, second, ends[s]) for s in (first, SOUND - first)]
    assert float(shifts[0]) == pytest.approx(1 - second, abs=1e-3)
    assert shifts[0] == shifts[1]
    assert timeline.leaps == 1
