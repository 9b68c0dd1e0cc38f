"""TensorRT's plans as values: what each was built for, what is known of it, and what there is for an engine's settings.

A plan is TensorRT's compiled file of a graph; the user knows it as "TensorRT engine". core.runtimes.tensorrt.cache
keeps plans on the disk. This file imports neither torch nor tensorrt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.settings import EngineSettings

VERSION = 5  # of the manifest and of what the graphs take and give
BUILD = "vcam engines build"
ANY = "any"  # GPU or driver of a plan that runs on all of them


class Verdict(StrEnum):
    """The result of comparing a plan with the eager runtime; `auto` takes verified plans only."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    WRONG = "wrong"


@dataclass(frozen=True)
class Machine:
    """What plans run on, or what one is bound to. tensorrt: the library's version; library: its module.

    capability: the GPU's compute capability, such as 8.9. For what a plan is bound to, gpu and driver may be `ANY`
    (core.runtimes.tensorrt.library.Library.bound).
    """

    tensorrt: str
    gpu: str
    capability: str
    driver: str
    library: str = "tensorrt"

    @property
    def place(self) -> str:
        """Where a comparison holds: GPU and driver in words."""
        return f"{self.gpu}, driver {self.driver}"


@dataclass(frozen=True)
class PlanKey:
    """All that decides whether a plan fits; two plans with the same key are interchangeable.

    weights: core.runtimes.tensorrt.cache.fingerprint. loras: a hash of those that are built in, "" for none: a plan
    that can be refitted gets them while it runs. bank: core.settings.EngineSettings.bank_graph.
    """

    machine: Machine
    weights: str
    width: int
    height: int
    steps: int
    slots: int
    policy: str
    guidance: str
    dtype: str
    loras: str = ""
    bank: str = ""

    @staticmethod
    def of(machine: Machine, weights: str, settings: EngineSettings) -> PlanKey:
        """Return the key of a plan for those settings without LoRAs; device and dtype are not auto."""
        return PlanKey(
            machine,
            weights,
            settings.width,
            settings.height,
            settings.steps,
            settings.slots,
            str(settings.policy),
            str(settings.guidance),
            settings.dtype,
            bank=settings.bank_graph,
        )

    @property
    def folder_name(self) -> str:
        """The name of the plan's folder in the cache."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class PlanManifest:
    """What is known of a plan. files: name -> (sha256, bytes). constants: initializer of the graph -> weight.

    built: time in ISO 8601. seconds: how long building took. compared: the verdict in words; compared_on: the
    Machine.place where that was. refittable: whether LoRAs can be put in while it runs. layout: of the bank, as
    core.algorithm.bank.Layout, empty without one.
    """

    key: PlanKey
    model: str
    files: Mapping[str, tuple[str, int]]
    constants: Mapping[str, str] = field(default_factory=dict)
    built: str = ""
    seconds: float = 0.0
    verdict: Verdict = Verdict.UNVERIFIED
    compared: str = ""
    compared_on: str = ""
    refittable: bool = True
    layout: dict[str, tuple[int, int]] = field(default_factory=dict)
    version: int = VERSION

    def seen_from(self, machine: Machine) -> PlanManifest:
        """Return the manifest as it holds on that machine: what was compared elsewhere was not compared here."""
        if self.compared_on == machine.place or self.verdict is Verdict.UNVERIFIED:
            return self
        return replace(self, verdict=Verdict.UNVERIFIED, compared="", compared_on="")

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as `from_json` takes it."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PlanManifest:
        """Return the manifest that `to_json` gave. Raises KeyError, TypeError, ValueError."""
        given = dict(values["key"])
        machine = Machine(**given.pop("machine"))
        files = {str(name): (str(digest), int(size)) for name, (digest, size) in values["files"].items()}
        plain = ("model", "constants", "built", "seconds", "compared", "compared_on", "refittable", "version")
        rest = {name: values[name] for name in plain if name in values}
        verdict = Verdict(values["verdict"])
        layout = {str(name): (int(tokens), int(width)) for name, (tokens, width) in values.get("layout", {}).items()}
        return PlanManifest(key=PlanKey(machine, **given), files=files, verdict=verdict, layout=layout, **rest)


@dataclass(frozen=True)
class CachedPlan:
    """A plan in the cache. problem: why it cannot be used, "" if it can. manifest: None where it cannot be read.

    elsewhere: whether it is whole, but built for other cards.
    """

    folder: Path
    manifest: PlanManifest | None
    problem: str = ""
    elsewhere: bool = False

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of its comparison with eager, None where the manifest cannot be read."""
        return None if self.manifest is None else self.manifest.verdict


@dataclass(frozen=True)
class TensorRtState:
    """What TensorRT has for an engine's settings, looked up once for each start.

    unusable: why TensorRT cannot run here, "" if it can. key: of the plan for the settings, None where TensorRT cannot
    run. plan: the one in the cache, None if there is none. machine: this one, None where TensorRT cannot run or a plan
    is for another. quick: whether a build takes about a minute, on a card that the library is made for. failed: what
    the library said when it refused to build this plan, "" if it did not.
    """

    unusable: str = ""
    key: PlanKey | None = None
    plan: CachedPlan | None = None
    machine: Machine | None = None
    quick: bool = False
    failed: str = ""

    @property
    def to_build(self) -> bool:
        """Whether `auto` has the plan built, or compared with eager, beside the runtime that shows pictures."""
        if self.unusable or self.failed or self.found_wrong or not self.quick:
            return False
        return bool(self.lacking(verified=True))

    def lacking(self, *, verified: bool) -> str:
        """Return why no plan may run, "" if one may; verified: only one that was compared with eager."""
        if self.unusable:
            return self.unusable
        if self.plan is None:
            return f"it has no engine for this yet ({BUILD})"
        if self.plan.problem or self.plan.manifest is None:
            return f"its engine is of no use: {self.plan.problem} ({BUILD} --again)"
        if verified and self.plan.verdict is not Verdict.VERIFIED:
            return "its engine was not compared with eager yet (vcam engines verify)"
        return ""

    @property
    def found_wrong(self) -> str:
        """What the comparison with eager said where it found the plan wrong, "" otherwise."""
        if self.plan is None or self.plan.manifest is None or self.plan.verdict is not Verdict.WRONG:
            return ""
        return f"wrong: {self.plan.manifest.compared}"


NOT_ASKED = TensorRtState("not asked for")
