"""A whole frame, and the merging of a bank, as ONNX graphs of fixed shapes that TensorRT takes.

What a stream remembers goes in and comes out by name. The bank has two forms:
`beside`: the features seen come out, and the caller copies those of kept frames into the rings.
`in place`: the graph writes this frame's keys and values into a spare slot of each ring (TensorScatter, at the ring's
own address), and attention reads the whole ring, which saves the concatenation.
Needs onnx and onnxscript.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from core.algorithm.attention import BankCall, SelfAttention, fuse_at, project
from core.algorithm.bank import Layout, Reading, guide_name, normalized
from core.algorithm.frame import FrameInputs, FrameModule, StreamTensors
from core.algorithm.schedule import RowCoefficients
from core.errors import PlanError
from core.runtimes.tensorrt.operators import refused
from core.runtimes.tensorrt.signature import InPlaceReading

OPSET = 18
_SCATTER_OPSET = 24  # the first with TensorScatter


@dataclass(frozen=True)
class Graph:
    """An ONNX file, and which weight each of its constants is: initializer -> name, or name.T for a transposed one."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, str]

    def remove(self) -> None:
        """Delete the file, and the weights beside it."""
        for path in (self.path, _weights_of(self.path)):
            path.unlink(missing_ok=True)


def _weights_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


class FrameGraph(nn.Module):
    """core.algorithm.frame.FrameModule on plain tensors, those of core.runtimes.tensorrt.signature.named_inputs.

    Gives the picture, in_flight and origins after the frame, then the features seen.
    """

    def __init__(self, frame: FrameModule, names: Sequence[str], reading: type[Reading] | type[InPlaceReading]) -> None:
        super().__init__()
        self.frame = frame
        self.names = tuple(names)
        self.reading = reading

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        given = dict(zip(self.names, tensors, strict=True))
        bank, cross = (
            {name.removeprefix(part): value for name, value in given.items() if name.startswith(part)}
            for part in ("bank.", "cross.")
        )
        reading: Any = self.reading(*(given.get(name) for name in self.reading._fields))  # type: ignore[arg-type]
        inputs = FrameInputs(
            rows=RowCoefficients(*(given[f"rows.{name}"] for name in RowCoefficients._fields)),
            noise=given["noise"],
            text=given["text"],
            cross=cross,
            scale=given["scale"],
            residual=given["residual"],
            presence=given["presence"],
            reading=reading,
            write=reading.fresh,  # not used here: the rings are written by whoever runs the graph
        )
        source = given.get("source", given["picture"])
        remembered = StreamTensors(given["in_flight"], given["origins"], bank, source[None][:0])
        shown, done = self.frame.translate(given["picture"], inputs, remembered, source)
        return shown, done.in_flight, done.origins, *(done.seen[name] for name in bank)


class InPlaceAttention:
    """A diffusers attention processor: writes this frame's keys and values into the ring, and attends to all of it."""

    def __init__(self, layer: str, fuses: bool) -> None:
        self.layer = layer
        self.fuses = fuses

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        bank_call: BankCall | None = None,
    ) -> Tensor:
        """Attend: hidden_states [rows, tokens, channels] -> the same shape."""
        assert bank_call is not None
        placed: Any = bank_call.reading
        query, key, value = project(attn, hidden_states)
        rings = []
        for name, now in ((f"{self.layer}.key", key), (f"{self.layer}.value", value)):
            # rings [rows, 1, (slots+1)*tokens, channels], as a cache of one head
            ring = _scatter(bank_call.bank[name], now[:, None].contiguous(), placed.at * now.shape[1])
            bank_call.seen[name] = ring
            rings.append(ring[:, 0])
        rows, tokens = hidden_states.shape[:2]
        allowed = placed.allowed[:, :, None].expand(-1, -1, tokens).reshape(rows, 1, 1, -1)
        q, k, v = (t.reshape(rows, t.shape[1], attn.heads, -1).transpose(1, 2) for t in (query, *rings))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[0](mixed)
        return fuse_at(self.layer, out, bank_call) if self.fuses else out


