"""Sound that a test speaks into a recording, and what is to be heard of it in the file."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vcam.devices.microphone import HeardSound, Timing
from vcam.devices.microphone_process import BLOCK, RATE

LOUD = 2000  # of 32767: more than what an encoder smears before a tone


class SpokenMicrophone:
    """A microphone that hears what the test says. clock: how fast its own clock runs."""

    def __init__(self, clock: float = 1.0) -> None:
        self.name, self.trouble, self.closed = "spoken", "", False
        self._clock, self._timing = clock, Timing()
        self._samples = 0  # sent
        self._waiting: deque[HeardSound] = deque()
        self._rng = np.random.default_rng(0)

    def hear(self, until_s: float, tones: tuple[tuple[float, float], ...]) -> None:
        """Hear until a time; tones: from when to when there is a tone."""
        while (end_s := (self._samples + BLOCK) / (RATE * self._clock)) <= until_s:
            at_s = (self._samples + np.arange(BLOCK)) / (RATE * self._clock)
            sounding = np.zeros(BLOCK, bool)
            for begin, end in tones:
                sounding |= (begin <= at_s) & (at_s < end)
            samples = (sounding * 12_000 * np.sin(2 * np.pi * 1000 * at_s)).astype(np.int16)
            came_s = end_s + self._rng.uniform(0, 0.008)
            self._waiting.append(HeardSound(samples, self._timing.heard_s(came_s, BLOCK)))
            self._samples += BLOCK

    def take(self) -> list[HeardSound]:
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken

    def close(self) -> None:
        self.closed = True


def sound_of(path: Path) -> NDArray[np.int16]:
    """The sound of a file from its beginning on, RATE a second, by the times that the file says."""
    found = np.zeros(0, np.int16)
    with av.open(path) as film:
        for frame in film.decode(audio=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            begin = round(frame.pts * frame.time_base * RATE)
            samples = (frame.to_ndarray().reshape(-1) * 32767).astype(np.int16)  # AAC is decoded to floats
            if begin < 0:
                samples, begin = samples[-begin:], 0
            found = np.concatenate([found, np.zeros(max(0, begin - len(found)), np.int16), samples])
    return found


def tones_in(sound: NDArray[np.int16]) -> list[tuple[float, float]]:
    """From when to when (s) there are tones; a gap of 30 ms parts two."""
    loud = np.flatnonzero(np.abs(sound.astype(int)) > LOUD)
    if not len(loud):
        return []
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > 0.03 * RATE) + 1)
    return [(float(part[0]) / RATE, float(part[-1]) / RATE) for part in parts]


def flashes_in(path: Path) -> list[float]:
    """When (s) a picture is white after one that is not."""
    times, before = [], True
    with av.open(path) as film:
        for frame in film.decode(video=0):
            white = bool(frame.to_ndarray(format="gray").mean() > 128)
            if white and not before:
                assert frame.time is not None
                times.append(frame.time)
            before = white
    return times
