"""Whether TensorRT can run here, with which of its libraries, and which plan there is for a model."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import torch

from core.models.description import DETAIL, ModelDescription, fingerprint, weight_files
from core.plans import ANY, CachedPlan, Machine, PlanKey, TensorRtState
from core.runtimes.tensorrt import cache
from core.runtimes.tensorrt import library as libraries
from core.runtimes.tensorrt.library import RTX, Library
from core.settings import EngineSettings, Lora

DTYPES = ("float32", "float16", "bfloat16")
INSTALL = f"python -m pip install {RTX.package} onnx onnxscript"
DEVICES = ("cuda",)


def may_run(device: str) -> bool:
    """Return whether a library is installed and runs on such a device, without loading it, which takes a second."""
    return device.partition(":")[0] in DEVICES and bool(libraries.installed())


def why_not(device: str, dtype: str) -> str:
    """Return why TensorRT cannot run here, "" if it can; neither device nor dtype is auto."""
    if not libraries.installed():
        return f"its library is not installed ({INSTALL})"
    if device.partition(":")[0] not in DEVICES or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "it needs an NVIDIA GPU, and PyTorch sees none" if device.startswith("cuda") else f"not on {device}"
    if dtype not in DTYPES:
        return f"it does not compute in {dtype}"
    return _unusable(of(device, dtype)) or of(device, dtype).why_not(_capability(device), dtype)


def why_no_target(capability: str, dtype: str) -> str:
    """Return why no plan can be built here for another machine's card, "" if one can."""
    if RTX not in libraries.installed():
        return f"{RTX.title} is not installed ({INSTALL})"
    if dtype not in DTYPES:
        return f"it does not compute in {dtype}"
    return _unusable(RTX) or RTX.why_not(capability, dtype)


def _unusable(library: Library) -> str:
    try:
        version = library.version
    except Exception as error:  # noqa: BLE001  the stub wheels raise whatever they like where their library is missing
        return f"its library cannot be loaded ({' '.join(str(error).split())[:120]})"
    if version < library.oldest:
        return f"its version is {library.version_text}; {'.'.join(map(str, library.oldest))} or newer is needed"
    return ""


def of(device: str, dtype: str) -> Library:
    """Return the library that runs on the device; one must be installed."""
    chosen = libraries.choose(_capability(device), dtype)
    assert chosen is not None
    return chosen


def _capability(device: str) -> str:
    if not device.startswith("cuda"):
        return "0.0"
    properties = torch.cuda.get_device_properties(torch.device(device))
    return f"{properties.major}.{properties.minor}"


def machine(device: str, dtype: str) -> Machine:
    """Return this machine as plans know it; runs nvidia-smi for the driver's version."""
    library = of(device, dtype)
    if not device.startswith("cuda"):
        return Machine(library.version_text, device, _capability(device), "none", library.module)
    properties = torch.cuda.get_device_properties(torch.device(device))
    return Machine(library.version_text, properties.name, _capability(device), _driver(), library.module)


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return told.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return f"CUDA {torch.version.cuda}"


def this_machine() -> tuple[Machine | None, str]:
    """Return this machine as plans know it; None, and why, where TensorRT cannot run here."""
    where = device()
    why = why_not(where, "float16")
    return (None, why) if why else (machine(where, "float16"), "")


def device() -> str:
    """Return the device on which TensorRT would run here."""
    return "cuda" if torch.cuda.is_available() or "cpu" not in DEVICES else "cpu"


def look(description: ModelDescription, settings: EngineSettings) -> TensorRtState:
    """Look up what TensorRT has for the settings, of which device and dtype are not auto.

    Loads TensorRT's library (a second), asks the driver for its version and reads the model's hash: do it once for a
    start. Raises ModelError.
    """
    if why := why_not(settings.device, settings.dtype):
        return TensorRtState(why)
    here = machine(settings.device, settings.dtype)
    bound = libraries.named(here.library).bound(here)
    weights, loras = _weights(description), _hash_of(settings.loras)
    plain = [PlanKey.of(one, weights, settings) for one in bound]
    found = [(key, plan) for key in plain if (plan := cache.find(key, machine=here)) is not None]
    if loras and not any(_refittable(plan) for _, plan in found):
        own = [replace(key, loras=loras) for key in plain]
        wanted = own[0] if found else plain[0]
        found = [(key, plan) for key in own if (plan := cache.find(key, machine=here)) is not None]
    else:
        wanted = plain[0]
        found = [one for one in found if not loras or _refittable(one[1])]
    usable = [one for one in found if not one[1].problem]
    key, plan = next(iter([*usable, *found]), (wanted, None))
    quick = here.capability in libraries.named(here.library).cards
    return TensorRtState("", key, plan, here, quick, cache.refusal(key))


def _refittable(plan: CachedPlan) -> bool:
    """Return whether LoRAs can be put into a plan; one that cannot be read is built anew."""
    return plan.manifest is None or plan.manifest.refittable


def _weights(description: ModelDescription) -> str:
    parts = [description.folder / part for part in ("unet", "vae")]
    files = [part / name for part in parts for name in weight_files(part)]
    files += [description.folder / DETAIL / "model.safetensors"] if description.detail else []
    return cache.fingerprint(fingerprint(description), files)


def _hash_of(loras: tuple[Lora, ...]) -> str:
    """Return a hash of what LoRAs add, "" for none; what is wrong with a file is told by who loads it."""
    if not loras:
        return ""
    try:
        files = [Path(one.path).expanduser() for one in loras]
        return cache.fingerprint(json.dumps([one.weight for one in loras]), files)
    except (OSError, RuntimeError):
        return "unread"


def look_elsewhere(description: ModelDescription, settings: EngineSettings, capability: str) -> TensorRtState:
    """Look up the plan for another machine's card; the state's machine is None. Raises ModelError."""
    if why := why_no_target(capability, settings.dtype):
        return TensorRtState(why)
    bound = Machine(RTX.version_text, ANY, capability, ANY, RTX.module)
    key = PlanKey.of(bound, _weights(description), settings)
    return TensorRtState("", key, cache.find(key))
