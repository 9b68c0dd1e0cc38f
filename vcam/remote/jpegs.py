"""Pictures on their way between camera and server: JPEG, whose size is looked at before anything is decoded."""

from __future__ import annotations

import re
import struct

import cv2
import numpy as np

from vcam.errors import RemoteError
from vcam.frames import Picture

SMALLEST_ROOM = 64 * 1024  # bytes that a JPEG may have besides three a pixel
MOST_SEGMENTS = 64  # before the pixels
_BASELINE, _SCAN, _END = 0xC0, 0xDA, 0xD9
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # what says how large it is, and how it is coded
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # among the pixels
QUALITY = 92  # finer than the eye sees in a translation; a 384x288 picture is about 30 kB


def to_jpeg(picture: Picture) -> bytes:
    """Return the picture as JPEG."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def from_jpeg(data: bytes, size: tuple[int, int]) -> Picture:
    """Return the JPEG's picture; raises RemoteError unless it is one of exactly `size` (width, height).

    Size and coding are read from its header first: a few bytes may claim to be gigabytes of pixels, or hold thousands
    of scans, each of which is as much work as a picture. So it must be as `to_jpeg` makes it: baseline, of one scan.
    """
    coding, found, pixels_at = _header(data)
    if found != size:
        raise RemoteError(f"a picture of {found[0]}x{found[1]} came; it must be {size[0]}x{size[1]}")
    after = _MARKER.search(data, pixels_at)
    if coding != _BASELINE or (after is not None and after[1][0] != _END):
        raise RemoteError("a picture came that is no baseline JPEG of one scan")
    if len(data) > 3 * size[0] * size[1] + SMALLEST_ROOM:
        raise RemoteError(f"a picture of {len(data)} bytes came, which is more than its pixels need")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.shape != (size[1], size[0], 3):
        raise RemoteError("a picture came that is a damaged JPEG")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _header(data: bytes) -> tuple[int, tuple[int, int], int]:
    """Return how a JPEG is coded (its SOF marker), its size, and where its first scan's pixels begin.

    Raises RemoteError for what is no JPEG. ITU-T T.81, annex B.
    """
    coding, size, at = 0, (0, 0), 2
    segments = 0
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and segments < MOST_SEGMENTS:
        mark, marker, length = struct.unpack_from("!BBH", data, at)
        if mark != 0xFF or length < 2 or (marker in _FRAMES and coding):
            break
        if marker in _FRAMES:
            height, width = struct.unpack_from("!HH", data, at + 5)
            coding, size = marker, (width, height)
        at, segments = at + 2 + length, segments + 1
        if marker == _SCAN and coding:
            return coding, size, at
    raise RemoteError("a picture came that is no JPEG")
