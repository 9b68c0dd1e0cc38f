"""The detail stage's weights in 8 bits, worked out from its own when a session starts.

Features are bytes between the least and the greatest that training saw at each point; weights are whole numbers of at
most 63, one scale for each filter, so that no processor's sums of two products overflow its 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.algorithm.detail import GREYS, POINTS, PRESENT, knots

GREATEST = 63
GREY = 128  # the byte that stands for 0 in a picture of -1..1
PICTURE = "picture"
LEAVING = 8  # numbers that the last layer gives for two pixels beside each other: RGB, RGB, and two for nothing

Arrays = dict[str, NDArray[Any]]

_CONVS = {  # layer: the point that it sees
    "to_half": "enter",
    "to_quarter": "to_half",
    "to_eighth": "to_quarter",
    "eighth.0": "to_eighth",
    "eighth.1": "after.0",
    "quarter": "joined",
    "full": "gated_full",
}
_ABOVE = {  # layers whose outcome is shown twice as large
    "from_eighth": "whole",
    "gain_half": "after.quarter",
    "shift_half": "after.quarter",
    "gain_full": "gated_half",
    "shift_full": "gated_half",
}


def in_eight_bits(weights: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Return what core.runtimes.onnx.detail_graph names, of a detail stage's weights.

    A point gives `point.scale` and `point.zero`, a layer `layer.bytes`, `layer.scales`, `layer.zeros` and `layer.sums`.
    Raises KeyError, ValueError.
    """
    scales = {PICTURE: (np.float32(1 / 127.5), GREY)}
    for point, pair in zip(POINTS, weights["ranges"].astype(np.float32), strict=True):
        low, high = min(float(pair.min()), 0.0), max(float(pair.max()), 0.0)
        scale = np.float32(max(high - low, 1e-4) / 255)
        scales[point] = (scale, round(-low / float(scale)))
    found: Arrays = {}
    for point, (scale, zero) in scales.items():
        found |= {f"{point}.scale": np.array(scale), f"{point}.zero": np.array(zero, np.uint8)}
    # what leaves is added to a picture of bytes: levels
    found["leave.levels"] = np.array(scales["leave"][0] * np.float32(127.5))
    layers = {name: (_weight(weights, name), weights[f"{name}.bias"], seen) for name, seen in _CONVS.items()}
    for name, seen in _ABOVE.items():
        # each pixel's numbers twice: two pixels beside each other
        layers[name] = (np.tile(_weight(weights, name), (2, 1, 1, 1)), np.tile(weights[f"{name}.bias"], 2), seen)
    layers["enter"] = (*_entering(_weight(weights, "enter"), weights["enter.bias"]), PICTURE)
    layers["leave"] = (*_leaving(_weight(weights, "leave"), weights["leave.bias"]), "full")
    for name, (weight, bias, seen) in layers.items():
        found |= _layer(name, weight, bias, float(scales[seen][0]))
    bias = weights["whole.2.bias"].copy()
    bias[: len(bias) // 2] += 1  # the gain's: what it multiplies stays as it is at 0
    return found | {"whole.2.gain_bias": bias} | _tones()


def _tones() -> Arrays:
    """Return the numbers that core.algorithm.detail.ToneCurve has of itself."""
    plain = {"step": 1 / 127.5, "one": 1, "some.least": PRESENT, "least": 0, "most": 255}
    numbers: Arrays = {f"tones.{name}": np.array(value, np.float32) for name, value in plain.items()}
    return numbers | {"tones.knots": knots().numpy(), "tones.greys": np.array(GREYS, np.float32)[:, None]}


def _weight(weights: Mapping[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    return weights[f"{name}.weight"]


def _layer(name: str, weight: NDArray[np.float32], bias: NDArray[np.float32], seen: float) -> Arrays:
    scales = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-6).astype(np.float32) / np.float32(GREATEST)
    return {
        f"{name}.bytes": np.round(weight / scales[:, None, None, None]).astype(np.int8),
        f"{name}.scales": scales,
        f"{name}.zeros": np.zeros(len(scales), np.int8),
        f"{name}.sums": np.clip(np.round(bias / (seen * scales)), -(2**30), 2**30).astype(np.int32),
    }


def _entering(
    weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first layer's weight and bias for two pixels at once, beside each other.

    Their six numbers of the translation come first, then those of the source: so are whole words copied, and not single
    colours. [filters, 6, 3, 3] to [2 * filters, 12, 3, 3], of which the pairs left and right give a column each.
    """
    filters = len(weight)
    both = np.zeros((2, filters, 2, 2, 3, 3, 3), np.float32)  # of pixel, filter; by picture, pixel, colour, row, pair
    for pixel in range(2):
        for column in range(3):
            at = pixel + column - 1 + 2  # counted from the left pair's first pixel
            both[pixel, :, :, at % 2, :, :, at // 2] = weight.reshape(filters, 2, 3, 3, 3)[..., column]
    # a byte of 128 stands for 0, but half a level more than 0 is what it is
    own = bias + weight.sum((1, 2, 3)) * np.float32((GREY - 127.5) / 127.5)
    return both.reshape(2 * filters, 12, 3, 3), np.tile(own, 2)


def _leaving(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the last layer's weight and bias with its numbers in the order of a picture's bytes: row, column, RGB."""
    order = np.arange(12).reshape(3, 2, 2).transpose(1, 2, 0).reshape(2, 6)
    sorted_weight = np.zeros((2, LEAVING, *weight.shape[1:]), np.float32)
    sorted_bias = np.zeros((2, LEAVING), np.float32)
    sorted_weight[:, :6], sorted_bias[:, :6] = weight[order], bias[order]
    return sorted_weight.reshape(2 * LEAVING, *weight.shape[1:]), sorted_bias.reshape(2 * LEAVING)
