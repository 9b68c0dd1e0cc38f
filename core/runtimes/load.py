"""Loading a resolved model on its runtime, after a look at the memory that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import ShapeError
from core.models.catalogue import in_gb
from core.models.description import describe
from core.models.loading import device_of, quiet
from core.models.resolved import Resolved
from core.progress import Report, silent
from core.runtimes.choice import resolve
from core.runtimes.model import Model
from core.settings import EngineSettings, Runtime

if TYPE_CHECKING:
    from core.models.device_memory import Need

# the runtimes and what counts memory are imported late: onnx and tensorrt need neither diffusers nor transformers


def load(resolved: Resolved, report: Report = silent) -> Model:
    """Load the model on its runtime, its LoRAs fused. Raises ModelError, PlanError, SettingsError."""
    if (need := expected(resolved)) is not None:
        report(f"loading the model: {resolved.settings.model}, which takes about {need}", 0.55)
    report(f"{resolved.runtime} runtime: {resolved.why}", 0.55)
    if resolved.runtime is Runtime.ONNX:
        from core.runtimes.onnx import runtime as onnx

        return onnx.load(resolved)
    if resolved.runtime is Runtime.TENSORRT:
        from core.runtimes.tensorrt import runtime as tensorrt

        return tensorrt.load(resolved)
    with quiet():
        if resolved.runtime is Runtime.COMPILED:
            from core.runtimes import compiled

            return compiled.load(resolved, report)
        from core.runtimes import eager

        return eager.load(resolved)


def expected(resolved: Resolved) -> Need | None:
    """Return the memory that the engine will take on its device; None where that is not worked out before loading.

    That is so for a small model where much is free; on the onnx and the tensorrt runtime, for which diffusers would
    have to be imported (TensorRT says by itself what does not fit); and for a folder whose faults `load` will name.
    Raises SettingsError where the device cannot be used or has too little memory (with the largest size that fits), or
    the host too little RAM for loading; ModelError.
    """
    if resolved.runtime is Runtime.ONNX:
        return None
    from core.models import host_memory as host

    device_of(resolved.settings.device)
    if resolved.runtime is Runtime.TENSORRT:
        host.check_loading(resolved, host.free_ram())
        return None
    from core.models import device_memory as memory

    room = memory.free(resolved.settings.device)
    if memory.is_small(resolved, room):
        return None
    host.check_loading(resolved, host.free_ram())
    try:
        return memory.check(resolved, room)
    except ShapeError:
        return None


def outlook(model: str) -> tuple[bool, str]:
    """Return whether the model with its own settings fits into what is free here, and a sentence on it.

    Raises ModelError.
    """
    from core.models import device_memory as memory
    from core.models import host_memory as host

    own = describe(model)
    resolved = resolve(EngineSettings(model, own.width, own.height, own.steps, own.policy, own.slots))
    device = resolved.settings.device
    wanted, room = memory.need(resolved), memory.free(device)
    size = f"{model} at {own.width}x{own.height} takes about {wanted}; {in_gb(room)} are free on {device}"
    if wanted.total <= room:
        loading, ram = host.loading(resolved), host.free_ram()
        told = f"{size}; loading takes {in_gb(loading.needed)} of RAM, of which {in_gb(ram)} are free"
        return loading.needed <= ram, told + _building(resolved)
    fits = memory.largest(resolved, room)
    return False, f"{size}; " + (f"the largest size that fits is {fits[0]}x{fits[1]}" if fits else "no size fits")


def _building(resolved: Resolved) -> str:
    """Return what building a TensorRT plan takes, as a clause; "" where TensorRT cannot run."""
    from core.models import host_memory as host

    if resolved.tensorrt.unusable:
        return ""
    build = host.building(resolved)
    return f"; building its TensorRT engine takes up to {in_gb(build.ram)} of RAM and {in_gb(build.disk)} of the disk"
