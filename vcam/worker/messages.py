"""What parent and child say to each other over their pipe."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.settings import Look, Lora


class Given(NamedTuple):
    """To the child: a picture lies in shared memory."""

    number: int
    captured_s: float


class NewLook(NamedTuple):
    """To the child: from the next picture on, blending over `frames` pictures."""

    look: Look
    frames: int


class NewLoras(NamedTuple):
    """To the child: fused into the weights that are loaded, before the next picture."""

    loras: tuple[Lora, ...]
    frames: int


class Prepare(NamedTuple):
    """To the child: prompts to encode when there is a moment."""

    prompts: tuple[str, ...]


class Forget(NamedTuple):
    """To the child: empty the bank."""


class Leave(NamedTuple):
    """To the child: end."""


class Progress(NamedTuple):
    """From the child while it loads."""

    text: str
    fraction: float


class Ready(NamedTuple):
    """From the child: it takes pictures now.

    facts: model, runtime, device, delay, bank_bytes, changes_loras, pid; note: what is to be said of the runtime;
    to_build: whether building a TensorRT engine would help.
    """

    facts: dict[str, Any]


class Done(NamedTuple):
    """From the child: a translation lies in shared memory, or (shown is None) none came of this picture."""

    shown: Given | None
    bank_bytes: int


class Raised(NamedTuple):
    """From the child: this picture or order failed, the engine goes on. at: "picture", "look" or "loras"."""

    at: str
    text: str


class Fused(NamedTuple):
    """From the child: these LoRAs are in the weights."""

    loras: tuple[Lora, ...]


class Failed(NamedTuple):
    """From the child, its last word: it cannot load. final: trying again will not help."""

    text: str
    final: bool


class Unknown(NamedTuple):
    """From the child: words of the prompt that the model does not know."""

    words: tuple[str, ...]
