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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from core.errors import MemoryShort, StreamV2VError
from core.settings import EngineSettings, Look, Lora
from vcam.errors import RemoteError
from vcam.frames import EngineFacts, Picture
from vcam.remote.protocol import (
    Failed,
    ForgetAll,
    FromServer,
    Loaded,
    Loading,
    LorasUsed,
    Prompts,
    Refusal,
    Refused,
    UseLook,
    UseLoraNames,
)
from vcam.worker.factories import EngineProtocol, ReportProgress, give_memory_back

LOG = logging.getLogger("vcam.serve")
BESIDE = 2  # streams of one camera beside the one that shows: another engine, and looks that are tried
MOST_ORDERS = 64  # that may wait for a stream
LOAD_AGAIN_S, LONGEST_LOAD_AGAIN_S = 5.0, 300.0  # until a load that failed is tried again, at first and at the most
MOST_FAILED = 64  # loads that are remembered
RAISES = 5  # pictures in a row at which an engine may fail, before its stream ends
MakeEngine = Callable[[EngineSettings, Look, ReportProgress], EngineProtocol]


class PictureOrder(NamedTuple):
    """Translate this picture, or make one of the prompt alone (None). number: the camera's."""

    number: int
    picture: Picture | None


class Made(NamedTuple):
    """What became of the picture `answers`. shows: the number of the one that `picture` translates; None for none.

    replaced: a newer one took its place, and no translation of it will come.
    waited_ms: until the engine took it; engine_ms: the engine's work.
    """

    answers: int
    shows: int | None = None
    picture: Picture | None = None
    waited_ms: float = 0.0
    engine_ms: float = 0.0
    bank_bytes: int = 0
    refreshes: int = 0
    replaced: bool = False


StreamOrder = PictureOrder | UseLook | UseLoraNames | Prompts | ForgetAll
Tell = Callable[[FromServer | Made], None]


