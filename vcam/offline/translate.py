"""`vcam translate`: a film, a picture or a folder of pictures through the engine, every picture, offline."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from core.settings import EngineSettings, Look, Runtime
from vcam.errors import VcamError
from vcam.offline.ahead import AHEAD, read_ahead
from vcam.settings.config import MarkingSettings
from vcam.settings.engine_options import engine_size
from vcam.video import (
    IMAGE_SUFFIXES,
    Compose,
    Media,
    Note,
    OpenFaces,
    OpenPersons,
    Picture,
    Pixels,
    Writer,
    check_frames,
    composer,
    detail_at,
    enlarged,
    fitted,
    for_picture,
    framed_by,
    kept,
    marker_for,
    of_one_shape,
    part_of,
    probe,
    read,
    resized,
    to_stderr,
    writing,
)

if TYPE_CHECKING:
    from core.engine import Engine

Progress = Callable[[int, int | None], None]
GUIDES = 64 << 20  # bytes: a larger picture is not kept for its edges, but enlarged without
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class EngineLike(Protocol):
    """What `translate` asks of an engine (core.engine.Engine)."""

    @property
    def settings(self) -> EngineSettings:
        """Return with what it was built, nothing left to choose."""

    @property
    def delay(self) -> int:
        """Return how many pictures lie between one and its translation."""

    def translate(self, picture: Pixels) -> Pixels | None:
        """Return the translation of the picture given `delay` calls ago, None for the first `delay` calls."""

    def drain(self) -> Iterator[Pixels]:
        """Yield the `delay` translations still in flight."""


MakeEngine = Callable[[EngineSettings, Look], EngineLike]


@dataclass(frozen=True)
class TranslateReport:
    """What was done: pictures read and written, seconds and pictures per second of translation (engine start not
    counted), and with what."""

    frames_in: int
    frames_out: int
    seconds: float
    fps: float
    model: str
    runtime: str
    profile: str | None
    bank: str
    source: str
    target: str
    width: int
    height: int
    engine_width: int
    engine_height: int
    interrupted: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What is translated into what, and how.

    settings.width * settings.height is the engine's pixel budget, spent in the shape of the source; `size` (width,
    height) is taken as it is. frames: stop after so many. profile: its id, for the report. marking: how the
    target says that it is AI-translated.
    """

    source: Path
    target: Path
    settings: EngineSettings
    look: Look
    frames: int | None = None
    size: tuple[int, int] | None = None
    profile: str | None = None
    marking: MarkingSettings = field(default_factory=MarkingSettings)


def translate(
    job: Job,
    *,
    progress: bool | Progress = True,
    make_engine: MakeEngine | None = None,
    note: Note = to_stderr,
    open_faces: OpenFaces | None = None,
    open_persons: OpenPersons | None = None,
) -> TranslateReport:
    """Translate the source into the target: every picture in order, output picture i shows input picture i.

    Ctrl-C and SIGTERM complete the file with what was done; the report says `interrupted`. Raise VcamError: then
    nothing is found under the target's name, and `note` says where what was made until then is kept. open_faces: see
    framed_by; open_persons: see composer.
    """
    check_frames(job.frames)
    notes, noted = kept(note)
    media = probe(job.source)
    if media.animated and job.target.suffix.lower() in IMAGE_SUFFIXES:
        media = for_picture(media, noted)
    settings = _sized(job.settings, media, job.size)
    compose = composer(job.look, noted, open_persons)
    marker = marker_for(job.marking, noted)  # what is wrong with a certificate is said before hours of work
    with stop_on_signal() as stop, writing(job.target, media, noted, marker) as writer:
        engine = make_engine(settings, job.look) if make_engine else real_engine(settings, job.look, noted)
        started = time.monotonic()
        limit = _limit(media, job.frames)
        with shown(progress, limit) as show:
            detail = detail_at(job.look.detail, job.look.strength)
            pictures = _until(stop, islice(read(media, noted), job.frames))
            pictures = framed_by(job.look.framing, media, pictures, noted, open_faces)
            prepared = _prepared(pictures, media, settings, detail, keep=compose is not None)
            counts = _run(engine, prepared, lambda passing, made: _write(writer, passing, made, compose), show, limit)
        seconds = time.monotonic() - started
        if not counts.written:
            why = "stopped before the first picture was done" if stop.is_set() else "not one picture can be decoded"
            raise VcamError(f"{job.source}: {why}; nothing was written")
        writer.finish(cut=stop.is_set() or job.frames is not None)
    if stop.is_set():
        noted(f"{job.target}: stopped; it holds the {counts.written} pictures done so far")
    return _report(job, media, engine.settings, settings, counts, seconds, stop.is_set(), tuple(notes))


def _limit(media: Media, frames: int | None) -> int | None:
    """Return how many pictures will be translated, None where nobody knows."""
    return frames if media.expected is None else min(frames or media.expected, media.expected)


