"""The StreamV2V engine as a library: `Engine`, what it is built from, and the errors that it raises.

Each name is imported when it is first used, so that `import core.settings` loads neither PyTorch nor numpy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.engine import Engine
    from core.errors import (
        BuildCancelled,
        BuildRefused,
        MetricError,
        ModelError,
        PlaceError,
        PlanError,
        SettingsError,
        ShapeError,
        StreamV2VError,
    )
    from core.models.resolved import Resolved
    from core.progress import Report
    from core.runtimes.choice import resolve
    from core.settings import EngineSettings, Guidance, Look, Lora, OnSwitch, Policy, Provider, Runtime

__all__ = [
    "BuildCancelled",
    "BuildRefused",
    "Engine",
    "EngineSettings",
    "Guidance",
    "Look",
    "Lora",
    "MetricError",
    "ModelError",
    "OnSwitch",
    "PlaceError",
    "PlanError",
    "Policy",
    "Provider",
    "Report",
    "Resolved",
    "Runtime",
    "SettingsError",
    "ShapeError",
    "StreamV2VError",
    "resolve",
]

# ONNX Runtime writes an identifier of this machine and a database into the user's cache folder while it is imported,
# and huggingface_hub tells the hub what is loaded; both read these once, so they stand before any import of the two.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

_MODULES = {
    "Engine": "core.engine",
    "Report": "core.progress",
    "Resolved": "core.models.resolved",
    "resolve": "core.runtimes.choice",
    **dict.fromkeys(
        ["EngineSettings", "Guidance", "Look", "Lora", "OnSwitch", "Policy", "Provider", "Runtime"], "core.settings"
    ),
}


def __getattr__(name: str) -> Any:
    """Return a name of `__all__` from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "core.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
