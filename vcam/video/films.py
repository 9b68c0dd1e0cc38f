"""Reads films one picture at a time (PyAV): upright, in RGB, on a clock without leaps."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from vcam.errors import VideoError
from vcam.video.media import (
    FOLDER_RATE,
    FULL,
    MATRICES,
    MOST_PIXELS,
    Kind,
    Media,
    Note,
    Orientation,
    Picture,
    Pixels,
    address,
    check_size,
    guessed_matrix,
    reason,
    to_stderr,
)
from vcam.video.sizes import fitted, resized, upright
from vcam.video.timeline import packets_in_time, timeline_of

_LOOKED_AT = 200  # packets of the pictures whose times tell the rate
_HIGHEST_RATE = 240  # pictures per second; a "rate" above is the resolution of a clock
_MEAN_TOLERANCE = 0.1  # share by which the mean may differ from the rate that the file names
_CATCHING_UP = Fraction(1, 50)  # s at most between pictures whose clock went back a little (`BACK_S`)
_INEXACT = Fraction(1, 10)  # of an interval, that a clock may be wrong
# places for pictures per second in a file without times: enough for the first and last second to be right
_FEWEST_SLOTS, _MOST_SLOTS = Fraction(10), Fraction(60)
_ONE_THREAD_PIXELS = 1920 * 1088  # of a picture that one thread decodes in time
_DECODING_BYTES = 256 << 20  # of pictures that a decoder's threads may hold in flight
_PHOTOS = ("avif", "avis", "heic", "heix", "heim", "mif1", "msf1")  # brands of ISO files that hold photos


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a film; raise VcamError when it is none. Nothing but files is opened on its behalf."""
    # max_pixels: whatever is larger is refused by its decoder before a byte is allocated, also in mid-film
    options = {"protocol_whitelist": "file", "max_pixels": str(MOST_PIXELS)}
    try:
        container = av.open(address(path), "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: cannot be read as a film or picture ({reason(error)}); it may be cut off, damaged or of "
            "another kind"
        ) from error
    with container:
        yield container


def streams_of(path: Path, container: InputContainer) -> tuple[VideoStream, list[Any]]:
    """Return the stream of the pictures, and all the streams that tell the film's time: it and the sound's."""
    format = container.format.name
    if "tty" in format:  # FFmpeg would draw a text file as a film
        raise VideoError(f"{path}: this is a text file; give a film, a picture or a folder of pictures")
    if format.endswith("_pipe") or container.metadata.get("major_brand") in _PHOTOS:
        raise VideoError(f"{path}: this is a photo, not a film, of a kind that is not read; convert it to PNG or JPEG")
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        holds = "only sound" if container.streams.audio else "nothing to see"
        raise VideoError(f"{path}: no video stream (it holds {holds}); give a film or a picture")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0) if s.codec_context else -1)
    if stream.codec_context is None:
        raise VideoError(f"{path}: its video codec is not supported; convert it to H.264 first")
    return stream, [stream, *container.streams.audio]


def _decodes(stream: VideoStream, most_threads: int | None = None) -> None:
    """Prepare the decoder: as many threads as their pictures leave room for, or most_threads.

    PyAV ends a decoder's threads while it holds Python's lock: on a busy machine up to 250 ms, in which nothing
    was published. So where pictures are due, small films have no threads.
    """
    context = stream.codec_context
    context.options = {"max_pixels": str(MOST_PIXELS)}
    threads = _DECODING_BYTES // max(1, 2 * context.width * context.height)
    stream.thread_type = "AUTO"
    context.thread_count = max(1, min(threads, most_threads or os.cpu_count() or 1))


def probe_film(path: Path) -> Media:
    """Say what a film holds; raise VcamError when not one picture can be decoded or its size is absurd."""
    with opened(path) as container:
        stream, streams = streams_of(path, container)
        if stream.width and stream.height:
            check_size(path, stream.width, stream.height)
        _decodes(stream, most_threads=1)
        seen = _beginning(container, stream, streams)
        frame = seen.frame
        if frame is None:
            raise VideoError(f"{path}: not one picture can be decoded; the file is cut off or damaged")
        orientation = _orientation(frame)
        width, height = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
        check_size(path, width, height)
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        tick = Fraction(stream.time_base or Fraction(1, 90000))
        seconds = _duration_s(container, stream)
        rate, constant_rate, even = _rates(seen.times, stream.guessed_rate or stream.average_rate, tick)
        return Media(
            path=path,
            kind=Kind.VIDEO,
            width=width,
            height=height,
            rate=rate,
            constant_rate=constant_rate,
            even=even,
            frames=_counted(container, stream, seconds),
            duration_s=seconds,
            codec=stream.codec_context.name,
            audio=tuple(s.codec_context.name if s.codec_context else "unknown" for s in container.streams.audio),
            matrix=int(frame.colorspace),
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            pixel_aspect=1 / aspect if orientation.transpose else aspect,
            start_s=seen.start_s(stream.index),
            tick=tick,
        )


