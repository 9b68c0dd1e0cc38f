"""Reading and writing films, pictures and folders of pictures (PyAV and OpenCV), one picture at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from vcam.errors import VcamError

Pixels = npt.NDArray[np.uint8]
Note = Callable[[str], None]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SMALLEST, LARGEST = 16, 8192  # pixels, either side
FOLDER_RATE = Fraction(25)  # pictures per second, when a folder of pictures becomes a film

_ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
_ENCODERS = {
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"}),
    ".avi": ("mjpeg", {"qmin": "2", "qmax": "4"}),
}
_X264 = ("libx264", {"crf": "17", "preset": "faster"})
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

# AVColorSpace numbers (H.273 matrix coefficients) of the matrices that swscale can apply.
_RGB, _BT709, _UNSPECIFIED, _FCC, _BT470BG, _SMPTE170M, _SMPTE240M, _BT2020 = 0, 1, 2, 4, 5, 6, 7, 9
_MATRICES = {
    _BT709: Colorspace.ITU709,
    _FCC: Colorspace.FCC,
    _BT470BG: Colorspace.ITU601,
    _SMPTE170M: Colorspace.ITU601,
    _SMPTE240M: Colorspace.SMPTE240M,
    _BT2020: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_LIMITED, _FULL = 1, 2


def to_stderr(text: str) -> None:
    """Print `text` on stderr as a note of the program."""
    print(f"vcam: note: {text}", file=sys.stderr, flush=True)


class Kind(Enum):
    """What a path holds."""

    VIDEO = "video"
    IMAGE = "image"
    FOLDER = "folder"


class Turn(NamedTuple):
    """How a stored picture becomes an upright one: first transposed, then mirrored."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False


_UPRIGHT = Turn()


@dataclass(frozen=True)
class Media:
    """What is known of a film, a picture or a folder of pictures before all of it is read.

    width, height: pixels of the upright picture. rate: pictures per second. frames: how many there should be (exact
    for pictures, what the file says for a film, None when it says nothing). matrix, primaries, transfer: H.273
    numbers. pixel_aspect: width over height of one upright pixel. start_s: time that counts as zero. tick: the
    resolution of the file's clock in seconds. audio: the codec of each sound stream. pictures: files of a folder.
    """

    path: Path
    kind: Kind
    width: int
    height: int
    rate: Fraction = FOLDER_RATE
    frames: int | None = None
    duration_s: float | None = None
    codec: str = ""
    audio: tuple[str, ...] = ()
    matrix: int = _UNSPECIFIED
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED
    pixel_aspect: Fraction = Fraction(1)
    turn: Turn = _UPRIGHT
    start_s: Fraction = Fraction(0)
    tick: Fraction = Fraction(1, 90000)
    pictures: tuple[Path, ...] = ()


class Picture(NamedTuple):
    """One picture: RGB uint8 [height, width, 3], its time in seconds, alpha uint8 [height, width], its file's name."""

    rgb: Pixels
    time: Fraction = Fraction(0)
    alpha: Pixels | None = None
    name: str = ""


class Writer(Protocol):
    """Takes pictures in order; nothing is found under the final name before `finish`."""

    def write(self, picture: Picture) -> None:
        """Add one picture; raises VcamError when it cannot be written."""

    def finish(self, cut: bool = False) -> None:
        """Complete the result under its final name; `cut` ends the sound with the last picture."""

    def abandon(self) -> None:
        """Remove what was written."""


# ---------------------------------------------------------------------------------------------------- looking


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
            f"{path}: cannot be read as a film or picture ({_reason(error)}); it may be cut off, damaged or of "
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


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__


