"""Reads picture files: photos (OpenCV), animations and documents of several pages (Pillow); the header comes first."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vcam.errors import VideoError
from vcam.video.media import FOLDER_RATE, Kind, Media, Note, Picture, Pixels, check_size, reason

_LOOKED_AT = 50  # pictures of an animation that are decoded to see how long they are shown
_ROWS = 256  # of a picture that are laid over white at a time
_SHORTEST_MS, _USUAL_MS = 20, 100  # browsers show pictures of an animation that claim less for the usual time
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
_ORIENTATION, _SUBFILE = 0x0112, 0x00FE  # tags of EXIF and TIFF
# what Pillow's readers raise of damaged bytes, whatever the format (seen by tests/fuzz/test_media.py)
_DAMAGE = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, struct.error),
    Image.DecompressionBombError,
)
_BY_PILLOW = ("AVIF",)  # formats that OpenCV cannot decode


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself: the upright size in pixels, how many pictures it holds, its format."""

    width: int
    height: int
    count: int
    format: str


def header_of(path: Path) -> Header:
    """Read the header alone; raise VcamError when it is none, or of a picture of an absurd size."""
    with _opened(path) as picture:
        width, height = picture.size
        check_size(path, width, height)
        try:
            turned = picture.getexif().get(_ORIENTATION) in _TURNED  # which reads all of a PNG
        except _DAMAGE as error:
            raise VideoError(f"{path}: cannot be read as a picture; it is cut off or damaged") from error
        return Header(*((height, width) if turned else (width, height)), _count(picture), picture.format or "")


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` says it in our words
        try:
            return Image.open(path)
        except Image.DecompressionBombError as error:
            raise VideoError(f"{path}: the picture is absurdly large ({reason(error)}): scale it first") from error
        except UnidentifiedImageError as error:
            raise VideoError(
                f"{path}: cannot be read as a picture; it is cut off, damaged or of another kind"
            ) from error
        except OSError as error:
            if error.errno is None:  # a decoder's, not the system's
                raise VideoError(f"{path}: cannot be read as a picture; it is cut off or damaged") from error
            raise VideoError(f"{path}: cannot be read: {reason(error)}; check its permissions") from error
        except _DAMAGE as error:  # of a header that is damaged
            raise VideoError(f"{path}: cannot be read as a picture; its header is damaged") from error


def _frames(picture: Image.Image) -> int:
    """Return how many pictures the reader finds, 1 where what follows the first is damaged."""
    try:
        return int(getattr(picture, "n_frames", 1))
    except _DAMAGE:
        return 1


def _count(picture: Image.Image) -> int:
    """Return how many pictures the file holds; smaller copies of a TIFF's page are none of their own."""
    count = _frames(picture)
    if picture.format != "TIFF" or count == 1:
        return count
    try:
        pages = 0
        for page in range(count):
            picture.seek(page)
            pages += not _is_copy(picture)
        picture.seek(0)
        return max(1, pages)
    except _DAMAGE:  # what follows the first picture is damaged
        return 1


def _is_copy(page: Any) -> bool:
    return bool(int(page.tag_v2.get(_SUBFILE, 0)) & 1)


def probe_picture(path: Path) -> Media:
    """Say what a picture file holds, an animation as a film; raise VcamError when it cannot be read."""
    header = header_of(path)
    one = Media(path, Kind.IMAGE, header.width, header.height, frames=1, codec=header.format.lower(), pictures=(path,))
    if header.count == 1:
        read_picture(path)  # a damaged one shall be named before an engine starts
        return one
    durations = [picture.duration for picture in islice(_timed(path), _LOOKED_AT)]
    if not durations:
        raise VideoError(f"{path}: cannot be read as a picture; it is cut off or damaged")
    rate = len(durations) / sum(durations, Fraction(0))
    return Media(
        path,
        Kind.VIDEO,
        header.width,
        header.height,
        rate=rate,
        constant_rate=min(Fraction(50), 1 / min(durations)),
        even=len(set(durations)) == 1,
        frames=header.count,
        duration_s=float(header.count / rate),
        codec=header.format.lower(),
        tick=Fraction(1, 1000),
        pictures=(path,),
    )


def read_animation(path: Path, note: Note) -> Iterator[Picture]:
    """Yield the pictures of an animation or of a document with pages, one at a time, over white."""
    time = Fraction(0)
    for timed in _timed(path, note):
        yield timed._replace(time=time)
        time += timed.duration


def _timed(path: Path, note: Note = lambda _: None) -> Iterator[Picture]:
    """Yield the pictures with how long each is shown."""
    with _opened(path) as file:
        for index in range(_frames(file)):
            try:
                file.seek(index)
                if file.format == "TIFF" and index and _is_copy(file):
                    continue
                check_size(path, *file.size)
                shown = ImageOps.exif_transpose(file).convert("RGBA")
                duration = _duration(file)  # which some formats tell only once the picture is decoded
            except _DAMAGE as error:
                note(f"{path}: reading stops early, at picture {index + 1}: {reason(error)}")
                return
            yield _over_white(np.asarray(shown), "")._replace(duration=duration)


def _duration(file: Image.Image) -> Fraction:
    if file.format == "TIFF":
        return 1 / FOLDER_RATE
    told = float(file.info.get("duration") or 0)
    return Fraction(round(told if told >= _SHORTEST_MS else _USUAL_MS), 1000)


def read_picture(path: Path, note: Note = lambda _: None) -> Picture:
    """Read one picture, upright, the transparent over white; raise VcamError."""
    header = header_of(path)
    if header.format in _BY_PILLOW:
        picture = next(_timed(path, note), None)
        if picture is None:
            raise VideoError(f"{path}: cannot be read as a picture; it is cut off or damaged")
        return picture._replace(name=path.name, duration=Fraction(0))
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)  # cv2.imread cannot open every name on Windows
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    stored = _decoded(path, data, cv2.IMREAD_UNCHANGED)
    if stored.dtype != np.uint8:
        note(f"{path}: {stored.dtype.itemsize * 8} bits a channel are read; the result has 8")
    if stored.ndim == 3 and stored.shape[2] == 4 and stored.shape[:2] == (header.height, header.width):
        rgba = np.dstack([_eight_bit(stored[..., channel]) for channel in (2, 1, 0, 3)])
        return _over_white(rgba, path.name)
    del stored  # it may be large; transparency of one that EXIF turns is not worth a transposition table
    upright = _decoded(path, data, cv2.IMREAD_COLOR)
    return Picture(np.ascontiguousarray(upright[..., ::-1], np.uint8), name=path.name)


def read_still(path: str) -> Pixels:
    """Return the picture of a file, for use behind or in place of a person; raise VcamError.

    path: a full one, for a running camera has no folder in which it stands.
    """
    where = Path(path)
    if not where.is_absolute():
        raise VideoError(f"{path}: give the full path of the picture")
    try:
        if not where.is_file():  # before it is opened: a pipe would wait for ever
            raise VideoError(f"{path}: no such picture; check the name")
    except OSError as error:  # a name that no file can have
        raise VideoError(f"{path}: cannot be read: {error.strerror}; check its name") from error
    return read_picture(where).rgb


def _decoded(path: Path, data: npt.NDArray[np.uint8], how: int) -> npt.NDArray[Any]:
    try:
        decoded = cv2.imdecode(data, how) if data.size else None
    except cv2.error as error:
        raise VideoError(f"{path}: cannot be read as a picture; it is damaged or absurdly large") from error
    if decoded is None:
        raise VideoError(f"{path}: cannot be read as a picture; it is cut off, damaged or of another kind")
    return decoded


def _over_white(rgba: Pixels, name: str) -> Picture:
    alpha = np.ascontiguousarray(rgba[..., 3])
    rgb = np.ascontiguousarray(rgba[..., :3])
    if alpha.min() == 255:
        return Picture(rgb, alpha=alpha, name=name)
    for top in range(0, len(rgb), _ROWS):
        rows = slice(top, top + _ROWS)
        cover = alpha[rows, :, None].astype(np.float32) / 255
        rgb[rows] = np.rint(rgb[rows].astype(np.float32) * cover + 255 * (1 - cover)).astype(np.uint8)
    return Picture(rgb, alpha=alpha, name=name)


def _eight_bit(channel: npt.NDArray[Any]) -> Pixels:
    if channel.dtype == np.uint16:
        return np.asarray(channel >> 8, np.uint8)
    if channel.dtype == np.uint8:
        return np.asarray(channel, np.uint8)
    return np.asarray(np.rint(np.clip(channel, 0, 1) * 255), np.uint8)
