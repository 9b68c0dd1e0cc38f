"""Makes and measures the cells of a suite, one by one; what is done stays, so a suite that was ended goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.errors import MetricError
from core.measure import metrics
from core.measure.clip import Clip
from core.measure.identity import FindFaces
from core.measure.metrics import Means
from core.measure.motion import Motion, Pixels, motion
from core.models.catalogue import FACE
from core.settings import EngineSettings, Framing, Look
from vcam.errors import VcamError
from vcam.offline.bench import machine
from vcam.offline.evaluate import Reference, figures, flow_named, reference_for, words_for
from vcam.offline.pairing import pair_up, pairs
from vcam.offline.suite.inputs import (
    aligned_by,
    instruments,
    look_hashes,
    model_hashes,
    profile_hash,
    program_hash,
    sha256_of,
    small_model_hash,
)
from vcam.offline.suite.plan import SuiteCell, SuitePlan
from vcam.offline.translate import EngineLike, MakeEngine
from vcam.settings.engine_options import engine_size
from vcam.video import (
    Kind,
    Media,
    Note,
    OpenFaces,
    OpenPersons,
    Picture,
    composer,
    framed_by,
    kept,
    probe,
    read,
    resized,
    writing,
)
from vcam.video.landmarks import OpenLandmarks, faces_of, region_of
from vcam.video.media import reason

MOST_MOTIONS = 512 << 20  # bytes of a clip's flow that are kept for its cells
STRIP = 5  # pictures of a strip
STRIP_HEIGHT = 128  # pixels
SHOWN_HEIGHT = 256  # pixels of a player's film, at most


@dataclass(frozen=True)
class SuiteInstruments:
    """What a suite works with; a test gives its own. None: the real one."""

    make_engine: MakeEngine | None = None
    open_faces: OpenFaces | None = None
    open_landmarks: OpenLandmarks | None = None
    open_persons: OpenPersons | None = None
    reference: Callable[[str, tuple[int, int]], Reference] | None = None
    clock: Callable[[], float] = time.perf_counter


_REAL = SuiteInstruments()


@dataclass
class _Workplace:
    """What is kept between cells: the clip that was read last, its motion, and what makes the pictures of prompts."""

    plan: SuitePlan
    lab: SuiteInstruments
    faces: FindFaces | None
    note: Note  # for the report, too
    say: Note  # for the person alone: the report has it from the rows
    net: Clip | None
    clip: tuple[Path, Framing | None, list[Pixels]] | None = None
    motions: list[Motion] = field(default_factory=list)
    references: dict[tuple[str, tuple[int, int]], Reference] = field(default_factory=dict)
    of_clip: list[str] = field(default_factory=list)  # what was said while the clip was read


def carry_out(
    plan: SuitePlan,
    folder: Path,
    *,
    lab: SuiteInstruments = _REAL,
    progress: bool = True,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Make and measure what is not there yet, and return all results: {inputs, sources, rows, left_out, notes}.

    folder: where each cell's result lies, under a name that stands for all that it depends on; what is found there is
    not made again. Other systems' films come first: one that cannot be measured is left out, and a note and `left_out`
    say why. Raises VcamError; what was done until then is kept.
    """
    notes, noted = kept(note)
    for text in plan.missing():
        noted(text)
    cells = plan.cells()
    if not cells:
        raise VcamError("there is nothing to measure: no profile, no setting, and no film of another system")
    for clip in plan.clips:
        probe(clip)  # before anything is made
    flow_named(plan.flow)
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VcamError(f"{folder}: cannot be written ({reason(error)}); choose another folder") from error
    files = sorted({*plan.clips, *(cell.film for cell in cells if cell.film)})
    hashes = {path: sha256_of(path) for path in files}
    faces = faces_of(noted, plan.faces, lab.open_landmarks)
    by = {
        "frames": plan.frames,
        "side": plan.side,
        "flow": plan.flow,
        "by": plan.clip,
        "faces": [small_model_hash(FACE)] if faces is not None else None,
        "program": program_hash(),
        "measured_by": list(instruments(plan.flow, plan.clip).values()),
        **({"noise": plan.noise} if plan.noise else {}),
    }
    keys = [cell.key(hashes, by) for cell in cells]
    place = _Workplace(plan, lab, faces, noted, note, Clip(plan.clip) if plan.clip else None)
    stored = {index: _stored(folder / "cells" / f"{key}.json") for index, key in enumerate(keys)}
    done = {index: found for index, found in stored.items() if found is not None}
    left_out = []
    with _bar(progress, len(cells), len(done)) as begin:
        for index in sorted(stored.keys() - done.keys(), key=lambda one: (not cells[one].claimed, one)):
            cell = cells[index]
            with begin(f"{cell.clip.stem}, {cell.profile or '-'}, {cell.by}"):
                try:
                    measured = _measured(cell, place)
                except VcamError as error:
                    if not cell.claimed:
                        raise
                    noted(f"{cell.by}, left out: {_nameless(str(error), cell)}")
                    left_out.append({**_name_of(cell), "reason": _nameless(str(error), cell)})
                else:
                    _check_unchanged(cell, keys[index], by)
                    done[index] = _kept(cell, keys[index], measured, folder / "cells")
    rows = [{**_name_of(cells[index]), "key": keys[index], **done[index]} for index in sorted(done)]
    if not rows:
        raise VcamError(f"not one film could be measured: {left_out[0]['reason']}")
    notes += [text for row in rows for text in row.pop("notes")]
    sources = {clip.name: _source_files(clip, hashes[clip], place, folder / "cells") for clip in plan.clips}
    inputs = [{"name": _named(path, plan), "sha256": hashes[path]} for path in files]
    inputs += [{"name": name, "sha256": digest} for name, digest in _other_inputs(plan, cells, faces is not None)]
    notes = list(dict.fromkeys(notes))
    return {"inputs": inputs, "sources": sources, "rows": rows, "left_out": left_out, "notes": notes}


