"""A camera's pictures that are on their way to a server and back: by their numbers, each answered once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from vcam.errors import RemoteError
from vcam.frames import EngineFacts, Spread
from vcam.remote.protocol import NO_RECEIPT, Answer
from vcam.worker.messages import TranslateFrame

MOST_BEHIND = 64  # pictures: more than any engine is behind
MEASURED = 256  # pictures of which times are told
TOLD_AGAIN = 16  # pictures after which they are worked out anew
PARTS = ("round trip", "encode", "network", "engine", "decode")


class SentPicture(NamedTuple):
    """A picture on its way. sent_s: seconds of our clock; encode_ms: what writing it took."""

    order: TranslateFrame
    sent_s: float
    encode_ms: float


class OnTheWay:
    """The pictures of one connection. receipt: of the newest answer that was read."""

    def __init__(self) -> None:
        self.receipt = NO_RECEIPT
        self._next = 0
        self._sent: dict[int, SentPicture] = {}  # of which a translation may still come
        self._open: set[int] = set()  # that are not answered

    def add(self, picture: SentPicture) -> int:
        """Return the number by which it is answered."""
        number = self._next
        self._next += 1
        self._sent[number] = picture
        self._open.add(number)
        return number

    @property
    def waits(self) -> bool:
        """Whether one is not answered."""
        return bool(self._open)

    def answered(self, answer: Answer) -> tuple[SentPicture, SentPicture | None]:
        """Return the picture that is answered now, and the one that the answer shows; raises RemoteError."""
        shown = None if answer.shows is None else self._sent.get(answer.shows)
        if answer.shows is not None and shown is None:
            raise RemoteError("the server answers a picture that it was not given")
        sent = self._closed(answer.answers)
        self.receipt = answer.receipt
        return sent, shown

    def failed(self, number: int) -> SentPicture:
        """Return the picture at which the engine failed, of which nothing will come; raises RemoteError."""
        self._closed(number)
        return self._sent.pop(number)

    def forget(self, answer: Answer) -> None:
        """Forget pictures that no answer after this one will name again."""
        kept = answer.shows if answer.shows is not None else answer.answers - MOST_BEHIND
        for number in [one for one in self._sent if one <= kept and one not in self._open]:
            del self._sent[number]
        if answer.replaced:
            self._sent.pop(answer.answers, None)

    def _closed(self, number: int) -> SentPicture:
        """Return the picture of that number, which is answered now: once; raises RemoteError."""
        if number not in self._open:
            raise RemoteError("the server answers a picture that it was not given, or twice")
        self._open.discard(number)
        return self._sent[number]


class SlowWay:
    """Whether answers come too late to be shown, as the engine's facts say it to the user. name: the server's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._facts: EngineFacts | None = None  # as the server tells them
        self._late = False

    def loaded(self, facts: EngineFacts) -> EngineFacts:
        """Take note of what the server tells of its engine, and return it."""
        self._facts, self._late = facts, False
        return facts

    def answered(self, late: bool, way_ms: float) -> EngineFacts | None:
        """Take note of an answer, and return the facts where they are others now. way_ms: its way there and back."""
        if self._facts is None or late == self._late:
            return None
        self._late = late
        if not late:
            return self._facts
        return self._facts.noted(
            f"the way to {self._name} and back takes {way_ms / 1000:.1f} s, too long for its pictures to be shown; a "
            "smaller --engine-size or --remote-codec h264 needs less of the network"
        )


class WayTimes:
    """What the way of the last pictures took, in ms, by PARTS. `spreads` is for any thread."""

    def __init__(self) -> None:
        self._times = {part: deque[float](maxlen=MEASURED) for part in PARTS}
        self._added = 0
        self._told: tuple[int, Mapping[str, Spread]] = (0, {})  # and after how many pictures that was

    def add(self, sent: SentPicture, answer: Answer, trip_ms: float, decode_ms: float) -> None:
        """Take note of an answer. trip_ms: from when the picture was sent; decode_ms: of our decoding."""
        own = (
            trip_ms + sent.encode_ms + decode_ms,
            sent.encode_ms + answer.encode_ms,
            max(0.0, trip_ms - answer.server_ms),
            answer.waited_ms + answer.engine_ms,
            decode_ms + answer.decode_ms,
        )
        for part, ms in zip(PARTS, own, strict=True):
            self._times[part].append(ms)
        self._added += 1

    def spreads(self) -> Mapping[str, Spread]:
        """Return the half and 19 of 20; empty before the first, and up to TOLD_AGAIN pictures old after as many.

        It is asked for at every picture before that is shown, and takes a quarter of a millisecond.
        """
        added = self._added
        told_at, told = self._told
        if added <= TOLD_AGAIN or added - told_at >= TOLD_AGAIN:
            told = {part: _spread(list(ms)) for part, ms in self._times.items() if ms}
            self._told = added, told
        return told


def _spread(ms: list[float]) -> Spread:
    ordered = sorted(ms)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95)]
    return Spread(round(at[0], 2), round(at[1], 2))
