"""Pictures as files hold them, marked as what AI made."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from core.settings import Origin
from vcam.video.marking import Marker, xmp
from vcam.video.media import Pixels

_ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
_TIFF_DESCRIPTION, _TIFF_XMP = 270, 700
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def encoded(rgb: Pixels, suffix: str, marker: Marker, alpha: Pixels | None = None) -> bytes:
    """Return the picture as a file of that suffix (of IMAGE_SUFFIXES) holds it, marked as far as its kind can be.

    Raise ValueError for a picture that cannot be encoded so.
    """
    if alpha is not None and suffix in _ALPHA_SUFFIXES:
        rgb = np.dstack([rgb, alpha])
    if suffix in (".tif", ".tiff"):  # OpenCV writes no metadata into them
        return marker.picture(_tiff(rgb, marker.origin), suffix)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix in (".jpg", ".jpeg") else []
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    if suffix == ".bmp":  # holds nothing but pixels
        done, data = cv2.imencode(suffix, bgr, options)
    else:
        packet = (_JPEG_XMP if options else b"") + xmp(marker.origin)
        kinds, packets = [cv2.IMAGE_METADATA_XMP], [np.frombuffer(packet, np.uint8)]
        done, data = cv2.imencodeWithMetadata(suffix, bgr, kinds, packets, options)
    if not done:
        raise ValueError(f"a {suffix} picture cannot be made")
    return marker.picture(bytes(data), suffix)


def _tiff(pixels: Pixels, origin: Origin) -> bytes:
    file = io.BytesIO()
    tags = {_TIFF_DESCRIPTION: str(origin), _TIFF_XMP: xmp(origin)}
    Image.fromarray(pixels).save(file, "TIFF", compression="tiff_lzw", tiffinfo=tags)
    return file.getvalue()
