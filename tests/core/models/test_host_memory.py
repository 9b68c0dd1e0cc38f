"""core.models.host_memory: RAM and disk that loading, LoRAs and building an engine take; what does not fit is
refused beforehand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.engine import Engine
from core.errors import SettingsError
from core.models import device_memory as memory
from core.models import host_memory as host
from core.models import loading as models
from core.models.description import describe, stored
from core.progress import silent
from core.runtimes.choice import for_plan
from core.runtimes.tensorrt import cache as engines
from core.runtimes.tensorrt import make_plan, readiness
from core.settings import EngineSettings, Look, Lora, Runtime
from tests.support import trt_stand_in
from tests.support.model_folders import as_given, load_model, make_folder, make_full_shapes, settings, weights

GB = 10**9
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.1.resnets.0.conv1"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("host") / "model")


@pytest.fixture
def lora(tiny: Path, tmp_path: Path) -> Lora:
    return Lora(str(random_lora(tiny, tmp_path / "lora.safetensors", f"unet.{ATTENTION}", f"text_encoder.{TEXT}")))


def random_lora(model: Path, path: Path, *layers: str) -> Path:
    """A LoRA of rank 1 of those layers, in diffusers' form; of every convolution and matrix of the UNet if of none."""
    tensors: dict[str, Tensor] = {}
    for part in ("unet", "text_encoder"):
        with safe_open(weights(model, part), framework="pt") as file:
            shapes = {f"{part}.{key}": file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        for name, (out, *rest) in shapes.items():
            layer = name.removesuffix(".weight")
            chosen = layer in layers or (not layers and part == "unet")
            if chosen and rest and name.endswith(".weight"):
                tensors[f"{layer}.lora_B.weight"] = torch.full((out, 1, *[1] * (len(rest) - 1)), 0.1)
                tensors[f"{layer}.lora_A.weight"] = torch.full((1, *rest), 0.1)
    save_file(tensors, path)
    return path


def chosen(tiny: Path, **values: Any) -> EngineSettings:
    return settings(tiny, **{"steps": 1, "device": "cpu", "dtype": "float32", "runtime": Runtime.EAGER, **values})


def bytes_of(tiny: Path, *parts: str) -> int:
    """Of the parts' numbers in float32."""
    return sum(tensor.nbytes for part in parts for tensor in load_file(weights(tiny, part)).values())


# ---------------------------------------------------------------------------------------------------- what is loaded


def test_headers_tell_what_is_stored(tiny: Path) -> None:
    tensors = load_file(weights(tiny, "unet"))
    found = {one.name: one for one in stored(tiny / "unet")}
    assert found.keys() == tensors.keys()
    assert all(found[name][1:] == ("F32", one.numel(), one.nbytes) for name, one in tensors.items())


def test_on_the_cpu_all_weights_stay(tiny: Path) -> None:
    whole = bytes_of(tiny, *describe(str(tiny)).parts)
    same, half = (host.loading(as_given(chosen(tiny, dtype=dtype))) for dtype in ("float32", "float16"))
    besides = same.needed - whole
    assert same.shown == same.needed  # they are used where they lie in the file
    assert half.needed - besides == whole // 2
    # each is converted while its file is read, after those before it
    assert half.shown - besides == bytes_of(tiny, "unet") * 3 // 2
    assert bytes_of(tiny, "unet") > bytes_of(tiny, "vae", "text_encoder")
    assert same.originals == half.originals == 0


def test_on_a_gpu_one_part_is_held_at_a_time(tiny: Path) -> None:
    same, half = (host.loading(as_given(chosen(tiny, dtype=dtype, device="cuda"))) for dtype in ("float32", "float16"))
    assert half.needed - same.needed == bytes_of(tiny, "unet") // 2
    assert half.shown - half.needed == same.shown - same.needed == bytes_of(tiny, "unet")


def test_an_engine_of_tensorrt_is_read_and_the_nets_are_not(tiny: Path, lora: Lora) -> None:
    eager, trt = (
        host.loading(as_given(chosen(tiny, device="cuda", runtime=one))) for one in (Runtime.EAGER, Runtime.TENSORRT)
    )
    nets = bytes_of(tiny, "unet", "vae")
    assert nets <= trt.needed - eager.needed <= 1.2 * nets  # the engine's file


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_originals_are_those_that_the_engine_keeps(tiny: Path, lora: Lora, tmp_path: Path, dtype: str) -> None:
    other = Lora(str(random_lora(tiny, tmp_path / "other.safetensors", f"unet.{ATTENTION}", f"unet.{CONVOLUTION}")))
    wanted = chosen(tiny, dtype=dtype, loras=(lora, other))
    kept = sum(one.nbytes for one in Engine(wanted, Look("ink"))._model.originals.values())
    assert kept > 0
    assert (
        host.originals(as_given(wanted))
        == host.loading(as_given(wanted)).originals
        == memory.need(as_given(wanted)).loras
        == kept
    )
    assert host.loading(as_given(wanted)).needed - host.loading(as_given(replace(wanted, loras=()))).needed > kept
    assert memory.need(as_given(replace(wanted, device="cuda"))).loras == 0  # they lie in RAM, which is another's there


def test_what_cannot_be_loaded_is_refused_with_what_it_takes(tiny: Path, lora: Lora) -> None:
    plain, fused = chosen(tiny), chosen(tiny, loras=(lora,))
    wanted = host.loading(as_given(plain))
    assert host.check_loading(as_given(plain), wanted.needed) == wanted
    with pytest.raises(
        SettingsError, match=r"needs [\d.]+ GB of RAM while it is loaded, but [\d.]+ GB are free; close "
    ):
        host.check_loading(as_given(plain), wanted.needed - 1)
    with pytest.raises(SettingsError, match=r"\([\d.]+ [GM]B of it to keep what its LoRAs change\).*or fewer LoRAs$"):
        host.check_loading(as_given(fused), wanted.needed)


def test_nothing_is_read_where_the_ram_is_too_small(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "free_ram", lambda: 50_000_000)
    monkeypatch.setattr(models, "part", None)
    with pytest.raises(SettingsError, match="50 MB are free; close what else uses it"):
        load_model(chosen(tiny))


# ------------------------------------------------------------------------------------------------- LoRAs while it runs


def test_a_switch_is_refused_where_the_originals_do_not_fit(tiny: Path, lora: Lora) -> None:
    engine = Engine(chosen(tiny), Look("ink"))
    have = engine._model.weights
    wanted = chosen(tiny, loras=(lora,))
    originals = sum(have[name].nbytes for name in (f"unet.{ATTENTION}.weight", text_name(have)))
    with pytest.raises(SettingsError, match="the LoRAs stay as they were; close what else"):
        host.check_switch(wanted, have, {}, originals)
    host.check_switch(wanted, have, {}, 4 * originals)
    kept = {name: have[name] for name in (f"unet.{ATTENTION}.weight", text_name(have))}
    host.check_switch(wanted, have, kept, 3 * originals)  # nothing is added to them
    host.check_switch(chosen(tiny), have, kept, 0)
    with pytest.raises(SettingsError):  # TensorRT is handed all that changes
        host.check_switch(chosen(tiny, runtime=Runtime.TENSORRT), have, kept, originals - 1)


def text_name(names: Any) -> str:
    (name,) = (one for one in names if one.endswith("layers.0.self_attn.q_proj.weight"))
    return str(name)


def test_a_refused_switch_changes_nothing(tiny: Path, lora: Lora, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(chosen(tiny), Look("ink"))
    before = {name: tensor.clone() for name, tensor in engine._model.weights.items()}
    monkeypatch.setattr(host, "free_ram", lambda: 100)
    with pytest.raises(SettingsError, match=r"needs 0.0 MB of RAM, but 0.0 MB are free"):
        engine.use_loras((lora,))
    assert all(torch.equal(before[name], tensor) for name, tensor in engine._model.weights.items())
    assert (engine.settings.loras, engine._model.originals) == ((), {})
    monkeypatch.setattr(host, "free_ram", lambda: GB)
    engine.use_loras((lora,))
    monkeypatch.setattr(host, "free_ram", lambda: 0)
    engine.use_loras(())  # back is always free
    assert all(torch.equal(before[name], tensor) for name, tensor in engine._model.weights.items())


# ---------------------------------------------------------------------------------------------------- engines are built


def test_building_takes_more_than_the_weights_in_ram_and_two_of_them_on_the_disk(tiny: Path) -> None:
    nets = bytes_of(tiny, "unet", "vae")
    wanted = host.building(as_given(chosen(tiny, device="cuda", runtime=Runtime.TENSORRT)))
    assert wanted.ram > 4 * nets
    assert 2 * nets < wanted.disk < 3 * nets + 200_000_000
    assert wanted.ram >= host.loading(as_given(chosen(tiny, device="cuda"))).needed


def test_a_build_that_does_not_fit_is_refused_with_where_and_how_much(tiny: Path) -> None:
    given, folder = chosen(tiny, runtime=Runtime.TENSORRT), Path("cache") / "engines"
    wanted = host.building(as_given(given))
    assert host.check_building(as_given(given), wanted.ram, wanted.disk, folder) == wanted
    with pytest.raises(SettingsError, match=r"needs about [\d.]+ GB of RAM, but [\d.]+ GB are free; .*--runtime comp"):
        host.check_building(as_given(given), wanted.ram - 1, wanted.disk, folder)
    with pytest.raises(SettingsError, match=r"about [\d.]+ GB in cache.engines, but 7.0 MB are free there; .*vcam eng"):
        host.check_building(as_given(given), wanted.ram, 7_000_000, folder)


def test_no_minutes_are_spent_on_a_build_that_does_not_fit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt_stand_in.module())
    monkeypatch.setattr(readiness, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(models, "part", None)
    monkeypatch.setattr(engines, "free_disk", lambda cache: 1_000_000)
    with pytest.raises(SettingsError, match=r"in .*yet, but 1.0 MB are free there"):
        make_plan.build(for_plan(chosen(tiny, runtime=Runtime.TENSORRT)), silent)
    written = [path.name for path in (tmp_path / "not" / "yet").iterdir()]
    assert written == ["weights.json"], "no more than the hash by which a plan is looked for"


def test_free_disk_is_that_of_the_folder_to_be(tmp_path: Path) -> None:
    assert engines.free_disk(tmp_path / "a" / "b") == pytest.approx(engines.free_disk(tmp_path), rel=0.1)


# ------------------------------------------------------------------------------------------------------ what is free


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/user.slice/vcam.service\n")
    groups = tmp_path / "groups"
    inner = groups / "user.slice" / "vcam.service"
    inner.mkdir(parents=True)
    whole = host.free_ram(groups, tmp_path / "nowhere")
    assert whole > 100_000_000
    group(inner, "max", 10, 0)
    assert abs(host.free_ram(groups, own) - whole) < whole / 2
    group(inner.parent, 70_000_000, 50_000_000, 20_000_000)
    assert host.free_ram(groups, own) == 40_000_000  # pages of files are given back
    group(inner, 60_000_000, 50_000_000, 5_000_000)
    assert host.free_ram(groups, own) == 15_000_000


def group(folder: Path, limit: object, used: int, pages: int) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\nactive_file {pages // 2}\ninactive_file {pages - pages // 2}\n")


# ----------------------------------------------------------------------------------------------------- as it really is


_LOAD = """
import json, sys
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel
from core.models import host_memory as host, loading as models
from core.models.description import describe
from core.models.resolved import Resolved
from core.settings import EngineSettings, Lora, Runtime

def status():
    lines = (line.split() for line in open("/proc/self/status"))
    return {line[0]: int(line[1]) * 1024 for line in lines if line[0] in ("VmHWM:", "VmRSS:", "RssAnon:")}

folder, dtype, *loras = sys.argv[1:]
own = describe(folder)
chosen = EngineSettings(folder, width=256, height=256, steps=1, device="cpu", dtype=dtype, runtime=Runtime.EAGER,
                        loras=tuple(Lora(one) for one in loras))
told = host.loading(Resolved(own, chosen))
before = status()
with models.quiet():
    loaded = models.load_parts(Resolved(own, chosen))
after = status()
print(json.dumps({"told": told._asdict(), "peak": after["VmHWM:"] - before["VmRSS:"],
                  "kept": after["RssAnon:"] - before["RssAnon:"]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
@pytest.mark.parametrize(("dtype", "with_loras"), [("float32", False), ("bfloat16", False), ("float32", True)])
def test_loading_sd_15_takes_what_was_told(tmp_path: Path, dtype: str, *, with_loras: bool) -> None:
    """Full shapes, float16 files: the peak of a process of its own is not over what is told, nor far below."""
    folder = make_full_shapes(tmp_path / "sd15")
    given = [str(random_lora(folder, tmp_path / "all.safetensors"))] if with_loras else []
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(folder), dtype, *given], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] <= found["told"]["shown"] <= 1.3 * found["peak"], found
    assert found["kept"] <= found["told"]["needed"], found
