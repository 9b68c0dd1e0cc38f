"""Files that are being written: the names they have meanwhile, what a full disk says, and what is kept of a failure."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import av.error

from vcam.errors import VideoError
from vcam.video.media import reason

REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "the file may not grow any larger here: choose another disk or a shorter film",
    errno.EIO: "the disk reports an error: choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
}


def is_of_disk(error: BaseException) -> bool:
    """Return whether the place that is written to is at fault, not what is written."""
    number = getattr(error, "errno", None)
    return number in REMEDIES and number != errno.EPERM  # -1, with which muxers also refuse a packet


@contextlib.contextmanager
def errors_of(target: Path) -> Iterator[None]:
    """Make a VcamError with a remedy of whatever keeps `target` from being written."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        remedy = REMEDIES.get(getattr(error, "errno", None) or 0, "choose another place or another kind of file")
        raise VideoError(f"{target}: cannot be written: {reason(error)}; {remedy}") from error


def part_of(target: Path) -> Path:
    """Return the hidden name that `target` has until it is complete."""
    return target.with_name(f".{target.stem}.part{target.suffix}")


def keep_incomplete(part: Path, target: Path) -> Path:
    """Give what was made of `target` a name that says that it is not all; return that name; raise OSError."""
    for number in range(1, 1000):
        kept = target.with_name(f"{target.stem}.incomplete{'' if number == 1 else f'-{number}'}{target.suffix}")
        if not kept.exists():
            break
    os.replace(part, kept)
    return kept
