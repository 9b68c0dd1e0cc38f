"""Writes films, pictures and folders of pictures, one picture at a time (PyAV and OpenCV)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from vcam.errors import VideoError
from vcam.video.disk import errors_of, keep_incomplete, part_of
from vcam.video.film_writing import FilmWriter
from vcam.video.marking import METADATA_ALONE, Marker
from vcam.video.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Kind, Media, Note, Picture, to_stderr
from vcam.video.picture_files import encoded


class Writer(Protocol):
    """Takes pictures in order; nothing is found under the final name before `finish`."""

    def write(self, picture: Picture) -> None:
        """Add one picture; raise VcamError when it cannot be written."""

    def finish(self, cut: bool = False) -> None:
        """Complete the result under its final name; `cut` ends the sound with the last picture."""

    def abandon(self) -> None:
        """Let go of what is not finished; nothing to do after `finish`."""


@contextlib.contextmanager
def writing(target: Path, like: Media, note: Note = to_stderr, marker: Marker = METADATA_ALONE) -> Iterator[Writer]:
    """Open a writer for `target` of pictures like those of `like`, which marks them.

    Leaving without `finish` leaves nothing under that name: a film or folder that was begun is kept under another one,
    and that is said.

    The suffix of `target` says what is written: a film (.mp4 .mov .mkv: H.264, .webm: VP9, .avi: MJPEG) with the
    sound of `like`, a picture, or without a suffix a folder of pictures. Raise VcamError.
    """
    kind = _check_target(target, like)
    make: dict[Kind, Callable[[Path, Media, Note, Marker], Writer]] = {
        Kind.VIDEO: FilmWriter,
        Kind.IMAGE: _ImageWriter,
        Kind.FOLDER: _FolderWriter,
    }
    writer = make[kind](target, like, note, marker)
    try:
        yield writer
    finally:
        writer.abandon()  # nothing to remove after finish()


def _check_target(target: Path, like: Media) -> Kind:
    """Return what kind of result `target` names; raise VcamError when it cannot become that."""
    suffix = target.suffix.lower()
    if target.exists() and like.path.exists() and os.path.samefile(target, like.path):
        raise VideoError(f"{target}: the output is the input; give it another name")
    if not target.absolute().parent.is_dir():
        raise VideoError(f"{target}: the folder {target.absolute().parent} does not exist; create it first")
    if like.kind is Kind.FOLDER and like.path.resolve() in target.absolute().resolve().parents:
        raise VideoError(f"{target}: the output lies in the input folder; put it somewhere else")
    if target.is_dir() or not suffix:
        if like.kind is Kind.IMAGE:
            raise VideoError(f"{target}: one picture needs a file name for its result, such as {target}.png")
        if target.is_dir() and any(target.iterdir()):
            raise VideoError(f"{target}: this folder is not empty; name a new or an empty one")
        if target.exists() and not target.is_dir():
            raise VideoError(
                f"{target}: this file has no suffix that says what to write; give a name such as {target}.mp4"
            )
        return Kind.FOLDER
    if suffix in VIDEO_SUFFIXES and like.kind is not Kind.IMAGE:
        return Kind.VIDEO
    if suffix in IMAGE_SUFFIXES and like.kind is Kind.IMAGE:
        return Kind.IMAGE
    if suffix in VIDEO_SUFFIXES:
        raise VideoError(f"{target}: a single picture becomes a picture; use one of {', '.join(IMAGE_SUFFIXES)}")
    if suffix in IMAGE_SUFFIXES:
        raise VideoError(
            f"{target}: {'a film' if like.kind is Kind.VIDEO else 'a folder of pictures'} becomes a film "
            f"({', '.join(VIDEO_SUFFIXES)}) or a folder (a name without a suffix)"
        )
    raise VideoError(
        f"{target}: unknown suffix {target.suffix}; use {', '.join(VIDEO_SUFFIXES)} for a film, "
        f"{', '.join(IMAGE_SUFFIXES)} for a picture, no suffix for a folder of pictures"
    )


class _ImageWriter:
    """Writes one picture."""

    def __init__(self, target: Path, like: Media, note: Note, marker: Marker) -> None:
        self._target, self._part, self._marker = target, part_of(target), marker
        self._count = 0
        with errors_of(target):
            self._part.write_bytes(b"")

    def write(self, picture: Picture) -> None:
        with errors_of(self._target):
            suffix = self._target.suffix.lower()
            self._part.write_bytes(encoded(picture.rgb, suffix, self._marker, picture.alpha))
        self._count += 1

    def finish(self, cut: bool = False) -> None:
        if not self._count:
            raise VideoError(f"{self._target}: nothing was written, there is no picture")
        with errors_of(self._target):
            os.replace(self._part, self._target)

    def abandon(self) -> None:
        self._part.unlink(missing_ok=True)


class _FolderWriter:
    """Writes numbered pictures, or pictures under the names that they came with."""

    def __init__(self, target: Path, like: Media, note: Note, marker: Marker) -> None:
        self._target, self._part, self._note = target, target.with_name(f".{target.name}.part"), note
        self._marker = marker
        self._count = 0
        with errors_of(target):
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()

    def write(self, picture: Picture) -> None:
        name = Path(picture.name or f"{self._count + 1:06d}.png")
        if name.suffix.lower() not in IMAGE_SUFFIXES:  # of a kind that is read alone
            name = name.with_suffix(".png")
        with errors_of(self._target):
            data = encoded(picture.rgb, name.suffix.lower(), self._marker, picture.alpha)
            (self._part / name).write_bytes(data)
        self._count += 1

    def finish(self, cut: bool = False) -> None:
        if not self._count:
            raise VideoError(f"{self._target}: nothing was written, there is no picture")
        with errors_of(self._target):
            if self._target.is_dir():
                self._target.rmdir()  # it is empty: _check_target
            self._part.rename(self._target)

    def abandon(self) -> None:
        if self._count and self._part.is_dir():
            with contextlib.suppress(OSError):
                kept = keep_incomplete(self._part, self._target)
                self._note(f"{self._target}: what was made until then is kept in {kept}")
                return
        shutil.rmtree(self._part, ignore_errors=True)
