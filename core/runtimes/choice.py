"""Which runtime runs a model on this machine, and why: `resolve` decides every `auto` of the settings, once."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import torch

from core.errors import PlanError
from core.models.description import ModelDescription, describe, has_graphs, require
from core.models.resolved import Resolved
from core.plans import NOT_ASKED, TensorRtState
from core.runtimes.onnx import providers
from core.runtimes.tensorrt import readiness
from core.settings import EngineSettings, Provider, Runtime

DTYPES = {"cuda": "float16", "xpu": "float16"}  # that `auto` takes on each kind of device; elsewhere float32
# on mps float16 gives black pictures with some versions of macOS and PyTorch


def resolve(settings: EngineSettings) -> Resolved:
    """Return the settings with every `auto` decided: the GPU if there is one, and the quickest runtime that fits.

    Where TensorRT is asked for and cannot run, the next best runtime stands in, and `why` says so. The
    model must be on this machine. Raises ModelError.
    """
    require(settings.model)
    description = describe(settings.model)
    own = _device_and_dtype(settings, description)
    state = _tensorrt(description, own)
    runtime, why = _quickest(description, own, state)
    bare = own if not own.loras else replace(own, loras=())
    built_in = state.key is not None and state.key.loras  # then there may be another plan without them
    without_loras = _quickest(description, bare, _tensorrt(description, bare) if built_in else state)[0]
    provider, found = _provider(description, own, runtime)
    own = replace(own, runtime=runtime, provider=provider)
    return Resolved(description, own, f"{why}{found}", settings.runtime, without_loras, state)


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
        own = _device_and_dtype(wanted, description)
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


def _device_and_dtype(settings: EngineSettings, description: ModelDescription) -> EngineSettings:
    device = settings.device
    if device == "auto":
        device = _device(settings, description)
    dtype = settings.dtype
    if dtype == "auto":
        dtype = DTYPES.get(device.partition(":")[0], "float32")
    return replace(settings, device=device, dtype=dtype)


def _device(settings: EngineSettings, description: ModelDescription) -> str:
    """Return the device of PyTorch's that is taken where nobody names one."""
    if settings.provider not in (Provider.AUTO, Provider.CPU) or settings.runtime is Runtime.ONNX:
        return "cpu"  # where the onnx runtime's tensors are, whatever its provider runs on
    if torch.cuda.is_available():
        return "cuda"
    if settings.runtime is Runtime.COMPILED or has_graphs(description.folder):
        return "cpu"
    if torch.xpu.is_available():
        return "xpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _provider(description: ModelDescription, settings: EngineSettings, runtime: Runtime) -> tuple[Provider, str]:
    """Return the onnx runtime's provider, and what was found of the one that there is, as a further clause."""
    if settings.provider is not Provider.AUTO:
        return settings.provider, ""
    there = providers.candidate() if runtime is Runtime.ONNX else None
    if there is None:
        return Provider.CPU, ""
    finding = providers.recall(description, settings, there)
    if finding is None:
        return Provider.CPU, f"; {there} was not compared with eager yet"
    return (there if finding.taken else Provider.CPU), f"; {there}: {finding.told}"


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
    if settings.provider not in (Provider.AUTO, Provider.CPU):
        return Runtime.ONNX, f"{settings.provider} was asked for"
    if settings.device.startswith("cuda"):
        if find_spec("triton") is not None:
            return Runtime.COMPILED, "there is a CUDA device, and Triton to compile for it"
        return Runtime.EAGER, "there is a CUDA device, but not Triton, which compiles for it"
    if settings.device != "cpu":
        return Runtime.EAGER, f"PyTorch alone runs on {settings.device}"
    if not has_graphs(description.folder):
        return Runtime.EAGER, "the model has no graphs for the onnx runtime"
    if settings.dtype != "float32" or settings.loras:
        return Runtime.EAGER, "the onnx runtime takes float32 and no LoRAs"
    if settings.bank_graph:
        return Runtime.EAGER, f"the onnx runtime's graphs have the model's own bank, not {settings.bank_graph}"
    return Runtime.ONNX, "the quickest without a GPU"
