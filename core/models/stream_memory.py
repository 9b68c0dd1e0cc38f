"""What a further stream on a loaded model takes; quick to ask where the model runs on the CPU."""

from __future__ import annotations

import math

from core.errors import SettingsError
from core.models import host_memory as host
from core.models.catalogue import in_gb
from core.models.resolved import Resolved
from core.settings import Runtime

_SLACK = 1.15  # what an allocator rounds up
_OWN_GRAPH = (Runtime.COMPILED, Runtime.TENSORRT)  # each stream keeps the tensors of its graph; others work in the same


def check_stream(resolved: Resolved, bank: int) -> int:
    """Return the bytes that a further stream takes. Raises SettingsError where there are fewer; ModelError.

    bank: bytes of its bank.
    """
    settings = resolved.settings
    wanted, on_cpu = math.ceil(bank * _SLACK), settings.device == "cpu"
    if on_cpu and settings.runtime not in _OWN_GRAPH:
        room = host.free_ram()
    else:
        from core.models import device_memory as memory  # imports diffusers, which takes seconds

        room = memory.free(settings.device)
        wanted += memory.need(resolved).work if settings.runtime in _OWN_GRAPH else 0
    if wanted > room:
        raise SettingsError(
            f"another stream of {resolved.description.name} at {settings.width}x{settings.height} needs "
            f"{in_gb(wanted)}, but {in_gb(room)} are free on {settings.device}; take fewer streams or a smaller size"
        )
    return wanted
