"""`Model`: what every runtime makes of a model's parts, and all that the engine knows of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.algorithm.bank import Layout
from core.algorithm.prompts import PromptEncoder
from core.algorithm.schedule import Schedule
from core.models.resolved import Resolved

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from core.algorithm.stream import Step, StreamState
    from core.models.loading import LoadedParts
    from core.runtimes.onnx.providers import Placement


@dataclass(frozen=True)
class Model:
    """A model loaded on its runtime, good for any number of streams.

    open: returns how the frames of a stream that begins with the given state are taken; some runtimes compile then.
    layout: of the bank, empty without one. latent: channels, height, width. beside: the executor that decodes a picture
    while the next is begun, None where decoding is waited for. threads: of PyTorch's operations between the runtime's
    calls, None for as many as PyTorch has. weights: by core.models.loras.named_weights' names, with the LoRAs in them.
    originals: the same without LoRAs, of those that LoRAs change. put: copies new values into the weights, None where
    the runtime cannot change them. placement: on whose hardware ONNX Runtime runs it, None for others and the CPU.
    """

    resolved: Resolved
    open: Callable[[StreamState], Step]
    encoder: PromptEncoder
    schedule: Schedule
    layout: Layout
    latent: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device
    beside: Executor | None = None
    threads: int | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    originals: Mapping[str, Tensor] = field(default_factory=dict)
    put: Callable[[Mapping[str, Tensor]], None] | None = None
    placement: Placement | None = None

    @staticmethod
    def of_parts(
        resolved: Resolved,
        parts: LoadedParts,
        open_stream: Callable[[StreamState], Step],
        put: Callable[[Mapping[str, Tensor]], None] | None,
    ) -> Model:
        """Return the model of parts that PyTorch has loaded; open_stream and put as `open` and `put` of the class."""
        return Model(
            resolved,
            open_stream,
            parts.encoder,
            parts.schedule,
            parts.layout,
            parts.latent,
            parts.dtype,
            parts.device,
            weights=parts.weights,
            originals=parts.originals,
            put=put,
        )


def on_device(device: str) -> AbstractContextManager[Any]:
    """Make a GPU the current one inside the `with`: CUDA's streams and graphs, and TensorRT, use that one."""
    return torch.cuda.device(torch.device(device)) if device.startswith("cuda") else nullcontext()
