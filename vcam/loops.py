"""The three loops of a running camera, plain functions of their collaborators: capture, translate, publish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from vcam.errors import VcamError
from vcam.frames import Frame, FrameSink, FrameSource, LatestSlot, Picture, Translator

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
        """The duration that `share` (0..1) of them do not exceed; 0 if there are none."""
        total = np.cumsum(self._counts)
        if not total[-1]:
            return 0.0
        at = int(np.searchsorted(total, share * total[-1]))
        return round(min(self.max_ms, (at + 1) * self._bin_ms), 3)


class Rate:
    """How many per second, over the last `window_s`."""

    def __init__(self, window_s: float = 2.0) -> None:
        self._window_s = window_s
        self._times: list[float] = []

    def add(self, now_s: float) -> None:
        """Count one."""
        self._times = [at for at in self._times if now_s - at < self._window_s]
        self._times.append(now_s)

    def per_second(self, now_s: float) -> float:
        """The rate as of now."""
        recent = [at for at in list(self._times) if now_s - at < self._window_s]
        span = now_s - recent[0] if len(recent) > 1 else 0.0
        return (len(recent) - 1) / span if span > 0 else 0.0


@dataclass
class Counts:
    """What was counted since the start; each number is written by one loop and read by anybody."""

    captured: int = 0
    translated: int = 0
    published: int = 0
    missed_ticks: int = 0
    interval: Timings = field(default_factory=Timings)
    latency: Timings = field(default_factory=lambda: Timings(bin_ms=1.0))
    translated_rate: Rate = field(default_factory=Rate)
    published_rate: Rate = field(default_factory=Rate)


def capture_loop(
    source: FrameSource,
    captured: LatestSlot[Frame],
    counts: Counts,
    stop: threading.Event,
    resting: Callable[[], bool] = lambda: False,
) -> None:
    """Move frames from the source to the slot until `stop`; while `resting`, the source rests too."""
    while not stop.is_set():
        if resting():
            source.rest()
            stop.wait(IDLE_S)
            continue
        frame = source.read(IDLE_S)
        if frame is not None and not resting():
            counts.captured += 1
            captured.put(frame)


@dataclass(frozen=True, eq=False)
class Ready:
    """A picture of the published size, ready to go out, and when what it shows was captured."""

    picture: Picture
    captured_s: float


def translate_loop(
    captured: LatestSlot[Frame],
    translator: Translator,
    finish: Callable[[Picture], Picture],
    translated: LatestSlot[Ready],
    counts: Counts,
    stop: threading.Event,
    clock: Callable[[], float] = time.perf_counter,
    resting: Callable[[], bool] = lambda: False,
) -> None:
    """Give the newest frame to the translator whenever it is ready, `finish` what it makes, put it in the slot."""
    while not stop.is_set():
        frame = captured.take(IDLE_S) if translator.ready else None
        result = translator.translate(None if resting() else frame)
        if result is not None and not resting():
            counts.translated += 1
            counts.translated_rate.add(clock())
            translated.put(Ready(finish(result.picture), result.captured_s))


@dataclass(frozen=True)
class Gate:
    """What the publisher may show besides a new translation: set by the daemon, read at each tick.

    card: the picture that says what is going on. only_card: nothing else, at once. hold_s: how old the last
    translation may be, in seconds since it was published first. raw: the user's explicit choice to show the camera
    when there is no translation.
    """

    card: Picture
    only_card: bool = False
    hold_s: float = 1.5
    raw: Callable[[], Picture | None] = lambda: None


def publish_loop(
    sink: FrameSink,
    translated: LatestSlot[Ready],
    gate: Callable[[], Gate],
    fps: float,
    counts: Counts,
    stop: threading.Event,
    *,
    frames: int | None = None,
    shown: Callable[[Picture], None] = lambda picture: None,
    trouble: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Publish one picture each 1/fps seconds until `stop` or after `frames`; set `stop` at the end.

    For each tick the first there is: the new translation, the last one while it is young enough, the raw camera if
    that was chosen, the card. Ticks that are over are left out, never made up for. `shown` gets what was published,
    `trouble` what the sink said ("" when it is well again).
    """
    start_s, tick = clock(), 0
    last: Ready | None = None
    last_s = before_s = start_s
    troubled = False
    while not stop.is_set():
        now = clock()
        late = int((now - start_s) * fps) - tick
        if late > 0:
            counts.missed_ticks += late
            tick += late
        current = gate()
        fresh = translated.take()
        if current.only_card:
            last = None  # what was before a panic shall not come back after it
        elif fresh is not None:
            last, last_s = fresh, now
        picture = _chosen(last if now - last_s <= current.hold_s else None, current)
        try:
            sink.send(picture, tick)
            if troubled:
                troubled = False
                trouble("")
        except VcamError as error:
            troubled = True
            trouble(str(error))
        sent_s = clock()
        shown(picture)
        counts.published += 1
        counts.published_rate.add(sent_s)
        if fresh is not None and fresh is last:
            counts.latency.add(sent_s - fresh.captured_s)
        if counts.published > 1:
            counts.interval.add(sent_s - before_s)
        before_s = sent_s
        if frames is not None and counts.published >= frames:
            break
        tick += 1
        wait = start_s + tick / fps - clock()
        if wait > 0:
            sleep(wait)
    stop.set()


def _chosen(last: Ready | None, gate: Gate) -> Picture:
    if gate.only_card:
        return gate.card
    if last is not None:
        return last.picture
    raw = gate.raw()
    return gate.card if raw is None else raw
