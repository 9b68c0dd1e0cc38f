"""How pictures and settings get into tensors that a graph reads, and results out of those that it writes."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch
from torch import Tensor

from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture


class StagedInput:
    """A tensor that a graph reads, and pinned ones on the host through which it is set without a wait.

    None of these may be written while it is on its way to the device. A frame's result is there before the next frame
    is begun, but what was queued after it (a merge) need not be: the values of two frames are on their way at most.
    """

    def __init__(self, buffer: Tensor, puts: int = 1) -> None:
        """puts: how often a frame sets it at most."""
        self.buffer = buffer
        pinned = (torch.empty_like(buffer, device="cpu", pin_memory=buffer.is_cuda) for _ in range(2 * puts))
        self._host = itertools.cycle(list(pinned))

    def put(self, value: Tensor) -> None:
        """Set it to a value on the host, in the order of the current stream."""
        host = next(self._host)
        host.copy_(value)
        self.buffer.copy_(host, non_blocking=True)


class Copies(Protocol):
    """Pictures in and out of a frame's tensors."""

    def take(self, picture: Picture | None) -> None:
        """The picture for the frame to come, RGB uint8 [height, width, 3]; None leaves the last one."""
        ...

    def give(self) -> PendingPicture:
        """The result, as a function that has it; to be called before the next frame, or not at all."""
        ...


class HostCopies:
    """Pictures in and out where the graph runs on the CPU."""

    def __init__(self, picture: Tensor, shown: Tensor) -> None:
        self._picture = picture
        self._shown = shown

    def take(self, picture: Picture | None) -> None:
        """See Copies."""
        if picture is not None:
            self._picture.numpy()[...] = picture

    def give(self) -> PendingPicture:
        """See Copies."""
        return lambda: self._shown.numpy().copy()


class DeviceCopies:
    """Pictures into and out of a CUDA device, by streams of their own.

    A picture goes in while the merge of the frame before may still run; a result comes out while the merge of its own
    frame runs.
    """

    def __init__(self, picture: Tensor, shown: Tensor) -> None:
        self._picture, self._shown = picture, shown
        self._given, self._result = (torch.empty_like(t, device="cpu", pin_memory=True) for t in (picture, shown))
        self._in, self._out = (torch.cuda.Stream(picture.device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def take(self, picture: Picture | None) -> None:
        """See Copies."""
        self._done.synchronize()  # by now the last frame's result is there, and nothing more reads its picture
        if picture is None:
            return
        self._given.numpy()[...] = picture
        with torch.cuda.stream(self._in):
            self._picture.copy_(self._given, non_blocking=True)
        torch.cuda.current_stream(self._picture.device).wait_stream(self._in)

    def give(self) -> PendingPicture:
        """See Copies."""
        self._out.wait_stream(torch.cuda.current_stream(self._shown.device))
        with torch.cuda.stream(self._out):
            self._result.copy_(self._shown, non_blocking=True)
            self._done.record()
        return self._developed

    def _developed(self) -> Picture:
        self._done.synchronize()
        result: Picture = self._result.numpy().copy()
        return result
