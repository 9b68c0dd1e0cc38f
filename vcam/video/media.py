"""What is known of a film, a picture or a folder of pictures, and what of it every reader and writer must know."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace

from vcam.errors import VcamError

Pixels = npt.NDArray[np.uint8]
Note = Callable[[str], None]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SMALLEST, LARGEST = 16, 8192  # pixels, either side
FOLDER_RATE = Fraction(25)  # pictures per second, when a folder of pictures becomes a film

# AVColorSpace numbers (H.273 matrix coefficients) of the matrices that swscale can apply.
BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 1, 2, 4, 5, 6, 7, 9
MATRICES = {
    BT709: Colorspace.ITU709,
    FCC: Colorspace.FCC,
    BT470BG: Colorspace.ITU601,
    SMPTE170M: Colorspace.ITU601,
    SMPTE240M: Colorspace.SMPTE240M,
    BT2020: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
LIMITED, FULL = 1, 2


def to_stderr(text: str) -> None:
    """Print `text` on stderr as a note of the program."""
    print(f"vcam: note: {text}", file=sys.stderr, flush=True)


def kept(note: Note) -> tuple[list[str], Note]:
    """A list, and a function that puts notes there and passes them on to `note`."""
    notes: list[str] = []

    def noted(text: str) -> None:
        notes.append(text)
        note(text)

    return notes, noted


def check_frames(frames: int | None) -> None:
    """Raises VcamError for a number of frames that cannot be asked for."""
    if frames is not None and frames < 1:
        raise VcamError(f"frames is {frames}; it must be 1 or more")


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


UPRIGHT = Turn()


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
    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    pixel_aspect: Fraction = Fraction(1)
    turn: Turn = UPRIGHT
    start_s: Fraction = Fraction(0)
    tick: Fraction = Fraction(1, 90000)
    pictures: tuple[Path, ...] = ()


class Picture(NamedTuple):
    """One picture: RGB uint8 [height, width, 3], its time in seconds, alpha uint8 [height, width], its file's name."""

    rgb: Pixels
    time: Fraction = Fraction(0)
    alpha: Pixels | None = None
    name: str = ""


def guessed_matrix(width: int, height: int) -> int:
    """The matrix that players assume of an untagged film of that size."""
    return BT709 if width >= 1280 or height > 576 else SMPTE170M


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
