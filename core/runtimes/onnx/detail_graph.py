"""The detail stage as an ONNX graph that computes in 8 bits, its colours and features side by side; needs onnx.

It is core.algorithm.detail.Detail, to a level or two of 255, at a third of the time: a CPU multiplies bytes four times
as fast as floats, and a quarter of the memory is moved. The tone curve is in floats. What it names lies in
core.runtimes.onnx.eight_bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from core.algorithm.detail import EVERY
from core.runtimes.onnx.eight_bits import LEAVING, PICTURE
from core.runtimes.onnx.runtime import SIDES

_OWN = "com.microsoft"  # ONNX Runtime's own operators


def detail_graph(values: Mapping[str, NDArray[Any]]) -> tuple[ModelProto, list[str]]:
    """Return the graph (picture, source -> shown, uint8 [height, width, 3]) and the names that it refers to.

    values: by those names, of which only shapes and types are looked at.
    """
    graph = _Graph(values)
    graph.build()
    pictures = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [*SIDES, 3]) for name in ("picture", "source", "shown")
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    weights = [external(name, values[name]) for name in graph.named]
    made = helper.make_graph(graph.nodes, "detail", pictures[:2], pictures[2:], [*constants, *weights])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid(_OWN, 1)]
    return helper.make_model(made, opset_imports=versions, ir_version=10), list(graph.named)


def external(name: str, value: NDArray[Any]) -> TensorProto:
    """Return a constant that holds no numbers and is handed over under that name when a session starts."""
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    constant = TensorProto(name=name, dims=value.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, said in (("location", "safetensors"), ("offset", "0"), ("length", str(value.nbytes))):
        constant.external_data.add(key=key, value=said)
    return constant


class _Graph:
    """The nodes as they are written, the constants, and the names of weights (a dict for their order)."""

    def __init__(self, values: Mapping[str, NDArray[Any]]) -> None:
        self.values = values
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.named: dict[str, None] = {}

    def node(self, kind: str, inputs: list[str], output: str, **more: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **more))
        return output

    def weight(self, name: str) -> str:
        self.named[name] = None
        return name

    def whole(self, *numbers: int) -> str:
        """Return the name of a constant of whole numbers."""
        name = "numbers." + ".".join(map(str, numbers))
        self.constants[name] = np.array(numbers, np.int64)
        return name

    def point(self, name: str) -> list[str]:
        return [self.weight(f"{name}.scale"), self.weight(f"{name}.zero")]

    def conv(self, layer: str, seen: str, at: str, *, stride: int = 1, pad: int | None = None) -> str:
        """Write a layer that sees the value `seen`, of that point; a point that begins at 0 is one of a ReLU."""
        weights = [self.weight(f"{layer}.{kind}") for kind in ("bytes", "scales", "zeros")]
        size = self.values[f"{layer}.bytes"].shape[-1]
        around = size // 2 if pad is None else pad
        inputs = [seen, *self.point(at), *weights, *self.point(layer), self.weight(f"{layer}.sums")]
        more = {"kernel_shape": [size] * 2, "pads": [around] * 4, "strides": [stride] * 2}
        return self.node("QLinearConv", inputs, layer, domain=_OWN, channels_last=1, **more)

    def pair(self, kind: str, one: tuple[str, str], other: tuple[str, str], output: str) -> str:
        """Write an operator on two values, each given with its point; the output is called as its point."""
        inputs = [one[0], *self.point(one[1]), other[0], *self.point(other[1]), *self.point(output)]
        return self.node(kind, inputs, output, domain=_OWN)

    def twice(self, value: str, shape: str) -> str:
        """Write a value twice as large; it holds each pixel's numbers twice already."""
        rows = self.node("Reshape", [value, self.whole(0, 0, 1, -1)], f"{value}.rows")
        both = self.node("Concat", [rows, rows], f"{value}.both", axis=2)
        return self.node("Reshape", [both, shape], f"{value}.twice")

    def gated(self, level: str, features: str, decided: tuple[str, str], shape: str) -> str:
        """Write features, each times its gain and more by its shift, decided by a value at half their size."""
        gain, shift = (self.twice(self.conv(f"{kind}_{level}", *decided), shape) for kind in ("gain", "shift"))
        scaled = self.pair("QLinearMul", (features, features.split(":")[0]), (gain, f"gain_{level}"), f"scaled_{level}")
        return self.pair("QLinearAdd", (scaled, scaled), (shift, f"shift_{level}"), f"gated_{level}")

    def build(self) -> None:
        """Write all nodes."""
        self.tone()
        full = self.enter()
        half = self.conv("to_half", full, "enter", stride=2)
        quarter = self.conv("to_quarter", half, "to_half", stride=2)
        eighth = self.conv("to_eighth", quarter, "to_quarter", stride=2)
        shapes = {one: self.node("Shape", [one], f"{one}.shape") for one in (full, half, quarter)}
        for number in range(2):
            more = self.conv(f"eighth.{number}", eighth, eighth)
            eighth = self.pair("QLinearAdd", (eighth, eighth), (more, more), f"after.{number}")
        eighth = self.twice(self.conv("from_eighth", self.by_the_whole(eighth), "whole"), shapes[quarter])
        quarter = self.pair("QLinearAdd", (quarter, quarter), (eighth, "from_eighth"), "joined")
        more = self.conv("quarter", quarter, quarter)
        quarter = self.pair("QLinearAdd", (quarter, quarter), (more, more), "after.quarter")
        half = self.gated("half", half, (quarter, quarter), shapes[half])
        full = self.gated("full", full, (half, half), shapes[full])
        self.leave(self.conv("full", full, full))

    def tone(self) -> None:
        """Write the picture with its tones put right (core.algorithm.detail.ToneCurve), which are floats on the way."""
        floats = [self.node("Cast", [name], f"{name}.floats", to=TensorProto.FLOAT) for name in ("picture", "source")]
        grey = self.node("MatMul", [floats[1], self.weight("tones.greys")], "tones.grey")
        grey = self.node("Cast", [self.node("Round", [grey], "tones.round")], "tones.whole", to=TensorProto.INT64)
        level = self.node("Squeeze", [grey, self.whole(2)], "tones.level")
        begin, end, every = EVERY // 2, np.iinfo(np.int64).max, EVERY
        some = [self.whole(begin, begin), self.whole(end, end), self.whole(0, 1), self.whole(every, every)]
        few = self.node("Reshape", [self.node("Slice", [level, *some], "tones.some"), self.whole(-1)], "tones.few")
        colours = self.node("Slice", [floats[0], *some], "tones.colours")
        colours = self.node("Reshape", [colours, self.whole(-1, 3)], "tones.rows")
        added = self.curve(self.node("Gather", [self.weight("tones.knots"), few], "tones.shares"), colours)
        more = self.node("Gather", [added, level], "tones.more")
        levels = self.node("Round", [self.node("Add", [floats[0], more], "tones.sum")], "tones.levels")
        inside = self.node("Clip", [levels, self.weight("tones.least"), self.weight("tones.most")], "tones.inside")
        self.node("Cast", [inside], "toned", to=TensorProto.UINT8)

    def curve(self, shares: str, colours: str) -> str:
        """Write what to add at each brightness, in levels [256, 3], of some pixels' shares and colours in levels."""
        unit = self.node(
            "Sub", [self.node("Mul", [colours, self.weight("tones.step")], "tones.scaled"), "tones.one"], "tones.unit"
        )
        self.weight("tones.one")
        turned = self.node("Transpose", [shares], "tones.turned", perm=[1, 0])
        counts = self.node("ReduceMean", [shares, self.whole(0)], "tones.counts", keepdims=1)
        number = self.node("Shape", [shares], "tones.number", start=0, end=1)
        number = self.node("Cast", [number], "tones.number.float", to=TensorProto.FLOAT)
        sums = self.node("Div", [self.node("MatMul", [turned, unit], "tones.sums"), number], "tones.parts")
        each = self.node("ReduceMean", [turned, self.whole(1)], "tones.each", keepdims=1)
        means = self.node(
            "Div", [sums, self.node("Add", [each, self.weight("tones.some.least")], "tones.many")], "tones.means"
        )
        flat = self.node("Reshape", [means, self.whole(1, -1)], "tones.flat")
        seen = self.node("Concat", [flat, counts], "tones.seen", axis=1)
        hidden = self.gemm("tones.layers.0", seen)
        made = self.gemm("tones.layers.2", self.node("Relu", [hidden], "tones.layers.1"))
        knots = self.node("Reshape", [made, self.whole(-1, 3)], "tones.made")
        added = self.node("MatMul", ["tones.knots", knots], "tones.added")
        return self.node("Div", [added, "tones.step"], "tones.added.levels")

    def gemm(self, layer: str, seen: str) -> str:
        """Write a linear layer in floats."""
        weights = [self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias")]
        return self.node("Gemm", [seen, *weights], layer, transB=1)

    def enter(self) -> str:
        """Write the first layer, which sees two pixels beside each other at once."""
        pairs = [self.node("Reshape", [name, self.whole(0, -1, 6)], f"{name}.pairs") for name in ("toned", "source")]
        both = self.node("Concat", pairs, "both.pairs", axis=2)
        seen = self.node("Unsqueeze", [both, self.whole(0)], "both")
        pixels = self.conv("enter", seen, PICTURE)
        filters = len(self.values["enter.bytes"]) // 2
        # the sides are the picture's, the filters are those of one pixel
        sides = self.node("Shape", ["picture"], "sides", start=0, end=2)
        shape = self.node("Concat", [self.whole(1), sides, self.whole(filters)], "enter.whole", axis=0)
        return self.node("Reshape", [pixels, shape], "enter:pixels")

    def by_the_whole(self, eighth: str) -> str:
        """Write what the mean of the whole picture makes of the features, in floats: there are few."""
        floats = self.node("DequantizeLinear", [eighth, *self.point(eighth)], "eighth.floats")
        mean = self.node("ReduceMean", [floats, self.whole(1, 2)], "eighth.mean", keepdims=0)
        weights = [self.weight("whole.0.weight"), self.weight("whole.0.bias")]
        hidden = self.node("Relu", [self.node("Gemm", [mean, *weights], "whole.0", transB=1)], "whole.1")
        weights = [self.weight("whole.2.weight"), self.weight("whole.2.gain_bias")]
        both = self.node("Gemm", [hidden, *weights], "whole.2", transB=1)
        width = len(self.values["whole.2.gain_bias"]) // 2
        halves = ["whole.gain", "whole.shift"]
        self.nodes.append(helper.make_node("Split", [both, self.whole(width, width)], halves, "whole.halves", axis=1))
        gain, shift = (self.node("Unsqueeze", [half, self.whole(1, 2)], f"{half}.each") for half in halves)
        changed = self.node("Add", [self.node("Mul", [floats, gain], "whole.scaled"), shift], "whole.floats")
        return self.node("QuantizeLinear", [changed, *self.point("whole")], "whole")

    def leave(self, full: str) -> None:
        """Write the last layer, and the picture with what it adds."""
        made = self.conv("leave", full, full, stride=2, pad=1)
        rows = self.node("Reshape", [made, self.whole(0, 0, 0, 2, LEAVING)], "leave.columns")
        rows = self.node("Transpose", [rows], "leave.rows", perm=[0, 1, 3, 2, 4])
        rows = self.node("Slice", [rows, self.whole(0), self.whole(6), self.whole(4)], "leave.colours")
        added = self.node("Reshape", [rows, self.node("Shape", ["picture"], "shape")], "added")
        one, none = "level", "nothing"
        self.constants |= {one: np.array(1, np.float32), none: np.array(0, np.uint8)}
        levels = [self.weight("leave.levels"), self.weight("leave.zero")]
        self.node("QLinearAdd", ["toned", one, none, added, *levels, one, none], "shown", domain=_OWN)
