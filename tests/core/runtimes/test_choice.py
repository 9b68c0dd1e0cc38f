"""core.runtimes.choice: every `auto` is decided once, and what was looked up for it is passed on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine import Engine
from core.errors import ModelError, PlanError, SettingsError
from core.models.description import fingerprint
from core.plans import Machine, PlanKey, TensorRtState, Verdict
from core.runtimes import choice, compiled
from core.runtimes.choice import for_plan, next_best, resolve
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache, readiness
from core.runtimes.tensorrt import runtime as tensorrt
from core.runtimes.tensorrt.library import CHOICE, Library
from core.settings import EngineSettings, Look, Lora, Policy, Provider, Runtime
from tests.support import trt_stand_in
from tests.support.model_folders import as_given, load_model, make_folder, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("choice") / "model")


def test_nothing_is_auto_afterwards(folder: Path) -> None:
    found = resolve(settings(folder, device="auto", dtype="auto"))
    assert "auto" not in (found.settings.device, found.settings.dtype, str(found.runtime))
    assert (found.asked, found.description.folder) == (Runtime.AUTO, folder)
    assert found.why


def test_a_runtime_that_is_asked_for_is_taken_and_tensorrt_is_not_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "look", lambda *_: pytest.fail("TensorRT was looked at"))
    for runtime in (Runtime.EAGER, Runtime.COMPILED, Runtime.ONNX):
        found = resolve(settings(folder, runtime=runtime))
        assert (found.runtime, found.why) == (runtime, "as asked for")


def test_loras_that_cost_a_quicker_runtime_are_known() -> None:
    plain = resolve(EngineSettings(device="cpu"))
    fused = resolve(EngineSettings(device="cpu", loras=(Lora("a.safetensors"),)))
    assert (plain.runtime, plain.without_loras) == (Runtime.ONNX, Runtime.ONNX)
    assert (fused.runtime, fused.without_loras) == (Runtime.EAGER, Runtime.ONNX)


def test_an_engine_says_whether_it_changes_loras_as_well_as_another(folder: Path) -> None:
    assert Engine(settings(folder, device="cpu"), Look()).changes_loras
    assert not Engine(EngineSettings(device="cpu"), Look()).changes_loras  # onnx has its weights fixed


def test_the_places_and_the_ring_slots_are_decided_here(tmp_path: Path) -> None:
    none = make_folder(tmp_path / "none", description={"fusion": {"places": []}})
    assert as_given(settings(none)).places == ()
    plain = make_folder(tmp_path / "plain")
    assert as_given(settings(plain)).places is None  # the paper's
    off = as_given(settings(plain, policy=Policy.OFF))
    assert (off.places, off.subtoken) == ((), 1)
    slots = [EngineSettings(policy=policy, slots=4).ring_slots for policy in (Policy.FIFO, Policy.MERGE, Policy.OFF)]
    assert slots == [4, 1, 1]


def test_what_stands_in_for_tensorrt_keeps_what_was_looked_up(folder: Path) -> None:
    failed = choice.on_runtime(resolve(settings(folder, device="cpu")), Runtime.TENSORRT, "there is an engine for it")
    found = next_best(failed)
    assert (found.runtime, found.without_loras) == (Runtime.EAGER, Runtime.EAGER)
    assert found.tensorrt is failed.tensorrt


def has(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have PyTorch see that device, and no other."""
    for name, module in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name == device)


