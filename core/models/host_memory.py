"""How much RAM of the host loading a model takes, its LoRAs, and building its TensorRT engine; and how much disk.

Worked out of the headers of the files before anything is loaded: where RAM runs out, the system kills the process
without a word. What an engine takes on its device while it runs is core.models.device_memory's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import MemoryShort, SettingsError
from core.models import loras
from core.models.catalogue import in_gb
from core.models.description import ModelDescription, Stored, stored
from core.models.resolved import Resolved
from core.settings import EngineSettings, Runtime

_NETS = ("unet", "vae")  # of which a TensorRT engine is made
_STORED_AS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_BESIDES = 100_000_000  # modules, and libraries that are imported late; as seen in real runs (docs/models.md)
_CUDA_BESIDES = 1_000_000_000  # CUDA's libraries: an allowance, not measured
_FUSING = 3 * 4  # bytes for each number of the largest weight that a LoRA changes, which is worked out in float32
_ENGINE = 1.1  # an engine's file, of the weights in it: an allowance, for it is refittable and so holds them all
_EXPORT_BESIDES = 600_000_000  # the exporter's graph; 0.42 GB were seen at SD 1.5's shapes (docs/engines.md)
# TensorRT's builder, of the weights, and bytes besides: an allowance, and what was seen of TensorRT for RTX with a
# margin (docs/engines.md); the graph's weights are read where they lie in their file, the plan is written as it is made
_BUILDER = {"tensorrt": (4.0, 2_000_000_000), "tensorrt_rtx": (2.5, 2_000_000_000)}


class LoadingNeed(NamedTuple):
    """Bytes of RAM that loading a model takes.

    needed: that must be free. shown: what a monitor shows at the worst moment, with the pages of the files that are
    being read; those the system takes back where they are needed. originals: of `needed`, weights without LoRAs.
    """

    needed: int
    shown: int
    originals: int


class BuildNeed(NamedTuple):
    """Bytes that building a TensorRT engine takes for a while: of RAM, and of the disk where engines are kept."""

    ram: int
    disk: int


def free_ram(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes of RAM that this process may still take, of the system's or of its container's or service's.

    groups and own: where Linux tells of such limits (control groups, version 2).
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_left(groups, own)])


def _left(groups: Path, own: Path) -> list[int]:
    """Return what each limit of the control groups around this process leaves; nothing where there is none."""
    try:
        names = [line.removeprefix("0::/") for line in own.read_text().splitlines() if line.startswith("0::/")]
    except OSError:
        return []
    folders = [folder for name in names for folder in ((groups / name), *(groups / name).parents)]
    left = []
    for folder in folders:
        if folder.is_relative_to(groups):
            try:
                limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no limit here ("max")
                continue
            left.append(limit - used + int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0)))
    return left


def loading(resolved: Resolved) -> LoadingNeed:
    """Return what loading the model takes. Raises ModelError."""
    description, settings = resolved.description, resolved.settings
    dtype: torch.dtype = getattr(torch, settings.dtype)
    tensorrt, on_cpu = settings.runtime is Runtime.TENSORRT, settings.device == "cpu"
    read = description.text_encoders if tensorrt else description.parts  # a plan has the others in it
    held = needed = shown = 0
    for part in read:
        tensors = stored(description.folder / part)
        # what has its dtype in the file already is used where it lies there
        converted = sum(one.numbers for one in tensors if one.dtype != _STORED_AS.get(dtype)) * dtype.itemsize
        needed = max(needed, held + converted)
        shown = max(shown, held + converted + sum(one.size for one in tensors))
        held += _bytes(tensors, dtype) if on_cpu else 0
    changed = _changed(resolved)
    originals = sum(changed) * dtype.itemsize
    moment = _FUSING * max(changed, default=0) if on_cpu or tensorrt else 0  # elsewhere it is the device that fuses
    if tensorrt:
        # its file is read; then what LoRAs change is handed over, some of it turned
        moment = max(moment, _plan(description, dtype), originals)
    needed = max(needed, held + originals + moment)
    besides = _BESIDES if settings.device == "cpu" else _CUDA_BESIDES
    return LoadingNeed(needed + besides, max(needed, shown) + besides, originals)


def _bytes(tensors: list[Stored], dtype: torch.dtype) -> int:
    return sum(one.numbers for one in tensors) * dtype.itemsize


def _plan(description: ModelDescription, dtype: torch.dtype) -> int:
    """Return the bytes of a TensorRT plan's file."""
    return int(_ENGINE * sum(_bytes(stored(description.folder / part), dtype) for part in _NETS))


