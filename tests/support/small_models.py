"""Small random UNets in float64 that have everything an SD 1.5-shaped one has: made in a moment, no downloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from core.algorithm import bank as banks
from core.algorithm.bank import Bank, Features
from core.settings import Policy

LATENT_CHANNELS = 4
POOLED = 12  # numbers of the pooled text that an SDXL-shaped UNet takes
LATENT_SIZE = 8
LATENT = (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
DEVICE = torch.device("cpu")
TEXT_TOKENS = 5
TEXT_WIDTH = 16


SDXL: dict[str, Any] = {  # SDXL's shape, small: three levels, stacks of blocks, and further conditions
    "sample_size": LATENT_SIZE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 16, 32),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 2),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 2, 4),  # heads, each of 8 channels at the lower two levels
    "cross_attention_dim": TEXT_WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + POOLED,
}


def small_unet(
    seed: int,
    *,
    last_up_attention: bool = True,
    like_embedded: bool = False,
    linear: bool = False,
    sdxl: bool = False,
) -> UNet2DConditionModel:
    """A random UNet: latents [*, 4, 8, 8], text [*, tokens, 16]; 64, 16, 4 and 1 tokens, 13 self-attention layers.

    last_up_attention=False makes the outermost blocks plain (`DownBlock2D`, `UpBlock2D`): 10 self-attention layers.
    like_embedded=True adds what the embedded model has: pooled text beside the timestep, and scale-shift norms.
    linear=True projects into and out of the transformers by linear layers, as SD 2 (sd-turbo) does.
    sdxl=True gives it SDXL's shape instead (`SDXL`): 64, 16 and 4 tokens, 11 self-attention layers.
    The weights are scaled so that attention is far from uniform and every layer matters to the result.
    """
    plain = not last_up_attention
    extra = {"addition_embed_type": "text", "addition_embed_type_num_heads": 2} if like_embedded else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = (
            UNet2DConditionModel(**SDXL)
            if sdxl
            else UNet2DConditionModel(
                sample_size=LATENT_SIZE,
                in_channels=LATENT_CHANNELS,
                out_channels=LATENT_CHANNELS,
                down_block_types=("DownBlock2D" if plain else "CrossAttnDownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
                up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D" if plain else "CrossAttnUpBlock2D",),
                block_out_channels=(16, 32, 32, 32),
                layers_per_block=1,
                norm_num_groups=8,
                attention_head_dim=(2, 4, 4, 4),  # the number of heads, in spite of its name
                cross_attention_dim=TEXT_WIDTH,
                resnet_time_scale_shift="scale_shift" if like_embedded else "default",
                use_linear_projection=linear,
                **extra,
            )
        )
        for name, weight in unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.data *= 3  # logits of about 3: some tokens matter, others do not
            elif name.endswith(("to_v.weight", "to_out.0.weight")):
                weight.data *= 1.7
            elif name.endswith("bias"):
                weight.data += 0.1 * torch.randn_like(weight)
    frozen: UNet2DConditionModel = unet.double().eval().requires_grad_(False)
    return frozen


def smallest_unet(seed: int) -> UNet2DConditionModel:
    """A random UNet of two levels, 4 self-attention layers: for what takes its time by the number of layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: UNet2DConditionModel = UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=TEXT_WIDTH,
        ).eval()
        return unet


def smallest_sdxl_unet(seed: int) -> UNet2DConditionModel:
    """A random UNet of SDXL's kind with one level and 2 self-attention layers: for what is exported."""
    levels = {
        "down_block_types": ("DownBlock2D",),
        "mid_block_type": None,
        "up_block_types": ("CrossAttnUpBlock2D",),
        "block_out_channels": (16,),
        "transformer_layers_per_block": (1,),
        "attention_head_dim": (2,),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: UNet2DConditionModel = UNet2DConditionModel(**SDXL | levels).eval()
        for name, weight in unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.data *= 3  # some tokens matter, others do not
        return unet


def moving_latents(seed: int, frames: int) -> list[torch.Tensor]:
    """Latents [4, 8, 8] of a picture that drifts and changes a little from frame to frame, as video does."""
    generator = torch.Generator().manual_seed(seed)
    size = LATENT_SIZE + frames
    scene = torch.randn(LATENT_CHANNELS, size, size, generator=generator, dtype=torch.float64)
    drift = torch.randn(LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator, dtype=torch.float64)
    return [scene[:, :LATENT_SIZE, i // 2 : i // 2 + LATENT_SIZE] + 0.03 * i * drift for i in range(frames)]


def random_text(seed: int) -> torch.Tensor:
    """A random text embedding [5, 16]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TEXT_TOKENS, TEXT_WIDTH, generator=generator, dtype=torch.float64)


def fixed_noise(seed: int, rows: int) -> torch.Tensor:
    """One fixed noise per denoising step, [rows, 4, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator, dtype=torch.float64)


def scaled_linear_alphas() -> torch.Tensor:
    """alphas_cumprod [1000] of Stable Diffusion 1.5 (scaled-linear betas from 0.00085 to 0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def updated(
    bank: Bank,
    seen: Features,
    positions: tuple[int, ...],
    ages: Sequence[int],
    *,
    policy: Policy,
    interval: int,
    seed: int,
) -> tuple[Bank, tuple[int, ...]]:
    """The bank and the positions after a call whose rows worked on frames of those ages."""
    groups = len(banks.merge_groups(banks.layout_of(bank)))
    kept = banks.Keeping(policy, interval, groups, spread=False)
    now = banks.next_update(banks.slot_count(bank), positions, ages, kept)
    return banks.apply_update(bank, seen, now, seed), now.positions