def _turn(frame: VideoFrame) -> Turn:
    """What the frame's display matrix asks for, to the nearest quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn()
    a, b, _, c, d = np.frombuffer(cast(Any, data), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


# ---------------------------------------------------------------------------------------------------- reading


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
            note(f"{container.name}: reading stops early: {_reason(error)}")
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


def _guessed_matrix(width: int, height: int) -> int:
    return _BT709 if width >= 1280 or height > 576 else _SMPTE170M  # what players assume of an untagged film


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> Pixels:
    if not _is_yuv(frame):
        return cast(Pixels, reformatter.reformat(frame, format="rgb24").to_ndarray())
    matrix = _MATRICES.get(int(frame.colorspace)) or _MATRICES[_guessed_matrix(frame.width, frame.height)]
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return cast(Pixels, rgb.to_ndarray())


def _upright(rgb: Pixels, turn: Turn) -> Pixels:
    if turn == _UPRIGHT:
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


# ---------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def writing(target: Path, like: Media, note: Note = to_stderr) -> Iterator[Writer]:
    """A writer for `target` of pictures like those of `like`; leaving without `finish` leaves nothing behind.

    The suffix of `target` says what is written: a film (.mp4 .mov .mkv: H.264, .webm: VP9, .avi: MJPEG) with the
    sound of `like`, a picture, or without a suffix a folder of pictures. Raises VcamError.
    """
    kind = _check_target(target, like)
    make: dict[Kind, Callable[[Path, Media, Note], Writer]] = {
        Kind.VIDEO: _VideoWriter,
        Kind.IMAGE: _ImageWriter,
        Kind.FOLDER: _FolderWriter,
    }
    writer = make[kind](target, like, note)
    try:
        yield writer
    finally:
        writer.abandon()  # nothing to remove after finish()


def _check_target(target: Path, like: Media) -> Kind:
    """What kind of result `target` names; raises VcamError when it cannot become that."""
    suffix = target.suffix.lower()
    if target.exists() and like.path.exists() and os.path.samefile(target, like.path):
        raise VcamError(f"{target}: the output is the input; give it another name")
    if not target.absolute().parent.is_dir():
        raise VcamError(f"{target}: the folder {target.absolute().parent} does not exist; create it first")
    if like.kind is Kind.FOLDER and like.path.resolve() in target.absolute().resolve().parents:
        raise VcamError(f"{target}: the output lies in the input folder; put it somewhere else")
    if target.is_dir() or not suffix:
        if like.kind is Kind.IMAGE:
            raise VcamError(f"{target}: one picture needs a file name for its result, such as {target}.png")
        if target.is_dir() and any(target.iterdir()):
            raise VcamError(f"{target}: this folder is not empty; name a new or an empty one")
        if target.exists() and not target.is_dir():
            raise VcamError(
                f"{target}: this file has no suffix that says what to write; give a name such as {target}.mp4"
            )
        return Kind.FOLDER
    if suffix in VIDEO_SUFFIXES and like.kind is not Kind.IMAGE:
        return Kind.VIDEO
    if suffix in IMAGE_SUFFIXES and like.kind is Kind.IMAGE:
        return Kind.IMAGE
    if suffix in VIDEO_SUFFIXES:
        raise VcamError(f"{target}: a single picture becomes a picture; use one of {', '.join(IMAGE_SUFFIXES)}")
    if suffix in IMAGE_SUFFIXES:
        raise VcamError(
            f"{target}: {'a film' if like.kind is Kind.VIDEO else 'a folder of pictures'} becomes a film "
            f"({', '.join(VIDEO_SUFFIXES)}) or a folder (a name without a suffix)"
        )
    raise VcamError(
        f"{target}: unknown suffix {target.suffix}; use {', '.join(VIDEO_SUFFIXES)} for a film, "
        f"{', '.join(IMAGE_SUFFIXES)} for a picture, no suffix for a folder of pictures"
    )


_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "the file may not grow any larger here: choose another disk or a shorter film",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
}


@contextlib.contextmanager
def _errors_of(target: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "choose another place or another kind of file")
        raise VcamError(f"{target}: cannot be written: {_reason(error)}; {remedy}") from error


def _part(target: Path) -> Path:
    return target.with_name(f".{target.stem}.part{target.suffix}")


def _encoded(picture: Picture, suffix: str) -> bytes:
    bgr = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR)
    if picture.alpha is not None and suffix in _ALPHA_SUFFIXES:
        bgr = np.dstack([bgr, picture.alpha])
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}.get(suffix, [])
    done, data = cv2.imencode(suffix, bgr, options)
    if not done:
        raise ValueError(f"a {suffix} picture cannot be made")
    return bytes(data)


class _ImageWriter:
    """Writes one picture."""

    def __init__(self, target: Path, like: Media, note: Note) -> None:
        self._target, self._part = target, _part(target)
        self._count = 0
        with _errors_of(target):
            self._part.write_bytes(b"")

    def write(self, picture: Picture) -> None:
        with _errors_of(self._target):
            self._part.write_bytes(_encoded(picture, self._target.suffix.lower()))
        self._count += 1

    def finish(self, cut: bool = False) -> None:
        if not self._count:
            raise VcamError(f"{self._target}: nothing was written, there is no picture")
        with _errors_of(self._target):
            os.replace(self._part, self._target)

    def abandon(self) -> None:
        self._part.unlink(missing_ok=True)


class _FolderWriter:
    """Writes numbered pictures, or pictures under the names that they came with."""

    def __init__(self, target: Path, like: Media, note: Note) -> None:
        self._target, self._part = target, target.with_name(f".{target.name}.part")
        self._count = 0
        with _errors_of(target):
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()

    def write(self, picture: Picture) -> None:
        self._count += 1
        name = picture.name or f"{self._count:06d}.png"
        with _errors_of(self._target):
            (self._part / name).write_bytes(_encoded(picture, Path(name).suffix.lower()))

    def finish(self, cut: bool = False) -> None:
        if not self._count:
            raise VcamError(f"{self._target}: nothing was written, there is no picture")
        with _errors_of(self._target):
            if self._target.is_dir():
                self._target.rmdir()  # it is empty: _check_target
            self._part.rename(self._target)

    def abandon(self) -> None:
        shutil.rmtree(self._part, ignore_errors=True)


class _VideoWriter:
    """Writes a film with the clock, colours and sound of another."""

    def __init__(self, target: Path, like: Media, note: Note) -> None:
        suffix = target.suffix.lower()
        self._target, self._part, self._like, self._note = target, _part(target), like, note
        self._count, self._last, self._closed = 0, -1, False
        self._even_rate = suffix == ".avi"
        self._uneven = False
        codec, options = _ENCODERS.get(suffix, _X264)
        with _errors_of(target):
            self._part.touch()  # PyAV opens the file at the first picture: an unwritable place is to be said now
            self._container: OutputContainer = av.open(str(self._part), "w")
            self._stream = cast(VideoStream, self._container.add_stream(codec, rate=like.rate, options=options))
        self._clock = 1 / like.rate if self._even_rate else _clock(like.tick, like.rate)
        self._matrix = like.matrix if like.matrix in _MATRICES else _guessed_matrix(like.width, like.height)
        self._range = _LIMITED
        if codec == "mjpeg":  # JPEG knows one matrix and one range
            self._matrix, self._range = _BT470BG, _FULL
        context = self._stream.codec_context
        context.width, context.height = like.width, like.height
        context.pix_fmt = self._pixel_format(codec)
        context.time_base = self._clock
        context.sample_aspect_ratio = like.pixel_aspect
        context.colorspace, context.color_range = self._matrix, self._range
        context.color_primaries = like.primaries if like.primaries != _UNSPECIFIED else _usual(self._matrix)
        context.color_trc = like.transfer if like.transfer != _UNSPECIFIED else _usual(self._matrix)
        context.thread_type = "AUTO"
        self._reformatter = VideoReformatter()
        try:
            self._sound = _Sound(like, self._container, suffix, note) if like.audio else None
        except BaseException:
            self.abandon()
            raise

    def _pixel_format(self, codec: str) -> str:
        like = self._like
        if codec == "mjpeg":
            return "yuvj420p"
        if codec == "libx264" and (like.width % 2 or like.height % 2):
            self._note(
                f"{self._target}: {like.width}x{like.height} is odd, so it is written as H.264 4:4:4, which some "
                "players cannot show; .webm takes odd sizes everywhere"
            )
            return "yuv444p"
        return "yuv420p"

    def write(self, picture: Picture) -> None:
        like = self._like
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(resized(picture.rgb, like.width, like.height)), "rgb24")
        converted = self._reformatter.reformat(
            frame,
            format=self._stream.codec_context.pix_fmt,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=_MATRICES[self._matrix],
            dst_color_range=self._range,
            interpolation="BICUBIC",
        )
        converted.colorspace, converted.color_range = self._matrix, self._range
        context = self._stream.codec_context
        converted.color_primaries, converted.color_trc = context.color_primaries, context.color_trc
        converted.pts = self._tick_of(picture.time)
        converted.time_base = self._clock
        converted.duration = max(1, round(1 / like.rate / self._clock))
        with _errors_of(self._target):
            if self._sound:
                self._sound.until(picture.time)
            self._container.mux(self._stream.encode(converted))
        self._count += 1

    def _tick_of(self, time: Fraction) -> int:
        """When a picture is shown, in ticks of the written file; always later than the one before."""
        wanted = round(time / self._clock)
        tick = max(wanted, self._last + 1)
        if self._even_rate:
            tick = self._last + 1
            if tick != wanted and not self._uneven and self._count:
                self._uneven = True
                self._note(
                    f"{self._target}: the pictures of {self._like.path} come at an uneven rate, which .avi cannot "
                    f"hold: written at {float(self._like.rate):g} a second; .mkv or .mp4 keep the times"
                )
        self._last = tick
        return tick

    def finish(self, cut: bool = False) -> None:
        if not self._count:
            raise VcamError(f"{self._target}: nothing was written, there is no picture")
        with _errors_of(self._target):
            self._container.mux(self._stream.encode(None))
            if self._sound:
                self._sound.until(self._last * self._clock + 1 / self._like.rate if cut else None)
                self._sound.complete()
            self._close()
            os.replace(self._part, self._target)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._container.close()
            finally:
                if getattr(self, "_sound", None):
                    cast(_Sound, self._sound).close()

    def abandon(self) -> None:
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):  # the file goes away in any case
            self._close()
        self._part.unlink(missing_ok=True)


def _usual(matrix: int) -> int:
    """The primaries and transfer (same H.273 number) that usually go with a matrix."""
    return {_BT709: 1, _BT470BG: 5 if matrix == _BT470BG else 6}.get(matrix, 6 if matrix == _SMPTE170M else 2)


def _clock(tick: Fraction, rate: Fraction) -> Fraction:
    """A clock that holds both the source's ticks and whole pictures at `rate`, when there is one of sensible size."""
    common = Fraction(1, lcm(tick.denominator, rate.numerator))
    if common.denominator <= 1_000_000:
        return common
    fine = tick.denominator * -(-10_000 // tick.denominator)
    return Fraction(1, min(fine, 1_000_000))


class _Sound:
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
                note(f"{like.path}: its {codec} sound cannot be carried over ({_reason(error)}); written without it")
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
            self._note(f"{self._path}: its sound ends early: {_reason(error)}")
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