def _other_inputs(plan: SuitePlan, cells: Sequence[SuiteCell], faces: bool) -> list[tuple[str, str]]:
    """Return names and hashes of all else that makes and measures the films: profiles, models, pictures, the program.

    faces: whether they are looked for.
    """
    found = [(f"profile {profile.id}", profile_hash(profile)) for profile in plan.profiles]
    for settings in dict.fromkeys(cell.settings for cell in cells if cell.settings):
        found += model_hashes(settings).items()
    seen: dict[str, str | None] = {f"model {FACE.name}": small_model_hash(FACE)} if faces else {}
    for look in dict.fromkeys(cell.look for cell in cells if cell.look):
        seen |= look_hashes(look)
    found += [(name, digest) for name, digest in seen.items() if digest is not None]
    if not plan.clip and any(cell.prompt is not None for cell in cells):
        found += aligned_by().items()
    found += [*instruments(plan.flow, plan.clip).items(), ("program", program_hash())]
    return list(dict.fromkeys(found))


def _nameless(text: str, cell: SuiteCell) -> str:
    """Return a text with names only: a report does not tell where files lie on the machine that made it."""
    for path in (cell.film, cell.clip):
        text = text if path is None else text.replace(str(path), path.name)
    return text


def _named(path: Path, plan: SuitePlan) -> str:
    """Return a file's name as a report has it: without the folders of this machine, but with the system's."""
    for other in plan.others:
        if other.folder in path.parents:
            return f"{other.name}: {path.relative_to(other.folder)}"
    return path.name


def _name_of(cell: SuiteCell) -> dict[str, Any]:
    return {"clip": cell.clip.name, "profile": cell.profile, "by": cell.by}


@contextmanager
def _bar(progress: bool, total: int, stored: int) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Yield what tells which cell is being made: a bar with the time left, on stderr.

    stored: how many were there already; they took no time, and say nothing of how long the others will take.
    """
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    every = 0.1 if watched else 10.0  # seconds; a log file wants few lines
    with tqdm(
        total=total, initial=stored, unit="film", file=sys.stderr, mininterval=every, disable=not progress
    ) as bar:

        @contextmanager
        def begin(text: str) -> Iterator[None]:
            bar.set_postfix_str(text, refresh=watched)
            yield
            bar.update()

        yield begin


def _stored(path: Path) -> dict[str, Any] | None:
    """Return a cell's result, None where it is not there or was not written to its end."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _measured(cell: SuiteCell, place: _Workplace) -> tuple[dict[str, Any], list[Pixels], Fraction]:
    """Make or read a cell's film and measure it: its result, pictures and rate; raise VcamError."""
    try:
        return _of_other(cell, place) if cell.film else _of_own(cell, place)
    except MetricError as error:
        raise VcamError(f"{cell.film or cell.clip}: {error}") from error