def originals(resolved: Resolved) -> int:
    """Return the bytes of the weights without LoRAs that are kept, of all that the LoRAs change. Raises ModelError."""
    dtype: torch.dtype = getattr(torch, resolved.settings.dtype)
    return sum(_changed(resolved)) * dtype.itemsize


def _changed(resolved: Resolved) -> list[int]:
    """Return how many numbers each weight holds that the settings' LoRAs change."""
    if not resolved.settings.loras:
        return []
    weights = {
        f"{part}.{one.name}": one.numbers
        for part in ("unet", *resolved.description.text_encoders)
        for one in stored(resolved.description.folder / part)
        if one.name.endswith(".weight")
    }
    return [weights[name] for name in loras.changed(weights, resolved.settings.loras)]


def check_loading(resolved: Resolved, room: int) -> LoadingNeed:
    """Return what loading takes. Raises MemoryShort where that is more than `room` bytes of RAM; ModelError."""
    wanted = loading(resolved)
    if wanted.needed > room:
        of_loras = f" ({in_gb(wanted.originals)} of it to keep what its LoRAs change)" if wanted.originals else ""
        remedy = "close what else uses it, or take a smaller model" + (" or fewer LoRAs" if wanted.originals else "")
        raise MemoryShort(
            f"{resolved.description.name} needs {in_gb(wanted.needed)} of RAM while it is loaded{of_loras}, but "
            f"{in_gb(room)} are free; {remedy}"
        )
    return wanted


def check_switch(
    settings: EngineSettings, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor], room: int
) -> None:
    """Raise SettingsError where a change to the settings' LoRAs takes more than `room` bytes of RAM; ModelError.

    weights: of the running model, by core.models.loras.named_weights' names. kept: the originals of the weights that
    LoRAs change now.
    """
    changed = loras.changed(weights, settings.loras)
    needed = sum(weights[name].nbytes for name in changed - kept.keys())
    if settings.runtime is Runtime.TENSORRT:
        needed += sum(weights[name].nbytes for name in changed | kept.keys())  # handed over, some of it turned
    needed += _FUSING * max((weights[name].numel() for name in changed if weights[name].is_cpu), default=0)
    if needed > room:
        raise SettingsError(
            f"the change to these LoRAs needs {in_gb(needed)} of RAM, but {in_gb(room)} are free; the LoRAs stay as "
            "they were; close what else uses the memory, or take LoRAs that change fewer layers"
        )


def building(resolved: Resolved) -> BuildNeed:
    """Return what building the TensorRT plan takes. Raises ModelError.

    RAM: the most of three moments, which are loading; exporting, which copies no weights; and TensorRT's builder, when
    the model is no longer held. Disk: the graph with its weights, and the plan.
    """
    description, settings = resolved.description, resolved.settings
    dtype: torch.dtype = getattr(torch, settings.dtype)
    plain = partial(_bytes, dtype=dtype)
    sizes = {part: plain(stored(description.folder / part)) for part in description.parts}
    graph = sum(sizes[part] for part in _NETS)
    model = sum(sizes.values()) if settings.device == "cpu" else _CUDA_BESIDES
    exporting = model + _EXPORT_BESIDES
    key, eager = resolved.tensorrt.key, replace(resolved, settings=replace(settings, runtime=Runtime.EAGER))
    share, besides = _BUILDER["tensorrt" if key is None else key.machine.library]
    compiling = int(share * graph) + besides
    return BuildNeed(max(loading(eager).needed, exporting, compiling), int((1 + _ENGINE) * graph) + _BESIDES)


def check_building(resolved: Resolved, ram: int, disk: int, folder: Path) -> BuildNeed:
    """Return what building takes. Raises SettingsError where it is more than so many bytes; ModelError.

    folder: where plans are kept, on whose disk `disk` bytes are free.
    """
    wanted = building(resolved)
    what = f"building the TensorRT engine of {resolved.description.name} needs about"
    if wanted.ram > ram:
        raise SettingsError(
            f"{what} {in_gb(wanted.ram)} of RAM, but {in_gb(ram)} are free; close what else uses it, or use --runtime "
            "compiled"
        )
    if wanted.disk > disk:
        raise SettingsError(
            f"{what} {in_gb(wanted.disk)} in {folder}, but {in_gb(disk)} are free there; make room (vcam engines clean "
            "removes engines of no use), or set VCAM_ENGINES_FOLDER to a folder on another disk"
        )
    return wanted
