"""The `tensorrt` runtime: one plan for the whole frame and one for merging, all tensors at fixed addresses.

The rings of the bank stay where they are. Where TensorRT writes them itself (`in place`, core.runtimes.tensorrt.graphs)
each has a spare slot that takes every frame, and a kept frame moves the spare on; otherwise the features of kept frames
are copied into their slots after the call. core.runtimes.tensorrt.make_plan builds the plans.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.bank import BankUpdate, Layout
from core.algorithm.frame import next_sources
from core.algorithm.net import Picture
from core.algorithm.schedule import RowCoefficients
from core.algorithm.stream import PendingPicture, SamplingParameters, Stages, Step, StreamState
from core.errors import PlanError, PlanMemoryShort
from core.models import loras
from core.models.folder_files import one_line
from core.models.loading import betas_schedule, device_of
from core.models.resolved import Resolved
from core.plans import BUILD
from core.runtimes.copies import StagedInput, device_policy, uncaptured
from core.runtimes.inputs import DeviceInputs
from core.runtimes.model import Model
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache
from core.runtimes.tensorrt import library as libraries
from core.runtimes.tensorrt.beside import TextLayers, TextParts
from core.runtimes.tensorrt.kernels import Kernels, kernels_file
from core.runtimes.tensorrt.library import RTX, Library
from core.runtimes.tensorrt.signature import IN_PLACE_SINCE, InPlaceReading
from core.settings import EngineSettings, Policy

if TYPE_CHECKING:
    import tensorrt as trt
    import tensorrt_rtx as rtx

FRAME, MERGE = "frame.engine", "merge-{}.engine"  # the latter of a group of layers (core.algorithm.bank.merge_groups)
_AFTER, _CROSS = ".after", "cross."
_SCALARS = ("scale", "residual", "presence", "fresh", "strength", "threshold", "held", "at", "allowed")


def load(resolved: Resolved) -> Model:
    """Load the model on the plan that is in the cache. Raises ModelError, PlanError, SettingsError."""
    plan = resolved.tensorrt.plan
    if plan is None or plan.manifest is None:
        raise PlanError(f"there is no TensorRT engine for these settings; {BUILD}")
    settings, manifest = resolved.settings, plan.manifest
    device = device_of(settings.device)
    library = libraries.named(manifest.key.machine.library)
    shape = plan_shape(manifest.layout, settings, library.takes)
    machine = resolved.tensorrt.machine or manifest.key.machine
    with ThreadPoolExecutor(1, "engine") as pool:  # a large model's file is read and hashed for seconds
        files = [pool.submit(cache.read_file, plan, name) for name in manifest.files]
        parts = TextParts(resolved, device)
        built = []
        for name in manifest.files:
            engine = building.deserialize(library, files.pop(0).result())  # let go of when it is loaded
            built.append(LoadedPlan(library, engine, kernels_file(plan.folder, name, machine.place)))
    shapes = _shapes(built[0].engine)
    crossing = [name.removeprefix(_CROSS) for name in shapes if name.startswith(_CROSS)]
    layers = TextLayers(crossing, parts.weights, parts.pooled, device)
    opened: weakref.WeakSet[TensorRtStep] = weakref.WeakSet()

    def put(values: Mapping[str, Tensor]) -> None:
        parts.weights.put(values)
        layers.weights_changed(values)
        in_plan = refit(values)
        for step in opened:
            step.weights_changed(in_plan=in_plan)

    def refit(changed: Iterable[str]) -> bool:
        try:
            return _refit(built[0], manifest.constants, parts.weights, set(changed), device)
        except PlanError as error:
            if library.portable:
                cache.set_unrefittable(plan)  # the next start builds one with the LoRAs in it
            for step in opened:  # some of its weights may be the old ones: it shows nothing any more
                step.broken = f"the engine's weights could not be changed: {error}"
            raise

    if settings.loras and manifest.refittable:
        refit(parts.originals)

    def open_stream(state: StreamState) -> Step:
        try:
            step = TensorRtStep(built, shape, state, layers, settings.policy)
        except torch.OutOfMemoryError as error:
            told = "there is too little memory on the GPU for the TensorRT engine"
            remedy = "close what else uses it, choose a smaller size, or --runtime eager"
            raise PlanMemoryShort(f"{told}; {remedy}") from error
        except RuntimeError as error:  # of CUDA: what it does not capture, or a fault in the engine
            raise PlanError(
                f"the TensorRT engine cannot run on this GPU ({one_line(error)}); --runtime eager"
            ) from error
        opened.add(step)
        return step

    return Model(
        resolved,
        open_stream,
        parts.encoder,
        betas_schedule(resolved.description),
        shape.layout,
        cast("tuple[int, int, int]", shapes["noise"][1:]),
        getattr(torch, settings.dtype),
        device,
        weights=parts.weights,
        originals=parts.originals,
        put=put if manifest.refittable else None,
    )


def _shapes(engine: trt.ICudaEngine) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that the engine is given or gives."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {name: tuple(engine.get_tensor_shape(name)) for name in names}


def _refit(
    plan: LoadedPlan,
    constants: Mapping[str, str],
    weights: Mapping[str, Tensor],
    changed: set[str],
    device: torch.device,
) -> bool:
    """Put the changed ones of the weights into the engine, and return whether it has any of them.

    Weights are named as by core.models.loras.named_weights; the text encoder's are not in it.
    """

    def maker(name: str) -> Callable[[], Tensor]:
        plain = name.removesuffix(".T")
        return lambda: weights[plain].T if name.endswith(".T") else weights[plain]

    ours = {constant: name for constant, name in constants.items() if name.removesuffix(".T") in weights}
    chosen = {constant for constant, name in ours.items() if name.removesuffix(".T") in changed}
    values = loras.Values({constant: maker(ours[constant]) for constant in chosen})
    if values:
        others = loras.Values({constant: maker(name) for constant, name in ours.items() if constant not in chosen})
        stream = 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # nothing of the engine may be under way on another stream
            stream = torch.cuda.current_stream(device).cuda_stream
        building.refit(plan.library, plan.engine, values, stream, others)
    return bool(values)


@dataclass(frozen=True)
class LoadedPlan:
    """A plan as its library has loaded it. kernels: the file of what is compiled on the card, if the library does."""

    library: Library
    engine: trt.ICudaEngine
    kernels: Path


@dataclass(frozen=True)
class PlanShape:
    """What a plan's tensors are made for: the shape of a stream's bank, and whether its rings are written in place."""

    layout: Layout
    net_rows: int
    slots: int
    in_place: bool


def plan_shape(layout: Layout, settings: EngineSettings, version: tuple[int, int]) -> PlanShape:
    """Return the shape of those settings' plan, for TensorRT of that version; layout: of the bank, empty without."""
    fifo = settings.policy is Policy.FIFO
    rows = len(stream.net_rows(settings.guidance, settings.steps))
    in_place = fifo and bool(layout) and version >= IN_PLACE_SINCE and not settings.growing
    return PlanShape(layout, rows, settings.ring_slots, in_place)


