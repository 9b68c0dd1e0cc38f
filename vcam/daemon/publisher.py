"""What is published: what may be shown when there is no new translation, and the sink that it goes to."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from itertools import islice

from vcam import fit
from vcam.commands import OnFailure
from vcam.daemon.cards import Card, Halt, card_for, draw_card
from vcam.daemon.loops import Fallback, FrameSlots, Shown, no_view, publish_loop, ticks
from vcam.daemon.recorder import Recorder
from vcam.devices import sinks
from vcam.devices.health import LATE_INTERVALS
from vcam.errors import VcamError
from vcam.frames import Frame, FrameSink, LatestSlot, Picture
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions

HOLD_S = 1.5  # how long the last translation stands in for the next
HOLD_FRAMES = 4  # ... or this many of the engine's own frames, if that is longer: a slow engine is no failure
RAW_S = 1.0  # how old a camera picture may be that stands in, if the user chose so
Clock = Callable[[], float]


class Publisher:
    """The sink, what it may show, and what it showed last.

    `publish` belongs to one thread, `set` to another; `preview` may be read from any.
    """

    def __init__(
        self, sink: FrameSink, options: RunOptions, captured: LatestSlot[Frame], clock: Clock, recorder: Recorder
    ) -> None:
        self.sink, self.size, self.recorder = sink, options.size or DEFAULT_SIZE, recorder
        self._options, self._clock = options, clock
        self._off = card_for(Halt.PANIC, None, options.cards)
        by_choice = options.on_failure is OnFailure.RAW
        self._raw = raw_view(captured, self.size, clock) if by_choice else no_view
        self._fallback = Fallback(draw_card(card_for("starting", 0.0, options.cards), self.size))
        self.preview: Picture = self._fallback.card

    def set(self, card: Card, only_card: bool, frame_s: float, interval_s: float) -> None:
        """Show this card where there is nothing to show, or nothing else.

        frame_s: seconds that the engine takes for a frame, interval_s: between the source's frames; 0 while unknown.
        """
        if only_card and not self._fallback.only_card:
            # close first, draw then: a panic shall not wait for a picture
            self._fallback = Fallback(draw_card(self._off, self.size), only_card=True)
        drawn = draw_card(card, self.size, self._clock())
        held, alive = (hold_s(way, frame_s, interval_s) for way in (self._options.on_failure, OnFailure.CARD))
        self._fallback = Fallback(drawn, only_card, held, alive, self._raw)  # the camera is shown by what lives alone

    def publish(
        self,
        slots: FrameSlots,
        stop: threading.Event,
        trouble: Callable[[str], None],
        fault: Callable[[str, Exception], None],
    ) -> None:
        """Publish until `stop` or as many as the options ask for; `trouble`, `fault`: see publish_loop."""
        beats = islice(ticks(self._options.fps, stop, self._clock), self._options.frames)
        publish_loop(
            self.sink,
            slots,
            beats,
            lambda: self._fallback,
            shown=self._show,
            trouble=trouble,
            fault=fault,
            clock=self._clock,
        )

    def close(self, published: int) -> None:
        """Leave the last picture that readers of the camera keep seeing; published: how many there were."""
        with contextlib.suppress(VcamError):
            sinks.send_last(self.sink, draw_card(self._off, self.size), published + 1)
        self.sink.close()

    def _show(self, now: Shown) -> None:
        self.preview = now.picture
        self.recorder.take(now)


def hold_s(on_failure: OnFailure, frame_s: float, interval_s: float) -> float:
    """Return for how many seconds the last translation stands in; frame_s, interval_s: a frame of engine and source."""
    if on_failure is OnFailure.HOLD:
        return float("inf")
    return max(HOLD_S, HOLD_FRAMES * frame_s, LATE_INTERVALS * interval_s)


def raw_view(captured: LatestSlot[Frame], size: tuple[int, int], clock: Clock) -> Callable[[], Picture | None]:
    """Return what gives the newest camera picture, fitted once, as long as it is young enough; else None."""

    @functools.lru_cache(maxsize=1)
    def drawn(frame: Frame) -> Picture:
        return fit.viewed(frame.picture, size, frame.shot)

    def view() -> Picture | None:
        frame = captured.newest
        return None if frame is None or clock() - frame.captured_s > RAW_S else drawn(frame)

    return view
