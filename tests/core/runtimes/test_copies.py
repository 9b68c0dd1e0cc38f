"""The queues of a GPU, on a stand-in for them: whatever order the device chooses, the pictures are those of eager."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from core.algorithm.net import Picture
from core.engine import Engine
from core.runtimes.copies import StagedInput, captured
from core.settings import EngineSettings, Look, Policy, Runtime
from tests.support.lazy_device import lazy_device
from tests.support.model_folders import layout_once, make_folder
from tests.support.small_models import smallest_unet

SIZE = 64
CHANCES = [(0, 0.0), (1, 0.5), (2, 0.8), (3, 1.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("capture") / "model", unet=smallest_unet(0))


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.algorithm.unet.layout", layout_once)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def engine(folder: Path, runtime: Runtime, policy: Policy) -> Engine:
    settings = EngineSettings(str(folder), SIZE, SIZE, 3, policy, 2, runtime=runtime, device="cpu", dtype="float64")
    return Engine(settings, Look("ink", interval=1, similarity_threshold=0.3))


def film(one: Engine) -> list[Picture]:
    """Pictures that have nothing in common, two looks, a bank that is emptied."""
    chance = np.random.default_rng(0)
    shown = []
    for index in range(12):
        if index in (4, 5):
            one.set_look(Look("red neon", interval=1, strength=0.4 + 0.1 * index, fusion_strength=0.3), frames=index)
        if index == 9:
            one.forget()
        shown.append(one.translate(chance.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)))
    return [picture for picture in [*shown, *one.drain()] if picture is not None]


def test_a_capture_minds_its_own_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of the process work on the GPU meanwhile: by CUDA's default they, and the capture, would fail."""
    runs: list[str] = []
    cuda = MagicMock()
    cuda.graph.return_value.__enter__.side_effect = lambda: runs.append("begins")
    monkeypatch.setattr(torch, "cuda", cuda)
    replay = captured(lambda: runs.append("run"))
    assert runs == ["run", "run", "run", "begins", "run"], "libraries take their memory before the capture"
    cuda.graph.assert_called_once_with(cuda.CUDAGraph.return_value, capture_error_mode="thread_local")
    replay()
    cuda.CUDAGraph.return_value.replay.assert_called_once_with()


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_whatever_the_device_does_first_compiled_shows_what_eager_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    expected = film(engine(folder, Runtime.EAGER, policy))
    for seed, haste in CHANCES:
        with lazy_device(monkeypatch, seed, haste) as device:
            one = engine(folder, Runtime.COMPILED, policy)
            device.begin()
            shown = film(one)
        worst = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(expected, shown, strict=True))
        assert worst <= 1, f"seed {seed}, haste {haste}"


@pytest.mark.parametrize("puts", [1, 3])
def test_nothing_is_written_over_while_it_is_on_its_way(monkeypatch: pytest.MonkeyPatch, puts: int) -> None:
    with lazy_device(monkeypatch, seed=0, haste=0.0) as device:
        staged: Any = StagedInput(torch.zeros(1), puts)
        seen = []
        device.begin()
        for value in range(2 * puts):
            staged.set(torch.tensor([float(value)]))
            device._queue(lambda: seen.append(float(staged.buffer)))
        device._current[-1].run(len(device._current[-1].queued))
    assert seen == list(map(float, range(2 * puts)))
