"""The three loops with a clock of their own: no second of these tests is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcam.daemon.loops import (
    Counts,
    Flow,
    Gate,
    Rate,
    Ready,
    Timings,
    capture_loop,
    publish_loop,
    ticks,
    translate_loop,
)
from vcam.errors import VcamError
from vcam.frames import Frame, Picture, TranslatorState


def picture(grey: int) -> Picture:
    return np.full((4, 4, 3), grey, np.uint8)


CARD, RAW = picture(1), picture(2)


class Clock:
    """Time passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Sink:
    """Remembers (time, tick, grey); a send may take time or fail."""

    name, size = "fake", (4, 4)

    def __init__(self, clock: Clock, costs_s: dict[int, float] | None = None, fails: set[int] | None = None) -> None:
        self.clock, self.costs_s, self.fails = clock, costs_s or {}, fails or set()
        self.sent: list[tuple[float, int, int]] = []

    def send(self, shown: Picture, tick: int) -> None:
        self.sent.append((self.clock.now - 100, tick, int(shown[0, 0, 0])))
        self.clock.now += self.costs_s.get(len(self.sent) - 1, 0.0)
        if len(self.sent) - 1 in self.fails:
            raise VcamError("the device is gone")

    def close(self) -> None: ...


def publish(
    sink: Sink, frames: int, gates: dict[int, Gate] | None = None, arrivals: dict[int, int] | None = None
) -> tuple[Counts, list[str]]:
    """Run the pacer at 10 fps; gates and arrivals (grey of a new translation) by the tick they come at."""
    flow, troubles = Flow(), list[str]()
    current = [Gate(CARD)]

    def gate() -> Gate:
        at = len(sink.sent)
        current[0] = (gates or {}).get(at, current[0])
        if at in (arrivals or {}):
            flow.translated.put(Ready(picture((arrivals or {})[at]), sink.clock.now - 0.05))
        return current[0]

    beats = islice(ticks(10, threading.Event(), sink.clock, sink.clock.sleep), frames)
    publish_loop(sink, flow, beats, gate, trouble=troubles.append, clock=sink.clock)
    return flow.counts, troubles


def greys(sink: Sink) -> list[int]:
    return [grey for _, _, grey in sink.sent]


def test_it_publishes_at_a_constant_rate_with_nothing_to_show_but_the_card() -> None:
    sink = Sink(Clock())
    counts, _ = publish(sink, 20)
    assert [round(at, 6) for at, _, _ in sink.sent] == [round(i / 10, 6) for i in range(20)]
    assert greys(sink) == [1] * 20
    assert counts.interval.max_ms == pytest.approx(100)
    assert counts.published == 20


def test_the_last_translation_stands_in_until_it_is_too_old() -> None:
    sink = Sink(Clock())
    counts, _ = publish(sink, 12, {0: Gate(CARD, hold_s=0.45)}, {2: 50, 3: 60})
    assert greys(sink) == [1, 1, 50, 60, 60, 60, 60, 60, 1, 1, 1, 1]
    assert counts.latency.quantile_ms(0.5) == pytest.approx(50, abs=1.1)


def test_hold_keeps_the_last_translation_for_ever() -> None:
    sink = Sink(Clock())
    publish(sink, 100, {0: Gate(CARD, hold_s=float("inf"))}, {1: 50})
    assert greys(sink) == [1] + [50] * 99


def test_raw_only_by_choice_and_only_when_there_is_no_translation() -> None:
    sink = Sink(Clock())
    gates = {0: Gate(CARD, hold_s=0.15, raw=lambda: RAW), 6: Gate(CARD, hold_s=0.15, raw=lambda: None)}
    publish(sink, 8, gates, {2: 50})
    assert greys(sink) == [2, 2, 50, 50, 2, 2, 1, 1]


def test_after_panic_nothing_from_before_comes_back() -> None:
    sink = Sink(Clock())
    gates = {2: Gate(CARD, only_card=True, raw=lambda: RAW), 5: Gate(CARD, hold_s=9)}
    publish(sink, 8, gates, {0: 50, 1: 51, 3: 52, 6: 60})
    assert greys(sink) == [50, 51, 1, 1, 1, 1, 60, 60]


def test_a_stall_leaves_ticks_out_and_never_bursts() -> None:
    sink = Sink(Clock(), costs_s={3: 0.57})
    publish(sink, 8)
    assert [tick for _, tick, _ in sink.sent] == [0, 1, 2, 3, 8, 9, 10, 11]
    times = [at for at, _, _ in sink.sent]
    assert min(b - a for a, b in pairwise(times[5:])) == pytest.approx(0.1)


