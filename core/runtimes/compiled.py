"""The `compiled` runtime: the whole frame (core.algorithm.frame.FrameModule) by torch.compile, on CUDA as one graph.

All that the graph reads and writes lies in tensors that are made once and stay where they are: the picture, the inputs,
the stream's tensors, the result. A frame copies into them what is new, runs the graph, and copies the result out; it
waits for the device once, for that copy. Merging runs after it, beside the copy and whatever the caller does next.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from core import folders
from core.algorithm import bank as banks
from core.algorithm import stream, unet
from core.algorithm.attention import SelfAttention
from core.algorithm.bank import Bank, BankUpdate, Features
from core.algorithm.frame import (
    BankMerge,
    FrameInputs,
    FrameModule,
    PictureEncoder,
    StreamTensors,
    example_inputs,
)
from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture, SamplingParameters, Stages, Step, StreamState
from core.algorithm.unet import BankedUNet
from core.errors import SettingsError
from core.models import loras
from core.models.folder_files import one_line
from core.models.loading import LoadedParts, banked, load_parts
from core.models.resolved import Resolved
from core.progress import BUILDING, Report
from core.runtimes.copies import DevicePolicy, StagedInput, device_policy
from core.runtimes.inputs import DeviceInputs
from core.runtimes.model import Model
from core.runtimes.quick_vae import quicken
from core.runtimes.stages import sample_update

_T = TypeVar("_T")


def load(
    resolved: Resolved,
    report: Report,
    *,
    backend: str = "inductor",
    mode: str | None = None,
) -> Model:
    """Load the model; its frame is compiled when a stream is opened. Raises ModelError, SettingsError.

    backend and mode are torch.compile's.
    """
    if resolved.settings.device.partition(":")[0] not in ("cpu", "cuda"):
        raise SettingsError(
            f"the compiled runtime runs on the CPU and on NVIDIA's GPUs, not on {resolved.settings.device}; use "
            "--runtime eager"
        )
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    loaded, settings = load_parts(resolved), resolved.settings
    optimized = optimized_frame(loaded, resolved)
    _, length, width = loaded.encoder("").shape
    opened: weakref.WeakSet[CompiledStep] = weakref.WeakSet()

    def put(values: Mapping[str, Tensor]) -> None:
        loras.put(optimized.weights, values)
        optimized.weights_changed()
        for step in opened:
            step.weights_changed()

    def open_stream(state: StreamState) -> Step:
        size = (settings.height, settings.width)
        try:
            step = CompiledStep(
                optimized.frame, state, size, (length, width), report, backend, mode, growing=settings.growing
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of PyTorch's compiler: there is no common class below this one
            raise SettingsError(
                f"the compiled runtime does not work here ({one_line(error)}); use --runtime eager"
            ) from error
        opened.add(step)
        return step

    return Model.of_parts(resolved, loaded._replace(weights=optimized.weights), open_stream, put)


def code_folder() -> Path:
    """Return the folder that keeps compiled code for the next start, unless TORCHINDUCTOR_CACHE_DIR names another.

    It need not exist.
    """
    return folders.cache() / "compiled"


class OptimizedFrame(NamedTuple):
    """A model's whole frame in the form that is quickest on a GPU.

    weights: core.models.loras.named_weights; those of the fused projections are views of the fused ones.
    weights_changed: to be called after values were written into the weights.
    """

    frame: FrameModule
    weights: dict[str, Tensor]
    weights_changed: Callable[[], None]


def optimized_frame(loaded: LoadedParts, resolved: Resolved) -> OptimizedFrame:
    """Return the loaded parts as one frame: self-attentions project by one matrix, time embeddings are looked up.

    The parts are taken over; what they compute stays the same.
    """
    net, settings = banked(loaded.unet, resolved), resolved.settings
    quicken(loaded)
    frame = FrameModule(
        PictureEncoder(loaded.vae),
        net,
        loaded.decode,
        prediction=loaded.schedule.prediction,
        guidance=settings.guidance,
        policy=settings.policy,
    )
    frame.eval().to(device=loaded.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = _fuse_projections(net)
    weights = {name: fused.get(weight, weight) for name, weight in loaded.weights.items()}
    tabulate_again = unet.tabulate_time(net.unet, len(loaded.schedule.alphas_cumprod))
    return OptimizedFrame(frame.requires_grad_(False), weights, tabulate_again)


def _fuse_projections(net: BankedUNet) -> dict[Tensor, Tensor]:
    """Give each self-attention one matrix for query, key and value; return old weight -> its view of the new one."""
    views: dict[Tensor, Tensor] = {}
    for module in net.modules():
        if isinstance(module, Attention) and isinstance(module.processor, SelfAttention):
            module.fuse_projections()
            parts = (module.to_q.weight, module.to_k.weight, module.to_v.weight)
            views |= zip(parts, module.to_qkv.weight.detach().chunk(3), strict=True)
            del module.to_q, module.to_k, module.to_v
    return views


class CompiledStep:
    """core.algorithm.stream.Step by compiled code; building it compiles and, on CUDA, captures."""

    def __init__(
        self,
        frame: FrameModule,
        state: StreamState,
        size: tuple[int, int],
        words: tuple[int, int],
        report: Report,
        backend: str,
        mode: str | None,
        *,
        growing: bool = False,
    ) -> None:
        """Compile for that stream, whose tensors are worked on in place.

        size: (height, width) of the pictures. words: (words, width) of the text. growing: slots of the bank may hold
        nothing.
        """
        device = state.tensors.in_flight.device
        self._tensors = state.tensors
        picture, shown = (torch.zeros(*size, 3, dtype=torch.uint8, device=device) for _ in range(2))
        rows = len(state.positions)
        self._inputs = example_inputs(frame.net, state.tensors, rows, words, growing=growing)  # type: ignore[arg-type]
        self._frame = frame
        self._compiled = partial(_compiled, backend=backend, mode=mode)
        self._policy = device_policy(device)
        with torch.inference_mode():
            report("compiling the frame: minutes at first, seconds once it is kept", BUILDING)
            run = partial(self._compiled(_translate), frame, picture, self._inputs, self._tensors, shown)
            self._translate: Callable[[], Features] = self._policy.capture(run)
            write_cross = self._policy.capture(partial(_write_cross, frame, self._inputs))
            self._orders: dict[int, list[StagedInput]] = {}
            self._merges: dict[tuple[int, int], Callable[[Features], None]] = {}
            if seen := self._translate():
                report("compiling the merge of the bank", 0.75)
                self._orders = _orders(self._tensors.bank)
                self._merges = self._compiled_merges(seen)
            _clear(self._tensors)
        write_text = partial(_write_text, self._inputs, write_cross)
        scalars = self._inputs.scalars.named()
        self._device_inputs = DeviceInputs(self._inputs.rows._asdict(), self._inputs.noise, scalars, write_text)
        self._copies = self._policy.copies(picture, shown)

    def _compiled_merges(self, seen: Features) -> dict[tuple[int, int], Callable[[Features], None]]:
        """Return what merges each group of layers of each row, by code that is compiled once and has run."""
        bank, rows = self._tensors.bank, range(len(next(iter(seen.values()))))
        merges = {}
        for group, names in enumerate(banks.merge_groups(banks.layout_of(bank))):
            merge, part = self._compiled(_merge), {name: bank[name] for name in names}
            for row in rows:
                merges[row, group] = _row_merge(merge, part, self._orders, row, seen, self._policy)
        for run in merges.values():
            run(seen)
        return merges

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """See core.algorithm.stream.Step."""
        update, slots = stream.bank_update(sampling, state), banks.slot_count(self._tensors.bank)
        scalars = stream.frame_scalars(sampling, slots, update, torch.device("cpu"), imagined=picture is None)
        with torch.inference_mode():
            self._copies.upload(picture)
            self._device_inputs.refresh(sampling, scalars.named())
            seen = self._translate()
            pending = self._copies.download()
            self._merge(sampling, update, seen)
        return pending, stream.next_state(state, self._tensors, update)

    def stages(self, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Stages:
        """See core.algorithm.stream.Step; compiles (and on CUDA captures) each stage by itself, which takes a while."""
        device, update, tensors = self._inputs.noise.device, sample_update(sampling, state), self._tensors
        given = torch.from_numpy(picture).to(device)
        frame, compiled, capture = self._frame, self._compiled, self._policy.capture
        scalars = stream.frame_scalars(sampling, banks.slot_count(tensors.bank), update, device)
        text, cross = stream.text_rows(sampling), dict(self._inputs.cross)
        inputs = FrameInputs(sampling.rows, sampling.noise, text, cross, *scalars)
        with torch.inference_mode():
            encode = capture(partial(compiled(frame.encode), given))
            latent = encode()
            unet = capture(partial(compiled(frame.denoise), latent, inputs, tensors))
            seen = unet().seen
            bank = {name: ring.clone() for name, ring in tensors.bank.items()}
            keep = [capture(partial(compiled(_write), bank, seen, inputs.write))] if any(update.writes) else []
            orders, merge = _orders(bank), compiled(_merge)
            for row, group in update.merged:
                part = {name: bank[name] for name in banks.merge_groups(banks.layout_of(bank))[group]}
                keep.append(partial(_row_merge(merge, part, orders, row, seen, self._policy), seen))
            decode = capture(partial(compiled(frame.decode), latent, given))
            shown = decode()
        return {
            "copy in": lambda: given.copy_(torch.from_numpy(picture)),
            "encode": encode,
            "unet": unet,
            "bank": lambda: [run() for run in keep],
            "decode": decode,
            "copy out": shown.cpu,
        }

    def weights_changed(self) -> None:
        """Work out with the next frame what the layers make of the text."""
        self._device_inputs.weights_changed()

    def _merge(self, sampling: SamplingParameters, update: BankUpdate, seen: Features) -> None:
        layout = banks.layout_of(self._tensors.bank)
        for row in sorted({row for row, _ in update.merged}):
            for tokens, order in banks.merge_orders(layout, sampling.seed, [update.ages[row]], sampling.rules).items():
                self._orders[tokens][row].set(order)
        for row, group in update.merged:
            self._merges[row, group](seen)


def _translate(
    frame: FrameModule, picture: Tensor, inputs: FrameInputs, tensors: StreamTensors, shown: Tensor
) -> Features:
    """Run the frame, in place."""
    result, after, seen = frame(picture, inputs, tensors)
    shown.copy_(result)
    tensors.in_flight.copy_(after.in_flight)
    tensors.origins.copy_(after.origins)
    tensors.sources.copy_(after.sources)
    for name, ring in tensors.bank.items():
        ring.copy_(after.bank[name])
    kept: Features = seen
    return kept


def _write(bank: Bank, seen: Features, slots: Tensor) -> None:
    """Write the features into the slots, in place."""
    for name, ring in banks.write(bank, seen, slots).items():
        bank[name].copy_(ring)


def _merge(bank: Bank, seen: Features, orders: Mapping[int, Tensor]) -> None:
    """Merge one row, in place."""
    merged = BankMerge()(bank, seen, orders)
    for name, ring in bank.items():
        ring.copy_(merged[name])


def _row_merge(
    merge: Callable[..., None],
    bank: Bank,
    orders: Mapping[int, list[StagedInput]],
    row: int,
    seen: Features,
    policy: DevicePolicy,
) -> Callable[[Features], None]:
    """Return what merges that row of the bank with the features that it is given.

    seen: features to capture with; where results are static they lie at these addresses in every frame.
    """
    rings = {name: ring[row : row + 1] for name, ring in bank.items()}
    sizes = {ring.shape[2] for ring in bank.values()}
    own = {tokens: rows[row].buffer for tokens, rows in orders.items() if tokens in sizes}

    def run(seen: Features) -> None:
        merge(rings, {name: seen[name][row : row + 1] for name in rings}, own)

    if not policy.static_results:
        return run
    replay = policy.capture(partial(run, seen))
    return lambda _: replay()


def _write_text(inputs: FrameInputs, write_cross: Callable[[], None], text: Tensor) -> None:
    inputs.text.copy_(text)
    write_cross()


def _write_cross(frame: FrameModule, inputs: FrameInputs) -> None:
    """Work out the cross-attentions' keys and values of the text, in place."""
    found: dict[str, Tensor] = frame.net.cross_attention(inputs.text)  # type: ignore[operator]
    for layer, value in found.items():
        inputs.cross[layer].copy_(value)


def _compiled(function: Callable[..., _T], *, backend: str, mode: str | None) -> Callable[..., _T]:
    # the code of several streams must not count as recompilations of one function, of which PyTorch allows eight
    apart: dict[str, Any] = {}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        apart = {"isolate_recompiles": True}
    else:  # before PyTorch 2.13
        torch._dynamo.config.recompile_limit = 256
    return torch.compile(function, fullgraph=True, dynamic=False, backend=backend, mode=mode, **apart)


def _orders(bank: Bank) -> dict[int, list[StagedInput]]:
    """Return tokens -> for each row int64 [1, 2*tokens], the order in which its tokens are merged."""
    rings = {ring.shape[2]: ring for ring in bank.values()}
    return {
        tokens: [StagedInput(torch.arange(2 * tokens, device=ring.device)[None]) for _ in range(ring.shape[0])]
        for tokens, ring in rings.items()
    }


def _clear(tensors: StreamTensors) -> None:
    """Set everything to zero, as before the first frame: compiling has run the frame."""
    for tensor in (tensors.in_flight, tensors.origins, tensors.sources, *tensors.bank.values()):
        tensor.zero_()
