"""Random LoRAs for the model of model_folders.make_folder, in the forms that people train them in."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.model_folders import weights

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
PROJECTION = "mid_block.attentions.0.proj_in"  # a convolution of 1x1
CONVOLUTION = "down_blocks.1.resnets.0.conv1"  # a convolution of 3x3
TEXT = "encoder.layers.0.self_attn.q_proj"


class Change(dict[str, tuple[Tensor, Tensor]]):
    """Layer -> (up, down) of a random LoRA of rank 2; text layers start with `encoder.`."""


def random_change(tiny: Path, seed: int, *layers: str) -> Change:
    shapes = {n: t.shape for n, t in load_file(weights(tiny, "unet")).items()}
    shapes |= {n.removeprefix("text_model."): t.shape for n, t in load_file(weights(tiny, "text_encoder")).items()}
    generator = torch.Generator().manual_seed(seed)
    change = Change()
    for layer in layers or (ATTENTION, OUT, PROJECTION, CONVOLUTION, TEXT):
        out, *rest = shapes[f"{layer}.weight"]
        up = torch.randn(out, 2, *[1] * (len(rest) - 1), generator=generator)
        change[layer] = up / 10, torch.randn(2, *rest, generator=generator) / 10
    return change


def kohya(change: Change, path: Path, alpha: float | None = None, text: str = "te") -> Path:
    tensors: dict[str, Tensor] = {}
    for layer, (up, down) in change.items():
        name = f"text_model_{layer}" if layer.startswith("encoder.") else layer
        key = f"lora_{text if layer.startswith('encoder.') else 'unet'}_{name.replace('.', '_')}"
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def diffusers_form(
    change: Change, path: Path, ends: tuple[str, str] = (".lora_B.weight", ".lora_A.weight"), **metadata: str
) -> Path:
    tensors: dict[str, Tensor] = {}
    for layer, (up, down) in change.items():
        key = f"text_encoder.text_model.{layer}" if layer.startswith("encoder.") else f"unet.{layer}"
        tensors |= {key + ends[0]: up, key + ends[1]: down}
    save_file(tensors, path, metadata or None)
    return path
