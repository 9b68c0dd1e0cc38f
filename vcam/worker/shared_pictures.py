"""Two pictures in memory that parent and child share: the one given, and the one that came of it."""

from __future__ import annotations

import contextlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from core.settings import EngineSettings
from vcam.frames import Picture


class SharedPictures:
    """The picture `given` and its `result`: RGB uint8 [height, width, 3] of the settings' size, until `remove`."""

    def __init__(self, settings: EngineSettings, name: str | None = None) -> None:
        """Open the pictures of that name, which another process has made; None: make them."""
        shape = (settings.height, settings.width, 3)
        size = settings.height * settings.width * 3
        self._memory = SharedMemory(name) if name else SharedMemory(create=True, size=2 * size)
        self.given: Picture = np.ndarray(shape, np.uint8, self._memory.buf)
        self.result: Picture = np.ndarray(shape, np.uint8, self._memory.buf, offset=size)

    @property
    def name(self) -> str:
        """The name by which another process opens them."""
        return self._memory.name

    def remove(self) -> None:
        """Give the memory back; the other process keeps its view until it ends."""
        del self.given, self.result  # the views must go before their memory
        self._memory.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()
