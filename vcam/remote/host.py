"""The engines of one server process: a model is loaded once, and each stream is a state of its own on it.

One thread, vcam-engines, calls the engines, a picture of each stream in turn: so no stream gets more than its share,
and no two calls meet in a library; that is why it also makes each stream's engine of the loaded model, at most one
between two pictures of the others. Another thread, vcam-loads, loads one model after the other; what runs goes on
meanwhile. What could not be loaded is remembered with its reason, and tried again after a while that grows.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from core.errors import MemoryShort, StreamV2VError
from core.settings import EngineSettings, Look
from vcam.errors import RemoteError
from vcam.frames import EngineFacts
from vcam.remote.failed_loads import FailedLoads
from vcam.remote.offer import Offer
from vcam.remote.protocol import (
    Failed,
    Loaded,
    Loading,
    Refusal,
    Refused,
)
from vcam.remote.stream_work import StreamWork
from vcam.remote.streams import Made, PictureOrder, Stream, StreamOrder, Tell
from vcam.worker.factories import EngineProtocol, ReportProgress, give_memory_back

LOG = logging.getLogger("vcam.serve")
BESIDE = 2  # streams of one camera beside the one that shows: another engine, and looks that are tried
MOST_ORDERS = 64  # that may wait for a stream
MakeEngine = Callable[[EngineSettings, Look, ReportProgress], EngineProtocol]


class EngineHost:
    """Holds the engines, from when it is built until `close`. `open`, `give` and `end` are for any thread."""

    def __init__(self, offer: Offer, make: MakeEngine, clock: Callable[[], float] = time.perf_counter) -> None:
        self.offer = offer
        self._make, self._clock = make, clock
        self._changed = threading.Condition()
        self._streams: list[Stream] = []
        self._models: dict[EngineSettings, EngineProtocol] = {}  # each is given no picture itself
        self._failed_loads = FailedLoads()
        self._ending = False
        self._turn = 0
        self._turns_since_begun = 0  # orders carried out since a stream's engine was made
        self.work = StreamWork(offer, self.give, clock)
        self._threads = [
            threading.Thread(target=self._repeat, args=(due, work), name=name, daemon=True)
            for due, work, name in (
                (lambda one: one.waits or one.begins, self._take_turn, "vcam-engines"),
                (lambda one: one.model is None, self._load_next, "vcam-loads"),
            )
        ]
        for one in self._threads:
            one.start()

    @property
    def broken(self) -> str:
        """Why no engine of this process works any more, "" while one does."""
        return self.work.broken

    @property
    def cameras(self) -> int:
        """How many cameras have streams."""
        with self._changed:
            return len({(one.client, one.camera) for one in self._streams})

    def preload(self) -> None:
        """Load the usual engine now, so that the first camera need not wait; before any camera comes.

        Raises StreamV2VError, also where there is too little memory for all streams.
        """
        model = self._make(self.offer.usual, Look(prompt="a person"), lambda text, fraction: None)
        model.check_streams(self.offer.streams)
        with self._changed:
            self._models[self.offer.usual] = model

    def open(self, client: str, camera: str, asked: EngineSettings, look: Look, tell: Tell) -> Stream | Refused:
        """Return a stream, whose engine is loaded meanwhile; or why there is none, at once."""
        try:
            settings = self.offer.settings_for(asked)
        except RemoteError as error:
            return Refused(Refusal.MODEL, str(error))
        stream = Stream(client, camera, settings, look, tell)
        with self._changed:
            refused = self._no_place(client, camera) or self._failed_loads.refusal(settings, self._clock())
            if refused is not None:
                return refused
            stream.model = self._models.get(settings)
            self._streams.append(stream)
            self._changed.notify_all()
        return stream

    def _no_place(self, client: str, camera: str) -> Refused | None:
        """Return why this camera gets no stream, None if it gets one."""
        if self._ending:
            return Refused(Refusal.ENDING, "the server is ending")
        cameras = {(one.client, one.camera) for one in self._streams}
        if (client, camera) not in cameras:
            if len(cameras) >= self.offer.streams:
                text = f"the server is busy: all {self.offer.streams} of its streams are taken"
                return Refused(Refusal.BUSY, text)
            own, most = sum(one[0] == client for one in cameras), self.offer.most_per_client
            if own >= most:
                text = (
                    f"the client {client!r} has {own} of the {self.offer.streams} streams, and may have {most}; one "
                    "of a connection that was lost ends within 10 s; pair each camera's machine by itself: vcam serve "
                    "clients add NAME there"
                )
                return Refused(Refusal.BUSY, text)
        of_camera = sum((one.client, one.camera) == (client, camera) for one in self._streams)
        if of_camera > BESIDE:
            return Refused(Refusal.BUSY, f"this camera has {of_camera} streams already")
        return None

    def give(self, stream: Stream, order: StreamOrder, waited_s: float = 0.0) -> None:
        """Have an order carried out in its turn; of pictures that wait the newest wins, the other gives none.

        waited_s: that it has waited before.
        """
        replaced: PictureOrder | None = None
        with self._changed:
            if stream.closed:
                return
            if isinstance(order, PictureOrder):
                waiting = next((one for one in stream.orders if isinstance(one[0], PictureOrder)), None)
                if waiting is not None:
                    stream.orders.remove(waiting)
                    replaced = waiting[0]  # type: ignore[assignment]
            elif len(stream.orders) >= MOST_ORDERS:  # looks come one a key press: nobody who means well has so many
                stream.tell(Failed("look", f"{MOST_ORDERS} looks and prompts wait already; this one was left out"))
                return
            stream.orders.append((order, self._clock() - waited_s))
            self._changed.notify_all()
        if replaced is not None:
            stream.tell(Made(replaced.number, replaced=True))

    def end(self, stream: Stream) -> None:
        """End a stream and forget all of it."""
        with self._changed:
            stream.closed = True
            if stream in self._streams:
                self._streams.remove(stream)
                self._failed_loads.freed += stream.engine is not None
            stream.orders.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """End all streams and the threads."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for one in self._threads:
            one.join(10)

    def _repeat(self, due: Callable[[Stream], bool], work: Callable[[], None]) -> None:
        """Do the work whenever it is due for a stream, to the end: the life of a thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or any(map(due, self._streams)))
                if self._ending:
                    return
            work()

    # ---- the thread that loads models

    def _load_next(self) -> None:
        """Load what the stream that waits longest asks for; this thread holds none of it afterwards."""
        with self._changed:
            first = next((one for one in self._streams if one.model is None), None)
        if first is None:
            return
        settings = first.settings
        try:
            model = self._loaded(settings, first.look)
        except Exception as error:  # noqa: BLE001  `_not_loaded` logs it; the thread goes on with the next
            self._load_failed(settings, _not_loaded(error), memory_short=isinstance(error, MemoryShort))
            return
        self._hand_over(settings, model)
        self._put_out(but=(self.offer.usual, settings))

    def _hand_over(self, settings: EngineSettings, model: EngineProtocol) -> None:
        """Give a model to all who wait for it."""
        with self._changed:
            self._models[settings] = model
            self._failed_loads.loaded(settings)
            for one in self._streams:
                if one.settings == settings:
                    one.model = one.model or model
            self._changed.notify_all()

    def _loaded(self, settings: EngineSettings, look: Look) -> EngineProtocol:
        """Load a model beside all others; where memory is short, in the place of those that nobody uses."""

        def report(text: str, fraction: float) -> None:
            with self._changed:
                waiting = [one for one in self._streams if one.settings == settings and one.model is None]
            for one in waiting:
                one.tell(Loading(text, fraction))

        try:
            return self._make(settings, look, report)
        except MemoryShort:
            if not (gone := self._put_out()):
                raise
        try:
            return self._make(settings, look, report)
        except Exception:
            self._bring_back(gone)
            raise

    def _put_out(self, but: tuple[EngineSettings, ...] = ()) -> list[EngineSettings]:
        """Let models go that no stream uses, and return which."""
        with self._changed:
            used = {one.settings for one in self._streams if one.model is not None}.union(but)
            gone = {one: self._models.pop(one) for one in list(self._models) if one not in used}
        which = list(gone)
        if not which:
            return []
        gone.clear()  # ends them, which takes its time: nobody waits for the lock meanwhile
        give_memory_back()
        with self._changed:
            self._failed_loads.freed += 1
        return which

    def _bring_back(self, gone: list[EngineSettings]) -> None:
        """Load the usual model again, if it made room for one that could not be loaded: it is what cameras ask for."""
        if (usual := self.offer.usual) not in gone:
            return
        try:
            model = self._make(usual, Look(prompt="a person"), lambda text, fraction: None)
        except StreamV2VError as error:
            LOG.warning("the usual model cannot be loaded again: %s", error)  # the camera that asks for it hears why
            return
        self._hand_over(usual, model)

    def _load_failed(self, settings: EngineSettings, text: str, memory_short: bool) -> None:
        """Remember it, and tell those who wait for it, whose streams end."""
        with self._changed:
            self._failed_loads.note(settings, text, memory_short, self._clock())
            waiting = [one for one in self._streams if one.settings == settings and one.model is None]
            for one in waiting:
                one.closed = True
                self._streams.remove(one)
        for one in waiting:
            one.tell(Refused(Refusal.ENGINE, text))

    def _facts(self, engine: EngineProtocol) -> EngineFacts:
        return EngineFacts(
            model=engine.settings.model,
            runtime=str(engine.settings.runtime),
            device=engine.settings.device,
            delay=engine.delay,
            bank_bytes=engine.bank_bytes,
            changes_loras=engine.changes_loras and self.offer.streams == 1,  # several streams share the weights
            provider=engine.provider,
        )

    # ---- the thread that calls the engines

    def _take_turn(self) -> None:
        """Do one thing for the stream whose turn it is; this thread holds nothing of it afterwards."""
        with self._changed:
            stream = self._next()
            if stream is None:
                return
            order, given_s = (None, 0.0) if stream.begins else stream.orders.popleft()
        if order is None:
            self._begin(stream)
            return
        self.work.do(stream, order, given_s)

    def _next(self) -> Stream | None:
        """Return the stream whose turn it is, None if there is none; one begins after a turn of all that wait."""
        waiting = sum(one.waits for one in self._streams)
        for begun in [one for one in self._streams if one.begins][:1]:
            if self._turns_since_begun >= waiting:
                self._turns_since_begun = 0
                return begun
        for step in range(len(self._streams)):
            one = self._streams[(self._turn + step) % len(self._streams)]
            if one.waits:
                self._turn = (self._turn + step + 1) % len(self._streams)
                self._turns_since_begun += 1
                return one
        return None

    def _begin(self, stream: Stream) -> None:
        """Make a stream's engine of its model."""
        assert stream.model is not None
        try:
            engine = stream.model.another(stream.look)
        except Exception as error:  # noqa: BLE001  `_not_loaded` logs it; it costs this stream alone
            self.end(stream)
            stream.tell(Refused(Refusal.ENGINE, _not_loaded(error)))
            return
        with self._changed:
            if stream.closed:
                return
            stream.engine = engine
        stream.tell(Loaded(self._facts(engine)))


def _not_loaded(error: Exception) -> str:
    """Return why there is no engine, in words for a camera; what nobody foresaw is logged."""
    if isinstance(error, StreamV2VError):
        return str(error)
    LOG.error("an engine could not be loaded", exc_info=error)
    return f"the engine could not be loaded ({type(error).__name__})"


def engine_maker(factory: str, threads: int) -> MakeEngine:
    """Return what makes engines with so many CPU threads; factory: as in vcam.worker.factories."""

    def make(settings: EngineSettings, look: Look, report: ReportProgress) -> Any:
        module, _, name = factory.partition(":")
        return getattr(importlib.import_module(module), name)(settings, look, threads, report)

    return make
