"""The tensorrt runtime on a stand-in for its library: equal to eager, and safe about what it loads."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from packaging.version import Version

from core import errors, verify
from core.algorithm.bank import layout_of, merge_groups
from core.algorithm.net import Picture
from core.engine import Engine
from core.models import hub
from core.plans import CachedPlan, Verdict
from core.runtimes.choice import for_plan, resolve
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache as engines
from core.runtimes.tensorrt import make_plan, readiness
from core.runtimes.tensorrt import runtime as tensorrt
from core.runtimes.tensorrt.library import FULL, PORTABLE, RTX
from core.settings import (
    BANK_RULES,
    BankedFeature,
    BankPreset,
    BankRules,
    EngineSettings,
    Filling,
    Guidance,
    Look,
    Lora,
    Policy,
    Runtime,
)
from core.verify import ensure_plan, psnr, verify_plan
from tests.support import trt_stand_in
from tests.support.lazy_device import lazy_device
from tests.support.model_folders import make_folder
from tests.support.tensorrt_model import PLACES, lora_file, tiny_unet
from vcam.cli.main import main


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_folder(tmp_path_factory.mktemp("model") / "tiny", description={"fusion": {"places": PLACES}})
    tiny_unet().save_pretrained(made / "unet")
    return made


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def version() -> str:
    return "10.16.1.11"


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, cache: Path, version: str) -> None:
    if request.node.get_closest_marker("gpu"):
        return
    rtx = version.startswith("1.")
    monkeypatch.setitem(sys.modules, "tensorrt", None if rtx else trt_stand_in.module(version))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt_stand_in.module(version, "tensorrt_rtx") if rtx else None)
    monkeypatch.setattr(readiness, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(cache))


def settings(folder: Path, **changes: object) -> EngineSettings:
    plain = {"width": 64, "height": 64, "steps": 2, "device": "cpu", "dtype": "float32", "runtime": Runtime.TENSORRT}
    return EngineSettings(model=str(folder), **(plain | changes))  # type: ignore[arg-type]


def silent(text: str, fraction: float) -> None:
    pass


def film(engine: Engine, frames: int, loras: tuple[Lora, ...] = ()) -> list[np.ndarray]:
    """A picture that drifts, a look that changes, a bank that is emptied; LoRAs come in the midst.

    Not steadied: what gives the fine contrast back makes two levels of one that rounding has on either side.
    """
    scene = np.random.default_rng(0).integers(0, 256, (10, 16, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    shown = []
    for index in range(frames):
        if index == 4:
            engine.set_look(Look(prompt="blue clay", interval=2, fusion_strength=0.4, steady=0.0), 3)
        if index == 6 and loras:
            engine.use_loras(loras)
        if index == 9:
            engine.forget()
        shown.append(engine.translate(np.ascontiguousarray(scene[4:68, 2 * index : 2 * index + 64])))
    return [picture for picture in [*shown, *engine.drain()] if picture is not None]


def apart(one: Engine, other: Engine, picture: Picture) -> int:
    """The greatest difference of what two engines make of a picture, in levels of 255."""
    shown, expected = one.translate(picture), other.translate(picture)
    assert shown is not None
    assert expected is not None
    return int(np.abs(shown.astype(int) - expected).max())


def equals_eager(wanted: EngineSettings) -> None:
    look = Look(prompt="ink person", interval=2, similarity_threshold=0.3, steady=0.0)
    made = ensure_plan(for_plan(wanted), silent)
    assert made.manifest is not None
    assert made.manifest.verdict is Verdict.VERIFIED, made
    eager, ours = (film(Engine(replace(wanted, runtime=one), look), 12) for one in (Runtime.EAGER, Runtime.TENSORRT))
    assert len(eager) == len(ours) == 12
    assert eager[-1].std() > 5
    assert furthest(eager, ours) <= 1  # a grey level, where rounding falls on either side


def furthest(some: list[np.ndarray], others: list[np.ndarray]) -> int:
    """The largest difference, in grey levels."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(some, others, strict=True))


