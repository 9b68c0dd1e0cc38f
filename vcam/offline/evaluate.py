"""`vcam eval`: how steady, consistent, strong, sharp and clean a translation is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import MetricError
from core.measure import metrics, motion
from core.measure.alignment import clip_alignment, direction_alignment
from core.measure.clip import Clip
from core.measure.metrics import Align, Embed, Means, Measures
from core.settings import Framing, Region
from vcam.errors import VcamError
from vcam.offline.pairing import Fit, pair_up, pairs
from vcam.offline.translate import Progress, shown
from vcam.settings.engine_options import engine_size
from vcam.video import (
    Media,
    Note,
    OpenFaces,
    OpenPersons,
    Picture,
    Pixels,
    check_frames,
    framed_by,
    kept,
    resized,
    to_stderr,
)
from vcam.video.landmarks import OpenLandmarks, faces_of, region_of


@dataclass(frozen=True)
class EvalReport:
    """The figures of core.measure.metrics, how they were measured, and on what; core.measure.definitions defines each.

    latency_frames: by how many pictures the output is behind, None where nothing tells; delay: by how many it was
    shifted. flicker_spectrum: root mean square L* by cycles a picture; rate: pictures a second, as measured.
    """

    frames: int
    warp_error: float | None
    warp_error_input: float | None
    frame_consistency: float | None
    consistency_by: str
    prompt_alignment: float | None
    alignment_by: str
    edit_strength: float
    edit_structure: float
    sharpness: float | None
    flicker: float | None
    flicker_input: float | None
    flicker_spectrum: dict[str, float]
    ghosting: float | None
    drift_sharpness: float | None
    drift_edit: float | None
    drift_colour: float | None
    faces: int
    faces_kept: float | None
    landmark_error: float | None
    latency_frames: int | None
    delay: int
    flow: str
    region: str
    width: int
    height: int
    rate: float
    source: str
    output: str
    notes: tuple[str, ...]
    curve: dict[str, list[float]]


@dataclass(frozen=True)
class Asked:
    """What is measured, and how.

    flow: `dis`, `farneback`, `raft` or `raft:FILE`. clip: a folder or `clip`, else the stand-ins. prompt: with which
    the output was made. frames: only the first so many. framing: with which the output was made of the source. region:
    where its style is. delay: of the output, pictures; None: estimated. fit: how an output of another shape shows its
    source. faces: None: where the model for them is here.
    """

    flow: str = "dis"
    clip: str | None = None
    prompt: str | None = None
    frames: int | None = None
    framing: Framing | None = None
    region: Region = Region.ALL
    delay: int | None = None
    fit: Fit = Fit.AUTO
    faces: bool | None = None


_PLAIN = Asked()


def evaluate(
    source: Path,
    output: Path,
    asked: Asked = _PLAIN,
    *,
    open_faces: OpenFaces | None = None,
    open_landmarks: OpenLandmarks | None = None,
    open_persons: OpenPersons | None = None,
    progress: bool | Progress = True,
    note: Note = to_stderr,
) -> EvalReport:
    """Measure `output` against `source`, picture by picture.

    An output of another size, rate or shape, or one that is late, is brought into line where that is beyond doubt, and
    `note` says so. open_faces, open_landmarks, open_persons: open the models that see these. Raises VcamError:
    unreadable files, those that do not belong together, and a model that is asked for and not here.
    """
    check_frames(asked.frames)
    notes, noted = kept(note)

    def view(media: Media, pictures: Iterable[Picture]) -> Iterable[Picture]:
        return framed_by(asked.framing, media, pictures, noted, open_faces)

    try:
        find = flow_named(asked.flow)
        pairing = pair_up(source, output, noted, frames=asked.frames, delay=asked.delay, fit=asked.fit, view=view)
        if os.path.samefile(source, output):
            noted(f"{output}: the output is the source itself: this is the floor")
        size = (pairing.width, pairing.height)
        clip = Clip(asked.clip) if asked.clip else None
        words = words_for(clip, asked.prompt, lambda prompt: reference_for(prompt, size))
        faces = faces_of(noted, asked.faces, open_landmarks)
        means = Means(find, words.embed, words.align, faces, region_of(asked.region, open_persons))
        with shown(progress, pairing.expected) as show:
            found = metrics.measure_pairs(
                pairs(pairing, noted, frames=asked.frames, view=view),
                means=means,
                done=lambda done: show(done, pairing.expected),
            )
    except MetricError as error:
        raise VcamError(f"{output} against {source}: {error}") from error
    return EvalReport(
        **figures(found),
        consistency_by=words.consistency_by,
        alignment_by=words.alignment_by,
        latency_frames=pairing.found.frames if pairing.found and pairing.found.certain else None,
        delay=pairing.delay,
        flow=asked.flow,
        region=str(asked.region),
        width=pairing.width,
        height=pairing.height,
        rate=round(pairing.rate, 4),
        source=str(source),
        output=str(output),
        notes=tuple(notes),
    )


def figures(found: Measures) -> dict[str, Any]:
    """Return the figures of a film as EvalReport and a suite's results have them."""
    spectrum, drift = found.spectrum, found.drift
    bins = zip(spectrum.cycles, spectrum.rms, strict=True) if spectrum else ()
    values = {
        "warp_error": found.warp_error,
        "warp_error_input": found.warp_error_input,
        "frame_consistency": found.frame_consistency,
        "prompt_alignment": found.prompt_alignment,
        "edit_strength": found.edit_strength,
        "edit_structure": found.edit_structure,
        "sharpness": found.sharpness,
        "flicker": spectrum.flicker if spectrum else None,
        "flicker_input": spectrum.flicker_input if spectrum else None,
        "ghosting": found.ghosting,
        "drift_sharpness": drift.sharpness if drift else None,
        "drift_edit": drift.edit if drift else None,
        "drift_colour": drift.colour if drift else None,
        "faces_kept": found.faces_kept,
        "landmark_error": found.landmark_error,
    }
    return {
        "frames": found.frames,
        **{name: None if value is None else round(value, 4) for name, value in values.items()},
        "faces": found.faces,
        "flicker_spectrum": {f"{cycles:g}": round(rms, 4) for cycles, rms in bins},
        "curve": {name: list(line) for name, line in vars(found.curve).items()},
    }


