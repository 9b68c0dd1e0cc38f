"""What this machine is told once: config.toml in the user's configuration folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core import folders
from core.settings import BankPreset, Framing, Policy, Provider, Runtime
from vcam.commands import PROMPT_LIMIT, OnFailure, from_text, verbs
from vcam.errors import CommandError, ConfigError, OptionError
from vcam.settings.engine_options import NOTHING_ASKED, AskedBy, EngineOptions, names_asked_by
from vcam.settings.presets import Preset
from vcam.settings.toml_schema import (
    Check,
    choice,
    did_you_mean,
    expanded,
    flag,
    listed,
    number,
    read_values,
    shown,
    text,
    whole,
)

OBS_COMMANDS = (
    "use",
    "next",
    "previous",
    "prompt",
    "pause",
    "resume",
    "toggle",
    "panic",
    "forget",
    "record-toggle",
    "snapshot",
)


@dataclass(frozen=True)
class ObsSettings:
    """How OBS Studio is reached, and what of it switches the camera.

    port, password: None takes those of OBS's own settings on this machine. scenes: scene -> profile (or a verb).
    prompt_source: name of the text source whose text is the prompt. allow: names of the commands that OBS may give.
    sync_audio: whether the microphone's sync offset follows the measured latency; microphone: its name, "" for OBS's
    first one.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int | None = None
    password: str | None = field(default=None, repr=False)
    scenes: dict[str, str] = field(default_factory=dict)
    prompt_source: str = "StreamV2V Prompt"
    allow: tuple[str, ...] = OBS_COMMANDS
    sync_audio: bool = False
    microphone: str = ""


CONTROLLER_COMMANDS = ("use", "next", "previous", "prompt", "pause", "resume", "toggle", "panic", "forget", "look")
"""What a controller on OSC or MIDI may do by default: looks and strength, and what stops the picture; keeps nothing."""


@dataclass(frozen=True)
class OscSettings:
    """Whether OSC is heard, where, and what it may do. port: None hears nothing. host: of ours; others need 0.0.0.0."""

    port: int | None = None
    host: str = "127.0.0.1"
    allow: tuple[str, ...] = CONTROLLER_COMMANDS


