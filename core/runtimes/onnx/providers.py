"""ONNX Runtime's providers: whose hardware its graphs run on, which of them there are here, and what each was found.

Builds of ONNX Runtime for other makers' hardware are packages of their own that hold the same module. One that is
installed lies apart, in the environment's folder `provider` (install_scripts/common.sh), so that it replaces nothing.
This file imports neither torch nor, before it is asked for, ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from core import folders
from core.errors import SettingsError
from core.models.description import ModelDescription, fingerprint
from core.settings import EngineSettings, Provider

_NAMES = {
    Provider.CPU: "CPUExecutionProvider",
    Provider.OPENVINO: "OpenVINOExecutionProvider",
    Provider.DIRECTML: "DmlExecutionProvider",
    Provider.COREML: "CoreMLExecutionProvider",
    Provider.MIGRAPHX: "MIGraphXExecutionProvider",
}
_REMEDY = (
    "./install_scripts/run.sh --provider {} (Windows: run.ps1) installs it where it can run, or use --provider cpu"
)
_FILE = "providers.json"  # what was found of the providers, in the cache folder
_KEPT = 50  # findings; the oldest go first
_BEGUN = "begun"  # in the place of a finding: how many trials ended with their process
_TRIALS = (
    2  # so many of them are taken for the provider's doing: one may have been killed, by Ctrl-C or for another look
)


class Placement(NamedTuple):
    """Where ONNX Runtime put a model's graphs: how many of their nodes there are, and how many fell back to the CPU."""

    provider: Provider
    nodes: int
    on_cpu: int

    def __str__(self) -> str:
        return f"{self.provider}, {self.on_cpu} of {self.nodes} nodes on the CPU"


class ProviderFinding(NamedTuple):
    """What a comparison with eager found of a provider. taken: whether `auto` takes it; told: why, as a clause."""

    taken: bool
    told: str


def apart() -> Path | None:
    """Return the folder of the build of ONNX Runtime that lies apart, None where there is none."""
    folder = Path(sys.prefix) / "provider"
    return folder if (folder / "onnxruntime").is_dir() else None


def library(provider: Provider = Provider.AUTO) -> Any:
    """Return ONNX Runtime: for the CPU the ordinary build, else the one apart where there is one.

    A process has one of them: the first that it asked for.
    """
    folder = apart()
    if folder is not None and provider is not Provider.CPU and "onnxruntime" not in sys.modules:
        sys.path.insert(0, str(folder))
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # core/__init__.py keeps it from being set up
    return onnxruntime


def candidate() -> Provider | None:
    """Return the provider that `auto` may take here instead of the CPU, None where there is none."""
    if apart() is None and sys.platform != "darwin":  # the ordinary build has CoreML on macOS, and else only the CPU
        return None
    have = library().get_available_providers()
    return next((one for one, name in _NAMES.items() if one is not Provider.CPU and name in have), None)


def require(provider: Provider) -> Any:
    """Return ONNX Runtime with that provider, which is not auto. Raises SettingsError where it has it not."""
    found = library(provider)
    if _NAMES[provider] not in (have := found.get_available_providers()):
        mine = ", ".join(one for one, name in _NAMES.items() if name in have)
        raise SettingsError(
            f"provider is {provider}, which ONNX Runtime {found.__version__} here has not (it has {mine}); "
            + _REMEDY.format(provider)
        )
    return found


def options(onnxruntime: Any, provider: Provider) -> tuple[Any, list[Any]]:
    """Return a session's options for the provider, and the providers that it is given."""
    made = onnxruntime.SessionOptions()
    if provider is Provider.CPU:
        return made, [_NAMES[provider]]
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    made.log_severity_level = 3  # that nodes fall back is counted, and told in the status
    own: dict[str, str] = {}
    if provider is Provider.DIRECTML:
        made.enable_mem_pattern = False  # which it does not support
    elif provider is Provider.COREML:
        own = {"ModelFormat": "MLProgram"}
    elif provider is Provider.OPENVINO:
        own = {"device_type": _openvino_device(onnxruntime)}
    return made, [(_NAMES[provider], own), _NAMES[Provider.CPU]]