def _check_unchanged(cell: SuiteCell, key: str, by: Mapping[str, Any]) -> None:
    """Raise VcamError where a file was changed while a film was made of it: nobody could say of which."""
    if cell.key({path: sha256_of(path) for path in (cell.clip, cell.film) if path}, by) != key:
        raise VcamError(
            f"{cell.clip.stem}, {cell.profile or '-'}, {cell.by}: the clip, the model or another file that it is made "
            "of was changed meanwhile; begin again, what was made until then is kept"
        )


def _kept(
    cell: SuiteCell, key: str, measured: tuple[dict[str, Any], list[Pixels], Fraction], folder: Path
) -> dict[str, Any]:
    """Keep film, strip and result of a cell, with the machine on which it was made."""
    found, pictures, rate = measured
    found["machine"] = machine(found.pop("device"))
    found["strip"], found["shown"] = _keep(pictures, rate, folder / key, probe(cell.clip))
    unfinished = folder / f".{key}.json"
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    os.replace(unfinished, folder / f"{key}.json")  # last: what has a result is complete
    return found


def _of_own(cell: SuiteCell, place: _Workplace) -> tuple[dict[str, Any], list[Pixels], Fraction]:
    """Translate and measure; the speed is that of the translation alone."""
    assert cell.settings is not None
    assert cell.look is not None
    source, rate = _source(cell.clip, cell.look.framing, place)
    size = (source[0].shape[1], source[0].shape[0])
    width, height = engine_size(*size, cell.settings.width * cell.settings.height)
    engine = _engine(replace(cell.settings, width=width, height=height), cell.look, place)
    compose = composer(cell.look, place.note, place.lab.open_persons)
    small = [resized(one, width, height) for one in source]
    begun = place.lab.clock()
    made = [one for one in map(engine.translate, small) if one is not None] + list(engine.drain())
    seconds = place.lab.clock() - begun
    output = [resized(one, *size) for one in made]
    if compose is not None:
        output = [compose(one, whole) for one, whole in zip(output, source, strict=True)]
    means = _means(place, cell.look.prompt, size, cell.look)
    known = _motions(source, place, means)
    measured = metrics.measure_pairs(zip(source, output, strict=True), means=means, motions=known)
    speed = {"seconds": round(seconds, 3), "fps": round(len(made) / seconds, 2) if seconds else None}
    facts: dict[str, Any] = {
        "delay": engine.delay,
        "runtime": str(engine.settings.runtime),
        "engine_size": [width, height],
    }
    facts |= {"device": engine.settings.device, "notes": [_nameless(text, cell) for text in place.of_clip]}
    return {"figures": figures(measured), **facts, "speed": speed, "said": []}, output, rate


def _of_other(cell: SuiteCell, place: _Workplace) -> tuple[dict[str, Any], list[Pixels], Fraction]:
    """Read another system's film, whatever its rate, size, length and delay are, and measure it at the suite's size."""
    assert cell.film is not None
    said, note = kept(lambda text: None)
    pairing = pair_up(cell.clip, cell.film, note, frames=place.plan.frames)
    size = engine_size(pairing.width, pairing.height, place.plan.side**2)
    taken = [
        (resized(first, *size), resized(second, *size))
        for first, second in pairs(pairing, note, frames=place.plan.frames)
    ]
    measured = metrics.measure_pairs(taken, means=_means(place, cell.prompt, size, None))
    facts: dict[str, Any] = {
        "delay": pairing.delay,
        "runtime": None,
        "engine_size": None,
        "device": "cpu",
        "speed": None,
        "notes": [],
    }
    words = [_nameless(text, cell) for text in said]
    rate = pairing.source.rate / pairing.source_every
    return {"figures": figures(measured), **facts, "said": words}, [output for _, output in taken], rate