@dataclass(frozen=True)
class MidiSettings:
    """Which MIDI device is heard, and what its keys do.

    port: part of the device's name, "" for the first one; None hears nothing. map: "note 36", "cc 1" or "program 0",
    each with a channel where it matters ("note 36 channel 10"), to a command's text such as "use ink", or to
    "strength" or "detail".
    """

    port: str | None = None
    map: dict[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = CONTROLLER_COMMANDS


@dataclass(frozen=True)
class CardTexts:
    """What a caller reads where there is no picture; the reason is for the user: page, status and log.

    wait: the engine starts or is started again. trouble: something is wrong. paused: on purpose. off: panic, and the
    end. Each may be empty.
    """

    wait: str = "One moment"
    trouble: str = "Back soon"
    paused: str = "Back soon"
    off: str = "Camera off"


class RecordFormat(StrEnum):
    """What a recording is written as; each plays though its program was killed."""

    MP4 = "mp4"
    MKV = "mkv"


@dataclass(frozen=True)
class RecordSettings:
    """Where recordings and pictures of a run are kept. folder: "" is one in the user's folder of videos.

    microphone: which one is recorded with the picture: "" for none, "default", or a part of its name.
    """

    folder: str = ""
    format: RecordFormat = RecordFormat.MP4
    microphone: str = ""

    def place(self) -> Path:
        """Return the folder, which need not exist; raises OptionError for a home that is not known."""
        return Path(expanded(self.folder)) if self.folder else folders.videos()


class RemoteFallback(StrEnum):
    """What shows while the engine's server fails: nothing of a translation, or this machine's own engine."""

    NONE = "none"
    LOCAL = "local"


class RemoteCodec(StrEnum):
    """How pictures go to the engine's server; auto: as suits the way there."""

    AUTO = "auto"
    JPEG = "jpeg"
    H264 = "h264"


@dataclass(frozen=True)
class MarkingSettings:
    """How recorded and translated files say that they are AI-translated, beside their metadata (docs/marking.md).

    credentials: whether they carry signed C2PA Content Credentials. certificate, key: PEM files of the signer's; None:
    made on this machine.
    """

    credentials: bool = True
    certificate: Path | None = None
    key: Path | None = None


DEFAULT_PROFILE = "ink"  # of the shipped looks, the one that reads best in every film that was tried


@dataclass(frozen=True)
class Config:
    """This machine's choices, which the command line may overrule.

    source: auto, pattern, camera, camera:NAME or a file. sink: auto, camera, none, ndi, spout, syphon or a file;
    also: further ones beside it. size: width and height published. fps: published. framing: of profiles that say
    nothing of it. idle_after_s: seconds without a reader until engine and camera rest, 0: never. port: the panel's
    first try, 0: any free one. engine: what is asked of it, under what a profile asks. threads: of the engine, None
    where the program chooses. remote: wss://host:port of the server where the engine is, "" for here;
    remote_fallback: what shows while that fails; remote_codec: how pictures go there.
    """

    source: str = "auto"
    sink: str = "auto"
    also: tuple[str, ...] = ()
    profile: str = DEFAULT_PROFILE
    size: tuple[int, int] | None = None
    fps: float = 30.0
    on_failure: OnFailure = OnFailure.CARD
    mirror: bool = False
    framing: Framing = Framing.FILL
    idle_after_s: float = 30.0
    panel: bool = True
    open_panel: bool = False
    port: int = 8787
    engine: EngineOptions = NOTHING_ASKED
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


def config_folder() -> Path:
    """Where the user's settings lie (VCAM_CONFIG_FOLDER, else the system's usual place); it need not exist."""
    if told := os.environ.get("VCAM_CONFIG_FOLDER"):
        return Path(told)
    return folders.config()


def load_config(path: Path | None = None) -> Config:
    """Read `path` (the usual config.toml if None, which need not exist); raises ConfigError."""
    if path is None:
        path = config_folder() / "config.toml"
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Config()
        except OSError:  # said in words below, as it is of a link to nothing: nobody's settings are left out in silence
            pass
    try:
        values = read_values(path, SCHEMA)
    except OptionError as error:
        raise ConfigError(str(error)) from error
    tables = [_table(values, f"{name}.") for name in ("obs", "cards", "record", "marking", "osc", "midi")]
    obs, cards, record, marking, osc, midi = tables
    asked = names_asked_by(AskedBy.CONFIG)
    engine: dict[str, Any] = {name: values.pop(f"engine.{name}", None) for name in asked}
    rest: dict[str, Any] = {_FIELDS.get(key, key.rpartition(".")[2]): value for key, value in values.items()}
    return Config(
        **rest,
        engine=EngineOptions(**engine),
        obs=ObsSettings(**obs),
        cards=CardTexts(**cards),
        record=RecordSettings(**record),
        marking=MarkingSettings(**marking),
        osc=OscSettings(**osc),
        midi=MidiSettings(**midi),
    )


def _table(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the keys of one table out of the values."""
    return {key.removeprefix(prefix): values.pop(key) for key in list(values) if key.startswith(prefix)}


def parse_size(text: str) -> tuple[int, int]:
    """ "640x480" as (640, 480); raises OptionError, with what is wrong and what is allowed."""
    width, cross, height = text.strip().lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and len(width) < 10 and len(height) < 10):
        raise OptionError(f"{shown(text)} is no size; write WIDTHxHEIGHT in pixels, such as 640x480")
    return int(width), int(height)


def check_published_size(key: str, value: object) -> tuple[int, int]:
    """Return the size of `parse_size` if a virtual camera can have it; raises OptionError."""
    width, height = value if isinstance(value, tuple) else (0, 0)
    if any(side < 64 or side > 4096 or side % 2 for side in (width, height)):
        raise OptionError(f"{key} is {width}x{height}; both sides must be even and between 64 and 4096")
    return width, height


def check_dtype(key: str, value: object) -> str:
    """Return the type's name if the engine can compute in it; raises OptionError."""
    if value not in DTYPES:
        raise OptionError(f"{key} is {shown(value)}; it must be auto, float32, float16, bfloat16 or float64")
    return str(value)


def check_device(key: str, value: object) -> str:
    """Return the name if it looks like a torch device; raises OptionError."""
    kind, colon, index = str(value).partition(":")
    if kind not in DEVICES or (colon and not (index.isdecimal() and len(index) < 4)):
        raise OptionError(f"{key} is {shown(value)}; it must be auto, cpu, cuda, cuda:1, mps or xpu")
    return str(value)


def check_port(key: str, value: object) -> int:
    """Return the port if the panel may ask for it; 0 leaves the choice to the system. Raises OptionError."""
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or 1024 <= value <= 65_535):
        return value
    raise OptionError(
        f"{key} is {shown(value)}; it must be a whole number between 1024 and 65535, or 0 for any free port"
    )


def _size(key: str, value: object) -> tuple[int, int]:
    if not isinstance(value, str):
        raise OptionError(f'{key} is {shown(value)}; write it as "640x480"')
    try:
        size = parse_size(value)
    except OptionError as error:
        raise OptionError(f"{key}: {error}") from error
    return check_published_size(key, size)


def _scenes(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise OptionError(f'{key} is {shown(value)}; it must be a table of scenes and profiles: "Interview" = "ink"')
    profile = text(100)
    return {scene: str(profile(f"{key}.{scene}", wanted)) for scene, wanted in value.items()}


def _host(key: str, value: object) -> str:
    host = str(text(253)(key, value)).strip()
    bare = host.removeprefix("[").removesuffix("]")
    if "/" in host or (bare.count(":") == 1):
        raise OptionError(
            f"{key} is {shown(value)}; it must be a name or an address alone, such as 192.168.1.20 or ::1 "
            "(the port goes into obs.port)"
        )
    return bare


def _midi_map(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise OptionError(f'{key} is {shown(value)}; it must be a table of keys and commands: "note 36" = "use ink"')
    known = {}
    for name, wanted in value.items():
        found = MIDI_KEY.fullmatch(" ".join(str(name).lower().split()))
        if found is None or int(found["number"]) > 127 or not 1 <= int(found["channel"] or 1) <= 16:
            raise OptionError(
                f'{key} has {shown(name)}; a key is "note 36", "cc 1" or "program 0" (0 to 127), with "channel 10" '
                "(1 to 16) behind it where it matters"
            )
        said = str(text(PROMPT_LIMIT)(f"{key}.{name}", wanted))
        try:
            _ = said in LEVELS or from_text(said)
        except CommandError as error:
            raise OptionError(f"{key}.{name}: {error}") from error
        known[found[0]] = said
    return known


def _commands(key: str, value: object) -> tuple[str, ...]:
    known = verbs()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise OptionError(f'{key} is {shown(value)}; it must be a list of commands, such as ["use", "pause"]')
    for one in value:
        if one not in known:
            raise OptionError(f"{key} has {shown(one)}; it must be {listed(known)}{did_you_mean(one, known)}")
    return tuple(value)


def check_bank(key: str, value: object) -> Policy | BankPreset:
    """Check for a bank on the command line: its policy, or whose it is."""
    for kind in (Policy, BankPreset):
        if value in [one.value for one in kind]:
            return kind(value)
    words = [one.value for one in (*Policy, *BankPreset)]
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    raise OptionError(f"{key} is {shown(value)}; it must be {listed(words)}{hint}")


def check_also(key: str, wanted: object) -> tuple[str, ...]:
    """Return the names of the sinks beside the main one, each once; raises OptionError."""
    if not isinstance(wanted, list | tuple) or not all(isinstance(one, str) for one in wanted):
        raise OptionError(f'{key} is {shown(wanted)}; it must be a list, such as ["ndi"]')
    for one in wanted:
        if one not in SINKS_BESIDE:
            raise OptionError(f"{key} has {shown(one)}; it must be {listed(SINKS_BESIDE)}")
    return tuple(dict.fromkeys(wanted))


def check_address(key: str, value: object) -> str:
    """Return a server's address as wss://host:port; raises OptionError for anything else, ws:// above all."""
    text = str(value).strip()
    try:
        parts = urlsplit(text if "//" in text else f"wss://{text}")
        host, port = parts.hostname or "", parts.port or SERVER_PORT
    except ValueError:
        parts, host, port = urlsplit(""), "", SERVER_PORT
    if parts.scheme == "ws":
        raise OptionError(f"{key} is {shown(text)}; pictures of you go over TLS alone: write wss://{host}:{port}")
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "wss" or not SERVER_HOST.fullmatch(host) or extra:
        raise OptionError(f"{key} is {shown(text)}; it must be wss://host:port, as vcam serve prints it")
    return f"wss://[{host}]:{port}" if ":" in host else f"wss://{host}:{port}"


def check_remote(key: str, value: object) -> str:
    """Return where the engine shall be: a server's address, or "" for this machine, which the word none means."""
    said = str(text(1000)(key, value))
    return "" if said == HERE else check_address(key, said)


def _file(key: str, value: object) -> Path:
    return config_folder() / expanded(str(text(1000)(key, value)))


SERVER_PORT = 8790  # of vcam serve
HERE = "none"  # in the place of a server's address
SERVER_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
LEVELS = ("strength", "detail")  # of a look: what a fader sets
MIDI_KEY = re.compile(r"(?P<kind>note|cc|program) (?P<number>\d{1,3})(?: channel (?P<channel>\d{1,2}))?")
SINKS_BESIDE = ("ndi", "spout", "syphon")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
FPS = number(1, 240)
THREADS = whole(1, 256)
IDLE_AFTER = number(0, 86_400)
_FIELDS = {
    "panel.enabled": "panel",
    "panel.open": "open_panel",
    "remote.server": "remote",
    "remote.fallback": "remote_fallback",
    "remote.codec": "remote_codec",
}
SCHEMA: dict[str, Check] = {
    "source": text(1000),
    "sink": text(1000),
    "also": check_also,
    "profile": text(100),
    "size": _size,
    "fps": FPS,
    "on_failure": choice(OnFailure),
    "mirror": flag,
    "framing": choice(Framing),
    "camera.idle_after_s": IDLE_AFTER,
    "panel.enabled": flag,
    "panel.open": flag,
    "panel.port": check_port,
    "engine.preset": choice(Preset),
    "engine.model": text(1000),
    "engine.bank": choice(BankPreset),
    "engine.runtime": choice(Runtime),
    "engine.provider": choice(Provider),
    "engine.device": check_device,
    "engine.dtype": check_dtype,
    "engine.threads": THREADS,
    "remote.server": check_remote,
    "remote.fallback": choice(RemoteFallback),
    "remote.codec": choice(RemoteCodec),
    **{f"cards.{one.name}": text(60, shortest=0) for one in fields(CardTexts)},
    "record.folder": text(1000, shortest=0),
    "record.format": choice(RecordFormat),
    "record.microphone": text(200, shortest=0),
    "marking.credentials": flag,
    "marking.certificate": _file,
    "marking.key": _file,
    "osc.port": whole(1024, 65_535),
    "osc.host": _host,
    "osc.allow": _commands,
    "midi.port": text(200, shortest=0),
    "midi.map": _midi_map,
    "midi.allow": _commands,
    "obs.enabled": flag,
    "obs.host": _host,
    "obs.port": whole(1, 65_535),
    "obs.password": text(1000, shortest=0),
    "obs.scenes": _scenes,
    "obs.prompt_source": text(1000),
    "obs.allow": _commands,
    "obs.sync_audio": flag,
    "obs.microphone": text(1000, shortest=0),
}
"""Every key of config.toml and what it may hold."""
