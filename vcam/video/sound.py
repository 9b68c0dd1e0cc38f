"""Carries the sound of one film over into another (PyAV): what is wrong with it costs sound, never pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from enum import Enum
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet

from vcam.video.disk import is_of_disk
from vcam.video.films import opened, streams_of
from vcam.video.media import Media, Note, reason
from vcam.video.timeline import packets_in_time, timeline_of

# Sound that is copied as it is; other sound is encoded again. None: whatever the container's own table takes.
# AVI stores no times, and MOV none of plain samples: there sound must come without a gap, its silences filled in.
_COPIED_SOUND: dict[str, frozenset[str] | None] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    ".m4v": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mkv": None,
    ".webm": frozenset({"opus", "vorbis"}),
    ".avi": frozenset(),
}
_FRAGMENTED = (".mp4", ".m4v", ".mov")  # containers that are told how AAC is coded before its first packet
_HIDES_BEGINNINGS = (".mp4", ".m4v", ".mov")  # containers that hide what a decoder needs before the first sample
_OWN_DELAY = ("opus",)  # codecs whose packets before zero every container knows to hide
_PLAIN = {".avi": "pcm_s16le", ".mov": "pcm_s16le"}  # for sound that is not compressed
_SOUND_ENCODERS = {".webm": "libopus", ".avi": "libmp3lame"}
_SOUND_RATES = {"libopus": (48000,), "libmp3lame": (32000, 44100, 48000), "aac": (16000, 22050, 32000, 44100, 48000)}
# silence where more than 50 ms are missing, a cut where as much is too much, from zero on
_FILLED = "async=1:min_hard_comp=0.05:first_pts=0"
_FAULTS = (av.error.FFmpegError, ValueError, AttributeError)


class Plan(Enum):
    """How the sound is carried over: the next is tried where a file with one cannot be begun."""

    COPY = "copied where the container takes it, else encoded again"
    ENCODE = "encoded again"
    NONE = "left out"


class _Track(Protocol):
    def carry(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """Yield what is to be written for a packet; raise FFmpegError or ValueError for a damaged one."""

    def rest(self) -> Iterator[Packet[AudioStream]]:
        """Yield what is still held back."""


class _Copied:
    """A sound stream whose packets are written as they are."""

    def __init__(self, stream: AudioStream, made: AudioStream, suffix: str) -> None:
        self._made = made
        codec = stream.codec_context.name
        bare = codec == "aac" and not stream.codec_context.extradata and suffix in _FRAGMENTED
        self._filter = BitStreamFilterContext("aac_adtstoasc", stream) if bare else None
        self._last: int | None = None
        self._before_s = 1.0 if codec in _OWN_DELAY else 0.0
        self._lead_in = suffix in _HIDES_BEGINNINGS

    def carry(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        if packet.dts is None or packet.pts is None:  # the empty packet at the end
            return
        if self._hidden(packet):
            return
        if self._last is not None and packet.dts < self._last:
            raise ValueError("sound that lies before what is written already")
        self._last = packet.dts
        packet.decode()  # what cannot be decoded would stop whoever plays the result
        for filtered in self._filter.filter(packet) if self._filter else [packet]:
            filtered.stream = self._made
            yield filtered

    def _hidden(self, packet: Packet[AudioStream]) -> bool:
        """Return whether the packet is not to be heard; the last before zero is kept where decoders begin with it."""
        pts, duration = cast(int, packet.pts), packet.duration or 0
        if pts >= 0:
            return packet.is_discard
        if self._lead_in:
            return pts + 2 * duration <= 0
        return pts < -self._before_s / Fraction(packet.time_base) or (packet.is_discard and not self._before_s)

    def rest(self) -> Iterator[Packet[AudioStream]]:
        return iter(())


class _Encoded:
    """A sound stream that is decoded, filled with silence where nothing was, and encoded again."""

    def __init__(self, made: AudioStream, suffix: str) -> None:
        self._made = made
        self._lead_in = suffix != ".mkv" or made.codec_context.name in _OWN_DELAY
        self._graph: Graph | None = None
        self._given = ("", "", 0)

    def carry(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        for frame in packet.decode():
            given = (frame.format.name, frame.layout.name, frame.sample_rate)
            if self._graph is None:
                self._graph, self._given = self._filter(frame), given
            if given != self._given:  # a film of parts: the sound of the first sets what is understood
                raise ValueError(f"sound that becomes {given[1]} at {given[2]} Hz")
            self._graph.push(frame)
            yield from self._encoded()

    def _filter(self, frame: AudioFrame) -> Graph:
        context = self._made.codec_context
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base,
        )
        made = f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
        nodes = [
            source,
            graph.add("aresample", f"{context.sample_rate}:{_FILLED}"),
            graph.add("aformat", f"{made}:channel_layouts={context.layout.name}"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph

    def _encoded(self) -> Iterator[Packet[AudioStream]]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield from self._written(cast(AudioFrame, frame))

    def _written(self, frame: AudioFrame | None) -> Iterator[Packet[AudioStream]]:
        for packet in self._made.encode(frame):
            if self._lead_in or packet.pts is None or packet.pts >= 0:
                yield packet

    def rest(self) -> Iterator[Packet[AudioStream]]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._encoded()
        yield from self._written(None)


class Sound:
    """The sound of `like` on its way into `output`; damaged packets are skipped, counted and said."""

    def __init__(self, like: Media, output: OutputContainer, suffix: str, note: Note, plan: Plan = Plan.COPY) -> None:
        self._path, self._output, self._note = like.path, output, note
        self._files = ExitStack()
        container = self._files.enter_context(opened(like.path))
        self._tracks: dict[int, _Track] = {}
        for stream in container.streams.audio:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            try:
                self._tracks[stream.index] = _track(stream, codec, output, suffix, note, plan)
            except _FAULTS as error:
                note(f"{like.path}: its {codec} sound cannot be carried over ({reason(error)}); written without it")
        streams = streams_of(like.path, container)[1] if self._tracks else []
        packets = packets_in_time(container, streams, timeline_of(container, like.start_s)) if streams else iter(())
        self._packets: Iterator[Any] = packets
        self._held: Packet[AudioStream] | None = None
        self._damaged = 0

    def until(self, time: Fraction | None) -> None:
        """Write the sound that begins before `time` (s); None: all that is left. Raise FFmpegError of the disk."""
        while (packet := self._next()) is not None:
            if time is not None and packet.pts is not None and packet.pts * Fraction(packet.time_base) >= time:
                self._held = packet
                return
            self._carry(self._tracks[packet.stream.index].carry(packet))

    def complete(self) -> None:
        """Write what is still held back, and say what was left out. Raise FFmpegError of the disk."""
        for track in self._tracks.values():
            self._carry(track.rest())
        if self._damaged:
            self._note(f"{self._path}: {self._damaged} packets of its sound are damaged or out of order and left out")

    def _carry(self, packets: Iterator[Packet[AudioStream]]) -> None:
        try:
            for packet in packets:
                self._output.mux(packet)
        except _FAULTS as error:
            if is_of_disk(error):
                raise
            self._damaged += 1

    def _next(self) -> Packet[AudioStream] | None:
        held, self._held = self._held, None
        if held is not None:
            return held
        try:
            return next((packet for packet in self._packets if packet.stream.index in self._tracks), None)
        except av.error.FFmpegError as error:
            self._note(f"{self._path}: its sound ends early: {reason(error)}")
            self._packets = iter(())
            return None

    def close(self) -> None:
        """Close the source."""
        self._files.close()


def _track(stream: AudioStream, codec: str, output: OutputContainer, suffix: str, note: Note, plan: Plan) -> _Track:
    """Add a stream for this one to `output`; raise FFmpegError, ValueError or AttributeError where none takes it."""
    copied = _COPIED_SOUND[suffix]
    if plan is Plan.COPY and codec in (output.supported_codecs if copied is None else copied):
        return _Copied(stream, output.add_stream_from_template(stream), suffix)
    plain = suffix in _PLAIN and codec.startswith("pcm_")
    name = _PLAIN[suffix] if plain else _SOUND_ENCODERS.get(suffix, "aac")
    rates = _SOUND_RATES.get(name, (stream.rate or 48000,))
    rate = min(rates, key=lambda r: abs(r - (stream.rate or 48000)))
    made = cast(AudioStream, output.add_stream(name, rate=rate))
    made.layout = "mono" if stream.channels == 1 else "stereo"
    if not plain:
        made.codec_context.bit_rate = 96_000 if stream.channels == 1 else 160_000
        why = "cannot be copied" if plan is Plan.ENCODE else f"does not go into {suffix} as it is"
        note(f"{stream.container.name}: its {codec} sound {why}; it is encoded again as {name}")
    return _Encoded(made, suffix)
