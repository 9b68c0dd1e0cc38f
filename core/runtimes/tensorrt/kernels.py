"""What TensorRT for RTX compiles on the card when it first runs a plan, kept for the next start.

It has such a runtime cache for each plan, card and driver. What is read is checked twice: its bytes by our hash, for
they become code, and what they were made for by the library itself; what does not pass is left, and made anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.runtimes.tensorrt.cache import write_helper

if TYPE_CHECKING:
    import tensorrt_rtx as rtx

_DIGEST = 32  # bytes of the hash, with which a file begins
_ALIGNMENT = 256  # bytes; where the memory that a context works in must begin at a multiple of it


def kernels_file(folder: Path, plan: str, place: str) -> Path:
    """Return where a plan's kernels are kept; place: core.plans.Machine.place."""
    return folder / f"{plan}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.kernels"


class Kernels:
    """The runtime cache of one plan, and the contexts that run the plan by it, one after the other.

    Plans are built with REQUIRE_USER_ALLOCATION (core.runtimes.tensorrt.build): the library gives them no context but
    one whose memory is ours. It takes none by itself while it runs, so that runs can be part of a CUDA graph.
    """

    def __init__(self, engine: rtx.ICudaEngine, file: Path, device: torch.device) -> None:
        """Take what the file has, if it is whole and the library accepts it, and the memory on the device.

        On a GPU something must lie there already: the library looks at the current context. Raises
        torch.OutOfMemoryError.
        """
        import tensorrt_rtx as rtx

        self._engine, self._file = engine, file
        self._config = engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(rtx.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache = self._config.create_runtime_cache()
        known = _read(file)
        self._kept = known if known and self._cache.deserialize(known) else b""
        self._config.set_runtime_cache(self._cache)
        self._size = engine.device_memory_size_v2
        self._memory = torch.empty(self._size + _ALIGNMENT, dtype=torch.uint8, device=device)

    def context(self, *, graphs: bool) -> rtx.IExecutionContext | None:
        """Return a new execution context, which takes the memory of the one before; None where the library refuses.

        graphs: whether the library itself shall capture its runs as CUDA graphs.
        """
        import tensorrt_rtx as rtx

        chosen = rtx.CudaGraphStrategy
        self._config.cuda_graph_strategy = chosen.WHOLE_GRAPH_CAPTURE if graphs else chosen.DISABLED
        context = self._engine.create_execution_context(self._config)
        if context is not None and self._size:
            begin = self._memory.data_ptr()
            context.set_device_memory(begin + -begin % _ALIGNMENT, self._size)
        return context

    def keep(self) -> None:
        """Write what was compiled since, whole or not at all; a full disk costs the next start some seconds."""
        told = self._cache.serialize()
        made = b"" if told is None else bytes(told)
        if made and made != self._kept:
            write_helper(self._file, hashlib.sha256(made).digest() + made)
            self._kept = made


def _read(file: Path) -> bytes:
    """Return what was kept, b"" where there is nothing or it was changed."""
    try:
        data = file.read_bytes()
    except OSError:
        return b""
    digest, made = data[:_DIGEST], data[_DIGEST:]
    return made if hashlib.sha256(made).digest() == digest else b""