IN_PLACE = pytest.mark.skipif(
    Version(onnxruntime.__version__) < Version("1.25"),
    reason="this onnxruntime has no TensorScatter, by which the stand-in writes in place",
)
SLOW = pytest.mark.slow  # an export takes 10 s of a CPU
GROWING = BankRules(filling=Filling.GROWING, keeps=BankedFeature.PLAIN)


@IN_PLACE
@pytest.mark.parametrize(
    ("slots", "version"),
    [
        pytest.param(1, "11.4.0.106", marks=SLOW),
        (2, "10.15.1.29"),
        pytest.param(4, "10.16.1.11", marks=SLOW),
        pytest.param(2, "1.7.1.116", marks=SLOW),
    ],
)
def test_rings_in_place_equal_eager_over_twelve_frames(folder: Path, slots: int) -> None:
    equals_eager(settings(folder, policy=Policy.FIFO, slots=slots))


@pytest.mark.parametrize("version", ["10.13.3.9"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"policy": Policy.FIFO, "slots": 2}, marks=SLOW),
        {"policy": Policy.MERGE},
        pytest.param({"policy": Policy.MERGE, "rules": BANK_RULES[BankPreset.PAPER]}, marks=SLOW),
        pytest.param({"policy": Policy.FIFO, "slots": 2, "rules": GROWING}, marks=SLOW),
        pytest.param({"policy": Policy.OFF}, marks=SLOW),
        pytest.param({"policy": Policy.FIFO, "steps": 1, "guidance": Guidance.ONETIME_NEGATIVE}, marks=SLOW),
    ],
    ids=["fifo-2", "merge", "paper", "growing-2", "off", "guided"],
)
def test_frames_kept_beside_equal_eager_over_twelve_frames(folder: Path, changes: dict[str, object]) -> None:
    equals_eager(settings(folder, **changes))


@pytest.mark.gpu
@pytest.mark.parametrize("policy", Policy)
def test_by_the_real_library_too_it_shows_what_eager_shows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    if why := readiness.why_not("cuda", "float32"):
        pytest.skip(f"TensorRT: {why}")
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))
    wanted = settings(folder, policy=policy, slots=2 if policy is Policy.FIFO else 1, device="cuda")
    made = ensure_plan(for_plan(wanted), silent)
    assert made.manifest is not None
    assert made.manifest.verdict is Verdict.VERIFIED, made
    look = Look(prompt="ink person", interval=1, similarity_threshold=0.3, steady=0.0)
    lora = lora_file(tmp_path / "a.safetensors")
    ours, eager = (
        film(Engine(replace(wanted, runtime=one), look), 12, (Lora(str(lora), 1.0),))
        for one in (Runtime.TENSORRT, Runtime.EAGER)
    )
    assert min(map(psnr, ours, eager)) > 35


@SLOW
@pytest.mark.parametrize(
    ("version", "changes"),
    [("10.16.1.11", {"policy": Policy.FIFO, "slots": 2}), ("11.4.0.106", {"policy": Policy.MERGE})],
    ids=["in-place", "merge"],
)
def test_in_half_precision_it_is_as_near_to_eager_as_it_must_be(folder: Path, changes: dict[str, object]) -> None:
    made = ensure_plan(for_plan(settings(folder, dtype="float16", **changes)), silent)
    assert made.manifest is not None
    assert made.manifest.verdict is Verdict.VERIFIED, made


@pytest.mark.parametrize(
    ("version", "policy"),
    [
        pytest.param("10.15.1.29", Policy.FIFO, marks=IN_PLACE, id="in-place"),
        pytest.param("10.13.3.9", Policy.MERGE, id="merge"),
    ],
)
def test_in_whatever_order_a_device_works_it_shows_what_eager_shows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    wanted = settings(folder, policy=policy, slots=2 if policy is Policy.FIFO else 1)
    ensure_plan(for_plan(wanted), silent)
    look = Look(prompt="ink person", interval=1, similarity_threshold=0.3, steady=0.0)
    lora = Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0)
    expected = film(Engine(replace(wanted, runtime=Runtime.EAGER), look), 12, (lora,))
    for seed, haste in ((0, 0.0), (1, 0.7), (2, 1.0)):
        with lazy_device(monkeypatch, seed, haste) as device:
            engine = Engine(wanted, look)
            device.begin(engine._model.weights.values())  # they are for LoRAs; the engine has its own
            assert furthest(expected, film(engine, 12, (lora,))) <= 1, f"seed {seed}, haste {haste}"
        groups = len(merge_groups(layout_of(engine._state.tensors.bank))) if policy is Policy.MERGE else 0
        assert device.captures == 2 * (1 + groups)  # the frame and each group's merge, and again after the refit