def _means(place: _Workplace, prompt: str | None, size: tuple[int, int], look: Look | None) -> Means:
    plan = place.plan

    def reference(prompt: str) -> Reference:
        if (prompt, size) not in place.references:
            make = place.lab.reference or reference_for
            place.references[prompt, size] = make(prompt, size)
        return place.references[prompt, size]

    words = words_for(place.net, prompt, reference)
    region = region_of(look.region, place.lab.open_persons) if look else None
    return Means(flow_named(plan.flow), words.embed, words.align, place.faces, region)


def _source(clip: Path, framing: Framing | None, place: _Workplace) -> tuple[list[Pixels], Fraction]:
    """Return a clip's pictures at the suite's size, and their rate."""
    media = probe(clip)
    framing = framing if framing is Framing.FACE else None
    if place.clip is None or place.clip[:2] != (clip, framing):
        size = engine_size(media.width, media.height, place.plan.side**2, pixel_aspect=media.pixel_aspect)
        place.of_clip, noted = kept(place.say)
        pictures = framed_by(framing, media, read(media, noted), noted, place.lab.open_faces)
        taken = [resized(one.rgb, *size) for one in itertools.islice(pictures, place.plan.frames)]
        if not taken:
            raise VcamError(f"{clip}: not one picture can be read")
        place.clip, place.motions = (clip, framing, noisy(taken, place.plan.noise)), []
    return place.clip[2], media.rate


def noisy(pictures: list[Pixels], sigma: float) -> list[Pixels]:
    """Return the pictures with a sensor's noise of that sigma, grey levels; always the same noise."""
    if sigma == 0:
        return pictures
    random = np.random.default_rng(0)
    noised = [one + random.normal(0, sigma, one.shape) for one in pictures]
    return [np.rint(one).clip(0, 255).astype(np.uint8) for one in noised]


def _motions(source: list[Pixels], place: _Workplace, means: Means) -> list[Motion] | None:
    """Return the motion of the clip that was read last, found once for all its cells; None where that is too much."""
    if len(source) * source[0].shape[0] * source[0].shape[1] * 17 > MOST_MOTIONS:
        return None
    if not place.motions:
        place.motions = [motion(before, now, means.flow) for before, now in itertools.pairwise(source)]
    return place.motions


def _engine(settings: EngineSettings, look: Look, place: _Workplace) -> EngineLike:
    """Return a new engine: one that was used before begins its next film with what was in flight in the last."""
    if place.lab.make_engine is not None:
        return place.lab.make_engine(settings, look)
    from core.engine import Engine  # torch: only when it is needed

    return Engine(settings, look)


def _source_files(clip: Path, digest: str, place: _Workplace, folder: Path) -> dict[str, str]:
    """Keep a clip's own pictures as those of a cell; return the names of strip and film."""
    told = [digest, place.plan.frames, place.plan.side, place.plan.noise, program_hash()]
    stem = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:20]
    names = {"strip": f"{stem}.jpg", "shown": f"{stem}.mp4"}
    if not (folder / names["shown"]).exists() or not (folder / names["strip"]).exists():
        pictures, rate = _source(clip, None, place)
        _keep(pictures, rate, folder / stem, probe(clip))
    return names


def _keep(pictures: list[Pixels], rate: Fraction, stem: Path, like: Media) -> tuple[str, str]:
    """Write the strip and the film that a page shows; return their files' names."""
    height, width = pictures[0].shape[:2]
    chosen = [pictures[round(i)] for i in np.linspace(0, len(pictures) - 1, min(STRIP, len(pictures)))]
    small = [resized(one, round(STRIP_HEIGHT * width / height), STRIP_HEIGHT) for one in chosen]
    cv2.imwrite(f"{stem}.jpg", np.concatenate(small, axis=1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    scale = min(1.0, SHOWN_HEIGHT / height)
    size = (2 * round(width * scale / 2), 2 * round(height * scale / 2))
    film = Path(f"{stem}.mp4")
    film.unlink(missing_ok=True)
    media = Media(like.path, Kind.VIDEO, *size, rate=rate, constant_rate=rate, frames=len(pictures))
    with writing(film, media, lambda text: None) as writer:
        for index, picture in enumerate(pictures):
            writer.write(Picture(resized(picture, *size), index / rate, duration=1 / rate))
        writer.finish()
    return f"{stem.name}.jpg", film.name
