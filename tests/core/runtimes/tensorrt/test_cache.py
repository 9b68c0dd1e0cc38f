"""The cache of TensorRT engines, the table of operators, and `vcam engines`: none of it needs TensorRT."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.errors import PlanError
from core.plans import CachedPlan, Machine, PlanKey, Verdict
from core.runtimes.tensorrt import cache as engines
from core.runtimes.tensorrt import graphs, library
from core.runtimes.tensorrt.operators import refused
from core.settings import EngineSettings
from vcam.cli.main import main
from vcam.doctor import checks

HALVES = np.ones((2, 3), np.float16)
HERE = Machine("10.16.1.11", "NVIDIA GeForce RTX 4090", "8.9", "580.65")


def key(**changes: object) -> PlanKey:
    return replace(PlanKey.of(HERE, "0123", EngineSettings(dtype="float16")), **changes)  # type: ignore[arg-type]


def keep(cache: Path, wanted: PlanKey, data: bytes = b"an engine") -> CachedPlan:
    constants, layout = {"val_1": "unet.conv_in.weight"}, {"mid_block.attn1.key": (64, 16)}
    return engines.keep(wanted, "sd15", {"frame.engine": data}, constants, 61.04, cache, layout=layout)


def test_what_was_kept_is_found_by_its_key_alone(tmp_path: Path) -> None:
    keep(tmp_path, key())
    found = engines.find(key(), tmp_path)
    assert found is not None
    assert found.manifest is not None
    assert (found.problem, found.manifest.model, found.manifest.verdict) == ("", "sd15", Verdict.UNVERIFIED)
    assert found.manifest.constants == {"val_1": "unet.conv_in.weight"}
    assert engines.read_file(found, "frame.engine") == b"an engine"
    others = (
        {"weights": "4567"},
        {"steps": 1},
        {"width": 320},
        {"policy": "merge"},
        {"machine": replace(HERE, driver="590.1")},
        {"machine": replace(HERE, tensorrt="11.4.0.106")},
    )
    for change in others:
        assert engines.find(key(**change), tmp_path) is None


def test_an_engine_that_was_changed_is_not_loaded(tmp_path: Path) -> None:
    entry = keep(tmp_path, key())
    (entry.folder / "frame.engine").write_bytes(b"evil code")
    with pytest.raises(PlanError, match=r"was changed since it was built, and is not loaded; vcam engines build"):
        engines.read_file(entry, "frame.engine")
    (entry.folder / "frame.engine").write_bytes(b"short")
    found = engines.find(key(), tmp_path)
    assert found is not None
    assert found.problem == "frame.engine has 5 bytes of 9"
    with pytest.raises(PlanError, match="5 bytes of 9"):
        engines.read_file(found, "frame.engine")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "frame.engine").unlink(), "frame.engine is missing"),
        (lambda folder: change(folder, version=0), "of version 0"),
        (lambda folder: change(folder, key=json.loads(text(folder))["key"] | {"steps": 9}), "another engine's"),
    ],
)
def test_what_is_of_no_use_says_why(tmp_path: Path, spoil: Callable[[Path], object], problem: str) -> None:
    spoil(keep(tmp_path, key()).folder)
    (found,) = engines.listing(HERE, tmp_path)
    assert problem in found.problem


def text(folder: Path) -> str:
    return (folder / "manifest.json").read_text()


def change(folder: Path, **changes: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(json.loads(text(folder)) | changes))


def test_an_engine_that_was_found_wrong_is_not_loaded_again(tmp_path: Path) -> None:
    entry = engines.set_verdict(keep(tmp_path, key()), Verdict.WRONG, "worst of 12 frames 9.1 dB from eager")
    assert entry.problem == "wrong: worst of 12 frames 9.1 dB from eager"
    with pytest.raises(PlanError, match=r"9\.1 dB from eager; vcam engines build"):
        engines.read_file(entry, "frame.engine")
    assert engines.set_verdict(entry, Verdict.VERIFIED, "41 dB").problem == ""


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keep(tmp_path, key(), b"the old one")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PlanError, match=r"the disk is full: an engine takes 0 MiB, \d+ MiB are free.*engines clean"):
        keep(tmp_path, key(), b"the new one")
    monkeypatch.undo()
    assert engines.read_file(before, "frame.engine") == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == [before.folder.name]


def test_an_engine_is_replaced_whole(tmp_path: Path) -> None:
    keep(tmp_path, key(), b"the old one")
    assert engines.read_file(keep(tmp_path, key(), b"the new one"), "frame.engine") == b"the new one"
    assert len(list(tmp_path.iterdir())) == 1


def test_clean_removes_what_is_of_no_use_here(tmp_path: Path) -> None:
    good, wrong = keep(tmp_path, key()), keep(tmp_path, key(steps=1))
    engines.set_verdict(wrong, Verdict.WRONG, "far off")
    other = keep(tmp_path, key(machine=replace(HERE, tensorrt="10.13.3.9")))
    (tmp_path / ".part-half").mkdir()
    assert engines.clean(None, cache=tmp_path) == []  # without TensorRT nobody can tell which are of use
    gone = {entry.folder for entry in engines.clean(HERE, cache=tmp_path)}
    assert gone == {wrong.folder, other.folder}
    assert [path.name for path in tmp_path.iterdir()] == [good.folder.name]
    engines.clean(None, everything=True, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_writes_is_swept_by_nobody_else(tmp_path: Path) -> None:
    with engines.scratch(tmp_path) as first:
        (first / "graph.onnx").write_bytes(b"half")
        engines.sweep(tmp_path)
        engines.clean(None, everything=True, cache=tmp_path)
        with engines.scratch(tmp_path) as second:
            assert first.is_dir()
            assert second != first
        assert engines.listing(HERE, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    entry = keep(tmp_path, key())
    assert engines.changed(entry) == ""
    (entry.folder / "frame.engine").write_bytes(b"evil code")
    assert engines.changed(entry) == "frame.engine"


def test_weights_are_hashed_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "unet.safetensors"
    weights.write_bytes(b"one")
    first = engines.fingerprint("configuration", [weights], tmp_path / "cache")
    monkeypatch.setattr(engines, "_hash", lambda file: pytest.fail("hashed again"))
    assert engines.fingerprint("configuration", [weights], tmp_path / "cache") == first
    assert engines.fingerprint("another", [weights], tmp_path / "cache") != first
    monkeypatch.undo()
    weights.write_bytes(b"other")
    assert engines.fingerprint("configuration", [weights], tmp_path / "cache") != first


# ---------------------------------------------------------------- what TensorRT takes


def graph(
    *nodes: onnx.NodeProto, kind: int = TensorProto.FLOAT, opset: int = 18, **values: np.ndarray
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    made = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (graph(helper.make_node("Relu", ["x"], ["y"])), None),
        (graph(helper.make_node("Det", ["x"], ["y"])), "is no operator that TensorRT has"),
        (graph(helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")), "no operator"),
        (graph(helper.make_node("Relu", ["x"], ["y"]), opset=25), "opset 25"),
        (graph(helper.make_node("Relu", ["x"], ["y"]), kind=TensorProto.DOUBLE), "works on DOUBLE"),
        (graph(helper.make_node("Transpose", ["x"], ["y"]), kind=TensorProto.UINT8), "works on UINT8"),
        (graph(helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], reduction="add")), "reduction is add"),
        (graph(helper.make_node("ScatterND", ["x", "i", "x"], ["y"], reduction="max")), "reduction is max"),
        (graph(helper.make_node("TopK", ["x", "k"], ["y", "n"]), k=np.array([3840])), "K is 3840"),
        (graph(helper.make_node("TopK", ["x", "k"], ["y", "n"]), k=np.array([3839])), None),
        (graph(helper.make_node("TopK", ["x", "x"], ["y", "n"])), "its input 1 must be known"),
        (graph(helper.make_node("TensorScatter", ["x", "x", "i"], ["y"], axis=-2), opset=24), "needs TensorRT 10.15"),
        (graph(helper.make_node("TensorScatter", ["x", "x", "i"], ["y"], axis=1), opset=24), "axis must be -2"),
        (
            graph(helper.make_node("Concat", ["x", "h"], ["y"], axis=0), h=np.ones((2, 3), np.float16)),
            "joins FP16 and FP32",
        ),
        (graph(helper.make_node("LayerNormalization", ["x", "x"], ["y", "m"])), "only its first output"),
    ],
    ids=lambda value: value.graph.node[0].op_type if isinstance(value, onnx.ModelProto) else None,
)
def test_what_tensorrt_refuses(model: onnx.ModelProto, why: str | None) -> None:
    found = refused(model, (10, 13))
    assert found == [] if why is None else any(why in one for one in found), found


def test_what_is_joined_is_cast_to_one_type() -> None:
    """As PyTorch's exporter leaves torch.concat, which SDXL's embeddings go through."""
    model = graph(helper.make_node("Concat", ["h", "x"], ["y"], axis=0), h=HALVES)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    graphs._tidy(model)
    assert refused(model, (10, 13)) == []
    model.ir_version = 10  # onnx's own newest is more than the oldest onnxruntime reads
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (joined,) = session.run(None, {"x": np.full((2, 3), 3, np.float32)})
    assert joined.tolist() == [[1.0] * 3] * 2 + [[3.0] * 3] * 2


def test_a_size_that_is_not_fixed_is_refused() -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    assert refused(model, (10, 13)) == ["x: its shape is not fixed"]


# ---------------------------------------------------------------- vcam engines, without TensorRT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path / "engines"))
    monkeypatch.setenv(library.CHOICE, "none")
    return tmp_path / "engines"


@pytest.mark.parametrize("action", ["build", "verify"])
def test_without_tensorrt_it_is_said(cache: Path, capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert main(["engines", action]) == 1
    told = capsys.readouterr().err
    assert "TensorRT cannot be used here: its library is not installed" in told
    assert len(told.strip().splitlines()) == 1
    assert not cache.exists()


def test_the_cache_is_listed_and_cleaned_without_tensorrt(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "list"]) == 0
    assert "no engines in" in capsys.readouterr().out
    entry = keep(cache, key())
    assert main(["engines", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["tensorrt"].startswith("its library is not installed")
    (one,) = told["engines"]
    assert (one["engine"], one["state"], one["model"], one["gpu"]) == (
        entry.folder.name,
        "unusable",
        "sd15",
        "NVIDIA GeForce RTX 4090",
    )
    assert main(["engines", "clean"]) == 0
    assert "1 kept" in capsys.readouterr().out
    assert main(["engines", "clean", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["removed"] == [entry.folder.name]
    assert main(["engines"]) == 2


def test_doctor_tells_of_tensorrt() -> None:
    found = checks.check_tensorrt("its library is not installed", "", 0, 0)
    assert (found.mark, found.remedy) == (checks.Mark.GOOD, "")
    found = checks.check_tensorrt("", "10.16.1.11", 2, 1)
    assert (found.mark, found.found) == (checks.Mark.NOTE, "10.16.1.11, 2 engines verified, 1 of no use")
    assert found.remedy == "vcam engines clean"
    assert checks.check_tensorrt("", "10.16.1.11", 0, 0).remedy == "vcam engines build"
