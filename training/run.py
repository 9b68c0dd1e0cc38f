"""Run a model folder through stock diffusers parts: what the sheet and the check look at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

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


class Parts(NamedTuple):
    """All that a model folder holds."""

    text: Text
    tokenizer: Words
    unet: Unet
    vae: Vae
    scheduler: Scheduler


def load(folder: Path) -> Parts:
    """Each part by its own stock `from_pretrained`, in float32."""
    return Parts(
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        UNet2DConditionModel.from_pretrained(folder / "unet").float().eval(),
        AutoencoderTiny.from_pretrained(folder / "vae").float().eval(),
        LCMScheduler.from_pretrained(folder / "scheduler"),
    )


@torch.no_grad()
def translate(
    parts: Parts, picture: Picture, prompt: str, *, steps: int = 2, strength: float = 0.5, seed: int = 0
) -> Picture:
    """One picture (0..1, sides multiples of 16), without a bank."""
    random = torch.Generator().manual_seed(seed)
    ids = parts.tokenizer([prompt], padding="max_length", truncation=True, return_tensors="pt").input_ids
    words = parts.text(ids).last_hidden_state
    given = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] * 2 - 1
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
    return out
