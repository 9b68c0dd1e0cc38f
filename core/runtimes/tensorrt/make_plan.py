"""Making a model's TensorRT plan: exported, built, and put into the cache. core.verify compares it with eager."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.bank import Layout
from core.algorithm.frame import DetailedDecoder, FrameModule, PictureEncoder, example_inputs
from core.errors import BuildRefused, PlanError
from core.models import host_memory as host
from core.models.catalogue import in_gb
from core.models.loading import LoadedParts, banked, load_parts, quiet
from core.models.resolved import Resolved
from core.plans import BUILD, CachedPlan
from core.progress import Report
from core.runtimes.allocation import empty_device
from core.runtimes.choice import on_runtime
from core.runtimes.load import expected
from core.runtimes.model import on_device
from core.runtimes.tensorrt import build as building
from core.runtimes.tensorrt import cache, graphs, readiness
from core.runtimes.tensorrt import library as libraries
from core.runtimes.tensorrt import runtime as tensorrt
from core.runtimes.tensorrt.library import Library
from core.runtimes.tensorrt.runtime import FRAME, MERGE, PlanShape
from core.runtimes.tensorrt.signature import named_inputs
from core.settings import EngineSettings, Policy, Runtime

# every `resolved` here is one of core.runtimes.choice.for_plan


def there(resolved: Resolved) -> CachedPlan:
    """Return the plan for the settings that is in the cache. Raises PlanError where there is none."""
    if resolved.tensorrt.plan is None:
        raise PlanError(f"there is no TensorRT engine for these settings; {BUILD} makes it")
    return resolved.tensorrt.plan


def build(resolved: Resolved, report: Report, wanted: Callable[[], bool] = lambda: True) -> CachedPlan:
    """Build a new plan for the settings, which takes minutes. Raises PlanError, ModelError, SettingsError."""
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise PlanError(f"to build an engine {' and '.join(missing)} must be installed: {readiness.INSTALL}")
    # the model runs on eager for the export and for the comparison
    expected(on_runtime(resolved, Runtime.EAGER, "to build from"))
    folder, key, settings = cache.cache_folder(), resolved.tensorrt.key, resolved.settings
    assert key is not None
    needed = host.check_building(resolved, host.free_ram(), cache.free_disk(folder), folder)
    start_s = time.perf_counter()
    report(f"loading the model; it takes up to {in_gb(needed.ram)} of RAM, {in_gb(needed.disk)} of the disk", 0.0)
    library = libraries.named(key.machine.library)
    with on_device(settings.device), cache.scratch(folder) as made_in:
        # TensorRT for RTX asks a GPU for its part in a plan that can be refitted; there is none for another's card. And
        # LoRAs are built in only where the library has refused to put them into a plan
        refittable = resolved.tensorrt.machine is not None and not key.loras
        with quiet():
            made = export(resolved, library, made_in, report, refittable=refittable)
        empty_device()
        timing = cache.timing_cache(key.machine, folder)
        options = building.BuildOptions(
            getattr(torch, settings.dtype), key.machine.capability, refittable=refittable, timing=timing
        )
        try:
            files = _build(library, made.graphs, options, report, wanted)
        except BuildRefused:
            if not library.portable or not refittable:
                raise
            report(f"{library.name} builds no engine that LoRAs can be put into; building one without", 0.1)
            options = replace(options, refittable=False)
            files = _build(library, made.graphs, options, report, wanted)
        for graph in made.graphs.values():
            graph.remove()
        seconds, constants = time.perf_counter() - start_s, made.graphs[FRAME].constants
        name = resolved.description.name
        return cache.keep(
            key, name, files, constants, seconds, folder, refittable=options.refittable, layout=made.layout
        )


def _build(
    library: Library,
    made: Mapping[str, graphs.Graph],
    options: building.BuildOptions,
    report: Report,
    wanted: Callable[[], bool],
) -> dict[str, Path]:
    files = {name: graph.path.with_name(name) for name, graph in made.items()}
    for name, graph in made.items():
        building.build(library, graph.path, files[name], options, report, wanted)
    return files


class Exported(NamedTuple):
    """The graphs of a model by the names of their plans, and the layout of its bank."""

    graphs: dict[str, graphs.Graph]
    layout: Layout


def export(resolved: Resolved, library: Library, folder: Path, report: Report, *, refittable: bool) -> Exported:
    """Load the model and write its graphs into the folder. Raises ModelError, PlanError.

    refittable: whether a plan of them may get other weights, for which every weight is looked for among the constants.
    """
    settings = resolved.settings
    loaded, version = load_parts(resolved), library.takes
    shape = tensorrt.plan_shape(loaded.layout, settings, version)
    report("exporting the graph", 0.05)
    frame = frame_module(loaded, resolved)
    example = example_tensors(loaded, frame, settings, shape)
    with graphs.graph_attention(frame.net, in_place=shape.in_place) as reading, torch.inference_mode(False):
        module = graphs.FrameGraph(frame, list(example), reading)
        outputs, weights = graphs.frame_outputs(shape.layout), loaded.weights if refittable else {}
        made = {FRAME: graphs.export(module, example, outputs, folder / "frame.onnx", version, weights)}
    if settings.policy is Policy.MERGE and shape.layout:
        for group, names in enumerate(banks.merge_groups(shape.layout)):
            layout = {name: shape.layout[name] for name in names}
            given = graphs.merge_inputs(layout, loaded.dtype, loaded.device)
            outputs, path = [f"merged.{name}" for name in names], folder / f"merge-{group}.onnx"
            made[MERGE.format(group)] = graphs.export(graphs.MergeGraph(layout), given, outputs, path, version, {})
    return Exported(made, shape.layout)


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
    """Return every input of the frame's graph, of the right shape."""
    guidance, device = settings.guidance, loaded.device
    state = stream.initial_state(
        shape.layout, settings.steps, shape.slots, guidance, loaded.latent, loaded.dtype, device
    )
    memory = state.tensors._replace(bank=tensorrt.stream_rings(shape, state).tensors)
    _, length, width = loaded.encoder("").shape
    words, growing = (length, width), settings.growing
    inputs = example_inputs(frame.net, memory, shape.net_rows, words, growing=growing)  # type: ignore[arg-type]
    if shape.in_place:
        nothing = (0,) * shape.net_rows
        placed = tensorrt.in_place_reading(inputs.reading, nothing, shape.slots)
        inputs = inputs._replace(reading=placed)  # type: ignore[arg-type]
    picture = torch.zeros(settings.height, settings.width, 3, dtype=torch.uint8, device=device)
    return named_inputs(picture, inputs, memory, detailed=isinstance(frame.decode, DetailedDecoder))