def test_another_lora_refits_the_engine_and_builds_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = built(folder)
    monkeypatch.setattr(make_plan, "build", lambda *_: pytest.fail("built again"))
    lora = Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0)
    look = Look(prompt="ink")
    ours, eager = (Engine(replace(wanted, runtime=one), look) for one in (Runtime.TENSORRT, Runtime.EAGER))
    assert ours.settings.runtime is Runtime.TENSORRT
    assert (ours.provider, eager.provider) == ("TensorRT 10.16.1.11", "")
    assert ours.changes_loras
    picture = film(eager, 1)[0]
    for loras in ((lora,), (), (replace(lora, weight=-0.5),)):
        for engine in (ours, eager):
            engine.use_loras(loras)
        assert apart(ours, eager, picture) <= 1
    with_lora = Engine(replace(wanted, loras=(lora,)), look)  # one that is there from the start
    ours.use_loras((lora,))
    assert apart(with_lora, ours, picture) == 0
    ours.use_loras(())
    assert apart(with_lora, ours, picture) > 1


def test_weights_that_the_library_has_combined_are_given_with_those_that_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, plan = built(folder)
    assert plan.manifest is not None
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
    named = {name.removesuffix(".T"): constant for constant, name in plan.manifest.constants.items()}
    value, query = (named[f"{layer}.{part}.weight"] for part in ("to_v", "to_q"))

    def missing(refitter: trt_stand_in.Refitter) -> list[str]:
        return [query] if value in refitter._given and query not in refitter._given else []

    monkeypatch.setattr(trt_stand_in.Refitter, "get_missing_weights", missing)
    ours, eager = (Engine(replace(wanted, runtime=one), Look()) for one in (Runtime.TENSORRT, Runtime.EAGER))
    for engine in (ours, eager):
        engine.use_loras((Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0),))
    assert apart(ours, eager, film(eager, 1)[0]) <= 1
    monkeypatch.setattr(trt_stand_in.Refitter, "get_missing_weights", lambda refitter: ["of nobody"])
    with pytest.raises(errors.PlanError, match="needs weights of nobody too"):
        ours.use_loras(())


def built(folder: Path) -> tuple[EngineSettings, CachedPlan]:
    """The cheapest engine there is."""
    wanted = settings(folder, policy=Policy.OFF, steps=1)
    return wanted, ensure_plan(for_plan(wanted), silent)


def test_a_wrong_engine_is_marked_and_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, plan = built(folder)
    run = trt_stand_in.IExecutionContext.execute_async_v3

    def noisy(context: trt_stand_in.IExecutionContext, stream_handle: int) -> bool:
        done = run(context, stream_handle)
        engine = context._alive()
        context._array(engine, "shown")[...] //= 2
        return done

    monkeypatch.setattr(trt_stand_in.IExecutionContext, "execute_async_v3", noisy)
    judged = verify_plan(plan, for_plan(wanted), silent)
    assert judged.manifest is not None
    assert judged.manifest.verdict is Verdict.WRONG
    assert "dB from eager" in judged.problem
    assert resolve(wanted).runtime is not Runtime.TENSORRT
    with pytest.raises(errors.PlanError, match="wrong: worst of"):
        tensorrt.load(for_plan(wanted))
    monkeypatch.setattr(trt_stand_in.IExecutionContext, "execute_async_v3", run)
    assert verify_plan(judged, for_plan(wanted), silent).problem == ""
    assert resolve(wanted).runtime is Runtime.TENSORRT


