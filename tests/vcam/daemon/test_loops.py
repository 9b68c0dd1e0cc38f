"""The three loops with a clock of their own: no second of these tests is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import Look
from tests.support.clock import Clock
from tests.support.fake_camera import FakeCamera
from tests.support.fake_sink import FakeSink
from vcam.daemon.loops import (
    Counts,
    Fallback,
    FinishedFrame,
    FrameSlots,
    RollingRate,
    Timings,
    capture_loop,
    finish_loop,
    publish_loop,
    ticks,
    translate_loop,
)
from vcam.errors import VcamError
from vcam.frames import EngineFacts, EnginePhase, Frame, Picture, Translation, TranslatorState


def picture(grey: int) -> Picture:
    return np.full((4, 4, 3), grey, np.uint8)


CARD, RAW = picture(1), picture(2)


def sink_at_work(costs_s: dict[int, float] | None = None, fails: set[int] | None = None) -> tuple[FakeSink, Clock]:
    """A sink whose sends may take time or fail, by their numbers; and its clock, which is the loop's too."""
    clock = Clock()

    def at_send(number: int) -> None:
        clock.now += (costs_s or {}).get(number, 0.0)
        if number in (fails or set()):
            raise VcamError("the device is gone")

    return FakeSink((4, 4), clock, at_send=at_send), clock


def publish(
    sink: FakeSink,
    clock: Clock,
    frames: int,
    gates: dict[int, Fallback] | None = None,
    arrivals: dict[int, int] | None = None,
) -> tuple[Counts, list[str]]:
    """Run the pacer at 10 fps; gates and arrivals (grey of a new translation) by the tick they come at."""
    flow, troubles = FrameSlots(), list[str]()
    current = [Fallback(CARD)]

    def gate() -> Fallback:
        at = len(sink.sent)
        current[0] = (gates or {}).get(at, current[0])
        if at in (arrivals or {}):
            flow.translated.put(FinishedFrame(picture((arrivals or {})[at]), clock.now - 0.05))
        return current[0]

    beats = islice(ticks(10, threading.Event(), clock, clock.sleep), frames)
    publish_loop(sink, flow, beats, gate, trouble=troubles.append, clock=clock)
    return flow.counts, troubles


def greys(sink: FakeSink) -> list[int]:
    return [one.colour[0] for one in sink.sent]


def test_it_publishes_at_a_constant_rate_with_nothing_to_show_but_the_card() -> None:
    sink, clock = sink_at_work()
    counts, _ = publish(sink, clock, 20)
    assert [round(one.at_s - 100, 6) for one in sink.sent] == [round(i / 10, 6) for i in range(20)]
    assert greys(sink) == [1] * 20
    assert counts.interval.max_ms == pytest.approx(100)
    assert counts.published == 20


def test_the_last_translation_stands_in_until_it_is_too_old() -> None:
    sink, clock = sink_at_work()
    counts, _ = publish(sink, clock, 12, {0: Fallback(CARD, hold_s=0.45)}, {2: 50, 3: 60})
    assert greys(sink) == [1, 1, 50, 60, 60, 60, 60, 60, 1, 1, 1, 1]
    assert counts.latency.quantile_ms(0.5) == pytest.approx(50, abs=1.1)


def test_hold_keeps_the_last_translation_for_ever() -> None:
    sink, clock = sink_at_work()
    publish(sink, clock, 100, {0: Fallback(CARD, hold_s=float("inf"))}, {1: 50})
    assert greys(sink) == [1] + [50] * 99


def test_hold_does_not_hold_what_shows_the_camera_longer_than_a_translation_lives() -> None:
    """Where a part of the picture is the camera's own, by the look's region, a dead engine ends it."""
    sink, clock = sink_at_work()
    flow = FrameSlots()
    flow.translated.put(FinishedFrame(picture(50), clock.now, bare=True))
    beats = islice(ticks(10, threading.Event(), clock, clock.sleep), 8)
    publish_loop(sink, flow, beats, lambda: Fallback(CARD, hold_s=float("inf"), bare_s=0.25), clock=clock)
    assert greys(sink) == [50, 50, 50, 1, 1, 1, 1, 1]


def test_raw_only_by_choice_and_only_when_there_is_no_translation() -> None:
    sink, clock = sink_at_work()
    gates = {0: Fallback(CARD, hold_s=0.15, raw=lambda: RAW), 6: Fallback(CARD, hold_s=0.15, raw=lambda: None)}
    publish(sink, clock, 8, gates, {2: 50})
    assert greys(sink) == [2, 2, 50, 50, 2, 2, 1, 1]


