"""What an engine server offers, and the engine that a camera gets for what it asks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from core.settings import EngineSettings, Lora
from vcam.errors import RemoteError


@dataclass(frozen=True)
class Offer:
    """What a server offers. usual: the settings that device, runtime and dtype are taken of, and that are loaded first.

    streams: cameras at once. models: names or folders that a camera may ask for. loras: paths by the names that cameras
    know. most_pixels: of a picture. per_client: cameras at once of one client, 0 for half of all.
    """

    usual: EngineSettings
    streams: int = 1
    models: tuple[str, ...] = ("embedded",)
    loras: dict[str, str] = field(default_factory=dict)
    most_pixels: int = 1024 * 1024
    per_client: int = 0

    @property
    def most_per_client(self) -> int:
        """How many cameras one client may have at once: not all, where there are several places."""
        return self.per_client or max(1, self.streams // 2)

    def settings_for(self, asked: EngineSettings) -> EngineSettings:
        """Return the engine that a camera gets; raises RemoteError, in words for its user."""
        if asked.model not in self.models:
            raise RemoteError(
                f"the server does not offer the model {asked.model[:100]!r}; it offers {', '.join(self.models)}"
            )
        if asked.width * asked.height > self.most_pixels:
            raise RemoteError(
                f"the server translates at most {self.most_pixels} pixels, not {asked.width}x{asked.height}; "
                "take a smaller --engine-size"
            )
        own = self.usual
        return replace(
            asked,
            loras=self.loras_for(asked.loras),
            device=own.device,
            dtype=own.dtype,
            runtime=own.runtime,
            provider=own.provider,
        )

    def loras_for(self, asked: tuple[Lora, ...]) -> tuple[Lora, ...]:
        """Return the LoRAs by the server's own paths; raises RemoteError for one that it does not offer."""
        for one in asked:
            if one.path not in self.loras:
                known = ", ".join(self.loras) or "none"
                raise RemoteError(f"the server does not offer the LoRA {one.path[:100]!r}; it offers {known}")
        return tuple(Lora(self.loras[one.path], one.weight) for one in asked)
