"""core.runtimes.compiled: the compiled frame shows what the eager runtime shows, by code that is compiled once."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.algorithm.bank import layout_of, merge_groups
from core.algorithm.frame import DetailedDecoder
from core.algorithm.net import Picture
from core.engine import Engine
from core.errors import SettingsError
from core.runtimes import choice, compiled
from core.runtimes.folding import Folded
from core.runtimes.stages import STAGES
from core.settings import (
    BANK_RULES,
    BankPreset,
    BankRules,
    EngineSettings,
    Filling,
    Guidance,
    Look,
    Lora,
    OnSwitch,
    Policy,
    Runtime,
)
from tests.support.lora_files import kohya, random_change
from tests.support.model_folders import layout_once, load_model, make_folder
from tests.support.small_details import make_detailed_folder
from tests.support.small_models import smallest_unet

SIZE = 64
TOLERANCE = 1  # grey levels: another order of adding, and one rounding at the end
QUICK = "eager"  # the backend that runs the captured graph as it is: what may break is in the capture, not in the code


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("core.algorithm.unet.layout", layout_once)
    monkeypatch.setattr(compiled, "load", partial(compiled.load, backend=QUICK))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("compiled") / "model", unet=smallest_unet(0))


def picture(number: int) -> Picture:
    """Two waves that drift."""
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = (np.sin((x + 3 * number) / 9), np.sin(y / 7 + number / 9), np.sin((x + y - number) / 11))
    return np.stack([(127.5 + 120 * wave).astype(np.uint8) for wave in waves], axis=-1)


def make(folder: Path, runtime: Runtime = Runtime.COMPILED, look: Look | None = None, **values: Any) -> Engine:
    # float64: a rounding must not decide which token is the most similar one
    given: dict[str, Any] = {"model": str(folder), "width": SIZE, "height": SIZE, "steps": 2, "policy": Policy.FIFO}
    given |= {"dtype": "float64"} | values
    return Engine(EngineSettings(runtime=runtime, **given), look or Look("ink", interval=1, guidance=1.0))


def unlike(one: Picture | None, other: Picture | None) -> float:
    """The largest difference, grey levels."""
    if one is None or other is None:
        return 0.0 if one is other else 255.0
    return float(np.abs(one.astype(int) - other).max())


def assert_alike(one: Engine, other: Engine, frames: int = 6, first: int = 0) -> None:
    pairs = [(one.translate(picture(n)), other.translate(picture(n))) for n in range(first, first + frames)]
    assert max(unlike(*pair) for pair in pairs) <= TOLERANCE
    shown = [result for result, _ in pairs if result is not None]
    assert any(unlike(shown[0], later) > 4 * TOLERANCE for later in shown)  # it is no still picture


def compilations() -> int:
    """Graphs that dynamo has made."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "slots"), [(Policy.OFF, 1), (Policy.FIFO, 1), (Policy.FIFO, 2), (Policy.MERGE, 1)])
def test_every_policy_shows_what_eager_shows(folder: Path, policy: Policy, slots: int) -> None:
    look = Look("a red person", interval=2, similarity_threshold=0.5)
    engines = (make(folder, runtime, look, policy=policy, slots=slots) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert_alike(next(engines), next(engines))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "slots", "rules"),
    [
        (Policy.MERGE, 1, BANK_RULES[BankPreset.PAPER]),
        (Policy.MERGE, 1, BANK_RULES[BankPreset.AUTHORS]),
        (Policy.FIFO, 2, BankRules(filling=Filling.GROWING)),
    ],
)
def test_other_banks_show_what_eager_shows(folder: Path, policy: Policy, slots: int, rules: BankRules) -> None:
    engines = (
        make(folder, runtime, Look("a red person"), policy=policy, slots=slots, rules=rules)
        for runtime in (Runtime.COMPILED, Runtime.EAGER)
    )
    assert_alike(next(engines), next(engines))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_detail_stage_behind_a_folded_decoder_shows_what_eager_shows(tmp_path: Path, steps: int) -> None:
    own = make_detailed_folder(tmp_path / "model", unet=smallest_unet(0), bare=True)
    look = Look("a red person", interval=1, steady=0.5)
    engines = [make(own, runtime, look, steps=steps) for runtime in (Runtime.COMPILED, Runtime.EAGER)]
    frame = engines[0]._step._frame  # type: ignore[attr-defined]
    assert isinstance(frame.decode, DetailedDecoder)
    assert isinstance(frame.decode.vae.decoder.layers[-1], Folded)
    assert_alike(engines[0], engines[1])


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [Guidance.FULL, Guidance.SELF_NEGATIVE, Guidance.ONETIME_NEGATIVE])
def test_every_guidance_shows_what_eager_shows(folder: Path, guidance: Guidance) -> None:
    look = Look("a red person", "neon", interval=1, guidance=1.4, residual=0.8)
    policy = Policy.MERGE if guidance is Guidance.FULL else Policy.FIFO
    engines = (
        make(folder, runtime, look, policy=policy, guidance=guidance) for runtime in (Runtime.COMPILED, Runtime.EAGER)
    )
    assert_alike(next(engines), next(engines))