def _scatter(ring: Tensor, now: Tensor, at: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        "TensorScatter",
        (ring, now, at),
        {"axis": -2, "mode": "linear"},
        dtype=ring.dtype,
        shape=ring.shape,
        version=_SCATTER_OPSET,
    )


class MergeGraph(nn.Module):
    """core.algorithm.bank.merge of one row, on plain tensors.

    Takes an order int64 [2*tokens] of each size, then rings [1, 1, tokens, channels], then seen [1, tokens, channels];
    gives the rings. The sums are products with a one-hot matrix: TensorRT has no scatter that adds.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.sizes = tuple(sorted({tokens for tokens, _ in layout.values()}))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        names, count = tuple(self.layout), len(self.sizes)
        orders = dict(zip(self.sizes, tensors[:count], strict=True))
        rings = dict(zip(names, tensors[count : count + len(names)], strict=True))
        seen = dict(zip(names, tensors[count + len(names) :], strict=True))
        both = {name: torch.cat([rings[name][0, 0], seen[name][0]]) for name in names}  # [2*tokens, channels]
        chosen: dict[str, tuple[Tensor, Tensor]] = {}  # shares of the sources in each destination, and its own
        merged = []
        for name in names:
            tokens, guide = self.layout[name][0], guide_name(name, rings)
            sources, destinations = orders[tokens][:tokens], orders[tokens][tokens:]
            if guide not in chosen:
                directions = normalized(both[guide])
                similarity = directions.index_select(0, sources) @ directions.index_select(0, destinations).T
                target = similarity.argmax(dim=-1)  # [sources]
                numbers = torch.arange(tokens, device=target.device)
                meet = (numbers[:, None] == target[None]).float()  # [destinations, sources]
                share = 1 / (1 + meet.sum(dim=1, keepdim=True))  # a sum of thousands would not fit into half precision
                chosen[guide] = (meet * share).to(directions.dtype), share.to(directions.dtype)
            others, own = chosen[guide]
            kept, added = (both[name].index_select(0, index) for index in (destinations, sources))
            merged.append((kept * own + others @ added)[None, None])
        return tuple(merged)


@contextmanager
def graph_attention(net: Any, *, in_place: bool) -> Iterator[type[Reading] | type[InPlaceReading]]:
    """Give a core.algorithm.unet.BankedUNet the attention that its graph needs; yield the type of its `reading`."""
    if not in_place:
        yield Reading
        return
    before = net.unet.attn_processors
    placed = {
        name: InPlaceAttention(one.layer, one.fuses) if isinstance(one, SelfAttention) else one
        for name, one in before.items()
    }
    net.unet.set_attn_processor(placed)
    try:
        yield InPlaceReading
    finally:
        net.unet.set_attn_processor(dict(before))


def frame_outputs(layout: Layout) -> list[str]:
    """Return the names of what a FrameGraph gives."""
    return ["shown", "in_flight.after", "origins.after", *(f"seen.{name}" for name in layout)]


def merge_inputs(layout: Layout, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return examples of what a MergeGraph takes, by name."""
    sizes = sorted({tokens for tokens, _ in layout.values()})
    orders = {f"order.{n}": torch.arange(2 * n, device=device) for n in sizes}
    rings = {f"bank.{name}": torch.zeros(1, 1, *shape, dtype=dtype, device=device) for name, shape in layout.items()}
    seen = {f"seen.{name}": torch.zeros(1, *shape, dtype=dtype, device=device) for name, shape in layout.items()}
    return orders | rings | seen


