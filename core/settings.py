"""What an engine is built from (`EngineSettings`) and what may change between two frames (`Look`)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum

from core.errors import SettingsError


class Policy(StrEnum):
    """How kept frames enter the feature bank (paper, section 4.3)."""

    FIFO = "fifo"
    MERGE = "merge"
    OFF = "off"


class FusionPlace(StrEnum):
    """Where features are fused with the bank's; `blocks` and `attentions` name the paper's low-resolution layers.

    own: where the model's description says. blocks: the output of their transformer blocks. attentions: the output of
    their self-attentions, before the residual is added.
    """

    OWN = "own"
    BLOCKS = "blocks"
    ATTENTIONS = "attentions"


class BankedFeature(StrEnum):
    """Which feature the bank keeps for fusion: as fused with the bank before, or as it came from its layer."""

    FUSED = "fused"
    PLAIN = "plain"


class Filling(StrEnum):
    """What a ring holds until it is full: the first frame in every slot (`first`), or what there is (`growing`)."""

    FIRST = "first"
    GROWING = "growing"


class RowClock(StrEnum):
    """When a row of the stream batch begins its bank: with its first frame, or all rows with the first call.

    With a shared clock rows that hold no frame yet run on zeros, and the bank keeps what they make of them.
    """

    EACH = "each"
    SHARED = "shared"


class Split(StrEnum):
    """Which half of bank and frame a merge averages into which (paper, section 4.3, and its ablation).

    random: sources and destinations by chance. grid: every second token. now: the bank's tokens into the frame's.
    place: by chance one of the two tokens at each place, so that the bank keeps the order of the picture; ours.
    """

    RANDOM = "random"
    GRID = "grid"
    NOW = "now"
    PLACE = "place"


class BankPreset(StrEnum):
    """Whose bank: the model's own settings by our rules, the paper's, or the one that its authors released."""

    OWN = "own"
    PAPER = "paper"
    AUTHORS = "authors"


class Runtime(StrEnum):
    """What runs the model. auto: the quickest that this model and machine allow (core.runtimes.choice.resolve)."""

    AUTO = "auto"
    EAGER = "eager"
    COMPILED = "compiled"
    TENSORRT = "tensorrt"
    ONNX = "onnx"


class Provider(StrEnum):
    """On whose hardware ONNX Runtime runs. auto: another than the CPU where it was found right and quicker here."""

    AUTO = "auto"
    CPU = "cpu"
    OPENVINO = "openvino"
    DIRECTML = "directml"
    COREML = "coreml"
    MIGRAPHX = "migraphx"


class OnSwitch(StrEnum):
    """What becomes of the bank when the prompt changes."""

    KEEP = "keep"
    DECAY = "decay"
    FLUSH = "flush"


class Guidance(StrEnum):
    """Classifier-free guidance, full or residual (StreamDiffusion, arXiv 2312.12491, section 3.2)."""

    NONE = "none"
    FULL = "full"
    SELF_NEGATIVE = "self-negative"
    ONETIME_NEGATIVE = "onetime-negative"


class Framing(StrEnum):
    """What of the camera's picture is shown: as much as fills the picture, all of it, or head and shoulders."""

    FILL = "fill"
    FIT = "fit"
    FACE = "face"


class Region(StrEnum):
    """Where the picture has its style: everywhere, on the person, on what is behind the person."""

    ALL = "all"
    PERSON = "person"
    BACKGROUND = "background"


class Origin(StrEnum):
    """Where pictures come from, in the words of what marks them: from a camera's picture, or of a text alone."""

    TRANSLATED = "AI-translated"
    GENERATED = "AI-generated"


