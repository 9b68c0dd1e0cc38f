"""Pictures on their way between camera and server: JPEG, whose size is looked at before anything is decoded."""

from __future__ import annotations

import io

import cv2
import numpy as np

from vcam.errors import RemoteError
from vcam.frames import Picture

QUALITY = 92  # finer than the eye sees in a translation; a 384x288 picture is about 30 kB


def to_jpeg(picture: Picture) -> bytes:
    """Return the picture as JPEG."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def from_jpeg(data: bytes, size: tuple[int, int]) -> Picture:
    """Return the JPEG's picture; raises RemoteError unless it is one of exactly `size` (width, height).

    The size is read from its header first: a few bytes may claim to be gigabytes of pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            found = opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RemoteError("a picture came that is no JPEG") from None
    if found != size:
        raise RemoteError(f"a picture of {found[0]}x{found[1]} came; it must be {size[0]}x{size[1]}")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.shape != (size[1], size[0], 3):
        raise RemoteError("a picture came that is a damaged JPEG")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
