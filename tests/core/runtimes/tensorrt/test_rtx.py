"""The real TensorRT for RTX on this project's graphs: parsed, and built into engines, which needs no GPU.

Nothing is run: the stand-in does that (test_tensorrt_runtime.py), and a card.
"""

from __future__ import annotations

import json
import mmap
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from benchmarks import engines, random_model
from benchmarks.engines import Built, Network, built, exported, parsed, quantized
from core.errors import PlanError, SettingsError
from core.plans import CachedPlan
from core.runtimes.choice import for_plan
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import library, make_plan, readiness
from core.runtimes.tensorrt.library import PORTABLE, RTX
from core.settings import EngineSettings, Guidance, Lora, Policy
from tests.support import trt_stand_in
from tests.support.model_folders import make_folder, make_sdxl_folder
from tests.support.small_models import smallest_sdxl_unet
from tests.support.tensorrt_model import PLACES, lora_file, tiny_unet
from vcam.cli.main import main

pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(not RTX.installed, reason=f"{RTX.package} is not installed"),
]
ATTENTIONS = {"embedded": 7, "tiny": 3, "sdxl": 2}  # self-attention layers: two rings each
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM")
BESIDE = replace(RTX, operators=(10, 14))  # as a version that cannot write rings in place


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return make_folder(folder, description={"fusion": {"places": PLACES}}, unet=tiny_unet())


