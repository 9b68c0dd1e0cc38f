"""Engine: the one stateful object; pictures in, pictures out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import prompts, schedule, stream
from core.algorithm.exposure import evened
from core.algorithm.net import Picture
from core.algorithm.stream import PendingPicture, SamplingParameters, Step, StreamState
from core.algorithm.veil import veiled
from core.drift import DriftWatch
from core.errors import PlanError, SettingsError
from core.models import host_memory as host
from core.models import loras
from core.models.description import check_imagines
from core.models.resolved import Resolved
from core.models.stream_memory import check_stream
from core.plans import TensorRtState
from core.progress import Report, silent
from core.runtimes import stages
from core.runtimes.allocation import keep_freed_memory
from core.runtimes.choice import next_best, on_runtime, resolve
from core.runtimes.load import load
from core.runtimes.model import Model, on_device
from core.runtimes.tensorrt import library
from core.settings import DECAY_FRAMES, EngineSettings, Guidance, Look, Lora, OnSwitch, Policy, Runtime
from core.steadying import Steadying

_N = TypeVar("_N", int, float)


class Engine:
    """Translates a stream of pictures by StreamV2V; complete when built, not thread-safe."""

    def __init__(self, settings: EngineSettings | Resolved, look: Look, report: Report = silent) -> None:
        """Load the model, and compile it where the runtime does. Raises ModelError, SettingsError.

        settings: as the user gives them, or resolved before (core.runtimes.choice). report: hears what is being done
        and how much of the start is done, 0..1. failure: why the TensorRT plan that there is does not run, None if it
        does or if there is none.
        """
        resolved = settings if isinstance(settings, Resolved) else resolve(settings)
        self._begin(_opened(resolved, report), look)

    def _begin(self, opened: _Opened, look: Look) -> None:
        self._model, self._state, self._step, self.failure = opened
        self._skip = _Skip()
        self._imagination = _Imagination()
        self._flight = _InFlight()
        self._health = _Health()
        self._steadying = Steadying()
        self._sampling = self._sampling_of(look)
        self._transition = _Transition(prompts.constant(self._model.encoder(look.prompt)))
        self.look = look

    def another(self, look: Look) -> Engine:
        """Return an engine for a stream of its own on the same loaded model: its weights are there once.

        The two do not disturb each other, but share LoRAs: what `use_loras` of one changes, both show. They are called
        one at a time, as one is. Raises MemoryShort where there is too little memory for another stream.
        """
        model = self._model
        check_stream(model.resolved, self.bank_bytes)
        other = Engine.__new__(Engine)
        other._begin(_Opened(model, *_stream(model), self.failure), look)
        return other

    def check_streams(self, count: int) -> int:
        """Return the bytes that so many streams by `another` take; raises MemoryShort where there are fewer."""
        return check_stream(self._model.resolved, self.bank_bytes, count)

    @property
    def trouble(self) -> str:
        """What `failure` says, "" for none."""
        return "" if self.failure is None else str(self.failure)

    @property
    def resolved(self) -> Resolved:
        """The settings, resolved for this machine, with the LoRAs that are in the weights now."""
        return self._model.resolved

    @property
    def settings(self) -> EngineSettings:
        """The settings in use: no `auto` is left in them."""
        return self.resolved.settings

    @property
    def tensorrt(self) -> TensorRtState:
        """What TensorRT has for the settings."""
        return self.resolved.tensorrt

    @property
    def changes_loras(self) -> bool:
        """Whether use_loras() does as well as another engine: not where fewer LoRAs would mean a quicker runtime."""
        return self._model.put is not None and self.resolved.without_loras is self.resolved.runtime

    @property
    def provider(self) -> str:
        """By whose library or hardware the runtime runs the model, in words; "" where the runtime says it all.

        For ONNX Runtime also how much fell back to the CPU; for TensorRT which of the two libraries.
        """
        machine = self.tensorrt.machine
        if self.settings.runtime is Runtime.TENSORRT and machine is not None:
            return f"{library.named(machine.library).title} {machine.tensorrt}"
        return "" if self._model.placement is None else str(self._model.placement)

    @property
    def delay(self) -> int:
        """How many frames a result is behind its picture."""
        return self.settings.steps - (1 if self._model.beside is None else 0)

    @property
    def bank_bytes(self) -> int:
        """How many bytes the bank takes."""
        rows = len(stream.net_rows(self.settings.guidance, self.settings.steps))
        return banks.bank_bytes(self._model.layout, rows, self.settings.ring_slots, self._model.dtype)

    @property
    def refreshes(self) -> int:
        """How often the bank was made anew by itself: as the look says, or because the stream had drifted."""
        return self._health.refreshes

    def set_look(self, look: Look, frames: int = 0) -> None:
        """Use the look from the next frame on; prompts blend over `frames` frames.

        Raises SettingsError, and then changes nothing.
        """
        sampling = self._sampling_of(look)
        target = self._model.encoder(look.prompt)
        if look.prompt != self.look.prompt:
            self._switch_bank(look.on_switch, frames)
        self._sampling, self.look = sampling, look
        self._transition = self._transition.towards(target, frames)
        self._skip = _Skip()
        self._health = self._health.anew()
        self._hold_steadying(frames)

    def use_loras(self, given: tuple[Lora, ...], frames: int = 0) -> None:
        """Use other LoRAs from the next frame on, in the weights that are loaded; nothing is built, the stream goes on.

        The prompts' embeddings blend over `frames` frames where the text encoder is changed too. Raises SettingsError
        where the runtime's weights are fixed or the RAM is too small, ModelError; then nothing has changed.
        """
        if self._model.put is None:
            raise SettingsError(f"the {self.settings.runtime} runtime cannot change LoRAs while it runs; use eager")
        model, settings = self._model, dataclasses.replace(self.settings, loras=given)
        host.check_switch(settings, model.weights, model.originals, host.free_ram())
        change = loras.switch(model.weights, model.originals, given)
        with on_device(settings.device):
            self._model.put(change.values)
        resolved = dataclasses.replace(model.resolved, settings=settings)
        self._model = dataclasses.replace(model, resolved=resolved, originals=change.originals)
        if any(name.startswith("text_encoder") for name in change.values):
            model.encoder.forget()
            self._transition = self._transition.towards(model.encoder(self.look.prompt), frames)
        self._sampling = self._sampling_of(self.look)  # the layers make other keys and values of the same text
        self._switch_bank(self.look.on_switch, frames)
        self._skip = _Skip()
        self._health = self._health.anew()
        self._hold_steadying(frames)

    def stages(self, picture: Picture, repeats: int = 20) -> dict[str, float]:
        """Measure each stage of a frame by itself: milliseconds by core.runtimes.stages.STAGES.

        Nothing of the stream changes. Empty where the runtime's frame cannot be taken apart.
        """
        sampling = self._sampling._replace(text=self._transition.blend.text)
        with on_device(self.settings.device), torch.inference_mode():
            runs = self._step.stages(sampling, self._state, picture)
            return stages.measured_ms(runs, self._model.device, repeats)

    def wrap_step(self, change: Callable[[Step], Step]) -> None:
        """Take frames by `change(step)` from now on.

        So a benchmark measures another bank in the same engine, and a test watches the calls.
        """
        self._step = change(self._step)

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode prompts ahead, so that a switch to them costs nothing."""
        for text in texts:
            self._model.encoder(text)

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the prompt's words that this model does not know and ignores."""
        return self._model.encoder.unknown_words(prompt)

    def prompt_notes(self, prompt: str) -> list[str]:
        """Return what is to be said of the prompt: marks that mean nothing here, and text that is not read."""
        return self._model.encoder.notes(prompt)

    def forget(self) -> None:
        """Empty the bank: the next picture is its first. What is in flight is still shown."""
        if self.delay:
            self._state = stream.with_empty_bank(self._state)
        else:
            self._clear_state()
        self._skip = _Skip()
        self._health = self._health.anew()
        self._transition = self._transition._replace(decay=_Decay())  # nothing old is left
        # of a look that is complete only what is in flight shows another
        hold = self._steadying.hold if self._transition.blend.share < 1 else min(self._steadying.hold, self.delay)
        self._steadying = self._steadying._replace(before=None, kept=None, hold=hold)

    @torch.inference_mode()
    def translate(self, picture: Picture) -> Picture | None:
        """Return the translation of the picture given `delay` calls ago, None in the first `delay` calls.

        picture: RGB uint8 [height, width, 3] of the settings' size; ValueError for anything else.
        """
        self._check(picture)
        self._switch_input(imagined=False)
        similar = self._skip.similar(picture, self.look)
        shown = self._skip.result
        if similar and shown is not None and self._skip.ready(self.delay, self.look):
            self._skip = self._skip._replace(repeats=self._skip.repeats + 1)
            return shown.copy()
        changing = not self._transition.over
        own = picture.copy()  # the caller's may be used again, or be read-only
        result = self._advance(own)
        still = -1 if changing else self._skip.still + 1 if similar else 0
        self._flight = self._flight._replace(last=own)
        self._skip = _Skip(own, None if result is None else result.copy(), still)
        return result

    @torch.inference_mode()
    def drain(self) -> Iterator[Picture]:
        """Yield the translations still in flight, oldest first; afterwards the stream starts anew."""
        last = self._flight.last
        if last is None:
            return
        try:
            for _ in range(self.delay):
                result = self._advance(last)
                if result is not None:
                    yield result
        finally:  # also where the caller takes only some of them
            self._start_anew()

    @torch.inference_mode()
    def imagine(self) -> Picture | None:
        """Return the next picture of the prompt, without any input (text-to-image streaming).

        None in the first `delay` calls. After `translate` (and `translate` after this) the stream starts anew: what was
        in flight is not shown. Raises SettingsError where the model can only translate.
        """
        check_imagines(self.resolved.description)
        self._switch_input(imagined=True)
        noise = self._noise(self.look.seed)
        angle = float(np.deg2rad(self._imagination.degrees))
        self._imagination = self._imagination.wandered(self.look.wander)
        # a rotation from one noise towards another keeps the variance, so every moment is noise as good as the first
        noise = noise * np.cos(angle) + self._noise(self.look.seed + 1) * np.sin(angle)
        sampling = self._sampling._replace(rows=self._rows(1.0), noise=noise)
        return self._advance(None, sampling)

    def _switch_input(self, *, imagined: bool) -> None:
        if self._imagination.active != imagined:
            self._imagination = self._imagination._replace(active=imagined)
            self._start_anew()

    def _start_anew(self) -> None:
        """Do as a new engine with this look would: nothing of the pictures before is left."""
        self._flight = _InFlight()
        self.forget()
        self._clear_state()
        self._steadying = Steadying()
        self._imagination = self._imagination._replace(degrees=0.0)
        self._transition = _Transition(prompts.constant(self._model.encoder(self.look.prompt)))

    def _clear_state(self) -> None:
        with on_device(self.settings.device):
            self._state = stream.begun_anew(self._state)

    def _hold_steadying(self, frames: int) -> None:
        """Show translations as they are while the look changes over that many frames, and what is in flight too."""
        if frames or self._flight.calls:  # before its first picture a stream has the look from the start
            self._steadying = self._steadying.held(frames + self.delay + 1)

    def _advance(self, picture: Picture | None, sampling: SamplingParameters | None = None) -> Picture | None:
        sampling = self._transition.apply(self._sampling if sampling is None else sampling)
        changing = not self._transition.over
        given = None if picture is None else self._given(picture)
        with _threads(self._model.threads), on_device(self.settings.device):
            pending, self._state = self._step(sampling, self._state, given)
        if picture is None:
            output = self._output(pending)
            self._look_after_bank(None, output, changing=changing)
            return output
        # by the camera's own picture: evening the light out makes the noise of dark places larger
        steadying, strength = self._steadying.given(picture, self.delay), self._steadiness
        motion = steadying.motion(strength) if self._flight.calls >= self.delay else None  # while the device works
        output = self._output(pending)
        if output is not None:
            output, steadying = steadying.after(output, motion, strength)
        self._steadying = steadying
        self._look_after_bank(given, output, changing=changing)  # by the light that the translation follows
        return output

    def _given(self, picture: Picture) -> Picture:
        """Return what the model sees of a picture."""
        own = self.resolved.description
        seen = veiled(picture, self.look.strength) if own.detail else picture
        return evened(seen) if own.local_exposure else seen

    def _look_after_bank(self, source: Picture | None, output: Picture | None, *, changing: bool) -> None:
        """Make the bank anew where a picture shows that it must be, or where the look says so."""
        if output is None or self.settings.policy is Policy.OFF:
            return
        if not output.any():
            # black all over is what NaN becomes: in the bank it would spoil every picture to come
            self._state = stream.with_empty_bank(self._state)
            return
        self._health = self._health.after(source, output, changing=changing)
        if self._health.due(self.look.refresh) and not changing:
            # the next picture fills every slot; fusion comes back little by little
            self._state = stream.with_empty_bank(self._state)
            self._transition = self._transition._replace(decay=_Decay(0, DECAY_FRAMES))
            self._health = self._health.refreshed()

    def _output(self, pending: PendingPicture) -> Picture | None:
        """Return the picture that is ready after a step, and go on to the next frame."""
        self._transition = self._transition.next()
        decoding, calls = self._flight.decoding, self._flight.calls + 1
        self._flight = self._flight._replace(calls=calls)
        if self._model.beside is None:
            return pending() if calls > self.delay else None
        self._flight = self._flight._replace(decoding=self._model.beside.submit(pending))
        # the first calls decode what is no picture yet
        return decoding.result() if decoding is not None and calls > self.delay else None

    @property
    def _steadiness(self) -> float:
        if self.look.steady is not None:
            return self.look.steady
        return 0.0 if self.settings.policy is Policy.OFF else self.settings.rules.steady

    def _sampling_of(self, look: Look) -> SamplingParameters:
        own, rules = self.resolved.description, self.settings.rules
        if look.guidance != 1 and self.settings.guidance is Guidance.NONE:
            raise SettingsError(
                f"guidance is {look.guidance:g}, but the engine was built without; set guidance of the engine to "
                "self-negative, onetime-negative or full"
            )
        return SamplingParameters(
            rows=self._rows(look.strength),
            noise=self._noise(look.seed),
            prediction=self._model.schedule.prediction,
            text=self._model.encoder(look.prompt),
            negative_text=self._model.encoder(look.negative_prompt),
            guidance=self.settings.guidance,
            scale=look.guidance,
            residual=look.residual,
            policy=self.settings.policy,
            interval=_first(look.interval, rules.interval, own.interval),
            fusion_strength=_first(look.fusion_strength, rules.fusion_strength, own.fusion_strength),
            threshold=_first(look.similarity_threshold, rules.similarity_threshold, own.similarity_threshold),
            seed=look.seed,
            rules=rules,
        )

    def _rows(self, strength: float) -> schedule.RowCoefficients:
        own = self._model.schedule
        chosen = schedule.timesteps(own.kind, self.settings.steps, strength, len(own.alphas_cumprod))
        return schedule.row_coefficients(own, chosen, self._model.dtype, self._model.device)

    def _noise(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
        noise = torch.randn(self.settings.steps, *self._model.latent, generator=generator)
        return noise.to(self._model.device, self._model.dtype)

    def _switch_bank(self, on_switch: OnSwitch, frames: int) -> None:
        if on_switch is OnSwitch.FLUSH:
            self.forget()
        elif on_switch is OnSwitch.DECAY and self._flight.calls:
            self._transition = self._transition._replace(decay=_Decay(0, frames or DECAY_FRAMES))

    def _check(self, picture: Picture) -> None:
        wanted = (self.settings.height, self.settings.width, 3)
        if not isinstance(picture, np.ndarray):
            raise ValueError(f"the picture is a {type(picture).__name__}; it must be an array, uint8 {wanted}")
        if picture.shape != wanted or picture.dtype != np.uint8:
            raise ValueError(f"the picture is {picture.dtype} {picture.shape}; it must be uint8 {wanted}")


def _first(look: _N | None, rules: _N | None, model: _N) -> _N:
    """Return the first that is given."""
    if look is not None:
        return look
    return model if rules is None else rules


class _Opened(NamedTuple):
    """A model, the state of a stream before its first frame, its step, and Engine.failure."""

    model: Model
    state: StreamState
    step: Step
    failure: PlanError | None = None


def _opened(resolved: Resolved, report: Report) -> _Opened:
    """Return the model with a stream; where the TensorRT plan does not run, the next best runtime stands in."""
    try:
        return _begun(resolved, report)
    except PlanError as error:
        if resolved.asked not in (Runtime.AUTO, Runtime.TENSORRT):
            raise
        failure = error.with_traceback(None)  # which would hold on to what takes the memory
    chosen = next_best(resolved)  # here, where nothing holds the memory of what failed
    report(f"{chosen.runtime} runtime: the TensorRT engine cannot be used: {failure}", 0.55)
    return _begun(chosen, report)._replace(failure=failure)


def _begun(resolved: Resolved, report: Report) -> _Opened:
    """Return the model on the resolved runtime with a stream; where `auto`'s does not work here, eager stands in."""
    settings = resolved.settings
    with on_device(settings.device):
        model = load(resolved, report)
    if model.device.type == "cpu":
        keep_freed_memory()
    try:
        return _Opened(model, *_stream(model))
    except SettingsError as error:
        if resolved.asked is not Runtime.AUTO or resolved.runtime is Runtime.EAGER:
            raise
        why = f"{error}; so that is what is done"
    return _begun(on_runtime(resolved, Runtime.EAGER, why), report)


def _stream(model: Model) -> tuple[StreamState, Step]:
    """Return the state of a stream before its first frame, and its step."""
    settings = model.resolved.settings
    state = stream.initial_state(
        model.layout,
        settings.steps,
        settings.ring_slots,
        settings.guidance,
        model.latent,
        model.dtype,
        model.device,
        model.resolved.sources,
    )
    with on_device(settings.device):
        return state, model.open(state)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch's own operations run on `count` threads meanwhile; None leaves them alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Imagination(NamedTuple):
    """Text-to-image streaming: whether it runs, and how many degrees its noise has wandered."""

    active: bool = False
    degrees: float = 0.0

    def wandered(self, degrees: float) -> _Imagination:
        return self._replace(degrees=self.degrees + degrees)


class _InFlight(NamedTuple):
    """What a stream has under way: frames taken so far, the picture being decoded, the last picture given."""

    calls: int = 0
    decoding: Future[Picture] | None = None
    last: Picture | None = None


class _Decay(NamedTuple):
    """A bank's way out after a switch, or its beginning anew: features lose their pull, and every frame is kept."""

    done: int = 0
    frames: int = 0

    @property
    def over(self) -> bool:
        return self.done >= self.frames

    def apply(self, sampling: SamplingParameters) -> SamplingParameters:
        if self.over:
            return sampling
        return sampling._replace(
            interval=1,
            fusion_strength=sampling.fusion_strength * self.done / self.frames,
        )

    def next(self) -> _Decay:
        return self if self.over else self._replace(done=self.done + 1)


class _Transition(NamedTuple):
    """What goes on for some frames after a switch: the prompt's blend, and the bank's decay."""

    blend: prompts.Blend
    decay: _Decay = _Decay()

    @property
    def over(self) -> bool:
        return self.blend.share >= 1 and self.decay.over

    def apply(self, sampling: SamplingParameters) -> SamplingParameters:
        return self.decay.apply(sampling)._replace(text=self.blend.text)

    def towards(self, target: Tensor, frames: int) -> _Transition:
        return self._replace(blend=prompts.blend_towards(self.blend, target, frames))

    def next(self) -> _Transition:
        return _Transition(self.blend.next(), self.decay.next())


class _Health(NamedTuple):
    """Whether the bank is well: what the stream looks like, the pictures since it was made anew, how often that was."""

    watch: DriftWatch = DriftWatch()
    pictures: int = 0
    refreshes: int = 0

    def after(self, source: Picture | None, output: Picture, *, changing: bool) -> _Health:
        """Return it after a picture; without a source, or while the look changes, nothing tells a drift."""
        watch = self.watch if source is None or changing else self.watch.after(source, output)
        return self._replace(watch=watch, pictures=self.pictures + 1)

    def due(self, scheduled: int) -> bool:
        """Return whether the bank is to be made anew; scheduled: after so many pictures, 0: never for that."""
        return self.watch.drifted or 0 < scheduled <= self.pictures

    def anew(self) -> _Health:
        return _Health(refreshes=self.refreshes)

    def refreshed(self) -> _Health:
        return _Health(refreshes=self.refreshes + 1)


class _Skip(NamedTuple):
    """Similar-frame skip: the last picture that was translated and what was shown for it.

    still: how many pictures in a row before it were as good as the same. repeats: how often the result was shown again.
    """

    picture: Picture | None = None
    result: Picture | None = None
    still: int = 0
    repeats: int = 0

    def similar(self, picture: Picture, look: Look) -> bool:
        """Return whether `picture` is as good as the last one."""
        if look.skip_difference == 0 or self.picture is None:
            return False
        return bool(np.abs(picture.astype(np.int16) - self.picture).mean() < look.skip_difference)

    def ready(self, delay: int, look: Look) -> bool:
        """Return whether the result may be shown again: it is `delay` frames old, all of which must have been alike."""
        return self.still >= delay and self.repeats < look.skip_limit
