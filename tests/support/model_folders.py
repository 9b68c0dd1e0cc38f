"""Small random models in diffusers' folder layout, SD 1.5-shaped: what a user's model folder looks like."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.random_model import SDXL_TURBO, carry_pictures, tokenizer
from core.algorithm import unet as unets
from core.algorithm.bank import Layout
from core.algorithm.stream import Step
from core.engine import Engine
from core.models.description import describe
from core.models.resolved import Resolved
from core.runtimes.choice import resolve
from core.runtimes.load import load
from core.runtimes.model import Model
from core.runtimes.parts import ModelParts, PartsStep
from core.settings import EngineSettings
from tests.support.small_models import POOLED, TEXT_WIDTH, small_unet

WORDS = ("ink", "clay", "red", "blue", "a", "person", "talking", "neon")
LENGTH = 8


def settings(folder: Path | str, **values: Any) -> EngineSettings:
    """Of an engine of that model, 64x64 where not told."""
    return EngineSettings(**{"model": str(folder), "width": 64, "height": 64, **values})


def weights(folder: Path, part: str) -> Path:
    """The part's one weights file."""
    (file,) = (folder / part).glob("*.safetensors")
    return file


@functools.cache
def _layout(config: str, places: tuple[str, ...] | None, height: int, width: int) -> Layout:
    return _real_layout(json.loads(config), places, height, width)


_real_layout = unets.layout


def layout_once(config: Any, places: tuple[str, ...] | None, height: int, width: int) -> Layout:
    """core.algorithm.unet.layout, but each only once: it takes most of the time in which a small model is loaded."""
    return _layout(json.dumps(dict(config)), places, height, width)


def as_given(settings: EngineSettings) -> Resolved:
    """Settings in which nothing is auto, resolved without a look at the machine."""
    return Resolved(describe(settings.model), settings, asked=settings.runtime, without_loras=settings.runtime)


def load_model(settings: EngineSettings) -> Model:
    """The model on the runtime that is chosen for it."""
    return load(resolve(settings))


def parts_of(engine: Engine) -> ModelParts:
    """The parts of an engine whose model's parts run apart."""
    steps: list[Step] = []

    def seen(step: Step) -> Step:
        steps.append(step)
        return step

    engine.wrap_step(seen)
    (step,) = steps
    assert isinstance(step, PartsStep)
    return step.parts


def replace_parts(engine: Engine, **parts: Any) -> None:
    """Put others in the place of some of them."""
    changed = PartsStep(parts_of(engine)._replace(**parts))
    engine.wrap_step(lambda step: changed)


def small_text_encoder(width: int, *, layers: int, heads: int) -> CLIPTextModel:
    """A random text encoder that knows WORDS, by torch's own random numbers."""
    return CLIPTextModel(_text_config(width, layers, heads))


def _text_config(width: int, layers: int, heads: int, pooled: int = POOLED) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        projection_dim=pooled,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )


def make_turbo_folder(folder: Path) -> Path:
    """SD-Turbo's shape: SD 2.1's linear projections, and a scheduler of trailing timesteps."""
    return _as_turbo(make_folder(folder, unet=small_unet(0, linear=True)))


def make_sdxl_folder(folder: Path, unet: torch.nn.Module | None = None, *, kl: bool = False) -> Path:
    """SDXL-Turbo's shape; its two tokenizers fill up with different words.

    unet: in the place of small_unet. kl: with an AutoencoderKL.
    """
    make_folder(folder, unet=small_unet(0, sdxl=True) if unet is None else unet, kl=kl)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = small_text_encoder(TEXT_WIDTH // 2, layers=3, heads=2)
        second = CLIPTextModelWithProjection(_text_config(TEXT_WIDTH // 2, layers=2, heads=4))
    first.save_pretrained(folder / "text_encoder")
    second.save_pretrained(folder / "text_encoder_2")
    other = tokenizer(WORDS, LENGTH)
    other.pad_token = "ink"
    other.save_pretrained(folder / "tokenizer_2")
    return _as_turbo(folder)


def _as_turbo(folder: Path) -> Path:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"timestep_spacing": "trailing"}))
    return folder


def make_folder(
    folder: Path,
    *,
    seed: int = 0,
    kl: bool = False,
    description: dict[str, object] | None = None,
    unet: torch.nn.Module | None = None,
    bare: bool = False,
) -> Path:
    """Writes a random model to the folder; its VAE is an AutoencoderTiny, or an AutoencoderKL with kl=True.

    unet: in the place of small_unet. bare: the AutoencoderTiny has no blocks at its outer levels, as the included
    model's, so that their convolutions can be folded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kl:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                norm_num_groups=4,
                latent_channels=4,
            )
        else:
            vae = AutoencoderTiny(
                encoder_block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                num_encoder_blocks=(0, 0, 1, 1) if bare else (1, 1, 1, 1),
                num_decoder_blocks=(1, 1, 1, 0) if bare else (1, 1, 1, 1),
                latent_channels=4,
            )
        text_encoder = small_text_encoder(TEXT_WIDTH, layers=2, heads=2)
    carry_pictures(vae)
    (small_unet(seed) if unet is None else unet).float().save_pretrained(folder / "unet")  # type: ignore[operator]
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer(WORDS, LENGTH).save_pretrained(folder / "tokenizer")
    LCMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    if description is not None:
        (folder / "streamv2v.json").write_text(json.dumps(description))
    return folder


def make_full_shapes(folder: Path) -> Path:
    """Writes a folder of the full shapes of Stable Diffusion 1.5 with TAESD, in float16; its numbers are all zero.

    They are holes in the files, which take no room on most disks.
    """
    unet = {
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    }
    return _full_shapes(folder, unet, {"text_encoder": CLIP_L})


def make_full_turbo_shapes(folder: Path) -> Path:
    """The same of SD-Turbo."""
    unet = {
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    }
    return _as_turbo(_full_shapes(folder, unet, {"text_encoder": {**CLIP_L, **CLIP_H}}))


def make_full_sdxl_shapes(folder: Path) -> Path:
    """The same of SDXL-Turbo."""
    return _as_turbo(
        _full_shapes(folder, SDXL_TURBO.unet, {"text_encoder": CLIP_L, "text_encoder_2": {**CLIP_L, **CLIP_G}})
    )


CLIP_L: dict[str, Any] = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}


def _full_shapes(folder: Path, unet: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]]) -> Path:
    library: Any = diffusers
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    with torch.device("meta"):
        nets = {"unet": library.UNet2DConditionModel(**unet), "vae": AutoencoderTiny()}
        encoders = {part: kinds[part](CLIPTextConfig(**config)) for part, config in texts.items()}
    for part, net in nets.items():
        net.save_config(folder / part)
        _holes(folder / part / "diffusion_pytorch_model.safetensors", net.state_dict())
    for part, encoder in encoders.items():
        encoder.config.architectures = [kinds[part].__name__]
        encoder.config.save_pretrained(folder / part)
        _holes(folder / part / "model.safetensors", encoder.state_dict())
        tokenizer(WORDS, LENGTH).save_pretrained(folder / part.replace("text_encoder", "tokenizer"))
    LCMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    return folder


def _holes(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """A safetensors file of those shapes in float16 whose numbers were never written."""
    header, end = {}, 0
    for name, tensor in state.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
