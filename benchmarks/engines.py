"""What TensorRT for RTX makes of our graphs: seconds, megabytes and layers of the engines; it needs no GPU.

    python benchmarks/engines.py [--model M] [--size 256x256] [--steps 2] [--bank fifo,merge] [--dtype float16]
                                 [--for portable,sm75] [--json]
    python benchmarks/engines.py --eight-bits [--whole]

A model is exported once for each bank, and built for each card. Nothing is run: that takes the card.
--eight-bits builds single products and convolutions of 8-bit inputs: for which cards, and in which type at last.
With --whole also the included model's frame with every product and convolution so: whether it is built at all.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from core.errors import PlanError
from core.models.description import describe
from core.runtimes.choice import for_plan
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import make_plan
from core.runtimes.tensorrt.library import PORTABLE, RTX, Library, shown_target, target
from core.settings import EngineSettings, Policy


class Layer(NamedTuple):
    """A layer of a network or of an engine. types: of its inputs and, in an engine, of its constants and outputs."""

    name: str
    kind: str
    types: frozenset[str]


@dataclass(frozen=True)
class Network:
    """A graph as the library's parser reads it. on_host: what a run would read or write in the memory of the host."""

    layers: tuple[Layer, ...]
    on_host: tuple[str, ...] = ()

    def of_kind(self, *kinds: str) -> list[Layer]:
        """Return the layers of those kinds."""
        return [layer for layer in self.layers if layer.kind in kinds]


@dataclass(frozen=True)
class Built:
    """An engine, as the library tells of it."""

    seconds: float
    size: int
    layers: tuple[Layer, ...]
    memory: int


def parsed(graph: Path) -> Network:
    """Read a graph by the real parser. Raises PlanError."""
    import tensorrt_rtx as trt  # its types as far as the runtime uses them: typings/

    rtx: Any = trt
    log = rtx.Logger(rtx.Logger.ERROR)
    network = rtx.Builder(log).create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise PlanError(str(parser.get_error(0)))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    ends = [network.get_input(index) for index in range(network.num_inputs)]
    ends += [network.get_output(index) for index in range(network.num_outputs)]
    shapes = tuple(one.name for one in ends if one.is_shape_tensor)
    return Network(tuple(Layer(one.name, one.type.name, _types(one)) for one in layers), shapes)


def _types(layer: Any) -> frozenset[str]:
    given = [layer.get_input(index) for index in range(layer.num_inputs)]
    return frozenset(one.dtype.name for one in given if one is not None)


def built(graph: Path, capability: str, dtype: torch.dtype = torch.float16) -> Built:
    """Build the engine of a graph as the product does, and keep what the library says of it. Raises PlanError."""
    told: list[str] = []
    options = building.BuildOptions(dtype, capability, refittable=False, timing=Path(), account=told.append)
    start_s = time.perf_counter()
    plan = graph.with_suffix(".engine")
    building.build(RTX, graph, plan, options, lambda text, share: None, lambda: True)
    seconds = time.perf_counter() - start_s
    lines = [line for text in told if text.startswith("Layers:") for line in text.splitlines() if "LayerType:" in line]
    memory = next((int(n) for text in told for n in re.findall(r"^Total Activation Memory: (\d+)", text)), 0)
    return Built(seconds, plan.stat().st_size, tuple(map(_layer, lines)), memory)


def _layer(line: str) -> Layer:
    name, kind = re.search(r"Name: (.*?), LayerType: (\w+)", line), re.search(r"LayerType: (\w+)", line)
    inputs = line.partition("Constants:")[0].partition("Outputs:")[0]
    return Layer(
        name.group(1) if name else line[:60],
        kind.group(1) if kind else "",
        frozenset(re.findall(r"Datatype: (\w+)", inputs)),
    )


