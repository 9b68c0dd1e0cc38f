"""When the next picture is to be sent, so that it comes just before the engine is free. Pure but for what it remembers.

A picture that is sent sooner waits there, and what is shown is older by that; one that is sent later has the engine
wait, which makes fewer pictures.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

FORESEEN_BY = 8  # of the last pictures it is foreseen when the engine is free
EARLY_MS = 2.0  # by so much a picture shall be there before that


class Turn(NamedTuple):
    """What a picture took: engine_ms in the engine, way_ms all else but its wait for the engine."""

    engine_ms: float
    way_ms: float


def pause_ms(turns: Sequence[Turn]) -> float:
    """Return how long after an answer the next picture is to be sent, if another one is on its way.

    The engine begins that one about when it sends the answer, so the next must be there one engine's time later. Of
    turns that differ the middle one counts, for the engine as for the way: half of the pictures wait a little there,
    and for half of them the engine waits, as one on this machine does for each.
    """
    engine_ms = statistics.median(one.engine_ms for one in turns)
    way_ms = statistics.median(one.way_ms for one in turns)
    return max(0.0, engine_ms - max(0.0, way_ms) - EARLY_MS)


class NextTurn:
    """When the next picture is to be sent, in seconds of the clock that `answered` is told of."""

    def __init__(self) -> None:
        self._turns = deque[Turn](maxlen=FORESEEN_BY)
        self._next_s = -math.inf

    def answered(self, turn: Turn, now_s: float, waits: bool) -> None:
        """Take note of an answer. waits: whether the engine has another picture of this camera by now."""
        self._turns.append(turn)
        self._next_s = now_s + pause_ms(self._turns) / 1000 if waits else -math.inf

    def in_s(self, now_s: float) -> float:
        """Return in how many seconds it is to be sent, 0 for now."""
        return max(0.0, self._next_s - now_s)
