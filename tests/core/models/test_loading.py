"""core.models.description, core.models.loading and core.models.loras: folders, what is wrong with them, and LoRA
files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.algorithm.frame import PictureDecoder, PictureEncoder
from core.engine import Engine
from core.errors import ModelError, SettingsError
from core.models.description import available, describe
from core.models.loading import LoadedParts, betas_schedule, load_parts
from core.runtimes.choice import resolve
from core.settings import EngineSettings, Look, Policy
from tests.support.model_folders import load_model, make_folder, settings, weights

pytestmark = pytest.mark.usefixtures("quick_layout")
PARTS = ("unet", "vae", "text_encoder")


def refused(folder: Path | str, call: Callable[[Any], object] = describe) -> str:
    """The one line of the error."""
    with pytest.raises(ModelError) as caught:
        call(str(folder) if call is describe else settings(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, part: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(weights(folder, part))
    change(tensors)
    save_file(tensors, weights(folder, part), {"format": "pt"})


def loaded_parts(chosen: EngineSettings) -> LoadedParts:
    return load_parts(resolve(chosen))


# ------------------------------------------------------------------------------------------------- what can be loaded


def test_the_names() -> None:
    assert available() == ["embedded", "sd-turbo", "sd15-lcm", "sdxl-turbo"]


@pytest.mark.parametrize("kl", [False, True])
def test_a_folder_of_either_vae_is_loaded(tmp_path: Path, kl: bool) -> None:
    loaded = loaded_parts(settings(make_folder(tmp_path / "model", kl=kl), width=80, height=112))
    assert loaded.latent == (4, 14, 10)
    picture = torch.randint(0, 256, (112, 80, 3), dtype=torch.uint8)
    latent = PictureEncoder(loaded.vae)(picture)
    assert latent.shape == (1, *loaded.latent)
    assert PictureDecoder(loaded.vae)(latent).shape == picture.shape
    assert PictureDecoder(loaded.vae)(latent).dtype == torch.uint8
    assert not any(p.requires_grad for module in (loaded.unet, loaded.vae) for p in module.parameters())


def test_the_vae_is_called_as_diffusers_calls_it(tmp_path: Path) -> None:
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = make_folder(tmp_path / "model", kl=True)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    processor = VaeImageProcessor()
    loaded = loaded_parts(settings(folder))
    with torch.no_grad():
        given = processor.preprocess(picture[None].astype(np.float32) / 255)
        expected = vae.encode(given).latent_dist.mode() * vae.config.scaling_factor
        latent = PictureEncoder(loaded.vae)(torch.from_numpy(picture))
        torch.testing.assert_close(latent, expected, atol=1e-5, rtol=1e-4)
        shown = processor.postprocess(vae.decode(latent / vae.config.scaling_factor).sample, output_type="np")
    assert np.abs(PictureDecoder(loaded.vae)(latent).numpy() - shown[0] * 255).max() < 0.51


@pytest.mark.parametrize("policy", Policy)
def test_the_bank_has_places_unless_it_is_off(tiny: Path, policy: Policy) -> None:
    layout = load_model(settings(tiny, policy=policy)).layout
    assert bool(layout) == (policy is not Policy.OFF)
    assert sum(name.endswith(".key") for name in layout) == (0 if policy is Policy.OFF else 13)


@pytest.mark.parametrize("part", PARTS)
def test_weights_of_a_variant_are_found(folder: Path, part: str) -> None:
    file = weights(folder, part)
    file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    load_model(settings(folder))


def test_plain_weights_go_before_a_variants(folder: Path) -> None:
    file = weights(folder, "unet")
    file.with_name(f"{file.stem}.fp16.safetensors").write_bytes(b"never read")
    load_model(settings(folder))


def test_a_text_encoder_with_projection_is_taken(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", architectures=["CLIPTextModelWithProjection"])
    load_model(settings(folder))


def test_model_index_is_not_needed_and_further_weights_do_not_matter(folder: Path) -> None:
    assert not (folder / "model_index.json").exists()
    change_weights(folder, "unet", lambda tensors: tensors.update(extra=torch.zeros(1)))
    load_model(settings(folder))


def test_nothing_is_printed(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(settings(tiny))
    assert capfd.readouterr() == ("", "")


def test_a_read_only_or_mirrored_picture_is_encoded(tiny: Path, recwarn: pytest.WarningsRecorder) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mirrored = picture[:, ::-1]
    first, again = (Engine(settings(tiny, steps=1), Look()).translate(given) for given in (mirrored, mirrored.copy()))
    assert first is not None
    assert again is not None
    assert np.array_equal(first, again)
    picture.setflags(write=False)
    assert Engine(settings(tiny, steps=1), Look()).translate(picture) is not None
    assert not [w for w in recwarn if "writ" in str(w.message)]


# ---------------------------------------------------------------------------------------------------- the description


def test_a_folder_without_description_has_the_papers_defaults(tiny: Path) -> None:
    own = describe(str(tiny))
    assert (own.name, own.schedule, own.width, own.steps, own.strength) == (str(tiny), "lcm", 512, 4, 0.4)
    assert (own.places, own.subtoken, own.fusion_strength, own.similarity_threshold) == (None, 1, 0.8, 0.98)
    assert (own.policy, own.slots, own.interval, own.words) == (Policy.MERGE, 1, 4, ())


def test_the_description_is_what_the_json_says(folder: Path) -> None:
    said = {
        "name": "Mine",
        "licence": "CC0",
        "schedule": "turbo",
        "width": 256,
        "height": 320,
        "steps": 1,
        "strength": 0.7,
        "text_to_image": False,
        "fusion": {"places": ["up_blocks.1"], "subtoken": 4, "strength": 0.5, "threshold": 0.9},
        "bank": {"policy": "fifo", "slots": 3, "interval": 2},
        "styles": ["ink"],
        "words": ["ink", "clay"],
    }
    (folder / "streamv2v.json").write_text(json.dumps(said))
    own = describe(str(folder))
    assert (own.name, own.licence, own.schedule, own.width, own.height) == ("Mine", "CC0", "turbo", 256, 320)
    assert (own.steps, own.strength, own.text_to_image) == (1, 0.7, False)
    assert (own.places, own.subtoken) == (("up_blocks.1",), 4)
    assert (own.fusion_strength, own.similarity_threshold) == (0.5, 0.9)
    assert (own.policy, own.slots, own.interval) == (Policy.FIFO, 3, 2)
    assert (own.styles, own.words) == (("ink",), ("ink", "clay"))


def test_trailing_spacing_means_turbo_unless_said_otherwise(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", timestep_spacing="trailing")
    assert describe(str(folder)).schedule == "turbo"
    (folder / "streamv2v.json").write_text('{"schedule": "lcm"}')
    assert describe(str(folder)).schedule == "lcm"


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("{", "JSON"),
        ("[]", "no JSON object"),
        ('{"width": "512"}', "width is '512'"),
        ('{"width": 500}', "multiple of 16"),
        ('{"height": null}', "height is None"),
        ('{"steps": 0}', "steps is 0"),
        ('{"strength": 7}', "strength is 7"),
        ('{"strength": NaN}', "strength is nan"),
        ('{"schedule": "euler"}', "lcm or turbo"),
        ('{"bank": {"interval": 0}}', "interval is 0"),
        ('{"bank": {"interval": 2.5}}', "interval is 2.5"),
        ('{"bank": {"slots": -1}}', "slots is -1"),
        ('{"bank": {"policy": "queue"}}', "'queue'"),
        ('{"bank": []}', "bank is []"),
        ('{"fusion": null}', "fusion is None"),
        ('{"fusion": {"places": "mid_block"}}', "fusion.places is 'mid_block'"),
        ('{"fusion": {"places": [3]}}', "fusion.places is [3]"),
        ('{"fusion": {"strength": -1}}', "strength is -1"),
        ('{"fusion": {"threshold": true}}', "threshold is True"),
        ('{"fusion": {"subtoken": 0}}', "fusion.subtoken is 0"),
        ('{"fusion": {"subtoken": true}}', "fusion.subtoken is True"),
        ('{"fusion": {"subtoken": 2.5}}', "fusion.subtoken is 2.5"),
        ('{"words": "abc"}', "words is 'abc'"),
        ('{"text_to_image": "false"}', "text_to_image is 'false'"),
        ('{"local_exposure": 1}', "local_exposure is 1"),
        ('{"name": 3}', "name"),
        ('{"strenght": 0.5, "Steps": 2}', "unknown key Steps, strenght"),
        ('{"fusion": {"place": []}, "bank": {"slot": 1}}', "unknown key bank.slot, fusion.place"),
    ],
)
def test_nonsense_in_the_description_is_named(folder: Path, said: str, named: str) -> None:
    (folder / "streamv2v.json").write_text(said)
    message = refused(folder)
    assert named in message
    assert "streamv2v.json" in message


@pytest.mark.parametrize(
    "place",
    [
        "mid_block.attentions.0.transformer_blocks.0.attn1",
        "up_blocks.1.attentions.0.transformer_blocks.0",
        "up_blocks.2",
    ],
)
def test_each_kind_of_place_can_be_named(folder: Path, place: str) -> None:
    (folder / "streamv2v.json").write_text(json.dumps({"fusion": {"places": [place]}}))
    layout = load_model(settings(folder)).layout
    assert [name for name in layout if name.endswith(".feature")] == [f"{place}.feature"]


def test_matches_between_tokens_need_up_blocks(folder: Path) -> None:
    (folder / "streamv2v.json").write_text('{"fusion": {"subtoken": 4}}')
    message = refused(folder, load_model)
    assert "fusion.subtoken: fusion place 'mid_block." in message
    (folder / "streamv2v.json").write_text('{"fusion": {"places": ["up_blocks.2"], "subtoken": 4}}')
    load_model(settings(folder))


def test_a_place_that_is_none_is_named(folder: Path) -> None:
    (folder / "streamv2v.json").write_text('{"fusion": {"places": ["mid_block"]}}')
    message = refused(folder, load_model)
    assert "streamv2v.json: fusion.places: fusion place 'mid_block' is none of" in message
    assert "cannot run" not in message


# ---------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("name", ["nope", "~nobody-here/x", "a" * 5000, "a\0b", "/dev/null"])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    message = refused(name)
    assert "embedded" in message
    assert repr(name) in message


@pytest.mark.parametrize("part", [*PARTS, "tokenizer"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert part in refused(folder)


def test_a_missing_scheduler_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    assert "scheduler_config.json" in refused(folder, load_model)


@pytest.mark.parametrize("part", PARTS)
def test_missing_weights_are_named_and_a_pickle_is_refused(folder: Path, part: str) -> None:
    file = weights(folder, part)
    file.rename(file.with_name("stranger.safetensors"))
    assert f"{part}: there are no weights" in refused(folder)
    (file.parent / "stranger.safetensors").unlink()
    assert f"{part}: there are no weights" in refused(folder)
    file.with_suffix(".bin").write_bytes(b"never opened")
    message = refused(folder)
    assert file.with_suffix(".bin").name in message
    assert "pickle" in message


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("text", ["{", "[]", "", '"unet"'])
def test_broken_json_is_named(folder: Path, part: str, text: str) -> None:
    (folder / part / "config.json").write_text(text)
    assert f"{part}/config.json" in refused(folder).replace("\\", "/")


def test_json_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "unet" / "config.json").write_bytes(b"\xff\xfe{}")
    assert "cannot be read as JSON" in refused(folder)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", [b"", b"x" * 1000, None])
def test_truncated_weights_are_named(folder: Path, part: str, content: bytes | None) -> None:
    file = weights(folder, part)
    file.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    assert f"{folder / part}" in refused(folder, load_model)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_weight_is_named(folder: Path, part: str) -> None:
    name = sorted(load_file(weights(folder, part)))[3]
    change_weights(folder, part, lambda tensors: tensors.pop(name))
    message = refused(folder, load_model)
    assert "1 weights are missing" in message
    assert name.removeprefix("text_model.") in message


@pytest.mark.parametrize("part", PARTS)
def test_a_weight_of_wrong_shape_is_refused(folder: Path, part: str) -> None:
    name = sorted(load_file(weights(folder, part)))[3]
    change_weights(folder, part, lambda tensors: tensors.update({name: torch.zeros(3, 5, 7)}))
    assert part in refused(folder, load_model)


@pytest.mark.parametrize(
    ("part", "values", "named"),
    [
        ("unet", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        ("unet", {"_class_name": None}, "must be UNet2DConditionModel"),
        ("vae", {"_class_name": "AutoencoderDC"}, "AutoencoderTiny or AutoencoderKL"),
        ("text_encoder", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("text_encoder", {"architectures": None}, "CLIPTextModel"),
    ],
)
def test_another_kind_of_part_is_named(folder: Path, part: str, values: dict[str, Any], named: str) -> None:
    edit(folder / part / "config.json", **values)
    assert named in refused(folder)


def rewritten_unet(folder: Path, **config: Any) -> None:
    """The folder with a random UNet of another configuration."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    old = UNet2DConditionModel.load_config(folder / "unet")
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel.from_config({**old, **config}).save_pretrained(folder / "unet")