@dataclass(frozen=True)
class StreamRings:
    """The bank of one stream. tensors: as the plan takes them; views: the same as [rows, slots, tokens, channels]."""

    tensors: dict[str, Tensor]
    views: dict[str, Tensor]


def stream_rings(shape: PlanShape, state: StreamState) -> StreamRings:
    """Return the state's own rings; or in place new ones, those of keys and values with a spare slot."""
    if not shape.in_place:
        return StreamRings(state.tensors.bank, state.tensors.bank)
    tensors, views = {}, {}
    for name, ring in state.tensors.bank.items():
        spare = not name.endswith(".feature")
        views[name] = ring.new_zeros(shape.net_rows, shape.slots + spare, *ring.shape[2:])
        tensors[name] = views[name].flatten(1, 2)[:, None] if spare else views[name]
    return StreamRings(tensors, views)


def in_place_reading(reading: Any, positions: tuple[int, ...], slots: int) -> InPlaceReading:
    """Return how rows read and write rings in place; positions: frames kept (see TensorRtStep)."""
    spares = [position % (slots + 1) for position in positions]
    alone = reading.fresh.tolist()
    allowed = [
        [not one or slot == spare for slot in range(slots + 1)] for one, spare in zip(alone, spares, strict=True)
    ]
    device = reading.fresh.device
    at = torch.tensor(spares, dtype=torch.int64, device=device)
    fresh, strength, threshold = reading[:3]
    return InPlaceReading(fresh, strength, threshold, at, torch.tensor(allowed, device=device))