@SLOW
def test_a_build_can_be_stopped_and_tells_how_far_it_is(folder: Path) -> None:
    told: list[str] = []

    def report(text: str, fraction: float) -> None:
        told.append(text)

    wanted = settings(folder, policy=Policy.OFF, steps=1, width=128)
    with pytest.raises(errors.BuildCancelled):
        make_plan.build(for_plan(wanted), report, lambda: "50 %" not in told[-1])
    assert "building the TensorRT engine: Building engine 25 %" in told
    assert for_plan(wanted).tensorrt.plan is None
    assert not list(engines.cache_folder().glob(".part-*"))


def test_an_engine_of_another_version_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, plan = built(folder)
    data = engines.read_file(plan, tensorrt.FRAME)
    monkeypatch.setitem(sys.modules, "tensorrt", trt_stand_in.module("11.4.0.106"))
    with pytest.raises(errors.PlanError, match=r"does not load the engine: the engine was built by 10\.16\.1\.11"):
        building.deserialize(FULL, data)
    assert resolve(wanted).runtime is not Runtime.TENSORRT
    (problem,) = {
        one.problem for one in engines.listing(readiness.machine("cpu", "float32")) if one.folder == plan.folder
    }
    assert problem == "built for tensorrt 10.16.1.11, here 11.4.0.106"


def test_the_stand_in_keeps_the_rules(folder: Path) -> None:
    _, plan = built(folder)
    engine: Any = building.deserialize(FULL, engines.read_file(plan, tensorrt.FRAME))
    context = engine.create_execution_context()
    with pytest.raises(trt_stand_in.BrokenRule, match="no address was set"):
        context.execute_async_v3(0)
    loaded = tensorrt.LoadedPlan(FULL, engine, plan.folder / "kernels")
    call = tensorrt.PlanExecution(loaded, {}, torch.device("cpu"))
    call.run()
    call._context.set_tensor_address("shown", call.tensors["picture"].data_ptr())
    with pytest.raises(trt_stand_in.BrokenRule, match="shown lies over picture"):
        call.run()
    with pytest.raises(errors.PlanError, match=r"the engine's picture is torch\.uint8 \[64, 64, 3\]"):
        tensorrt.PlanExecution(loaded, {"picture": torch.zeros(3)}, torch.device("cpu"))
    with pytest.raises(errors.PlanError, match="has no weights nowhere"):
        building.refit(FULL, engine, {"nowhere": torch.zeros(1)}, 0)
    del call, engine, loaded
    gc.collect()
    with pytest.raises(trt_stand_in.BrokenRule, match="after its engine is gone"):
        context.execute_async_v3(0)


