"""Whether TensorRT can run here, and which plan there is for a model."""

from __future__ import annotations

import importlib.util
import subprocess

import torch

from core.models.description import DETAIL, ModelDescription, fingerprint, weight_files
from core.plans import Machine, PlanKey, TensorRtState
from core.runtimes.tensorrt import cache
from core.settings import EngineSettings

DTYPES = ("float32", "float16", "bfloat16")
INSTALL = "python -m pip install tensorrt onnx onnxscript"
DEVICES = ("cuda",)
OLDEST = (10, 0)  # TensorRT's version


def may_run(device: str) -> bool:
    """Return whether TensorRT is installed and runs on such a device, without loading it, which takes a second."""
    return device.partition(":")[0] in DEVICES and importlib.util.find_spec("tensorrt") is not None


def why_not(device: str, dtype: str) -> str:
    """Return why TensorRT cannot run here, "" if it can; neither device nor dtype is auto."""
    if importlib.util.find_spec("tensorrt") is None:
        return f"its library is not installed ({INSTALL})"
    try:
        import tensorrt as trt
    except Exception as error:  # noqa: BLE001  the stub wheels raise whatever they like where their library is missing
        return f"its library cannot be loaded ({' '.join(str(error).split())[:120]})"
    if device.partition(":")[0] not in DEVICES or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "it needs an NVIDIA GPU, and PyTorch sees none" if device.startswith("cuda") else f"not on {device}"
    if dtype not in DTYPES:
        return f"it does not compute in {dtype}"
    if version() < OLDEST:
        return f"its version is {trt.__version__}; {'.'.join(map(str, OLDEST))} or newer is needed"
    return ""


def version() -> tuple[int, int]:
    """Return TensorRT's version, major and minor. Raises ImportError where the library cannot be loaded."""
    import tensorrt as trt

    major, minor = trt.__version__.split(".")[:2]
    return int(major), int(minor)


def machine(device: str) -> Machine:
    """Return what plans built here are bound to; runs nvidia-smi for the driver's version."""
    import tensorrt as trt

    if not device.startswith("cuda"):
        return Machine(trt.__version__, device, "0.0", "none")
    properties = torch.cuda.get_device_properties(torch.device(device))
    return Machine(trt.__version__, properties.name, f"{properties.major}.{properties.minor}", _driver())


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
    return (None, why) if why else (machine(where), "")


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
    parts = [description.folder / part for part in ("unet", "vae")]
    files = [part / name for part in parts for name in weight_files(part)]
    files += [description.folder / DETAIL / "model.safetensors"] if description.detail else []
    weights = cache.fingerprint(fingerprint(description), files)
    key = PlanKey.of(machine(settings.device), weights, settings)
    return TensorRtState("", key, cache.find(key))
