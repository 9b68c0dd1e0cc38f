"""The weights that a model's ONNX graphs name: mapped from its safetensors files, made float32 when they are asked for.

Each large weight is a mapping of its own, which is gone with its array: ONNX Runtime packs most weights anew, and lets
go of what it was given. So a model is in memory about once, whatever its files hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.models.description import header
from core.runtimes.folding import Chain, compose

_MAPPED: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_LEAST = 65_536  # bytes of a weight that is worth a mapping; a smaller one is read

Weights = dict[str, NDArray[Any]]


def weights_of(part: Path) -> Weights:
    """Return a part's weights by their names in its safetensors files, float16 or float32 as stored, else float32."""
    found: Weights = {}
    for file in sorted(part.glob("*.safetensors")):
        found |= _stored(file)
    return found


def _stored(file: Path) -> Weights:
    from safetensors import safe_open

    found: Weights = {}
    with safe_open(file, framework="pt") as stored:  # it checks the header
        told, base = header(file)
        for name in stored.keys():  # noqa: SIM118
            kind, shape = _MAPPED.get(told[name]["dtype"]), tuple(told[name]["shape"])
            if kind is not None and kind.itemsize * math.prod(shape) >= _LEAST:
                begin = base + told[name]["data_offsets"][0]
                found[name] = np.memmap(file, kind, mode="c", offset=begin, shape=shape)
            else:
                found[name] = stored.get_tensor(name).float().numpy().copy()
    return found


def in_float32(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return all of them in float32."""
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def folded_weights(chains: Mapping[str, Chain], weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return the weight and bias of each chain's one convolution, as `chain.weight` and `chain.bias`.

    Raises KeyError, RuntimeError where they do not fit the weights.
    """
    tensors = {name: torch.from_numpy(value) for name, value in in_float32(weights).items()}
    found = {name: compose(chain, tensors) for name, chain in chains.items()}
    return {
        f"{name}.{kind}": np.ascontiguousarray(value.numpy())
        for name, both in found.items()
        for kind, value in zip(("weight", "bias"), both, strict=True)
    }


def named(name: str, weights: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the weight that a graph names: `name`, `name.T` for the transpose, with `:AxBxC` for another shape.

    It is float32, if it is a float, and lies in one piece. Raises KeyError, ValueError.
    """
    whole, _, shape = name.partition(":")
    value = weights[whole] if whole in weights else weights[whole.removesuffix(".T")].T
    value = value.reshape([int(size) for size in shape.split("x")]) if shape else value
    kind = np.float32 if value.dtype == np.float16 else value.dtype  # a detail stage's may be bytes
    return np.require(value, kind, "C")
