"""The two libraries behind the `tensorrt` runtime: which of them runs on a card, and in what they differ.

TensorRT for RTX (`tensorrt_rtx`) builds in seconds, and what it built runs on every card of its kind, under any driver;
the full TensorRT (`tensorrt`) builds in minutes, for one GPU and driver. Nothing else knows which of them is at work.
This file imports neither torch nor the libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

from core.errors import SettingsError
from core.plans import ANY, Machine

if TYPE_CHECKING:
    import tensorrt as trt

PORTABLE = "8.0 and newer"  # the capability of a plan that was built for every card from Ampere on
CHOICE = "VCAM_TENSORRT"  # in the environment: the name of the one library that may be used
_TURING = "7.5"


class Bindings(Protocol):
    """What both libraries have; tests/core/runtimes/tensorrt/test_tensorrt_bindings.py compares them."""

    __version__: str
    Builder: type[trt.Builder]
    BuilderFlag: type[trt.BuilderFlag]
    DataType: type[trt.DataType]
    ILogger: type[trt.ILogger]
    IProgressMonitor: type[trt.IProgressMonitor]
    IStreamWriter: type[trt.IStreamWriter]
    NetworkDefinitionCreationFlag: type[trt.NetworkDefinitionCreationFlag]
    OnnxParser: type[trt.OnnxParser]
    ProfilingVerbosity: type[trt.ProfilingVerbosity]
    Refitter: type[trt.Refitter]
    Runtime: type[trt.Runtime]
    Weights: type[trt.Weights]


@dataclass(frozen=True)
class Library:
    """One of the two. module: as it is imported. title: as people know it. package: as pip knows it.

    oldest: the first version that is taken. operators: the version of the full library whose operators it has, None for
    its own. cards: compute capabilities that it is made for, empty for all. portable: whether a plan runs on every card
    of its capability, and under any driver. timing_cache: whether it keeps how long each kernel took; TensorRT for RTX
    measures nothing while it builds, and such a cache would make it ask for a GPU.
    """

    module: str
    title: str
    package: str
    oldest: tuple[int, int]
    operators: tuple[int, int] | None
    cards: tuple[str, ...]
    portable: bool
    timing_cache: bool

    @property
    def installed(self) -> bool:
        """Whether it is here, found without loading it."""
        return importlib.util.find_spec(self.module) is not None

    def bindings(self) -> Bindings:
        """Return the loaded library, which takes a second. Raises what its import raises."""
        return cast("Bindings", importlib.import_module(self.module))

    @property
    def version_text(self) -> str:
        """The loaded library's version, such as 1.7.1.116."""
        return self.bindings().__version__

    @property
    def version(self) -> tuple[int, int]:
        """The loaded library's version, major and minor."""
        major, minor = self.version_text.split(".")[:2]
        return int(major), int(minor)

    @property
    def takes(self) -> tuple[int, int]:
        """The version of the full TensorRT whose operators it takes."""
        return self.operators or self.version

    @property
    def name(self) -> str:
        """Its title and version, for messages."""
        return f"{self.title} {self.version_text}"

    def why_not(self, capability: str, dtype: str) -> str:
        """Return why it cannot run on a card, "" if it can as far as is known."""
        if self.cards and capability == _TURING and dtype != "float16":
            return f"{self.title} multiplies matrices in float16 alone on Turing cards (RTX 20, GTX 16), not in {dtype}"
        return ""

    def bound(self, machine: Machine) -> list[Machine]:
        """Return what plans that run on a machine may be bound to, the best first."""
        if not self.portable:
            return [machine]
        own = replace(machine, gpu=ANY, driver=ANY)
        portable = [] if machine.capability == _TURING else [replace(own, capability=PORTABLE)]
        return ([own] if machine.capability in self.cards else []) + portable


RTX = Library(
    "tensorrt_rtx",
    "TensorRT for RTX",
    "tensorrt-rtx",
    oldest=(1, 7),
    operators=(11, 0),
    cards=(_TURING, "8.0", "8.6", "8.9", "12.0", "12.1"),
    portable=True,
    timing_cache=False,
)
FULL = Library(
    "tensorrt",
    "TensorRT",
    "tensorrt",
    oldest=(10, 0),
    operators=None,
    cards=(),
    portable=False,
    timing_cache=True,
)
_ALL = (RTX, FULL)


def named(module: str) -> Library:
    """Return the library of that name. Raises KeyError."""
    return {one.module: one for one in _ALL}[module]


def installed() -> list[Library]:
    """Return the libraries that are here and may be used."""
    chosen = os.environ.get(CHOICE, "")
    return [one for one in _ALL if one.installed and chosen in ("", one.module, one.package)]


def choose(capability: str, dtype: str) -> Library | None:
    """Return the library for a card: TensorRT for RTX where it is made for it, else the full one; None without any.

    A card that neither is made for gets the one that is here: the build, or the comparison with eager, will tell.
    """
    here = installed()
    made_for = [one for one in here if capability in one.cards and not one.why_not(capability, dtype)]
    others = [one for one in here if not one.cards]
    return next(iter([*made_for, *others, *here]), None)


# what the vendor calls its cards -> compute capability; the first that fits
_NAMES = (
    (r"(gb10|dgxspark)", "12.1"),
    (r"(rtx)?(pro)?(50[5-9]0)|rtxpro\d{3,4}(blackwell)?", "12.0"),
    (r"(rtx)?40[5-9]0|rtx\d{4}ada|l4|l40s?", "8.9"),
    (r"(rtx)?30[5-9]0|rtxa\d{3,4}|a(2|10|16|40)", "8.6"),
    (r"a(30|100)", "8.0"),
    (r"(rtx)?20[5-8]0|(gtx)?16[356]0|t4|(quadro)?rtx[3-8]000", _TURING),
)


def target(text: str) -> str:
    """Return the compute capability that a plan shall be built for: `portable`, `sm89`, `8.9`, `rtx4090`.

    Raises SettingsError.
    """
    plain = re.sub(r"[\s_-]|nvidia|geforce|laptop|gpu|super|ti\b", "", text.strip().lower())
    if plain in ("portable", "any"):
        return PORTABLE
    if number := re.fullmatch(r"(?:sm|cc)?(\d{1,2})\.?(\d)", plain):
        plain_number = ".".join(number.groups())
        if plain_number in RTX.cards:
            return plain_number
    for pattern, capability in _NAMES:
        if re.fullmatch(pattern, plain):
            return capability
    known = ", ".join(f"sm{one.replace('.', '')}" for one in RTX.cards)
    raise SettingsError(f"{text!r} is no card that {RTX.title} is made for; use portable, rtx4090 or the like, {known}")


def shown_target(machine: Machine) -> str:
    """Return what a plan is for in a few words: `portable`, `sm89`, or a GPU's own name."""
    if machine.gpu != ANY:
        return machine.gpu
    return "portable" if machine.capability == PORTABLE else f"sm{machine.capability.replace('.', '')}"