DECAY_FRAMES = 8  # over how many frames a bank decays where the look changes at once, or is made anew
CAMERA, BLUR = "camera", "blur"  # what may be shown elsewhere, besides a picture's file


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise SettingsError unless `value` is a finite number with low <= value <= high."""
    allowed = f"between {_shown(low)} and {_shown(high)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{name} is {value!r}; it must be a number {allowed}")
    if not low <= value <= high:  # which nan is not either
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}")


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"{name} is {value!r}; it must be a whole number between {low} and {high}")
    in_range(name, value, low, high)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r}; it must be text")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SettingsError(f"{name} is {value!r}; it holds half a character")


def _choice(name: str, value: object, kind: type[StrEnum]) -> None:
    # the plain text "fifo" equals Policy.FIFO but is not it
    if not isinstance(value, kind):
        raise SettingsError(f"{name} is {value!r}; it must be a {kind.__name__}: {', '.join(kind)}")


def _check_bank(strength: float | None, threshold: float | None, interval: int | None, steady: float | None) -> None:
    """Raise SettingsError unless the numbers of a bank that are given are allowed."""
    if strength is not None:
        in_range("fusion_strength", strength, 0, 1)
    if threshold is not None:
        in_range("similarity_threshold", threshold, -1, 1)
    if interval is not None:
        _whole("interval", interval, 1, 1000)
    if steady is not None:
        in_range("steady", steady, 0, 0.9)


@dataclass(frozen=True)
class Lora:
    """A LoRA file (safetensors, kohya or diffusers form) and the weight it is added with."""

    path: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        _text("lora path", self.path)
        in_range("lora weight", self.weight, -4, 4)


@dataclass(frozen=True)
class BankRules:
    """How a bank works, where the paper, its authors' program and ours differ.

    destinations_first: whether the first half of a random split are its destinations, not its sources. spread: whether
    a merge goes through the layers bit by bit over the interval, not all at once. attends: whether attention reads the
    bank; False fuses only. steady: as in `Look`, where that says nothing. fusion_strength, similarity_threshold,
    interval: likewise; None: the model's own. Raises SettingsError.
    """

    place: FusionPlace = FusionPlace.OWN
    keeps: BankedFeature = BankedFeature.FUSED
    filling: Filling = Filling.FIRST
    clock: RowClock = RowClock.EACH
    split: Split = Split.PLACE
    destinations_first: bool = False
    spread: bool = True
    attends: bool = True
    steady: float = 0.6
    fusion_strength: float | None = None
    similarity_threshold: float | None = None
    interval: int | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("place", FusionPlace),
            ("keeps", BankedFeature),
            ("filling", Filling),
            ("clock", RowClock),
            ("split", Split),
        ):
            _choice(name, getattr(self, name), kind)
        for name in ("destinations_first", "spread", "attends"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        _check_bank(self.fusion_strength, self.similarity_threshold, self.interval, self.steady)


OWN_RULES = BankRules()
# of what the paper does not say (what is kept for fusion, the clock, what a ring holds at first) the authors' program
_PAPER_RULES = BankRules(
    place=FusionPlace.BLOCKS,
    keeps=BankedFeature.PLAIN,
    filling=Filling.GROWING,
    clock=RowClock.SHARED,
    split=Split.RANDOM,
    destinations_first=True,
    spread=False,
    steady=0.0,
    fusion_strength=0.75,
    similarity_threshold=0.9,
    interval=4,
)
BANK_RULES = {
    BankPreset.OWN: OWN_RULES,
    BankPreset.PAPER: _PAPER_RULES,
    BankPreset.AUTHORS: replace(
        _PAPER_RULES, place=FusionPlace.ATTENTIONS, fusion_strength=0.8, similarity_threshold=0.98
    ),
}
"""The rules of each preset; the paper's and the authors' bank is merged (`Policy.MERGE`)."""


@dataclass(frozen=True)
class EngineSettings:
    """What the engine is built from: a change means another engine.

    width, height: pixels, multiples of 16. steps: denoising steps, the rows of the stream batch. slots: frames held
    by a `fifo` bank (a `merge` bank holds one compact frame). rules: how the bank works besides. guidance is here, not
    in the look, because it decides how many rows one call has. device: auto, or one of torch's; dtype: auto
    (core.runtimes.choice.DTYPES) or one of torch's. provider: of the onnx runtime. Raises SettingsError.
    """

    model: str = "embedded"
    width: int = 256
    height: int = 256
    steps: int = 2
    policy: Policy = Policy.FIFO
    slots: int = 1
    guidance: Guidance = Guidance.NONE
    dtype: str = "auto"
    device: str = "auto"
    runtime: Runtime = Runtime.AUTO
    provider: Provider = Provider.AUTO
    loras: tuple[Lora, ...] = ()
    rules: BankRules = OWN_RULES

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            _whole(name, getattr(self, name), 64, 2048)
            if getattr(self, name) % 16:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be a multiple of 16")
        _whole("steps", self.steps, 1, 16)
        _whole("slots", self.slots, 1, 16)
        for name, kind in (("policy", Policy), ("guidance", Guidance), ("runtime", Runtime), ("provider", Provider)):
            _choice(name, getattr(self, name), kind)
        for name in ("model", "device"):
            _text(name, getattr(self, name))
        if not isinstance(self.rules, BankRules):
            raise SettingsError(f"rules is {self.rules!r}; it must be BankRules")
        if not isinstance(self.loras, tuple) or not all(isinstance(lora, Lora) for lora in self.loras):
            raise SettingsError(f"loras is {self.loras!r}; it must be a tuple of Lora")
        if self.dtype not in ("auto", "float64", "float32", "float16", "bfloat16"):
            raise SettingsError(f"dtype is {self.dtype!r}; it must be auto, float64, float32, float16 or bfloat16")

    @property
    def ring_slots(self) -> int:
        """Slots of the bank's rings: a `merge` bank holds one compact frame, whatever `slots` is."""
        return self.slots if self.policy is Policy.FIFO else 1

    @property
    def growing(self) -> bool:
        """Whether slots of the rings may hold nothing yet, so that reading them needs a mask."""
        return self.rules.filling is Filling.GROWING and self.ring_slots > 1

    @property
    def bank_graph(self) -> str:
        """What the rules change in the UNet itself, in words; "" where it is the model's own graph."""
        if self.policy is Policy.OFF:
            return ""
        rules = self.rules
        changes = {
            f"fusion at {rules.place}": rules.place is not FusionPlace.OWN,
            f"{rules.keeps} features": rules.keeps is not BankedFeature.FUSED,
            "a growing ring": self.growing,
        }
        return ", ".join(name for name, changed in changes.items() if changed)

    @property
    def bank(self) -> str:
        """The bank in a word: its preset where it is another's, else its policy."""
        for preset in (BankPreset.PAPER, BankPreset.AUTHORS):
            if self.policy is Policy.MERGE and self.rules == BANK_RULES[preset]:
                return str(preset)
        return str(self.policy)


