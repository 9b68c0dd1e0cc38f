"""What is used of TensorRT is what its real Python bindings have: names, parameters, and the types for mypy."""

from __future__ import annotations

import enum
import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.support import tensorrt_bindings as bindings
from tests.support import trt_stand_in

pytestmark = pytest.mark.skipif(bool(bindings.why_not()), reason=bindings.why_not())


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    classes: dict[str, Any] = bindings.look()["classes"]
    return classes


@pytest.mark.parametrize("kind", trt_stand_in.PUBLIC, ids=lambda kind: kind.__name__)
def test_the_stand_in_has_nothing_that_the_bindings_lack(real: dict[str, Any], kind: type) -> None:
    members = real[kind.__name__]
    if issubclass(kind, enum.Enum):
        assert {one.name for one in kind} <= members.keys()
        return
    for name in bindings.ours(kind):
        assert name in members, f"{kind.__name__}.{name}"
        given = getattr(kind, name)
        if not inspect.isfunction(given):
            continue
        wanted = list(inspect.signature(given).parameters)[1:]
        overloads = [bindings.parameters(one) for one in bindings.signatures(members[name], name)]
        assert any(wanted == one[: len(wanted)] for one in overloads), f"{kind.__name__}.{name}: {overloads}"


def test_the_types_that_mypy_sees_are_those_of_the_bindings() -> None:
    stub = Path(__file__).parents[4] / "typings" / "tensorrt" / "__init__.pyi"
    assert stub.read_text(encoding="utf-8") == bindings.stub(), "python -m tests.support.tensorrt_bindings > that file"