def test_vcam_engines_builds_verifies_and_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(folder), "--engine-size", "64x64", "--steps", "1", "--bank", "off"]
    options += ["--device", "cpu", "--dtype", "float32", "--json"]
    for action in ("build", "verify"):
        assert main(["engines", action, *options]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (told["state"], told["width"], told["problem"]) == ("verified", 64, "")
        assert "dB from eager" in told["compared"]
    assert main(["engines", "list"]) == 0
    assert "tiny 64x64, 1 step, bank off, float32, TensorRT 10.16.1.11, for cpu" in capsys.readouterr().out


# ---------------------------------------------------------------- TensorRT for RTX, where it differs


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_by_tensorrt_for_rtx_it_shows_what_eager_shows_and_compiles_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, plan = built(folder)
    assert plan.manifest is not None
    bound = plan.manifest.key.machine
    assert (bound.library, bound.capability, bound.driver) == ("tensorrt_rtx", PORTABLE, "any")
    assert plan.manifest.compared_on == "cpu, driver none"
    (kernels,) = plan.folder.glob("*.kernels")  # what the comparison has compiled
    compiled = trt_stand_in.IRuntimeCache.compiled
    ours, eager = (Engine(replace(wanted, runtime=one), Look()) for one in (Runtime.TENSORRT, Runtime.EAGER))
    picture = film(eager, 1)[0]
    assert apart(ours, eager, picture) <= 1
    assert trt_stand_in.IRuntimeCache.compiled == compiled, "it was kept"
    kernels.write_bytes(kernels.read_bytes()[:-1] + b"!")
    assert apart(Engine(wanted, Look()), eager, picture) <= 1
    assert trt_stand_in.IRuntimeCache.compiled == compiled + 1, "what was changed is not loaded"
    monkeypatch.setenv("STAND_IN_FAULT", "no-capture")
    graphs = Engine(wanted, Look())
    assert apart(graphs, eager, picture) <= 1
    context: Any = graphs._step._execution._context  # type: ignore[attr-defined]
    assert context._config.cuda_graph_strategy is trt_stand_in.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_an_engine_is_built_for_memory_of_ours_and_gets_it(folder: Path, tmp_path: Path) -> None:
    """So the library takes none while it runs, and its runs can be captured (REQUIRE_USER_ALLOCATION)."""
    _, plan = built(folder)
    engine: Any = building.deserialize(RTX, engines.read_file(plan, tensorrt.FRAME))
    assert engine.create_execution_context() is None
    assert trt_stand_in.NEEDS_OURS in str(building.no_context(RTX))
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt_stand_in.ExecutionContextAllocationStrategy.USER_MANAGED)
    with pytest.raises(trt_stand_in.BrokenRule, match="was given no memory"):
        engine.create_execution_context(config).execute_async_v3(0)
    call = tensorrt.PlanExecution(tensorrt.LoadedPlan(RTX, engine, tmp_path / "kernels"), {}, torch.device("cpu"))
    call.run()
    given, memory = call._context._memory, call._kernels._memory  # type: ignore[attr-defined,union-attr]
    begin, size = memory.data_ptr(), engine.device_memory_size_v2
    assert begin <= given <= given + size <= begin + memory.numel()


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_an_engine_that_gets_no_context_says_the_librarys_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan = built(folder)
    engine: Any = building.deserialize(RTX, engines.read_file(plan, tensorrt.FRAME))
    monkeypatch.setattr(trt_stand_in.IRuntimeConfig, "set_execution_context_allocation_strategy", lambda *_: None)
    with pytest.raises(errors.PlanError, match=r"cannot run the engine \(Engine was built with .*kUSER_MANAGED"):
        tensorrt.PlanExecution(tensorrt.LoadedPlan(RTX, engine, tmp_path / "kernels"), {}, torch.device("cpu"))


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_where_there_is_nothing_to_keep_of_what_was_compiled_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library gives none where it cannot tell the card."""
    wanted, plan = built(folder)
    before = {path: path.read_bytes() for path in plan.folder.glob("*.kernels")}
    monkeypatch.setattr(trt_stand_in.IRuntimeCache, "serialize", lambda cache: None)
    engine = Engine(wanted, Look())
    assert film(engine, 1)[0].std() > 1
    assert {path: path.read_bytes() for path in plan.folder.glob("*.kernels")} == before


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_the_library_captures_on_a_stream_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA captures nothing on the default stream, which is number 0."""
    _, plan = built(folder)
    engine: Any = building.deserialize(RTX, engines.read_file(plan, tensorrt.FRAME))
    call = tensorrt.PlanExecution(tensorrt.LoadedPlan(RTX, engine, tmp_path / "kernels"), {}, torch.device("cpu"))
    queued: list[tuple[int, str]] = []
    run = trt_stand_in.RtxExecutionContext.execute_async_v3

    def seen(context: trt_stand_in.RtxExecutionContext, stream_handle: int) -> bool:
        queued.append((stream_handle, context._config.cuda_graph_strategy.name))
        return run(context, stream_handle)

    monkeypatch.setattr(trt_stand_in.RtxExecutionContext, "execute_async_v3", seen)
    monkeypatch.setenv("STAND_IN_FAULT", "no-capture")
    with cuda_streams(monkeypatch) as order:
        call._device = torch.device("cuda")
        assert not call.capturable()
        call.run()
    assert queued == [(0, "DISABLED"), (1, "WHOLE_GRAPH_CAPTURE")]
    assert order == ["1 waits for 0", "0 waits for 1"]


