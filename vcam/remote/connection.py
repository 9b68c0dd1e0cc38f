"""The engine on a server, in the place of a child process: one WebSocket, on a thread of its own.

Nobody waits for the network: what is to be sent waits in an outbox, in which of pictures the window alone has room, and
what has come is fetched when it is asked for. Whatever becomes of the connection is a sentence in `death`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np

from core.settings import CAMERA, EngineSettings, Look, Lora
from vcam.errors import CodecError, RemoteError
from vcam.frames import Picture, Spread
from vcam.remote import names
from vcam.remote.codecs import CameraCodec, WantedCodec, codecs
from vcam.remote.connecting import End
from vcam.remote.on_the_way import OnTheWay, SentPicture, SlowWay, WayTimes
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import (
    LARGEST_TEXT,
    LATE_S,
    WINDOW,
    Alive,
    Answer,
    Codec,
    Failed,
    ForgetAll,
    GivenPicture,
    Hello,
    Loaded,
    Loading,
    LorasUsed,
    Prompts,
    Refusal,
    Refused,
    UseLook,
    UseLoraNames,
    from_server,
    packed,
    packed_picture,
    unpacked_answer,
)
from vcam.remote.turns import NextTurn, Turn
from vcam.remote.wire import Wire
from vcam.worker.messages import (
    EmptyBank,
    EncodePrompts,
    EngineLoaded,
    Exit,
    FrameDone,
    LoadFailed,
    LoadingProgress,
    LorasFused,
    Order,
    OrderFailed,
    SetLook,
    TranslateFrame,
    UseLoras,
)

MOST_SERVER_S = 10.0  # that a server may say a picture was with it


class HeldPictures:
    """The picture to be sent, and the translation that came: RGB uint8 [height, width, 3]."""

    def __init__(self, settings: EngineSettings) -> None:
        shape = (settings.height, settings.width, 3)
        self.given: Picture = np.zeros(shape, np.uint8)
        self.result: Picture = np.zeros(shape, np.uint8)


class Bell:
    """What multiprocessing.connection.wait finds ready from a `ring` to the next `hush`.

    arrived: called at each ring.
    """

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        self.waitable, self._ringing = multiprocessing.Pipe(duplex=False)
        self._rung = threading.Event()

    def ring(self) -> None:
        """Ring; from any thread."""
        if not self._rung.is_set():
            self._rung.set()
            with contextlib.suppress(OSError, ValueError):  # it is closed already
                self._ringing.send_bytes(b"!")
        self._arrived()

    def hush(self) -> None:
        """Be silent until the next ring."""
        if self.waitable.poll():
            self.waitable.recv_bytes()
            self._rung.clear()

    def close(self) -> None:
        """Ring no more."""
        self.waitable.close()
        self._ringing.close()


class LoraNames:
    """LoRAs by the names of their files: what paths this machine has is no business of a server's."""

    def __init__(self) -> None:
        self._own: dict[str, Lora] = {}

    def named(self, loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
        """Return them as the server hears of them."""
        named = tuple(Lora(PurePath(one.path).name, one.weight) for one in loras)
        self._own |= {one.path: own for one, own in zip(named, loras, strict=True)}
        return named

    def known(self, named: tuple[Lora, ...]) -> tuple[Lora, ...]:
        """Return those of them that were named before, by this machine's paths."""
        return tuple(replace(self._own[one.path], weight=one.weight) for one in named if one.path in self._own)


class ServerEngine:
    """An EngineChild on a server; it connects when this is built. camera: the name of this run's.

    wanted: how pictures go. arrived: called on another thread when there is a message. `cut` and `times` are for any
    thread, all else for one.
    """

    window = WINDOW
    here = False
    pid = 0

    def __init__(
        self,
        server: PairedServer,
        camera: str,
        settings: EngineSettings,
        look: Look,
        arrived: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        wanted: WantedCodec | None = None,
    ) -> None:
        self.pictures = HeldPictures(settings)
        self._name, self._clock = server.name, clock
        self._coding = CameraCodec(wanted or WantedCodec(), (settings.width, settings.height))
        self._loras = LoraNames()
        self._on_the_way, self._next_turn, self._times = OnTheWay(), NextTurn(), WayTimes()
        self._slow_way = SlowWay(server.name)
        self._bell = Bell(arrived)
        named = replace(settings, loras=self._loras.named(settings.loras))
        self._wire = Wire(server, Hello(server.token, camera, named, _sent_look(look)), self._bell.ring)
        self._wire.start()

    # ---- from any thread

    @property
    def times(self) -> Mapping[str, Spread]:
        """What the way of the last pictures took, by PARTS; empty before the first."""
        return self._times.spreads()

    def cut(self) -> None:
        """End the connection at once, with what is on its way."""
        self._wire.cut()

    # ---- from the translating thread

    @property
    def pause_s(self) -> float:
        """How long the next picture shall wait here for a newer one: what is early waits for the engine there."""
        return self._next_turn.in_s(self._clock())

    @property
    def waitable(self) -> list[Any]:
        """What is ready when a message has come, or when the connection has ended."""
        return [self._bell.waitable]

    def send(self, order: Order) -> None:
        """Have an order sent; a picture is encoded here."""
        match order:
            case TranslateFrame():
                self._give(order)
            case SetLook(look, frames):
                self._wire.put(packed(UseLook(_sent_look(look), frames)))
            case UseLoras(loras, frames):
                self._wire.put(packed(UseLoraNames(self._loras.named(loras), frames)))
            case EncodePrompts(prompts):
                self._wire.put(_fitting(prompts))
            case EmptyBank():
                self._wire.put(packed(ForgetAll()))
            case Exit():
                self._wire.end()

    def messages(self) -> Iterator[object]:
        """Yield what has come, in the words of a child process."""
        self._bell.hush()
        while (message := self._wire.next()) is not None:
            try:
                yield from self._heard(message)
            except CodecError as error:
                yield self._failed(self._by_jpeg(str(error)))
                return
            except RemoteError as error:
                yield self._failed(End(f"{self._name}: {error}"))
                return
            except Exception as error:  # noqa: BLE001  whatever a stranger sends, it ends this connection and no more
                yield self._failed(End(f"{self._name} sends what cannot be read ({type(error).__name__})"))
                return
        end = self._wire.ended
        if end is not None and end.final:
            yield LoadFailed(end.why, True)

    def death(self, wait_s: float = 0.0) -> str:
        """Return why the connection has ended, "" while it lives."""
        end = self._wire.ended
        return "" if end is None else end.why

    def close(self, grace_s: float) -> None:
        """End the connection: in order if there is time for it."""
        if grace_s:
            self._wire.end()
        else:
            self._wire.cut()
        self._wire.join(max(grace_s, 2.0))
        self._bell.close()

    def _give(self, order: TranslateFrame) -> None:
        began_s, codec = self._clock(), self._coding.next(self._wire.far)
        try:
            coded = b"" if order.imagined else self._coding.encode(self.pictures.given, codec)
        except CodecError as error:
            self._wire.fail(self._by_jpeg(str(error)))
            return
        now = self._clock()
        number = self._on_the_way.add(SentPicture(order, now, 1000 * (now - began_s)))
        self._wire.put(packed_picture(GivenPicture(number, self._on_the_way.receipt, coded, codec)))

    def _heard(self, message: str | bytes) -> Iterator[object]:
        if isinstance(message, bytes):
            yield from self._answered(unpacked_answer(message))
            return
        match from_server(message):
            case Loading(text, fraction):
                yield LoadingProgress(f"{self._name}: {text}"[:300], min(1.0, max(0.0, fraction)))
            case Loaded(facts, taken):
                self._coding.taken = taken
                yield EngineLoaded(self._slow_way.loaded(facts))
            case Failed("picture", text, number):
                yield OrderFailed("picture", text[:300], self._on_the_way.failed(number).order)
            case Failed(kind, text):
                yield OrderFailed("loras" if kind == "loras" else "look", text[:300])
            case LorasUsed(loras):
                yield LorasFused(self._loras.known(loras))
            case Refused(Refusal.CODEC, text):
                yield self._failed(self._by_jpeg(text[:300]))
            case Refused(code, text):
                yield self._failed(End(f"{self._name}: {text[:300]}", code.final))
            case Alive():
                pass

    def _answered(self, answer: Answer) -> Iterator[object]:
        """Take note of an answer; what was too long on its way is not shown, which is told."""
        sent, shown = self._on_the_way.answered(answer)
        now = self._clock()
        trip_ms = 1000 * (now - sent.sent_s)
        way_ms = sent.encode_ms + trip_ms - answer.waited_ms - answer.engine_ms
        waits = self._on_the_way.waits and not answer.replaced
        self._next_turn.answered(Turn(answer.engine_ms, way_ms), now, waits)
        network_ms = trip_ms - min(answer.server_ms, 1000 * MOST_SERVER_S)
        late = network_ms > 1000 * LATE_S
        if shown is not None and (not late or answer.codec is Codec.H264):  # of which every one must be decoded
            came = self._coding.decode(answer.coded, answer.codec)
        self._on_the_way.forget(answer)
        if shown is None or late:
            unshown = sent.order if answer.replaced else None if shown is None else shown.order
            yield FrameDone(None, answer.bank_bytes, answer.refreshes, unshown)
        else:
            self.pictures.result[:] = came
            self._times.add(sent, answer, trip_ms, 1000 * (self._clock() - now))
            yield FrameDone(shown.order, answer.bank_bytes, answer.refreshes)
        if (told := self._slow_way.answered(late, network_ms)) is not None:
            yield EngineLoaded(told)
            if late:  # before the first picture that is what is told
                yield LoadingProgress(told.note, 1.0)

    def _failed(self, end: End) -> LoadFailed:
        """End this connection for what came on it, and return it: the connection itself may have ended before."""
        self._wire.fail(end)
        return LoadFailed(end.why, end.final)

    def _by_jpeg(self, why: str) -> End:
        """Have pictures go as JPEG from the next connection on, and return what to tell of it."""
        self._coding.give_up_h264()
        return End(f"{self._name}: {why}; pictures go there as JPEG from now on")


def load() -> None:
    """Load what a connection needs, before pictures are due: a library that is loaded holds everything up."""
    import websockets.asyncio.client  # noqa: F401

    codecs()
    names.load()


def _sent_look(look: Look) -> Look:
    """Return the look without the path of this machine's picture, which is put around the translation here."""
    return replace(look, elsewhere=CAMERA)


def _fitting(prompts: tuple[str, ...]) -> str:
    """Return the message that has prompts encoded: the first ones, as many as fit into one."""
    while len(text := packed(Prompts(prompts))) > LARGEST_TEXT:
        prompts = prompts[: len(prompts) // 2]
    return text
