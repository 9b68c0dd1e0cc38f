"""LoRA files: read, matched with a model's layers, and added to the weights; safetensors in kohya and diffusers form.

W' = W + weight * alpha / rank * up @ down (LoRA, arXiv 2106.09685, section 4.1). Done here and not by peft: a layer
that the model does not have, which peft leaves out in silence, is an error, and no further package is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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


def fuse(unet: nn.Module, text_encoder: nn.Module, loras: Sequence[Lora]) -> None:
    """Add the LoRAs to the weights, in place. Raises ModelError."""
    targets = _targets(unet, text_encoder)
    for lora in loras:
        path = Path(lora.path)
        for name, layer in _read(path, targets).items():
            _add(path, name, targets[name], layer, lora.weight)


def _targets(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Module]:
    """What a LoRA can change: `unet_` or `te_` and the layer's name with all dots as underscores -> layer."""
    parts = (("unet", unet), ("te", text_encoder))
    return {
        # files speak of text_model.encoder, newer transformers of encoder
        f"{part}_{name.removeprefix('text_model.').replace('.', '_')}": module
        for part, model in parts
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _layer_name(stem: str) -> str:
    """A key without its end, as _targets names the layer."""
    name = stem.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"^(lora_|base_model_model_)", "", name)
    name = re.sub(r"^(text_encoder|te1?)_(text_model_)?", "te_", name)
    if not name.startswith(("unet_", "te")):
        name = f"unet_{name}"  # peft's own files hold one part and do not name it
    return re.sub(r"_to_out$", "_to_out_0", name)  # diffusers before peft


def _read(path: Path, targets: Mapping[str, nn.Module]) -> dict[str, _Layer]:
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
    strangers = sorted((ups.keys() | downs.keys() | alphas.keys()) - targets.keys())
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


def _add(path: Path, name: str, layer: nn.Module, lora: _Layer, weight: float) -> None:
    kernel = layer.weight
    assert isinstance(kernel, nn.Parameter)
    rank = lora.down.shape[0]
    if lora.up.flatten(1).shape != (kernel.shape[0], rank) or lora.down[0].numel() != kernel[0].numel():
        raise ModelError(
            f"LoRA {path}: {name} is up {list(lora.up.shape)} and down {list(lora.down.shape)}, the model's layer is "
            f"{list(kernel.shape)}; it was made for another kind of model"
        )
    change = weight * lora.alpha / rank * (lora.up.flatten(1) @ lora.down.flatten(1)).reshape(kernel.shape)
    if not change.isfinite().all():
        raise ModelError(f"LoRA {path}: {name} holds infinite or undefined numbers; fetch it again")
    kernel.data = (kernel.data.to(torch.promote_types(kernel.dtype, torch.float32)) + change).to(kernel.dtype)
