"""The `compiled` runtime: the whole frame (core.algorithm.frame.FrameModule) by torch.compile, on CUDA as one graph.

All that a graph reads and writes lies in tensors that are made once and stay where they are: the picture, the inputs,
the tensors, the result. A frame copies into them what is new, runs the graph, and copies the result out; it waits for
the device once, for that copy. Merging runs after it, beside the copy and whatever the caller does next.
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

from core.algorithm import bank as banks
from core.algorithm import stream, unet
from core.algorithm.attention import SelfAttention
from core.algorithm.bank import Bank, BankUpdate, Features
from core.algorithm.frame import (
    BankMerge,
    FrameInputs,
    FrameModule,
    FrameScalars,
    PictureEncoder,
    StreamTensors,
    denoise,
    example_inputs,
)
from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture, SamplingParameters, Step, StreamState
from core.algorithm.unet import BankedUNet
from core.errors import SettingsError
from core.models import loras
from core.models.description import one_line
from core.models.loading import LoadedParts, banked, load_parts
from core.progress import BUILDING, Report
from core.resolved import Resolved
from core.runtimes.capture import DevicePolicy, device_policy
from core.runtimes.copies import StagedInput
from core.runtimes.model import Model
from core.runtimes.stages import Runs, busy_update

_T = TypeVar("_T")


def load(
    resolved: Resolved,
    report: Report,
    *,
    backend: str = "inductor",
    mode: str | None = None,
) -> Model:
    """The model, whose frame is compiled when a stream is opened. Raises ModelError, SettingsError.

    backend and mode are torch.compile's.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    loaded, settings = load_parts(resolved), resolved.settings
    quick = optimized_frame(loaded, resolved)
    _, length, width = loaded.encoder("").shape
    opened: weakref.WeakSet[CompiledStep] = weakref.WeakSet()

    def put(values: Mapping[str, Tensor]) -> None:
        loras.put(quick.weights, values)
        quick.weights_changed()
        for step in opened:
            step.weights_changed()

    def open_stream(state: StreamState) -> Step:
        size = (settings.height, settings.width)
        try:
            step = CompiledStep(quick.frame, state, size, (length, width), report, backend, mode)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of PyTorch's compiler: there is no common class below this one
            raise SettingsError(
                f"the compiled runtime does not work here ({one_line(error)}); use --runtime eager"
            ) from error
        opened.add(step)
        return step

    return Model.of_parts(resolved, loaded._replace(weights=quick.weights), open_stream, put)


def code_folder() -> Path:
    """Where compiled code is kept for the next start, unless TORCHINDUCTOR_CACHE_DIR says; it need not exist."""
    import platformdirs

    return platformdirs.user_cache_path("streamv2v-camera", appauthor=False) / "compiled"


class OptimizedFrame(NamedTuple):
    """A model's whole frame in the form that is quickest on a GPU.

    weights: core.models.loras.named_weights, of which those of the fused projections are views. weights_changed: to be
    called after they did.
    """

    frame: FrameModule
    weights: dict[str, Tensor]
    weights_changed: Callable[[], None]


def optimized_frame(loaded: LoadedParts, resolved: Resolved) -> OptimizedFrame:
    """The loaded parts as one frame: self-attentions project by one matrix each, time embeddings are looked up.

    It takes the parts over; the results stay the same.
    """
    net, settings = banked(loaded.unet, resolved), resolved.settings
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
    again = unet.tabulate_time(net.unet, len(loaded.schedule.alphas_cumprod))
    return OptimizedFrame(frame.requires_grad_(False), weights, again)


