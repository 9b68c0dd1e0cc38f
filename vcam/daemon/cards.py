"""The daemon's state in words, and the card that stands in for the picture."""

from __future__ import annotations

from enum import StrEnum

from vcam.fit import Card
from vcam.frames import TranslatorState

FAREWELL = Card("Camera off", "StreamV2V Camera is not running", tone="blank")
PANIC = Card("Camera off", tone="blank")


class Halt(StrEnum):
    """Why nothing is translated although all could go on."""

    NO = ""
    PAUSED = "paused"
    PANIC = "panic"
    STOPPING = "stopping"


def describe(
    halt: Halt, engine: TranslatorState, source_trouble: str, resting: bool = False
) -> tuple[str, str, float | None]:
    """The daemon's state, the reason and the progress (see Status)."""
    if halt:
        return halt.value, "", None
    # an engine that is ready and has had no picture waits for the camera, as we do
    waits = bool(engine.facts and source_trouble) and engine.phase != "failed"
    if engine.phase in ("failed", "restarting", "starting") and not waits:
        return engine.phase, engine.text, engine.progress
    if resting:
        return "resting", "no program looks at the camera", None
    if source_trouble:
        return "waiting", source_trouble, None
    return "running", "", None


def card_for(state: str, reason: str, progress: float | None) -> Card:
    """The card that a state shows."""
    match state:
        case "starting" | "running":
            return Card("Starting", _sentence(reason), progress)
        case "restarting":
            return Card("One moment", _sentence(reason), progress)
        case "waiting":
            return Card("Waiting for the camera", _sentence(reason), tone="warning")
        case "failed":
            return Card("No picture", _sentence(reason), tone="warning")
        case "paused":
            return Card("Paused", tone="calm")
        case "resting":
            return Card("Resting", "The picture comes at once when a program looks", tone="calm")
        case "panic":
            return PANIC
        case _:
            return FAREWELL


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
