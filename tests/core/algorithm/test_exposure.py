"""The light of a picture evened out, for models that were trained so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.algorithm.exposure import AROUND, MOST, evened, gain
from core.engine import Engine
from core.settings import Look
from tests.support.model_folders import settings
from tests.support.small_details import make_detailed_folder

Bytes = NDArray[np.uint8]
HALVES = np.repeat(np.array([[0.12] * 128 + [0.9] * 128], np.float32), 128, 0)  # a dark wall beside a bright window


def test_what_is_dark_becomes_brighter_and_what_is_bright_darker() -> None:
    lift = gain(HALVES)
    assert lift.shape == HALVES.shape
    assert lift.dtype == np.float32
    assert (lift[:, :96] > 1.3).all()
    assert (lift[:, 160:] < 1).all()
    even = HALVES * lift
    assert even[:, 192:].mean() - even[:, :64].mean() < 0.6 * (0.9 - 0.12)


def test_a_light_that_is_far_away_changes_nothing() -> None:
    room = np.random.default_rng(1).uniform(0.2, 0.4, (64, 512)).astype(np.float32)
    lamp = room.copy()
    lamp[:, 480:] = 1
    far, near = slice(0, 480 - 5 * AROUND), slice(480 - AROUND, 480)
    before, after = gain(room), gain(lamp)
    np.testing.assert_allclose(after[:, far], before[:, far], atol=1e-5)
    assert (after[:, near] < before[:, near]).all()


@pytest.mark.parametrize("brightness", [0, 0.01, 0.5, 1])
@pytest.mark.parametrize("shape", [(8, 8), (64, 40), (30, 50)])
def test_it_is_finite_and_bounded_at_every_size(brightness: float, shape: tuple[int, int]) -> None:
    lift = gain(np.full(shape, brightness, np.float32))
    assert np.isfinite(lift).all()
    assert (lift > 0).all()
    assert (lift <= MOST).all()


def test_colours_keep_their_tint() -> None:
    """All three are multiplied alike, and are rounded to the nearest level."""
    picture = np.full((64, 64, 3), [46, 51, 56], np.uint8)
    brighter = evened(picture)
    assert brighter.shape == picture.shape
    assert brighter.dtype == np.uint8
    ratio = brighter.astype(np.float32) / picture
    assert ratio.min() > 1.2
    assert np.ptp(ratio) < 1 / picture.min()


def test_a_model_that_was_trained_so_is_given_such_pictures(tmp_path: Path) -> None:
    """Encoder, detail stage and all: as if the camera had given them."""
    folder = make_detailed_folder(tmp_path)
    description = folder / "streamv2v.json"
    picture = np.random.default_rng(3).integers(0, 90, (64, 64, 3), np.uint8)

    def shown(given: Bytes, **said: bool) -> list[object]:
        description.write_text(json.dumps({**json.loads(description.read_text()), **said}))
        engine = Engine(settings(folder, steps=2), Look())
        results = [engine.translate(given) for _ in range(4)]
        return [one.tolist() for one in (*results, *engine.drain()) if one is not None]

    plain, own = shown(picture, local_exposure=False), shown(picture, local_exposure=True)
    assert own == shown(evened(picture), local_exposure=False)
    assert own != plain
    assert len(own) == 4
