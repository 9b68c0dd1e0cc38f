"""`Resolved`: an engine's settings with every `auto` decided; core.runtimes.choice makes it once for each start."""

from __future__ import annotations

from dataclasses import dataclass

from core.models.description import ModelDescription
from core.plans import NOT_ASKED, TensorRtState
from core.settings import EngineSettings, Policy, Runtime


@dataclass(frozen=True)
class Resolved:
    """What an engine is built from on this machine; nobody asks again what is decided here.

    description: of the settings' model. settings: no auto is left in them. why: the reason for the runtime, as a
    clause. asked: the runtime as the user gave it. without_loras: the runtime that the same settings would get without
    their LoRAs. tensorrt: what TensorRT has for these settings.
    """

    description: ModelDescription
    settings: EngineSettings
    why: str = "as asked for"
    asked: Runtime = Runtime.AUTO
    without_loras: Runtime = Runtime.AUTO
    tensorrt: TensorRtState = NOT_ASKED

    @property
    def runtime(self) -> Runtime:
        """The runtime that runs the model."""
        return self.settings.runtime

    @property
    def places(self) -> tuple[str, ...] | None:
        """Where the UNet fuses features: module names, none without a bank; None for the paper's places."""
        return () if self.settings.policy is Policy.OFF else self.description.places

    @property
    def sources(self) -> tuple[int, int] | None:
        """Height and width of the pictures that a stream remembers for the detail stage; None without one."""
        return (self.settings.height, self.settings.width) if self.description.detail else None

    @property
    def subtoken(self) -> int:
        """Into how many parts a token's width is divided when features are matched; 1 without a bank."""
        return 1 if self.settings.policy is Policy.OFF else self.description.subtoken