class PlanExecution:
    """A plan whose inputs and outputs lie at fixed addresses; `run` queues it on the current stream."""

    def __init__(self, plan: LoadedPlan, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Bind the tensors given by name, and make the others.

        Raises PlanError where the plan was built for other shapes or types.
        """
        types = {kind: ours for ours, kind in building.trt_types(plan.library).items()}
        self.tensors: dict[str, Tensor] = {}
        self._device = device
        self._engine = engine = plan.engine  # which must not go before its context
        self._library = plan.library
        self._side: torch.cuda.Stream | None = None  # where the library captures by itself
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape, dtype = tuple(engine.get_tensor_shape(name)), types[engine.get_tensor_dtype(name)]
            tensor = tensors[name] if name in tensors else torch.zeros(shape, dtype=dtype, device=device)
            if (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) != (shape, dtype, True):
                given = f"{tensor.dtype} {list(tensor.shape)}"
                raise PlanError(f"the engine's {name} is {dtype} {list(shape)}, not {given}; vcam engines build")
            self.tensors[name] = tensor
        ours = cast("rtx.ICudaEngine", engine)
        self._kernels = Kernels(ours, plan.kernels, device) if plan.library is RTX else None
        self._context = self._bound(graphs=False)

    def _bound(self, *, graphs: bool) -> trt.IExecutionContext:
        """Return a new context with every address; graphs: whether TensorRT for RTX captures its runs itself."""
        if self._kernels is None:
            context = self._engine.create_execution_context()
        else:
            context = cast("trt.IExecutionContext | None", self._kernels.context(graphs=graphs))
        if context is None:
            raise building.no_context(self._library)
        for name, tensor in self.tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise PlanError(f"TensorRT does not take the address of {name}; vcam engines build")
        return context

    def run(self) -> None:
        """Queue one run. Raises PlanError."""
        if self._side is None:
            self._queue()
            return
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            self._queue()
        current.wait_stream(self._side)

    def _queue(self) -> None:
        if not self._context.execute_async_v3(self._stream()):
            raise PlanError("TensorRT could not run the engine; vcam engines verify, or --runtime auto")

    def capturable(self) -> bool:
        """Run once, and return whether runs can be part of a CUDA graph; if not, the library captures them itself.

        It does so on a stream of its own: the default stream, which may be current, cannot be captured.
        """
        self.run()
        if self._kernels is None:
            return True
        self._kernels.keep()  # what this run compiled
        side = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if cast("rtx.IExecutionContext", self._context).is_stream_capturable(side.cuda_stream if side else 0):
            return True
        self._side = side
        self._context = self._bound(graphs=True)
        return False

    def _stream(self) -> int:
        return torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else 0


class TensorRtStep:
    """core.algorithm.stream.Step by TensorRT; works on the state's tensors in place.

    With rings in place a state's positions count the frames kept, modulo slots*(slots+1): modulo slots+1 they are the
    spare slot of keys and values, modulo slots the oldest slot of the features.
    """

    def __init__(
        self,
        built: Sequence[LoadedPlan],
        shape: PlanShape,
        state: StreamState,
        cross_attention: Callable[[Tensor], dict[str, Tensor]],
        bank_policy: Policy,
    ) -> None:
        """Run that stream's frames; built: the frame's TensorRT engine and, if the bank merges, each group's merge.

        cross_attention: as core.algorithm.unet.BankedUNet's. Raises PlanError.
        """
        self.broken = ""  # why it may show nothing any more
        tensors, self._shape = state.tensors, shape
        device = tensors.in_flight.device
        self._rings = stream_rings(shape, state)
        given = {"in_flight": tensors.in_flight, "origins": tensors.origins}
        given |= {f"bank.{name}": ring for name, ring in self._rings.tensors.items()}
        if shape.in_place:
            written = {name for name in shape.layout if not name.endswith(".feature")}
            given |= {f"seen.{name}": self._rings.tensors[name] for name in written}
        self._tensors = tensors._replace(bank={} if shape.in_place else tensors.bank)
        self._bank_policy = bank_policy
        self._execution = PlanExecution(built[0], given, device)
        ours = self._execution.tensors
        self._merging = [PlanExecution(plan, {}, device) for plan in built[1:]]
        policy = device_policy(device)
        self._capture = policy.capture
        self._merges: list[Callable[[], None]] = []
        self._capture_runs()
        self._inputs = _device_inputs(ours, cross_attention)
        rows = len(state.positions)  # all of which may be merged after one frame
        self._orders = [
            {name: StagedInput(value, rows) for name, value in one.tensors.items() if name.startswith("order.")}
            for one in self._merging
        ]
        self._copies = policy.copies(ours["picture"], ours["shown"])

    def weights_changed(self, *, in_plan: bool) -> None:
        """Work out with the next frame what the layers make of the text; in_plan: the plan has other weights too."""
        self._inputs.weights_changed()
        if in_plan:  # TensorRT does not say that a captured graph sees other weights
            self._capture_runs()

    def _capture_runs(self) -> None:
        own = self._tensors
        kept = (own.in_flight, own.origins, own.sources, *self._rings.tensors.values())
        with torch.inference_mode():
            before = [tensor.clone() for tensor in kept]
            frame = self._capture if self._execution.capturable() else uncaptured
            self._frame: Callable[[], None] = frame(self._run)
            self._merges = [(self._capture if one.capturable() else uncaptured)(one.run) for one in self._merging]
            torch._foreach_copy_(list(kept), before)  # capturing runs them

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """See core.algorithm.stream.Step."""
        if self.broken:
            raise PlanError(self.broken)
        update = self._bank_update(sampling, state)
        scalars = self._scalars(sampling, state, update, imagined=picture is None)
        with torch.inference_mode():
            self._copies.upload(picture)
            self._inputs.refresh(sampling, scalars)
            self._frame()
            pending = self._copies.download()
            self._keep(update)
            for row, group in update.merged:
                self._merge_group(row, group, sampling, update.ages[row])
        return pending, stream.next_state(state, self._tensors, update)

    def stages(self, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Stages:
        """See core.algorithm.stream.Step; a plan cannot be taken apart."""
        return {}

    def _run(self) -> None:
        ours, sources = self._execution.tensors, self._tensors.sources
        if "source" in ours:
            source, after = next_sources(ours["picture"], sources, self._bank_policy)
            ours["source"].copy_(source)
            sources.copy_(after)
        self._execution.run()
        for name in ("in_flight", "origins"):
            if name in self._execution.tensors:
                self._execution.tensors[name].copy_(self._execution.tensors[f"{name}{_AFTER}"])

    def _bank_update(self, sampling: SamplingParameters, state: StreamState) -> BankUpdate:
        shape, ages = self._shape, stream.row_ages(sampling, state)
        slots = shape.slots * (shape.slots + 1) if shape.in_place else banks.slot_count(self._rings.views)
        keeping = stream.keeping(sampling, shape.slots, len(banks.merge_groups(shape.layout)))
        return banks.next_update(slots, state.positions, ages, keeping)

    def _scalars(
        self, sampling: SamplingParameters, state: StreamState, update: BankUpdate, *, imagined: bool
    ) -> dict[str, Tensor]:
        """Return the frame's small inputs, on the host; which slots are written is worked out by `_keep`."""
        nothing_written = update._replace(writes=((),) * len(update.ages))
        slots = self._shape.slots
        scalars = stream.frame_scalars(sampling, slots, nothing_written, torch.device("cpu"), imagined=imagined)
        if not self._shape.in_place:
            return scalars.named()
        return scalars.named() | in_place_reading(scalars.reading, state.positions, slots)._asdict()

    def _keep(self, update: BankUpdate) -> None:
        """Copy into the rings what TensorRT has not written there itself."""
        into: list[Tensor] = []
        out_of: list[Tensor] = []
        for row, slots in enumerate(update.writes):
            for name, view in self._rings.views.items() if slots else ():
                count = view.shape[1]
                chosen = sorted({slot % count for slot in slots})
                source = self._execution.tensors[f"seen.{name}"][row]
                if count > self._shape.slots:  # the plan wrote the spare slot; a first frame goes to the others too
                    spare = update.positions[row] % count
                    source = view[row, spare]
                    chosen = [slot for slot in chosen if slot != spare] if update.ages[row] == 0 else []
                into += [view[row, slot] for slot in chosen]
                out_of += [source] * len(chosen)
        if into:
            torch._foreach_copy_(into, out_of)

    def _merge_group(self, row: int, group: int, sampling: SamplingParameters, age: int) -> None:
        names, tensors = banks.merge_groups(self._shape.layout)[group], self._merging[group].tensors
        layout = {name: self._shape.layout[name] for name in names}
        for tokens, order in banks.merge_orders(layout, sampling.seed, [age], sampling.rules).items():
            self._orders[group][f"order.{tokens}"].set(order[0])
        rings = [self._rings.views[name][row] for name in names]
        seen = [self._execution.tensors[f"seen.{name}"][row] for name in names]
        places = [tensors[f"{kind}.{name}"][0] for kind in ("bank", "seen") for name in names]
        torch._foreach_copy_(places, rings + seen)
        self._merges[group]()
        torch._foreach_copy_(rings, [tensors[f"merged.{name}"][0] for name in names])


def _device_inputs(
    tensors: Mapping[str, Tensor], cross_attention: Callable[[Tensor], dict[str, Tensor]]
) -> DeviceInputs:
    """Return what brings a frame's inputs into a plan's tensors; few plans have all of them."""
    rows = {name: tensors[f"rows.{name}"] for name in RowCoefficients._fields if f"rows.{name}" in tensors}

    def write_text(text: Tensor) -> None:
        if "text" in tensors:  # few UNets take it elsewhere too
            tensors["text"].copy_(text)
        for layer, value in cross_attention(text).items():
            tensors[f"{_CROSS}{layer}"].copy_(value)

    return DeviceInputs(
        rows, tensors["noise"], {name: tensors[name] for name in _SCALARS if name in tensors}, write_text
    )