def export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    version: tuple[int, int],
    weights: Mapping[str, Tensor],
) -> Graph:
    """Write the module's graph to `path`, its weights beside it in `path`.data, for TensorRT of that version.

    inputs: examples, whose shapes are the graph's. weights: those that Graph.constants is to name. Raises PlanError
    where TensorRT would refuse the graph.
    """
    import onnx

    # clones: the exporter takes one tensor that is given twice for one input
    given = tuple(value.detach().clone() for value in inputs.values())
    with torch.no_grad(), _without_remarks():
        program = torch.onnx.export(
            module.eval(),
            given,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    constants = _constants(program.model.graph.initializers.values(), weights)
    program.save(str(path), include_initializers=True, keep_initializers_as_inputs=False, external_data=True)
    for one in program.model.graph.initializers.values():
        one.const_value = None  # the exporter keeps the graph alive somewhere, and that would keep the model
    del program
    model = onnx.load(str(path), load_external_data=False)
    _tidy(model)
    if reasons := refused(model, version):
        raise PlanError(
            f"TensorRT {'.'.join(map(str, version))} would refuse this model's graph: {'; '.join(reasons[:3])}"
            f"{f' and {len(reasons) - 3} more' if len(reasons) > 3 else ''}; use --runtime compiled"
        )
    onnx.save(model, str(path))
    inputs_left, outputs_left = (tuple(one.name for one in side) for side in (model.graph.input, model.graph.output))
    return Graph(path, inputs_left, outputs_left, constants)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Silence the exporter's remarks to its own developers meanwhile; what goes wrong is raised."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _constants(values: Iterable[Any], weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return which weight each constant of the graph is, by comparing bytes."""
    known: dict[str, str] = {}
    for name, value in weights.items():
        known[_digest(value)] = name
        if value.ndim == 2:
            known.setdefault(_digest(value.T), f"{name}.T")
    found = {}
    for one in values if known else ():
        if one.const_value is not None and len(one.const_value.shape) >= 2:
            digest = hashlib.sha256(one.const_value.tobytes()).hexdigest()
            if digest in known:
                found[str(one.name)] = known[digest]
    return found


def _digest(value: Tensor) -> str:
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def _tidy(model: Any) -> None:
    """Remove what TensorRT need not see: empty tensors joined to others, inputs that nothing reads."""
    graph = model.graph
    empty = {one.name for one in graph.initializer if 0 in one.dims}
    shapes = {one.name: one.type.tensor_type.shape for one in (*graph.input, *graph.value_info)}
    empty |= {
        name for name, shape in shapes.items() if any(d.HasField("dim_value") and not d.dim_value for d in shape.dim)
    }
    for node in graph.node:
        if node.op_type == "Concat":
            node.input[:] = [name for name in node.input if name not in empty]
    _drop_unread(graph)
    _cast_what_is_joined(graph)
    if any(node.op_type == "TensorScatter" for node in graph.node):
        for one in model.opset_import:
            one.version = _SCATTER_OPSET if one.domain == "" else one.version
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.metadata_props[:], model.metadata_props[:]


def _cast_what_is_joined(graph: Any) -> None:
    """Cast the inputs of a Concat to its output's type: PyTorch joins numbers of several types, ONNX does not."""
    from onnx import helper

    types = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.output, *graph.value_info)}
    types |= {one.name: one.data_type for one in graph.initializer}
    nodes = []
    for node in graph.node:
        to = types.get(node.output[0])
        for index, name in enumerate(node.input if node.op_type == "Concat" and to else ()):
            if types.get(name, to) != to:
                cast = helper.make_node("Cast", [name], [f"{node.output[0]}.{index}"], f"{node.name}.{index}", to=to)
                nodes.append(cast)
                node.input[index] = cast.output[0]
        nodes.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unread(graph: Any) -> None:
    """Remove the nodes, constants and inputs that no output depends on, and outputs that are empty."""
    shapes = {one.name: one.type.tensor_type.shape for one in graph.output}
    kept = [
        one
        for one in graph.output
        if not any(d.HasField("dim_value") and not d.dim_value for d in shapes[one.name].dim)
    ]
    del graph.output[:]
    graph.output.extend(kept)
    needed = {one.name for one in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    for field, left in (
        (graph.node, nodes[::-1]),
        (graph.input, [one for one in graph.input if one.name in needed]),
        (graph.initializer, [one for one in graph.initializer if one.name in needed]),
    ):
        copies = [type(one).FromString(one.SerializeToString()) for one in left]
        del field[:]
        field.extend(copies)
