"""Writes films (PyAV) that play as far as they were written, whatever ends the writing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from vcam.errors import VcamError, VideoError
from vcam.fit import of_one_shape
from vcam.video.disk import errors_of, is_of_disk, keep_incomplete, part_of
from vcam.video.marking import METADATA_ALONE, Marker, film_tags
from vcam.video.media import (
    BT470BG,
    BT709,
    FULL,
    LIMITED,
    MATRICES,
    SMPTE170M,
    UNSPECIFIED,
    Media,
    Note,
    Picture,
    address,
    guessed_matrix,
    reason,
)
from vcam.video.sizes import fitted
from vcam.video.sound import Plan, Sound

# Fragments (MP4, MOV) and clusters (Matroska) of a second, on the disk at once: what was written plays after a power
# cut. `hybrid_fragmented` makes an ordinary file of it when it is complete.
_FRAGMENTS = {"movflags": "hybrid_fragmented+frag_keyframe+delay_moov", "frag_duration": "1000000"}
_CLUSTERS = {"cluster_time_limit": "1000"}
_NO_TIMES = {"avoid_negative_ts": "disabled"}  # an encoder's delay shall not move the pictures
_BY_SUFFIX = {
    ".avi": _NO_TIMES,
    ".mp4": _FRAGMENTS,
    ".m4v": _FRAGMENTS,
    ".mov": _FRAGMENTS,
    ".mkv": _CLUSTERS,
    ".webm": _CLUSTERS,
}
_ENCODERS = {
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"}),
    ".avi": ("mjpeg", {"qmin": "2", "qmax": "4"}),
}
# without B-frames a packet's time is its picture's, so that no container has to move the beginning
_X264 = ("libx264", {"crf": "17", "preset": "faster", "bf": "0"})
_MOST_REFUSED = 25  # packets in a row that the file does not take


def while_writing(suffix: str) -> dict[str, str]:
    """Return the muxer's options for a file that shall play to within two seconds of where its writing ended."""
    return {**_BY_SUFFIX.get(suffix, {}), "flush_packets": "1"}


class FilmWriter:
    """Writes a film with the clock, colours and sound of another."""

    def __init__(self, target: Path, like: Media, note: Note, marker: Marker = METADATA_ALONE) -> None:
        self._target, self._like, self._note, self._marker = target, like, note, marker
        suffix = target.suffix.lower()
        self._colours = _Colours.of(like, target, note)
        self._output = _begun(target, like, self._colours, note, film_tags(marker.origin))
        self._beats = _Slots(like, target, note) if suffix == ".avi" else _Ticks(like)
        self._durations: dict[int, int] = {}  # of the pictures in the encoder, in ticks
        self._end = Fraction(0)
        self._last: VideoFrame | None = None
        self._count = self._refused = 0
        self._sizes: set[tuple[int, int]] = set()

    def write(self, picture: Picture) -> None:
        """Add one picture; raise VcamError when it cannot be written."""
        like = self._like
        size = (picture.rgb.shape[1], picture.rgb.shape[0])
        if not of_one_shape(size, (like.width, like.height)) and size not in self._sizes:
            self._sizes.add(size)
            self._note(
                f"{self._target}: pictures of {size[0]}x{size[1]} among those of {like.width}x{like.height} are shown "
                "whole, before a blur of themselves"
            )
        duration = picture.duration or 1 / like.rate
        self._end = picture.time + duration
        self._count += 1
        beats = self._beats.of(picture.time)
        if not beats:
            return
        self._last = self._colours.frame(fitted(picture.rgb, like.width, like.height))
        with errors_of(self._target):
            if self._output.sound:
                self._output.sound.until(picture.time)
            for beat in beats:
                self._encode(beat, duration)

    def _encode(self, beat: int, duration: Fraction) -> None:
        assert self._last is not None
        self._last.pts, self._last.time_base = beat, self._beats.clock
        ticks = self._last.duration = max(1, round(duration / self._beats.clock))
        self._durations[beat] = ticks
        self._mux(self._output.pictures.encode(self._last))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)  # encoders lose it
            try:
                self._output.container.mux(packet)
            except (av.error.FFmpegError, ValueError) as error:
                # the muxer writes sound that came before together with this packet, and may stumble over that
                self._refused += 1
                if is_of_disk(error) or not self._output.sound or self._refused > _MOST_REFUSED:
                    raise
            else:
                self._refused = 0

    def finish(self, cut: bool = False) -> None:
        """Complete the film under its final name; `cut` ends the sound with the last picture."""
        if not self._count or self._last is None:
            raise VideoError(f"{self._target}: nothing was written, there is no picture")
        with errors_of(self._target):
            for beat in self._beats.rest(self._end):
                self._encode(beat, self._beats.clock)
            self._mux(self._output.pictures.encode(None))
            if self._output.sound:
                self._output.sound.until(self._end if cut else None)
                self._output.sound.complete()
            self._output.close()
            os.replace(self._output.part, self._target)
        self._marker.finished(self._target)
        self._beats.say(self._note)

    def abandon(self) -> None:
        """Let go of what is not finished: pictures that were made are kept under a name that says so."""
        part = self._output.part
        if not part.exists():  # finished
            return
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self._mux(self._output.pictures.encode(None))
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):  # it plays without its end, too
            self._output.close()
        if not self._count or not _plays(part):
            part.unlink(missing_ok=True)
            return
        try:
            kept = keep_incomplete(part, self._target)
        except OSError as error:
            self._note(f"{self._target}: what was made until then is in {part} ({reason(error)})")
        else:
            self._note(f"{self._target}: what was made until then is kept in {kept}")


