"""core.algorithm.products: what oneDNN multiplies is what PyTorch multiplies, and stays out of graphs and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.algorithm import products
from core.algorithm.attention import PlainAttention, quicken_attention
from tests.support.small_models import small_unet

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of PyTorch has no oneDNN"
)


REAL_HERE = products.here
Operator = Callable[..., Any]


@pytest.fixture(autouse=True)
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Any machine is one where oneDNN is quicker; return a list that grows by every product that oneDNN makes."""
    made: list[int] = []
    own: Operator = torch.ops.mkldnn._linear_pointwise

    def noted(*given: Any) -> Any:
        made.append(1)
        return own(*given)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", noted)
    monkeypatch.setattr(products, "here", lambda: True)
    return made


def exact(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention in float64, as it is defined: [n, m, heads, width]."""
    query, keys, values = query.double(), keys.double(), values.double()
    shares = (query @ keys.transpose(2, 3) / query.shape[3] ** 0.5).softmax(-1)
    found: Tensor = (shares @ values).transpose(1, 2)
    return found


@pytest.mark.parametrize(("tokens", "banked", "block"), [(256, 256, 2**20), (300, 700, 7 * 700), (301, 512, 64 * 512)])
def test_attention_by_blocks_is_attention(
    monkeypatch: pytest.MonkeyPatch, multiplied: list[int], tokens: int, banked: int, block: int
) -> None:
    monkeypatch.setattr(products, "_SCORES", block)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    # heads lie beside each other, as `attend` of core.algorithm.attention hands them over
    query, keys, values = (torch.randn(2, n, 3, 20).transpose(1, 2) for n in (tokens, banked, banked))
    with torch.inference_mode():
        found = products.attend(query, 2 * keys, values)
    assert len(multiplied) == 2 * 2 * 3 * math.ceil(tokens / (block // banked)), "of a block's scores and values"
    torch.testing.assert_close(found.double(), exact(query, 2 * keys, values), atol=2e-6, rtol=1e-5)


def test_several_threads_meet_once_in_an_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine each meeting waits for the thread that has no core."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(products, "linear", None)  # nothing is multiplied block by block
    query, keys, values = (torch.randn(1, 2, 300, 20) for _ in range(3))
    with torch.inference_mode():
        found = products.attend(query, keys, values)
    torch.testing.assert_close(found.double(), exact(query, keys, values), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 30, 48), (48,)])
def test_a_linear_layer_is_one(multiplied: list[int], shape: tuple[int, ...]) -> None:
    for bias in (True, False):
        layer, given = nn.Linear(48, 65, bias=bias), torch.randn(shape)
        with torch.inference_mode():
            found = products.QuickLinear(layer)(given)
        expected = given.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    assert len(multiplied) == 2


def test_rows_with_each_other(multiplied: list[int]) -> None:
    one, other = torch.randn(3, 20, 48), torch.randn(3, 48, 31).transpose(1, 2)
    with torch.inference_mode():
        found = products.with_each(one, other)
    assert len(multiplied) == 3
    torch.testing.assert_close(found.double(), one.double() @ other.double().transpose(1, 2), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("block", [1, 70, 7 * 31, 2**20])
def test_the_most_alike_are_found_in_blocks(monkeypatch: pytest.MonkeyPatch, here: bool, block: int) -> None:
    monkeypatch.setattr(products, "here", lambda: here)
    monkeypatch.setattr(products, "_SCORES", block)
    one, other = torch.randn(2, 20, 48), torch.randn(2, 31, 48)
    expected = (one.double() @ other.double().transpose(1, 2)).argmax(-1)
    with torch.inference_mode():
        assert torch.equal(products.most_alike(one, other), expected)
    assert torch.equal(products.most_alike(one, other), expected)  # as in a graph


def test_a_quickened_net_predicts_the_same_by_the_same_weights(multiplied: list[int]) -> None:
    plain, quickened = small_unet(0).float(), small_unet(0).float()
    before = dict(quickened.named_parameters())
    products.quicken_linears(quickened)
    assert all(before[name] is weight for name, weight in quickened.named_parameters())
    assert sum(isinstance(layer, products.QuickLinear) for layer in quickened.modules()) > 20
    quicken_attention(quickened)
    assert {type(one) for one in quickened.attn_processors.values()} == {PlainAttention}
    config = plain.config
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 5, config.cross_attention_dim, generator=generator)
    given = (torch.randn(1, config.in_channels, 32, 32, generator=generator), torch.tensor([300]), text)
    with torch.inference_mode():
        expected, found = (net(*given, return_dict=False)[0] for net in (plain, quickened))
    assert len(multiplied) > 20
    # sums in another order: of 60 random inputs the largest difference was 1.4e-5, of values up to 1.5
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)


def test_where_it_is_no_quicker_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "here", lambda: False)
    net = nn.Sequential(nn.Linear(4, 4))
    products.quicken_linears(net)
    assert type(net[0]) is nn.Linear


def test_gradients_graphs_and_other_precisions_are_pytorchs(multiplied: list[int]) -> None:
    layer, given = products.QuickLinear(nn.Linear(4, 4)), torch.randn(3, 4)
    layer(given).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        program = torch.export.export(layer, (given,))
        assert "mkldnn" not in str(program.graph)
        products.linear(given.double(), layer.weight.double())
        assert not multiplied
        layer(given)
    assert multiplied


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_traced_graph_is_pytorchs(multiplied: list[int]) -> None:
    with torch.no_grad():
        layer = products.QuickLinear(nn.Linear(4, 4))
        traced = torch.jit.trace(layer, torch.randn(3, 4), check_trace=False)  # type: ignore[no-untyped-call]
    assert not multiplied
    assert "mkldnn" not in str(traced.graph)


def test_who_switches_onednn_off_gets_none(multiplied: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with torch.inference_mode():
        products.linear(torch.randn(3, 4), torch.randn(4, 4))
    assert not multiplied


def no_such_arguments(*given: Any) -> Any:
    raise TypeError("unexpected argument")


def no_such_kernel(*given: Any) -> Any:
    raise NotImplementedError("no kernel")


def no_descriptor(*given: Any) -> Any:
    raise RuntimeError("could not create a primitive descriptor")


def without_bias(given: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return F.linear(given, weight)


def turned(given: Tensor, weight: Tensor, bias: Tensor | None, *others: Any) -> Tensor:
    return F.linear(given, weight, bias).T


@pytest.mark.parametrize("operator", [no_such_arguments, no_such_kernel, no_descriptor, without_bias, turned])
def test_an_operator_that_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch, operator: Operator) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products, "_on_amd", lambda: True)
    assert REAL_HERE.__wrapped__()
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
    assert not REAL_HERE.__wrapped__()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_largest_is_pytorchs_the_first_of_several(dtype: torch.dtype) -> None:
    scores = torch.randn(2, 50, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[0, 0] = 1.0
    scores[0, 1, [3, 7]] = float("nan")
    with torch.no_grad():
        assert torch.equal(products.largest(scores), scores.argmax(dim=-1))
        assert products.largest(scores)[0, :2].tolist() == [0, 3]