def test_an_inpainting_model_is_refused(folder: Path) -> None:
    rewritten_unet(folder, in_channels=9)
    assert "inpainting" in refused(folder, load_model)


def test_text_of_another_width_is_refused(folder: Path) -> None:
    rewritten_unet(folder, cross_attention_dim=32)
    assert "cross_attention_dim is 32" in refused(folder, load_model)


def test_an_sdxl_like_unet_needs_a_second_text_encoder(folder: Path) -> None:
    time_ids = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    rewritten_unet(folder, **time_ids, projection_class_embeddings_input_dim=64)
    assert "text_encoder_2/config.json is missing" in refused(folder, load_model)


def test_other_further_conditions_are_refused(folder: Path) -> None:
    rewritten_unet(folder, addition_embed_type="image", encoder_hid_dim=8)
    assert "addition_embed_type is 'image': models with further conditions" in refused(folder, load_model)


def test_an_lcm_with_a_guidance_embedding_is_refused(folder: Path) -> None:
    rewritten_unet(folder, time_cond_proj_dim=32)
    assert "time_cond_proj_dim is 32: models with a guidance embedding" in refused(folder, load_model)


def test_a_unet_that_cannot_be_called_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")

    monkeypatch.setattr("core.algorithm.unet.layout", broken)
    said = "its UNet cannot run at latents of 8x8: mat1 and mat2 shapes cannot be multiplied"
    assert said in refused(folder, load_model)