def _plays(path: Path) -> bool:
    try:
        with av.open(address(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return False


@dataclass
class _Output:
    """The file that is being written."""

    part: Path
    container: OutputContainer
    pictures: VideoStream
    sound: Sound | None = None
    closed: bool = False

    def close(self) -> None:
        """Complete the file; raise FFmpegError."""
        if self.closed:
            return
        self.closed = True
        try:
            self.container.close()
        finally:
            if self.sound:
                self.sound.close()


def _begun(target: Path, like: Media, colours: _Colours, note: Note, tags: dict[str, str]) -> _Output:
    """Open the file and write its head, with the sound as it is, else encoded again, else without; raise VcamError."""
    plans = [Plan.COPY, Plan.ENCODE, Plan.NONE] if like.audio else [Plan.NONE]
    part = part_of(target)
    for plan in plans:
        with errors_of(target):
            container = av.open(address(part), "w", options=while_writing(target.suffix.lower()))
            container.metadata.update(tags)
        output = _Output(part, container, _pictures(container, target, like, colours))
        try:
            if plan is not Plan.NONE:
                output.sound = Sound(like, container, target.suffix.lower(), note, plan)
            with errors_of(target):
                container.start_encoding()
            return output
        except BaseException as error:
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                output.close()
            part.unlink(missing_ok=True)
            if not isinstance(error, VcamError) or is_of_disk(error.__cause__ or error) or plan is plans[-1]:
                raise
            if plan is Plan.ENCODE:
                note(f"{like.path}: its sound cannot be carried over ({reason(error.__cause__ or error)})")
    raise AssertionError("the last plan returns or raises")


def _pictures(container: OutputContainer, target: Path, like: Media, colours: _Colours) -> VideoStream:
    suffix = target.suffix.lower()
    codec, options = _ENCODERS.get(suffix, _X264)
    rate = like.constant_rate if suffix == ".avi" else like.rate
    with errors_of(target):
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
    context = stream.codec_context
    context.width, context.height = like.width, like.height
    context.pix_fmt = colours.pixel_format
    context.time_base = 1 / rate if suffix == ".avi" else clock_of(like.tick, like.rate)
    context.gop_size = max(1, min(250, round(10 * rate)))
    context.sample_aspect_ratio = like.pixel_aspect
    context.colorspace, context.color_range = colours.matrix, colours.range
    context.color_primaries = colours.primaries
    context.color_trc = colours.transfer
    context.thread_type = "AUTO"
    return stream


@dataclass(frozen=True)
class _Colours:
    """How pictures are coded: pixel format and H.273 numbers."""

    pixel_format: str
    matrix: int
    range: int
    primaries: int
    transfer: int
    reformatter: VideoReformatter

    @classmethod
    def of(cls, like: Media, target: Path, note: Note) -> _Colours:
        """Choose the source's colours, as far as the container's codec can hold them."""
        codec = _ENCODERS.get(target.suffix.lower(), _X264)[0]
        matrix = like.matrix if like.matrix in MATRICES else guessed_matrix(like.width, like.height)
        pixel_format, full = "yuv420p", LIMITED
        if codec == "mjpeg":  # JPEG knows one matrix and one range
            pixel_format, matrix, full = "yuvj420p", BT470BG, FULL
        elif codec == "libx264" and (like.width % 2 or like.height % 2):
            pixel_format = "yuv444p"
            note(
                f"{target}: {like.width}x{like.height} is odd, so it is written as H.264 4:4:4, which some players "
                "cannot show; .webm takes odd sizes everywhere"
            )
        primaries = like.primaries if like.primaries != UNSPECIFIED else _usual(matrix)
        transfer = like.transfer if like.transfer != UNSPECIFIED else _usual(matrix)
        return cls(pixel_format, matrix, full, primaries, transfer, VideoReformatter())

    def frame(self, rgb: Any) -> VideoFrame:
        """Return the picture as the encoder takes it."""
        converted = self.reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24"),
            format=self.pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=MATRICES[self.matrix],
            dst_color_range=self.range,
            interpolation="BICUBIC",
        )
        converted.colorspace, converted.color_range = self.matrix, self.range
        converted.color_primaries, converted.color_trc = self.primaries, self.transfer
        return converted


def _usual(matrix: int) -> int:
    """Return the primaries and transfer (same H.273 number) that usually go with a matrix."""
    return {BT709: 1, BT470BG: 5 if matrix == BT470BG else 6}.get(matrix, 6 if matrix == SMPTE170M else 2)


class _Ticks:
    """Times of pictures in a container that stores them."""

    def __init__(self, like: Media) -> None:
        self.clock = clock_of(like.tick, like.rate)
        self._last = -1

    def of(self, time: Fraction) -> list[int]:
        """Return when a picture is shown, in ticks of the file; always later than the one before."""
        self._last = max(round(time / self.clock), self._last + 1)
        return [self._last]

    def rest(self, end: Fraction) -> Iterator[int]:
        """Yield nothing: the last picture's duration is stored."""
        return iter(())

    def say(self, note: Note) -> None:
        """Say nothing: every time is kept."""


class _Slots:
    """Places of pictures in a container without times (AVI): where none is, the picture before is shown on."""

    def __init__(self, like: Media, target: Path, note: Note) -> None:
        self.clock = 1 / like.constant_rate
        self._last, self._left_out, self._uneven = -1, 0, False
        self._begins: Fraction | None = None  # how far the first picture's slot is from its time
        self._rate, self._source, self._target = like.constant_rate, like.path, target

    def of(self, time: Fraction) -> list[int]:
        """Return the slots in which a picture is written: none when it would come more than one too late."""
        wanted = round(time / self.clock)
        first = [0] if self._last < 0 < wanted else []  # a film must begin with its sound
        slot = max(wanted, self._last + 1)
        aside = slot * self.clock - time
        self._begins = aside if self._begins is None else self._begins
        self._uneven |= abs(aside - self._begins) > self.clock / 8
        if slot > wanted + 1:
            self._left_out += 1
            return []
        self._last = slot
        return [*first, slot]

    def rest(self, end: Fraction) -> Iterator[int]:
        """Yield the slot that makes the last picture last until `end`."""
        last = round(end / self.clock) - 1
        if last > self._last:
            yield last

    def say(self, note: Note) -> None:
        """Say what a container without times made of the film's."""
        left_out = f", {self._left_out} of them left out" if self._left_out else ""
        if self._uneven:
            note(
                f"{self._target}: the pictures of {self._source} come at an uneven rate, which .avi cannot hold: "
                f"written at {float(self._rate):g} a second{left_out}; .mkv or .mp4 keep the times"
            )


def clock_of(tick: Fraction, rate: Fraction) -> Fraction:
    """Return a clock that holds both the source's ticks and whole pictures at `rate`, where there is a sensible one."""
    common = Fraction(1, lcm(tick.denominator, rate.numerator))
    if common.denominator <= 1_000_000:
        return common
    fine = tick.denominator * -(-10_000 // tick.denominator)
    return Fraction(1, min(fine, 1_000_000))
