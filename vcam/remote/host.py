"""The engines of one server process: a model is loaded once, and each stream is a state of its own on it.

One thread, vcam-engines, calls the engines, a picture of each stream in turn: so no stream gets more than its share,
and no two calls meet in a library. Another thread loads a model that is not there yet; what runs goes on meanwhile.
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

from core.errors import StreamV2VError
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
from vcam.worker.factories import EngineProtocol, ReportProgress

LOG = logging.getLogger("vcam.serve")
BESIDE = 2  # streams of one camera beside the one that shows: another engine, and looks that are tried
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
    know. most_pixels: of a picture.
    """

    usual: EngineSettings
    streams: int = 1
    models: tuple[str, ...] = ("embedded",)
    loras: dict[str, str] = field(default_factory=dict)
    most_pixels: int = 1024 * 1024

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
    """One stream: what waits for it, and its engine once that has loaded. tell: takes messages, on any thread."""

    def __init__(self, camera: str, settings: EngineSettings, look: Look, tell: Tell) -> None:
        self.camera, self.settings, self.look, self.tell = camera, settings, look, tell
        self.engine: EngineProtocol | None = None
        self.orders: deque[tuple[StreamOrder, float]] = deque()
        self.in_flight: deque[int] = deque()
        self.raises = 0
        self.closed = False

    @property
    def waits(self) -> bool:
        """Whether there is something to do."""
        return self.engine is not None and not self.closed and bool(self.orders)


@dataclass
class _LoadedModel:
    """An engine of some settings, from which those of streams are made. It is given no picture itself."""

    engine: EngineProtocol
    settings: EngineSettings


class EngineHost:
    """Holds the engines, from when it is built until `close`. `open`, `give` and `end` are for any thread."""

    def __init__(self, offer: Offer, make: MakeEngine, clock: Callable[[], float] = time.perf_counter) -> None:
        self.offer = offer
        self._make, self._clock = make, clock
        self._changed = threading.Condition()
        self._streams: list[Stream] = []
        self._models: list[_LoadedModel] = []
        self._load = threading.Lock()  # one model at a time is loaded: its memory is looked at before
        self._ending = False
        self._turn = self._raises = 0
        self.broken = ""  # why no engine of this process works any more; whoever runs it shall start another
        self.pictures = 0  # translated so far
        self.busy_s = 0.0  # that the engines worked
        self._thread = threading.Thread(target=self._work, name="vcam-engines", daemon=True)
        self._thread.start()

    @property
    def cameras(self) -> int:
        """How many cameras have streams."""
        with self._changed:
            return len({one.camera for one in self._streams})

    def preload(self) -> None:
        """Load the usual engine now, so that the first camera need not wait; raises StreamV2VError."""
        with self._load:
            self._loaded(self.offer.usual, Look(prompt="a person"), lambda text, fraction: None)

    def open(self, camera: str, asked: EngineSettings, look: Look, tell: Tell) -> Stream | Refused:
        """Return a stream, whose engine is loaded meanwhile; or why there is none, at once."""
        try:
            settings = self.offer.settings_for(asked)
        except RemoteError as error:
            return Refused(Refusal.MODEL, str(error))
        stream = Stream(camera, settings, look, tell)
        with self._changed:
            if self._ending:
                return Refused(Refusal.ENDING, "the server is ending")
            cameras = {one.camera for one in self._streams}
            own = sum(one.camera == camera for one in self._streams)
            if camera not in cameras and len(cameras) >= self.offer.streams:
                return Refused(Refusal.BUSY, f"the server is busy: all {self.offer.streams} of its streams are taken")
            if own > BESIDE:
                return Refused(Refusal.BUSY, f"this camera has {own} streams already")
            self._streams.append(stream)
        threading.Thread(target=self._begin, args=(stream,), name="vcam-load", daemon=True).start()
        return stream

    def give(self, stream: Stream, order: StreamOrder) -> None:
        """Have an order carried out in its turn; of pictures that wait the newest wins, the other gives none."""
        replaced: PictureOrder | None = None
        with self._changed:
            if stream.closed:
                return
            if isinstance(order, PictureOrder):
                waiting = next((one for one in stream.orders if isinstance(one[0], PictureOrder)), None)
                if waiting is not None:
                    stream.orders.remove(waiting)
                    replaced = waiting[0]  # type: ignore[assignment]
            elif len(stream.orders) >= 64:
                return  # looks come one a key press: nobody who means well has so many waiting
            stream.orders.append((order, self._clock()))
            self._changed.notify()
        if replaced is not None:
            stream.tell(Made(replaced.number, replaced=True))

    def end(self, stream: Stream) -> None:
        """End a stream and forget all of it."""
        with self._changed:
            stream.closed = True
            if stream in self._streams:
                self._streams.remove(stream)
            stream.orders.clear()
            self._changed.notify()

    def close(self) -> None:
        """End all streams and the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(10)

    # ---- loading

    def _begin(self, stream: Stream) -> None:
        def report(text: str, fraction: float) -> None:
            stream.tell(Loading(text, fraction))

        try:
            with self._load:
                if stream.closed:
                    return
                engine = self._loaded(stream.settings, stream.look, report).engine.another(stream.look)
        except StreamV2VError as error:
            stream.tell(Refused(Refusal.ENGINE, str(error)))
        except Exception as error:
            LOG.exception("an engine could not be loaded")
            stream.tell(Refused(Refusal.ENGINE, f"the engine could not be loaded ({type(error).__name__})"))
        else:
            facts = self._facts(engine)
            with self._changed:
                stream.engine = engine
                self._changed.notify()
            stream.tell(Loaded(facts))

    def _loaded(self, settings: EngineSettings, look: Look, report: ReportProgress) -> _LoadedModel:
        for one in self._models:
            if one.settings == settings:
                return one
        with self._changed:
            used = {stream.settings for stream in self._streams if stream.engine is not None}
        self._models = [one for one in self._models if one.settings in used]  # what nobody uses makes room
        loaded = _LoadedModel(self._make(settings, look, report), settings)
        self._models.append(loaded)
        return loaded

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

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ending and not any(one.waits for one in self._streams):
                    self._changed.wait()
                if self._ending:
                    return
                stream = self._next()
                order, given_s = stream.orders.popleft()
            try:
                self._carry_out(stream, order, given_s)
            except Exception as error:  # noqa: BLE001  a fault at one stream's order must not cost the others
                self._failed(stream, order, error)

    def _next(self) -> Stream:
        """Return the stream whose turn it is."""
        for step in range(len(self._streams)):
            one = self._streams[(self._turn + step) % len(self._streams)]
            if one.waits:
                self._turn = (self._turn + step + 1) % len(self._streams)
                return one
        raise AssertionError("none waits")

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
        stream.raises = self._raises = 0
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
                self._raises += not known
                if self._raises >= RAISES:
                    self.broken = text
                if stream.raises >= RAISES:
                    stream.tell(Refused(Refusal.ENGINE, text))
                else:
                    stream.tell(Failed("picture", text, number))
            case UseLoraNames():
                stream.tell(Failed("loras", text))
            case _:
                stream.tell(Failed("look", text))


def engine_maker(factory: str, threads: int) -> MakeEngine:
    """Return what makes engines with so many CPU threads; factory: as in vcam.worker.factories."""

    def make(settings: EngineSettings, look: Look, report: ReportProgress) -> Any:
        module, _, name = factory.partition(":")
        return getattr(importlib.import_module(module), name)(settings, look, threads, report)

    return make
