"""A camera and profiles for tests of a whole daemon, whose engine is tests.support.fake_engine."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from vcam.frames import Frame, Picture

SIZE = (96, 64)  # published
RAW = (10, 200, 30)  # what the camera sees; the engine shows its inverse


def plain(size: tuple[int, int], colour: tuple[int, int, int] = RAW) -> Picture:
    """A picture of one colour; size: width and height."""
    return np.full((size[1], size[0], 3), colour, np.uint8)


class Source:
    """A camera that always sees the same picture, until the test gives it trouble."""

    def __init__(self, name: str = "fake camera", picture: Picture | None = None, pause_s: float = 0.01) -> None:
        self.name, self.picture, self.pause_s = name, plain(SIZE) if picture is None else picture, pause_s
        self.trouble, self.raises = "", False
        self.index = self.rests = self.closed = 0

    def read(self, timeout_s: float) -> Frame | None:
        time.sleep(self.pause_s)
        if self.raises:
            self.raises = False
            raise ZeroDivisionError("a driver's nonsense")
        if self.trouble:
            return None
        self.index += 1
        return Frame(self.picture.copy(), time.perf_counter(), self.index - 1)

    def rest(self) -> None:
        self.rests += 1
        time.sleep(self.pause_s)

    def close(self) -> None:
        self.closed += 1


def write_profile(folder: Path, id: str, prompt: str = "", seed: int = 0, more: str = "") -> Path:
    """A profile's file: named after its id, as is its prompt unless one is given; more: lines of TOML."""
    path = folder / f"{id}.toml"
    path.write_text(f'name = "{id.title()}"\n[look]\nprompt = "{prompt or id}"\nseed = {seed}\n{more}')
    return path
