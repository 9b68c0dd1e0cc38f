"""LoRA files: read, matched with a model's layers, and added to the weights; safetensors in kohya and diffusers form.

W' = W + weight * alpha / rank * up @ down (LoRA, arXiv 2106.09685, section 4.1). Done here and not by peft: a layer
that the model does not have, which peft leaves out in silence, is an error, and no further package is needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.description import ModelError
from core.settings import Lora

# the ends of the keys of one layer: kohya's, diffusers' (peft), and diffusers' before peft
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight")
_DOWN = tuple(end.replace("up", "down").replace("lora_B", "lora_A") for end in _UP)
_ALPHA = (".lora.alpha", ".alpha")


class _Layer(NamedTuple):
    up: Tensor  # [out, rank] or [out, rank, 1, 1]
    down: Tensor  # [rank, in] or [rank, in, kernel, kernel]
    alpha: float  # the file's, or the rank


class Switch(NamedTuple):
    """What a change of LoRAs puts into a model.

    values: name -> the weight from now on, of its own dtype and place: fused, or as it was before any LoRA; what a
    refit of an engine takes. originals: name -> the weight without LoRAs, on the CPU, of all that they change now;
    kept, because subtracting what was added leaves a rounding behind.
    """

    values: dict[str, Tensor]
    originals: dict[str, Tensor]


def named_weights(unet: nn.Module, text_encoder: nn.Module) -> dict[str, Tensor]:
    """What a LoRA can change: `unet.` or `text_encoder.` and the part's own name -> the tensor that the part uses."""
    parts = (("unet", unet), ("text_encoder", text_encoder))
    return {
        f"{part}.{name}.weight": module.weight
        for part, model in parts
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


@torch.no_grad()
def fused(weights: Mapping[str, Tensor], loras: Sequence[Lora], bases: Mapping[str, Tensor] = {}) -> dict[str, Tensor]:
    """The weights that the LoRAs change, with them in: name -> tensor of the weight's dtype and place, which stays.

    weights: by named_weights' names, what the runtimes hold or a file's. bases: what to add to instead, where it is not
    the weight itself. Raises ModelError.
    """
    layers = {_layer_name(name.removesuffix(".weight")): name for name in weights}
    changes: dict[str, list[tuple[Path, _Layer, float]]] = {}
    for lora in loras:
        path = Path(lora.path)
        for layer, change in _read(path, layers.keys()).items():
            changes.setdefault(layers[layer], []).append((path, change, lora.weight))
    return {name: _fused(name, bases.get(name, weights[name]), added, weights[name]) for name, added in changes.items()}


@torch.no_grad()
def switch(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor], loras: Sequence[Lora]) -> Switch:
    """From the LoRAs of which `originals` was kept to these; changes nothing itself. Raises ModelError."""
    values = fused(weights, loras, originals)
    kept = {
        name: originals[name] if name in originals else weights[name].to("cpu", copy=True).detach() for name in values
    }
    restored = {name: original.to(weights[name]) for name, original in originals.items() if name not in values}
    return Switch(values | restored, kept)


@torch.no_grad()
def put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies the values over the weights, whose places in memory stay, so that a captured graph sees them."""
    for name, value in values.items():
        weights[name].copy_(value)


def _layer_name(stem: str) -> str:
    """A key without its end, as _targets names the layer."""
    name = stem.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"^(lora_|base_model_model_)", "", name)
    name = re.sub(r"^(text_encoder|te1?)_(text_model_)?", "te_", name)
    if not name.startswith(("unet_", "te")):
        name = f"unet_{name}"  # peft's own files hold one part and do not name it
    return re.sub(r"_to_out$", "_to_out_0", name)  # diffusers before peft


def _read(path: Path, known: Set[str]) -> dict[str, _Layer]:
    """The layers of a file, by _layer_name's names, all of which must be known."""
    if path.suffix != ".safetensors":
        raise ModelError(f"LoRA {path}: only .safetensors files are taken; pickled weights can run code")
    try:
        with safe_open(path.expanduser(), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise ModelError(f"LoRA {path}: there is no such file") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"LoRA {path}: cannot be read ({error}); fetch it again") from error
    ups, downs, alphas = ({}, {}, {})  # type: tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]
    for key, tensor in tensors.items():
        key = re.sub(r"\.lora_([AB])\.\w+\.weight$", r".lora_\1.weight", key)  # peft puts the adapter's name in
        for ends, found in ((_UP, ups), (_DOWN, downs), (_ALPHA, alphas)):
            end = next((end for end in ends if key.endswith(end)), None)
            if end is not None:
                found[_layer_name(key.removesuffix(end))] = tensor
                break
        else:
            raise ModelError(f"LoRA {path}: it holds {key}; only plain LoRAs are taken, no LoHa, LoKr or DoRA")
    strangers = sorted((ups.keys() | downs.keys() | alphas.keys()) - known)
    if strangers:
        raise ModelError(
            f"LoRA {path}: {len(strangers)} of its layers are not in this model, the first is {strangers[0]}; "
            "it was made for another kind of model"
        )
    if not ups or ups.keys() != downs.keys():
        raise ModelError(f"LoRA {path}: {len(ups)} up and {len(downs)} down weights; fetch it again")
    common = _common_alphas(path, metadata)
    return {
        name: _Layer(
            up.float(),
            downs[name].float(),
            float(alphas[name]) if name in alphas else common.get(name.partition("_")[0], float(downs[name].shape[0])),
        )
        for name, up in ups.items()
    }


def _common_alphas(path: Path, metadata: Mapping[str, str]) -> dict[str, float]:
    """`unet` and `te` -> the alpha of all layers, where diffusers wrote peft's configuration into the file."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        if any(value for key, value in config.items() if key.endswith(("alpha_pattern", "use_rslora", "use_dora"))):
            raise ModelError(f"LoRA {path}: alpha_pattern, use_rslora and use_dora are not supported")
        parts = (("unet", "unet"), ("te", "text_encoder"))
        return {part: float(config[key]) for part, owner in parts if (key := f"{owner}.lora_alpha") in config}
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"LoRA {path}: its lora_adapter_metadata cannot be read ({error})") from error


def _fused(name: str, base: Tensor, added: Sequence[tuple[Path, _Layer, float]], like: Tensor) -> Tensor:
    """The base with the changes added, rounded once; computed where `like` lies, in its dtype."""
    total = base.to(like.device, torch.promote_types(like.dtype, torch.float32)).flatten(1)  # [out, in*kernel]
    for path, layer, weight in added:
        rank = layer.down.shape[0]
        if layer.up.flatten(1).shape != (base.shape[0], rank) or layer.down[0].numel() != base[0].numel():
            raise ModelError(
                f"LoRA {path}: {name} is up {list(layer.up.shape)} and down {list(layer.down.shape)}, the model's "
                f"layer is {list(base.shape)}; it was made for another kind of model"
            )
        up, down = layer.up.flatten(1).to(total), layer.down.flatten(1).to(total)
        if not (up.isfinite().all() and down.isfinite().all() and math.isfinite(layer.alpha)):
            raise ModelError(f"LoRA {path}: {name} holds infinite or undefined numbers; fetch it again")
        total = torch.addmm(total, up, down, alpha=weight * layer.alpha / rank)
    return total.to(like.dtype).reshape(base.shape)
