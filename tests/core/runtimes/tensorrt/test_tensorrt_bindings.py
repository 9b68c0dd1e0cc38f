"""What is used of TensorRT is what the real Python bindings of both libraries have: names, parameters, mypy's types."""

from __future__ import annotations

import enum
import functools
import inspect
import typing
from typing import Any

import pytest

from core.runtimes.tensorrt import library
from tests.support import tensorrt_bindings as bindings
from tests.support import trt_stand_in


@functools.cache
def real(module: str) -> dict[str, Any]:
    if why := bindings.why_not(module):
        pytest.skip(why)
    classes: dict[str, Any] = bindings.look(module)["classes"]
    return classes


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, kinds in trt_stand_in.PUBLIC.items() for name in kinds]
)
def test_the_stand_in_has_nothing_that_the_bindings_lack(module: str, name: str) -> None:
    kind, members = trt_stand_in.PUBLIC[module][name], real(module)[name]
    if issubclass(kind, enum.Enum):
        assert {one.name for one in kind} <= members.keys()
        return
    for member in bindings.ours(kind):
        assert member in members, f"{name}.{member}"
        given = getattr(kind, member)
        if not inspect.isfunction(given):
            continue
        wanted = list(inspect.signature(given).parameters)[1:]
        overloads = [bindings.parameters(one) for one in bindings.signatures(members[member], member)]
        assert any(wanted == one[: len(wanted)] for one in overloads), f"{name}.{member}: {overloads}"


@pytest.mark.parametrize("module", trt_stand_in.PUBLIC)
def test_the_types_that_mypy_sees_are_those_of_the_bindings(module: str) -> None:
    real(module)  # or it is skipped
    stub = bindings.stub_file(module).read_text(encoding="utf-8")
    assert stub == bindings.stub(module), "python -m tests.support.tensorrt_bindings"


def test_what_is_used_of_both_libraries_is_the_same_in_both() -> None:
    """core.runtimes.tensorrt is checked against the types of one of them, which so are the other's too."""
    names = typing.get_type_hints(library.Bindings, localns={"trt": _Named()}).keys() - {"__version__"}
    assert len(names) > 8
    for name in [*names, "ICudaEngine", "IExecutionContext", "IBuilderConfig"]:
        kind = trt_stand_in.PUBLIC["tensorrt"][name]
        full, rtx = (real(module)[name] for module in trt_stand_in.PUBLIC)
        if issubclass(kind, enum.Enum):
            assert {one.name for one in kind} <= full.keys() & rtx.keys()
            continue
        for member in bindings.ours(kind):
            told = [bindings.signatures(one[member] or "", member) for one in (full, rtx)]
            assert set(told[0]) & set(told[1]) or told == [[], []], f"{name}.{member}"


class _Named:
    def __getattr__(self, name: str) -> type:
        return object
