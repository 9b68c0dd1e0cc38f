"""Folders of SDXL's and SD-Turbo's shapes: what stock diffusers makes of them, and the same on every runtime."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmarks import stock as stock_pipeline
from core.algorithm import conditions
from core.algorithm.bank import bank_bytes
from core.algorithm.net import Picture
from core.algorithm.unet import default_places, layout, self_attentions
from core.engine import Engine
from core.errors import ModelError
from core.measure.flops import frame_flops
from core.models import device_memory as memory
from core.models import host_memory as host
from core.models.catalogue import ENTRIES
from core.models.description import describe
from core.runtimes import compiled
from core.runtimes.choice import for_plan
from core.runtimes.onnx.export import export
from core.runtimes.tensorrt import readiness
from core.settings import EngineSettings, Guidance, Look, Lora, Policy, Runtime
from core.verify import ensure_plan
from tests.support import trt_stand_in
from tests.support.model_folders import (
    as_given,
    load_model,
    make_full_sdxl_shapes,
    make_sdxl_folder,
    make_turbo_folder,
    settings,
)
from tests.support.small_models import POOLED, TEXT_WIDTH, smallest_sdxl_unet

LOOK = Look("ink person", interval=2, similarity_threshold=0.3, steady=0.0)  # steadied, a level of rounding becomes two


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With graphs for the onnx runtime."""
    folder = make_sdxl_folder(tmp_path_factory.mktemp("sdxl") / "model", smallest_sdxl_unet(0))
    export(folder)
    return folder


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_turbo_folder(tmp_path_factory.mktemp("turbo") / "model")


def picture(number: int, size: int = 64) -> Picture:
    """Two waves that drift."""
    y, x = np.mgrid[:size, :size]
    waves = (np.sin((x + 3 * number) / 9), np.sin(y / 7 + number / 9), np.sin((x + y - number) / 11))
    return np.stack([(127.5 + 120 * wave).astype(np.uint8) for wave in waves], axis=-1)


def film(engine: Engine, frames: int = 7) -> list[Picture]:
    """What comes of a picture that drifts; the prompt changes in the midst."""
    shown = []
    for number in range(frames):
        if number == 4:
            engine.set_look(replace(LOOK, prompt="blue (clay:1.3)"), 2)
        shown.append(engine.translate(picture(number)))
    return [one for one in [*shown, *engine.drain()] if one is not None]


def furthest(some: list[Picture], others: list[Picture]) -> int:
    """The largest difference, in grey levels."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(some, others, strict=True))


def equals_eager(wanted: EngineSettings) -> None:
    ours, eager = (film(Engine(replace(wanted, runtime=one), LOOK)) for one in (wanted.runtime, Runtime.EAGER))
    assert furthest(ours, eager) <= 1  # a grey level, where rounding falls on either side
    assert furthest(eager[:1], eager[-1:]) > 10


# ---------------------------------------------------------------------------------------------------- stock diffusers


def stock(folder: Path) -> Any:
    library: Any = diffusers
    kind = library.StableDiffusionXLPipeline
    parts = {name: load_stock(folder, name) for name in ("unet", "vae", "text_encoder", "text_encoder_2")}
    tokenizers = {name: load_stock(folder, name) for name in ("tokenizer", "tokenizer_2")}
    return kind(**parts, **tokenizers, scheduler=library.LCMScheduler())


def load_stock(folder: Path, name: str) -> Any:
    library: Any = diffusers
    kinds: dict[str, Any] = {
        "unet": library.UNet2DConditionModel,
        "vae": library.AutoencoderTiny,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
        "tokenizer": transformers.PreTrainedTokenizerFast,
        "tokenizer_2": transformers.PreTrainedTokenizerFast,
    }
    return kinds[name].from_pretrained(folder / name)


@pytest.mark.parametrize("runtime", [Runtime.EAGER, Runtime.ONNX])
@pytest.mark.parametrize("prompt", ["ink person", "", "clay " * 20])
def test_a_prompt_becomes_what_diffusers_makes_of_it(sdxl: Path, runtime: Runtime, prompt: str) -> None:
    text = load_model(settings(sdxl, runtime=runtime, width=128, device="cpu")).encoder(prompt)
    words, _, pooled, _ = stock(sdxl).encode_prompt(prompt, do_classifier_free_guidance=False)
    told = conditions.apart(text, POOLED)
    assert told.added is not None
    torch.testing.assert_close(told.words, words, rtol=0, atol=1e-5)
    torch.testing.assert_close(told.added["text_embeds"], pooled, rtol=0, atol=1e-5)
    assert told.added["time_ids"].tolist() == [[64, 128, 0, 0, 64, 128]]


@pytest.mark.parametrize("kind", ["sdxl", "turbo"])
def test_without_a_bank_a_picture_is_stock_diffusers(kind: str, sdxl: Path, turbo: Path) -> None:
    folder = {"sdxl": sdxl, "turbo": turbo}[kind]
    engine = Engine(settings(folder, steps=1, policy=Policy.OFF, runtime=Runtime.EAGER, dtype="float32"), LOOK)
    shown = engine.translate(picture(0))
    model = engine._model
    unet, vae = (load_stock(folder, name) for name in ("unet", "vae"))
    told = conditions.apart(model.encoder(LOOK.prompt), POOLED if kind == "sdxl" else 0)
    alphas, timestep = model.schedule.alphas_cumprod, 499  # trailing, half of the noise
    noise = torch.randn(1, *model.latent, generator=torch.Generator().manual_seed(LOOK.seed))
    with torch.no_grad():
        latent = vae.encode(torch.from_numpy(picture(0)).permute(2, 0, 1)[None] / 127.5 - 1).latents
        noisy = alphas[timestep].sqrt() * latent + (1 - alphas[timestep]).sqrt() * noise
        noisy = noisy.float()
        found = unet(noisy, timestep, told.words, added_cond_kwargs=told.added).sample
        clean = (noisy - (1 - alphas[timestep]).sqrt() * found) / alphas[timestep].sqrt()
        values = vae.decode(clean.float()).sample[0].permute(1, 2, 0)
    expected = ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    assert shown is not None
    assert furthest([shown], [expected]) <= 1
    assert expected.std() > 5


@pytest.mark.parametrize("kind", ["sdxl", "turbo"])
def test_a_picture_is_what_stock_diffusers_pipeline_makes(kind: str, sdxl: Path, turbo: Path) -> None:
    """As `benchmarks/stock.py` compares them at full shape: text, noise and schedule are the pipeline's own."""
    folder = {"sdxl": sdxl, "turbo": turbo}[kind]
    given = settings(folder, steps=1, policy=Policy.OFF, runtime=Runtime.EAGER, dtype="float32", device="cpu")
    expected = stock_pipeline.stock(given)
    assert furthest([stock_pipeline.ours(given)], [expected]) <= 1
    assert ((expected > 0) & (expected < 255)).mean() > 0.1, "black and white alone: nothing is compared"


