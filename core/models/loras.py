"""LoRA files: read, matched with a model's layers, and added to the weights; safetensors in kohya and diffusers form.

W' = W + weight * alpha / rank * up @ down (LoRA, arXiv 2106.09685, section 4.1). Done here and not by peft: a layer
that the model does not have, which peft leaves out in silence, is an error, and no further package is needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.errors import ModelError
from core.settings import Lora

# the ends of the keys of one layer: kohya's, diffusers' (peft), and diffusers' before peft
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight")
_DOWN = tuple(end.replace("up", "down").replace("lora_B", "lora_A") for end in _UP)
_ALPHA = (".lora.alpha", ".alpha")


class _Layer(NamedTuple):
    up: Tensor  # [out, rank] or [out, rank, 1, 1]
    down: Tensor  # [rank, in] or [rank, in, kernel, kernel]
    alpha: float  # the file's, or the rank


class _Added(NamedTuple):
    """What one file adds to a weight."""

    layer: _Layer
    weight: float


class Values(Mapping[str, Tensor]):
    """New weights by name, each made when it is asked for: a model's worth of them is never held at once."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        with torch.no_grad():
            return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Switch(NamedTuple):
    """What a change of LoRAs puts into a model.

    values: name -> the weight from now on, of its own dtype and place: fused, or as it was before any LoRA; what a
    refit of an engine takes. originals: name -> the weight without LoRAs, on the CPU, of all that they change now;
    kept, because subtracting what was added leaves a rounding behind.
    """

    values: Values
    originals: dict[str, Tensor]


def named_weights(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return what a LoRA can change: the part's name (unet, text_encoder, ...) and its own -> the tensor in use."""
    return {
        f"{part}.{name}.weight": module.weight
        for part, model in parts.items()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def changed(names: Iterable[str], loras: Sequence[Lora]) -> set[str]:
    """Return those of named_weights' names whose weights the LoRAs change, by the headers of their files.

    Layers that are not among the names are left out here; `switch` refuses them. Raises ModelError.
    """
    layers = {layer for lora in loras for layer in _keys(Path(lora.path))}
    return {name for name in names if _layer_name(name.removesuffix(".weight")) in layers}


def fused(weights: Mapping[str, Tensor], loras: Sequence[Lora]) -> Values:
    """Return the weights that the LoRAs change, with the LoRAs added, in new tensors of the same dtype and device.

    weights: by named_weights' names, what the runtimes hold or a file's. Raises ModelError.
    """
    return Values(_makers(weights, _added(weights, loras), weights))


@torch.no_grad()
def switch(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor], loras: Sequence[Lora]) -> Switch:
    """From the LoRAs of which `originals` was kept to these; changes nothing itself. Raises ModelError."""
    added = _added(weights, loras)
    kept = {
        name: originals[name] if name in originals else weights[name].to("cpu", copy=True).detach() for name in added
    }
    restored = {name: partial(one.to, weights[name]) for name, one in originals.items() if name not in added}
    return Switch(Values({**_makers(kept, added, weights), **restored}), kept)


def _added(weights: Mapping[str, Tensor], loras: Sequence[Lora]) -> dict[str, list[_Added]]:
    """Return what the LoRAs add to each weight, all shapes checked. Raises ModelError."""
    layers = {_layer_name(name.removesuffix(".weight")): name for name in weights}
    added: dict[str, list[_Added]] = {}
    for lora in loras:
        path = Path(lora.path)
        for layer, change in _read(path, layers.keys()).items():
            name = layers[layer]
            _check(path, name, change, weights[name])
            added.setdefault(name, []).append(_Added(change, lora.weight))
    return added


def _makers(
    bases: Mapping[str, Tensor], added: Mapping[str, Sequence[_Added]], weights: Mapping[str, Tensor]
) -> dict[str, Callable[[], Tensor]]:
    return {name: partial(_fused, bases[name], changes, weights[name]) for name, changes in added.items()}


@torch.no_grad()
def put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy the values into the weights, which stay where they are in memory, so that a captured graph sees them."""
    for name, value in values.items():
        weights[name].copy_(value)


def _layer_name(stem: str) -> str:
    """Return the name that every form of LoRA file gets for a layer, by a key without its end."""
    name = stem.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"^(lora_|base_model_model_)", "", name)
    name = re.sub(r"^(text_encoder_2|te2)_(text_model_)?", "te2_", name)
    name = re.sub(r"^(text_encoder|te1?)_(text_model_)?", "te_", name)
    if not name.startswith(("unet_", "te")):
        name = f"unet_{name}"  # peft's own files hold one part and do not name it
    name = re.sub(r"_to_out$", "_to_out_0", name)  # diffusers before peft
    return re.sub(r"^unet_(input_blocks|middle_block|output_blocks)_([\d_]+?)_?([a-z].*)$", _as_diffusers, name)


_RESNET = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _as_diffusers(match: re.Match[str]) -> str:
    """Return diffusers' name of a layer that is called as in SDXL's first code, as kohya's LoRAs for SDXL call them.

    There all blocks of one way are counted through, three to a level (two layers, then what halves or doubles), and
    in each: its residual layer, its attention.
    """
    way, (block, *inner), layer = match[1], [int(one) for one in match[2].split("_")], match[3]
    if way == "middle_block":
        place = f"mid_block_{'attentions_0' if block == 1 else f'resnets_{block // 2}'}"
    elif layer == "op":
        return f"unet_down_blocks_{(block - 1) // 3}_downsamplers_0_conv"
    elif layer == "conv":
        return f"unet_up_blocks_{block // 3}_upsamplers_0_conv"
    else:
        side, at = ("down", block - 1) if way == "input_blocks" else ("up", block)
        place = f"{side}_blocks_{at // 3}_{'attentions' if inner == [1] else 'resnets'}_{at % 3}"
    return f"unet_{place}_{_RESNET.get(layer, layer)}"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the file; its tensors stay on the disk until they are used. Raises ModelError."""
    if path.suffix.lower() != ".safetensors":
        raise ModelError(f"LoRA {path}: only .safetensors files are taken; pickled weights can run code")
    try:
        full = path.expanduser()
    except RuntimeError as error:
        raise ModelError(
            f"LoRA {path}: cannot be read: there is no home folder of that user; write the full path"
        ) from error
    try:
        with safe_open(full, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"LoRA {path}: there is no such file") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"LoRA {path}: cannot be read ({error}); fetch it again") from error


