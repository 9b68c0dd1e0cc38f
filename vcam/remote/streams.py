"""One camera's stream on an engine of a server: what waits for it, and what becomes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from core.settings import EngineSettings, Look
from vcam.frames import Picture
from vcam.remote.protocol import ForgetAll, FromServer, Prompts, UseLook, UseLoraNames
from vcam.worker.factories import EngineProtocol


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