@pytest.fixture(scope="module")
def included(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of the included model as it is installed: 256x256, two steps, one slot, with its detail stage."""
    settings = EngineSettings(policy=Policy.FIFO, dtype="float16")
    return exported(settings, PORTABLE, tmp_path_factory.mktemp("graphs"))["frame.engine"]


def in_half_precision(network: Network, engine: Built) -> None:
    """No matrix is multiplied in float32: not as the graph says, and not as the library has compiled it."""
    assert network.of_kind(*PRODUCTS)
    assert not [layer for layer in network.of_kind(*PRODUCTS) if "FLOAT" in layer.types]
    products = [layer for layer in engine.layers if layer.kind in ("gemm", "correlation", "runtime_fusion")]
    assert products
    assert not [layer for layer in products if "Half" not in layer.types and "Float" in layer.types]


@pytest.mark.parametrize("card", ["7.5", "8.9"])
def test_the_included_model_is_built_for_turing_and_ada(included: Path, card: str) -> None:
    network, engine = parsed(included), built(included, card)
    in_half_precision(network, engine)
    assert len(network.of_kind("KV_CACHE_UPDATE")) == 2 * ATTENTIONS["embedded"]
    assert not network.on_host, "inputs lie on the GPU, where the runtime has its tensors"
    attention = [layer for layer in engine.layers if "mha" in layer.name]
    assert len(attention) >= 2 * ATTENTIONS["embedded"] or card == "7.5", "attention is not computed in one kernel"
    assert not [layer for layer in engine.layers if layer.kind == "reformat"]
    assert 10e6 < engine.size < 60e6  # the weights, and what the card compiles at its first start


def plainly(value: object) -> str:
    """A setting as a part of a test's name."""
    if isinstance(value, library.Library):
        return "beside" if value is BESIDE else "newest"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


# each form of the bank with each number of steps; sizes, guidance and slots spread over them. Those that are not slow
# have each value of each setting once
EVERY_SETTING = [
    (RTX, Policy.FIFO, 1, (256, 256), Guidance.NONE, 1),
    (RTX, Policy.FIFO, 2, (768, 768), Guidance.FULL, 2),
    (RTX, Policy.FIFO, 4, (384, 256), Guidance.ONETIME_NEGATIVE, 1),
    pytest.param(BESIDE, Policy.FIFO, 1, (512, 512), Guidance.SELF_NEGATIVE, 2, marks=pytest.mark.slow),
    (BESIDE, Policy.FIFO, 2, (384, 384), Guidance.NONE, 1),
    pytest.param(BESIDE, Policy.FIFO, 4, (256, 256), Guidance.FULL, 2, marks=pytest.mark.slow),
    pytest.param(RTX, Policy.MERGE, 1, (768, 768), Guidance.ONETIME_NEGATIVE, 1, marks=pytest.mark.slow),
    (RTX, Policy.MERGE, 2, (384, 256), Guidance.SELF_NEGATIVE, 1),
    (RTX, Policy.MERGE, 4, (512, 512), Guidance.NONE, 1),
    (RTX, Policy.OFF, 1, (384, 384), Guidance.FULL, 1),
    pytest.param(RTX, Policy.OFF, 2, (512, 512), Guidance.ONETIME_NEGATIVE, 1, marks=pytest.mark.slow),
    pytest.param(RTX, Policy.OFF, 4, (768, 768), Guidance.SELF_NEGATIVE, 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("form", "policy", "steps", "size", "guidance", "slots"), EVERY_SETTING, ids=plainly)
def test_every_setting_is_built_for_turing(
    tiny: Path,
    tmp_path: Path,
    form: library.Library,
    policy: Policy,
    steps: int,
    size: tuple[int, int],
    guidance: Guidance,
    slots: int,
) -> None:
    width, height = size
    changes = {"policy": policy, "steps": steps, "width": width, "height": height, "guidance": guidance, "slots": slots}
    builds_for_turing(tiny, tmp_path, changes, form)


def test_what_is_asked_for_in_float32_is_computed_in_float32(tiny: Path, tmp_path: Path) -> None:
    settings = EngineSettings(str(tiny), 64, 64, 1, Policy.FIFO, dtype="float32")
    graph = exported(settings, "8.9", tmp_path)["frame.engine"]
    network, engine = parsed(graph), built(graph, "8.9", torch.float32)
    assert {kind for layer in network.of_kind(*PRODUCTS) for kind in layer.types} == {"FLOAT"}
    assert not [layer for layer in network.layers if layer.types & {"HALF", "BF16"}]
    assert [layer for layer in engine.layers if "Float" in layer.types]
    assert not [layer for layer in engine.layers if layer.types & {"Half", "BFloat16", "BF16"}]


def test_a_set_of_loras_gets_an_engine_and_a_key_of_its_own(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card whose library makes no engine that can be refitted: without a GPU, the real one makes none."""
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path / "engines"))
    monkeypatch.setattr(readiness, "DEVICES", ("cpu",))
    monkeypatch.setattr(readiness, "_capability", lambda device: "8.9")
    monkeypatch.setattr(library, "installed", lambda: [RTX])
    wanted = EngineSettings(str(tiny), 64, 64, 1, Policy.OFF, device="cpu", dtype="float16")
    told: list[str] = []

    def build(loras: tuple[Lora, ...]) -> CachedPlan:
        state = for_plan(replace(wanted, loras=loras)).tensorrt
        assert state.plan is None, "another engine would show something else"
        return make_plan.build(for_plan(replace(wanted, loras=loras)), lambda text, share: told.append(text))

    plain = build(())
    assert [text for text in told if "builds no engine that LoRAs can be put into" in text]
    assert plain.manifest is not None
    assert not plain.manifest.refittable
    told.clear()
    lora = Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0)
    styled = build((lora,))
    assert not [text for text in told if "builds no engine that LoRAs" in text], "known, and not tried again"
    assert styled.manifest is not None
    assert styled.manifest.key == replace(plain.manifest.key, loras=styled.manifest.key.loras)
    assert styled.manifest.key.loras
    assert styled.manifest.files != plain.manifest.files
    assert for_plan(wanted).tensorrt.plan == plain
    assert for_plan(replace(wanted, loras=(lora,))).tensorrt.plan == styled
    for others in ((replace(lora, weight=0.5),), (lora, lora)):
        assert for_plan(replace(wanted, loras=others)).tensorrt.plan is None


def builds_for_turing(model: Path, folder: Path, changes: dict[str, object], form: library.Library) -> None:
    plain = {"width": 64, "height": 64, "dtype": "float16"}
    settings = EngineSettings(model=str(model), **(plain | changes))  # type: ignore[arg-type]
    graphs = exported(settings, "7.5", folder, form)
    first, *merges = graphs
    assert first == "frame.engine"
    assert merges == [f"merge-{group}.engine" for group in range(len(merges))], "one for each group of layers"
    assert bool(merges) is (settings.policy is Policy.MERGE)
    for name, graph in graphs.items():
        network, engine = parsed(graph), built(graph, "7.5")
        in_place = name == "frame.engine" and settings.policy is Policy.FIFO and form is RTX
        rings = 2 * ATTENTIONS.get(model.name, ATTENTIONS["embedded"])
        assert len(network.of_kind("KV_CACHE_UPDATE")) == (rings if in_place else 0)
        assert engine.size
        if name == "frame.engine":
            in_half_precision(network, engine)


def test_a_model_of_sdxls_shape_is_built_for_turing(tmp_path: Path) -> None:
    """Two text encoders, pooled text and sizes."""
    model = make_sdxl_folder(tmp_path / "sdxl", smallest_sdxl_unet(0))
    builds_for_turing(model, tmp_path / "graphs", {"policy": Policy.FIFO, "steps": 1}, RTX)


def test_what_cannot_be_built_is_one_line(tiny: Path, tmp_path: Path) -> None:
    wanted = EngineSettings(model=str(tiny), width=64, height=64, dtype="float32")
    with pytest.raises(PlanError, match=r"float16 alone on Turing cards \(RTX 20, GTX 16\), not in float32"):
        for_plan(wanted, "7.5")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", ends[:2], ends[2:])
    path = tmp_path / "wrong.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(PlanError, match=r"TensorRT for RTX 1\.\S+ does not take the graph: ") as refused:
        built(path, "8.9", torch.float32)
    assert "\n" not in str(refused.value)
    square = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 3]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", square[:2], square[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(PlanError, match=r"could not build the engine: .*FP32 GEMM is not supported") as refused:
        built(path, "7.5", torch.float32)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("card", "named"), [("7.5", ["SM75"]), ("8.9", ["SM89"]), ("12.0", ["SM120"]), (PORTABLE, [])])
def test_a_build_names_the_card_and_asks_for_an_engine_whose_memory_is_ours(card: str, named: list[str]) -> None:
    import tensorrt_rtx

    rtx: Any = tensorrt_rtx  # more of it than the runtime uses
    config = rtx.Builder(rtx.Logger()).create_builder_config()
    building._for_card(config, card)
    assert config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert [config.get_compute_capability(at).name for at in range(config.num_compute_capabilities)] == named


@pytest.mark.skipif(sys.platform != "linux", reason="how the library's file is called")
def test_the_stand_in_refuses_a_context_as_the_library_does() -> None:
    """No context can be made without a GPU; that there is such a rule is seen from the words in the library's file."""
    (file,) = Path(find_spec("tensorrt_rtx_libs").origin).parent.glob("libtensorrt_rtx.so.*")  # type: ignore[union-attr,arg-type]
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert content.find(trt_stand_in.NEEDS_OURS.encode()) > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_full_disk_is_what_a_build_raises(tmp_path: Path) -> None:
    """The plan is written by the library as it builds: what goes wrong there comes out on our side."""
    graph = quantized("MatMul", "fp8", tmp_path / "graph.onnx")
    options = building.BuildOptions(torch.float16, "8.9", refittable=False, timing=Path())
    with pytest.raises(OSError, match="No space left"):
        building.build(RTX, graph, Path("/dev/full"), options, lambda text, share: None, lambda: True)


def test_vcam_engines_builds_for_another_machines_card(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))
    options = ["--model", str(tiny), "--engine-size", "64x64", "--steps", "1", "--bank", "off", "--for", "RTX 4090"]
    assert main(["engines", "build", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["target"], told["state"], told["refittable"]) == ("sm89", "unverified", False)
    assert told["library"] == "TensorRT for RTX"
    assert told["bytes"] > 1000
    assert main(["engines", "build", *options]) == 0, "what is there is kept"
    assert f"copy {told['folder']} there" in capsys.readouterr().out
    assert main(["engines", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{told['engine']}  elsewhere, " in listed
    assert "tiny 64x64, 1 step, bank off, float16, TensorRT for RTX 1." in listed
    assert "for sm89" in listed
    assert main(["engines", "build", *options[:-1], "RX 7900"]) == 1
    assert "'RX 7900' is no card that TensorRT for RTX is made for; use portable, rtx4090" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_of_docs_engines_md_can_be_made_anew(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(tiny), "--size", "64x64", "--steps", "1", "--bank", "merge", "--for", "sm89", "--json"]
    assert engines.main(options) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["graph"] for row in rows][:2] == ["frame", "merge-0"]
    assert {(row["for"], row["size"], row["steps"], row["bank"], row["rings_in_place"]) for row in rows} == {
        ("sm89", "64x64", 1, "merge", 0)
    }
    assert all(
        row[name] > 0 for row in rows for name in ("mb", "build_s", "export_s", "network_layers", "engine_layers")
    )
    assert "| " in engines.table(rows)


def test_eight_bits_as_docs_engines_md_tells_of_them(tmp_path: Path) -> None:
    fp8, int8 = (quantized("Conv", eight, tmp_path / f"{eight}.onnx") for eight in ("fp8", "int8"))
    assert convolved(fp8, "8.9") == {"FP8"}
    assert convolved(int8, "8.6") == {"Int8"}
    assert convolved(int8, "7.5") == {"Half"}
    with pytest.raises(PlanError, match="HW-specific datatypes: fp8"):
        built(fp8, "8.6")


def convolved(graph: Path, card: str) -> frozenset[str]:
    """The types that the engine's one convolution reads."""
    (one,) = [layer for layer in built(graph, card).layers if layer.kind == "correlation"]
    return one.types


@pytest.mark.slow
def test_a_model_of_stable_diffusion_1_5s_full_shape_is_built_for_every_card(tmp_path: Path) -> None:
    """Minutes, and 9 GB of RAM."""
    model = random_model.make(tmp_path / "sd15", random_model.FULL, dtype=torch.float16)
    settings = EngineSettings(str(model), 512, 512, 4, Policy.FIFO, 1, dtype="float16")
    graph = exported(settings, PORTABLE, tmp_path / "graphs")["frame.engine"]
    network = parsed(graph)
    assert len(network.of_kind("KV_CACHE_UPDATE")) == 2 * 16
    for card in ("7.5", PORTABLE):
        engine = built(graph, card)
        in_half_precision(network, engine)
        assert 1.6e9 < engine.size < 2e9


@pytest.mark.slow
@pytest.mark.parametrize("form", [RTX, BESIDE], ids=["in-place", "beside"])
@pytest.mark.parametrize("size", [(256, 256), (384, 256), (512, 512), (768, 768)], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("policy", Policy)
def test_the_included_model_is_built_for_turing_at_every_setting(
    tmp_path: Path, policy: Policy, steps: int, size: tuple[int, int], form: library.Library
) -> None:
    if policy is not Policy.FIFO and form is BESIDE:
        pytest.skip("there is one form of it")
    changes = {"policy": policy, "steps": steps, "width": size[0], "height": size[1]}
    builds_for_turing(Path("embedded"), tmp_path, changes, form)


def test_cards_by_the_names_that_people_use() -> None:
    names = {
        "7.5": ("sm75", "RTX 2080 Ti", "GTX 1660 Super", "NVIDIA GeForce RTX 2060", "T4"),
        "8.0": ("A100", "8.0"),
        "8.6": ("rtx3060", "RTX 3090 Ti", "RTX A4000", "RTX 3070 Laptop GPU"),
        "8.9": ("rtx4090", "4070", "RTX 4060-Ti", "RTX 4000 Ada", "RTX 6000 Ada", "L4"),
        "12.0": ("rtx5090", "RTX 5070 Ti", "sm120"),
        "12.1": ("GB10", "12.1"),
        PORTABLE: ("portable",),
    }
    for capability, given in names.items():
        assert {library.target(name) for name in given} == {capability}, given
    for wrong in ("H100", "rtx", "sm90", "", "9.0", "RX 7900"):
        with pytest.raises(SettingsError, match="is no card that TensorRT for RTX is made for"):
            library.target(wrong)


def test_the_library_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "installed", lambda: [RTX, library.FULL])
    for card in RTX.cards:
        assert library.choose(card, "float16") is RTX
    assert library.choose("9.0", "float16") is library.FULL  # a data centre's
    assert library.choose("7.5", "float32") is library.FULL
    monkeypatch.setattr(library, "installed", lambda: [RTX])
    assert library.choose("9.0", "float16") is RTX  # the build, or the comparison, will tell
    assert library.choose("7.5", "float32") is RTX
    assert RTX.why_not("7.5", "float32")
    monkeypatch.setattr(library, "installed", list)
    assert library.choose("8.9", "float16") is None
