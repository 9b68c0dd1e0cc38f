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

from vcam.errors import VideoError

Pixels = npt.NDArray[np.uint8]
Note = Callable[[str], None]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # read and written
READ_SUFFIXES = (*IMAGE_SUFFIXES, ".avif")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SMALLEST, LARGEST = 16, 8192  # pixels, either side
MOST_PIXELS = 8192 * 6144  # of one picture: a phone's 50 megapixels and films in 8K; decoding takes up to 16 bytes each
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
    """Print `text` on stderr as a note of the program, on a line of its own where a progress bar is shown."""
    told = f"vcam: note: {text}"
    if (tqdm := sys.modules.get("tqdm")) is not None:
        tqdm.tqdm.write(told, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(told, file=sys.stderr, flush=True)


def kept(note: Note) -> tuple[list[str], Note]:
    """Return a list, and a function that puts notes there and passes them on to `note`."""
    notes: list[str] = []

    def noted(text: str) -> None:
        notes.append(text)
        note(text)

    return notes, noted


def check_frames(frames: int | None) -> None:
    """Refuse a number of frames that cannot be asked for; raise VcamError."""
    if frames is not None and frames < 1:
        raise VideoError(f"frames is {frames}; it must be 1 or more")


class Kind(Enum):
    """What a path holds."""

    VIDEO = "video"
    IMAGE = "image"
    FOLDER = "folder"


class Orientation(NamedTuple):
    """How a stored picture becomes an upright one: first transposed, then mirrored."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False


@dataclass(frozen=True)
class Media:
    """What is known of a film, a picture or a folder of pictures before all of it is read.

    width, height: pixels of the upright picture. rate: pictures per second, the mean where they come unevenly.
    constant_rate: a rate at which a file that stores no times can hold them. frames: how many pictures the file itself
    counts; None where it does not. duration_s: until the last picture's end, None where the file does not say.
    matrix, primaries, transfer: H.273 numbers. pixel_aspect: width over height of one upright pixel. start_s: time
    that counts as zero. tick: the resolution of the file's clock in seconds. audio: the codec of each sound stream.
    pictures: files of a folder, or the one file that holds a picture or an animation.
    """

    path: Path
    kind: Kind
    width: int
    height: int
    rate: Fraction = FOLDER_RATE
    constant_rate: Fraction = FOLDER_RATE
    even: bool = True
    frames: int | None = None
    duration_s: float | None = None
    codec: str = ""
    audio: tuple[str, ...] = ()
    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    pixel_aspect: Fraction = Fraction(1)
    start_s: Fraction = Fraction(0)
    tick: Fraction = Fraction(1, 90000)
    pictures: tuple[Path, ...] = ()

    @property
    def expected(self) -> int | None:
        """About how many pictures there will be: for a progress bar, never for a statement."""
        return self.frames or (round(self.duration_s * self.rate) if self.duration_s else None)

    @property
    def animated(self) -> bool:
        """Whether this is a picture file that holds several pictures."""
        return self.kind is Kind.VIDEO and bool(self.pictures)


class Picture(NamedTuple):
    """One picture: RGB uint8 [height, width, 3], its time and how long it is shown in seconds, alpha uint8 [height,
    width], its file's name. duration: 0 while that is unknown."""

    rgb: Pixels
    time: Fraction = Fraction(0)
    alpha: Pixels | None = None
    name: str = ""
    duration: Fraction = Fraction(0)


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture of an absurd size before it is decoded; raise VcamError."""
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise VideoError(
            f"{path}: the picture is {width}x{height}; each side must be between {SMALLEST} and {LARGEST} pixels: "
            "scale it first"
        )
    if width * height > MOST_PIXELS:
        raise VideoError(
            f"{path}: the picture is {width}x{height}, {width * height / 1e6:.0f} megapixels; it may have "
            f"{MOST_PIXELS / 1e6:.0f} at most: scale it first"
        )


def address(path: Path) -> str:
    """Return `path` as FFmpeg opens it: an absolute path, for it takes `12:30.mp4` for an address on the network."""
    return str(path.absolute())


def guessed_matrix(width: int, height: int) -> int:
    """Return the matrix that players assume of an untagged film of that size."""
    return BT709 if width >= 1280 or height > 576 else SMPTE170M


def reason(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
