"""The `compiled` runtime: the whole frame (core.algorithm.frame.Frame) by torch.compile; on CUDA it is captured as one
graph.

All that a graph reads and writes lies in tensors that are made once and stay where they are: the picture, the knobs,
the memory, the result. A frame copies into them what is new, runs the graph, and copies the result out; it waits for
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
from core.algorithm.bank import Bank, Seen, Turn
from core.algorithm.frame import Dials, Encode, Frame, Knobs, Memory, Merge, denoise, idle_knobs
from core.algorithm.net import Picture
from core.algorithm.stream import Develop, Plan, Step, StreamState
from core.algorithm.unet import BankedUNet
from core.errors import SettingsError
from core.models import loras
from core.models.description import ModelDescription, one_line
from core.models.loading import BUILDING, Loaded, Model, Report, banked, load_parts
from core.runtimes.capture import Way, way_of
from core.runtimes.copies import Staged
from core.runtimes.stages import Runs, busy
from core.settings import EngineSettings

_T = TypeVar("_T")


def load(
    description: ModelDescription,
    settings: EngineSettings,
    report: Report,
    *,
    backend: str = "inductor",
    mode: str | None = None,
) -> Model:
    """The model, whose frame is compiled when a stream is opened. Raises ModelError, SettingsError.

    backend and mode are torch.compile's.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    loaded = load_parts(description, settings)
    quick = whole(loaded, description, settings)
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

    return loaded._replace(weights=quick.weights).model(description, settings, open_stream, put)


def code_folder() -> Path:
    """Where compiled code is kept for the next start, unless TORCHINDUCTOR_CACHE_DIR says; it need not exist."""
    import platformdirs

    return platformdirs.user_cache_path("streamv2v-camera", appauthor=False) / "compiled"


class Quick(NamedTuple):
    """A model's whole frame in the form that is quickest on a GPU.

    weights: core.models.loras.named_weights, of which those of the fused projections are views. weights_changed: to be
    called after they did.
    """

    frame: Frame
    weights: dict[str, Tensor]
    weights_changed: Callable[[], None]


