"""What further streams on a loaded model take; quick to ask where the model runs on the CPU.

And what a model with all of its streams will take, before it is loaded.
"""

from __future__ import annotations

import math

from core.errors import MemoryShort
from core.models import host_memory as host
from core.models.catalogue import in_gb
from core.models.resolved import Resolved
from core.settings import Runtime

_SLACK = 1.15  # what an allocator rounds up
_OWN_GRAPH = (Runtime.COMPILED, Runtime.TENSORRT)  # each stream keeps the tensors of its graph; others work in the same


def check_stream(resolved: Resolved, bank: int, streams: int = 1) -> int:
    """Return the bytes that so many further streams take. Raises MemoryShort where there are fewer; ModelError.

    bank: bytes of the bank of one.
    """
    settings = resolved.settings
    each, on_cpu = math.ceil(bank * _SLACK), settings.device == "cpu"
    if on_cpu and settings.runtime not in _OWN_GRAPH:
        room = host.free_ram()
    else:
        from core.models import device_memory as memory  # imports diffusers, which takes seconds

        room = memory.free(settings.device)
        each += memory.need(resolved).work if settings.runtime in _OWN_GRAPH else 0
    wanted = streams * each
    if wanted > room:
        what = "another stream" if streams == 1 else f"{streams} streams"
        take = "" if streams == 1 or room < each else f"--streams {room // each} or "
        raise MemoryShort(
            f"{what} of {resolved.description.name} at {settings.width}x{settings.height} needs {in_gb(wanted)}, but "
            f"{in_gb(room)} are free on {settings.device}; take {take}a smaller size"
        )
    return wanted


def check_with_streams(resolved: Resolved, streams: int, copies: int = 1) -> int:
    """Return the bytes that the model will take with so many streams, before it is loaded; ModelError.

    copies: of it that share this memory. Raises MemoryShort, with how many streams would fit, where there are fewer.
    """
    from core.models import device_memory as memory

    settings, need = resolved.settings, memory.need(resolved)
    each = math.ceil(need.bank * _SLACK) + (need.work if settings.runtime in _OWN_GRAPH else 0)
    room = memory.free(settings.device)
    wanted = copies * (need.total + streams * each)
    if wanted > room:
        fits = (room // copies - need.total) // each if each else 0
        remedy = f"--streams {fits} fits" if fits > 0 else "take a smaller --engine-size or fewer replicas"
        several = f"{copies} engines, each with" if copies > 1 else "an engine with"
        raise MemoryShort(
            f"{resolved.description.name} at {settings.width}x{settings.height}, {several} {streams} streams, needs "
            f"{in_gb(wanted)} ({in_gb(need.total)} once, {in_gb(each)} a stream), but {in_gb(room)} are free on "
            f"{settings.device}; {remedy}"
        )
    return wanted
