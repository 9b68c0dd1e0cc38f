"""Looks at films, pictures and folders of pictures, and reads them one picture at a time (PyAV and OpenCV)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from vcam.errors import VcamError
from vcam.video.media import (
    FOLDER_RATE,
    FULL,
    IMAGE_SUFFIXES,
    LARGEST,
    MATRICES,
    SMALLEST,
    UPRIGHT,
    Kind,
    Media,
    Note,
    Picture,
    Pixels,
    Turn,
    guessed_matrix,
    reason,
    to_stderr,
)


def probe(path: Path) -> Media:
    """Say what `path` holds; raises VcamError when it cannot be read, holds no picture or is of an absurd size."""
    if not path.exists():
        raise VcamError(f"{path}: no such file or folder; check the name")
    media = _probe_folder(path) if path.is_dir() else _probe_file(path)
    if not all(SMALLEST <= side <= LARGEST for side in (media.width, media.height)):
        raise VcamError(
            f"{path}: the picture is {media.width}x{media.height}; each side must be between {SMALLEST} and {LARGEST} "
            "pixels: scale it first"
        )
    return media


def _probe_file(path: Path) -> Media:
    if not path.is_file():
        raise VcamError(f"{path}: not a file or folder; give a film, a picture or a folder of pictures")
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise VcamError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    if empty:
        raise VcamError(f"{path}: the file is empty (0 bytes); record or copy it again")
    return _probe_image(path) if path.suffix.lower() in IMAGE_SUFFIXES else _probe_video(path)


def _probe_image(path: Path) -> Media:
    height, width = _read_image(path).rgb.shape[:2]
    return Media(path, Kind.IMAGE, width, height, frames=1, codec=path.suffix.lower()[1:], pictures=(path,))


def _probe_folder(path: Path) -> Media:
    try:
        found = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise VcamError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    pictures = tuple(sorted((f for f in found if f.is_file()), key=lambda f: natural(f.name)))
    if not pictures:
        raise VcamError(f"{path}: no pictures in this folder; it must hold {', '.join(IMAGE_SUFFIXES)} files")
    first = _probe_file(pictures[0])
    seconds = float(len(pictures) / FOLDER_RATE)
    return replace(first, path=path, kind=Kind.FOLDER, frames=len(pictures), duration_s=seconds, pictures=pictures)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which `9.png` comes before `10.png`."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts] + [(-1, name)]


def _probe_video(path: Path) -> Media:
    with _opened(path) as container:
        stream = _picture_stream(path, container)
        frame = next(_decoded(container, stream, lambda _: None), None)
        if frame is None:
            raise VcamError(f"{path}: not one picture can be decoded; the file is cut off or damaged")
        turn = _turn(frame)
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        rate = stream.guessed_rate or stream.average_rate or FOLDER_RATE
        tick = Fraction(stream.time_base or Fraction(1, 90000))
        starts = [
            s.start_time * Fraction(s.time_base)
            for s in (stream, *container.streams.audio)
            if s.start_time is not None and s.time_base is not None
        ]
        seconds = _duration_s(container, stream)
        frames = stream.frames or (round(seconds * rate) if seconds else None)
        width, height = (frame.height, frame.width) if turn.transpose else (frame.width, frame.height)
        return Media(
            path=path,
            kind=Kind.VIDEO,
            width=width,
            height=height,
            rate=Fraction(rate),
            frames=frames,
            duration_s=seconds,
            codec=stream.codec_context.name,
            audio=tuple(s.codec_context.name if s.codec_context else "unknown" for s in container.streams.audio),
            matrix=int(frame.colorspace),
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            pixel_aspect=1 / aspect if turn.transpose else aspect,
            turn=turn,
            start_s=max(Fraction(0), min(starts, default=Fraction(0))),
            tick=tick,
        )


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VcamError(
            f"{path}: cannot be read as a film or picture ({reason(error)}); it may be cut off, damaged or of "
            "another kind"
        ) from error
    with container:
        yield container


def _picture_stream(path: Path, container: InputContainer) -> VideoStream:
    if "tty" in container.format.name:  # ffmpeg would draw a text file as a film
        raise VcamError(f"{path}: this is a text file; give a film, a picture or a folder of pictures")
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        holds = "only sound" if container.streams.audio else "nothing to see"
        raise VcamError(f"{path}: no video stream (it holds {holds}); give a film or a picture")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0) if s.codec_context else -1)
    if stream.codec_context is None:
        raise VcamError(f"{path}: its video codec is not supported; convert it to H.264 first")
    stream.thread_type = "AUTO"
    return stream


def _turn(frame: VideoFrame) -> Turn:
    """What the frame's display matrix asks for, to the nearest quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn()
    a, b, _, c, d = np.frombuffer(cast(Any, data), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


def read(media: Media, note: Note = to_stderr) -> Iterator[Picture]:
    """Every picture in order, upright; damaged or missing ones are said by `note`; holds one picture at a time."""
    if media.kind is not Kind.VIDEO:
        yield from _read_images(media, note)
        return
    count = 0
    for picture in _read_video(media, note):
        count += 1
        yield picture
    if media.frames and count < 0.98 * media.frames - 1:
        note(f"{media.path}: {count} pictures could be decoded of the {media.frames} that the file announces")


def _read_images(media: Media, note: Note) -> Iterator[Picture]:
    note_once = _once(note) if media.kind is Kind.FOLDER else note
    for index, path in enumerate(media.pictures):
        picture = _read_image(path, note_once)
        yield picture._replace(time=index / media.rate)


def _once(note: Note) -> Note:
    said: set[str] = set()

    def first(text: str) -> None:
        key = text.partition(": ")[2]
        if key not in said:
            said.add(key)
            note(text)

    return first


def _read_image(path: Path, note: Note = lambda _: None) -> Picture:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)  # cv2.imread cannot open every name on Windows
    except OSError as error:
        raise VcamError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    try:
        stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        upright = cv2.imdecode(data, cv2.IMREAD_COLOR) if stored is not None else None
    except cv2.error as error:
        raise VcamError(f"{path}: cannot be read as a picture; it is damaged or absurdly large") from error
    if stored is None or upright is None:
        raise VcamError(f"{path}: cannot be read as a picture; it is cut off, damaged or of another kind")
    if stored.dtype != np.uint8:
        note(f"{path}: {stored.dtype.itemsize * 8} bits a channel are read; the result has 8")
    if stored.ndim == 2 or stored.shape[2] != 4:
        return Picture(_rgb_of(upright), name=path.name)
    alpha = _eight_bit(stored[..., 3])
    if alpha.shape != upright.shape[:2]:  # turned by EXIF: transparency there is not worth a transposition table
        return Picture(_rgb_of(upright), name=path.name)
    cover = alpha[..., None].astype(np.float32) / 255
    over_white = _eight_bit(stored[..., :3]).astype(np.float32) * cover + 255 * (1 - cover)
    rgb = _rgb_of(np.rint(over_white).astype(np.uint8))
    return Picture(rgb, alpha=alpha, name=path.name)


