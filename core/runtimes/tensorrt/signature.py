"""What a frame's graph, and so its plan, is given: tensors by name, and the two forms of reading a bank."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from core.algorithm.frame import FrameInputs, StreamTensors

IN_PLACE_SINCE = (10, 15)  # TensorRT's version that takes rings in place (TensorScatter)


class InPlaceReading(NamedTuple):
    """How each row of a call reads and writes rings in place; the first three as in core.algorithm.bank.Reading.

    at: int64 [rows], the slot of the ring where this frame's features go. allowed: bool [rows, slots+1], the slots
    that attention sees. held: nothing, for a growing ring is not written in place.
    """

    fresh: Tensor
    strength: Tensor
    threshold: Tensor
    at: Tensor
    allowed: Tensor
    held: None = None


def named_inputs(picture: Tensor, inputs: FrameInputs, tensors: StreamTensors, *, detailed: bool) -> dict[str, Tensor]:
    """Return every tensor that a frame is given, by its name in the graph.

    detailed: the model has a detail stage, and `source` is the picture of the frame that is shown.
    """
    plain = {"picture": picture, "noise": inputs.noise, "text": inputs.text}
    plain |= {"source": picture} if detailed else {}
    plain |= {"scale": inputs.scale, "residual": inputs.residual, "presence": inputs.presence}
    rows = {f"rows.{name}": value for name, value in inputs.rows._asdict().items()}
    reading = {name: value for name, value in inputs.reading._asdict().items() if value is not None}
    cross = {f"cross.{layer}": value for layer, value in inputs.cross.items()}
    remembered = {"in_flight": tensors.in_flight, "origins": tensors.origins}
    return plain | rows | reading | cross | remembered | {f"bank.{name}": ring for name, ring in tensors.bank.items()}
