"""How a runtime's calls and copies are made: at once on the CPU, queued on a GPU and captured there as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from core.runtimes.copies import Copies, DeviceCopies, HostCopies

_T = TypeVar("_T")
_WARM = 3  # runs before a capture: libraries choose their kernels and take their memory in the first ones


class Capture(Protocol):
    """Makes of a run one that can be capture as quickly as the device allows."""

    def __call__(self, run: Callable[[], _T], /) -> Callable[[], _T]:
        """See the class."""
        ...


class DevicePolicy(NamedTuple):
    """How a device is worked with. static_results: what a captured run gives lies at the same place every time."""

    capture: Capture
    copies: Callable[[Tensor, Tensor], Copies]
    static_results: bool


def device_policy(device: torch.device) -> DevicePolicy:
    """The way of that device."""
    if device.type == "cuda":
        return DevicePolicy(captured, DeviceCopies, static_results=True)
    return DevicePolicy(uncaptured, HostCopies, static_results=False)


def uncaptured(run: Callable[[], _T]) -> Callable[[], _T]:
    """The run, where there is nothing to capture."""
    return run


def captured(run: Callable[[], _T]) -> Callable[[], _T]:
    """The run as a CUDA graph; capturing runs it a few times."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> _T:
        graph.replay()
        return result

    return replay
