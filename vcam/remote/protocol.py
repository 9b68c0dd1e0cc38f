"""What a camera and an engine server send each other over their WebSocket: messages, pictures, limits. Pure functions.

Text messages are JSON objects with a "type"; pictures are binary messages, a fixed header and a JPEG, or H.264 where
both sides can. The camera says Hello first, and nothing is looked at before its token. Whatever the other side sends
that is not exactly this raises RemoteError, whose text is a sentence for the user; it never costs more than the
message's own size.

Numbers on the wire are big-endian. Clocks of two machines are never compared: pictures have numbers, by which the
camera knows when each was taken, and times on the wire are durations.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple

from core.errors import SettingsError
from core.settings import (
    BankedFeature,
    BankRules,
    EngineSettings,
    Filling,
    Framing,
    FusionPlace,
    Guidance,
    Look,
    Lora,
    OnSwitch,
    Policy,
    Provider,
    Region,
    RowClock,
    Runtime,
    Split,
)
from vcam.errors import RemoteError
from vcam.frames import EngineFacts

VERSION = 2
PATH = "/v1/stream"
HEALTH = "/health"  # a GET: whether the server is well
WINDOW = 2  # pictures that a camera may have given and not been answered
LARGEST_TEXT = 64 * 1024  # bytes of a text message: all prompts of many profiles
LARGEST_PICTURE = 4 * 1024 * 1024  # bytes of a picture's message: a JPEG of 2048x2048
MOST_PROMPTS, LONGEST_PROMPT = 200, 2000
HELLO_S = 5.0  # how long a camera may take to say who it is
ALIVE_S = 1.0  # how often each side says something, as long as it lives
SILENT_S = 6.0  # without a word from the other side: it is gone; a server that loads a model may be slow to speak
LATE_S = 1.0  # an answer that was longer than this on its way, waits and engine apart, is not shown

_PICTURE = struct.Struct("!BBII")  # kind, codec, number, receipt
_ANSWER = struct.Struct("!BBIIffffQII")  # kind, codec, answers, shows, 4 durations in ms, bank, refreshes, receipt
_PICTURE_KIND, _ANSWER_KIND = 0x50, 0x41
_NO_PICTURE, _JPEG, _REPLACED, _H264 = 0, 1, 2, 3  # replaced: of an answer alone
_NOTHING = 0xFFFFFFFF  # a number that no picture has
NO_RECEIPT = 0  # which no answer has


class Codec(StrEnum):
    """How a picture is written."""

    JPEG = "jpeg"
    H264 = "h264"


_NUMBERS = {Codec.JPEG: _JPEG, Codec.H264: _H264}
_CODECS = {number: codec for codec, number in _NUMBERS.items()}


class Refusal(StrEnum):
    """Why a server ends a connection. Some will not change by trying again."""

    PROTOCOL = "protocol"
    VERSION = "version"
    TOKEN = "token"
    REVOKED = "revoked"
    MODEL = "model"
    BUSY = "busy"
    LIMIT = "limit"
    CODEC = "codec"
    ENGINE = "engine"
    ENDING = "ending"

    @property
    def final(self) -> bool:
        """Whether trying again will not help until somebody changes something."""
        return self in (Refusal.PROTOCOL, Refusal.VERSION, Refusal.TOKEN, Refusal.REVOKED, Refusal.MODEL)


# ---- pictures


class GivenPicture(NamedTuple):
    """A picture to be translated. number: counts this connection's from 0.

    receipt: of the newest answer that the camera has read, NO_RECEIPT before the first. coded: the picture, which is
    answered in the same codec; b"" asks for one of the prompt alone.
    """

    number: int
    receipt: int
    coded: bytes
    codec: Codec = Codec.JPEG


class Answer(NamedTuple):
    """What became of a picture. answers: its number; shows: the number of the picture translated, None for none yet.

    waited_ms: until the engine took it; engine_ms, decode_ms and encode_ms: the server's work. coded: b"" without one.
    refreshes: how often the bank was made anew by itself.
    replaced: a newer picture took its place while it waited, and no translation of it will come.
    receipt: a number of chance, which the camera names with its next picture: so it shows that it reads its answers.
    """

    answers: int
    shows: int | None
    waited_ms: float
    engine_ms: float
    decode_ms: float
    encode_ms: float
    bank_bytes: int
    coded: bytes = b""
    refreshes: int = 0
    replaced: bool = False
    receipt: int = 0
    codec: Codec = Codec.JPEG

    @property
    def server_ms(self) -> float:
        """Milliseconds that it was in the server."""
        return self.waited_ms + self.engine_ms + self.decode_ms + self.encode_ms


def packed_picture(given: GivenPicture) -> bytes:
    """Return the binary message that hands a picture over."""
    header = _PICTURE.pack(_PICTURE_KIND, _NUMBERS[given.codec], given.number, given.receipt)
    return header + given.coded


def unpacked_picture(message: bytes) -> GivenPicture:
    """Return what `packed_picture` wrote; raises RemoteError."""
    if len(message) > LARGEST_PICTURE:
        raise RemoteError(f"a picture of {len(message)} bytes came; at most {LARGEST_PICTURE} are taken")
    if len(message) < _PICTURE.size:
        raise RemoteError("a binary message came that is too short for a picture")
    kind, codec, number, receipt = _PICTURE.unpack_from(message)
    coded = message[_PICTURE.size :]
    if kind != _PICTURE_KIND or codec not in _CODECS:
        raise RemoteError("a binary message came that is no picture of this protocol")
    return GivenPicture(number, receipt, coded, _CODECS[codec])


def packed_answer(answer: Answer) -> bytes:
    """Return the binary message that answers a picture."""
    shows = _NOTHING if answer.shows is None else answer.shows
    codec = _NUMBERS[answer.codec] if answer.coded else _REPLACED if answer.replaced else _NO_PICTURE
    times = (answer.waited_ms, answer.engine_ms, answer.decode_ms, answer.encode_ms)
    numbers = answer.bank_bytes, min(answer.refreshes, _NOTHING), answer.receipt
    return _ANSWER.pack(_ANSWER_KIND, codec, answer.answers, shows, *times, *numbers) + answer.coded


def unpacked_answer(message: bytes) -> Answer:
    """Return what `packed_answer` wrote; raises RemoteError."""
    if not _ANSWER.size <= len(message) <= LARGEST_PICTURE:
        raise RemoteError("the server sent a binary message that is no answer of this protocol")
    kind, codec, answers, shows, waited, engine, decode, encode, bank, refreshes, receipt = _ANSWER.unpack_from(message)
    times = waited, engine, decode, encode
    coded = message[_ANSWER.size :]
    codecs = tuple(_CODECS) if coded else (_NO_PICTURE, _REPLACED)
    sound = kind == _ANSWER_KIND and codec in codecs and (shows == _NOTHING) == (not coded)
    if not sound or not all(math.isfinite(one) and one >= 0 for one in times):
        raise RemoteError("the server sent a binary message that is no answer of this protocol")
    shown = None if shows == _NOTHING else shows
    replaced = codec == _REPLACED
    which = _CODECS.get(codec, Codec.JPEG)
    return Answer(answers, shown, waited, engine, decode, encode, bank, coded, refreshes, replaced, receipt, which)


# ---- text messages


@dataclass(frozen=True)
class Hello:
    """The camera's first message. camera: a random name of this run, so that its streams count as one camera's."""

    token: str = field(repr=False)
    camera: str
    settings: EngineSettings
    look: Look
    version: int = VERSION


@dataclass(frozen=True)
class UseLook:
    """Use this look from the next picture on, blending over `frames` pictures."""

    look: Look
    frames: int


@dataclass(frozen=True)
class UseLoraNames:
    """Fuse these LoRAs, by the names that the server offers, before the next picture."""

    loras: tuple[Lora, ...]
    frames: int


@dataclass(frozen=True)
class Prompts:
    """Encode these prompts when there is a moment."""

    prompts: tuple[str, ...]


@dataclass(frozen=True)
class ForgetAll:
    """Empty the feature bank."""


@dataclass(frozen=True)
class Alive:
    """Nothing but that the other side is there."""


@dataclass(frozen=True)
class Loading:
    """How far the server is with loading; fraction: 0..1."""

    text: str
    fraction: float


@dataclass(frozen=True)
class Loaded:
    """Pictures are taken now. codecs: in which."""

    facts: EngineFacts
    codecs: tuple[Codec, ...] = (Codec.JPEG,)


@dataclass(frozen=True)
class Failed:
    """This picture (its number), look or set of LoRAs failed; the stream goes on."""

    kind: str
    text: str
    number: int = -1


@dataclass(frozen=True)
class LorasUsed:
    """These LoRAs are in the weights."""

    loras: tuple[Lora, ...]


@dataclass(frozen=True)
class Refused:
    """The server ends the connection, and says why."""

    code: Refusal
    text: str


FromCamera = Hello | UseLook | UseLoraNames | Prompts | ForgetAll | Alive
FromServer = Loading | Loaded | Failed | LorasUsed | Refused | Alive
_FROM_CAMERA: dict[str, type[Any]] = {
    "hello": Hello,
    "look": UseLook,
    "loras": UseLoraNames,
    "prompts": Prompts,
    "forget": ForgetAll,
    "alive": Alive,
}
_FROM_SERVER: dict[str, type[Any]] = {
    "loading": Loading,
    "loaded": Loaded,
    "failed": Failed,
    "loras": LorasUsed,
    "refused": Refused,
    "alive": Alive,
}


def packed(message: FromCamera | FromServer) -> str:
    """Return the text message."""
    kinds = {**{kind: name for name, kind in _FROM_CAMERA.items()}, **{k: n for n, k in _FROM_SERVER.items()}}
    return json.dumps({"type": kinds[type(message)], **asdict(message)})


def from_camera(text: str) -> FromCamera:
    """Return what a camera's text message says; raises RemoteError."""
    message: FromCamera = _unpacked(text, _FROM_CAMERA)
    return message


