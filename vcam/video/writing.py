"""Writes films, pictures and folders of pictures, one picture at a time (PyAV and OpenCV)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Protocol, cast

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from vcam.errors import VcamError
from vcam.video.media import (
    BT470BG,
    BT709,
    FULL,
    IMAGE_SUFFIXES,
    LIMITED,
    MATRICES,
    SMPTE170M,
    UNSPECIFIED,
    VIDEO_SUFFIXES,
    Kind,
    Media,
    Note,
    Picture,
    guessed_matrix,
    reason,
    to_stderr,
)
from vcam.video.reading import resized
from vcam.video.sound import Sound

_ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
_ENCODERS = {
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"}),
    ".avi": ("mjpeg", {"qmin": "2", "qmax": "4"}),
}
_X264 = ("libx264", {"crf": "17", "preset": "faster"})


class Writer(Protocol):
    """Takes pictures in order; nothing is found under the final name before `finish`."""

    def write(self, picture: Picture) -> None:
        """Add one picture; raises VcamError when it cannot be written."""

    def finish(self, cut: bool = False) -> None:
        """Complete the result under its final name; `cut` ends the sound with the last picture."""

    def abandon(self) -> None:
        """Remove what was written."""


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
        raise VcamError(f"{target}: cannot be written: {reason(error)}; {remedy}") from error


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
        self._matrix = like.matrix if like.matrix in MATRICES else guessed_matrix(like.width, like.height)
        self._range = LIMITED
        if codec == "mjpeg":  # JPEG knows one matrix and one range
            self._matrix, self._range = BT470BG, FULL
        context = self._stream.codec_context
        context.width, context.height = like.width, like.height
        context.pix_fmt = self._pixel_format(codec)
        context.time_base = self._clock
        context.sample_aspect_ratio = like.pixel_aspect
        context.colorspace, context.color_range = self._matrix, self._range
        context.color_primaries = like.primaries if like.primaries != UNSPECIFIED else _usual(self._matrix)
        context.color_trc = like.transfer if like.transfer != UNSPECIFIED else _usual(self._matrix)
        context.thread_type = "AUTO"
        self._reformatter = VideoReformatter()
        try:
            self._sound = Sound(like, self._container, suffix, note) if like.audio else None
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
            dst_colorspace=MATRICES[self._matrix],
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
                    cast(Sound, self._sound).close()

    def abandon(self) -> None:
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):  # the file goes away in any case
            self._close()
        self._part.unlink(missing_ok=True)


def _usual(matrix: int) -> int:
    """The primaries and transfer (same H.273 number) that usually go with a matrix."""
    return {BT709: 1, BT470BG: 5 if matrix == BT470BG else 6}.get(matrix, 6 if matrix == SMPTE170M else 2)


def _clock(tick: Fraction, rate: Fraction) -> Fraction:
    """A clock that holds both the source's ticks and whole pictures at `rate`, when there is one of sensible size."""
    common = Fraction(1, lcm(tick.denominator, rate.numerator))
    if common.denominator <= 1_000_000:
        return common
    fine = tick.denominator * -(-10_000 // tick.denominator)
    return Fraction(1, min(fine, 1_000_000))