@pytest.mark.slow
def test_real_code_for_the_cpu_shows_what_eager_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "load", partial(compiled.load.func, backend="aot_eager"))  # type: ignore[attr-defined]
    engines = (make(folder, runtime, steps=1, policy=Policy.MERGE) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert_alike(next(engines), next(engines), frames=4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", Policy)
def test_the_compilers_own_code_shows_what_eager_shows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    monkeypatch.setattr(compiled, "load", compiled.load.func)  # type: ignore[attr-defined]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    engines = (make(folder, runtime, policy=policy) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert_alike(next(engines), next(engines))
    assert any((tmp_path / "cache").rglob("*"))  # kept for the next start


@pytest.mark.slow
def test_imagined_pictures_are_those_of_eager(folder: Path) -> None:
    one, other = (make(folder, runtime, Look("ink", wander=4)) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert max(unlike(one.imagine(), other.imagine()) for _ in range(5)) <= TOLERANCE
    assert_alike(one, other)
    assert len(list(one.drain())) == len(list(other.drain())) == 1


LOOKS = (
    Look("ink", interval=1),
    Look("clay", interval=3, on_switch=OnSwitch.DECAY),
    Look("red neon", strength=0.9, seed=4, on_switch=OnSwitch.FLUSH),
    Look("a blue person", fusion_strength=0.2, similarity_threshold=0.3, interval=2),
    Look("a blue person", "red", guidance=1.7, residual=0.5),
)


@pytest.mark.parametrize("policy", [pytest.param(Policy.FIFO, marks=pytest.mark.slow), Policy.MERGE])
def test_no_change_of_the_look_compiles_anything_again(folder: Path, policy: Policy) -> None:
    settings: dict[str, Any] = {"policy": policy, "guidance": Guidance.SELF_NEGATIVE}
    one, other = (make(folder, runtime, **settings) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    made = compilations()
    frame = one._state.tensors  # of the stream that was opened: every frame works on them
    groups = len(merge_groups(layout_of(frame.bank)))
    assert made == (1 if policy is Policy.FIFO else 1 + groups)  # of a merge, every row by the same code
    rings = [ring.data_ptr() for ring in frame.bank.values()]
    held: list[int] = []
    for number in range(200):
        if number % 20 == 10:
            for engine in (one, other):
                engine.set_look(LOOKS[number // 20 % len(LOOKS)], frames=number % 7)
        if number == 150:
            one.forget()
            other.forget()
        shown = one.translate(picture(number))
        assert unlike(shown, other.translate(picture(number))) <= 2 * TOLERANCE
        if number in (125, 185):  # the look is the same, and no blend is on its way
            held.append(tensors())
    assert compilations() == made
    assert held[0] == held[1]
    assert one._state.tensors is frame
    assert [t.data_ptr() for t in frame.bank.values()] == rings


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["attn1.to_k", "attn2.to_v", "time_embedding.linear_1"])
def test_a_lora_acts_on_all_that_was_worked_out_of_the_weights(folder: Path, tmp_path: Path, layer: str) -> None:
    if layer.startswith("attn"):
        layer = f"down_blocks.0.attentions.0.transformer_blocks.0.{layer}"
    file = kohya(random_change(folder, 3, layer), tmp_path / "a.safetensors")
    one, other = (make(folder, runtime, policy=Policy.OFF, steps=1) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    made = compilations()
    plain = one.translate(picture(0))
    assert unlike(plain, other.translate(picture(0))) <= TOLERANCE
    for engine in (one, other):
        engine.use_loras((Lora(str(file), 4.0),))
    changed = one.translate(picture(0))
    assert unlike(changed, other.translate(picture(0))) <= TOLERANCE
    assert unlike(changed, plain) > 4 * TOLERANCE
    one.use_loras(())
    assert unlike(one.translate(picture(0)), plain) == 0
    assert compilations() == made


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_stages_are_measured_without_touching_the_stream(folder: Path, policy: Policy) -> None:
    one, other = (make(folder, runtime, policy=policy) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert_alike(one, other, frames=3)
    for engine in (one, other):
        taken = engine.stages(picture(0), repeats=2)
        assert tuple(taken) == STAGES
        assert all(taken[stage] > 0 for stage in STAGES)
    assert_alike(one, other, first=3)


@pytest.mark.gpu
@pytest.mark.parametrize("policy", Policy)
def test_on_a_gpu_one_captured_graph_shows_what_eager_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    monkeypatch.setattr(compiled, "load", compiled.load.func)  # type: ignore[attr-defined]
    given: dict[str, Any] = {"policy": policy, "device": "cuda", "dtype": "float32", "guidance": Guidance.SELF_NEGATIVE}
    one, other = (make(folder, runtime, LOOKS[4], **given) for runtime in (Runtime.COMPILED, Runtime.EAGER))
    assert_alike(one, other)
    memory = torch.cuda.memory_allocated()
    for engine in (one, other):
        engine.set_look(LOOKS[3], frames=3)
    assert_alike(one, other, frames=60)
    assert torch.cuda.memory_allocated() <= memory + 2**20


def tensors() -> int:
    """How many tensors live."""
    gc.collect()
    return sum(type(thing) is Tensor for thing in gc.get_objects())


def test_the_start_says_what_it_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float]] = []
    settings = EngineSettings(str(folder), SIZE, SIZE, policy=Policy.MERGE, runtime=Runtime.COMPILED)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    Engine(settings, Look("ink"), lambda text, fraction: heard.append((text, fraction)))
    texts = " | ".join(text for text, _ in heard)
    assert "compiled runtime: as asked for" in texts
    assert "compiling the frame" in texts
    assert "merge" in texts
    assert [fraction for _, fraction in heard] == sorted(fraction for _, fraction in heard)


def test_where_nothing_can_be_compiled_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **options: object) -> None:
        raise RuntimeError("no working C++\ncompiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(SettingsError, match=r"does not work here \(no working C\+\+ compiler\); use --runtime eager"):
        make(folder)


def test_what_auto_took_and_cannot_be_compiled_runs_eager_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise RuntimeError("no compiler")

    heard: list[str] = []
    monkeypatch.setattr(torch, "compile", broken)
    settings = EngineSettings(str(folder), SIZE, SIZE, steps=1, policy=Policy.OFF)
    monkeypatch.setattr(choice, "_quickest", lambda *_: (Runtime.COMPILED, "a GPU"))
    engine = Engine(settings, Look("ink"), lambda text, fraction: heard.append(text))
    assert engine.settings.runtime is Runtime.EAGER
    assert engine.translate(picture(0)) is not None
    assert any(
        "does not work here (no compiler); use --runtime eager; so that is what is done" in text for text in heard
    )


@pytest.mark.parametrize("told", ["", "elsewhere"])
def test_compiled_code_is_kept_between_starts(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", told)  # and so it is put back afterwards
    if not told:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    load_model(EngineSettings(str(folder), SIZE, SIZE, policy=Policy.OFF, runtime=Runtime.COMPILED))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == (told or str(compiled.code_folder()))
    assert compiled.code_folder().parts[-2:] == ("streamv2v-camera", "compiled")
