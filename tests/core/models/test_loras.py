"""core.models.loras: files of every form fused, wrong ones refused, and LoRAs switched under a running engine."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.random_model import SDXL_TURBO
from core.algorithm.net import Picture
from core.engine import Engine
from core.errors import ModelError, SettingsError
from core.models import loading as models
from core.models import loras
from core.settings import EngineSettings, Look, Lora, Runtime
from tests.support.lora_files import (
    ATTENTION,
    OUT,
    TEXT,
    Change,
    diffusers_form,
    kohya,
    random_change,
)
from tests.support.model_folders import load_model, parts_of, settings

pytestmark = pytest.mark.usefixtures("quick_layout")
PARTS = ("unet", "text_encoder")


def product(up: Tensor, down: Tensor) -> Tensor:
    """up @ down, written out over every axis."""
    return torch.einsum("or,ri...->oi...", up.flatten(1), down)


Fused = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="module")
def fused(tiny: Path) -> Fused:
    """LoRAs -> the weights with them, less the weights without: the layers that differ."""
    parts = [models.part(tiny, name, torch.float32) for name in PARTS]
    plain = [part.state_dict() for part in parts]

    def differences(*given: Lora) -> dict[str, Tensor]:
        changed = copy.deepcopy(parts)
        named = loras.named_weights(dict(zip(PARTS, changed, strict=True)))
        loras.put(named, loras.switch(named, {}, given).values)
        after = [part.state_dict() for part in changed]
        assert [state.keys() for state in after] == [state.keys() for state in plain]
        return {
            name.removeprefix("text_model.").removesuffix(".weight"): new[name] - old[name]
            for old, new in zip(plain, after, strict=True)
            for name in old
            if not torch.equal(new[name], old[name])
        }

    return differences


def is_change(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 1e-3
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.5, -1.5])
@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (1.0, 0.5), (8.0, 4.0)])
def test_a_kohya_file_is_fused(
    fused: Fused, tiny: Path, tmp_path: Path, weight: float, alpha: float | None, factor: float
) -> None:
    change = random_change(tiny, 0)
    found = fused(Lora(str(kohya(change, tmp_path / "a.safetensors", alpha)), weight))
    is_change(found, {n: weight * factor * product(up, down) for n, (up, down) in change.items()})


@pytest.mark.parametrize(
    "ends",
    [
        (".lora_B.weight", ".lora_A.weight"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
        (".lora.up.weight", ".lora.down.weight"),
        (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    ],
)
def test_a_diffusers_file_is_fused(fused: Fused, tiny: Path, tmp_path: Path, ends: tuple[str, str]) -> None:
    change = random_change(tiny, 1)
    found = fused(Lora(str(diffusers_form(change, tmp_path / "a.safetensors", ends)), 0.75))
    is_change(found, {n: 0.75 * product(up, down) for n, (up, down) in change.items()})


def test_a_diffusers_file_may_say_alpha_for_all_layers(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    change = random_change(tiny, 2)
    config = json.dumps({"unet.r": 2, "unet.lora_alpha": 6, "unet.alpha_pattern": {}, "text_encoder.lora_alpha": 1})
    path = diffusers_form(change, tmp_path / "a.safetensors", lora_adapter_metadata=config)
    is_change(fused(Lora(str(path))), {n: (0.5 if n == TEXT else 3) * product(*pair) for n, pair in change.items()})


def test_diffusers_files_before_peft_and_peft_files_are_fused(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    change = random_change(tiny, 3, ATTENTION, OUT)
    expected = {n: product(*pair) for n, pair in change.items()}
    old: dict[str, Tensor] = {}
    peft: dict[str, Tensor] = {}
    for layer, (up, down) in change.items():
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        old |= {
            f"unet.{attention}.processor.{projection}_lora.up.weight": up,
            f"unet.{attention}.processor.{projection}_lora.down.weight": down,
        }
        peft |= {f"base_model.model.{layer}.lora_B.weight": up, f"base_model.model.{layer}.lora_A.weight": down}
    for number, tensors in enumerate((old, peft)):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        is_change(fused(Lora(str(tmp_path / f"{number}.safetensors"))), expected)


def test_two_loras_add_up_and_a_weight_of_nothing_changes_nothing(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    one, other = random_change(tiny, 4), random_change(tiny, 5, ATTENTION)
    first, second = kohya(one, tmp_path / "a.safetensors"), diffusers_form(other, tmp_path / "b.safetensors")
    expected = {n: 0.7 * product(*pair) for n, pair in one.items()}
    expected[ATTENTION] = expected[ATTENTION] - 0.3 * product(*other[ATTENTION])
    is_change(fused(Lora(str(first), 0.7), Lora(str(second), -0.3)), expected)
    assert fused(Lora(str(first), 0)) == {}
    is_change(fused(Lora(str(second)), Lora(str(second))), {ATTENTION: 2 * product(*other[ATTENTION])})


@pytest.mark.parametrize("text", ["te", "te1"])
def test_a_lora_may_change_the_text_encoder_alone(fused: Fused, tiny: Path, tmp_path: Path, text: str) -> None:
    change = random_change(tiny, 6, TEXT)
    is_change(fused(Lora(str(kohya(change, tmp_path / "a.safetensors", text=text)))), {TEXT: product(*change[TEXT])})


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_lora_fits_every_dtype_and_place(folder: Path, tmp_path: Path, dtype: str) -> None:
    place = "down_blocks.0.attentions.0.transformer_blocks.0"
    (folder / "streamv2v.json").write_text(json.dumps({"fusion": {"places": [place]}}))
    lora = Lora(str(kohya(random_change(folder, 7), tmp_path / "a.safetensors")))
    model = load_model(settings(folder, dtype=dtype, loras=(lora,)))
    assert f"{place}.feature" in model.layout
    assert all(p.dtype is getattr(torch, dtype) for p in model.weights.values())


def spoiled(tensors: dict[str, Tensor], path: Path, old: str, new: str) -> None:
    save_file({key.replace(old, new): tensor for key, tensor in tensors.items()}, path)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("lora_up.weight", "hada_w1_a", "hada_w1_a"),
        ("lora_unet_down", "lora_unet_under", "not in this model"),
        ("lora_te_", "lora_te2_", "not in this model"),
        (".lora_up.weight", ".dora_scale", "no LoHa, LoKr or DoRA"),
        ("down_blocks_0", "input_blocks_0", "1 of its layers are not in this model"),
    ],
)
def test_a_lora_of_another_kind_is_refused(
    fused: Fused, tiny: Path, tmp_path: Path, old: str, new: str, named: str
) -> None:
    path = kohya(random_change(tiny, 8), tmp_path / "a.safetensors", alpha=1.0)
    spoiled(load_file(path), path, old, new)
    assert named in refused_lora(fused, path)


def refused_lora(fused: Fused, path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        fused(Lora(str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_lora_of_other_shapes_is_refused(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    change = random_change(tiny, 9, ATTENTION)
    up, down = change[ATTENTION]
    for number, pair in enumerate([(up, down[:, 1:].contiguous()), (up[1:], down), (up, down[:1])]):
        path = kohya(Change({ATTENTION: pair}), tmp_path / f"{number}.safetensors")
        assert "another kind of model" in refused_lora(fused, path)


def test_a_lora_of_undefined_numbers_is_refused(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    change = random_change(tiny, 10, ATTENTION)
    change[ATTENTION][0][0, 0] = float("nan")
    assert "infinite or undefined" in refused_lora(fused, kohya(change, tmp_path / "a.safetensors"))


def test_a_lora_file_that_is_none_is_refused(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    good = kohya(random_change(tiny, 11), tmp_path / "good.safetensors").read_bytes()
    for name, content in (("cut", good[:-100]), ("empty", b""), ("pickle", b"\x80\x04K\x01.")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "cannot be read" in refused_lora(fused, path)
    save_file({}, path)
    assert "0 up and 0 down" in refused_lora(fused, path)
    half = {key: tensor for key, tensor in load_file(tmp_path / "good.safetensors").items() if "lora_up" not in key}
    save_file(half, path)
    assert "0 up and 5 down" in refused_lora(fused, path)
    assert "no such file" in refused_lora(fused, tmp_path / "nowhere.safetensors")
    assert "cannot be read" in refused_lora(fused, Path("~nobody-here/a.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_float8_file_is_fused_as_the_numbers_that_it_holds(
    fused: Fused, tiny: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    change = random_change(tiny, 0)
    rounded = {name: (up.to(dtype), down.to(dtype)) for name, (up, down) in change.items()}
    path = kohya(Change(rounded), tmp_path / "a.safetensors", 2.0)
    tensors = load_file(path)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, path)  # alpha too
    found = fused(Lora(str(path)))
    is_change(found, {name: product(up.float(), down.float()) for name, (up, down) in rounded.items()})


def test_capitals_in_a_files_name_are_no_pickle(fused: Fused, tiny: Path, tmp_path: Path) -> None:
    path = kohya(random_change(tiny, 0), tmp_path / "a.safetensors")
    assert fused(Lora(str(path.rename(tmp_path / "A.SAFETENSORS"))))


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.ckpt", "a"])
def test_a_lora_must_be_safetensors(fused: Fused, tiny: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"never opened")
    assert "only .safetensors" in refused_lora(fused, tmp_path / name)


@pytest.mark.parametrize("config", ['{"unet.alpha_pattern": {"x": 1}}', '{"unet.use_rslora": true}', "{", "[]", "3"])
def test_a_lora_configuration_that_is_not_followed_is_refused(
    fused: Fused, tiny: Path, tmp_path: Path, config: str
) -> None:
    path = diffusers_form(random_change(tiny, 12), tmp_path / "a.safetensors", lora_adapter_metadata=config)
    assert "supported" in (message := refused_lora(fused, path)) or "lora_adapter_metadata" in message


# ------------------------------------------------------------------------------------------- switched while it runs


def picture(number: int) -> Picture:
    y, x = np.mgrid[:64, :64]
    return np.stack([127.5 + 120 * np.sin((x + y * n + 5 * number) / 9) for n in range(3)], -1).astype(np.uint8)


def shown(engine: Engine, numbers: range) -> list[bytes]:
    results = [engine.translate(picture(number)) for number in numbers]
    return [result.tobytes() for result in results if result is not None]


def bits(engine: Engine) -> dict[str, bytes]:
    held = engine._model.weights
    return {name: tensor.detach().view(torch.uint8).numpy().tobytes() for name, tensor in held.items()}


@pytest.fixture
def files(tiny: Path, tmp_path: Path) -> tuple[Lora, Lora]:
    """One of all kinds of layer, one of an attention and the text alone."""
    both = (random_change(tiny, 20), random_change(tiny, 21, ATTENTION, TEXT))
    return tuple(Lora(str(kohya(one, tmp_path / f"{n}.safetensors"))) for n, one in enumerate(both))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_switch_gives_the_weights_of_an_engine_built_with_those_and_none_the_first(
    tiny: Path, files: tuple[Lora, Lora], dtype: str
) -> None:
    one, other = files
    chosen = settings(tiny, steps=1, dtype=dtype)
    engine = Engine(chosen, Look("ink"))
    plain = bits(engine)
    for given in ((one,), (other,), (replace(one, weight=-0.7), other), (replace(one, weight=0.1),), (other,)):
        engine.use_loras(given)
        assert engine.settings.loras == given
        assert bits(engine) == bits(Engine(replace(chosen, loras=given), Look("ink")))
    assert engine._model.originals.keys() == {
        "unet." + ATTENTION + ".weight",
        f"text_encoder.{text_name(engine)}.weight",
    }
    engine.use_loras(())
    assert bits(engine) == plain
    assert engine._model.originals == {}


def text_name(engine: Engine) -> str:
    (name,) = (n for n in engine._model.weights if n.endswith(f"{TEXT}.weight"))
    return name.removeprefix("text_encoder.").removesuffix(".weight")


def test_a_hundred_switches_leave_no_trace(tiny: Path, files: tuple[Lora, Lora]) -> None:
    engine = Engine(settings(tiny, steps=1, dtype="bfloat16", loras=files), Look("ink"))
    with_both = bits(engine)
    for number in range(100):
        engine.use_loras((replace(files[number % 2], weight=number / 30 - 1),))
    engine.use_loras(files)
    assert bits(engine) == with_both


def test_weights_stay_where_they_are(tiny: Path, files: tuple[Lora, Lora]) -> None:
    engine = Engine(settings(tiny, steps=1), Look("ink"))
    module = {id(p): p for p in parts_of(engine).net.net.parameters()}  # type: ignore[attr-defined]
    places = {name: tensor.data_ptr() for name, tensor in engine._model.weights.items()}
    engine.use_loras(files)
    assert {name: tensor.data_ptr() for name, tensor in engine._model.weights.items()} == places
    used = {id(tensor) for name, tensor in engine._model.weights.items() if name.startswith("unet.")}
    assert used <= module.keys()


def test_the_next_picture_is_of_the_new_loras(tiny: Path, files: tuple[Lora, Lora]) -> None:
    engine, untouched = (Engine(settings(tiny, steps=1), Look("ink")) for _ in range(2))
    assert shown(engine, range(3)) == shown(untouched, range(3))
    engine.use_loras(files)
    assert shown(engine, range(3, 4)) != shown(untouched, range(3, 4))  # and no picture is missing meanwhile
    engine.forget()
    assert shown(engine, range(4)) == shown(Engine(settings(tiny, steps=1, loras=files), Look("ink")), range(4))


def test_the_prompt_is_encoded_anew_where_the_text_encoder_is_another(tiny: Path, files: tuple[Lora, Lora]) -> None:
    engine = Engine(settings(tiny, steps=1), Look("ink"))
    embedding = engine._model.encoder("ink")
    engine.use_loras((files[1],))
    assert not torch.equal(engine._model.encoder("ink"), embedding)
    assert torch.equal(engine._transition.blend.target, engine._model.encoder("ink"))
    engine.use_loras(())
    assert torch.equal(engine._transition.blend.target, embedding)


def test_a_lora_that_cannot_be_changes_nothing(tiny: Path, files: tuple[Lora, Lora], tmp_path: Path) -> None:
    engine = Engine(settings(tiny, steps=1, loras=files[:1]), Look("ink"))
    before = bits(engine)
    with pytest.raises(ModelError, match="no such file"):
        engine.use_loras((files[1], Lora(str(tmp_path / "gone.safetensors"))))
    assert bits(engine) == before
    assert engine.settings.loras == files[:1]


def test_the_values_of_a_switch_are_by_the_names_of_the_parts_and_change_nothing(
    tiny: Path, files: tuple[Lora, Lora]
) -> None:
    parts = [models.part(tiny, name, torch.float32) for name in PARTS]
    named = loras.named_weights(dict(zip(PARTS, parts, strict=True)))
    plain = {name: tensor.clone() for name, tensor in named.items()}
    change = loras.switch(named, {}, files)
    states = {
        f"{part}.{name}" for part, one in zip(("unet", "text_encoder"), parts, strict=True) for name in one.state_dict()
    }
    assert change.values.keys() <= states
    assert all(torch.equal(named[name], tensor) for name, tensor in plain.items())
    assert all(torch.equal(change.originals[name], plain[name]) for name in change.values)
    back = loras.switch(
        dict(change.values) | {n: t for n, t in named.items() if n not in change.values}, change.originals, ()
    )
    assert back.originals == {}
    assert all(torch.equal(back.values[name], plain[name]) for name in change.values)


def test_where_the_weights_are_fixed_or_another_runtime_would_do_better_it_is_said(files: tuple[Lora, Lora]) -> None:
    chosen = EngineSettings(width=64, height=64, steps=1, device="cpu")
    fixed = Engine(replace(chosen, runtime=Runtime.ONNX), Look("ink"))
    assert not fixed.changes_loras
    with pytest.raises(SettingsError, match="onnx runtime cannot change LoRAs"):
        fixed.use_loras(files)
    assert Engine(replace(chosen, runtime=Runtime.EAGER), Look("ink")).changes_loras


def as_first_called(name: str) -> str:
    """A layer's name in SDXL's first code, as kohya's files have it, by diffusers' name."""
    side, level, kind, layer, rest = re.fullmatch(  # type: ignore[union-attr]
        r"(?:(down|up)_blocks\.(\d)|mid_block)\.(\w+?)s\.(\d)\.(.*)", name
    ).groups()
    rest = rest.replace("conv1", "in_layers.2").replace("time_emb_proj", "emb_layers.1")
    rest = rest.replace("conv2", "out_layers.3").replace("conv_shortcut", "skip_connection")
    if kind == "downsampler":
        place, rest = f"input_blocks_{3 * (int(level) + 1)}_0", "op"
    elif kind == "upsampler":
        place = f"output_blocks_{3 * int(level) + 2}_2"
    elif side is None:
        place = f"middle_block_{1 if kind == 'attention' else 2 * int(layer)}"
    else:
        at = 3 * int(level) + int(layer)
        place = f"{'input' if side == 'down' else 'output'}_blocks_{at + (side == 'down')}_{int(kind == 'attention')}"
    return f"lora_unet_{place}_{rest.replace('.', '_')}"


def test_layers_of_sdxl_by_their_first_names_are_found(tmp_path: Path) -> None:
    library: Any = diffusers
    with torch.device("meta"):
        unet = library.UNet2DConditionModel(**SDXL_TURBO.unet)
    names = [
        name.removesuffix(".weight").removeprefix("unet.")
        for name in loras.named_weights({"unet": unet})
        if "_block" in name
    ]
    file, other = tmp_path / "first.safetensors", tmp_path / "diffusers.safetensors"
    stems = {file: map(as_first_called, names), other: (f"unet.{name}" for name in names)}
    for path, calls in stems.items():
        save_file({f"{call}.lora_up.weight": torch.zeros(1, 1) for call in calls}, path)
    weights = dict.fromkeys(loras.named_weights({"unet": unet}))
    first, plain = (loras.changed(weights, [Lora(str(path))]) for path in (file, other))
    assert first == plain
    assert len(first) == len(names) > 700
