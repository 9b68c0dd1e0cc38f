"""Whether TensorRT can run here, and whether there is an engine for a model."""

from __future__ import annotations

import importlib.util
import subprocess

import torch

from core.models.description import DETAIL, ModelDescription, describe, weight_files
from core.runtimes.onnx.runtime import fingerprint
from core.runtimes.tensorrt import cache as engines
from core.runtimes.tensorrt.cache import Key, Machine, Verdict
from core.settings import EngineSettings

DTYPES = ("float32", "float16", "bfloat16")
BUILD = "vcam engines build"
INSTALL = "python -m pip install tensorrt onnx onnxscript"
DEVICES = ("cuda",)
OLDEST = (10, 0)  # TensorRT's version


def may_run(device: str) -> bool:
    """Whether TensorRT runs on such a device and is installed; without a look at the library, which takes a second."""
    return device.partition(":")[0] in DEVICES and importlib.util.find_spec("tensorrt") is not None


def why_not(device: str, dtype: str) -> str:
    """Why TensorRT cannot run here, "" if it can; device and dtype have nothing left to decide."""
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
    """TensorRT's, major and minor. Raises ImportError where the library is not there, or cannot be loaded."""
    import tensorrt as trt

    major, minor = trt.__version__.split(".")[:2]
    return int(major), int(minor)


def machine(device: str) -> Machine:
    """What engines built here are bound to."""
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


def device() -> str:
    """Where TensorRT would run here."""
    return "cuda" if torch.cuda.is_available() or "cpu" not in DEVICES else "cpu"


def key(description: ModelDescription, settings: EngineSettings) -> Key:
    """Of the engine for those settings, which have nothing left to decide."""
    parts = [description.folder / part for part in ("unet", "vae")]
    files = [part / name for part in parts for name in weight_files(part)]
    files += [description.folder / DETAIL / "model.safetensors"] if description.detail else []
    return engines.key(machine(settings.device), engines.fingerprint(fingerprint(description), files), settings)


def state(description: ModelDescription, settings: EngineSettings, *, verified: bool) -> str:
    """Why no engine for those settings may run, "" if one may; TensorRT must work here.

    verified: only one that was compared with eager.
    """
    found = engines.find(key(description, settings))
    if found is None:
        return f"it has no engine for this yet ({BUILD})"
    if found.problem or found.manifest is None:
        return f"its engine is of no use: {found.problem} ({BUILD} --again)"
    if verified and found.manifest.verdict is not Verdict.VERIFIED:
        return "its engine was not compared with eager yet (vcam engines verify)"
    return ""


def found_wrong(settings: EngineSettings) -> str:
    """What a comparison with eager found where the engine for those settings is wrong, "" otherwise.

    The settings have nothing left to decide; TensorRT must work here. Raises ModelError.
    """
    found = engines.find(key(describe(settings.model), settings))
    if found is None or found.manifest is None or found.manifest.verdict is not Verdict.WRONG:
        return ""
    return f"wrong: {found.manifest.compared}"