def _rgb_of(bgr: npt.NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def _eight_bit(channel: npt.NDArray[Any]) -> Pixels:
    if channel.dtype == np.uint16:
        return np.asarray(channel >> 8, np.uint8)
    if channel.dtype == np.uint8:
        return np.asarray(channel, np.uint8)
    return np.asarray(np.rint(np.clip(channel, 0, 1) * 255), np.uint8)


def _read_video(media: Media, note: Note) -> Iterator[Picture]:
    reformatter = VideoReformatter()
    expected = Fraction(0)
    other_size = False
    with _opened(media.path) as container:
        stream = _picture_stream(media.path, container)
        for frame in _decoded(container, stream, note):
            rgb = _upright(_to_rgb(frame, reformatter), media.turn)
            if rgb.shape[:2] != (media.height, media.width):
                if not other_size:
                    note(f"{media.path}: the picture's size changes; all are brought to {media.width}x{media.height}")
                other_size = True
                rgb = resized(rgb, media.width, media.height)
            if frame.pts is None or frame.time_base is None:
                time = expected
            else:
                time = on_grid(frame.pts * Fraction(frame.time_base) - media.start_s, media.rate, media.tick)
            expected = time + 1 / media.rate
            yield Picture(rgb, time)


def _decoded(container: InputContainer, stream: VideoStream, note: Note) -> Iterator[VideoFrame]:
    """Every frame that decodes; damaged packets are skipped and counted."""
    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            note(f"{container.name}: reading stops early: {reason(error)}")
            try:
                yield from stream.decode(None)  # what the decoder still holds
            except av.error.FFmpegError:
                damaged += 1
            break
        try:
            frames = stream.decode(packet)
        except av.error.EOFError:
            continue
        except av.error.FFmpegError:
            damaged += 1
            continue
        yield from frames
    if damaged:
        note(f"{container.name}: {damaged} damaged pictures could not be decoded and are left out")


def on_grid(time: Fraction, rate: Fraction, tick: Fraction) -> Fraction:
    """`time` (s) moved to the nearest multiple of 1/rate when that is less than one `tick` of the file's clock away."""
    near = round(time * rate) / rate
    return near if abs(near - time) < tick else time


def _is_yuv(frame: VideoFrame) -> bool:
    return not frame.format.is_rgb and len(frame.format.components) >= 3


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> Pixels:
    if not _is_yuv(frame):
        return cast(Pixels, reformatter.reformat(frame, format="rgb24").to_ndarray())
    matrix = MATRICES.get(int(frame.colorspace)) or MATRICES[guessed_matrix(frame.width, frame.height)]
    full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return cast(Pixels, rgb.to_ndarray())


def _upright(rgb: Pixels, turn: Turn) -> Pixels:
    if turn == UPRIGHT:
        return rgb
    if turn.transpose:
        rgb = rgb.transpose(1, 0, 2)
    rgb = rgb[:: -1 if turn.flip else 1, :: -1 if turn.mirror else 1]
    return np.ascontiguousarray(rgb)


def resized(rgb: Pixels, width: int, height: int) -> Pixels:
    """The whole picture at width x height: area averaging when it shrinks, Lanczos when it grows."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    result = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return cast(Pixels, result)