def whole(loaded: Loaded, description: ModelDescription, settings: EngineSettings) -> Quick:
    """The loaded parts as one frame: self-attentions project by one matrix each, time embeddings are looked up.

    It takes the parts over; the results stay the same.
    """
    net = banked(loaded, description)
    frame = Frame(
        Encode(loaded.vae),
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
    return Quick(frame.requires_grad_(False), weights, again)


def _fuse_projections(net: BankedUNet) -> dict[Tensor, Tensor]:
    """Let each self-attention have one matrix for query, key and value: the weight it had -> the view it is now."""
    views: dict[Tensor, Tensor] = {}
    for module in net.modules():
        if isinstance(module, Attention) and isinstance(module.processor, SelfAttention):
            module.fuse_projections()  # type: ignore[no-untyped-call]
            parts = (module.to_q.weight, module.to_k.weight, module.to_v.weight)
            views |= zip(parts, module.to_qkv.weight.detach().chunk(3), strict=True)
            del module.to_q, module.to_k, module.to_v
    return views


class CompiledStep:
    """core.algorithm.stream.Step by compiled code; building it compiles and, on CUDA, captures."""

    def __init__(
        self,
        frame: Frame,
        state: StreamState,
        size: tuple[int, int],
        words: tuple[int, int],
        report: Report,
        backend: str,
        mode: str | None,
    ) -> None:
        """state: of the stream; its tensors are worked on in place. size: (height, width), words: (words, width)."""
        device = state.memory.in_flight.device
        self._memory = state.memory
        picture, shown = (torch.zeros(*size, 3, dtype=torch.uint8, device=device) for _ in range(2))
        self._knobs = idle_knobs(frame.net, state.memory, len(state.positions), words)  # type: ignore[arg-type]
        self._was: tuple[Plan, Dials] | None = None
        compiled = self._compiled = partial(_compiled, backend=backend, mode=mode)
        self._frame = frame
        way = self._way = way_of(device)
        repeated = way.repeated
        with torch.inference_mode():
            report("compiling the frame: minutes at first, seconds once it is kept", BUILDING)
            run = partial(compiled(_translate), frame, picture, self._knobs, self._memory, shown)
            self._translate: Callable[[], Seen] = repeated(run)
            self._condition = repeated(partial(_condition, frame, self._knobs))
            self._merges: list[Callable[[Seen], None]] = []
            if seen := self._translate():
                report("compiling the merge of the bank", 0.75)
                self._orders = _orders(self._memory.bank)
                merge = compiled(_merge)
                rows = range(len(state.positions))
                self._merges = [_merger(merge, self._memory.bank, self._orders, row, seen, way) for row in rows]
                for merged in self._merges:
                    merged(seen)
            _blank(self._memory)
        self._dials = [Staged(buffer) for buffer in _flat(_dials(self._knobs))]
        self._copies = way.copies(picture, shown)

    def __call__(self, plan: Plan, state: StreamState, picture: Picture | None) -> tuple[Develop, StreamState]:
        """See core.algorithm.stream.Step."""
        now = stream.turn(plan, state)
        with torch.inference_mode():
            self._copies.take(picture)
            self._refresh(plan, now, imagined=picture is None)
            seen = self._translate()
            develop = self._copies.give()
            self._merge(plan, now, seen)
        return develop, stream.after(state, self._memory, now)

    def stages(self, plan: Plan, state: StreamState, picture: Picture) -> Runs:
        """core.runtimes.stages.Runs: each stage compiled, and on CUDA captured, by itself; it compiles for a while."""
        device, now, memory = self._knobs.noise.device, busy(plan, state), self._memory
        given = torch.from_numpy(picture).to(device)
        frame, repeated = self._frame, self._way.repeated
        dials = stream.dials(plan, banks.slot_count(memory.bank), now, device)
        knobs = Knobs(plan.rows, plan.noise, stream.texts(plan), dict(self._knobs.cross), *dials)
        net = partial(frame.net, cross=knobs.cross)
        with torch.inference_mode():
            encode = repeated(partial(self._compiled(frame.encode), given))
            clean = encode()
            batch, origins = (torch.cat([clean, waiting]) for waiting in (memory.in_flight, memory.origins))
            kinds = {"prediction": frame.prediction, "guidance": frame.guidance}
            unet = repeated(partial(self._compiled(denoise), net, knobs, memory.bank, batch, origins, **kinds))
            seen = unet()[2]
            bank = {name: ring.clone() for name, ring in memory.bank.items()}
            keep = [repeated(partial(self._compiled(_write), bank, seen, knobs.write))] if any(now.writes) else []
            orders = _orders(bank)
            merge = self._compiled(_merge)
            keep += [partial(_merger(merge, bank, orders, row, seen, self._way), seen) for row in now.merged]
            decode = repeated(partial(self._compiled(frame.decode), clean, given))
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

    def _refresh(self, plan: Plan, now: Turn, *, imagined: bool) -> None:
        """Bring what has changed since the last frame into the knobs."""
        slots, cpu = banks.slot_count(self._memory.bank), torch.device("cpu")
        dials = stream.dials(plan, slots, now, cpu, imagined=imagined)
        before, held = self._was or (None, None), self._knobs
        was, turned = before
        if was is None or plan.rows is not was.rows:
            for buffer, value in zip(held.rows, plan.rows, strict=True):
                buffer.copy_(value)
        if was is None or plan.noise is not was.noise:
            held.noise.copy_(plan.noise)
        if was is None or plan.text is not was.text or plan.negative_text is not was.negative_text:
            held.text.copy_(stream.texts(plan))
            self._condition()
        for staged, value, old in zip(self._dials, _flat(dials), _flat(turned or dials), strict=True):
            if turned is None or not torch.equal(value, old):
                staged.put(value)
        self._was = plan, dials

    def _merge(self, plan: Plan, now: Turn, seen: Seen) -> None:
        for row in now.merged:
            for tokens, order in banks.orders(self._memory.bank, plan.seed, [now.ages[row]]).items():
                self._orders[tokens][row].put(order)
            self._merges[row](seen)


def _translate(frame: Frame, picture: Tensor, knobs: Knobs, memory: Memory, shown: Tensor) -> Seen:
    """The frame, in place."""
    result, after, seen = frame(picture, knobs, memory)
    shown.copy_(result)
    memory.in_flight.copy_(after.in_flight)
    memory.origins.copy_(after.origins)
    memory.sources.copy_(after.sources)
    for name, ring in memory.bank.items():
        ring.copy_(after.bank[name])
    kept: Seen = seen
    return kept


def _write(bank: Bank, seen: Seen, slots: Tensor) -> None:
    """The frame into its slots, in place."""
    for name, ring in banks.write(bank, seen, slots).items():
        bank[name].copy_(ring)


def _merge(bank: Bank, seen: Seen, orders: Mapping[int, Tensor]) -> None:
    """The merge of one row, in place."""
    merged = Merge()(bank, seen, orders)
    for name, ring in bank.items():
        ring.copy_(merged[name])


def _merger(
    merge: Callable[..., None],
    bank: Bank,
    orders: Mapping[int, list[Staged]],
    row: int,
    seen: Seen,
    way: Way,
) -> Callable[[Seen], None]:
    """What merges that row; `seen` always lies where it lies now, or else it comes anew."""
    rings = {name: ring[row : row + 1] for name, ring in bank.items()}
    own = {tokens: rows[row].buffer for tokens, rows in orders.items()}

    def now(seen: Seen) -> None:
        merge(rings, {name: seen[name][row : row + 1] for name in rings}, own)

    if not way.static:
        return now
    again = way.repeated(partial(now, seen))
    return lambda _: again()


def _condition(frame: Frame, knobs: Knobs) -> None:
    """The cross-attentions' keys and values of the text, in place."""
    found: dict[str, Tensor] = frame.net.cross_attention(knobs.text)  # type: ignore[operator]
    for layer, value in found.items():
        knobs.cross[layer].copy_(value)


def _compiled(function: Callable[..., _T], *, backend: str, mode: str | None) -> Callable[..., _T]:
    # the code of several streams must not count as recompilations of one function, of which PyTorch allows eight
    apart: dict[str, Any] = {}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        apart = {"isolate_recompiles": True}
    else:  # before PyTorch 2.13
        torch._dynamo.config.recompile_limit = 256
    return torch.compile(function, fullgraph=True, dynamic=False, backend=backend, mode=mode, **apart)


def _orders(bank: Bank) -> dict[int, list[Staged]]:
    """tokens -> for each row int64 [1, 2*tokens], the order in which its tokens are merged."""
    rings = {ring.shape[2]: ring for ring in bank.values()}
    return {
        tokens: [Staged(torch.arange(2 * tokens, device=ring.device)[None]) for _ in range(ring.shape[0])]
        for tokens, ring in rings.items()
    }


def _dials(knobs: Knobs) -> Dials:
    return Dials(knobs.scale, knobs.residual, knobs.presence, knobs.reading, knobs.write)


def _flat(dials: Dials) -> list[Tensor]:
    return [dials.scale, dials.residual, dials.presence, *dials.reading, dials.write]


def _blank(memory: Memory) -> None:
    """As it was before the first frame."""
    for tensor in (memory.in_flight, memory.origins, memory.sources, *memory.bank.values()):
        tensor.zero_()