@pytest.mark.parametrize(("device", "dtype"), [("mps", "float32"), ("xpu", "float16"), ("cuda", "float16")])
def test_a_card_that_pytorch_knows_is_taken_in_the_dtype_that_works_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, dtype: str
) -> None:
    has(device, monkeypatch)
    monkeypatch.setenv(CHOICE, "none")  # TensorRT would ask the card what it is
    found = resolve(settings(folder, device="auto", dtype="auto"))
    assert (found.settings.device, found.settings.dtype) == (device, dtype)
    if device != "cuda":
        assert (found.runtime, found.why) == (Runtime.EAGER, f"PyTorch alone runs on {device}")
        # quicker there, and compared with eager where another maker's hardware is to run them
        assert resolve(EngineSettings()).runtime is Runtime.ONNX
    # what the onnx runtime is given and gives lies in the host's memory
    for wanted in ({"runtime": Runtime.ONNX}, {"provider": Provider.DIRECTML}):
        found = resolve(settings(folder, device="auto", dtype="auto", **wanted))
        assert (found.settings.device, found.settings.dtype, found.runtime) == ("cpu", "float32", Runtime.ONNX)


def test_the_compiled_runtime_says_where_it_runs(folder: Path) -> None:
    with pytest.raises(SettingsError, match="runs on the CPU and on NVIDIA's GPUs, not on mps; use --runtime eager"):
        compiled.load(as_given(settings(folder, device="mps", dtype="float32")), lambda text, fraction: None)


def test_a_model_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path))
    with pytest.raises(ModelError, match="`vcam models download sd15-lcm`"):
        resolve(EngineSettings(model="sd15-lcm"))


def test_without_tensorrt_there_is_nothing_to_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "look", lambda *_: TensorRtState("its library is not installed"))
    with pytest.raises(PlanError, match="TensorRT cannot be used here: its library is not installed"):
        for_plan(settings(folder))


# -------------------------------------------------------------------------------------------------------- asked once


class _Machine:
    """A machine with a GPU, as far as its driver and its properties are asked; counts who asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        monkeypatch.setattr(readiness, "DEVICES", ("cuda", "cpu"))
        monkeypatch.setattr(readiness, "may_run", lambda device: True)
        monkeypatch.setattr(readiness, "why_not", lambda device, dtype: "")
        monkeypatch.setattr(readiness, "machine", self._machine)
        monkeypatch.setattr(subprocess, "run", self._run)

    def _machine(self, device: str, dtype: str = "float32") -> Machine:
        return Machine("10.16.1.11", "a GPU", "8.9", readiness._driver())

    def _run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command[0])
        return subprocess.CompletedProcess(command, 0, "580.65\n")


def _kept_plan(machine: _Machine, wanted: EngineSettings) -> None:
    description = as_given(wanted).description
    parts = [description.folder / part for part in ("unet", "vae")]
    files = [file for part in parts for file in sorted(part.glob("*.safetensors"))]
    weights = cache.fingerprint(fingerprint(description), files)
    key = PlanKey.of(machine._machine("cpu"), weights, wanted)
    plan = cache.keep(key, "tiny", {tensorrt.FRAME: b"a plan"}, {}, 1.0, layout={})
    cache.set_verdict(plan, Verdict.VERIFIED, "60 dB")
    machine.asked.clear()


def test_a_start_with_a_verified_plan_asks_the_driver_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))
    wanted = settings(folder, device="cpu", dtype="float32", runtime=Runtime.AUTO)
    machine = _Machine(monkeypatch)
    _kept_plan(machine, wanted)
    assert resolve(wanted).runtime is Runtime.TENSORRT
    assert machine.asked == ["nvidia-smi"]
    machine.asked.clear()

    def refuse(library: Library, data: bytes) -> None:
        raise PlanError("the plan does not load")

    monkeypatch.setitem(sys.modules, "tensorrt", trt_stand_in.module())
    monkeypatch.setattr(building, "deserialize", refuse)
    engine = Engine(wanted, Look())  # the plan is read, and fails: eager stands in
    assert (engine.trouble, engine.settings.runtime) == ("the plan does not load", Runtime.EAGER)
    assert engine.tensorrt.plan is not None
    assert machine.asked == ["nvidia-smi"], "the key of the plan was worked out more than once"


def test_models_are_loaded_with_the_dtype_that_was_decided(folder: Path) -> None:
    assert load_model(settings(folder, device="cpu", dtype="auto")).dtype is torch.float32
