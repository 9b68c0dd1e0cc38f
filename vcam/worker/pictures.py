"""Two pictures in memory that parent and child share: the one given, and the one that came of it."""

from __future__ import annotations

import contextlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from core.settings import EngineSettings
from vcam.frames import Picture


class SharedPictures:
    """given, result: RGB uint8 [height, width, 3] of the settings' size, gone after `remove`."""

    def __init__(self, settings: EngineSettings, name: str | None = None) -> None:
        """name: of those that another process has made; None makes them."""
        shape = (settings.height, settings.width, 3)
        size = settings.height * settings.width * 3
        self._memory = SharedMemory(name) if name else SharedMemory(create=True, size=2 * size)
        self.given: Picture = np.ndarray(shape, np.uint8, self._memory.buf)
        self.result: Picture = np.ndarray(shape, np.uint8, self._memory.buf, offset=size)

    @property
    def name(self) -> str:
        """By which another process finds them."""
        return self._memory.name

    def remove(self) -> None:
        """Give the memory back; the other process keeps its view until it ends."""
        del self.given, self.result  # the views must go before their memory
        self._memory.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()