def _keys(path: Path) -> dict[str, dict[str, str]]:
    """Return for each layer, by _layer_name's names, the keys of its `up`, `down` and `alpha` in the file."""
    found: dict[str, dict[str, str]] = {}
    with _opened(path) as file:
        keys = list(file.keys())
    for given in keys:
        key = re.sub(r"\.lora_([AB])\.\w+\.weight$", r".lora_\1.weight", given)  # peft puts the adapter's name in
        for ends, kind in ((_UP, "up"), (_DOWN, "down"), (_ALPHA, "alpha")):
            end = next((end for end in ends if key.endswith(end)), None)
            if end is not None:
                found.setdefault(_layer_name(key.removesuffix(end)), {})[kind] = given
                break
        else:
            raise ModelError(f"LoRA {path}: it holds {given}; only plain LoRAs are taken, no LoHa, LoKr or DoRA")
    return found


def _read(path: Path, known: Set[str]) -> dict[str, _Layer]:
    """Read the layers of a file, by _layer_name's names. Raises ModelError where one is not among `known`."""
    layers = _keys(path)
    if strangers := sorted(layers.keys() - known):
        raise ModelError(
            f"LoRA {path}: {len(strangers)} of its layers are not in this model, the first is {strangers[0]}; "
            "it was made for another kind of model"
        )
    ups, downs = ({name for name, keys in layers.items() if kind in keys} for kind in ("up", "down"))
    if not ups or ups != downs:
        raise ModelError(f"LoRA {path}: {len(ups)} up and {len(downs)} down weights; fetch it again")
    with _opened(path) as file:
        tensors = {key: _computable(file.get_tensor(key)) for keys in layers.values() for key in keys.values()}
        metadata = file.metadata() or {}
    common = _common_alphas(path, metadata)
    read = {}
    for name in ups:
        keys = layers[name]
        up, down = tensors[keys["up"]], tensors[keys["down"]]
        rank = float(down.shape[0])
        alpha = float(tensors[keys["alpha"]]) if "alpha" in keys else common.get(name.partition("_")[0], rank)
        read[name] = _Layer(up, down, alpha)
    return read


def _computable(tensor: Tensor) -> Tensor:
    """Return the tensor, of float8 (with which PyTorch does not compute) as float16, which holds each exactly."""
    return tensor.half() if tensor.is_floating_point() and tensor.dtype.itemsize == 1 else tensor


def _common_alphas(path: Path, metadata: Mapping[str, str]) -> dict[str, float]:
    """`unet` and `te` -> the alpha of all layers, where diffusers wrote peft's configuration into the file."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        if any(value for key, value in config.items() if key.endswith(("alpha_pattern", "use_rslora", "use_dora"))):
            raise ModelError(f"LoRA {path}: alpha_pattern, use_rslora and use_dora are not supported")
        parts = (("unet", "unet"), ("te", "text_encoder"), ("te2", "text_encoder_2"))
        return {part: float(config[key]) for part, owner in parts if (key := f"{owner}.lora_alpha") in config}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"LoRA {path}: its lora_adapter_metadata cannot be read ({error})") from error


def _check(path: Path, name: str, layer: _Layer, weight: Tensor) -> None:
    """Raise ModelError unless the layer can be added to the weight."""
    up, down, alpha = layer
    if up.flatten(1).shape != (weight.shape[0], down.shape[0]) or down[0].numel() != weight[0].numel():
        raise ModelError(
            f"LoRA {path}: {name} is up {list(up.shape)} and down {list(down.shape)}, the model's "
            f"layer is {list(weight.shape)}; it was made for another kind of model"
        )
    if not (up.isfinite().all() and down.isfinite().all() and math.isfinite(alpha)):
        raise ModelError(f"LoRA {path}: {name} holds infinite or undefined numbers; fetch it again")


def _fused(base: Tensor, added: Sequence[_Added], like: Tensor) -> Tensor:
    """Return the base with the changes added and rounded once, on the device and in the dtype of `like`."""
    total = base.to(like.device, torch.promote_types(like.dtype, torch.float32)).flatten(1)  # [out, in*kernel]
    for layer, weight in added:
        up, down = layer.up.flatten(1).to(total), layer.down.flatten(1).to(total)
        total = torch.addmm(total, up, down, alpha=weight * layer.alpha / layer.down.shape[0])
    return total.to(like.dtype).reshape(base.shape)
