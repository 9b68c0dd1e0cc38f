"""Carries the sound of one film over into another (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from vcam.video.media import Media, Note, reason

# Sound that is copied as it is; other sound is encoded again. None: whatever the container's own table takes.
_COPIED_SOUND: dict[str, frozenset[str] | None] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    ".m4v": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_f32le"}),
    ".mkv": None,
    ".webm": frozenset({"opus", "vorbis"}),
    ".avi": frozenset({"mp3", "ac3", "pcm_s16le", "pcm_u8"}),
}
_SOUND_ENCODERS = {".webm": "libopus", ".avi": "libmp3lame"}
_SOUND_RATES = {"libopus": (48000,), "libmp3lame": (32000, 44100, 48000), "aac": (16000, 22050, 32000, 44100, 48000)}


class Sound:
    """Carries the sound of a film over: copied where the container takes it, else encoded again."""

    def __init__(self, like: Media, output: OutputContainer, suffix: str, note: Note) -> None:
        self._output, self._offset = output, like.start_s
        self._input = av.open(str(like.path), "r", metadata_errors="replace")
        self._copies: dict[int, AudioStream] = {}
        self._encodes: dict[int, tuple[AudioStream, AudioResampler]] = {}
        copied = _COPIED_SOUND[suffix]
        for stream in self._input.streams.audio:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            try:
                if codec in (output.supported_codecs if copied is None else copied):
                    self._copies[stream.index] = output.add_stream_from_template(stream)
                else:
                    self._encodes[stream.index] = self._encoder(stream, suffix)
                    name = self._encodes[stream.index][0].codec_context.name
                    note(f"{like.path}: {codec} sound does not go into {suffix}; it is encoded again as {name}")
            except (av.error.FFmpegError, ValueError, AttributeError) as error:
                note(f"{like.path}: its {codec} sound cannot be carried over ({reason(error)}); written without it")
        streams = [s for s in self._input.streams.audio if s.index in self._copies or s.index in self._encodes]
        packets = self._input.demux(streams) if streams else iter(())
        self._packets = cast("Iterator[Packet[AudioStream]]", packets)
        self._held: Packet[AudioStream] | None = None
        self._note, self._path, self._damaged = note, like.path, False

    def _encoder(self, stream: AudioStream, suffix: str) -> tuple[AudioStream, AudioResampler]:
        name = _SOUND_ENCODERS.get(suffix, "aac")
        rate = min(_SOUND_RATES[name], key=lambda r: abs(r - (stream.rate or 48000)))
        made = cast(AudioStream, self._output.add_stream(name, rate=rate))
        made.layout = "mono" if stream.channels == 1 else "stereo"
        made.codec_context.bit_rate = 96_000 if stream.channels == 1 else 160_000
        return made, AudioResampler(made.codec_context.format, made.layout, rate)

    def until(self, time: Fraction | None) -> None:
        """Write the sound that begins before `time` (s); None: all that is left."""
        while (packet := self._next()) is not None:
            if time is not None and packet.dts is not None and self._begins(packet) >= time:
                self._held = packet
                return
            self._carry(packet)

    def complete(self) -> None:
        """Write what the encoders still hold."""
        for made, resampler in self._encodes.values():
            for frame in [*resampler.resample(None), None]:
                self._output.mux(made.encode(frame))

    def _begins(self, packet: Packet[AudioStream]) -> Fraction:
        return (packet.dts or 0) * Fraction(packet.time_base or 0) - self._offset

    def _next(self) -> Packet[AudioStream] | None:
        held, self._held = self._held, None
        if held is not None:
            return held
        try:
            return next(self._packets, None)
        except av.error.FFmpegError as error:
            self._note(f"{self._path}: its sound ends early: {reason(error)}")
            self._packets = iter(())
            return None

    def _carry(self, packet: Packet[AudioStream]) -> None:
        index = packet.stream.index
        if index in self._copies:
            if packet.dts is None:  # the empty packet at the end
                return
            shift = round(self._offset / Fraction(packet.time_base))
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = self._copies[index]
            self._output.mux(packet)
            return
        made, resampler = self._encodes[index]
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            if not self._damaged:
                self._note(f"{self._path}: damaged sound is left out")
            self._damaged = True
            return
        for frame in frames:
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(self._offset / Fraction(frame.time_base))
            for piece in resampler.resample(frame):
                self._output.mux(made.encode(piece))

    def close(self) -> None:
        """Close the source."""
        self._input.close()