Reference = Callable[[Pixels], Pixels]  # source -> the picture that a prompt makes of it


class Words(NamedTuple):
    """How pictures are compared with each other and with the prompt, and by what."""

    embed: Embed
    consistency_by: str
    align: Align | None
    alignment_by: str


def words_for(clip: Clip | None, prompt: str | None, reference: Callable[[str], Reference]) -> Words:
    """Return what compares the pictures of a film: CLIP where there is one, else the stand-ins, which are named.

    reference: makes what makes a picture of a prompt. Raises MetricError, ModelError.
    """
    if clip is not None:
        align = clip_alignment(clip, prompt) if prompt is not None else None
        return Words(clip.picture, f"clip:{clip.name}", align, f"clip:{clip.name}" if align else "")
    if prompt is None:
        return Words(metrics.descriptor, "descriptor", None, "")
    align = direction_alignment(reference(prompt))
    return Words(metrics.descriptor, "descriptor", align, "stand-in: the included model's own picture of the prompt")


def reference_for(prompt: str, size: tuple[int, int]) -> Reference:
    """Return what makes a picture of that size in the prompt's style by the included model, each by itself."""
    from core.engine import Engine  # torch: only when it is needed
    from core.models.description import describe
    from core.settings import EngineSettings, Look, Policy

    own = describe("embedded")
    width, height = engine_size(*size, own.width * own.height)
    engine = Engine(
        EngineSettings("embedded", width, height, steps=1, policy=Policy.OFF), Look(prompt, strength=own.strength)
    )

    def make(picture: Pixels) -> Pixels:
        shown = engine.translate(resized(picture, width, height))
        made = next(engine.drain()) if shown is None else shown
        return resized(made, *size)

    return make


def flow_named(name: str) -> motion.OpticalFlow:
    """Return the optical flow of that name: dis, farneback, raft or raft:FILE. Raises VcamError, MetricError."""
    kind, _, weights = name.partition(":")
    if name == "dis":
        return motion.dis_flow()
    if name == "farneback":
        return motion.farneback_flow()
    if kind == "raft":
        return motion.raft_flow(Path(weights) if weights else None)
    raise VcamError(f"flow is {name!r}; it must be dis, farneback, raft or raft:FILE")