@dataclass(frozen=True)
class Offer:
    """What a server offers. usual: the settings that device, runtime and dtype are taken of, and that are loaded first.

    streams: cameras at once. models: names or folders that a camera may ask for. loras: paths by the names that cameras
    know. most_pixels: of a picture. per_client: cameras at once of one client, 0 for half of all.
    """

    usual: EngineSettings
    streams: int = 1
    models: tuple[str, ...] = ("embedded",)
    loras: dict[str, str] = field(default_factory=dict)
    most_pixels: int = 1024 * 1024
    per_client: int = 0

    @property
    def most_per_client(self) -> int:
        """How many cameras one client may have at once: not all, where there are several places."""
        return self.per_client or max(1, self.streams // 2)

    def settings_for(self, asked: EngineSettings) -> EngineSettings:
        """Return the engine that a camera gets; raises RemoteError, in words for its user."""
        if asked.model not in self.models:
            raise RemoteError(
                f"the server does not offer the model {asked.model[:100]!r}; it offers {', '.join(self.models)}"
            )
        if asked.width * asked.height > self.most_pixels:
            raise RemoteError(
                f"the server translates at most {self.most_pixels} pixels, not {asked.width}x{asked.height}; "
                "take a smaller --engine-size"
            )
        own = self.usual
        return replace(
            asked,
            loras=self.loras_for(asked.loras),
            device=own.device,
            dtype=own.dtype,
            runtime=own.runtime,
            provider=own.provider,
        )

    def loras_for(self, asked: tuple[Lora, ...]) -> tuple[Lora, ...]:
        """Return the LoRAs by the server's own paths; raises RemoteError for one that it does not offer."""
        for one in asked:
            if one.path not in self.loras:
                known = ", ".join(self.loras) or "none"
                raise RemoteError(f"the server does not offer the LoRA {one.path[:100]!r}; it offers {known}")
        return tuple(Lora(self.loras[one.path], one.weight) for one in asked)


class Stream:
    """One stream: what waits for it, and its engine once that has loaded. tell: takes messages, on any thread.

    client: whose token it came with. model: what its engine is made of, None until that has loaded.
    """

    def __init__(self, client: str, camera: str, settings: EngineSettings, look: Look, tell: Tell) -> None:
        self.client, self.camera, self.settings, self.look, self.tell = client, camera, settings, look, tell
        self.model: EngineProtocol | None = None
        self.engine: EngineProtocol | None = None
        self.orders: deque[tuple[StreamOrder, float]] = deque()
        self.in_flight: deque[int] = deque()
        self.raises = 0
        self.closed = False

    @property
    def waits(self) -> bool:
        """Whether there is an order to be carried out."""
        return self.engine is not None and not self.closed and bool(self.orders)

    @property
    def begins(self) -> bool:
        """Whether its engine is to be made of the model that has loaded."""
        return self.engine is None and not self.closed and self.model is not None


@dataclass(frozen=True)
class _FailedLoad:
    """Why a model could not be loaded, how often in a row that was so, and when it was tried last.

    freed: how often memory had been given back until then, None unless it was short: more is a reason to try again.
    """

    text: str
    tries: int
    tried_s: float
    freed: int | None

    @property
    def again_s(self) -> float:
        return self.tried_s + min(LONGEST_LOAD_AGAIN_S, LOAD_AGAIN_S * 2.0 ** min(self.tries - 1, 16))

    def due(self, now_s: float, freed: int) -> bool:
        more = self.freed is not None and freed > self.freed
        return now_s >= (self.tried_s + LOAD_AGAIN_S if more else self.again_s)


class EngineHost:
    """Holds the engines, from when it is built until `close`. `open`, `give` and `end` are for any thread."""

    def __init__(self, offer: Offer, make: MakeEngine, clock: Callable[[], float] = time.perf_counter) -> None:
        self.offer = offer
        self._make, self._clock = make, clock
        self._changed = threading.Condition()
        self._streams: list[Stream] = []
        self._models: dict[EngineSettings, EngineProtocol] = {}  # each is given no picture itself
        self._failed_loads: dict[EngineSettings, _FailedLoad] = {}
        self._freed = 0  # how often memory was given back: a stream or a model was gone
        self._ending = False
        self._turn = 0
        self._turns_since_begun = 0  # orders carried out since a stream's engine was made
        self.broken = ""  # why no engine of this process works any more; whoever runs it shall start another
        self.pictures = 0  # translated so far
        self.busy_s = 0.0  # that the engines worked
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
            refused = self._no_place(client, camera) or self._failed_before(settings)
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

    def _failed_before(self, settings: EngineSettings) -> Refused | None:
        failed, now = self._failed_loads.get(settings), self._clock()
        if failed is None or failed.due(now, self._freed):
            return None
        wait_s = max(1, round(failed.again_s - now))
        return Refused(Refusal.ENGINE, f"{failed.text}; the server tries it again in {wait_s} s")

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
                self._freed += stream.engine is not None
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
            self._failed_loads.pop(settings, None)
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
            self._freed += 1
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
            before = self._failed_loads.pop(settings, None)
            tries = 1 if before is None else before.tries + 1
            freed = self._freed if memory_short else None
            self._failed_loads[settings] = _FailedLoad(text, tries, self._clock(), freed)
            while len(self._failed_loads) > MOST_FAILED:
                del self._failed_loads[next(iter(self._failed_loads))]
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
        try:
            self._carry_out(stream, order, given_s)
        except Exception as error:  # noqa: BLE001  a fault at one stream's order must not cost the others
            self._failed(stream, order, error)

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

    def _carry_out(self, stream: Stream, order: StreamOrder, given_s: float) -> None:
        engine = stream.engine
        assert engine is not None
        match order:
            case PictureOrder():
                self._translate(stream, engine, order, given_s)
            case UseLook(look, frames):
                engine.set_look(look, frames)
            case UseLoraNames(asked, frames):
                if self.offer.streams != 1:
                    raise RemoteError("this server's streams share their LoRAs")
                engine.use_loras(self.offer.loras_for(asked), frames)
                stream.tell(LorasUsed(asked))
            case Prompts(prompts):
                engine.prepare(prompts[:1])
                if prompts[1:]:
                    self.give(stream, Prompts(prompts[1:]))  # one at a time, between pictures
            case ForgetAll():
                engine.forget()

    def _translate(self, stream: Stream, engine: EngineProtocol, given: PictureOrder, given_s: float) -> None:
        began_s = self._clock()
        stream.in_flight.append(given.number)
        while len(stream.in_flight) > engine.delay + 1:
            stream.in_flight.popleft()
        try:
            picture = engine.imagine() if given.picture is None else engine.translate(given.picture)
        except Exception:
            stream.in_flight.pop()  # nothing of it will come out
            raise
        took_s = self._clock() - began_s
        stream.raises = 0
        self.pictures += picture is not None
        self.busy_s += took_s
        shows = None if picture is None else stream.in_flight[0]
        waited_s = began_s - given_s
        kept = engine.bank_bytes, engine.refreshes
        stream.tell(Made(given.number, shows, picture, 1000 * waited_s, 1000 * took_s, *kept))

    def _failed(self, stream: Stream, order: StreamOrder, error: Exception) -> None:
        known = isinstance(error, StreamV2VError)
        text = " ".join(str(error).split())[:300] if known else f"the engine failed ({type(error).__name__})"
        if not known:
            LOG.error("an order failed", exc_info=error)
        match order:
            case PictureOrder(number):
                stream.raises += 1
                if stream.raises >= RAISES:
                    if not known:
                        self._look_whether_broken(stream)
                    stream.tell(Refused(Refusal.ENGINE, text))
                else:
                    stream.tell(Failed("picture", text, number))
            case UseLoraNames():
                stream.tell(Failed("loras", text))
            case _:
                stream.tell(Failed("look", text))

    def _look_whether_broken(self, failed: Stream) -> None:
        """Set `broken` if the model of a stream that failed translates nothing at all, not even for a new stream."""
        assert failed.model is not None
        size = failed.settings.height, failed.settings.width, 3
        try:
            failed.model.another(Look(prompt="a person")).translate(np.full(size, 128, np.uint8))
        except StreamV2VError as error:
            LOG.warning("whether the engine still works cannot be told: %s", error)
        except Exception as error:
            LOG.exception("the engine works no more")
            self.broken = f"the engine failed ({type(error).__name__})"


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