@dataclass
class _Beginning:
    """What the first packets tell: the first picture that decodes, the times of pictures, where each stream begins."""

    frame: VideoFrame | None = None
    times: list[Fraction] = field(default_factory=list)
    starts: dict[int, Fraction] = field(default_factory=dict)

    def start_s(self, pictures: int) -> Fraction:
        """Return the time that counts as zero: where the first stream begins, of what is before zero the pictures."""
        first = min(self.starts.values(), default=Fraction(0))
        return first if first > 0 else min(Fraction(0), self.starts.get(pictures, Fraction(0)))


def _beginning(container: InputContainer, stream: VideoStream, streams: list[Any]) -> _Beginning:
    """Read the first packets. What the container says of starts is guessed where there are few."""
    seen = _Beginning()
    timeline = timeline_of(container, Fraction(0))
    with contextlib.suppress(av.error.FFmpegError):  # said when the film is read
        for packet in packets_in_time(container, streams, timeline):
            index = packet.stream.index
            shown = packet.dts if packet.pts is None else packet.pts
            if shown is not None and not packet.is_discard:
                time = shown * Fraction(packet.time_base)
                if not timeline.leaps:
                    seen.starts[index] = min(time, seen.starts.get(index, time))
                if index == stream.index:
                    seen.times.append(time)
            if index == stream.index and seen.frame is None:
                with contextlib.suppress(av.error.FFmpegError):
                    seen.frame = next(iter(stream.decode(packet)), None)
            if seen.frame is not None and len(seen.times) >= _LOOKED_AT:
                break
    seen.times.sort()
    return seen


