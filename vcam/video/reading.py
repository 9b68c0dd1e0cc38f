"""Looks at films, pictures and folders of pictures, and reads them one picture at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vcam.errors import VcamError, VideoError
from vcam.video.films import probe_film, read_film
from vcam.video.media import FOLDER_RATE, READ_SUFFIXES, Kind, Media, Note, Picture, to_stderr
from vcam.video.pictures import Header, header_of, probe_picture, read_animation, read_picture


def probe(path: Path) -> Media:
    """Say what `path` holds; raise VcamError when it cannot be read, holds no picture or is of an absurd size."""
    try:
        if not path.exists():
            raise VideoError(f"{path}: no such file or folder; check the name")
        return _probe_folder(path) if path.is_dir() else _probe_file(path)
    except OSError as error:  # a name that no file can have, a folder that may not be entered
        raise VideoError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error


def _probe_file(path: Path) -> Media:
    if not path.is_file():
        raise VideoError(f"{path}: not a file or folder; give a film, a picture or a folder of pictures")
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    if not head:
        raise VideoError(f"{path}: the file is empty (0 bytes); record or copy it again")
    photo = path.suffix.lower() in READ_SUFFIXES or head[4:12] in (b"ftypavif", b"ftypavis")
    return probe_picture(path) if photo else probe_film(path)


def _probe_folder(path: Path) -> Media:
    try:
        found = [f for f in path.iterdir() if f.suffix.lower() in READ_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    pictures = tuple(sorted((f for f in found if f.is_file()), key=lambda f: natural(f.name)))
    if not pictures:
        raise VideoError(f"{path}: no pictures in this folder; it must hold {', '.join(READ_SUFFIXES)} files")
    header = _first_that_is_whole(pictures)
    return Media(
        path,
        Kind.FOLDER,
        header.width,
        header.height,
        frames=len(pictures),
        duration_s=float(len(pictures) / FOLDER_RATE),
        codec=header.format.lower(),
        pictures=pictures,
    )


def _first_that_is_whole(pictures: Sequence[Path]) -> Header:
    """Return the header of the first picture that can be read; raise VcamError where none can."""
    failure: VcamError | None = None
    for path in pictures:
        try:
            header = header_of(path)
            read_picture(path)
            return header
        except VcamError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which `9.png` comes before `10.png`."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts] + [(-1, name)]


def for_picture(media: Media, note: Note) -> Media:
    """Return an animation as the one picture that it begins with, and say what is left out."""
    note(
        f"{media.path}: the first of its {media.frames} pictures alone is taken; name a film (.mp4) or a folder for all"
    )
    return replace(media, kind=Kind.IMAGE, frames=1, duration_s=None)


def read(media: Media, note: Note = to_stderr, *, live: bool = False) -> Iterator[Picture]:
    """Yield every picture in order, upright; damaged or missing ones are said by `note`; hold few at a time.

    live: pictures of other threads are due meanwhile.
    """
    if media.kind is not Kind.VIDEO:
        yield from _read_images(media, note)
    elif media.animated:
        yield from read_animation(media.path, note)
    else:
        yield from read_film(media, note, live=live)


def _read_images(media: Media, note: Note) -> Iterator[Picture]:
    if media.kind is not Kind.FOLDER:
        yield read_picture(media.path, note)._replace(duration=1 / media.rate)
        return
    once = _once(note)
    for index, path in enumerate(media.pictures):
        try:
            if (count := header_of(path).count) > 1:
                once(f"{path}: it holds {count} pictures, of which the first alone is taken")
            picture = read_picture(path, once)
        except VcamError as error:
            note(f"{error}; it is left out")
            continue
        yield picture._replace(time=index / media.rate, duration=1 / media.rate)


def _once(note: Note) -> Note:
    said: set[str] = set()

    def first(text: str) -> None:
        key = text.partition(": ")[2]
        if key not in said:
            said.add(key)
            note(text)

    return first