def test_a_sink_that_fails_is_told_of_once_a_time_and_tried_again() -> None:
    sink = Sink(Clock(), fails={2, 3})
    counts, troubles = publish(sink, 6)
    assert troubles == ["the device is gone", "the device is gone", ""]
    assert counts.published == 6


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=40))
def test_whatever_the_sink_costs_ticks_only_grow_and_lie_on_the_grid(costs: list[float]) -> None:
    sink = Sink(Clock(), dict(enumerate(costs)))
    publish(sink, len(costs))
    ticks = [tick for _, tick, _ in sink.sent]
    assert all(b > a for a, b in pairwise(ticks))
    for at, tick, _ in sink.sent:
        assert tick / 10 - 1e-6 <= at < (tick + 1) / 10 + 1e-6


# ------------------------------------------------------------------------------------------ capture and translate


class Source:
    name, trouble = "fake", ""

    def __init__(self, frames: list[Frame | None], stop: threading.Event) -> None:
        self.frames, self.stop, self.rests = iter(frames), stop, 0

    def read(self, timeout_s: float) -> Frame | None:
        frame = next(self.frames, None)
        if frame is None:
            self.stop.set()
        return frame

    def rest(self) -> None:
        self.rests += 1
        self.stop.set()

    def close(self) -> None: ...


def frames(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(picture(index), index / 10, index)


def test_capture_moves_every_frame_to_the_slot() -> None:
    stop, flow = threading.Event(), Flow()
    capture_loop(Source([*frames(5), None], stop), flow, stop)
    newest = flow.captured.take()
    assert flow.counts.captured == 5
    assert newest is not None
    assert newest.index == 4


def test_while_resting_the_source_rests_and_nothing_is_captured() -> None:
    stop, flow = threading.Event(), Flow()
    source = Source([*frames(5), None], stop)
    capture_loop(source, flow, stop, lambda: True)
    assert source.rests == 1
    assert (flow.counts.captured, flow.captured.take()) == (0, None)


class Inverter:
    """Translates at once, but is only ready every other time."""

    state = TranslatorState("running")

    def __init__(self, stop: threading.Event, calls: int) -> None:
        self.stop, self.calls, self.seen = stop, calls, list[Frame | None]()

    @property
    def ready(self) -> bool:
        return len(self.seen) % 2 == 0

    def translate(self, frame: Frame | None) -> Frame | None:
        self.seen.append(frame)
        if len(self.seen) >= self.calls:
            self.stop.set()
        return None if frame is None else Frame(255 - frame.picture, frame.captured_s, frame.index)


def test_translate_takes_the_newest_and_only_when_ready() -> None:
    stop, flow = threading.Event(), Flow()
    for frame in frames(3):
        flow.captured.put(frame)
    translator = Inverter(stop, 2)
    translate_loop(translator, flow, lambda p: p + 1, stop, clock=lambda: 5.0)
    assert [frame and frame.index for frame in translator.seen] == [2, None]
    made = flow.translated.take()
    assert made is not None
    assert made.captured_s == 0.2
    assert int(made.picture[0, 0, 0]) == 255 - 2 + 1
    assert flow.counts.translated == 1


def test_nothing_is_translated_while_resting() -> None:
    stop, flow = threading.Event(), Flow()
    flow.captured.put(next(frames(1)))
    translator = Inverter(stop, 3)
    translate_loop(translator, flow, lambda p: p, stop, resting=lambda: True)
    assert translator.seen == [None, None, None]
    assert flow.translated.take() is None


# -------------------------------------------------------------------------------------------------------- figures


@given(st.lists(st.floats(0, 1.9), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_within_a_bin_of_the_exact_one(seconds: list[float], share: float) -> None:
    timings = Timings()
    for value in seconds:
        timings.add(value)
    exact = float(np.quantile(np.array(seconds) * 1000, share, method="inverted_cdf"))
    assert abs(timings.quantile_ms(share) - exact) <= 0.11
    assert timings.max_ms == max(seconds) * 1000


def test_no_durations_no_quantile() -> None:
    assert Timings().quantile_ms(0.5) == 0


def test_rate_is_of_the_last_seconds() -> None:
    rate = Rate(2.0)
    for i in range(50):
        rate.add(i / 10)
    assert rate.per_second(5.0) == pytest.approx(9.5, abs=0.6)
    assert rate.per_second(60.0) == 0
