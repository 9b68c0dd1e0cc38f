"""The `tensorrt` runtime: one engine for the whole frame and one for merging, all tensors at fixed addresses.

The rings of the bank stay where they are. Where TensorRT writes them itself (`in place`, core.runtimes.tensorrt.graphs)
each has
a spare slot that takes every frame, and a kept frame moves the spare on; otherwise the features of kept frames are
copied into their slots after the call. core.runtimes.tensorrt.make builds the engines.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.bank import BankUpdate, Layout
from core.algorithm.frame import DetailedDecoder, FrameModule, PictureEncoder, example_inputs, next_sources
from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture, SamplingParameters, Step, StreamState
from core.errors import PlanError
from core.models import loras
from core.models.loading import LoadedParts, banked, load_parts
from core.resolved import Resolved
from core.runtimes.capture import device_policy
from core.runtimes.copies import StagedInput
from core.runtimes.model import Model
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache, readiness
from core.runtimes.tensorrt.graphs import IN_PLACE_SINCE, InPlaceReading, named_inputs
from core.runtimes.tensorrt.plans import BUILD
from core.settings import EngineSettings, Policy

if TYPE_CHECKING:
    import tensorrt as trt

FRAME, MERGE = "frame.engine", "merge.engine"
_AFTER = ".after"


def load(resolved: Resolved) -> Model:
    """Load the model on the plan that is in the cache. Raises ModelError, PlanError, SettingsError."""
    plan = resolved.tensorrt.plan
    if plan is None or plan.manifest is None:
        raise PlanError(f"there is no TensorRT engine for these settings; {BUILD}")
    settings = resolved.settings
    # the plan has weights of its own; these are for LoRAs
    loaded = load_parts(resolved, nets_on=torch.device("cpu"))
    shape = plan_shape(loaded, settings, readiness.version())
    net = banked(loaded.unet, resolved)
    for part in net.text_layers():
        part.to(loaded.device)  # through these the text goes when it changes
    built = [building.deserialize(cache.read_file(plan, name)) for name in plan.manifest.files]
    constants = plan.manifest.constants
    opened: weakref.WeakSet[TensorRtStep] = weakref.WeakSet()

    def put(values: Mapping[str, Tensor]) -> None:
        loras.put(loaded.weights, values)
        refitted = refit(values)
        for step in opened:
            step.weights_changed(engine=refitted)

    def refit(changed: Iterable[str]) -> bool:
        return _refit(built[0], constants, {name: loaded.weights[name] for name in changed}, loaded.device)

    if settings.loras:
        refit(loaded.originals)

    def open_stream(state: StreamState) -> Step:
        step = TensorRtStep(built, shape, state, net.cross_attention, settings.policy)
        opened.add(step)
        return step

    return Model.of_parts(resolved, loaded, open_stream, put)


def _refit(
    engine: trt.ICudaEngine, constants: Mapping[str, str], values: Mapping[str, Tensor], device: torch.device
) -> bool:
    """The engine with these weights, by core.models.loras.named_weights' names; False: the text encoder's are no
    engine's.
    """
    found = {}
    for constant, name in constants.items():
        if (value := values.get(name.removesuffix(".T"))) is not None:
            found[constant] = value.T if name.endswith(".T") else value
    if found:
        building.refit(engine, found, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0)
    return bool(found)


@dataclass(frozen=True)
class PlanShape:
    """What an engine's tensors are made for: a stream's, and how its rings are kept."""

    layout: Layout
    net_rows: int
    slots: int
    in_place: bool


def plan_shape(loaded: LoadedParts, settings: EngineSettings, version: tuple[int, int]) -> PlanShape:
    """The shape of those settings' engine, by TensorRT of that version."""
    fifo = settings.policy is Policy.FIFO
    rows = len(stream.net_rows(settings.guidance, settings.steps))
    in_place = fifo and bool(loaded.layout) and version >= IN_PLACE_SINCE
    return PlanShape(loaded.layout, rows, settings.ring_slots, in_place)


