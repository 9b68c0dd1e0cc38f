"""Pictures on their way between camera and server as H.264: each from what has changed since the one before.

A stream is one connection's, one way: its first picture is whole (a key frame), and every one that was encoded must be
decoded, in order. Whatever breaks it ends the connection, so the next one begins with a whole picture again. As with
JPEG, a few bytes may claim to be much work: so a message must be as `Encoder` makes it, one picture in one slice of a
known size, which is looked at before anything is decoded.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from vcam.errors import CodecError
from vcam.frames import Picture
from vcam.remote.jpegs import SMALLEST_ROOM

if TYPE_CHECKING:
    from av import VideoCodecContext

ENCODER, DECODER = "libx264", "h264"
QUALITY = 16  # x264's crf: as far from the original as our JPEG is, see docs/remote.md
_OPTIONS = {
    "preset": "superfast",
    "tune": "zerolatency",
    "crf": str(QUALITY),
    "forced-idr": "1",
    "x264-params": "keyint=infinite:scenecut=0:sliced-threads=0:threads=1:sync-lookahead=0",
}
_UNIT = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)  # ITU-T H.264, annex B
_SLICE, _KEY_SLICE, _BESIDE = 1, 5, (6, 7, 8, 9)  # units: a picture, a whole one; remarks, sequence, pictures, border
MOST_UNITS = 8  # in a message
_COUNT = struct.Struct("!I")  # before each picture: how many there were before it, so that none is missing unseen


@functools.cache
def available() -> bool:
    """Return whether pictures can be encoded and decoded here."""
    import av.codec

    return {ENCODER, DECODER} <= set(av.codec.codecs_available) and _makes()


def _makes() -> bool:
    """Return whether the library does what it says: some are built without what they list."""
    grey = np.full((32, 32, 3), 128, np.uint8)
    try:
        Decoder((32, 32)).decode(Encoder((32, 32)).encode(grey))
    except CodecError:
        return False
    return True


def _context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    from av import CodecContext, VideoCodecContext

    context = CodecContext.create(name, mode)
    assert isinstance(context, VideoCodecContext)
    return context


class Encoder:
    """Encodes the pictures of one connection one way; size: width, height, even numbers. By one thread at a time."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._context = _context(ENCODER, "w")
        self._context.width, self._context.height = size
        self._context.pix_fmt = "yuv420p"
        self._context.framerate = Fraction(30)  # of x264's arithmetic alone
        self._context.options = dict(_OPTIONS)
        self._count = 0

    def encode(self, picture: Picture) -> bytes:
        """Return the next picture, RGB uint8 [height, width, 3], of that size; raises CodecError."""
        import av

        try:
            yuv = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            frame.pts, self._count = self._count, self._count + 1
            data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        except (av.FFmpegError, ValueError, cv2.error) as error:
            raise CodecError(f"a picture could not be encoded as H.264 ({error})") from error
        if not data:
            raise CodecError("a picture could not be encoded as H.264 (nothing came)")
        return _COUNT.pack(frame.pts) + data


class Decoder:
    """Decodes what one Encoder of the other side made; size: width, height. Used by one thread at a time."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._next: int | None = None
        self._context = _context(DECODER, "r")
        self._context.thread_count = 1
        coded = [(side + 63) // 64 * 64 for side in size]  # as the library rounds them up
        self._context.options = {
            "max_pixels": str(coded[0] * coded[1]),  # looked at before memory is taken
            "flags": "low_delay",
            "err_detect": "explode",
            "ec": "0",
        }

    def decode(self, data: bytes) -> Picture:
        """Return the next picture, RGB uint8 [height, width, 3]; raises CodecError for what is none of that size."""
        import av

        coded = data[_COUNT.size :]
        key = _check(coded, self._size)
        (count,) = _COUNT.unpack_from(data)
        if not key and count != self._next:
            raise CodecError("an H.264 picture came that needs one before it, which did not come")
        try:
            frames = self._context.decode(av.Packet(coded))
            planes = [frame.to_ndarray() for frame in frames if frame.format.name == "yuv420p"]
        except (av.FFmpegError, ValueError) as error:
            raise CodecError(f"an H.264 picture came that cannot be decoded ({error})") from error
        width, height = self._size
        if len(planes) != 1 or planes[0].shape != (height * 3 // 2, width):
            raise CodecError(f"an H.264 message came that is not one picture of {width}x{height}")
        self._next = count + 1
        return np.asarray(cv2.cvtColor(planes[0], cv2.COLOR_YUV2RGB_I420), np.uint8)


def _check(data: bytes, size: tuple[int, int]) -> bool:
    """Return whether this is a whole picture; raises CodecError unless it is one picture in one slice."""
    if len(data) > 3 * size[0] * size[1] + SMALLEST_ROOM:
        raise CodecError(f"an H.264 picture of {len(data)} bytes came, which is more than its pixels need")
    if not data.startswith((b"\0\0\1", b"\0\0\0\1")):  # a decoder knows another form, whose units are not to be seen
        raise CodecError("a picture came that is no H.264 of ours")
    units = itertools.islice(_UNIT.finditer(data), MOST_UNITS + 1)  # of a message that is nothing but units too
    kinds = [one[1][0] & 31 for one in units]
    slices = [kind for kind in kinds if kind not in _BESIDE]
    if len(kinds) > MOST_UNITS or len(slices) != 1 or slices[0] not in (_SLICE, _KEY_SLICE):
        raise CodecError("an H.264 message came that is not one picture in one slice")
    return slices[0] == _KEY_SLICE
