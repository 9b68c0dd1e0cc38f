"""The sound of a film that is recorded live: put at its place in time, whatever its clock does, and encoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from numpy.typing import NDArray

BIT_RATE = 96_000
LATE_S = 0.5  # sound that comes later than this after its picture is silence, so that the file is written all the same
# stretched or squeezed by half a percent at most, which nobody hears; silence or a cut where more than 0.1 s is wrong
_PLACED = "{rate}:flags=res:async={most}:min_hard_comp=0.1:first_pts=0"


class LiveSound:
    """A track of one channel, from the film's beginning on. Raises FFmpegError where the file cannot be written.

    rate: samples a second, of what it takes and writes. Times are seconds of the film. `hear` takes sound in the order
    in which it was heard.
    """

    def __init__(self, container: OutputContainer, suffix: str, rate: int) -> None:
        self._rate = rate
        self._stream: AudioStream = container.add_stream("aac", rate=rate)
        self._stream.layout = "mono"
        self._stream.codec_context.bit_rate = BIT_RATE
        self._shows_beginnings = suffix == ".mkv"  # what a decoder needs before the first sample would be heard there
        self._graph = Graph()
        source = self._graph.add_abuffer(sample_rate=rate, format="s16", layout="mono", time_base=Fraction(1, rate))
        nodes = [
            source,
            self._graph.add("aresample", _PLACED.format(rate=rate, most=rate // 200)),
            self._graph.add("abuffersink"),
        ]
        self._graph.link_nodes(*nodes).configure()
        self._placed: NDArray[np.int16] = np.zeros(0, np.int16)  # of the track, behind what is written
        self._written = 0  # samples of the track

    def hear(self, samples: NDArray[np.int16], at_s: float) -> None:
        """Take sound [n] whose first sample belongs at this time; what is before the film's beginning is left out."""
        at = round(at_s * self._rate)
        self._place(samples[max(0, -at) :], max(0, at))

    def hush(self) -> None:
        """Make silence of what was heard and is not written yet."""
        self._placed = np.zeros_like(self._placed)

    def until(self, end_s: float, silent_until_s: float = 0.0) -> Iterator[Packet[AudioStream]]:
        """Yield the track as far as it is known up to a time; what is late by LATE_S is silence.

        silent_until_s: before this nothing is heard; math.inf for nothing at all.
        """
        end = round(end_s * self._rate)
        known = self._written + len(self._placed)
        self._place(np.zeros(max(0, end - round(LATE_S * self._rate) - known), np.int16), known)
        yield from self._encoded(end, silent_until_s)

    def rest(self, end_s: float, silent_until_s: float = 0.0) -> Iterator[Packet[AudioStream]]:
        """Yield what is missing until the film's end."""
        end = round(end_s * self._rate)
        missing = max(0, end - self._written - len(self._placed))
        self._placed = np.concatenate([self._placed, np.zeros(missing, np.int16)])
        yield from self._encoded(end, silent_until_s)
        yield from self._packets(None)

    def _place(self, samples: NDArray[np.int16], at: int) -> None:
        if not len(samples):
            return
        self._graph.push(_frame(samples, at, self._rate))
        while True:
            try:
                frame = cast(AudioFrame, self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # the resampler has put it where it belongs: the track is written without a gap
            self._placed = np.concatenate([self._placed, frame.to_ndarray().reshape(-1)])

    def _encoded(self, end: int, silent_until_s: float) -> Iterator[Packet[AudioStream]]:
        samples, self._placed = np.split(self._placed, [max(0, end - self._written)])
        if not len(samples):
            return
        heard = np.arange(self._written, self._written + len(samples)) >= silent_until_s * self._rate
        frame = _frame(samples * heard.astype(np.int16), self._written, self._rate)
        self._written += len(samples)
        yield from self._packets(frame)

    def _packets(self, frame: AudioFrame | None) -> Iterator[Packet[AudioStream]]:
        for packet in self._stream.encode(frame):
            if not self._shows_beginnings or packet.pts is None or packet.pts >= 0:
                yield packet


def _frame(samples: NDArray[np.int16], at: int, rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at
    return frame
