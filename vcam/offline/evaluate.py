"""`vcam eval`: how steady, consistent, strong and clean a translation is."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import MetricError
from core.measure import metrics, motion
from core.settings import Framing
from vcam.errors import VcamError
from vcam.offline.translate import Progress, shown
from vcam.video import (
    Kind,
    Media,
    Note,
    OpenFaces,
    Picture,
    check_frames,
    framed_by,
    kept,
    probe,
    read,
    resized,
    to_stderr,
)
from vcam.video.media import address

_FEW_PICTURES = 2  # that one film may have more than the other before all are looked at
_SHAPE_TOLERANCE = 0.02  # two pictures are of one shape when their aspects differ by less than this share


@dataclass(frozen=True)
class EvalReport:
    """The figures of `core.measure.metrics.measure`, how they were measured, and on what."""

    frames: int
    warp_error: float | None
    warp_error_input: float | None
    frame_consistency: float | None
    consistency_by: str
    edit_strength: float
    edit_structure: float
    ghosting: float | None
    flow: str
    width: int
    height: int
    source: str
    output: str
    notes: tuple[str, ...]


def evaluate(
    source: Path,
    output: Path,
    *,
    flow: str = "dis",
    clip: str | None = None,
    frames: int | None = None,
    framing: Framing | None = None,
    open_faces: OpenFaces | None = None,
    progress: bool | Progress = True,
    note: Note = to_stderr,
) -> EvalReport:
    """Measure `output` against `source`, picture by picture, at the source's size.

    flow: `dis`, `raft` or `raft:FILE`; clip: a local CLIP model for frame_consistency, else `descriptor`. An output of
    another size but the same shape is brought to the source's size, and that is said. frames: only the first so
    many. framing: with which the output was made of the source; open_faces: see framed_by. Raises VcamError:
    unreadable files, other shapes, other numbers of pictures.
    """
    check_frames(frames)
    notes, noted = kept(note)
    ours, theirs = probe(source), probe(output)
    if output.exists() and os.path.samefile(source, output):
        noted(f"{output}: the output is the source itself: this is the floor")
    _same_shape(ours, theirs, noted)
    _same_length(ours, theirs, frames)
    total = frames if ours.expected is None else min(frames or ours.expected, ours.expected)
    try:
        find = _flow(flow)
        embed = metrics.clip_embed(clip) if clip else metrics.descriptor
        pictures = _pictures(ours, ours, frames, noted)
        with shown(progress, total) as show:
            found = metrics.measure(
                (one.rgb for one in framed_by(framing, ours, pictures, noted, open_faces)),
                (one.rgb for one in _pictures(theirs, ours, frames, noted)),
                flow=find,
                embed=embed,
                done=lambda done: show(done, total),
            )
    except MetricError as error:
        raise VcamError(f"{output} against {source}: {error}") from error
    return EvalReport(
        frames=found.frames,
        warp_error=_short(found.warp_error),
        warp_error_input=_short(found.warp_error_input),
        frame_consistency=_short(found.frame_consistency),
        consistency_by=f"clip:{clip}" if clip else "descriptor",
        edit_strength=round(found.edit_strength, 4),
        edit_structure=round(found.edit_structure, 4),
        ghosting=_short(found.ghosting),
        flow=flow,
        width=ours.width,
        height=ours.height,
        source=str(source),
        output=str(output),
        notes=tuple(notes),
    )


def _same_shape(ours: Media, theirs: Media, note: Note) -> None:
    if (ours.width, ours.height) == (theirs.width, theirs.height):
        return
    sizes = f"{theirs.width}x{theirs.height}, its source {ours.width}x{ours.height}"
    if abs(theirs.width * ours.height / (theirs.height * ours.width) - 1) > _SHAPE_TOLERANCE:
        raise VcamError(f"{theirs.path}: the picture is {sizes}; they must be of one shape: was it cropped?")
    note(f"{theirs.path}: the picture is {sizes}; it is measured at the source's size")


def _same_length(ours: Media, theirs: Media, frames: int | None) -> None:
    """Raise VcamError where one has clearly more pictures than the other: now, not after all were measured.

    A few more may be damaged ones that nobody can read; only the pictures themselves tell.
    """
    first, second = (_count(one) for one in (ours, theirs))
    if first is None or second is None or (frames is not None and min(first, second) >= frames):
        return
    if abs(first - second) > max(_FEW_PICTURES, _SHAPE_TOLERANCE * max(first, second)):
        raise VcamError(
            f"{theirs.path} has {second} pictures and {ours.path} {first}; they must match picture by picture: "
            f"--frames {min(first, second)} measures the first ones"
        )


def _count(media: Media) -> int | None:
    """Return how many pictures a film's file holds, without reading one; None where that is not known."""
    if media.kind is not Kind.VIDEO or media.animated:
        return len(media.pictures) or None
    if media.frames:
        return media.frames
    import av

    with av.open(address(media.path)) as film:
        return sum(packet.size > 0 for packet in film.demux(film.streams.video[0]))


def _flow(name: str) -> motion.OpticalFlow:
    kind, _, weights = name.partition(":")
    if kind == "dis" and not weights:
        return motion.dis_flow()
    if kind == "raft":
        return motion.raft_flow(Path(weights) if weights else None)
    raise VcamError(f"flow is {name!r}; it must be dis, raft or raft:FILE")


def _pictures(media: Media, like: Media, frames: int | None, note: Note) -> Iterator[Picture]:
    for picture in itertools.islice(read(media, note), frames):
        yield picture._replace(rgb=resized(picture.rgb, like.width, like.height))


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
