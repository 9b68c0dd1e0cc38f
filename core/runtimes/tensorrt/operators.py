"""Checks a graph against TensorRT's published table of operators, before minutes go into a build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).with_name("operators.json")
_LARGEST_K = 3840  # TopK
_TABLE_NAMES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16"}  # ONNX's name: the table's
_CONSTANT_INPUTS = {  # operator -> inputs that must be known when the engine is built
    **dict.fromkeys(("Squeeze", "Unsqueeze", "CumSum", "TopK", "OneHot"), (1,)),
    **dict.fromkeys(
        ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare"),
        (1,),
    ),
}


def refused(model: Any, version: tuple[int, int]) -> list[str]:
    """Return why TensorRT of that version refuses an ONNX model, a line for each reason; none where it takes it.

    model: an onnx.ModelProto with shapes inferred; its weights may be missing.
    """
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    low, high = table["opset"]
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    found = [] if low <= opset <= high else [f"opset {opset}; {low} to {high} are taken"]
    types = dict(_types(model.graph))
    constants = _constants(model.graph)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        found += [
            f"{node.op_type} {node.name}: {why}" for why in _refused(node, table, version, types, constants, ends)
        ]
    return found + _unshaped(model.graph)


def _refused(
    node: Any,
    table: Mapping[str, Any],
    version: tuple[int, int],
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    ends: set[str],
) -> Iterator[str]:
    allowed = table["operators"].get(node.op_type)
    if allowed is None or node.domain not in ("", "ai.onnx"):
        yield "is no operator that TensorRT has"
        return
    since = table["since"].get(node.op_type)
    if since and version < tuple(map(int, since.split("."))):
        yield f"needs TensorRT {since}"
    subject = node.input[1 if node.op_type == "Where" else 0] if node.input else node.output[0]
    kind = types.get(subject, "")
    if kind and kind not in allowed.split():
        yield f"works on {kind}; {allowed} are taken"
    # "UINT8 is only supported as network input or output tensor types"
    if any(types.get(name) == "UINT8" and name not in ends for name in (*node.input, *node.output)):
        yield "has UINT8 inside the graph; it may only be an input or output"
    for index in _CONSTANT_INPUTS.get(node.op_type, ()):
        if len(node.input) > index and node.input[index] and node.input[index] not in constants:
            yield f"its input {index} must be known when the engine is built"
    yield from _restricted(node, types, constants)


def _restricted(node: Any, types: Mapping[str, str], constants: Mapping[str, Any]) -> Iterator[str]:
    given = {one.name: one for one in node.attribute}
    match node.op_type:
        case "ScatterElements" | "ScatterND":
            reduction = given["reduction"].s.decode() if "reduction" in given else "none"
            if reduction != "none":
                yield f"reduction is {reduction}; only none is taken"
        case "Concat":
            if len(kinds := sorted({types[name] for name in node.input if name in types})) > 1:
                yield f"joins {' and '.join(kinds)}; one type is taken"
        case "TopK":
            k = constants.get(node.input[1])
            if k is not None and int(k.max()) >= _LARGEST_K:
                yield f"K is {int(k.max())}; it must be less than {_LARGEST_K}"
        case "TensorScatter":
            if "axis" not in given or given["axis"].i != -2:
                yield "axis must be -2"
        case "LayerNormalization":
            if len([name for name in node.output if name]) > 1:
                yield "only its first output is supported"
        case "Resize":
            if "antialias" in given and given["antialias"].i:
                yield "antialiasing is not supported"


def _constants(graph: Any) -> dict[str, Any]:
    """Return the values that the graph itself holds: initializers and Constant nodes."""
    from onnx import numpy_helper

    found = {}
    for one in graph.initializer:
        if not one.external_data:
            found[one.name] = numpy_helper.to_array(one)
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is not None:
                found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _types(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, type) of each tensor, as the table calls the types."""
    from onnx import TensorProto

    def table_name(kind: int) -> str:
        name = str(TensorProto.DataType.Name(kind))
        return _TABLE_NAMES.get(name, name)

    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, table_name(value.type.tensor_type.elem_type)
    for one in graph.initializer:
        yield one.name, table_name(one.data_type)


def _unshaped(graph: Any) -> list[str]:
    """Return a line for each input or output whose shape is not fixed."""
    return [
        f"{value.name}: its shape is not fixed"
        for value in (*graph.input, *graph.output)
        if not value.type.tensor_type.HasField("shape")
        or any(not size.HasField("dim_value") for size in value.type.tensor_type.shape.dim)
    ]
