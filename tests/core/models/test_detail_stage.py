"""A model folder with a detail stage: described, loaded, and the same on every runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from core.engine import Engine
from core.errors import ModelError
from core.models.description import EMBEDDED, describe
from core.settings import Look, Runtime
from tests.support.model_folders import make_folder, settings
from tests.support.small_details import make_detailed_folder, small_detail

pytestmark = pytest.mark.usefixtures("quick_layout")


def test_a_model_without_one_remembers_no_pictures(tmp_path: Path) -> None:
    engine = Engine(settings(make_folder(tmp_path), steps=2), Look())
    assert engine._state.tensors.sources.shape == (0, 0, 0, 3)


def test_the_onnx_runtime_remembers_the_pictures_in_flight() -> None:
    engine = Engine(settings(EMBEDDED, steps=2, runtime=Runtime.ONNX, device="cpu", dtype="float32"), Look())
    assert engine._state.tensors.sources.shape == (2, 64, 64, 3)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"detail": {"full": 4}, "text_to_image": True}, "text_to_image"),
        ({"detail": {"wide": 4}}, "unknown key detail.wide"),
        ({"detail": {"full": 0}}, "detail is"),
        ({"detail": {"full": True}}, "detail is"),
        ({"detail": 4}, "detail is 4"),
    ],
)
def test_nonsense_in_its_description_is_named(tmp_path: Path, said: dict[str, object], named: str) -> None:
    folder = make_detailed_folder(tmp_path)
    path = folder / "streamv2v.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    with pytest.raises(ModelError, match=named):
        describe(str(folder))


def test_missing_and_wrong_weights_are_named(tmp_path: Path) -> None:
    folder = make_detailed_folder(tmp_path)
    file = folder / "detail" / "model.safetensors"
    save_file({"enter.weight": small_detail(0).enter.weight}, file)
    with pytest.raises(ModelError, match="does not fit"):
        Engine(settings(folder), Look())
    file.unlink()
    with pytest.raises(ModelError, match=r"detail/model.safetensors is missing"):
        describe(str(folder))