# ------------------------------------------------------------------------------------------------------ every runtime


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiled runtime by the backend that runs what was captured as it is."""
    monkeypatch.setattr(compiled, "load", partial(compiled.load, backend="eager"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT, by the stand-in for its library."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt_stand_in.module("10.16.1.11"))
    monkeypatch.setattr(readiness, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path))


@pytest.mark.parametrize("policy", Policy)
def test_onnx_shows_what_eager_shows(sdxl: Path, policy: Policy) -> None:
    guidance = Guidance.FULL if policy is Policy.FIFO else Guidance.NONE
    equals_eager(settings(sdxl, steps=2, policy=policy, guidance=guidance, runtime=Runtime.ONNX, dtype="float32"))


@pytest.mark.usefixtures("quick")
def test_compiled_shows_what_eager_shows(sdxl: Path) -> None:
    equals_eager(settings(sdxl, steps=2, policy=Policy.MERGE, runtime=Runtime.COMPILED, dtype="float64"))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_compiled_shows_of_sd_turbos_shape_what_eager_shows(turbo: Path) -> None:
    equals_eager(settings(turbo, steps=1, policy=Policy.FIFO, runtime=Runtime.COMPILED, dtype="float64"))


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_a_tensorrt_engine_shows_what_eager_shows(sdxl: Path, policy: Policy) -> None:
    wanted = settings(sdxl, steps=2, policy=policy, runtime=Runtime.TENSORRT, dtype="float32", device="cpu")
    ensure_plan(for_plan(wanted), lambda text, fraction: None)
    equals_eager(wanted)


@pytest.mark.parametrize("layer", ["text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", "unet.conv_in"])
def test_a_lora_changes_each_of_its_parts(sdxl: Path, tmp_path: Path, layer: str) -> None:
    part, _, name = layer.partition(".")
    prefix = {"unet": "lora_unet", "text_encoder_2": "lora_te2"}[part]
    engine = Engine(settings(sdxl, steps=1, policy=Policy.OFF, runtime=Runtime.EAGER, dtype="float32"), LOOK)
    weight = engine._model.weights[f"{layer}.weight"]
    before, plain = weight.clone(), engine.translate(picture(0))
    change = torch.randn(2, weight[0].numel()).reshape(2, *weight.shape[1:])
    tensors = {
        "lora_up.weight": torch.randn(weight.shape[0], 2, *[1] * (weight.dim() - 2)),
        "lora_down.weight": change,
    }
    file = tmp_path / "a.safetensors"
    save_file({f"{prefix}_{name.replace('.', '_')}.{end}": value for end, value in tensors.items()}, file)
    engine.use_loras((Lora(str(file), 1.0),))
    added = tensors["lora_up.weight"].flatten(1) @ change.flatten(1)
    torch.testing.assert_close(weight, before + added.reshape(before.shape), rtol=1e-4, atol=1e-4)
    changed = engine.translate(picture(0))
    assert plain is not None
    assert changed is not None
    assert furthest([plain], [changed]) > 1


def test_sdxls_own_autoencoder_does_not_overflow_in_float16(tmp_path: Path) -> None:
    folder = make_sdxl_folder(tmp_path / "model", smallest_sdxl_unet(0), kl=True)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_in.weight"] *= 3e4 / float(weights["decoder.conv_in.weight"].abs().max())
    weights["decoder.conv_in.bias"] *= 0
    save_file(weights, file, {"format": "pt"})
    given = settings(folder, steps=1, policy=Policy.OFF, runtime=Runtime.EAGER, device="cpu")
    half, whole = (Engine(replace(given, dtype=dtype), LOOK).translate(picture(0)) for dtype in ("float16", "float32"))
    assert half is not None
    assert whole is not None
    assert whole.std() > 1
    assert furthest([half], [whole]) <= 12
    sizes = [memory.need(as_given(replace(given, dtype=dtype))) for dtype in ("float16", "float32")]
    vae = sum(tensor.numel() for tensor in weights.values())
    assert 2 * sizes[0].weights - sizes[1].weights == 4 * vae


# --------------------------------------------------------------------------------------------- what a folder may lack


def without_second(folder: Path) -> None:
    (folder / "text_encoder_2" / "config.json").unlink()


def without_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer_2")


def changed_json(part: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_second, r"text_encoder_2/config\.json is missing"),
        (without_tokenizer, r"tokenizer_2/ is missing"),
        (changed_json("text_encoder_2", architectures=["CLIPTextModel"]), "it must be CLIPTextModelWithProjection"),
        (changed_json("text_encoder_2", auto_map={"AutoModel": "x"}), "auto_map names code"),
        (changed_json("text_encoder_2", projection_dim="x"), "projection_dim is 'x'"),
    ],
)
def test_what_a_folder_lacks_is_named(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    folder = make_sdxl_folder(tmp_path / "model", smallest_sdxl_unet(0))
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        load_model(settings(folder, runtime=Runtime.EAGER))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cross_attention_dim": TEXT_WIDTH // 2}, r"cross_attention_dim is 8, the text encoders' hidden_size 8 \+ 8"),
        ({"projection_class_embeddings_input_dim": 52}, "projection_class_embeddings_input_dim is 52 .*refiner"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path: Path, values: dict[str, int], said: str) -> None:
    folder = make_sdxl_folder(tmp_path / "model", smallest_sdxl_unet(0))
    library: Any = diffusers
    config = json.loads((folder / "unet" / "config.json").read_text())
    library.UNet2DConditionModel.from_config(config | values).save_pretrained(folder / "unet")
    with pytest.raises(ModelError, match=said):
        load_model(settings(folder, runtime=Runtime.EAGER))


# ------------------------------------------------------------------------------------------------ memory, full shape


def test_memory_counts_both_text_encoders(sdxl: Path) -> None:
    given = as_given(settings(sdxl, steps=2, device="cpu", dtype="float32", runtime=Runtime.EAGER))
    numbers = sum(tensor.numel() for path in sdxl.rglob("*.safetensors") for tensor in load_file(path).values())
    assert memory.need(given).weights == 4 * numbers
    assert memory.need(given).bank == Engine(given, LOOK).bank_bytes
    assert host.loading(given).needed > 4 * numbers
    assert frame_flops(given) > 0
    assert describe(str(sdxl)).parts == ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.mark.slow
def test_the_full_shape_has_sdxls_layers_and_its_default_fits_a_card_of_12_gb(tmp_path: Path) -> None:
    folder = make_full_sdxl_shapes(tmp_path / "model")
    library: Any = diffusers
    with torch.device("meta"):
        unet = library.UNet2DConditionModel.from_config(json.loads((folder / "unet" / "config.json").read_text()))
    assert round(sum(one.numel() for one in unet.parameters()) / 1e6) == 2567
    assert len(self_attentions(unet)) == 70
    places = default_places(unet)
    assert len(places) == 40
    assert {place.partition(".attentions")[0] for place in places} == {"mid_block", "up_blocks.0"}
    shapes = layout(unet.config, places, 64, 64)
    assert {shapes[f"{place}.feature"] for place in places} == {(256, 1280)}  # a quarter of the latents' side
    keys_and_values = {name: shape for name, shape in shapes.items() if not name.endswith(".feature")}
    assert round(bank_bytes(keys_and_values, 1, 1, torch.float16) / 1e6) == 105
    own = ENTRIES["sdxl-turbo"].own
    given = settings(folder, width=512, height=512, steps=own["steps"], policy=Policy.MERGE, runtime=Runtime.EAGER)
    assert 7.5e9 < memory.need(as_given(replace(given, device="cuda", dtype="float16"))).total < 9e9