def test_without_a_bank_nothing_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.algorithm.unet.layout", None)
    assert load_model(settings(folder, policy=Policy.OFF)).layout == {}


@pytest.mark.parametrize("text", ["{", "{}", None])
def test_a_broken_tokenizer_is_named(folder: Path, text: str | None) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    if text is None:
        shutil.rmtree(folder / "tokenizer")
        (folder / "tokenizer").mkdir()
    else:
        file.write_text(text)
    assert "tokenizer: cannot be loaded" in refused(folder, load_model)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"num_train_timesteps": -5}, "-5"),
        ({"num_train_timesteps": 20}, "20"),
        ({"num_train_timesteps": "x"}, "'x'"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "squaredcos_cap_v2"),
        ({"beta_start": float("nan")}, "nan"),
        ({"beta_end": 2}, "to 2"),
        ({"beta_start": None}, "scheduler_config.json"),
        ({"prediction_type": "flow"}, "flow"),
        ({"trained_betas": [0.1] * 1000}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_a_noise_schedule_that_is_none_is_named(folder: Path, values: dict[str, Any], named: str) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", **values)
    message = refused(folder, load_model)
    assert named in message
    assert "scheduler_config.json" in message


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_the_noise_schedule_is_that_of_diffusers(folder: Path, kind: str) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    edit(folder / "scheduler" / "scheduler_config.json", beta_schedule=kind)
    ours = betas_schedule(describe(str(folder))).alphas_cumprod
    theirs = DDIMScheduler(beta_schedule=kind, beta_start=0.00085, beta_end=0.012).alphas_cumprod
    torch.testing.assert_close(ours.float(), theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("device", ["warp-drive", "", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_a_setting_to_mend(tiny: Path, device: str) -> None:
    with pytest.raises(SettingsError, match="use cpu"):
        load_model(settings(tiny, device=device))


def test_a_size_that_the_vae_cannot_divide_is_refused(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    shutil.rmtree(folder / "vae")
    deep: dict[str, Any] = {f"{side}_block_out_channels": (8,) * 6 for side in ("encoder", "decoder")}
    deep |= {"num_encoder_blocks": (1,) * 6, "num_decoder_blocks": (1,) * 6}
    AutoencoderTiny(**deep).save_pretrained(folder / "vae")
    with pytest.raises(ModelError, match="multiples of 32; 80x64 is none"):
        load_model(settings(folder, width=80))
    assert load_model(settings(folder, width=96)).latent == (4, 2, 3)
