"""What the tray shows of a status: pure, so that it can be tested without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vcam.commands import Status


class Light(StrEnum):
    """What the icon says at a glance: its colour."""

    LIVE = "#2fae6b"
    BUSY = "#e0a030"
    RESTING = "#7d8596"
    TROUBLE = "#d9473f"


@dataclass(frozen=True)
class MenuProfile:
    """One profile in the menu."""

    id: str
    name: str
    current: bool


@dataclass(frozen=True)
class View:
    """All that the tray shows.

    line: of the menu and the tooltip. on: whether a translated picture goes out. alive: whether a camera runs.
    recording: whether what is published is recorded; hears: whether recordings have the microphone.
    """

    light: Light
    line: str
    on: bool
    panic: bool
    alive: bool
    profiles: tuple[MenuProfile, ...]
    recording: bool = False
    hears: bool = False


GONE = View(Light.RESTING, "The camera is not running", False, False, False, ())


def view(status: Status, profiles: Sequence[Mapping[str, Any]]) -> View:
    """Return what the tray shows of a status and the list of profiles."""
    light = {
        "running": Light.LIVE,
        "resting": Light.RESTING,
        "paused": Light.RESTING,
        "failed": Light.TROUBLE,
        "panic": Light.TROUBLE,
    }.get(status.state, Light.BUSY)
    what = {"running": f"{status.fps:.0f} fps", "panic": "panic: nothing is shown"}.get(status.state, status.state)
    wrong = status.reason or (status.notes[0] if status.notes else "")
    name = status.profile_name or status.profile
    line = f"{name}, {what}" if name and status.state == "running" else what[:1].upper() + what[1:]
    entries = (MenuProfile(str(one["id"]), str(one["name"]), one["id"] == status.profile) for one in profiles)
    return View(
        light,
        f"{line}: {wrong}" if wrong else line,
        status.state not in ("paused", "panic", "stopping"),
        status.state == "panic",
        True,
        tuple(entries),
        bool(status.recording),
        bool(status.microphone),
    )
