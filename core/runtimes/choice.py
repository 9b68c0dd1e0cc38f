"""Which runtime runs a model on this machine, and why: `resolve` decides every `auto` of the settings, once."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import torch

from core.errors import PlanError
from core.models.description import ModelDescription, describe, has_graphs, require
from core.models.resolved import Resolved
from core.plans import NOT_ASKED, TensorRtState
from core.runtimes.tensorrt import readiness
from core.settings import EngineSettings, Runtime


def resolve(settings: EngineSettings) -> Resolved:
    """Return the settings with every `auto` decided: CUDA if there is a GPU, and the quickest runtime that fits.

    Where TensorRT is asked for and cannot run, the next best runtime stands in, and `why` says so. The
    model must be on this machine. Raises ModelError.
    """
    require(settings.model)
    description = describe(settings.model)
    own = _device_and_dtype(settings)
    state = _tensorrt(description, own)
    runtime, why = _quickest(description, own, state)
    bare = own if not own.loras else replace(own, loras=())
    built_in = state.key is not None and state.key.loras  # then there may be another plan without them
    without_loras = _quickest(description, bare, _tensorrt(description, bare) if built_in else state)[0]
    return Resolved(description, replace(own, runtime=runtime), why, settings.runtime, without_loras, state)


def for_plan(settings: EngineSettings, capability: str = "") -> Resolved:
    """Return what a TensorRT plan for the settings is built from, and compared with, on TensorRT's runtime.

    Without LoRAs, but for a plan that they are built into. capability: of another machine's card for which it shall be
    built, on the CPU (core.runtimes.tensorrt.library.target), "" for this machine. Raises PlanError where TensorRT
    cannot do this here; ModelError.
    """
    require(settings.model)
    description = describe(settings.model)
    wanted = replace(settings, runtime=Runtime.TENSORRT)
    if capability:
        dtype = "float16" if settings.dtype == "auto" else settings.dtype
        own = replace(wanted, device="cpu", dtype=dtype, loras=())
        state = readiness.look_elsewhere(description, own, capability)
    else:
        own = _device_and_dtype(wanted)
        state = readiness.look(description, own)
    if state.unusable or state.key is None:
        raise PlanError(f"TensorRT cannot be used here: {state.unusable}")
    own = own if state.key.loras else replace(own, loras=())
    return Resolved(description, own, "as asked for", Runtime.TENSORRT, Runtime.TENSORRT, state)


def next_best(resolved: Resolved) -> Resolved:
    """Return the same on the quickest runtime besides TensorRT's."""
    runtime, why = _next_best(resolved.description, resolved.settings)
    return on_runtime(resolved, runtime, why)


def on_runtime(resolved: Resolved, runtime: Runtime, why: str) -> Resolved:
    """Return the same on another runtime, which is then the one without LoRAs too."""
    settings = replace(resolved.settings, runtime=runtime)
    return replace(resolved, settings=settings, why=why, without_loras=runtime)


def _device_and_dtype(settings: EngineSettings) -> EngineSettings:
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    return replace(settings, device=device, dtype=dtype)


def _tensorrt(description: ModelDescription, settings: EngineSettings) -> TensorRtState:
    """Look up what TensorRT has, unless nobody asks for it or it cannot be worth loading its library."""
    if settings.runtime not in (Runtime.AUTO, Runtime.TENSORRT):
        return NOT_ASKED
    if settings.runtime is Runtime.AUTO and not readiness.may_run(settings.device):
        return NOT_ASKED
    return readiness.look(description, settings)


def _quickest(description: ModelDescription, settings: EngineSettings, state: TensorRtState) -> tuple[Runtime, str]:
    """Return the runtime that is asked for or else the quickest, and why."""
    if settings.runtime not in (Runtime.AUTO, Runtime.TENSORRT):
        return settings.runtime, "as asked for"
    # who asks for TensorRT gets an unverified plan too: verifying runs it
    lacking = state.lacking(verified=settings.runtime is Runtime.AUTO)
    if not lacking:
        return Runtime.TENSORRT, "there is an engine for it"
    runtime, why = _next_best(description, settings)
    if settings.runtime is Runtime.TENSORRT:
        why = f"TensorRT cannot run this now: {lacking}"
    return runtime, why


def _next_best(description: ModelDescription, settings: EngineSettings) -> tuple[Runtime, str]:
    """Return the quickest runtime besides TensorRT's, and why."""
    if settings.device.startswith("cuda"):
        if find_spec("triton") is not None:
            return Runtime.COMPILED, "there is a CUDA device, and Triton to compile for it"
        return Runtime.EAGER, "there is a CUDA device, but not Triton, which compiles for it"
    if not has_graphs(description.folder):
        return Runtime.EAGER, "the model has no graphs for the onnx runtime"
    if settings.dtype != "float32" or settings.loras:
        return Runtime.EAGER, "the onnx runtime takes float32 and no LoRAs"
    return Runtime.ONNX, "the quickest without a GPU"
