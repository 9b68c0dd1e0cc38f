"""What `vcam run` was asked for, what is chosen for it on this machine, and what it did."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from core.settings import EngineSettings, Policy, Runtime
from vcam.commands import OnFailure
from vcam.devices import sinks, sources
from vcam.doctor.machine import cores
from vcam.errors import VcamError
from vcam.frames import FrameSink, FrameSource
from vcam.log_file import JOURNAL
from vcam.offline.translate import engine_size
from vcam.settings.config import ObsSettings
from vcam.settings.profiles import Profile, engine_settings

DEFAULT_SIZE = (640, 480)
DEFAULT_PROFILE = "claymation"


@dataclass(frozen=True)
class RunOptions:
    """What `vcam run` was asked for; None: not given, the program chooses.

    source: auto, camera, camera:NAME, pattern or a file. sink: auto, camera, none or a file. size: width and height
    published. frames: stop after so many published. idle_after_s: seconds without a reader of the virtual camera after
    which engine and camera rest, 0: never. port: the panel's first try, 0: any free one. strength: of every profile's
    look. The fields from model to dtype are handed to profiles.engine_settings; default_model is for profiles that name
    none. threads: the engine's CPU threads.
    """

    source: str = "auto"
    sink: str = "auto"
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
    model: str | None = None
    default_model: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    policy: Policy | None = None
    slots: int | None = None
    runtime: Runtime | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    obs: ObsSettings = field(default_factory=ObsSettings)
    profiles_folder: Path | None = None


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
        """An object for JSON."""
        return asdict(self)


def say(text: str) -> None:
    """Tell the user what was chosen and what happened, and keep it in the log."""
    print(f"vcam: {text}", file=sys.stderr, flush=True)
    JOURNAL.info(text)


def settings_for(profile: Profile, options: RunOptions) -> EngineSettings:
    """The engine's settings: the command line over the profile over the model's description.

    Where nobody gave the engine a size, the model's number of pixels is spent in the shape of the published picture.
    """
    given = ("model", "width", "height", "steps", "policy", "slots", "runtime", "device", "dtype")
    asked = {name: getattr(options, name) for name in given}
    settings = engine_settings(profile, **asked, default_model=options.default_model or "embedded")
    if {"width", "height"} & profile.engine.keys() or options.width is not None or options.height is not None:
        return settings
    width, height = engine_size(*(options.size or DEFAULT_SIZE), settings.width * settings.height)
    return replace(settings, width=width, height=height)


def choose_source(options: RunOptions) -> FrameSource:
    """The source that was asked for; auto: the first real camera, else the test picture, and says which."""
    wanted, size = options.source, options.size or DEFAULT_SIZE
    if wanted == "auto":
        cameras = sources.list_cameras()
        if cameras:
            say(f"source: {cameras[0].name} (the first camera found)")
            return sources.Webcam(cameras[0].identity, size, options.fps)
        say("source: the test picture, because no camera was found (--source FILE takes a video)")
        return sources.Pattern(size, options.fps)
    if wanted == "pattern":
        return sources.Pattern(size, options.fps)
    if wanted == "camera" or wanted.startswith("camera:"):
        name = wanted.partition(":")[2]
        if name.casefold() == sources.OUR_NAME.casefold():
            sources.choose_camera(name, [])  # says why not
        return sources.Webcam(name, size, options.fps)
    return sources.VideoLoop(Path(wanted))


def choose_sink(options: RunOptions) -> FrameSink:
    """The sink that was asked for; auto: the virtual camera, else none, and says which and why."""
    size = options.size or DEFAULT_SIZE
    if options.sink != "auto":
        return sinks.open_sink(options.sink, size, options.fps)
    try:
        sink = sinks.open_sink("camera", size, options.fps)
        say(f"sink: {sink.name}")
    except VcamError as error:
        say(f"sink: none, the panel's preview alone; {error}")
        sink = sinks.open_sink("none", size, options.fps)
    return sink


def engine_threads(options: RunOptions) -> int:
    """The engine's CPU threads: all cores up to two, else all but one, which is left to camera and publisher."""
    there = cores()
    return options.threads or (there if there <= 2 else there - 1)
