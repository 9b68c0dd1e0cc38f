"""What every surface (command line, panel, OBS, tray) may ask of the daemon, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from core.errors import SettingsError
from core.settings import Framing, Look, OnSwitch, Region, names
from vcam.errors import CommandError


class OnFailure(StrEnum):
    """What is published when there is no translated picture: the card, the last picture, or the raw camera."""

    CARD = "card"
    HOLD = "hold"
    RAW = "raw"


@dataclass(frozen=True)
class UseProfile:
    """Switch to a profile, by id or name."""

    profile: str


@dataclass(frozen=True)
class SetPrompt:
    """Replace the current look's prompt, blending over transition_ms (None: the profile's own)."""

    prompt: str
    transition_ms: int | None = None


@dataclass(frozen=True)
class ChangeLook:
    """Change some fields of the current look (core.settings.Look), by name."""

    changes: dict[str, Any] = field(default_factory=dict)


IMAGINE = "imagine"  # the source that has no pictures: they are made of the prompt alone


@dataclass(frozen=True)
class Mirror:
    """Mirror the picture, or show it as the camera gives it; on: None is the other way than now."""

    on: bool | None = None


@dataclass(frozen=True)
class SendAt:
    """Begin again with another published size, "1280x720": what --size takes."""

    size: str


@dataclass(frozen=True)
class UseSource:
    """Translate another source: what --source takes."""

    source: str


@dataclass(frozen=True)
class ChangeEngine:
    """Build another engine beside the running one, and swap: what of EngineOptions a command may ask for."""

    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reload:
    """Read the profiles anew: a file was added, changed or removed."""


@dataclass(frozen=True)
class NextProfile:
    """Switch to the profile after the current one."""


@dataclass(frozen=True)
class PreviousProfile:
    """Switch to the profile before the current one."""


@dataclass(frozen=True)
class Pause:
    """Rest: the card is shown until Resume."""


@dataclass(frozen=True)
class Resume:
    """Go on after Pause or Panic."""


@dataclass(frozen=True)
class Toggle:
    """Off if it is on (Pause), on if it is off (Resume): for one key that does both."""


@dataclass(frozen=True)
class Panic:
    """At once show a card that tells nothing, and nothing else, until Resume."""


@dataclass(frozen=True)
class Forget:
    """Empty the feature bank."""


@dataclass(frozen=True)
class StartRecording:
    """Record what is published into a file, until EndRecording."""


@dataclass(frozen=True)
class EndRecording:
    """End the recording; its file is complete when the status has it as `saved`."""


@dataclass(frozen=True)
class ToggleRecording:
    """Begin a recording, or end the one that runs: for one key that does both."""


@dataclass(frozen=True)
class UseMicrophone:
    """Record the microphone with the picture, or do not; on: None is the other way than now."""

    on: bool | None = None


@dataclass(frozen=True)
class Snapshot:
    """Keep the picture that is published now as a file."""


@dataclass(frozen=True)
class Stop:
    """End the daemon in order."""


Command = (
    UseProfile
    | SetPrompt
    | ChangeLook
    | Mirror
    | SendAt
    | UseSource
    | ChangeEngine
    | Reload
    | NextProfile
    | PreviousProfile
    | Pause
    | Resume
    | Toggle
    | Panic
    | Forget
    | StartRecording
    | EndRecording
    | ToggleRecording
    | UseMicrophone
    | Snapshot
    | Stop
)

_BY_NAME: dict[str, type[Any]] = {
    "use": UseProfile,
    "prompt": SetPrompt,
    "look": ChangeLook,
    "mirror": Mirror,
    "size": SendAt,
    "source": UseSource,
    "engine": ChangeEngine,
    "reload": Reload,
    "next": NextProfile,
    "previous": PreviousProfile,
    "pause": Pause,
    "resume": Resume,
    "toggle": Toggle,
    "panic": Panic,
    "forget": Forget,
    "record": StartRecording,
    "record-stop": EndRecording,
    "record-toggle": ToggleRecording,
    "microphone": UseMicrophone,
    "snapshot": Snapshot,
    "stop": Stop,
}
PROMPT_LIMIT = 2000  # characters; far more than a text encoder reads
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "profile": (str, "text"),
    "prompt": (str, "text"),
    "source": (str, "text"),
    "size": (str, "text"),
    "transition_ms": ((int, type(None)), "a whole number of milliseconds"),
    "changes": (dict, "an object of names and values"),
    "on": ((bool, type(None)), "true or false"),
}


def verbs() -> list[str]:
    """Return the names of all commands."""
    return list(_BY_NAME)


def to_json(command: Command) -> dict[str, Any]:
    """Return the command as an object for JSON: {"command": "use", "profile": "ink"}."""
    name = next(name for name, kind in _BY_NAME.items() if kind is type(command))
    return {"command": name, **asdict(command)}


def from_json(data: object) -> Command:
    """Return the command that `to_json` wrote; raise CommandError for anything else."""
    if not isinstance(data, dict) or not isinstance(data.get("command"), str):
        raise CommandError('a command is an object with "command": one of ' + ", ".join(_BY_NAME))
    name = data["command"]
    if name not in _BY_NAME:
        raise CommandError(f"unknown command {name[:40]!r}; there are: {', '.join(_BY_NAME)}")
    kind = _BY_NAME[name]
    known = {f.name for f in fields(kind)}
    arguments = {key: value for key, value in data.items() if key != "command"}
    for key, value in arguments.items():
        if key not in known:
            raise CommandError(f"{name}: unknown key {str(key)[:40]!r}; it takes {', '.join(sorted(known)) or 'none'}")
        allowed, words = _TYPES[key]
        if not isinstance(value, allowed) or (isinstance(value, bool) and key != "on"):
            raise CommandError(f"{name}: {key} must be {words}")
        if isinstance(value, str) and (len(value) > PROMPT_LIMIT or not value.isprintable()):
            raise CommandError(f"{name}: {key} must be one line of at most {PROMPT_LIMIT} characters")
    if not 0 <= (arguments.get("transition_ms") or 0) <= 60_000:
        raise CommandError(f"{name}: transition_ms must be between 0 and 60000")
    try:
        command: Command = kind(**arguments)
    except TypeError:
        missing = known - set(arguments)
        raise CommandError(f"{name}: {', '.join(sorted(missing))} is missing") from None
    return command


def from_text(text: str) -> Command:
    """Return the command that a text such as "next", "use ink" or "prompt a person of clay" says; raise CommandError.

    What is no verb is a profile: "ink" means "use ink".
    """
    verb, _, rest = text.strip().partition(" ")
    verb, rest = verb.lower(), rest.strip()
    if verb == "use" and rest:
        return UseProfile(rest)
    if verb == "prompt" and rest:
        return from_json({"command": "prompt", "prompt": rest})
    if not rest:
        try:
            return from_json({"command": verb})
        except CommandError:
            if not verb or verb in ("use", "prompt", "look"):
                raise
    return from_json({"command": "use", "profile": text.strip()})


@dataclass(frozen=True)
class RecorderState:
    """What of the status is the recorder's.

    recording: the file that what is published is recorded into, "" for none, recorded_s: how long it is; finishing: the
    recording that has ended and is being completed and signed; saved: the recording or picture that was kept last, ""
    for none. microphone: the one that recordings hear, "" for none; sound: how the one that runs hears it: "" without
    sound, "on", "cut" (paused, after a panic), "missing"; sound_trouble: why it is missing, in words.
    """

    recording: str = ""
    recorded_s: float = 0.0
    finishing: str = ""
    saved: str = ""
    microphone: str = ""
    sound: str = ""
    sound_trouble: str = ""


@dataclass(frozen=True)
class Status(RecorderState):
    """What the daemon says about itself.

    state: "starting", "running", "waiting" (for the source), "resting" (nobody looks), "restarting", "failed",
    "paused", "panic" or "stopping"; reason: why, in words, "" while all is well. fps: translated per second;
    published_fps: published per second; longest_interval_ms: between two published pictures, since the start;
    latency_ms: capture to publish, median, since the start; latency_now_ms: of the newest. refused: published
    pictures that the sink did not take. dropped: captured frames that were never translated. engine_pid: of the
    engine's process, None until it has loaded; restarts: how often it had to be started again. reader_count:
    programs that look at the virtual camera, None where it cannot be told; readers: their names. panel_port: of the
    panel and this API, None without them. logged: lines of the log so far. provider: by whose library TensorRT, or
    on whose hardware ONNX Runtime runs the model, and how many of its nodes fell back to the CPU, in words; ""
    where the runtime says it all. obs: how it stands with OBS Studio, in words; "" where nobody asked.
    preset: fast, balanced, fine or sharp, "" where a size was asked for; preset_asked: may be auto; preset_says: what
    auto has measured, in words. server: where the engine is, host:port, "" on this machine; server_ms: what the way
    of a picture there takes ("round trip", "encode", "network", "engine", "decode"), each p50 and p95.
    prompt_notes: what the model does not read of the prompt, in words.
    """

    state: str = "starting"
    reason: str = ""
    progress: float | None = None
    profile: str = ""
    profile_name: str = ""
    prompt: str = ""
    model: str = ""
    runtime: str = ""
    device: str = ""
    provider: str = ""
    preset: str = ""
    preset_asked: str = ""
    preset_says: str = ""
    source: str = ""
    sink: str = ""
    width: int = 0
    height: int = 0
    mirror: bool = False
    fps: float = 0.0
    published_fps: float = 0.0
    longest_interval_ms: float = 0.0
    latency_ms: float = 0.0
    latency_now_ms: float = 0.0
    captured: int = 0
    translated: int = 0
    published: int = 0
    refused: int = 0
    dropped: int = 0
    engine_pid: int | None = None
    restarts: int = 0
    bank_bytes: int = 0
    refreshes: int = 0
    reader_count: int | None = None
    readers: tuple[str, ...] = ()
    uptime_s: float = 0.0
    logged: int = 0
    panel_port: int | None = None
    obs: str = ""
    notes: tuple[str, ...] = ()
    prompt_notes: tuple[str, ...] = ()
    server: str = ""
    server_ms: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return an object for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Status:
        """Return the status that `to_json` wrote; keys that this version does not know are left out."""
        known = {f.name for f in fields(Status)}
        given = {key: value for key, value in data.items() if key in known}
        return Status(**{**given, **{key: tuple(given.get(key, ())) for key in ("notes", "prompt_notes", "readers")}})


def changed(look: Look, changes: Mapping[str, Any]) -> Look:
    """Return the look with some fields changed; raise CommandError for a field that does not exist or a bad value."""
    known = names(Look)
    for key, value in changes.items():
        if key not in known:
            raise CommandError(f"a look has no {str(key)[:40]!r}; it has {', '.join(known)}")
        if isinstance(value, str) and (len(value) > PROMPT_LIMIT or not value.isprintable()):
            raise CommandError(f"look: {key} must be one line of at most {PROMPT_LIMIT} characters")
    given = dict(changes)
    try:
        for name, kind in (("on_switch", OnSwitch), ("framing", Framing), ("region", Region)):
            if given.get(name) is not None:
                given[name] = kind(given[name])
    except ValueError as error:
        raise CommandError(f"look: {error}") from error
    try:
        return replace(look, **given)
    except SettingsError as error:
        raise CommandError(f"look: {error}") from error
