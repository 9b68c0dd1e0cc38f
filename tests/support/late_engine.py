"""An engine for files: it shows the picture's negative, as late as the stream batch does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from core.settings import EngineSettings, Look
from vcam.frames import Picture


class LateEngine:
    """Turns the colours round, `steps - 1` pictures late."""

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        self.settings, self.look = settings, look
        self.delay = settings.steps - 1
        self.in_flight: deque[Picture] = deque()
        self.seen: list[Picture] = []

    def translate(self, picture: Picture) -> Picture | None:
        assert picture.shape == (self.settings.height, self.settings.width, 3)
        assert picture.dtype == np.uint8
        self.seen.append(picture)
        self.in_flight.append(255 - picture)
        return self.in_flight.popleft() if len(self.in_flight) > self.delay else None

    def drain(self) -> Iterator[Picture]:
        while self.in_flight:
            yield self.in_flight.popleft()


class SlowEngine(LateEngine):
    """Takes so long that a film is not over before it can be stopped."""

    def translate(self, picture: Picture) -> Picture | None:
        time.sleep(0.02)
        return super().translate(picture)
