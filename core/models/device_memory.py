"""How much memory a model will take on its device, worked out before it is loaded; and whether that is free.

The headers of the files tell the weights, the layout tells the bank. For the work in between, one frame is run on
PyTorch's meta device, which computes shapes and no numbers, and the bytes of all tensors alive at once are counted.
core.models.host_memory works out what the host must have besides while the model is loaded.
"""

from __future__ import annotations

import json
import math
import weakref
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.algorithm import bank as banks
from core.algorithm import conditions
from core.algorithm import unet as unets
from core.algorithm.bank import Bank, Features
from core.algorithm.frame import (
    FrameInputs,
    PictureDecoder,
    PictureEncoder,
    StreamTensors,
    UpcastVae,
    denoise,
    example_inputs,
)
from core.algorithm.net import Net
from core.algorithm.schedule import Prediction
from core.algorithm.stream import net_rows
from core.errors import MemoryShort, PlaceError, ShapeError
from core.models import host_memory as host
from core.models.catalogue import in_gb
from core.models.description import ModelDescription, stored
from core.models.folder_files import one_line, part_config
from core.models.loading import quiet
from core.models.resolved import Resolved
from core.settings import EngineSettings, FusionPlace, Guidance, Policy

# What no tensor shows. On a GPU the context and the libraries' workspaces: an allowance, not measured. On the CPU what
# its kernels scratch, of which most is convolutions' weights in another order: as seen in real runs (docs/models.md).
_GPU_BESIDES = 700_000_000
_CPU_BESIDES = 100_000_000
_SLACK = 1.15  # of the work: what an allocator rounds up and leaves unused between tensors
_TEXT = 77  # words of a CLIP text


class Need(NamedTuple):
    """Bytes: of the weights, of the bank, of the tensors alive at the worst moment of a frame, and besides.

    loras: of the weights without them, which are kept in RAM, where that is the device's memory.
    """

    weights: int
    bank: int
    work: int
    besides: int
    loras: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def __str__(self) -> str:
        parts = f"weights {in_gb(self.weights)}, bank {in_gb(self.bank)}, work {in_gb(self.work)}"
        return f"{in_gb(self.total)} ({parts}{f', for LoRAs {in_gb(self.loras)}' if self.loras else ''})"