def exported(settings: EngineSettings, capability: str, folder: Path, library: Library = RTX) -> dict[str, Path]:
    """Export a model's graphs: name -> file. library: what they are for. Raises what a build raises."""
    folder.mkdir(exist_ok=True)
    resolved = for_plan(settings, capability)
    made = make_plan.export(resolved, library, folder, lambda text, share: None, refittable=False)
    return {name: graph.path for name, graph in made.graphs.items()}


class Held:
    """The most RAM, in bytes, that this process holds while the body runs, looked at ten times a second.

    Pages of files that are being read are not counted where the system tells them apart: it takes them back when they
    are needed elsewhere. (Linux; the model's weights and the graph's are such pages.)
    """

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        import psutil

        own = psutil.Process()
        while True:
            now = own.memory_info()
            self.most = max(self.most, now.rss - getattr(now, "shared", 0))
            if self._over.wait(0.1):
                return


def measure(settings: EngineSettings, capabilities: Sequence[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Export and build; return a row for each graph and card."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        with Held() as exporting:
            graphs = exported(settings, capabilities[0], Path(folder))
        export_s = time.perf_counter() - start_s
        for name, graph in graphs.items():
            network = parsed(graph)
            kinds = collections.Counter(layer.kind for layer in network.layers)
            for capability in capabilities:
                row: dict[str, Any] = {
                    "graph": name.removesuffix(".engine"),
                    "for": shown_target(_bound(capability)),
                    "size": f"{settings.width}x{settings.height}",
                    "steps": settings.steps,
                    "bank": str(settings.policy),
                    "dtype": settings.dtype,
                    "export_s": round(export_s, 1),
                    "export_ram_gb": round(exporting.most / 1e9, 1),
                    "network_layers": len(network.layers),
                    "rings_in_place": kinds["KV_CACHE_UPDATE"],
                }
                try:
                    with Held() as compiling:
                        made = built(graph, capability, getattr(torch, settings.dtype))
                except PlanError as error:
                    row["refused"] = str(error)
                else:
                    row["build_ram_gb"] = round(compiling.most / 1e9, 1)
                    row |= {"build_s": round(made.seconds, 1), "mb": round(made.size / 1e6, 1)}
                    row |= {"engine_layers": len(made.layers), "memory_mb": round(made.memory / 1e6, 1)}
                row["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)
                rows.append(row)
                say(" ".join(f"{key}={value}" for key, value in row.items()))
    return rows


_EIGHT_BITS = {"fp8": "FLOAT8E4M3FN", "int8": "INT8"}


def quantized(operator: str, eight: str, path: Path) -> Path:
    """Write a graph of one MatMul or Conv whose inputs are rounded to 8 bits; return the path."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    given, weight = ([1, 256, 64], [64, 64]) if operator == "MatMul" else ([1, 64, 32, 32], [64, 64, 3, 3])
    values = torch.randn(weight, generator=torch.Generator().manual_seed(0), dtype=torch.float32) * 0.05
    constants = [
        numpy_helper.from_array(values.half().numpy(), "w"),
        numpy_helper.from_array(torch.tensor(0.02).half().numpy(), "scale"),
        helper.make_tensor("zero", TensorProto.DataType.Value(_EIGHT_BITS[eight]), [], [0]),
    ]
    nodes = []
    for name in ("x", "w"):
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}8"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}8", "scale", "zero"], [f"{name}16"]))
    pads: dict[str, Any] = {"pads": [1, 1, 1, 1]} if operator == "Conv" else {}
    nodes.append(helper.make_node(operator, ["x16", "w16"], ["y"], **pads))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, given) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]), path)
    return path


def eight_bits() -> list[dict[str, str]]:
    """Return for each operator, type and card the types that its kernel works on, or why there is none."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for operator in ("MatMul", "Conv"):
            for eight in _EIGHT_BITS:
                graph = quantized(operator, eight, Path(folder) / "graph.onnx")
                row = {"operator": operator, "type": eight}
                for capability in (*RTX.cards, PORTABLE):
                    try:
                        made = built(graph, capability)
                    except PlanError as error:
                        told = re.search(r"because the model contains [\w\s-]*: [\w]+", str(error))
                        row[shown_target(_bound(capability))] = f"refused, {told.group() if told else error}"
                    else:
                        kinds = [one.types for one in made.layers if one.kind in ("gemm", "correlation")]
                        row[shown_target(_bound(capability))] = "+".join(sorted(kinds[0])) if kinds else "?"
                rows.append(row)
    return rows


def rounded(graph: Path, eight: str, out: Path, wanted: Callable[[int, Any], bool] = lambda number, node: True) -> int:
    """Write a graph whose products and convolutions with weights take 8 bits; return how many.

    wanted: which of them, by their number and node. The weights' scales are their own, the features' are one and the
    same: for a build, not for pictures.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(graph)
    weights = {one.name: one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT16}
    largest = {"fp8": 448.0, "int8": 127.0}[eight]
    constants = [helper.make_tensor("eight_zero", TensorProto.DataType.Value(_EIGHT_BITS[eight]), [], [0])]
    nodes: list[Any] = []
    made: dict[str, str] = {}
    count, numbers = 0, itertools.count()
    for node in model.graph.node:
        suits = node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in weights
        if suits and wanted(next(numbers), node):
            count += 1
            for at, name in enumerate(node.input[:2]):
                if name not in made:
                    made[name], scale = f"{name}_16", f"{name}_scale"
                    most = float(abs(numpy_helper.to_array(weights[name])).max()) / largest if name in weights else 0.05
                    constants.append(numpy_helper.from_array(torch.tensor(most).half().numpy(), scale))
                    nodes.append(helper.make_node("QuantizeLinear", [name, scale, "eight_zero"], [f"{name}_8"]))
                    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_8", scale, "eight_zero"], [made[name]]))
                node.input[at] = made[name]
        nodes.append(node)
    model.graph.initializer.extend(constants)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, out, save_as_external_data=True, location=f"{out.name}.weights")
    return count


def whole_in_eight_bits() -> list[dict[str, Any]]:
    """Return for each type and card whether the included model's frame is built, and what its kernels read."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(policy=Policy.FIFO, dtype="float16")
        graph = exported(settings, PORTABLE, Path(folder) / "graphs")["frame.engine"]
        for eight, capabilities in (("fp8", ("8.9", "12.0")), ("int8", ("8.6",))):
            path = Path(folder) / f"{eight}.onnx"
            count = rounded(graph, eight, path)
            for capability in capabilities:
                row = {"type": eight, "rounded": count, "for": shown_target(_bound(capability))}
                try:
                    layers = built(path, capability).layers
                except PlanError as error:
                    rows.append(row | {"refused": str(error)})
                else:
                    types = ("+".join(sorted(one.types)) for one in layers if one.kind in ("gemm", "correlation"))
                    rows.append(row | {"kernels": collections.Counter(types)})
    return rows


def _bound(capability: str) -> Any:
    from core.plans import ANY, Machine

    return Machine("", ANY, capability, ANY, RTX.module)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--bank", default="")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--for", dest="cards", default="portable")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--eight-bits", action="store_true")
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args(arguments)
    if args.eight_bits:
        print(json.dumps([*eight_bits(), *(whole_in_eight_bits() if args.whole else [])], indent=1))
        return 0
    own = describe(args.model)
    width, height = map(int, args.size.split("x")) if args.size else (own.width, own.height)
    capabilities = [target(one) for one in args.cards.split(",")]
    settings = EngineSettings(
        args.model, width, height, args.steps or own.steps, own.policy, own.slots, dtype=args.dtype
    )
    rows = []
    for bank in args.bank.split(",") if args.bank else [str(own.policy)]:
        wanted = replace(settings, policy=Policy(bank), slots=settings.slots if bank == "fifo" else 1)
        rows += measure(wanted, capabilities, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(rows, indent=1) if args.json else table(rows))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = ("graph", "bank", "for", "size", "steps", "dtype", "network_layers", "engine_layers", "build_s", "mb")
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(str(row.get(key, row.get("refused", ""))) for key in head) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