def frame_module(loaded: LoadedParts, resolved: Resolved) -> FrameModule:
    """Return the whole frame as one module, which takes the parts over. Raises ModelError."""
    settings = resolved.settings
    parts = PictureEncoder(loaded.vae), banked(loaded.unet, resolved), loaded.decode
    guidance, prediction = settings.guidance, loaded.schedule.prediction
    frame = FrameModule(*parts, prediction=prediction, guidance=guidance, policy=settings.policy)
    return frame.eval().requires_grad_(False)


def example_tensors(
    loaded: LoadedParts, frame: FrameModule, settings: EngineSettings, shape: PlanShape
) -> dict[str, Tensor]:
    """Every input of the frame's graph, of the right shape."""
    guidance, device = settings.guidance, loaded.device
    state = stream.initial_state(
        shape.layout, settings.steps, shape.slots, guidance, loaded.latent, loaded.dtype, device
    )
    memory = state.tensors._replace(bank=stream_rings(shape, state).tensors)
    _, length, width = loaded.encoder("").shape
    inputs = example_inputs(frame.net, memory, shape.net_rows, (length, width))  # type: ignore[arg-type]
    if shape.in_place:
        nothing = (0,) * shape.net_rows
        inputs = inputs._replace(reading=in_place_reading(inputs.reading, nothing, nothing, shape.slots))  # type: ignore[arg-type]
    picture = torch.zeros(settings.height, settings.width, 3, dtype=torch.uint8, device=device)
    return named_inputs(picture, inputs, memory, detailed=isinstance(frame.decode, DetailedDecoder))


@dataclass(frozen=True)
class StreamRings:
    """The bank of one stream. tensors: as the engine has them; views: [rows, slots, tokens, channels]."""

    tensors: dict[str, Tensor]
    views: dict[str, Tensor]


def stream_rings(shape: PlanShape, state: StreamState) -> StreamRings:
    """The state's own rings; in place those of keys and values have a spare slot."""
    if not shape.in_place:
        return StreamRings(state.tensors.bank, state.tensors.bank)
    tensors, views = {}, {}
    for name, ring in state.tensors.bank.items():
        spare = not name.endswith(".feature")
        views[name] = ring.new_zeros(shape.net_rows, shape.slots + spare, *ring.shape[2:])
        tensors[name] = views[name].flatten(1, 2)[:, None] if spare else views[name]
    return StreamRings(tensors, views)


def in_place_reading(reading: Any, ages: tuple[int, ...], positions: tuple[int, ...], slots: int) -> InPlaceReading:
    """How rings in place are read and written by rows of those ages; positions: frames kept (see TensorRtStep)."""
    spares = [position % (slots + 1) for position in positions]
    allowed = [[age > 0 or slot == spare for slot in range(slots + 1)] for age, spare in zip(ages, spares, strict=True)]
    device = reading.fresh.device
    at = torch.tensor(spares, dtype=torch.int64, device=device)
    fresh, strength, threshold = reading
    return InPlaceReading(fresh, strength, threshold, at, torch.tensor(allowed, device=device))


