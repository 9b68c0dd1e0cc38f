"""`Resolved`: an engine's settings with every `auto` decided; core.runtimes.choice makes it once for each start."""

from __future__ import annotations

from dataclasses import dataclass

from core.models.description import ModelDescription
from core.plans import NOT_ASKED, TensorRtState
from core.settings import EngineSettings, FusionPlace, Policy, Runtime


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
    def places(self) -> tuple[str, ...] | FusionPlace | None:
        """Where the UNet fuses features (core.algorithm.unet.Places); nowhere without a bank."""
        if self.settings.policy is Policy.OFF:
            return ()
        place = self.settings.rules.place
        return self.description.places if place is FusionPlace.OWN else place

    @property
    def sources(self) -> tuple[int, int] | None:
        """Height and width of the pictures that a stream remembers for the detail stage; None without one."""
        return (self.settings.height, self.settings.width) if self.description.detail else None

    @property
    def subtoken(self) -> int:
        """Into how many parts a token's width is divided when features are matched at its own places; else 1."""
        own = self.settings.policy is not Policy.OFF and self.settings.rules.place is FusionPlace.OWN
        return self.description.subtoken if own else 1
