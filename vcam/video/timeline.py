"""One clock for a film whose own clock leaps: restarts (films put one after the other), leaps ahead, going back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container import InputContainer

BACK_S = 0.1  # a clock that goes back by more starts anew; by less, it is inexact
HOLD_S = 60.0  # a pause of more than this, of picture and sound alike, is a leap of the clock
BROADCAST_HOLD_S = 2.0  # the same in formats whose clock may leap (MPEG-TS), once the pictures came regularly
REGULAR = 5  # packets after which a stream has shown how often they come
_MAY_LEAP = 0x0200  # AVFMT_TS_DISCONT, a flag of formats
MANY = 4.0  # a pause of at most this many usual intervals is the film's own


@dataclass
class _Course:
    """How far one stream has come: its own clock and the film's, both in seconds."""

    epoch: int
    last_s: float  # the newest packet's decoding time on the stream's own clock
    end_s: float  # where what it showed ends on the film's clock
    interval_s: float
    packets: int = 0


class Timeline:
    """Gives the packets of a film, in the file's order, times on one clock without leaps.

    Picture and sound keep together: a leap of one is a leap of the file, and the others join it when they leap too.
    start_s: the time that becomes zero. hold_s: the longest pause that is the film's own. intervals: the usual
    seconds between two packets of a stream, by its index, where they are known.
    """

    def __init__(self, start_s: Fraction, hold_s: float, intervals: dict[int, float] | None = None) -> None:
        self._hold_s, self._intervals = hold_s, intervals or {}
        self._shifts = [-start_s]  # of each epoch, from the file's clock to the film's
        self._courses: dict[int, _Course] = {}

    @property
    def leaps(self) -> int:
        """How often the clock has leapt."""
        return len(self._shifts) - 1

    def shift(self, stream: int, decode_s: float | None, show_s: float, duration_s: float) -> Fraction:
        """Return what is added to the times of this packet, which are given on the file's clock.

        decode_s: None where the file does not tell it, so that nobody can say whether the clock goes back.
        """
        course = self._courses.get(stream)
        if decode_s is None:
            return self._shifts[course.epoch if course else -1]
        if course is None:
            epoch = len(self._shifts) - 1
            usual = self._intervals.get(stream, duration_s)
            course = self._courses[stream] = _Course(epoch, decode_s, show_s + float(self._shifts[epoch]), usual)
        elif self._leaps(course, decode_s):
            course.epoch = self._entered(course, show_s)
        elif course.packets:
            course.interval_s += (max(0.0, decode_s - course.last_s) - course.interval_s) / min(course.packets, 10)
        shift = self._shifts[course.epoch]
        course.packets += 1
        course.last_s = decode_s
        course.end_s = max(course.end_s, show_s + duration_s + float(shift))
        return shift

    def _leaps(self, course: _Course, decode_s: float) -> bool:
        if decode_s < course.last_s - BACK_S:
            return True
        return decode_s + float(self._shifts[course.epoch]) > self._furthest() + self._longest_hold(course)

    def _longest_hold(self, course: _Course) -> float:
        hold_s = self._hold_s if course.packets >= REGULAR else HOLD_S
        return max(hold_s, MANY * course.interval_s)

    def _furthest(self) -> float:
        return max(course.end_s for course in self._courses.values())

    def _entered(self, course: _Course, show_s: float) -> int:
        """Return the epoch that this stream enters: one that another stream has begun, or a new one."""
        furthest = self._furthest()
        for epoch in range(course.epoch + 1, len(self._shifts)):
            begins = show_s + float(self._shifts[epoch])
            if course.end_s - 1 <= begins <= furthest + self._longest_hold(course):
                if begins < course.end_s:  # the stream that began it did not know yet how far this one went
                    self._shifts[epoch] += _exact(course.end_s - begins)
                return epoch
        self._shifts.append(_exact(furthest - show_s))
        return len(self._shifts) - 1


def _exact(seconds: float) -> Fraction:
    return Fraction(round(seconds * 1_000_000), 1_000_000)


def timeline_of(container: InputContainer, start_s: Fraction) -> Timeline:
    """Return the clock for a file that is read from its beginning."""
    may_leap = bool(container.format.flags & _MAY_LEAP)
    rates = {stream.index: stream.average_rate for stream in container.streams.video}
    intervals = {index: float(1 / rate) for index, rate in rates.items() if rate}
    return Timeline(start_s, BROADCAST_HOLD_S if may_leap else HOLD_S, intervals)


def packets_in_time(container: InputContainer, streams: Sequence[Any], timeline: Timeline) -> Iterator[Any]:
    """Yield every packet of these streams in the file's order, its times on the film's clock; raise FFmpegError.

    Whoever reads one of the streams reads them all: only so do all readers of a file see the same leaps.
    """
    for packet in container.demux(list(streams)):
        if (shown := packet.dts if packet.pts is None else packet.pts) is not None:
            base = Fraction(packet.time_base)
            tick_s = float(base)
            decode_s = None if packet.dts is None else packet.dts * tick_s
            shift = timeline.shift(packet.stream.index, decode_s, shown * tick_s, (packet.duration or 0) * tick_s)
            ticks = round(shift / base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        yield packet
