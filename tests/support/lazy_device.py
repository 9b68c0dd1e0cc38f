"""A stand-in for a CUDA device's queues, on the CPU: what is queued runs later, in any order that a device may choose.

A stream is a list of operations; which of them go on, and when, is drawn by chance, as far as waits and events allow.
Whoever writes a tensor that is still to be read, or reads one that is still to be written, gets wrong pictures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from core.runtimes.copies import DeviceCopies, DevicePolicy


class Stream:
    """Operations in their order; a wait is (the other stream, how far that must have come)."""

    def __init__(self, device: object = None) -> None:
        self.queued: list[Callable[[], None] | tuple[Stream, int]] = []
        self.done = 0

    def wait_stream(self, other: Stream) -> None:
        self.queued.append((other, len(other.queued)))

    def next_is_free(self) -> bool:
        """Whether there is an operation, and nothing that it waits for."""
        if self.done == len(self.queued):
            return False
        operation = self.queued[self.done]
        return not isinstance(operation, tuple) or operation[0].done >= operation[1]

    def step(self) -> None:
        operation = self.queued[self.done]
        if isinstance(operation, tuple):
            operation[0].run(operation[1])
        else:
            operation()
        self.done += 1

    def run(self, until: int) -> None:
        while self.done < until:
            self.step()


class LazyDevice(TorchFunctionMode):
    """Queues what a runtime does with its tensors, once `begin` was called."""

    def __init__(self, seed: int, haste: float) -> None:
        """haste: 0 runs an operation when somebody waits for it, 1 as soon as it may be run."""
        super().__init__()
        self._chance, self._haste = random.Random(seed), haste
        self._streams: list[Stream] = []
        self._current = [self.stream()]
        self._on_the_host: list[Tensor] = []
        self._at_once = True
        self.captures = 0

    def begin(self, host: Iterable[Tensor] = ()) -> None:
        """host: tensors that lie in RAM, beside the pinned ones, and so are written at once."""
        self._on_the_host += host
        self._at_once = False

    def way(self, device: torch.device) -> DevicePolicy:
        """core.runtimes.copies.device_policy, of this device."""
        return DevicePolicy(self.captured, DeviceCopies, static_results=True)

    def stream(self, device: object = None) -> Stream:
        self._streams.append(Stream())
        return self._streams[-1]

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self._current.append(stream)
        yield
        self._current.pop()

    def event(self) -> Any:
        device = self

        class Event:
            def __init__(self) -> None:
                self._at: tuple[Stream, int] | None = None

            def record(self) -> None:
                stream = device._current[-1]
                self._at = stream, len(stream.queued)

            def synchronize(self) -> None:
                if self._at is not None:
                    self._at[0].run(self._at[1])

        return Event()

    def captured(self, run: Callable[[], Any], /) -> Callable[[], Any]:
        """As a captured graph: its result lies at one place, and a replay is queued."""
        self.captures += 1
        with self._now():
            run()
            result = run()

        def again() -> None:
            with self._now():
                for place, value in zip(tree_leaves(result), tree_leaves(run()), strict=True):
                    if isinstance(place, Tensor):
                        place.copy_(value)

        def replay() -> Any:
            self._queue(again)
            return result

        return replay

    @contextmanager
    def _now(self) -> Iterator[None]:
        before, self._at_once = self._at_once, True
        yield
        self._at_once = before

    def _queue(self, operation: Callable[[], None]) -> None:
        self._current[-1].queued.append(operation)
        while self._chance.random() < self._haste and (
            free := [stream for stream in self._streams if stream.next_is_free()]
        ):
            self._chance.choice(free).step()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty_like and "pin_memory" in kwargs:
            del kwargs["pin_memory"]  # there is nothing to pin it for
            self._on_the_host.append(function(*args, **kwargs))
            return self._on_the_host[-1]
        writes = function in (Tensor.copy_, torch._foreach_copy_)
        if self._at_once or (writes and self._on_host(args[0]) and not kwargs.get("non_blocking")):
            return function(*args, **kwargs)
        if writes:

            def write() -> None:
                with self._now():
                    function(*args, **kwargs)

            self._queue(write)
            return args[0]
        if function is Tensor.clone:  # in its turn, as a device would
            self._current[-1].run(len(self._current[-1].queued))
        return function(*args, **kwargs)

    def _on_host(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and any(tensor is one for one in self._on_the_host)


@contextmanager
def lazy_device(monkeypatch: pytest.MonkeyPatch, seed: int, haste: float) -> Iterator[LazyDevice]:
    """Runtimes of streams that are opened meanwhile take the CPU for such a device."""
    device = LazyDevice(seed, haste)
    for runtime in ("compiled", "tensorrt.runtime"):
        monkeypatch.setattr(f"core.runtimes.{runtime}.device_policy", device.way)
    for name, value in (
        ("Stream", device.stream),
        ("Event", device.event),
        ("stream", device.on),
        ("current_stream", lambda of=None: device._current[-1]),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    with device:
        yield device
