"""Run a model folder through stock diffusers parts: what the sheet and the check look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from core.algorithm.detail import Detail
from training.data import Picture
from training.parts import (
    AutoencoderTiny,
    CLIPTextModel,
    LCMScheduler,
    PreTrainedTokenizerFast,
    Scheduler,
    Text,
    Unet,
    UNet2DConditionModel,
    Vae,
    Words,
)
from training.teachers import balance


class Parts(NamedTuple):
    """All that a model folder holds. evens: whether the light of a picture is evened out before it is given."""

    text: Text
    tokenizer: Words
    unet: Unet
    vae: Vae
    scheduler: Scheduler
    detail: Detail | None = None
    evens: bool = False

    def given(self, picture: Picture) -> Picture:
        """The picture as the network is given it, 0..1."""
        return balance(picture) if self.evens else picture


def detail_of(folder: Path) -> Detail | None:
    """The folder's detail stage, if it has one."""
    path = folder / "detail" / "model.safetensors"
    if not path.exists():
        return None
    net = Detail()
    net.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return net.eval()


def load(folder: Path) -> Parts:
    """Each part by its own stock `from_pretrained`, in float32."""
    return Parts(
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        UNet2DConditionModel.from_pretrained(folder / "unet").float().eval(),
        AutoencoderTiny.from_pretrained(folder / "vae").float().eval(),
        LCMScheduler.from_pretrained(folder / "scheduler"),
        detail_of(folder),
        bool(json.loads((folder / "streamv2v.json").read_text(encoding="utf-8")).get("local_exposure")),
    )


@torch.no_grad()
def translate(
    parts: Parts, picture: Picture, prompt: str, *, steps: int = 2, strength: float = 0.5, seed: int = 0
) -> Picture:
    """One picture (0..1, sides multiples of 16), without a bank."""
    random = torch.Generator().manual_seed(seed)
    ids = parts.tokenizer([prompt], padding="max_length", truncation=True, return_tensors="pt").input_ids
    words = parts.text(ids).last_hidden_state
    given = torch.from_numpy(np.ascontiguousarray(parts.given(picture))).permute(2, 0, 1)[None] * 2 - 1
    latent = parts.vae.encode(given).latents * parts.vae.config.scaling_factor
    parts.scheduler.set_timesteps(steps, original_inference_steps=50, strength=strength)
    noise = torch.randn(latent.shape, generator=random)
    latent = parts.scheduler.add_noise(latent, noise, parts.scheduler.timesteps[:1])
    clean = latent
    for timestep in parts.scheduler.timesteps:
        predicted = parts.unet(latent, timestep, words).sample
        latent, clean = parts.scheduler.step(predicted, timestep, latent, generator=random, return_dict=False)
    made = parts.vae.decode(clean / parts.vae.config.scaling_factor).sample[0]
    out: Picture = made.permute(1, 2, 0).add(1).div(2).clamp(0, 1).numpy()
    return sharpened(parts, out, picture)


@torch.no_grad()
def sharpened(parts: Parts, made: Picture, picture: Picture) -> Picture:
    """A translation with the detail of the picture that was translated; as it is without a detail stage."""
    if parts.detail is None:
        return made
    pair = [
        torch.from_numpy(np.ascontiguousarray(one)).permute(2, 0, 1)[None].float() * 2 - 1
        for one in (made, parts.given(picture))
    ]
    out: Picture = parts.detail(*pair)[0].permute(1, 2, 0).add(1).div(2).clamp(0, 1).numpy()
    return out
