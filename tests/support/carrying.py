"""Films and pictures carried from file to file by the program's reader and writer, and what is seen in the result."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.media_files import number_of, sound_of
from vcam.video import Picture, probe, read, writing

FILMS = [".mp4", ".mkv", ".webm", ".avi", ".mov"]


class Notes(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def carried(source: Path, target: Path, notes: Notes | None = None) -> list[Picture]:
    """The pictures of `target` after those of `source` were written there, its sound decoded as a check."""
    notes = Notes() if notes is None else notes
    media = probe(source)
    with writing(target, media, notes) as writer:
        for picture in read(media, notes):
            writer.write(picture)
        writer.finish()
    if target.suffix:
        sound_of(target)  # which raises where a packet cannot be decoded
    return list(read(probe(target), Notes()))


def numbers(pictures: Sequence[Picture]) -> list[int]:
    return [number_of(picture.rgb) for picture in pictures]


def end_of(pictures: Sequence[Picture]) -> float:
    return float(pictures[-1].time + pictures[-1].duration)


def told(notes: Notes, words: str) -> bool:
    return any(words in note for note in notes)


def without_repeats(values: Sequence[int]) -> list[int]:
    return [value for value, _ in itertools.groupby(values)]


def circle(width: int, height: int, aspect: float = 1.0) -> np.ndarray:
    """A picture with what is a circle where a pixel is `aspect` times as wide as high."""
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + ((columns - width / 2) * aspect) ** 2 < (min(width, height) / 3) ** 2
    picture = np.full((height, width, 3), 200, np.uint8)
    picture[inside] = (230, 30, 30)
    return picture


def aspect_of_circle(rgb: np.ndarray) -> float:
    """Width over height of the circle."""
    rows, columns = np.nonzero((rgb[..., 0] > 150) & (rgb[..., 1] < 110))
    return float(np.ptp(columns) / np.ptp(rows))
