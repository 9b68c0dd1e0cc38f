"""Reading and writing films, pictures and folders of pictures (PyAV and OpenCV), one picture at a time."""

from vcam.video.media import (
    LARGEST,
    VIDEO_SUFFIXES,
    Kind,
    Media,
    Note,
    Picture,
    Pixels,
    check_frames,
    kept,
    to_stderr,
)
from vcam.video.reading import natural, on_grid, probe, read, resized
from vcam.video.writing import Writer, writing

__all__ = [
    "LARGEST",
    "VIDEO_SUFFIXES",
    "Kind",
    "Media",
    "Note",
    "Picture",
    "Pixels",
    "Writer",
    "check_frames",
    "kept",
    "natural",
    "on_grid",
    "probe",
    "read",
    "resized",
    "to_stderr",
    "writing",
]
