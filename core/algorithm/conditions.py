"""What SDXL's UNet is told besides the words of a text: the pooled text, and sizes; as further rows of the same tensor.

So a text is one tensor for every kind of model: prompts blend, rows of a batch get theirs, and a graph has one input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KIND = "text_time"  # diffusers' addition_embed_type of a UNet that takes them
SIZES = 6  # numbers: the picture's height and width before it was cut, where it was cut, height and width after


class ToldText(NamedTuple):
    """A text taken apart: the words [rows, words, width], and diffusers' added_cond_kwargs, None for words alone."""

    words: Tensor
    added: dict[str, Tensor] | None


def pooled_width(unet: Mapping[str, Any]) -> int:
    """Return how many numbers of pooled text a UNet of that configuration takes: 0 where it takes only words."""
    if unet.get("addition_embed_type") != KIND:
        return 0
    return int(unet["projection_class_embeddings_input_dim"]) - SIZES * int(unet["addition_time_embed_dim"])


def further_rows(unet: Mapping[str, Any]) -> int:
    """Return how many rows of a text for a UNet of that configuration are no words."""
    pooled, width = pooled_width(unet), int(unet["cross_attention_dim"])
    return -(-(pooled + SIZES) // width) if pooled else 0


def joined(words: Tensor, pooled: Tensor, height: int, width: int) -> Tensor:
    """Return words [1, words, width] and pooled text [1, pooled] as one text, for pictures of height x width.

    Sizes are multiples of 16 up to 2048, which every dtype holds exactly.
    """
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=words.dtype, device=words.device)
    told = torch.cat([pooled.to(words.dtype), sizes], dim=1)
    rows = -(-told.shape[1] // words.shape[2])
    return torch.cat([words, F.pad(told, (0, rows * words.shape[2] - told.shape[1])).view(1, rows, -1)], dim=1)


def apart(text: Tensor, pooled: int) -> ToldText:
    """Take a text [rows, words and further rows, width] apart; pooled: `pooled_width` of the UNet that it is for."""
    if not pooled:
        return ToldText(text, None)
    count = -(-(pooled + SIZES) // text.shape[2])
    told = text[:, -count:].flatten(1)
    return ToldText(text[:, :-count], {"text_embeds": told[:, :pooled], "time_ids": told[:, pooled : pooled + SIZES]})
