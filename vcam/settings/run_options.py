"""What `vcam run` was asked for, what is chosen for it on this machine, and what it did."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.settings import EngineSettings, Framing, Region
from vcam.commands import OnFailure
from vcam.settings.config import (
    CardTexts,
    MarkingSettings,
    MidiSettings,
    ObsSettings,
    OscSettings,
    RecordSettings,
    RemoteCodec,
    RemoteFallback,
)
from vcam.settings.engine_options import NOTHING_ASKED, EngineOptions, engine_settings
from vcam.settings.presets import Preset
from vcam.settings.profiles import Profile

DEFAULT_SIZE = (640, 480)


@dataclass(frozen=True)
class RunOptions:
    """What `vcam run` was asked for; None: not given, the program chooses.

    source: auto, camera, camera:NAME, pattern or a file. sink: auto, camera, none, ndi, spout, syphon or a file;
    also: further ones beside it. size: width and height published. frames: stop after so many published.
    idle_after_s: seconds without a reader of the virtual camera after which engine and camera rest, 0: never. port:
    the panel's first try, 0: any free one. strength: of every profile's look. framing: asked for here, over what a
    profile says; usual_framing: where it says nothing. region, elsewhere: of every profile's look. engine: asked for
    here, over what a profile asks for; machine: what config.toml says of the engine. threads: the engine's CPU threads.
    automatic: what the preset `auto` takes, by model, as this machine was measured before. remote: wss://host:port of
    the server where the engine is, "" for here; remote_fallback: what shows while that fails; remote_codec: how
    pictures go there.
    """

    source: str = "auto"
    sink: str = "auto"
    also: tuple[str, ...] = ()
    profile: str | None = None
    prompt: str | None = None
    size: tuple[int, int] | None = None
    fps: float = 30.0
    frames: int | None = None
    panel: bool = True
    open_panel: bool = False
    port: int = 8787
    on_failure: OnFailure = OnFailure.CARD
    mirror: bool = False
    idle_after_s: float = 30.0
    strength: float | None = None
    framing: Framing | None = None
    usual_framing: Framing = Framing.FILL
    region: Region | None = None
    elsewhere: str | None = None
    engine: EngineOptions = NOTHING_ASKED
    machine: EngineOptions = NOTHING_ASKED
    threads: int | None = None
    obs: ObsSettings = field(default_factory=ObsSettings)
    cards: CardTexts = field(default_factory=CardTexts)
    record: RecordSettings = field(default_factory=RecordSettings)
    marking: MarkingSettings = field(default_factory=MarkingSettings)
    osc: OscSettings = field(default_factory=OscSettings)
    midi: MidiSettings = field(default_factory=MidiSettings)
    remote: str = ""
    remote_fallback: RemoteFallback = RemoteFallback.NONE
    remote_codec: RemoteCodec = RemoteCodec.AUTO
    profiles_folder: Path | None = None
    automatic: Mapping[str, Preset] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """What a run did. publish_interval_ms: p50, p95, max; latency_ms (capture to publish): p50, p95."""

    captured: int
    translated: int
    published: int
    dropped: int
    publish_interval_ms: dict[str, float]
    latency_ms: dict[str, float]
    model: str
    runtime: str
    profile: str
    source: str
    sink: str
    restarts: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return an object for JSON."""
        return asdict(self)


def settings_for(profile: Profile, options: RunOptions) -> EngineSettings:
    """Return the settings of the engine that shows `profile` in a run with these options; see engine_settings."""
    asked = options.engine, profile.engine, options.machine
    return engine_settings(*asked, shape=options.size or DEFAULT_SIZE, automatic=options.automatic)


def engine_threads(options: RunOptions) -> int:
    """Return the engine's CPU threads: all cores up to two, else all but one, for camera and publisher."""
    there = cores()
    return options.threads or (there if there <= 2 else there - 1)


def cores() -> int:
    """Return how many of the CPU's cores this process may use."""
    count = os.cpu_count() or 1
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    return count


def processor() -> str:
    """Return what the system calls the processor."""
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                names: list[Any] = [row.partition(":")[2].strip() for row in file if row.startswith("model name")]
        except OSError:
            names = []
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
