"""A frame's inputs on the device, at fixed addresses where a compiled graph or a TensorRT plan reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from core.algorithm import stream
from core.algorithm.stream import SamplingParameters
from core.runtimes.copies import StagedInput


class DeviceInputs:
    """Keeps a frame's inputs on the device up to date: only what changed since the last frame is copied."""

    def __init__(
        self,
        rows: Mapping[str, Tensor],
        noise: Tensor,
        scalars: Mapping[str, Tensor],
        write_text: Callable[[Tensor], None],
    ) -> None:
        """Take the tensors to write, by the field names of RowCoefficients and of FrameScalars.named.

        write_text: brings the text [net_rows, words, width] to the device, and what the layers make of it.
        """
        self._rows = rows
        self._noise = noise
        self._scalars = {name: StagedInput(buffer) for name, buffer in scalars.items()}
        self._write_text = write_text
        self._written: tuple[SamplingParameters, Mapping[str, Tensor]] | None = None

    def refresh(self, sampling: SamplingParameters, scalars: Mapping[str, Tensor]) -> None:
        """Bring the next frame's inputs to the device; scalars: on the host, in FrameScalars.named's form."""
        before, scalars_before = self._written or (None, {})
        if before is None or sampling.rows is not before.rows:
            for name, buffer in self._rows.items():
                buffer.copy_(getattr(sampling.rows, name))
        if before is None or sampling.noise is not before.noise:
            self._noise.copy_(sampling.noise)
        if before is None or sampling.text is not before.text or sampling.negative_text is not before.negative_text:
            self._write_text(stream.text_rows(sampling))
        for name, staged in self._scalars.items():
            if name not in scalars_before or not torch.equal(scalars[name], scalars_before[name]):
                staged.set(scalars[name])
        self._written = sampling, scalars

    def weights_changed(self) -> None:
        """Write everything anew with the next frame: the layers make other keys and values of the same text."""
        self._written = None