def test_after_panic_nothing_from_before_comes_back() -> None:
    sink, clock = sink_at_work()
    gates = {2: Fallback(CARD, only_card=True, raw=lambda: RAW), 5: Fallback(CARD, hold_s=9)}
    publish(sink, clock, 8, gates, {0: 50, 1: 51, 3: 52, 6: 60})
    assert greys(sink) == [50, 51, 1, 1, 1, 1, 60, 60]


def test_a_stall_leaves_ticks_out_and_never_bursts() -> None:
    sink, clock = sink_at_work(costs_s={3: 0.57})
    publish(sink, clock, 8)
    assert [one.tick for one in sink.sent] == [0, 1, 2, 3, 8, 9, 10, 11]
    times = [one.at_s for one in sink.sent]
    assert min(b - a for a, b in pairwise(times[5:])) == pytest.approx(0.1)


def test_a_sink_that_fails_is_told_of_once_a_time_and_tried_again() -> None:
    sink, clock = sink_at_work(fails={2, 3})
    counts, troubles = publish(sink, clock, 6)
    assert troubles == ["the device is gone", "the device is gone", ""]
    assert (counts.published, counts.refused) == (6, 2)


FAULTS = [RecursionError("deep"), MemoryError(), OSError(5, "Input/output error"), KeyError("gone"), ValueError("a\nb")]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_in_a_sink_costs_its_picture_and_is_told_and_counted(error: Exception) -> None:
    clock, faults, troubles = Clock(), list[Exception](), list[str]()

    def at_send(number: int) -> None:
        if number in (2, 3):
            raise error

    sink, flow = FakeSink((4, 4), clock, at_send=at_send), FrameSlots()
    beats = islice(ticks(10, threading.Event(), clock, clock.sleep), 6)
    flow.translated.put(FinishedFrame(picture(50), clock.now))
    publish_loop(
        sink,
        flow,
        beats,
        lambda: Fallback(CARD, hold_s=0.45),
        trouble=troubles.append,
        fault=lambda what, told: faults.append(told),
        clock=clock,
    )
    assert greys(sink) == [50, 50, 50, 50, 50, 1], "held and given up as ever"
    assert (flow.counts.published, flow.counts.refused) == (6, 2)
    assert faults == [error, error]
    assert [text.startswith(f"a picture could not be sent ({type(error).__name__}") for text in troubles] == [
        True,
        True,
        False,
    ]


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=40))
def test_whatever_the_sink_costs_ticks_only_grow_and_lie_on_the_grid(costs: list[float]) -> None:
    sink, clock = sink_at_work(dict(enumerate(costs)))
    publish(sink, clock, len(costs))
    ticks = [one.tick for one in sink.sent]
    assert all(b > a for a, b in pairwise(ticks))
    for at_s, tick, _ in sink.sent:
        assert tick / 10 - 1e-6 <= at_s - 100 < (tick + 1) / 10 + 1e-6


# ------------------------------------------------------------------------------------------ capture and translate


