"""CLIP's text encoder in PyTorch alone, for who must show a picture soon: transformers takes seconds to be imported.

By the architecture (arXiv 2103.00020, section 2.4) and the names of the weights' files; the same as transformers'
CLIPTextModel and CLIPTextModelWithProjection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import ModelError
from core.models.folder_files import one_line, part_config
from core.models.stored_weights import StoredWeights

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
}
_OLD_END = 2  # an eos_token_id that no vocabulary of CLIP's has at its end: the end is the largest token then
_DEFAULTS: dict[str, Any] = {  # transformers' CLIPTextConfig's, for what a configuration leaves out
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_TOKENS, _PLACES = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"
_PROJECTION = "text_projection.weight"
_PREFIX = "text_model."  # of the names in the files of older versions of transformers


class EncodedText(NamedTuple):
    """What a text encoder makes of tokens. last: after all layers; before_last: after all but one; [1, words, width].

    pooled: [1, projection], None without a projection.
    """

    last: Tensor
    before_last: Tensor
    pooled: Tensor | None


class ClipText:
    """Encodes tokens, int64 [1, words]."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """config: a text encoder's; weights: by their names in the files, without a prefix. Raises KeyError."""
        known = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
        self._weights = weights
        self._layers, self._heads = int(known["num_hidden_layers"]), int(known["num_attention_heads"])
        self._activation, self._eps = _ACTIVATIONS[known["hidden_act"]], float(known["layer_norm_eps"])
        self._end = int(known["eos_token_id"])
        self.known, self.length = len(weights[_TOKENS]), len(weights[_PLACES])  # tokens

    def matrices(self) -> dict[str, Tensor]:
        """Return what LoRAs can change, by name."""
        ends = ("_proj.weight", ".fc1.weight", ".fc2.weight", _PROJECTION)
        return {name: value for name, value in self._weights.items() if name.endswith(ends)}

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> EncodedText:
        """See the class."""
        hidden = self._weights[_TOKENS][ids] + self._weights[_PLACES][: ids.shape[1]]
        before = hidden
        for layer in range(self._layers):
            before, hidden = hidden, self._layer(f"encoder.layers.{layer}.", hidden)
        last = self._normal("final_layer_norm", hidden)
        if _PROJECTION not in self._weights:
            return EncodedText(last, before, None)
        end = ids.argmax(dim=-1) if self._end == _OLD_END else (ids == self._end).int().argmax(dim=-1)  # the first
        return EncodedText(last, before, F.linear(last[torch.arange(ids.shape[0]), end], self._weights[_PROJECTION]))

    def _layer(self, name: str, hidden: Tensor) -> Tensor:
        normal = self._normal(f"{name}layer_norm1", hidden)
        # [1, heads, words, width/heads]
        query, key, value = (
            self._linear(f"{name}self_attn.{one}_proj", normal).view(*normal.shape[:2], self._heads, -1).transpose(1, 2)
            for one in ("q", "k", "v")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        hidden = hidden + self._linear(f"{name}self_attn.out_proj", mixed)
        inner = self._linear(f"{name}mlp.fc1", self._normal(f"{name}layer_norm2", hidden))
        return hidden + self._linear(f"{name}mlp.fc2", self._activation(inner))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normal(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self._eps)


def load_clip(folder: Path, name: str, dtype: torch.dtype, device: torch.device) -> ClipText:
    """Load a text encoder of a model's folder. Raises ModelError."""
    where = folder / name
    stored = StoredWeights(where, dtype)
    weights = {key.removeprefix(_PREFIX): stored[key].to(device) for key in stored}
    try:
        made = ClipText(part_config(folder, name), weights)
        made(torch.zeros(1, made.length, dtype=torch.int64, device=device))  # whether all fit together
    except (KeyError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{where}: the weights do not fit its config.json ({one_line(error)}); fetch the model again"
        ) from error
    return made
