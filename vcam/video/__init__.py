"""Reading and writing films, pictures and folders of pictures (PyAV and OpenCV), one picture at a time."""

from vcam.fit import detail_at, enlarged, of_one_shape, part_of
from vcam.video.films import on_grid
from vcam.video.followed import OpenFaces, framed_by
from vcam.video.marking import marker_for
from vcam.video.media import (
    IMAGE_SUFFIXES,
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
from vcam.video.reading import for_picture, natural, probe, read
from vcam.video.regions import Compose, OpenPersons, composer
from vcam.video.sizes import fitted, resized
from vcam.video.writing import Writer, writing

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST",
    "VIDEO_SUFFIXES",
    "Compose",
    "Kind",
    "Media",
    "Note",
    "OpenFaces",
    "OpenPersons",
    "Picture",
    "Pixels",
    "Writer",
    "check_frames",
    "composer",
    "detail_at",
    "enlarged",
    "fitted",
    "for_picture",
    "framed_by",
    "kept",
    "marker_for",
    "natural",
    "of_one_shape",
    "on_grid",
    "part_of",
    "probe",
    "read",
    "resized",
    "to_stderr",
    "writing",
]
