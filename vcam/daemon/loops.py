"""The three loops of a running camera, plain functions of their collaborators: capture, translate, publish."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from core.settings import Origin
from vcam.errors import VcamError
from vcam.frames import Frame, FrameSink, FrameSource, LatestSlot, Picture, Translation, Translator

IDLE_S = 0.1  # how often a loop that waits looks whether it shall stop


class Timings:
    """Durations, counted in bins of a fixed width: quantiles of any number of them in the same memory.

    bin_ms: width of a bin; what is over bins * bin_ms counts as the last one, but `max_ms` is exact.
    """

    def __init__(self, bin_ms: float = 0.1, bins: int = 20_000) -> None:
        self._counts = np.zeros(bins, np.int64)
        self._bin_ms = bin_ms
        self.max_ms = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        ms = seconds * 1000
        self.max_ms = max(self.max_ms, ms)
        self._counts[min(len(self._counts) - 1, max(0, int(ms / self._bin_ms)))] += 1

    def quantile_ms(self, share: float) -> float:
        """Return the duration in ms that `share` (0..1) of them do not exceed; 0 if there are none."""
        total = np.cumsum(self._counts)
        if not total[-1]:
            return 0.0
        at = int(np.searchsorted(total, share * total[-1]))
        return round(min(self.max_ms, (at + 1) * self._bin_ms), 3)


class Recent:
    """The newest durations: their median."""

    def __init__(self, kept: int = 64) -> None:
        self._seconds: deque[float] = deque(maxlen=kept)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._seconds.append(seconds)

    def median_ms(self) -> float:
        """Return their median in ms, 0 if there are none."""
        ordered = sorted(self._seconds.copy())
        return round(1000 * ordered[len(ordered) // 2], 1) if ordered else 0.0


class RollingRate:
    """How many per second, over the last `window_s`."""

    def __init__(self, window_s: float = 2.0) -> None:
        self._window_s = window_s
        self._times: list[float] = []

    def add(self, now_s: float) -> None:
        """Count one."""
        self._times = [at for at in self._times if now_s - at < self._window_s]
        self._times.append(now_s)

    def per_second(self, now_s: float) -> float:
        """Return the rate as of now."""
        recent = [at for at in list(self._times) if now_s - at < self._window_s]
        span = now_s - recent[0] if len(recent) > 1 else 0.0
        return (len(recent) - 1) / span if span > 0 else 0.0


@dataclass
class Counts:
    """What was counted since the start; each number is written by one loop and read by anybody.

    published: beats at which a picture went out; refused: those of them that the sink did not take.
    """

    captured: int = 0
    translated: int = 0
    published: int = 0
    refused: int = 0
    interval: Timings = field(default_factory=Timings)
    latency: Timings = field(default_factory=lambda: Timings(bin_ms=1.0))
    latency_now: Recent = field(default_factory=Recent)
    translated_rate: RollingRate = field(default_factory=RollingRate)
    published_rate: RollingRate = field(default_factory=RollingRate)


@dataclass(frozen=True, eq=False)
class FinishedFrame:
    """A picture of the published size, ready to go out, and when what it shows was captured.

    bare: a part of it is the camera's own picture, by the look's wish. origin: what the engine made it of.
    """

    picture: Picture
    captured_s: float
    bare: bool = False
    origin: Origin = Origin.TRANSLATED


@dataclass(frozen=True, eq=False)
class FrameSlots:
    """What the loops hand to each other, and what they count."""

    captured: LatestSlot[Frame] = field(default_factory=LatestSlot)
    made: LatestSlot[Translation] = field(default_factory=LatestSlot)
    translated: LatestSlot[FinishedFrame] = field(default_factory=LatestSlot)
    counts: Counts = field(default_factory=Counts)

    def clear(self) -> None:
        """Forget the pictures that are under way."""
        self.translated.clear()
        self.made.clear()
        self.captured.clear()


def capture_loop(
    source: FrameSource,
    slots: FrameSlots,
    stop: threading.Event,
    resting: Callable[[], bool] = lambda: False,
    framed: Callable[[Frame], Frame] = lambda frame: frame,
) -> None:
    """Move frames from the source to the slot until `stop`; while `resting`, the source rests too.

    framed: says which part of a frame is shown.
    """
    while not stop.is_set():
        if resting():
            source.rest()
            stop.wait(IDLE_S)
            continue
        frame = source.read(IDLE_S)
        if frame is None or resting():
            continue
        shown = framed(frame)  # takes its time: a panic meanwhile has cleared the slots already
        if not resting():
            slots.counts.captured += 1
            slots.captured.put(shown)


def translate_loop(
    translator: Translator,
    slots: FrameSlots,
    stop: threading.Event,
    clock: Callable[[], float] = time.perf_counter,
    resting: Callable[[], bool] = lambda: False,
) -> None:
    """Give the newest frame to the translator whenever it is ready, put what it makes in the slot.

    Where no other frame comes (a slide, a camera of few pictures) it is given again until its translation is out.
    """
    again = 0  # times that the newest frame is still to be given again
    while not stop.is_set():
        ready = translator.ready
        frame = slots.captured.take(IDLE_S) if ready else None
        answered = slots.captured.was_stirred()  # an engine that takes a picture more has something to be fetched
        if frame is not None:
            facts = translator.state.facts
            again = facts.delay if facts else 0
        elif ready and again and not answered:
            frame, again = slots.captured.newest, again - 1
        result = translator.translate(None if resting() else frame)
        if result is not None and not resting():
            slots.counts.translated += 1
            slots.counts.translated_rate.add(clock())
            slots.made.put(result)


def finish_loop(
    slots: FrameSlots,
    finish: Callable[[Translation], FinishedFrame],
    stop: threading.Event,
    resting: Callable[[], bool] = lambda: False,
) -> None:
    """Make of each translation what is published: beside the engine, which begins the next one meanwhile."""
    while not stop.is_set():
        made = slots.made.take(IDLE_S)
        if made is None or resting():
            continue
        finished = finish(made)
        if not resting():
            slots.translated.put(finished)


def no_view() -> Picture | None:
    """Show no camera."""
    return None


@dataclass(frozen=True)
class Fallback:
    """What the publisher may show besides a new translation: set by the daemon, read at each tick.

    card: the picture that says what is going on. only_card: nothing else, at once. hold_s: how old the last
    translation may be, in seconds since it was published first; bare_s: one with something of the camera in it. raw:
    the user's explicit choice to show the camera when there is no translation.
    """

    card: Picture
    only_card: bool = False
    hold_s: float = 1.5
    bare_s: float = 1.5
    raw: Callable[[], Picture | None] = no_view


def ticks(
    fps: float,
    stop: threading.Event,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Yield the pacer's beats until `stop`, one each 1/fps seconds, each when it is due.

    Beats that were missed are left out, never made up for.
    """
    start_s, tick = clock(), 0
    while not stop.is_set():
        tick = max(tick, int((clock() - start_s) * fps))
        yield tick
        tick += 1
        wait = start_s + tick / fps - clock()
        if wait > 0:
            sleep(wait)