def _fuse_projections(net: BankedUNet) -> dict[Tensor, Tensor]:
    """Let each self-attention have one matrix for query, key and value: the weight it had -> the view it is now."""
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
    ) -> None:
        """state: of the stream; its tensors are worked on in place. size: (height, width), words: (words, width)."""
        device = state.tensors.in_flight.device
        self._tensors = state.tensors
        picture, shown = (torch.zeros(*size, 3, dtype=torch.uint8, device=device) for _ in range(2))
        self._inputs = example_inputs(frame.net, state.tensors, len(state.positions), words)  # type: ignore[arg-type]
        self._was: tuple[SamplingParameters, FrameScalars] | None = None
        compiled = self._compiled = partial(_compiled, backend=backend, mode=mode)
        self._frame = frame
        policy = self._policy = device_policy(device)
        capture = policy.capture
        with torch.inference_mode():
            report("compiling the frame: minutes at first, seconds once it is kept", BUILDING)
            run = partial(compiled(_translate), frame, picture, self._inputs, self._tensors, shown)
            self._translate: Callable[[], Features] = capture(run)
            self._condition = capture(partial(_condition, frame, self._inputs))
            self._merges: list[Callable[[Features], None]] = []
            if seen := self._translate():
                report("compiling the merge of the bank", 0.75)
                self._orders = _orders(self._tensors.bank)
                merge = compiled(_merge)
                rows = range(len(state.positions))
                self._merges = [_merger(merge, self._tensors.bank, self._orders, row, seen, policy) for row in rows]
                for merged in self._merges:
                    merged(seen)
            _blank(self._tensors)
        self._scalars = [StagedInput(buffer) for buffer in _flat(_scalars(self._inputs))]
        self._copies = policy.copies(picture, shown)

    def __call__(
        self, sampling: SamplingParameters, state: StreamState, picture: Picture | None
    ) -> tuple[PendingPicture, StreamState]:
        """See core.algorithm.stream.Step."""
        now = stream.bank_update(sampling, state)
        with torch.inference_mode():
            self._copies.take(picture)
            self._refresh(sampling, now, imagined=picture is None)
            seen = self._translate()
            develop = self._copies.give()
            self._merge(sampling, now, seen)
        return develop, stream.next_state(state, self._tensors, now)

    def stages(self, sampling: SamplingParameters, state: StreamState, picture: Picture) -> Runs:
        """core.runtimes.stages.Runs: each stage compiled, and on CUDA captured, by itself; it compiles for a while."""
        device, now, tensors = self._inputs.noise.device, busy_update(sampling, state), self._tensors
        given = torch.from_numpy(picture).to(device)
        frame, capture = self._frame, self._policy.capture
        scalars = stream.frame_scalars(sampling, banks.slot_count(tensors.bank), now, device)
        inputs = FrameInputs(
            sampling.rows, sampling.noise, stream.text_rows(sampling), dict(self._inputs.cross), *scalars
        )
        net = partial(frame.net, cross=inputs.cross)
        with torch.inference_mode():
            encode = capture(partial(self._compiled(frame.encode), given))
            clean = encode()
            batch, origins = (torch.cat([clean, waiting]) for waiting in (tensors.in_flight, tensors.origins))
            kinds = {"prediction": frame.prediction, "guidance": frame.guidance}
            unet = capture(partial(self._compiled(denoise), net, inputs, tensors.bank, batch, origins, **kinds))
            seen = unet()[2]
            bank = {name: ring.clone() for name, ring in tensors.bank.items()}
            keep = [capture(partial(self._compiled(_write), bank, seen, inputs.write))] if any(now.writes) else []
            orders = _orders(bank)
            merge = self._compiled(_merge)
            keep += [partial(_merger(merge, bank, orders, row, seen, self._policy), seen) for row in now.merged]
            decode = capture(partial(self._compiled(frame.decode), clean, given))
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
        """What was worked out from the text is so again with the next frame."""
        self._was = None

    def _refresh(self, sampling: SamplingParameters, now: BankUpdate, *, imagined: bool) -> None:
        """Bring what has changed since the last frame into the inputs."""
        slots, cpu = banks.slot_count(self._tensors.bank), torch.device("cpu")
        scalars = stream.frame_scalars(sampling, slots, now, cpu, imagined=imagined)
        before, held = self._was or (None, None), self._inputs
        was, turned = before
        if was is None or sampling.rows is not was.rows:
            for buffer, value in zip(held.rows, sampling.rows, strict=True):
                buffer.copy_(value)
        if was is None or sampling.noise is not was.noise:
            held.noise.copy_(sampling.noise)
        if was is None or sampling.text is not was.text or sampling.negative_text is not was.negative_text:
            held.text.copy_(stream.text_rows(sampling))
            self._condition()
        for staged, value, old in zip(self._scalars, _flat(scalars), _flat(turned or scalars), strict=True):
            if turned is None or not torch.equal(value, old):
                staged.put(value)
        self._was = sampling, scalars

    def _merge(self, sampling: SamplingParameters, now: BankUpdate, seen: Features) -> None:
        for row in now.merged:
            for tokens, order in banks.merge_orders(self._tensors.bank, sampling.seed, [now.ages[row]]).items():
                self._orders[tokens][row].put(order)
            self._merges[row](seen)


def _translate(
    frame: FrameModule, picture: Tensor, inputs: FrameInputs, tensors: StreamTensors, shown: Tensor
) -> Features:
    """The frame, in place."""
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
    """The frame into its slots, in place."""
    for name, ring in banks.write(bank, seen, slots).items():
        bank[name].copy_(ring)


def _merge(bank: Bank, seen: Features, orders: Mapping[int, Tensor]) -> None:
    """The merge of one row, in place."""
    merged = BankMerge()(bank, seen, orders)
    for name, ring in bank.items():
        ring.copy_(merged[name])


def _merger(
    merge: Callable[..., None],
    bank: Bank,
    orders: Mapping[int, list[StagedInput]],
    row: int,
    seen: Features,
    policy: DevicePolicy,
) -> Callable[[Features], None]:
    """What merges that row; `seen` always lies where it lies now, or else it comes anew."""
    rings = {name: ring[row : row + 1] for name, ring in bank.items()}
    own = {tokens: rows[row].buffer for tokens, rows in orders.items()}

    def now(seen: Features) -> None:
        merge(rings, {name: seen[name][row : row + 1] for name in rings}, own)

    if not policy.static_results:
        return now
    again = policy.capture(partial(now, seen))
    return lambda _: again()


def _condition(frame: FrameModule, inputs: FrameInputs) -> None:
    """The cross-attentions' keys and values of the text, in place."""
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
    """tokens -> for each row int64 [1, 2*tokens], the order in which its tokens are merged."""
    rings = {ring.shape[2]: ring for ring in bank.values()}
    return {
        tokens: [StagedInput(torch.arange(2 * tokens, device=ring.device)[None]) for _ in range(ring.shape[0])]
        for tokens, ring in rings.items()
    }


def _scalars(inputs: FrameInputs) -> FrameScalars:
    return FrameScalars(inputs.scale, inputs.residual, inputs.presence, inputs.reading, inputs.write)


def _flat(scalars: FrameScalars) -> list[Tensor]:
    return [scalars.scale, scalars.residual, scalars.presence, *scalars.reading, scalars.write]


def _blank(tensors: StreamTensors) -> None:
    """As it was before the first frame."""
    for tensor in (tensors.in_flight, tensors.origins, tensors.sources, *tensors.bank.values()):
        tensor.zero_()