def _report(
    job: Job,
    media: Media,
    built: EngineSettings,
    settings: EngineSettings,
    counts: _Counts,
    seconds: float,
    interrupted: bool,
    notes: tuple[str, ...],
) -> TranslateReport:
    return TranslateReport(
        frames_in=counts.read,
        frames_out=counts.written,
        seconds=round(seconds, 3),
        fps=round(counts.written / seconds, 3) if seconds else 0.0,
        model=settings.model,
        runtime=str(built.runtime),
        profile=job.profile,
        bank=settings.bank,
        source=str(job.source),
        target=str(job.target),
        width=media.width,
        height=media.height,
        engine_width=settings.width,
        engine_height=settings.height,
        interrupted=interrupted,
        notes=notes,
    )


def _sized(settings: EngineSettings, media: Media, size: tuple[int, int] | None) -> EngineSettings:
    """Return the settings with this size or, if there is none, their number of pixels in the shape of the pictures."""
    pixels = settings.width * settings.height
    width, height = size or engine_size(media.width, media.height, pixels, pixel_aspect=media.pixel_aspect)
    return replace(settings, width=width, height=height)


def real_engine(settings: EngineSettings, look: Look, noted: Callable[[str], None]) -> Engine:
    """Return the engine; `noted` hears of another runtime than was asked for."""
    from core.engine import Engine as Loaded  # torch: only when it is needed

    told: list[str] = []
    engine = Loaded(settings, look, lambda text, _: told.append(text))
    if engine.trouble:
        noted(f"{engine.settings.runtime} runtime: the TensorRT engine cannot be used: {engine.trouble}")
    elif engine.settings.runtime is not settings.runtime is not Runtime.AUTO:
        noted(told[0])  # which runtime runs instead, and why
    return engine


@dataclass
class _Counts:
    """Pictures that were read, and those whose translation was given to the writer."""

    read: int = 0
    written: int = 0


class _Passing(NamedTuple):
    """What is kept of a picture while its translation is made: its pixels only where their fine edges are wanted.

    detail: how much of them (vcam.fit.enlarged).
    """

    picture: Picture
    size: tuple[int, int]
    whole: bool  # whether it fills the engine's picture, or lies in its middle
    detail: float


def _prepared(
    pictures: Iterable[Picture], media: Media, settings: EngineSettings, detail: float, *, keep: bool
) -> Iterator[tuple[_Passing, Pixels]]:
    """Yield the pictures in the engine's size, stretched by what it rounds; one of another shape lies in the middle.

    keep: their pixels are wanted later, however many.
    """
    width, height = settings.width, settings.height
    for picture in pictures:
        size = (picture.rgb.shape[1], picture.rgb.shape[0])
        whole = of_one_shape(size, (media.width, media.height))
        small = (resized if whole else fitted)(picture.rgb, width, height)
        guided = detail > 0 and picture.rgb.nbytes <= GUIDES
        kept = picture if guided or keep else picture._replace(rgb=_NO_PIXELS)
        yield _Passing(kept, size, whole, detail if guided else 0.0), small


def _run(
    engine: EngineLike,
    prepared: Iterable[tuple[_Passing, Pixels]],
    write: Callable[[_Passing, Pixels], None],
    show: Progress,
    limit: int | None,
) -> _Counts:
    """Send every picture through the engine and write it. Reading and writing run beside it."""
    waiting: deque[_Passing] = deque()  # read, their translation is in flight
    writes: deque[Future[None]] = deque()
    counts = _Counts()

    def put(translated: Pixels) -> None:
        if len(writes) >= AHEAD:
            writes.popleft().result()
        writes.append(pool.submit(write, waiting.popleft(), translated))
        counts.written += 1
        show(counts.written, limit)

    with ThreadPoolExecutor(1, "vcam-writer") as pool:
        try:
            with contextlib.closing(read_ahead(prepared, _bytes_of)) as ready:
                for passing, small in ready:
                    waiting.append(passing)
                    counts.read += 1
                    translated = engine.translate(small)
                    if translated is not None:
                        put(translated)
            for translated in engine.drain():
                put(translated)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for one in writes:
            one.result()
    if waiting:
        raise RuntimeError(f"the engine kept {len(waiting)} of {counts.read} pictures")
    return counts


def _bytes_of(item: tuple[_Passing, Pixels]) -> int:
    picture = item[0].picture
    return item[1].nbytes + picture.rgb.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)


def _write(writer: Writer, passing: _Passing, translated: Pixels, compose: Compose | None) -> None:
    part = translated if passing.whole else part_of(translated, passing.size)
    if passing.detail:
        whole = enlarged(part, passing.picture.rgb, passing.size, passing.detail)
    else:
        whole = resized(part, *passing.size)
    if compose is not None:
        whole = compose(whole, passing.picture.rgb)
    writer.write(passing.picture._replace(rgb=whole))


def _until(stop: threading.Event, pictures: Iterable[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        if stop.is_set():
            return
        yield picture


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one acts as ever."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def shown(progress: bool | Progress, total: int | None) -> Iterator[Progress]:
    """Yield where progress is told: the caller's function, a bar with the time left on stderr, or nowhere."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, of: None
        return
    from tqdm import tqdm

    every = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log file wants few lines
    with tqdm(total=total, unit="frame", file=sys.stderr, dynamic_ncols=True, mininterval=every) as bar:

        def show(done: int, of: int | None) -> None:
            bar.update(done - bar.n)

        yield show
