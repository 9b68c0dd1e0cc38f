"""What the daemon and the engine's process send each other over their pipe."""

from __future__ import annotations

from typing import Literal, NamedTuple

from core.settings import Look, Lora
from vcam.frames import EngineFacts

# ---- to the engine's process


class TranslateFrame(NamedTuple):
    """Translate the picture that lies in shared memory; imagined: make one of the prompt alone instead."""

    number: int
    captured_s: float
    imagined: bool = False


class SetLook(NamedTuple):
    """Use this look from the next picture on, blending over `frames` pictures."""

    look: Look
    frames: int


class UseLoras(NamedTuple):
    """Fuse these LoRAs into the weights that are loaded, before the next picture."""

    loras: tuple[Lora, ...]
    frames: int


class EncodePrompts(NamedTuple):
    """Encode these prompts when there is a moment."""

    prompts: tuple[str, ...]


class EmptyBank(NamedTuple):
    """Empty the feature bank."""


class Exit(NamedTuple):
    """End the process."""


Order = TranslateFrame | SetLook | UseLoras | EncodePrompts | EmptyBank | Exit

# ---- from the engine's process


class LoadingProgress(NamedTuple):
    """How far loading is; fraction: 0..1."""

    text: str
    fraction: float


class EngineLoaded(NamedTuple):
    """The engine takes pictures now."""

    facts: EngineFacts


class FrameDone(NamedTuple):
    """A translation lies in shared memory, or (shown is None) this picture gave none yet.

    unshown: the picture of which no translation will come, because a newer one replaced it or it came too late.
    """

    shown: TranslateFrame | None
    bank_bytes: int
    refreshes: int = 0
    unshown: TranslateFrame | None = None


class OrderFailed(NamedTuple):
    """This picture, look or set of LoRAs failed; the engine goes on. unshown: the picture, where it is one."""

    kind: Literal["picture", "look", "loras"]
    text: str
    unshown: TranslateFrame | None = None


class LorasFused(NamedTuple):
    """These LoRAs are in the weights."""

    loras: tuple[Lora, ...]


class LoadFailed(NamedTuple):
    """The engine cannot be loaded; the process ends. final: trying again will not help."""

    text: str
    final: bool