@dataclass(frozen=True)
class Look:
    """How the picture looks: may change between two frames.

    strength: 0..1, how much of the noise schedule a frame goes through (SDEdit). seed: of the fixed noise. guidance:
    scale of classifier-free guidance, used when EngineSettings.guidance is not none; residual: StreamDiffusion's
    delta. fusion_strength and similarity_threshold: 0..1, paper section 4.2 (alpha and the cosine threshold); None
    takes the model's own. interval: the bank keeps every interval-th frame; None takes the model's own. steady:
    0..0.9, the share of the translation before in each, along the motion of the source (core.steadying); None: 0.6 with
    our own bank, 0 with another's or none. refresh: the bank is made anew, softly, after so many frames, more than
    DECAY_FRAMES; 0: only where the stream drifts. skip_difference: a frame whose mean absolute difference to the last
    translated one is below this (grey levels, 0..255) shows the last result again, at most skip_limit times in a row;
    0 never skips.
    wander: degrees per frame by which the noise of text-to-image streaming turns; 0 keeps one noise. detail: 0..1,
    how much of the source's own edges an enlarged picture gets; the engine enlarges none, who publishes its
    pictures does. framing: what of the camera's picture is shown, for who gives the engine its pictures; None: not
    said. region: where the style is, for who publishes; elsewhere: what is shown outside of it: camera, blur (the
    camera's picture blurred), or the path of a picture. Raises SettingsError.
    """

    prompt: str = ""
    negative_prompt: str = ""
    strength: float = 0.5
    seed: int = 0
    guidance: float = 1.0
    residual: float = 1.0
    fusion_strength: float | None = None
    similarity_threshold: float | None = None
    interval: int | None = None
    steady: float | None = None
    refresh: int = 0
    on_switch: OnSwitch = OnSwitch.KEEP
    skip_difference: float = 0.0
    skip_limit: int = 10
    wander: float = 0.0
    detail: float = 0.75
    framing: Framing | None = None
    region: Region = Region.ALL
    elsewhere: str = CAMERA

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            _text(name, getattr(self, name))
        in_range("strength", self.strength, 0.02, 1)
        _whole("seed", self.seed, 0, 2**32 - 1)
        in_range("guidance", self.guidance, 0, 30)
        in_range("residual", self.residual, 0, 2)
        _check_bank(self.fusion_strength, self.similarity_threshold, self.interval, self.steady)
        _whole("refresh", self.refresh, 0, 1_000_000)
        if 0 < self.refresh <= DECAY_FRAMES:
            raise SettingsError(
                f"refresh is {self.refresh}; it must be 0 or over {DECAY_FRAMES}, the pictures that a refresh takes"
            )
        _choice("on_switch", self.on_switch, OnSwitch)
        in_range("skip_difference", self.skip_difference, 0, 255)
        _whole("skip_limit", self.skip_limit, 0, 100_000)
        in_range("wander", self.wander, 0, 90)
        in_range("detail", self.detail, 0, 1)
        if self.framing is not None:
            _choice("framing", self.framing, Framing)
        _choice("region", self.region, Region)
        _text("elsewhere", self.elsewhere)
        if self.elsewhere not in (CAMERA, BLUR) and not any(sign in self.elsewhere for sign in "./\\"):
            raise SettingsError(
                f"elsewhere is {self.elsewhere[:60]!r}; it must be {CAMERA}, {BLUR} or the path of a picture (sea.jpg)"
            )


def names(kind: type) -> list[str]:
    """Return the names of a dataclass's fields, in order."""
    return [f.name for f in fields(kind)]