def _rates(times: list[Fraction], named: Fraction | None, tick: Fraction) -> tuple[Fraction, Fraction, bool]:
    """Return the pictures per second, a rate for files without times, and whether the pictures come evenly."""
    nominal = Fraction(named) if named and 0 < named <= _HIGHEST_RATE else None
    gaps = sorted(b - a for a, b in itertools.pairwise(times) if b > a)
    if not gaps:
        rate = nominal or FOLDER_RATE
        return rate, rate, True
    mean = (len(times) - 1) / (times[-1] - times[0])
    rate = nominal if nominal and abs(mean / nominal - 1) < _MEAN_TOLERANCE else _simple(mean)
    inexact = min(2 * tick * rate, _INEXACT)  # a tick for the rounding of each of two times
    even = all(abs(gap * rate - 1) <= inexact for gap in gaps)
    if even:
        return rate, rate * ceil(_FEWEST_SLOTS / rate), True
    usual = 1 / gaps[len(gaps) // 10]
    return rate, _simple(min(_MOST_SLOTS, max(_MOST_SLOTS / 2, usual, rate))), False


def _simple(rate: Fraction) -> Fraction:
    return Fraction(rate).limit_denominator(1001) or Fraction(1, 1001)


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the seconds of the pictures, None when the file tells the length of the longest stream at best."""
    if clock := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = clock.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration and not container.streams.audio else None


def _counted(container: InputContainer, stream: VideoStream, seconds: float | None) -> int | None:
    """Return the pictures that the file counts; None where it does not, or counts what an edit list hides."""
    if not stream.frames or "mp4" not in container.format.name or not seconds or not stream.average_rate:
        return None
    every_s = 1 / float(stream.average_rate)
    return stream.frames if abs(stream.frames * every_s - seconds) < 1.5 * every_s + 0.01 * seconds else None


def _orientation(frame: VideoFrame) -> Orientation:
    """Return what the frame's display matrix asks for, to the nearest quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(cast(Any, data), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def read_film(media: Media, note: Note = to_stderr, *, live: bool = False) -> Iterator[Picture]:
    """Yield every picture in order; what is damaged, missing or of another size is said by `note`. live: see `read`."""
    count, longest, before = 0, 1 / media.rate, None
    told = _Told()
    for picture in _pictures(media, note, told, live):
        count += 1
        if before is not None:
            duration = picture.time - before.time
            longest = max(longest, duration)
            yield before._replace(duration=duration)
        before = picture
    if before is None:
        return
    own = before.duration or 1 / media.rate
    end = before.time + own
    announced = None if media.duration_s is None or told.leaps else Fraction(media.duration_s).limit_denominator(10**6)
    if announced is not None and before.time < announced <= before.time + 2 * max(own, longest):
        end = announced
    yield before._replace(duration=end - before.time)
    if media.frames and count < 0.98 * media.frames - 1:
        note(f"{media.path}: of the {media.frames} pictures that the file announces {count} could be decoded")
    elif announced is not None and not media.frames and float(end) < 0.98 * float(announced) - float(own):
        note(f"{media.path}: reading stops early, at {float(end):.2f} s of the {float(announced):.2f} s announced")


@dataclass
class _Told:
    """What the packets told beside the pictures.

    leaps: of the file's clock, so far. aspects: from which time (ticks) on pixels have which width over height, by the
    pictures' own word, which broadcasts change on the way.
    """

    leaps: int = 0
    aspects: list[tuple[int, Fraction]] = field(default_factory=list)

    def stretch(self, frame: VideoFrame) -> Fraction:
        """Return how much wider a pixel of this picture is than one of the first."""
        if frame.pts is None or len(self.aspects) < 2:
            return Fraction(1)
        own = [aspect for begins, aspect in self.aspects if begins <= frame.pts]
        return own[-1] / self.aspects[0][1] if own else Fraction(1)


def _pictures(media: Media, note: Note, told: _Told, live: bool) -> Iterator[Picture]:
    reformatter = VideoReformatter()
    expected, last = Fraction(0), Fraction(-1)
    catching_up = max(media.tick, min(_CATCHING_UP, 1 / media.rate / 2))
    sizes: set[tuple[int, int]] = set()
    orientation = Orientation()
    with opened(media.path) as container:
        stream, streams = streams_of(media.path, container)
        _decodes(stream, most_threads=1 if live and media.width * media.height <= _ONE_THREAD_PIXELS else None)
        for frame in _frames(container, stream, streams, media, note, told):
            if frame.key_frame or "DISPLAYMATRIX" in frame.side_data:  # H.264 says it once for many
                orientation = _orientation(frame)
            rgb = _to_rgb(frame, reformatter)
            rgb = upright(resized(rgb, round(frame.width * told.stretch(frame)), frame.height), orientation)
            size = (rgb.shape[1], rgb.shape[0])
            if size != (media.width, media.height):
                if size not in sizes:
                    note(
                        f"{media.path}: the picture's size changes to {size[0]}x{size[1]}; all are brought to "
                        f"{media.width}x{media.height}, whole and unstretched"
                    )
                sizes.add(size)
                rgb = fitted(rgb, media.width, media.height)
            time, duration = expected, 1 / media.rate
            if frame.time_base is not None:
                base = Fraction(frame.time_base)
                duration = (frame.duration or 0) * base or duration
                if frame.pts is not None:
                    time = frame.pts * base
            time = on_grid(time, media.rate, media.tick) if media.even else time
            time = last + catching_up if time <= last else time  # an inexact clock
            expected, last = time + 1 / media.rate, time
            yield Picture(rgb, time, duration=duration if media.even or duration * media.rate > 0.5 else 1 / media.rate)


def _frames(
    container: InputContainer, stream: VideoStream, streams: list[Any], media: Media, note: Note, told: _Told
) -> Iterator[VideoFrame]:
    """Yield every frame that decodes; damaged packets are skipped and counted."""
    damaged = key = 0
    timeline = timeline_of(container, media.start_s)
    packets = packets_in_time(container, streams, timeline)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            note(f"{media.path}: reading stops early: {reason(error)}")
            packet = None
        if packet is not None and packet.stream.index != stream.index:
            continue
        if packet is not None and packet.is_keyframe and packet.pts is not None:
            key = packet.pts
        try:
            frames = stream.decode(packet)  # None: what the decoder still holds
        except av.error.EOFError:
            frames = []
        except av.error.FFmpegError:
            damaged += 1
            frames = []
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1) or Fraction(1)
        if not told.aspects or aspect != told.aspects[-1][1]:
            told.aspects.append((key, aspect))
        if timeline.leaps > told.leaps:
            told.leaps = timeline.leaps
            if told.leaps == 1:
                note(f"{media.path}: its clock leaps; the pictures go on without a gap, in their order")
        yield from frames
        if packet is None:
            break
    if damaged:
        note(f"{media.path}: {damaged} damaged pictures could not be decoded and are left out")


def on_grid(time: Fraction, rate: Fraction, tick: Fraction) -> Fraction:
    """Return `time` (s) moved to the nearest multiple of 1/rate when that is less than one `tick` away."""
    near = round(time * rate) / rate
    return near if abs(near - time) < tick else time


def _is_yuv(frame: VideoFrame) -> bool:
    return not frame.format.is_rgb and len(frame.format.components) >= 3


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> Pixels:
    if not _is_yuv(frame):
        return cast(Pixels, reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    matrix = MATRICES.get(int(frame.colorspace)) or MATRICES[guessed_matrix(frame.width, frame.height)]
    full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,  # see _decodes
    )
    return cast(Pixels, rgb.to_ndarray())
