"""The onnx runtime: equal to eager, and clear about what it cannot do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from core import models
from core.engine import Engine
from core.settings import EngineSettings, Guidance, Look, Lora, Policy, Runtime, SettingsError


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def films(settings: EngineSettings, look: Look, frames: int) -> list[np.ndarray]:
    """`frames` translations of a picture that drifts."""
    engine = Engine(settings, look)
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (settings.height // 8 + 2, settings.width // 8 + 8, 3), dtype=np.uint8)
    scene = scene.repeat(8, axis=0).repeat(8, axis=1)
    pictures = [scene[4 : 4 + settings.height, 2 * i : 2 * i + settings.width] for i in range(frames)]
    found = [engine.translate(picture) for picture in pictures]
    return [picture for picture in [*found, *engine.drain()] if picture is not None]


def mean_squares(one: list[np.ndarray], other: list[np.ndarray]) -> list[float]:
    """The mean squared difference of each pair, grey levels squared."""
    return [float(np.square(a.astype(float) - b).mean()) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": Policy.FIFO, "slots": 1, "steps": 2},
        {"policy": Policy.FIFO, "slots": 3, "steps": 1},
        {"policy": Policy.MERGE, "steps": 2},
        {"policy": Policy.OFF, "steps": 2},
        {"policy": Policy.FIFO, "steps": 4, "guidance": Guidance.FULL},
        {"policy": Policy.FIFO, "steps": 2, "width": 160, "height": 96},
        {"policy": Policy.FIFO, "steps": 2, "width": 144, "height": 112},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_equals_eager_over_twelve_frames(changes: dict[str, object]) -> None:
    settings = {"width": 128, "height": 128, "device": "cpu", "dtype": "float32"} | changes
    look = Look(prompt="claymation, a person", interval=2, fusion_strength=0.8)
    eager, onnx = (
        films(EngineSettings(runtime=runtime, **settings), look, 12)  # type: ignore[arg-type]
        for runtime in (Runtime.EAGER, Runtime.ONNX)
    )
    assert len(eager) == len(onnx) == 12
    errors = mean_squares(eager, onnx)
    assert max(errors) < 0.5, errors
    assert eager[-1].std() > 5


def test_knows_the_same_words() -> None:
    engines = [Engine(EngineSettings(runtime=runtime), Look()) for runtime in (Runtime.EAGER, Runtime.ONNX)]
    for prompt in ("", "Claymation, a person!", "xylograph of a zebra", "claymation " * 40):
        assert engines[0].unknown_words(prompt) == engines[1].unknown_words(prompt)
        texts = [engine._model.encoder(prompt) for engine in engines]
        assert float((texts[0] - texts[1]).abs().max()) < 1e-4


def test_auto_takes_the_graphs_where_they_fit(tmp_path: Path) -> None:
    embedded = models.describe("embedded")
    cpu = EngineSettings(device="cpu")
    assert models.resolve(cpu, embedded).runtime is Runtime.ONNX
    assert models.resolve(EngineSettings(device="cpu", dtype="bfloat16"), embedded).runtime is Runtime.EAGER
    lora = EngineSettings(device="cpu", loras=(Lora("x.safetensors"),))
    assert models.resolve(lora, embedded).runtime is Runtime.EAGER
    assert models.resolve(EngineSettings(device="cpu", runtime=Runtime.EAGER), embedded).runtime is Runtime.EAGER


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "bfloat16", "device": "cpu"}, "float32 on the cpu"),
        ({"loras": (Lora("x.safetensors"),)}, "LoRAs need the eager runtime"),
    ],
)
def test_says_what_it_cannot_do(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Engine(EngineSettings(runtime=Runtime.ONNX, **changes), Look())  # type: ignore[arg-type]


def test_broken_or_missing_graphs_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models.EMBEDDED, folder)
    settings = EngineSettings(model=str(folder), runtime=Runtime.ONNX)
    (folder / "onnx" / "decoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(models.ModelError, match=r"decoder\.onnx: cannot be loaded"):
        Engine(settings, Look())
    (folder / "onnx" / "decoder.onnx").unlink()
    with pytest.raises(models.ModelError, match="no onnx/ graphs"):
        Engine(settings, Look())


@pytest.mark.slow
def test_the_graphs_shipped_are_what_export_writes(tmp_path: Path) -> None:
    """A change of the model's definition without a new export would be a silent difference."""
    from core.runtimes import onnx

    folder = tmp_path / "model"
    shutil.copytree(models.EMBEDDED, folder, ignore=shutil.ignore_patterns("onnx"))
    onnx.export(folder)
    look = Look(prompt="claymation")
    shipped, new = (
        films(EngineSettings(model=model, width=128, height=128, runtime=Runtime.ONNX), look, 4)
        for model in ("embedded", str(folder))
    )
    assert all(np.array_equal(a, b) for a, b in zip(shipped, new, strict=True))
