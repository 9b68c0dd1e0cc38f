"""`vcam translate`: a film, a picture or a folder of pictures through the engine, every picture, offline."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from types import FrameType
from typing import Any, Protocol, TypeVar

from core.settings import EngineSettings, Look, Runtime
from vcam.errors import VcamError
from vcam.settings.engine import engine_size
from vcam.video import (
    Media,
    Note,
    Picture,
    Pixels,
    Writer,
    check_frames,
    kept,
    probe,
    read,
    resized,
    to_stderr,
    writing,
)

T = TypeVar("T")

Progress = Callable[[int, int | None], None]
_AHEAD = 8  # pictures read ahead of the engine, and as many waiting to be written


class EngineLike(Protocol):
    """What `translate` asks of an engine (core.engine.Engine)."""

    @property
    def settings(self) -> EngineSettings:
        """With what it was built, nothing left to choose."""

    @property
    def delay(self) -> int:
        """Pictures between one and its translation."""

    def translate(self, picture: Pixels) -> Pixels | None:
        """The translation of the picture given `delay` calls ago, None for the first `delay` calls."""

    def drain(self) -> Iterator[Pixels]:
        """The `delay` translations still in flight."""


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


def translate(
    source: Path,
    target: Path,
    settings: EngineSettings,
    look: Look,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    profile: str | None = None,
    progress: bool | Progress = True,
    make_engine: MakeEngine | None = None,
    note: Note = to_stderr,
) -> TranslateReport:
    """Translate `source` into `target`: every picture in order, output picture i shows input picture i.

    settings.width * settings.height is the engine's pixel budget, spent in the shape of the source; `size` (width,
    height) is taken as it is. frames: stop after so many. Ctrl-C and SIGTERM complete the file with what was done;
    the report says `interrupted`. Raises VcamError, and leaves nothing under the target's name then.
    """
    check_frames(frames)
    notes, noted = kept(note)
    media = probe(source)
    settings = _sized(settings, media, size)
    limit = frames if media.frames is None else min(frames or media.frames, media.frames)
    with _stop_on_signal() as stop, writing(target, media, noted) as writer:
        engine = make_engine(settings, look) if make_engine else _real_engine(settings, look, noted)
        started = time.monotonic()
        with shown(progress, limit) as show:
            pictures = _until(stop, islice(read(media, noted), frames))
            count_in, count_out = _run(engine, pictures, writer, lambda done: show(done, limit))
        seconds = time.monotonic() - started
        if not count_out:
            why = "stopped before the first picture was done" if stop.is_set() else "not one picture can be decoded"
            raise VcamError(f"{source}: {why}; nothing was written")
        writer.finish(cut=stop.is_set() or frames is not None)
    if stop.is_set():
        noted(f"{target}: stopped; it holds the {count_out} pictures done so far")
    return TranslateReport(
        frames_in=count_in,
        frames_out=count_out,
        seconds=round(seconds, 3),
        fps=round(count_out / seconds, 3) if seconds else 0.0,
        model=settings.model,
        runtime=str(engine.settings.runtime),
        profile=profile,
        bank=str(settings.policy),
        source=str(source),
        target=str(target),
        width=media.width,
        height=media.height,
        engine_width=settings.width,
        engine_height=settings.height,
        interrupted=stop.is_set(),
        notes=tuple(notes),
    )


def _sized(settings: EngineSettings, media: Media, size: tuple[int, int] | None) -> EngineSettings:
    """The settings with this size or, if there is none, their number of pixels in the shape of the pictures."""
    pixels = settings.width * settings.height
    width, height = size or engine_size(media.width, media.height, pixels, pixel_aspect=media.pixel_aspect)
    return replace(settings, width=width, height=height)


def _real_engine(settings: EngineSettings, look: Look, noted: Callable[[str], None]) -> EngineLike:
    from core.engine import Engine  # torch: only when it is needed

    told: list[str] = []
    engine = Engine(settings, look, lambda text, _: told.append(text))
    if engine.trouble:
        noted(f"{engine.settings.runtime} runtime: the TensorRT engine cannot be used: {engine.trouble}")
    elif engine.settings.runtime is not settings.runtime is not Runtime.AUTO:
        noted(told[0])  # which runtime runs instead, and why
    return engine


def _run(
    engine: EngineLike,
    pictures: Iterable[Picture],
    writer: Writer,
    done: Callable[[int], None],
) -> tuple[int, int]:
    """Send every picture through the engine to the writer; (read, written). Reading and writing run beside it."""
    waiting: deque[Picture] = deque()  # read, their translation is in flight
    writes: deque[Future[None]] = deque()
    count_in = count_out = 0

    def put(translated: Pixels) -> None:
        nonlocal count_out
        if len(writes) >= _AHEAD:
            writes.popleft().result()
        writes.append(pool.submit(_write, writer, waiting.popleft(), translated))
        count_out += 1
        done(count_out)

    width, height = engine.settings.width, engine.settings.height
    small = ((p, resized(p.rgb, width, height)) for p in pictures)
    with ThreadPoolExecutor(1, "vcam-writer") as pool:
        try:
            with contextlib.closing(_ahead(small, _AHEAD)) as ready:
                for picture, fitted in ready:
                    waiting.append(picture)
                    count_in += 1
                    translated = engine.translate(fitted)
                    if translated is not None:
                        put(translated)
            for translated in engine.drain():
                put(translated)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for write in writes:
            write.result()
    if waiting:
        raise RuntimeError(f"the engine kept {len(waiting)} of {count_in} pictures")
    return count_in, count_out


def _write(writer: Writer, picture: Picture, translated: Pixels) -> None:
    height, width = picture.rgb.shape[:2]
    writer.write(picture._replace(rgb=resized(translated, width, height)))


def _ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """`items`, made by a thread of their own up to `depth` ahead; their errors are raised here."""
    queue: Queue[tuple[Any, BaseException | None]] = Queue(depth)
    closed = threading.Event()
    end = object()

    def put(item: object, error: BaseException | None = None) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                queue.put((item, error), timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
            put(end)
        except BaseException as error:  # noqa: BLE001  # raised again where the items are taken
            put(end, error)

    thread = threading.Thread(target=work, name="vcam-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        closed.set()
        with contextlib.suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join()


def _until(stop: threading.Event, pictures: Iterable[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        if stop.is_set():
            return
        yield picture


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one acts as ever."""
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
    """Where progress is told: the caller's function, a bar with the time left on stderr, or nowhere."""
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
