"""Small films, sounds and pictures made by PyAV, whose content tells which picture it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext

BITS = 8


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture [height, width, 3] that carries `number` (0..255) as eight dark or bright columns in its upper half."""
    rgb = np.full((height, width, 3), 128, np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        rgb[: height // 2, edges[bit] : edges[bit + 1]] = 230 if number >> bit & 1 else 25
    rgb[height // 2 :, :, 0] = np.linspace(40, 210, width, dtype=np.uint8)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """The number that `numbered` put in."""
    height, width = rgb.shape[:2]
    edges = np.linspace(0, width, BITS + 1).astype(int)
    columns = [rgb[height // 8 : height // 3, a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)]
    return sum(1 << bit for bit, value in enumerate(columns) if value > 128)


def film(
    path: Path,
    pictures: Sequence[np.ndarray] | int = 12,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    times: Sequence[Fraction] | None = None,
    sound: str | None = None,
    sound_rate: int = 48000,
    rotation: int | None = None,
    mirror: bool = False,
    pixel_format: str | None = None,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    pieces: Sequence[tuple[float, float]] | None = None,
) -> Path:
    """Write a film with PyAV; `times` (s) gives it an uneven rate, `sound` names the sound's codec.

    pieces: where the sound begins and ends, in seconds, several times; from 0 to the end of the film unless given.
    """
    if isinstance(pictures, int):
        pictures = [numbered(i, *size) for i in range(pictures)]
    rate = Fraction(rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        odd = stream.height % 2 or stream.width % 2
        default = {"mjpeg": "yuvj420p", "libvpx-vp9": "yuv420p"}.get(codec, "yuv444p" if odd else "yuv420p")
        stream.pix_fmt = pixel_format or default
        clock = Fraction(1, 90000) if times is not None else 1 / rate
        stream.codec_context.time_base = clock
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirror)
        listened: Any = container.add_stream(sound, rate=sound_rate) if sound else None
        if listened is not None:
            listened.layout = "stereo"
            if sound == "pcm_s16le":
                listened.format = "s16"
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame.pts = index if times is None else round(times[index] / clock)
            frame.time_base = clock
            frame.duration = 1 if times is None else 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if listened is not None:
            for begins, ends in pieces or [(0.0, float(len(pictures) / rate))]:
                _hum(container, listened, begins, ends, sound_rate)
            container.mux(listened.encode(None))
    return path


@dataclass(frozen=True)
class Part:
    """Pictures of a film between two changes: times in ms, size, pixel format, and the turn that H.264 asks for."""

    times: tuple[int, ...]
    size: tuple[int, int] = (64, 48)
    pixel_format: str = "yuv420p"
    turn: int | None = None


def film_of_parts(
    path: Path,
    parts: Sequence[Part],
    codec: str = "libx264",
    sound: str | None = None,
    pieces: Sequence[tuple[float, float]] = (),
) -> Path:
    """Write a film whose pictures, numbered from 0, change their size, pixel format and rotation on the way."""
    clock, first = Fraction(1, 1000), parts[0]
    options = {"libx264": {"bf": "0", "preset": "ultrafast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = *first.size, first.pixel_format
        stream.codec_context.time_base = clock
        listened: Any = container.add_stream(sound, rate=48000) if sound else None
        if listened is not None:
            listened.layout = "stereo"
        number = 0
        for part in parts:
            context: Any = av.CodecContext.create(codec, "w")
            context.width, context.height, context.pix_fmt = *part.size, part.pixel_format
            context.time_base, context.framerate, context.options = clock, Fraction(25), options.get(codec, {})
            packets = []
            for time in part.times:
                frame = av.VideoFrame.from_ndarray(numbered(number % 256, *part.size), "rgb24")
                frame.pts, frame.time_base, number = time, clock, number + 1
                packets += context.encode(frame)
            packets += context.encode(None)
            if part.turn is not None and codec == "libx264":
                turned = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:rotate={part.turn}", stream)
                packets = [made for packet in packets for made in turned.filter(packet)]
            for packet in packets:
                packet.stream, packet.time_base = stream, clock
                container.mux(packet)
        if listened is not None:
            for begins, ends in pieces:
                _hum(container, listened, begins, ends, 48000)
            container.mux(listened.encode(None))
    return path


def _hum(container: Any, stream: Any, begins: float, ends: float, rate: int) -> None:
    count = int(ends * rate) - int(begins * rate)
    wave = np.sin(np.arange(count) * 2 * np.pi * 440 / rate)
    samples = (np.stack([wave, wave]) * 8000).astype(np.int16)
    size = stream.frame_size or 1024
    for start in range(0, count, size):
        piece = samples[:, start : start + size].T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, int(begins * rate) + start, Fraction(1, rate)
        container.mux(stream.encode(frame))


def cut(source: Path, target: Path, begins: float) -> Path:
    """Write `source` from second `begins` on without encoding it again: packets before that are hidden (edit list)."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        made = {stream.index: part.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is None or packet.pts is None or packet.pts * Fraction(packet.time_base) < begins - 1:
                continue
            ticks = round(Fraction(begins) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, made[packet.stream.index]
            part.mux(packet)
    return target


def joined(target: Path, *parts: Path) -> Path:
    """Write MPEG-TS films one after the other: the clock starts again with each."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def without_sound_packets(path: Path, every: int = 7, pid: int = 0x101) -> Path:
    """Take every so many of an MPEG-TS file's 188 bytes of sound away."""
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    heard = [n for n, packet in enumerate(packets) if (packet[1] & 0x1F) << 8 | packet[2] == pid]
    gone = set(heard[every // 2 :: every])
    path.write_bytes(b"".join(packet for n, packet in enumerate(packets) if n not in gone))
    return path


def image(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture: RGB, RGBA or grey, 8 or 16 bits."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2] if pixels.ndim == 3 else 1)
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels[..., order] if order else pixels))
    assert done
    path.write_bytes(bytes(data))
    return path


def sound_of(path: Path) -> tuple[list[str], float, float]:
    """The codecs of a film's sound, and its first and last second."""
    with av.open(str(path.absolute())) as container:
        codecs = [s.codec_context.name for s in container.streams.audio]
        if not codecs:
            return [], 0.0, 0.0
        times = [(f.time, f.samples / f.sample_rate) for f in container.decode(audio=0) if f.time is not None]
        start_s, long_s = times[-1]
        return codecs, float(times[0][0]), float(start_s) + long_s