@contextmanager
def cuda_streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Streams of a device that is not there: the default one is number 0; what waits for what is told."""
    order: list[str] = []

    class Stream:
        made = 0

        def __init__(self, device: object = None) -> None:
            self.cuda_stream = Stream.made
            Stream.made += 1

        def wait_stream(self, other: Stream) -> None:
            order.append(f"{self.cuda_stream} waits for {other.cuda_stream}")

    current = [Stream()]

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "stream", on)
        patch.setattr(torch.cuda, "current_stream", lambda of=None: current[-1])
        yield order


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_a_second_start_does_nothing_that_the_first_has_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands between it and its first picture: the model's parts and the engine are read, no more."""
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))
    monkeypatch.setattr(readiness, "_capability", lambda device: "8.9")
    wanted, _ = built(folder)
    compiled = trt_stand_in.IRuntimeCache.compiled
    read: list[str] = []
    read_file = engines.read_file

    def seen(plan: CachedPlan, name: str) -> bytes:
        read.append(name)
        return read_file(plan, name)

    monkeypatch.setattr(engines, "read_file", seen)
    for where, name in (
        (make_plan, "build"),
        (make_plan, "export"),
        (building, "build"),
        (verify, "film"),  # which compares
        (hub, "fetch"),
        (engines, "_hash"),  # of files of gigabytes
    ):
        monkeypatch.setattr(where, name, lambda *_, name=name, **__: pytest.fail(f"{name} is done again"))
    engine = Engine(replace(wanted, runtime=Runtime.AUTO), Look())
    assert engine.settings.runtime is Runtime.TENSORRT
    assert film(engine, 1)[0].std() > 1
    assert read == [tensorrt.FRAME]
    assert trt_stand_in.IRuntimeCache.compiled == compiled


_SECOND_START = """
import json, sys
import numpy as np
from core.engine import Engine
from core.runtimes.tensorrt import readiness
from core.settings import EngineSettings, Look, Policy, Runtime
from tests.support import trt_stand_in

sys.modules["tensorrt"], sys.modules["tensorrt_rtx"] = trt_stand_in.module("10.16.1.11"), None
readiness.DEVICES = ("cuda", "cpu")
own = json.loads(sys.argv[1])
engine = Engine(EngineSettings(**own | {"policy": Policy(own["policy"]), "runtime": Runtime.AUTO}), Look("ink person"))
picture = np.full((own["height"], own["width"], 3), 100, np.uint8)
while engine.translate(picture) is None:
    pass
print(json.dumps([engine.settings.runtime, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_a_second_start_imports_neither_diffusers_nor_transformers(folder: Path) -> None:
    """They take longer than all the rest of it."""
    wanted, _ = built(folder)
    given = {name: getattr(wanted, name) for name in ("model", "width", "height", "steps", "device", "dtype", "policy")}
    command = [sys.executable, "-c", _SECOND_START, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[4])
    assert done.returncode == 0, done.stderr
    runtime, imported = json.loads(done.stdout)
    assert runtime == "tensorrt"
    assert "torch" in imported
    assert not {"diffusers", "transformers", "scipy", "sympy"} & set(imported)


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), None])
def test_an_engine_for_which_there_is_no_memory_now_is_not_found_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """Another runtime runs; the engine is compared when there is memory for it. fault: PyTorch's, or the library's."""
    wanted, plan = built(folder)
    unverified = engines.set_verdict(plan, Verdict.UNVERIFIED, "")

    def full(self: object, *_: object) -> None:
        if fault is not None:
            raise fault
        building._log(FULL.bindings().ILogger).errors.append("Error Code 1: Cuda Runtime (out of memory)")
        raise building.no_context(FULL)

    with monkeypatch.context() as patch:
        patch.setattr(tensorrt.PlanExecution, "__init__", full)
        engine = Engine(wanted, Look())
        assert engine.settings.runtime is not Runtime.TENSORRT
        assert "memory" in engine.trouble
        with pytest.raises(errors.PlanMemoryShort):
            verify_plan(unverified, for_plan(wanted), silent)
    found = for_plan(wanted).tensorrt.plan
    assert found is not None
    assert found.verdict is Verdict.UNVERIFIED
    assert verify_plan(found, for_plan(wanted), silent).verdict is Verdict.VERIFIED


def test_what_eager_took_is_given_back_before_the_engine_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT takes its memory from the GPU itself, not from what PyTorch holds for later."""
    wanted, plan = built(folder)
    done: list[str] = []
    film = verify.film

    def seen(resolved: Any, *given: Any) -> Any:
        done.append(str(resolved.runtime))
        return film(resolved, *given)

    monkeypatch.setattr(verify, "film", seen)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("given back"))
    verify_plan(plan, for_plan(wanted), silent)
    assert done == ["given back", "eager", "given back", "tensorrt", "given back"]