class PlanExecution:
    """An engine whose inputs and outputs lie at fixed addresses; `run` queues it on the current stream."""

    def __init__(self, engine: trt.ICudaEngine, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """tensors: by name; those that are not given are made here.

        Raises PlanError where the engine was built for other shapes or types.
        """
        types = {kind: ours for ours, kind in building.trt_types().items()}
        self.tensors: dict[str, Tensor] = {}
        self._device = device
        self._engine = engine  # which must not go before its context
        context = engine.create_execution_context()
        if context is None:
            raise PlanError("TensorRT has no memory for the engine; choose a smaller size, or --runtime eager")
        self._context = context
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape, dtype = tuple(engine.get_tensor_shape(name)), types[engine.get_tensor_dtype(name)]
            tensor = tensors[name] if name in tensors else torch.zeros(shape, dtype=dtype, device=device)
            if (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) != (shape, dtype, True):
                given = f"{tensor.dtype} {list(tensor.shape)}"
                raise PlanError(f"the engine's {name} is {dtype} {list(shape)}, not {given}; vcam engines build")
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise PlanError(f"TensorRT does not take the address of {name}; vcam engines build")
            self.tensors[name] = tensor

    def run(self) -> None:
        """Raises PlanError."""
        handle = torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else 0
        if not self._context.execute_async_v3(handle):
            raise PlanError("TensorRT could not run the engine; vcam engines verify, or --runtime auto")


class TensorRtStep:
    """core.algorithm.stream.Step by TensorRT; works on the state's tensors in place.

    With rings in place a state's positions count the frames kept, modulo slots*(slots+1): modulo slots+1 they are the
    spare slot of keys and values, modulo slots the oldest of the features.
    """

    def __init__(
        self,
        built: Sequence[trt.ICudaEngine],
        shape: PlanShape,
        state: StreamState,
        cross_attention: Callable[[Tensor], dict[str, Tensor]],
        bank_policy: Policy,
    ) -> None:
        """built: engines, of the frame and (if the bank merges) of the merge. cross_attention: as
        core.algorithm.unet's.
        """
        memory, self._shape = state.tensors, shape
        self._cross_attention = cross_attention
        self._bank_policy = bank_policy
        device = memory.in_flight.device
        self._rings = stream_rings(shape, state)
        given = {"in_flight": memory.in_flight, "origins": memory.origins}
        given |= {f"bank.{name}": ring for name, ring in self._rings.tensors.items()}
        if shape.in_place:
            written = {name for name in shape.layout if not name.endswith(".feature")}
            given |= {f"seen.{name}": self._rings.tensors[name] for name in written}
        self._tensors = memory._replace(bank={} if shape.in_place else memory.bank)
        self._call = PlanExecution(built[0], given, device)
        tensors = self._call.tensors
        self._merging = PlanExecution(built[1], {}, device) if len(built) > 1 else None
        policy = device_policy(device)
        self._capture_run = policy.capture
        self._capture()
        small = ("scale", "residual", "presence", "fresh", "strength", "threshold", "at", "allowed")
        self._scalars = {name: StagedInput(tensors[name]) for name in small if name in tensors}
        orders = {} if self._merging is None else self._merging.tensors
        rows = len(state.positions)  # all of which may be merged after one frame
        self._orders = {name: StagedInput(value, rows) for name, value in orders.items() if name.startswith("order.")}
        self._was: SamplingParameters | None = None
        self._copies = policy.copies(tensors["picture"], tensors["shown"])

    def weights_changed(self, *, engine: bool) -> None:
        """What the text becomes is worked out with the next frame; engine: whether that has other weights too."""
        self._was = None
        if engine:  # TensorRT does not say that a captured graph sees other weights
            self._capture()

    def _capture(self) -> None:
        own = self._tensors
        kept = (own.in_flight, own.origins, own.sources, *self._rings.tensors.values())
        with torch.inference_mode():
            before = [tensor.clone() for tensor in kept]
            self._frame: Callable[[], None] = self._capture_run(self._run)
            self._merge = self._capture_run(self._merging.run) if self._merging else None
            torch._foreach_copy_(list(kept), before)  # capturing runs them

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """See core.algorithm.stream.Step."""
        now = self._turn(sampling, state)
        with torch.inference_mode():
            self._copies.take(picture)
            self._refresh(sampling, state, now, imagined=picture is None)
            self._frame()
            develop = self._copies.give()
            self._keep(now)
            for row in now.merged:
                self._merge_row(row, banks.merge_orders(self._rings.views, sampling.seed, [now.ages[row]]))
        return develop, stream.next_state(state, self._tensors, now)

    def _run(self) -> None:
        tensors, sources = self._call.tensors, self._tensors.sources
        if "source" in tensors:
            source, after = next_sources(tensors["picture"], sources, self._bank_policy)
            tensors["source"].copy_(source)
            sources.copy_(after)
        self._call.run()
        for name in ("in_flight", "origins"):
            if name in self._call.tensors:
                self._call.tensors[name].copy_(self._call.tensors[f"{name}{_AFTER}"])

    def _turn(self, sampling: SamplingParameters, state: StreamState) -> BankUpdate:
        shape = self._shape
        ages = [state.frame_index - row for row in stream.net_rows(sampling.guidance, sampling.noise.shape[0])]
        slots = shape.slots * (shape.slots + 1) if shape.in_place else banks.slot_count(self._rings.views)
        return banks.next_update(slots, state.positions, ages, policy=sampling.policy, interval=sampling.interval)

    def _refresh(self, sampling: SamplingParameters, state: StreamState, now: BankUpdate, *, imagined: bool) -> None:
        """Bring what has changed since the last frame to the engine."""
        was, tensors = self._was, self._call.tensors
        scalars = stream.frame_scalars(sampling, 0, now._replace(writes=()), torch.device("cpu"), imagined=imagined)
        reading: Any = scalars.reading
        if self._shape.in_place:
            reading = in_place_reading(reading, now.ages, state.positions, self._shape.slots)
        small = {
            "scale": scalars.scale,
            "residual": scalars.residual,
            "presence": scalars.presence,
            **reading._asdict(),
        }
        for name, staged in self._scalars.items():
            staged.put(small[name])
        if was is None or sampling.rows is not was.rows:
            for name, value in sampling.rows._asdict().items():
                if f"rows.{name}" in tensors:
                    tensors[f"rows.{name}"].copy_(value)
        if was is None or sampling.noise is not was.noise:
            tensors["noise"].copy_(sampling.noise)
        if was is None or sampling.text is not was.text or sampling.negative_text is not was.negative_text:
            text = stream.text_rows(sampling)
            if "text" in tensors:  # few UNets take it elsewhere too
                tensors["text"].copy_(text)
            for layer, value in self._cross_attention(text).items():
                tensors[f"cross.{layer}"].copy_(value)
        self._was = sampling

    def _keep(self, now: BankUpdate) -> None:
        """Into the rings goes what TensorRT has not written there itself."""
        into: list[Tensor] = []
        out_of: list[Tensor] = []
        for row, slots in enumerate(now.writes):
            for name, view in self._rings.views.items() if slots else ():
                count = view.shape[1]
                chosen = sorted({slot % count for slot in slots})
                source = self._call.tensors[f"seen.{name}"][row]
                if count > self._shape.slots:  # the engine wrote the spare slot; a first frame goes to the others too
                    spare = now.positions[row] % count
                    source = view[row, spare]
                    chosen = [slot for slot in chosen if slot != spare] if now.ages[row] == 0 else []
                into += [view[row, slot] for slot in chosen]
                out_of += [source] * len(chosen)
        if into:
            torch._foreach_copy_(into, out_of)

    def _merge_row(self, row: int, orders: Mapping[int, Tensor]) -> None:
        assert self._merging is not None
        assert self._merge is not None
        views, tensors = self._rings.views, self._merging.tensors
        for tokens, order in orders.items():
            self._orders[f"order.{tokens}"].put(order[0])
        rings = [view[row] for view in views.values()]
        seen = [self._call.tensors[f"seen.{name}"][row] for name in views]
        places = [tensors[f"{kind}.{name}"][0] for kind in ("bank", "seen") for name in views]
        torch._foreach_copy_(places, rings + seen)
        self._merge()
        torch._foreach_copy_(rings, [tensors[f"merged.{name}"][0] for name in views])
