"""The data set on disk: clean and degraded pictures, and what each style makes of them, as plain uint8 arrays.

The pictures are kept as the network is given them: their light is evened out (core.algorithm.exposure).
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from core.algorithm.exposure import evened
from training.data import Photographs, Picture, Random
from training.photos import Photos
from training.scenes import base_picture, degrade
from training.teachers import ATTRIBUTES, LINED, TEACHERS, analyse, lesson

Bytes = NDArray[np.uint8]
DEGRADED = 2  # versions of each input beside the clean one
PHOTOS = 0.65  # share of the pictures that come from the outer folder, where there is one


class Shard(NamedTuple):
    """Pictures made by one worker: `inputs` [pictures, 1 + DEGRADED, h, w, 3], `targets` [lessons, h, w, 3]."""

    inputs: Bytes
    targets: Bytes
    lessons: list[tuple[int, str, str]]  # picture, style, attribute of each target


def to_bytes(picture: Picture) -> Bytes:
    return np.round(picture * 255).astype(np.uint8)


def wishes(random: Random, share: float) -> list[tuple[str, str]]:
    """(style, attribute) of one picture: that share of the styles, some with attributes, and three attributes alone."""
    styles = [style for style in TEACHERS if share == 1 or random.random() < share]
    wanted, names = [(style, "") for style in styles], list(ATTRIBUTES)
    for style in styles:
        if random.random() < 0.35:
            choice = names + ["thick", "thin"] * 3 if style in LINED else names
            wanted.append((style, str(random.choice(choice))))
    return wanted + [("", str(name)) for name in random.choice(names, 3, replace=False)]


def make_shard(
    folder: Path, number: int, seed: int, pictures: int, size: int, photos: Path | None = None, share: float = 1
) -> None:
    """Draw pictures and let teachers work on them; does nothing when the shard is there."""
    where = folder / f"{number:03d}"
    if (where / "lessons.json").exists():
        return
    cv2.setNumThreads(1)
    where.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, number])
    photographs, people = Photographs(), Photos(photos) if photos else None
    inputs, targets, index = [], [], []
    for picture_number in range(pictures):
        if people and random.random() < PHOTOS:
            picture = people.crop(random, size)
        else:
            picture = base_picture(random, size, photographs)
        views = [picture] + [degrade(picture, random) for _ in range(DEGRADED)]
        inputs.append([evened(to_bytes(view)) for view in views])
        known = analyse(picture)
        for style, attribute in wishes(random, share):
            targets.append(to_bytes(lesson(known, style, attribute)))
            index.append((picture_number, style, attribute))
    np.save(where / "inputs.npy", np.array(inputs))
    np.save(where / "targets.npy", np.array(targets))
    (where / "lessons.json").write_text(json.dumps(index))


def make(
    folder: Path,
    seed: int,
    shards: int,
    pictures: int,
    size: int,
    workers: int,
    photos: Path | None = None,
    share: float = 1,
) -> None:
    """Make `shards` shards of `pictures` pictures each; those that are there already stay."""
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(make_shard, folder, number, seed, pictures, size, photos, share) for number in range(shards)
        ]
        for job in jobs:
            job.result()


def load(folder: Path) -> list[Shard]:
    """All finished shards, memory-mapped."""
    found = []
    for path in sorted(folder.glob("*/lessons.json")):
        index = [(int(n), str(style), str(attribute)) for n, style, attribute in json.loads(path.read_text())]
        found.append(Shard(np.load(path.parent / "inputs.npy", "r"), np.load(path.parent / "targets.npy", "r"), index))
    if not found:
        raise FileNotFoundError(f"{folder} holds no finished shard; run `python -m training data` first")
    return found
