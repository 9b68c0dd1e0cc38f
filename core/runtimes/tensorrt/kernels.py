"""What TensorRT for RTX compiles on the card when it first runs a plan, kept for the next start.

It has such a runtime cache for each plan, card and driver. What is read is checked twice: its bytes by our hash, for
they become code, and what they were made for by the library itself; what does not pass is left, and made anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from core.runtimes.tensorrt.cache import write_helper

if TYPE_CHECKING:
    import tensorrt_rtx as rtx

_DIGEST = 32  # bytes of the hash, with which a file begins


def kernels_file(folder: Path, plan: str, place: str) -> Path:
    """Return where a plan's kernels are kept; place: core.plans.Machine.place."""
    return folder / f"{plan}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.kernels"


class Kernels:
    """The runtime cache of one plan."""

    def __init__(self, engine: rtx.ICudaEngine, file: Path) -> None:
        """Take what the file has, if it is whole and the library accepts it."""
        self._engine, self._file = engine, file
        self._cache = engine.create_runtime_config().create_runtime_cache()
        known = _read(file)
        self._kept = known if known and self._cache.deserialize(known) else b""

    def context(self, *, graphs: bool) -> rtx.IExecutionContext | None:
        """Return a new execution context; graphs: whether the library itself shall capture its runs as CUDA graphs."""
        import tensorrt_rtx as rtx

        config = self._engine.create_runtime_config()
        config.set_runtime_cache(self._cache)
        chosen = rtx.CudaGraphStrategy
        config.cuda_graph_strategy = chosen.WHOLE_GRAPH_CAPTURE if graphs else chosen.DISABLED
        return self._engine.create_execution_context(config)

    def keep(self) -> None:
        """Write what was compiled since, whole or not at all; a full disk costs the next start some seconds."""
        made = bytes(self._cache.serialize())
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