class Shown(NamedTuple):
    """What was published at a beat.

    made: the translation that it is, None for a card or the camera itself. fresh: it was not shown before. card: it is
    the card. cut: nothing else may be shown: paused, after a panic, at rest.
    """

    picture: Picture
    tick: int
    made: FinishedFrame | None = None
    fresh: bool = False
    card: bool = False
    cut: bool = False


def publish_loop(
    sink: FrameSink,
    slots: FrameSlots,
    beats: Iterable[int],
    fallback: Callable[[], Fallback],
    *,
    shown: Callable[[Shown], None] = lambda now: None,
    trouble: Callable[[str], None] = lambda text: None,
    fault: Callable[[str, Exception], None] = lambda what, error: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Publish one picture at each beat (see `ticks`).

    The first there is: the new translation, the last one while it is young enough, the raw camera if that was chosen,
    the card. `shown` gets what was published, `trouble` what the sink said ("" when it is well again), `fault` what
    nobody foresaw, in the sink or here: it costs this picture and nothing else.
    """
    counts = slots.counts
    last: FinishedFrame | None = None
    last_s = before_s = clock()
    said = ""
    for tick in beats:
        try:
            now = clock()
            current, fresh = fallback(), slots.translated.take()
            if current.only_card:
                last = None  # what was before a panic shall not come back after it
            elif fresh is not None:
                last, last_s = fresh, now
            held_s = current.bare_s if last is not None and last.bare else current.hold_s
            held = last if now - last_s <= held_s else None
            picture = _chosen(held, current)
            before, said = said, _sent(sink, picture, tick, fault)
            counts.refused += bool(said)
            if said or before:
                trouble(said)
            sent_s = clock()
            shown(
                Shown(
                    picture, tick, held, fresh is not None and fresh is held, picture is current.card, current.only_card
                )
            )
            counts.published += 1
            counts.published_rate.add(sent_s)
            if fresh is not None and fresh is last:
                counts.latency.add(sent_s - fresh.captured_s)
                counts.latency_now.add(sent_s - fresh.captured_s)
            if counts.published > 1:
                counts.interval.add(sent_s - before_s)
            before_s = sent_s
        except Exception as error:  # noqa: BLE001  a fault of ours: the next beat shows what there then is
            fault("a picture could not be published", error)


def _sent(sink: FrameSink, picture: Picture, tick: int, fault: Callable[[str, Exception], None]) -> str:
    """Send the picture; return what the sink said if it did not take it, else ""."""
    try:
        sink.send(picture, tick)
    except VcamError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a fault of ours or of a library; the next picture may be taken
        fault("a picture could not be sent", error)
        return f"a picture could not be sent ({type(error).__name__}: {error}); it is tried again with each"
    return ""


def _chosen(last: FinishedFrame | None, fallback: Fallback) -> Picture:
    if fallback.only_card:
        return fallback.card
    if last is not None:
        return last.picture
    raw = fallback.raw()
    return fallback.card if raw is None else raw


def again_and_again(
    loop: Callable[[], None], stop: threading.Event, failed: Callable[[BaseException], None], pause_s: float = 1.0
) -> None:
    """Run a loop until `stop`; should it raise what nobody foresaw, tell `failed` and run it again.

    SystemExit too: in a thread it would end the thread without a word.
    """
    while not stop.is_set():
        try:
            loop()
        except (Exception, SystemExit) as error:  # noqa: BLE001  a fault of ours: `failed` prints it, the status shows it
            failed(error)
            stop.wait(pause_s)
