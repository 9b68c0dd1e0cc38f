"""Carries out streams' orders on their engines, and tells each stream what became of them. For one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from core.errors import StreamV2VError
from core.settings import Look
from vcam.errors import RemoteError
from vcam.remote.offer import Offer
from vcam.remote.protocol import Failed, ForgetAll, LorasUsed, Prompts, Refusal, Refused, UseLook, UseLoraNames
from vcam.remote.streams import Made, PictureOrder, Stream, StreamOrder
from vcam.worker.factories import EngineProtocol

LOG = logging.getLogger("vcam.serve")
RAISES = 5  # pictures in a row at which an engine may fail, before its stream ends


class StreamWork:
    """The work of one server's engines. give: has an order carried out later, in its turn.

    broken: why no engine of this process works any more; whoever runs it shall start another.
    """

    def __init__(self, offer: Offer, give: Callable[[Stream, StreamOrder], None], clock: Callable[[], float]) -> None:
        self._offer, self._give, self._clock = offer, give, clock
        self.broken = ""
        self.pictures = 0  # translated so far
        self.busy_s = 0.0  # that the engines worked

    def do(self, stream: Stream, order: StreamOrder, given_s: float) -> None:
        """Carry out an order, which waited since given_s; a fault at it costs that order, or its stream, alone."""
        try:
            self._carry_out(stream, order, given_s)
        except Exception as error:  # noqa: BLE001  `_failed` logs what nobody foresaw
            self._failed(stream, order, error)

    def _carry_out(self, stream: Stream, order: StreamOrder, given_s: float) -> None:
        engine = stream.engine
        assert engine is not None
        match order:
            case PictureOrder():
                self._translate(stream, engine, order, given_s)
            case UseLook(look, frames):
                engine.set_look(look, frames)
            case UseLoraNames(asked, frames):
                if self._offer.streams != 1:
                    raise RemoteError("this server's streams share their LoRAs")
                engine.use_loras(self._offer.loras_for(asked), frames)
                stream.tell(LorasUsed(asked))
            case Prompts(prompts):
                engine.prepare(prompts[:1])
                if prompts[1:]:
                    self._give(stream, Prompts(prompts[1:]))  # one at a time, between pictures
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