def frames(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(picture(index), index / 10, index)


def test_capture_moves_every_frame_to_the_slot() -> None:
    stop, flow = threading.Event(), FrameSlots()
    capture_loop(FakeCamera(pause_s=0, frames=frames(5), at_end=stop.set), flow, stop)
    newest = flow.captured.take()
    assert flow.counts.captured == 5
    assert newest is not None
    assert newest.index == 4


def test_while_resting_the_source_rests_and_nothing_is_captured() -> None:
    stop, flow = threading.Event(), FrameSlots()
    source = FakeCamera(pause_s=0, frames=frames(5), at_end=stop.set)
    capture_loop(source, flow, stop, lambda: True)
    assert source.rests == 1
    assert (flow.counts.captured, flow.captured.take()) == (0, None)


def test_a_panic_while_a_frame_is_looked_at_leaves_no_frame() -> None:
    stop, flow, halted = threading.Event(), FrameSlots(), threading.Event()

    def framed(frame: Frame) -> Frame:
        if frame.index == 2:
            halted.set()
            flow.clear()
        return frame

    capture_loop(FakeCamera(pause_s=0, frames=frames(3), at_end=stop.set), flow, stop, halted.is_set, framed)
    assert (flow.captured.newest, flow.counts.captured) == (None, 2)


class Inverter:
    """Translates at once, but is only ready every other time."""

    state = TranslatorState(EnginePhase.RUNNING)

    def __init__(self, stop: threading.Event, calls: int) -> None:
        self.stop, self.calls, self.seen = stop, calls, list[Frame | None]()

    @property
    def ready(self) -> bool:
        return len(self.seen) % 2 == 0

    def translate(self, frame: Frame | None) -> Translation | None:
        self.seen.append(frame)
        if len(self.seen) >= self.calls:
            self.stop.set()
        if frame is None:
            return None
        return Translation(255 - frame.picture, frame.captured_s, frame.index, frame.picture, Look())


def test_translate_takes_the_newest_and_only_when_ready() -> None:
    stop, flow = threading.Event(), FrameSlots()
    for frame in frames(3):
        flow.captured.put(frame)
    translator = Inverter(stop, 2)
    translate_loop(translator, flow, stop, clock=lambda: 5.0)
    assert [frame and frame.index for frame in translator.seen] == [2, None]
    made = flow.made.take()
    assert made is not None
    assert (made.captured_s, int(made.picture[0, 0, 0]), int(made.source[0, 0, 0])) == (0.2, 255 - 2, 2)
    assert flow.counts.translated == 1


class Delayed:
    """Translates at once, but gives a translation only once `delay` further pictures came."""

    ready = True
    state = TranslatorState(EnginePhase.RUNNING, facts=EngineFacts(delay=3))

    def __init__(self, stop: threading.Event, calls: int) -> None:
        self.stop, self.calls, self.seen = stop, calls, list[Frame]()

    def translate(self, frame: Frame | None) -> Translation | None:
        self.calls -= 1
        if not self.calls:
            self.stop.set()
        if frame is not None:
            self.seen.append(frame)
        if frame is None or len(self.seen) < 4:
            return None
        shown = self.seen[-4]
        return Translation(shown.picture, shown.captured_s, shown.index, shown.picture, Look())


def test_a_picture_that_no_other_follows_comes_out_all_the_same() -> None:
    stop, flow = threading.Event(), FrameSlots()
    flow.captured.put(Frame(picture(7), 0.7, 7))
    translator = Delayed(stop, 6)
    translate_loop(translator, flow, stop)
    assert [frame.index for frame in translator.seen] == [7] * 4  # and no more: the engine rests
    assert (made := flow.made.take()) is not None
    assert made.captured_s == 0.7


def test_a_picture_that_was_forgotten_is_not_given_again() -> None:
    stop, flow = threading.Event(), FrameSlots()
    flow.captured.put(Frame(picture(7), 0.7, 7))
    translator = Delayed(stop, 3)

    def forgotten() -> bool:
        flow.clear()
        return False

    translate_loop(translator, flow, stop, resting=forgotten)
    assert [frame.index for frame in translator.seen] == [7]


def test_nothing_is_translated_while_resting() -> None:
    stop, flow = threading.Event(), FrameSlots()
    flow.captured.put(next(frames(1)))
    translator = Inverter(stop, 3)
    translate_loop(translator, flow, stop, resting=lambda: True)
    assert translator.seen == [None, None, None]
    assert flow.made.take() is None


def made(grey: int) -> Translation:
    return Translation(picture(grey), 0.2, 2, picture(9), Look())


def test_a_translation_is_finished_beside_the_engine_unless_a_rest_begins_meanwhile() -> None:
    stop, flow, rests = threading.Event(), FrameSlots(), [False]

    def finish(one: Translation) -> FinishedFrame:
        stop.set()
        rests[0] = int(one.picture[0, 0, 0]) == 7
        return FinishedFrame(one.picture + one.source, one.captured_s)

    flow.made.put(made(5))
    finish_loop(flow, finish, stop, lambda: rests[0])
    finished = flow.translated.take()
    assert finished is not None
    assert (int(finished.picture[0, 0, 0]), finished.captured_s) == (14, 0.2)
    stop.clear()
    flow.made.put(made(7))
    finish_loop(flow, finish, stop, lambda: rests[0])
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
    rate = RollingRate(2.0)
    for i in range(50):
        rate.add(i / 10)
    assert rate.per_second(5.0) == pytest.approx(9.5, abs=0.6)
    assert rate.per_second(60.0) == 0
