"""The detail stage in 8 bits: the net to a level or two, at every size, and nothing of its weights in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from core.algorithm.detail import POINTS, SOME, Detail, levels, toned
from core.algorithm.frame import PictureSharpener
from core.runtimes.onnx.detail_graph import detail_graph
from core.runtimes.onnx.eight_bits import GREATEST, in_eight_bits
from core.runtimes.onnx.runtime import SIDES
from tests.support.small_details import random_detail, small_detail


def scene(height: int, width: int, seed: int) -> torch.Tensor:
    """A picture of blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return torch.from_numpy(blocks.repeat(8, 0).repeat(8, 1))


def learned(net: Detail, *pictures: torch.Tensor) -> dict[str, NDArray[Any]]:
    """The net's weights and what a session is handed, with ranges as found on those pictures."""
    picture, source = (one.permute(2, 0, 1)[None] / 127.5 - 1 for one in pictures)
    level = levels(source)
    found = net.points(toned(picture, level, net.tones(picture[SOME], level[SOME])), source)
    assert tuple(found) == POINTS
    net.ranges.copy_(torch.stack([torch.stack([value.min(), value.max()]) for value in found.values()]))
    weights = {name: weight.numpy() for name, weight in net.state_dict().items()}
    return weights | in_eight_bits(weights)


def shown(values: dict[str, NDArray[Any]], *pictures: torch.Tensor, told: bool = True) -> NDArray[np.uint8]:
    """What the graph makes of translation and source; told: the session knows their size beforehand."""
    graph, names = detail_graph(values)
    options = onnxruntime.SessionOptions()
    handed = [np.require(values[name], requirements="C") for name in names]
    options.add_external_initializers(names, [onnxruntime.OrtValue.ortvalue_from_numpy(one) for one in handed])
    for name, side in zip(SIDES, pictures[0].shape, strict=False):
        if told:
            options.add_free_dimension_override_by_name(name, side)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {name: one.numpy() for name, one in zip(("picture", "source"), pictures, strict=True)}
    found: NDArray[np.uint8] = session.run(None, given)[0]
    return found


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("net", "size"), [(small_detail(1), (48, 72)), (random_detail(2), (64, 40))])
def test_it_is_the_net_to_a_level_or_two(net: Detail, size: tuple[int, int], told: bool) -> None:
    pictures = scene(*size, 0), scene(*size, 1)
    expected = PictureSharpener(net)(*pictures).numpy().astype(int)
    off = np.abs(shown(learned(net, *pictures), *pictures, told=told) - expected)
    assert np.abs(expected - pictures[0].numpy()).mean() > 10
    assert off.mean() < 2.5
    # no side of the picture is worse than its middle: what lies outside is the same for both
    assert max(off[:2].mean(), off[-2:].mean(), off[:, :2].mean(), off[:, -2:].mean()) < 4


def test_a_net_that_adds_nothing_leaves_every_level_as_it_is() -> None:
    pictures = scene(32, 48, 0), scene(32, 48, 1)
    assert np.array_equal(shown(learned(Detail().requires_grad_(False), *pictures), *pictures), pictures[0].numpy())


def test_no_number_of_the_weights_is_in_the_graph() -> None:
    values = learned(small_detail(1), scene(16, 16, 0), scene(16, 16, 1))
    graph, names = detail_graph(values)
    inside = [one for one in graph.graph.initializer if not one.data_location]
    assert {one.name for one in graph.graph.initializer} == {one.name for one in inside} | set(names)
    for constant in inside:
        value = numpy_helper.to_array(constant)
        assert value.dtype == np.int64 or value.item() in (0, 1), constant.name


def test_two_products_of_a_byte_and_a_weight_fit_into_16_bits() -> None:
    values = learned(random_detail(3), scene(16, 16, 0), scene(16, 16, 1))
    greatest = max(int(np.abs(one).max()) for name, one in values.items() if name.endswith(".bytes"))
    assert greatest == GREATEST
    assert 2 * 255 * greatest < 2**15