def need(resolved: Resolved) -> Need:
    """Return what the engine will take on its device. Raises ModelError.

    Worked out for the eager runtime; the compiled ones take about as much, rather less.
    """
    description, settings = resolved.description, resolved.settings
    dtype: torch.dtype = getattr(torch, settings.dtype)
    parts = {part: part_config(description.folder, part) for part in ("unet", "vae")}
    try:
        with quiet():
            bank, work = _frame(json.dumps(parts), resolved.places, resolved.subtoken, _shape(settings), dtype)
    except (
        PlaceError,
        ValueError,
        RuntimeError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:  # what diffusers is led to
        raise ShapeError(f"{description.folder}: a frame cannot be worked out ({one_line(error)})") from error
    numbers = _numbers(description)
    weights = sum(numbers) * dtype.itemsize
    if UpcastVae.needed(parts["unet"], parts["vae"], dtype):  # it lies there in float32
        weights += sum(one.numbers for one in stored(description.folder / "vae")) * dtype.itemsize
    besides, of_loras = _GPU_BESIDES, 0
    if settings.device == "cpu":
        besides = _CPU_BESIDES + 3 * max(numbers) * dtype.itemsize
        of_loras = host.originals(resolved)
    return Need(weights, bank, math.ceil(work * _SLACK), besides, of_loras)


def _numbers(description: ModelDescription) -> list[int]:
    """Return how many numbers each tensor of the model's files holds."""
    return [one.numbers for part in description.parts for one in stored(description.folder / part)]


def is_small(resolved: Resolved, room: int) -> bool:
    """Return whether the model is so small that working it out (a second) is not worth it. Raises ModelError."""
    settings = resolved.settings
    weights = 4 * sum(_numbers(resolved.description))
    rows_of_pixels = settings.width * settings.height * _shape(settings).net_rows
    return weights < 200_000_000 and rows_of_pixels <= 4 * 512 * 512 and room > 4_000_000_000


def free(device: str) -> int:
    """Return the bytes that this process may still take on the device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if device.startswith("xpu"):
        return int(torch.xpu.mem_get_info(torch.device(device))[0])
    return host.free_ram()


def largest(resolved: Resolved, room: int) -> tuple[int, int] | None:
    """Return the largest size of about the settings' shape that fits into `room` bytes, None if none does."""
    settings = resolved.settings
    sizes = _smaller(settings.width, settings.height)
    whole = need(resolved)
    fixed = whole.weights + whole.besides + whole.loras
    # the rest grows at least as the pixels do: begin where it would fit if no faster
    pixels = settings.width * settings.height * (room - fixed) / (whole.bank + whole.work)
    at = bisect_right(sizes, pixels, key=math.prod) - 1

    def fits(index: int) -> bool:
        return need(_resized(resolved, sizes[index])).total <= room

    if room <= fixed or not sizes:
        return None
    at = max(at, 0)
    while at >= 0 and not fits(at):
        at -= 1
    while 0 <= at < len(sizes) - 1 and fits(at + 1):
        at += 1
    return sizes[at] if at >= 0 else None


def check(resolved: Resolved, room: int) -> Need:
    """Return what the engine will take. Raises MemoryShort, with the largest size that fits, if over `room` bytes."""
    wanted, settings = need(resolved), resolved.settings
    if wanted.total <= room:
        return wanted
    fits = largest(resolved, room)
    remedy = (
        f"the largest size that fits is {fits[0]}x{fits[1]} (--engine-size; --size of translate)"
        if fits
        else "no size fits; take fewer steps, another model, or close what else uses the memory"
    )
    raise MemoryShort(
        f"{resolved.description.name} at {settings.width}x{settings.height} with {settings.steps} steps needs "
        f"{wanted}, but {in_gb(room)} are free on {settings.device}; {remedy}"
    )


def _resized(resolved: Resolved, size: tuple[int, int]) -> Resolved:
    return replace(resolved, settings=replace(resolved.settings, width=size[0], height=size[1]))


def _smaller(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes below that one, rising, of about its shape: multiples of 64, and of 16 below 256."""
    short = min(width, height)
    steps = [*range(64, 256, 16), *range(256, 2048, 64)]
    shapes = [tuple(max(64, round(side * step / short / 16) * 16) for side in (width, height)) for step in steps]
    return [(w, h) for w, h in shapes if w * h < width * height]


# ------------------------------------------------------------------------------------------------ a frame of shapes


class _Shape(NamedTuple):
    """What of the settings shapes a frame."""

    width: int
    height: int
    rows: int
    net_rows: int
    slots: int
    guidance: Guidance
    policy: Policy


def _shape(settings: EngineSettings) -> _Shape:
    rows = len(net_rows(settings.guidance, settings.steps))
    return _Shape(
        settings.width, settings.height, settings.steps, rows, settings.ring_slots, settings.guidance, settings.policy
    )


@lru_cache(maxsize=64)
def _frame(
    parts: str, places: tuple[str, ...] | FusionPlace | None, subtoken: int, shape: _Shape, dtype: torch.dtype
) -> tuple[int, int]:
    """Return the bytes of the bank, and those of all other tensors alive at the worst moment of a frame."""
    import diffusers

    configs: Mapping[str, Any] = json.loads(parts)
    unet = configs["unet"]
    words = (_TEXT + conditions.further_rows(unet), int(unet["cross_attention_dim"]))
    library: Any = diffusers
    with torch.device("meta"):
        vae = getattr(library, configs["vae"]["_class_name"]).from_config(configs["vae"])
        vae = UpcastVae(vae, dtype) if UpcastVae.needed(unet, configs["vae"], dtype) else vae.to(dtype)
        plain = library.UNet2DConditionModel.from_config(unet).to(dtype)
        picture = torch.empty(shape.height, shape.width, 3, dtype=torch.uint8)
    encode, decode = PictureEncoder(vae), PictureDecoder(vae)
    banked = shape.policy is not Policy.OFF
    net = unets.BankedUNet(plain, places, subtoken) if banked else unets.PlainUNet(plain)
    with torch.inference_mode(), _NoAttentionMatrix():
        latents = encode(picture).expand(shape.rows, -1, -1, -1)[1:].clone()
        one = example_inputs(None, StreamTensors(latents[:0], latents[:0], {}, picture[None][:0]), 1, words)
        _, _, seen = _denoised(net, one, {}, one.noise, Guidance.NONE)
        sizes = {name: (feature.shape[1], feature.shape[2]) for name, feature in seen.items()}
        bank = banks.empty(sizes, shape.net_rows, shape.slots, dtype, torch.device("meta"))
        del seen
        tensors = StreamTensors(latents, latents, bank, picture[None][:0])
        inputs = example_inputs(None, tensors, shape.net_rows, words)
        with _Alive() as alive:
            latent = encode(picture)
            clean, _, seen = _denoised(net, inputs, bank, torch.cat([latent, latents]), shape.guidance)
            after = banks.write(bank, seen, inputs.write)
            if shape.policy is Policy.MERGE:
                tokens = {ring.shape[2] for ring in after.values()}
                orders = {n: torch.empty(shape.net_rows, 2 * n, device="meta").long() for n in tokens}
                after = banks.merge(after, seen, orders)
            del seen
            decode(clean[-1:])
    return sum(ring.nbytes for ring in bank.values()), alive.peak


def _denoised(
    net: Net, inputs: FrameInputs, bank: Bank, latents: Tensor, guidance: Guidance
) -> tuple[Tensor, Tensor, Features]:
    return denoise(net, inputs, bank, latents, latents, prediction=Prediction.EPSILON, guidance=guidance)


class _NoAttentionMatrix(TorchFunctionMode):
    """Attention as the fused kernels of every device do it, without a matrix of all pairs."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._born(tensor.untyped_storage())
        return result

    def _born(self, storage: Any) -> None:
        key, size = storage._cdata, int(storage.nbytes())
        if key in self._known:  # a view of what is counted
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