def test_a_gpu_that_cannot_run_the_engine_leaves_it_to_another_runtime(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = built(folder)

    def broken(self: object) -> bool:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(tensorrt.PlanExecution, "capturable", broken)
    engine = Engine(wanted, Look())
    assert engine.settings.runtime is not Runtime.TENSORRT
    assert engine.trouble.startswith("the TensorRT engine cannot run on this GPU (CUDA error: operation not permitted")


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_an_engine_that_takes_no_loras_leaves_them_to_one_that_has_them_in_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", "no-refit")
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path / "engines"))
    wanted, plan = built(folder)
    assert plan.manifest is not None
    assert not plan.manifest.refittable
    assert not Engine(wanted, Look()).changes_loras
    with_lora = replace(wanted, loras=(Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0),))
    state = resolve(with_lora).tensorrt
    assert state.plan is None, "the plain one would show pictures without the LoRA"
    assert state.key is not None
    assert state.key.loras
    ensure_plan(for_plan(with_lora), silent)
    ours, eager = (Engine(replace(with_lora, runtime=one), Look()) for one in (Runtime.TENSORRT, Runtime.EAGER))
    assert ours.settings.runtime is Runtime.TENSORRT
    assert ours.provider == "TensorRT for RTX 1.7.1.116"
    picture = film(eager, 1)[0]
    assert apart(ours, eager, picture) <= 1
    assert apart(ours, Engine(wanted, Look()), picture) > 1
    assert resolve(replace(with_lora, loras=(replace(with_lora.loras[0], weight=0.5),))).tensorrt.plan is None


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_no_picture_is_shown_by_weights_that_were_changed_in_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = built(folder)
    lora = Lora(str(lora_file(tmp_path / "one.safetensors")), 1.0)
    engine = Engine(wanted, Look())
    assert engine.changes_loras
    picture = film(engine, 1)[0]
    monkeypatch.setattr(trt_stand_in.Refitter, "refit_cuda_engine_async", lambda refitter, stream_handle: False)
    with pytest.raises(errors.PlanError, match="weights could not be changed"):
        engine.use_loras((lora,))
    with pytest.raises(errors.PlanError, match="weights could not be changed"):
        engine.translate(picture)
    with_lora = replace(wanted, loras=(lora,))
    state = resolve(with_lora).tensorrt  # the next start has one built with the LoRA in it
    assert state.plan is None
    assert state.key is not None
    assert state.key.loras
    ensure_plan(for_plan(with_lora), silent)
    ours, eager = (Engine(replace(with_lora, runtime=one), Look()) for one in (Runtime.TENSORRT, Runtime.EAGER))
    assert ours.settings.runtime is Runtime.TENSORRT
    assert apart(ours, eager, film(eager, 1)[0]) <= 1
    assert not ours.changes_loras


@pytest.mark.parametrize("version", ["1.7.1.116"])
def test_what_the_library_refuses_is_asked_once_by_auto(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))
    monkeypatch.setattr(readiness, "_capability", lambda device: "8.9")
    wanted = settings(folder, policy=Policy.OFF, steps=1, runtime=Runtime.AUTO)
    assert resolve(wanted).tensorrt.to_build
    monkeypatch.setenv("STAND_IN_FAULT", "refused")
    with pytest.raises(errors.BuildRefused, match="no importer registered"):
        ensure_plan(for_plan(wanted), silent)
    state = resolve(wanted).tensorrt
    assert not state.to_build
    assert "no importer registered" in state.failed
    monkeypatch.delenv("STAND_IN_FAULT")
    ensure_plan(for_plan(wanted), silent)  # vcam engines build
    assert resolve(wanted).runtime is Runtime.TENSORRT
    assert resolve(wanted).tensorrt.failed == ""
