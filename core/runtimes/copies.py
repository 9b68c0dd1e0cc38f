"""How a device is worked with: pictures and small inputs in, results out, and runs that are repeated for every frame.

On the CPU everything happens at once. On a GPU copies are queued on streams of their own, and runs are captured as CUDA
graphs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture

_T = TypeVar("_T")
_WARM_UP = 3  # runs before a capture: libraries choose their kernels and take their memory in the first ones


class StagedInput:
    """A tensor that a graph reads, set without a wait through pinned tensors on the host.

    A pinned tensor must not be written while its last value is on its way to the device. A frame's result is there
    before the next frame begins, but what was queued after it (a merge) need not be: so the values of two frames may be
    on their way at once.
    """

    def __init__(self, buffer: Tensor, sets_per_frame: int = 1) -> None:
        """Stage for `buffer`; sets_per_frame: how often a frame sets it at most."""
        self.buffer = buffer
        pinned = (torch.empty_like(buffer, device="cpu", pin_memory=buffer.is_cuda) for _ in range(2 * sets_per_frame))
        self._host = itertools.cycle(list(pinned))

    def set(self, value: Tensor) -> None:
        """Copy a value on the host to the device, in the order of the current stream."""
        host = next(self._host)
        host.copy_(value)
        self.buffer.copy_(host, non_blocking=True)


class PictureCopies(Protocol):
    """Pictures into and out of a frame's tensors."""

    def upload(self, picture: Picture | None) -> None:
        """Copy the next frame's picture in, RGB uint8 [height, width, 3]; None leaves the last one there."""
        ...

    def download(self) -> PendingPicture:
        """Begin to copy the result out; call what comes back before the next frame, or not at all."""
        ...


class HostCopies:
    """PictureCopies where the graph runs on the CPU."""

    def __init__(self, picture: Tensor, shown: Tensor) -> None:
        self._picture = picture
        self._shown = shown

    def upload(self, picture: Picture | None) -> None:
        """See PictureCopies."""
        if picture is not None:
            self._picture.numpy()[...] = picture

    def download(self) -> PendingPicture:
        """See PictureCopies."""
        return lambda: self._shown.numpy().copy()


class DeviceCopies:
    """PictureCopies of a CUDA device, by streams of their own.

    A picture is copied in while the merge of the frame before may still run; a result is copied out while the merge of
    its own frame runs.
    """

    def __init__(self, picture: Tensor, shown: Tensor) -> None:
        self._picture, self._shown = picture, shown
        self._given, self._result = (torch.empty_like(t, device="cpu", pin_memory=True) for t in (picture, shown))
        self._in, self._out = (torch.cuda.Stream(picture.device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def upload(self, picture: Picture | None) -> None:
        """See PictureCopies."""
        self._done.synchronize()  # the last frame's result is there now, and nothing reads its picture any more
        if picture is None:
            return
        self._given.numpy()[...] = picture
        with torch.cuda.stream(self._in):
            self._picture.copy_(self._given, non_blocking=True)
        torch.cuda.current_stream(self._picture.device).wait_stream(self._in)

    def download(self) -> PendingPicture:
        """See PictureCopies."""
        self._out.wait_stream(torch.cuda.current_stream(self._shown.device))
        with torch.cuda.stream(self._out):
            self._result.copy_(self._shown, non_blocking=True)
            self._done.record()
        return self._downloaded

    def _downloaded(self) -> Picture:
        self._done.synchronize()
        result: Picture = self._result.numpy().copy()
        return result


class Capture(Protocol):
    """Turns a run into one that can be repeated as quickly as the device allows."""

    def __call__(self, run: Callable[[], _T], /) -> Callable[[], _T]:
        """Return what repeats the run."""
        ...


class DevicePolicy(NamedTuple):
    """How a device is worked with; static_results: a captured run leaves its result at the same address every time."""

    capture: Capture
    copies: Callable[[Tensor, Tensor], PictureCopies]
    static_results: bool


def device_policy(device: torch.device) -> DevicePolicy:
    """Return how that device is worked with."""
    if device.type == "cuda":
        return DevicePolicy(captured, DeviceCopies, static_results=True)
    return DevicePolicy(uncaptured, HostCopies, static_results=False)


def uncaptured(run: Callable[[], _T]) -> Callable[[], _T]:
    """Return the run itself: a CPU has nothing to capture."""
    return run


def captured(run: Callable[[], _T]) -> Callable[[], _T]:
    """Capture the run as a CUDA graph, which runs it a few times, and return what replays it."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # by default no other thread may take memory or ask after its work meanwhile: it, and the capture, would fail
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()

    def replay() -> _T:
        graph.replay()
        return result

    return replay