def from_server(text: str) -> FromServer:
    """Return what a server's text message says; raises RemoteError."""
    message: FromServer = _unpacked(text, _FROM_SERVER)
    return message


def version_of(text: str) -> int | None:
    """Return the protocol's version that a Hello names, None where it names none: before anything else is read."""
    try:
        version = _parsed(text).get("version")
    except (RemoteError, AttributeError):
        return None
    return version if isinstance(version, int) and not isinstance(version, bool) else None


def _parsed(text: str) -> Any:
    """Return the JSON's value; its length is looked at first, and no number in it is larger than 64 bits hold."""
    if len(text) > LARGEST_TEXT:
        raise RemoteError(f"a text message of {len(text)} characters came; at most {LARGEST_TEXT} are taken")
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise RemoteError("a text message came that is no JSON") from None


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= 2**63:
        raise ValueError("a number of more than 64 bits")
    return number


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number that is not finite")
    return number


def _unpacked(text: str, kinds: Mapping[str, type[Any]]) -> Any:
    data = _parsed(text)
    if not isinstance(data, dict) or data.get("type") not in kinds:
        raise RemoteError("a text message came that this protocol does not know")
    kind = kinds[data.pop("type")]
    given = {one.name: data[one.name] for one in fields(kind) if one.name in data}
    try:
        return kind(**{name: _READ.get(name, _plain)(name, value) for name, value in given.items()})
    except (SettingsError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        told = str(error) if isinstance(error, SettingsError) else f"its {kind.__name__} is malformed"
        raise RemoteError(f"a message came that cannot be used: {told}") from error


def _plain(name: str, value: object) -> object:
    wanted = _PLAIN[name]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
        raise TypeError(f"{name} is no {wanted}")
    if isinstance(value, str):
        return value[:LARGEST_TEXT]
    if isinstance(value, float | int) and not math.isfinite(value):
        raise ValueError(f"{name} is not finite")
    return value


_PLAIN: dict[str, Any] = {
    "token": str,
    "camera": str,
    "version": int,
    "frames": int,
    "text": str,
    "fraction": (float, int),
    "kind": str,
    "number": int,
}


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no object")
    return dict(value)


def _loras(_: str, value: object) -> tuple[Lora, ...]:
    if not isinstance(value, list) or len(value) > 16:
        raise TypeError("no list of LoRAs")
    return tuple(Lora(**_mapping(one)) for one in value)


def _settings(_: str, value: object) -> EngineSettings:
    data = _mapping(value)
    kinds = (("policy", Policy), ("guidance", Guidance), ("runtime", Runtime), ("provider", Provider))
    given = {name: kind(data[name]) for name, kind in kinds if name in data}
    rules = {"rules": _rules(data["rules"])} if "rules" in data else {}
    return EngineSettings(**(data | given | rules | {"loras": _loras("loras", data.get("loras", []))}))


def _rules(value: object) -> BankRules:
    data = _mapping(value)
    kinds = (
        ("place", FusionPlace),
        ("keeps", BankedFeature),
        ("filling", Filling),
        ("clock", RowClock),
        ("split", Split),
    )
    return BankRules(**(data | {name: kind(data[name]) for name, kind in kinds if name in data}))


def _look(_: str, value: object) -> Look:
    data = _mapping(value)
    kinds = (("on_switch", OnSwitch), ("framing", Framing), ("region", Region))
    return Look(**(data | {name: kind(data[name]) for name, kind in kinds if data.get(name) is not None}))


def _prompts(_: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError("no list of prompts")
    return tuple(one[:LONGEST_PROMPT] for one in value[:MOST_PROMPTS])


def _facts(_: str, value: object) -> EngineFacts:
    data = _mapping(value)
    known = {one.name: data[one.name] for one in fields(EngineFacts) if one.name in data}
    facts = EngineFacts(**known)
    texts = (facts.model, facts.runtime, facts.device, facts.note, facts.provider)
    whole = (facts.delay, facts.bank_bytes)
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, int) and one >= 0 for one in whole):
        raise TypeError("no facts")
    return EngineFacts(
        model=facts.model[:300],
        runtime=facts.runtime[:300],
        device=facts.device[:300],
        delay=min(facts.delay, 64),
        bank_bytes=facts.bank_bytes,
        changes_loras=facts.changes_loras is True,
        note=facts.note[:300],
        provider=facts.provider[:300],
    )


def _codecs(_: str, value: object) -> tuple[Codec, ...]:
    if not isinstance(value, list) or len(value) > 16:
        raise TypeError("no list of codecs")
    return tuple(one for one in Codec if one in value)  # what a later version may know besides is not used


_READ: dict[str, Any] = {
    "codecs": _codecs,
    "settings": _settings,
    "look": _look,
    "loras": _loras,
    "prompts": _prompts,
    "facts": _facts,
    "code": lambda _, value: Refusal(value),
}