def _openvino_device(onnxruntime: Any) -> str:
    """Return the best of the devices that OpenVINO has here: a card, an NPU, the CPU."""
    found: list[str] = onnxruntime.capi._pybind_state.get_available_openvino_device_ids()
    return next((one for kind in ("GPU", "NPU") for one in found if one.startswith(kind)), "CPU")


def placement(provider: Provider, sessions: list[Any]) -> Placement | None:
    """Return where the sessions' nodes were put; None for the CPU, and where ONNX Runtime does not tell (1.24 does)."""
    if provider is Provider.CPU or not hasattr(sessions[0], "get_provider_graph_assignment_info"):
        return None
    parts = [part for session in sessions for part in session.get_provider_graph_assignment_info()]
    counts = [(part.ep_name, len(part.get_nodes())) for part in parts]
    on_cpu = sum(count for name, count in counts if name == _NAMES[Provider.CPU])
    return Placement(provider, sum(count for _, count in counts), on_cpu)


# ------------------------------------------------------------------------------------------------------ what was found


def recall(description: ModelDescription, settings: EngineSettings, provider: Provider) -> ProviderFinding | None:
    """Return what was found of the provider for that model and size on this machine, None if nothing was yet."""
    found = _read().get(_key(description, settings, provider))
    if (begun := _begun(found)) >= _TRIALS:
        return ProviderFinding(False, f"the engine's process ended {begun} times while it was tried")
    try:
        return None if found is None else ProviderFinding(bool(found["taken"]), str(found["told"]))
    except (KeyError, TypeError):
        return None


def remember(
    description: ModelDescription, settings: EngineSettings, provider: Provider, finding: ProviderFinding
) -> None:
    """Keep what was found. Raises OSError."""
    _keep(_key(description, settings, provider), finding._asdict())


def begin_trial(description: ModelDescription, settings: EngineSettings, provider: Provider) -> None:
    """Keep that it is being tried: of a process that ends before more is known, nothing else tells. Raises OSError."""
    key = _key(description, settings, provider)
    _keep(key, {_BEGUN: _begun(_read().get(key)) + 1})


def take_trial_back(description: ModelDescription, settings: EngineSettings, provider: Provider) -> None:
    """Keep that the trial that was begun last ended without a finding, and without harm. Raises OSError."""
    key = _key(description, settings, provider)
    _keep(key, {_BEGUN: _begun(_read().get(key)) - 1})


def _begun(entry: object) -> int:
    """Return how many trials were begun of which nothing more is known."""
    begun = entry.get(_BEGUN) if isinstance(entry, dict) else None
    return max(0, begun) if isinstance(begun, int) else 0


def _keep(key: str, entry: dict[str, Any]) -> None:
    known = _read()
    known.pop(key, None)
    known[key] = entry  # the newest last
    path = folders.cache() / _FILE
    folders.make(path.parent)
    beside = path.with_name(f"{_FILE}.{os.getpid()}")
    beside.write_text(json.dumps(dict(list(known.items())[-_KEPT:]), indent=1), encoding="utf-8")
    beside.replace(path)


def _read() -> dict[str, Any]:
    try:
        known = json.loads((folders.cache() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is found out again
        return {}
    return known if isinstance(known, dict) else {}


def _key(description: ModelDescription, settings: EngineSettings, provider: Provider) -> str:
    folder = apart()
    builds = [] if folder is None else sorted(path.name for path in folder.glob("onnxruntime*.dist-info"))
    parts = [
        provider,
        builds or [metadata.version("onnxruntime")],
        fingerprint(description),
        [settings.width, settings.height, settings.steps, settings.policy, settings.guidance],
        [platform.node(), platform.machine(), platform.release()],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
