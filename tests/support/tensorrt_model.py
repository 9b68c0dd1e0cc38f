"""A model so small that a TensorRT engine of it is exported in seconds, and a LoRA for it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

from tests.support.small_models import TEXT_WIDTH

PLACES = ["mid_block.attentions.0.transformer_blocks.0.attn1", "up_blocks.0"]


def tiny_unet() -> UNet2DConditionModel:
    """Three self-attention layers: an export takes seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            block_out_channels=(16,),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=TEXT_WIDTH,
        )
        for name, weight in unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.data *= 3  # some tokens matter, others do not
    made: UNet2DConditionModel = unet
    return made


def lora_file(path: Path) -> Path:
    """A LoRA of the middle's projections, of what the text becomes there, and of a convolution."""
    generator = torch.Generator().manual_seed(3)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    tensors: dict[str, tuple[int, ...]] = {f"{layer}.lora_up.weight": (16, 4), f"{layer}.lora_down.weight": (4, 16)}
    text = layer.replace("attn1", "attn2")
    tensors |= {f"{text}.lora_up.weight": (16, 4), f"{text}.lora_down.weight": (4, TEXT_WIDTH)}
    conv = "lora_unet_conv_in"
    tensors |= {f"{conv}.lora_up.weight": (16, 4, 1, 1), f"{conv}.lora_down.weight": (4, 4, 3, 3)}
    save_file({name: torch.randn(shape, generator=generator) for name, shape in tensors.items()}, path)
    return path
