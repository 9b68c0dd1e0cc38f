"""A described model's parts, loaded: SD 1.5-shaped diffusers folders and LoRAs; safetensors only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import ModelError, PlaceError, SettingsError, ShapeError
from core.models.description import (
    DESCRIPTION,
    DETAIL,
    ModelDescription,
    describe,
    has_graphs,
    one_line,
    part_config,
    read_json,
    require,
    variant,
)
from core.settings import EngineSettings, Policy, Runtime

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import torch
    from torch import Tensor

    from core.algorithm.bank import Layout
    from core.algorithm.detail import Detail
    from core.algorithm.frame import PictureDecoder, PictureEncoder
    from core.algorithm.net import Picture
    from core.algorithm.prompts import PromptEncoder
    from core.algorithm.schedule import Schedule
    from core.algorithm.stream import Step, StreamState
    from core.algorithm.unet import BankedUNet
    from core.models.device_memory import Need

Report = Callable[[str, float], None]  # what is being done, and how far the whole start is, 0..1
BUILDING = 0.6  # how far it is when a runtime begins to compile or to build

_UNSUPPORTED = {  # of a UNet's config: what a call would have to be given besides latents, timesteps and text
    "time_cond_proj_dim": "models with a guidance embedding (LCM)",
    "addition_embed_type": "models with further conditions (SDXL)",
    "encoder_hid_dim_type": "models with further encoders",
    "class_embed_type": "models with classes",
}
_SUPPORTED = "take an SD 1.5-shaped model (for LCM: Stable Diffusion 1.5 with the LCM LoRA)"


@dataclass(frozen=True)
class Model:
    """A loaded model, good for any number of streams; settings have nothing left to decide.

    open: how the frames of a stream that begins with that state are taken; it compiles, where the runtime does.
    """

    settings: EngineSettings
    description: ModelDescription
    open: Callable[[StreamState], Step]
    encoder: PromptEncoder
    schedule: Schedule
    layout: Layout
    latent: tuple[int, int, int]  # channels, height, width
    dtype: torch.dtype
    device: torch.device
    beside: Executor | None = None  # where a picture is developed while the next is begun; None: it is waited for
    threads: int | None = None  # of PyTorch's own operations between the calls; None: as many as it has
    weights: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # core.models.loras.named_weights, with the LoRAs in them
    originals: Mapping[str, Tensor] = field(default_factory=dict)  # core.models.loras.Switch
    put: Callable[[Mapping[str, Tensor]], None] | None = None  # new values into the weights; None: they are fixed


class Loaded(NamedTuple):
    """A model's parts by PyTorch, in evaluation mode, on the settings' device and in their dtype.

    layout: of the bank, empty without one. latent: channels, height, width. weights and originals: see Model.
    decode: by the VAE, and the detail stage where the model has one.
    """

    unet: Any
    vae: Any
    encoder: PromptEncoder
    schedule: Schedule
    layout: Layout
    latent: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device
    weights: Mapping[str, Tensor]
    originals: Mapping[str, Tensor]
    decode: PictureDecoder

    def model(
        self,
        description: ModelDescription,
        settings: EngineSettings,
        open_stream: Callable[[StreamState], Step],
        put: Callable[[Mapping[str, Tensor]], None],
    ) -> Model:
        """The model whose frames are taken so; put as in Model, of this one's weights."""
        return Model(
            settings,
            description,
            open_stream,
            self.encoder,
            self.schedule,
            self.layout,
            self.latent,
            self.dtype,
            self.device,
            weights=self.weights,
            originals=self.originals,
            put=put,
        )


def silent(text: str, fraction: float) -> None:
    """A Report that nobody hears."""


def load(settings: EngineSettings, report: Report = silent) -> Model:
    """The settings' model, its LoRAs fused. Raises ModelError, SettingsError."""
    require(settings.model)
    description = describe(settings.model)
    settings, why = _resolved(settings, description)
    report(f"{settings.runtime} runtime: {why}", 0.55)
    if settings.runtime is Runtime.ONNX:
        from core.runtimes.onnx import runtime as onnx

        return onnx.load(description, settings)
    expected(settings)
    with quiet():
        if settings.runtime is Runtime.TENSORRT:
            from core.runtimes.tensorrt import runtime as tensorrt

            return tensorrt.load(description, settings, report)
        if settings.runtime is Runtime.COMPILED:
            from core.runtimes import compiled

            return compiled.load(description, settings, report)
        return _load(description, settings)


def expected(settings: EngineSettings) -> Need | None:
    """The memory that the engine will take on its device; None where that is not worked out before it is loaded.

    That is for a small model where much is free; on the onnx runtime, which would have to import diffusers for it; and
    for a folder of which `load` will say what is wrong. Raises SettingsError where it does not fit, with the largest
    size that does, nor into the host's RAM while it is loaded; ModelError.
    """
    require(settings.model)
    description = describe(settings.model)
    settings = resolve(settings, description)
    if settings.runtime is Runtime.ONNX:
        return None
    from core.models import device_memory as memory
    from core.models import host_memory as host

    _device(settings.device)
    room = memory.free(settings.device)
    if memory.is_small(description, settings, room):
        return None
    host.check_loading(description, settings, host.free_ram())
    try:
        return memory.check(description, settings, room)
    except ShapeError:
        return None


def resolve(settings: EngineSettings, description: ModelDescription) -> EngineSettings:
    """The settings with every `auto` decided: a CUDA device if there is one, and the quickest runtime that fits."""
    return _resolved(settings, description)[0]


def _resolved(settings: EngineSettings, description: ModelDescription) -> tuple[EngineSettings, str]:
    """`resolve`, and why that runtime."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    settings = replace(settings, device=device, dtype=dtype)
    runtime, why = _quickest(settings, description)
    return replace(settings, runtime=runtime), why


def _quickest(settings: EngineSettings, description: ModelDescription) -> tuple[Runtime, str]:
    """The runtime that is asked for or else the quickest, and why."""
    if settings.runtime not in (Runtime.AUTO, Runtime.TENSORRT):
        return settings.runtime, "as asked for"
    ready, why = _tensorrt(settings, description)
    if ready:
        return Runtime.TENSORRT, why
    runtime, reason = _next_best(settings, description)
    if settings.runtime is Runtime.TENSORRT:
        reason = f"TensorRT cannot run this now: {why}"
    return runtime, reason


def next_best(settings: EngineSettings) -> EngineSettings:
    """The settings with the quickest runtime besides TensorRT's. Raises ModelError."""
    description = describe(settings.model)
    settings = resolve(replace(settings, runtime=Runtime.EAGER), description)
    return replace(settings, runtime=_next_best(settings, description)[0])


def _next_best(settings: EngineSettings, description: ModelDescription) -> tuple[Runtime, str]:
    """The quickest runtime besides TensorRT's, and why."""
    if settings.device.startswith("cuda"):
        if find_spec("triton") is not None:
            return Runtime.COMPILED, "there is a CUDA device, and Triton to compile for it"
        return Runtime.EAGER, "there is a CUDA device, but not Triton, which compiles for it"
    if not has_graphs(description.folder):
        return Runtime.EAGER, "the model has no graphs for the onnx runtime"
    if settings.dtype != "float32" or settings.loras:
        return Runtime.EAGER, "the onnx runtime takes float32 and no LoRAs"
    return Runtime.ONNX, "the quickest without a GPU"


def _tensorrt(settings: EngineSettings, description: ModelDescription) -> tuple[bool, str]:
    """Whether TensorRT has what it needs for these settings, and why or why not."""
    from core.runtimes.tensorrt import readiness

    if settings.runtime is Runtime.AUTO and not readiness.may_run(settings.device):
        return False, "not asked for"
    if why := readiness.why_not(settings.device, settings.dtype):
        return False, why
    # who asks for it gets an engine that was not compared with eager yet, which is how it is compared
    lacking = readiness.state(description, settings, verified=settings.runtime is Runtime.AUTO)
    return not lacking, lacking or "there is an engine for it"


def _load(description: ModelDescription, settings: EngineSettings) -> Model:
    """The eager runtime."""
    from core.algorithm import stream
    from core.algorithm import unet as unets
    from core.algorithm.frame import PictureEncoder
    from core.models import loras

    loaded = load_parts(description, settings)
    parts = stream.ModelParts(
        encode=partial(_encode, PictureEncoder(loaded.vae), loaded.device),
        net=banked(loaded, description) if loaded.layout else unets.PlainUNet(loaded.unet),
        decode=partial(_decode, loaded.decode, loaded.device),
    )
    put = partial(loras.put, loaded.weights)
    return loaded.model(description, settings, lambda state: partial(stream.by_parts, parts), put)


def banked(loaded: Loaded, description: ModelDescription) -> BankedUNet:
    """The UNet, which it takes over, with the bank that the description asks for. Raises ModelError."""
    from core.algorithm import unet as unets

    if not loaded.layout:
        return unets.BankedUNet(loaded.unet, ())
    places = unets.default_places(loaded.unet) if description.places is None else description.places
    try:
        return unets.BankedUNet(loaded.unet, places, description.subtoken).to(loaded.unet.device)
    except PlaceError as error:
        raise ModelError(f"{description.folder / DESCRIPTION}: fusion.subtoken: {error}") from error


def load_parts(
    description: ModelDescription, settings: EngineSettings, *, nets_on: torch.device | None = None
) -> Loaded:
    """The model's parts, its LoRAs fused. Raises ModelError, SettingsError.

    nets_on: where the UNet and the VAE lie if not on the settings' device. core.models.host_memory knows how much RAM
    this takes.
    """
    import torch

    from core.algorithm.prompts import clip_encoder
    from core.models import loras

    folder = description.folder
    dtype, device = getattr(torch, settings.dtype), _device(settings.device)
    schedule = betas_schedule(description)
    places = {"unet": nets_on or device, "vae": nets_on or device, "text_encoder": device}
    # to its device before the next is read, so that the host holds one of them at most
    unet, vae, text_encoder = (
        part(folder, name, dtype).eval().requires_grad_(False).to(place) for name, place in places.items()
    )
    tokenizer = _tokenizer(folder)
    _check_shapes(folder, unet.config, vae.config, text_encoder.config)
    weights = loras.named_weights(unet, text_encoder)  # by the names before a bank wraps some of the layers
    fusion = loras.switch(weights, {}, settings.loras)
    loras.put(weights, fusion.values)
    factor = 2 ** (len(_widths(vae.config)) - 1)
    if settings.width % factor or settings.height % factor:
        raise ModelError(f"{folder}: its VAE needs multiples of {factor}; {settings.width}x{settings.height} is none")
    latent = (int(unet.config.in_channels), settings.height // factor, settings.width // factor)
    layout = {} if settings.policy is Policy.OFF else _layout(description, unet, latent)
    encoder = clip_encoder(tokenizer, text_encoder, dtype)
    decode = _decoder(description, vae, nets_on or device)
    return Loaded(unet, vae, encoder, schedule, layout, latent, dtype, device, weights, fusion.originals, decode)


def _decoder(description: ModelDescription, vae: Any, device: torch.device) -> PictureDecoder:
    """From latents to pictures, with the model's detail stage if it has one. Raises ModelError."""
    from core.algorithm.frame import DetailedDecoder, PictureDecoder

    if not description.detail:
        return PictureDecoder(vae)
    return DetailedDecoder(vae, detail_stage(description, vae.dtype, device))


def detail_stage(description: ModelDescription, dtype: torch.dtype, device: torch.device) -> Detail:
    """The model's detail stage, which it must have. Raises ModelError."""
    from safetensors.torch import load_file

    from core.algorithm.detail import Detail

    path = description.folder / DETAIL / "model.safetensors"
    net = Detail(**description.detail)
    try:
        net.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise whatever a broken file leads them to
        raise ModelError(f"{path}: does not fit the model's description ({one_line(error)})") from error
    return net.to(device, dtype).eval().requires_grad_(False)


def _layout(description: ModelDescription, unet: Any, latent: tuple[int, int, int]) -> Layout:
    from core.algorithm import unet as unets

    _, height, width = latent
    try:
        return unets.layout(unet.config, description.places, height, width)
    except PlaceError as error:
        raise ModelError(f"{description.folder / DESCRIPTION}: fusion.places: {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:  # what diffusers raises at inputs that it misses
        raise ModelError(
            f"{description.folder}: its UNet cannot run at latents of {width}x{height}: {one_line(error)}"
        ) from error


def _encode(encode: PictureEncoder, device: torch.device, picture: Picture) -> Tensor:
    import torch

    latent: Tensor = encode(torch.from_numpy(picture).to(device))
    return latent


def _decode(decode: PictureDecoder, device: torch.device, latent: Tensor, source: Tensor) -> Picture:
    picture: Picture = decode(latent, source.to(device)).cpu().numpy()
    return picture


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and remarks, which our own errors and progress stand in for."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers: Any = transformers_logging
    libraries = (diffusers_logging, transformers)
    before = [library.get_verbosity() for library in libraries]
    bar = transformers.is_progress_bar_enabled()
    for library in libraries:
        library.set_verbosity_error()
    transformers.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
        if bar:
            transformers.enable_progress_bar()


def on(device: str) -> AbstractContextManager[Any]:
    """Meanwhile that GPU is the current one, for what asks no tensor where it is: streams, graphs, TensorRT."""
    import torch

    return torch.cuda.device(torch.device(device)) if device.startswith("cuda") else nullcontext()


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device is {name!r}; it cannot be used here ({one_line(error)}); use cpu") from error
    return device


def _diffusers() -> Any:
    import diffusers

    return diffusers  # Any: its lazy module has no types


def part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """The folder's unet, vae or text_encoder, every weight of which was found. Raises ModelError."""
    where = folder / name
    config = part_config(folder, name)
    if name == "text_encoder":
        from transformers import CLIPTextModel

        return _pretrained(CLIPTextModel, where, dtype, variant(where))
    return _pretrained(getattr(_diffusers(), config["_class_name"]), where, dtype, variant(where))


def _pretrained(kind: Any, where: Path, dtype: torch.dtype, variant: str | None) -> Any:
    try:
        model, report = kind.from_pretrained(
            str(where),
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant,
        )
    except Exception as error:  # the libraries raise whatever a broken file leads them to
        raise ModelError(
            f"{where}: the weights do not fit its config.json ({one_line(error)}); fetch the model again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise ModelError(
            f"{where}: {len(missing)} weights are missing, the first is {missing[0]}; fetch the model again"
        )
    return model


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(
            f"{folder / 'tokenizer'}: cannot be loaded ({one_line(error)}); fetch the model again"
        ) from error


def betas_schedule(description: ModelDescription) -> Schedule:
    """The model's noise schedule, from its scheduler_config.json. Raises ModelError."""
    import torch

    from core.algorithm.schedule import Prediction, Schedule, ScheduleKind

    path = description.folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    kind = config.get("beta_schedule", "linear")
    if kind not in ("linear", "scaled_linear"):
        raise ModelError(f"{path}: beta_schedule is {kind!r}; it must be linear or scaled_linear")
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if config.get(key):
            raise ModelError(f"{path}: {key} is set, which is not supported; only linear and scaled_linear betas are")
    power = 1 if kind == "linear" else 2
    try:
        start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
        count = int(config.get("num_train_timesteps", 1000))
        if not (0 < start <= end < 1 and count >= 50):
            raise ValueError(f"betas from {start:g} to {end:g} in {count} timesteps are no noise schedule")
        betas = torch.linspace(start ** (1 / power), end ** (1 / power), count, dtype=torch.float64) ** power
        return Schedule(
            torch.cumprod(1 - betas, 0),
            ScheduleKind(description.schedule),
            Prediction(config.get("prediction_type", "epsilon")),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: {one_line(error)}; fetch the model again") from error


def _widths(vae: Any) -> Sequence[int]:
    widths: Sequence[int] = vae.get("encoder_block_out_channels") or vae["block_out_channels"]
    return widths


def _check_shapes(folder: Path, unet: Any, vae: Any, text: Any) -> None:
    """Raise ModelError unless the parts fit together."""
    if unet.in_channels != vae.latent_channels or unet.out_channels != unet.in_channels:
        raise ModelError(
            f"{folder}: the UNet takes {unet.in_channels} channels and gives {unet.out_channels}, the VAE has "
            f"{vae.latent_channels}; an SD 1.5-shaped model has the same number (inpainting models do not fit)"
        )
    for key, meaning in _UNSUPPORTED.items():
        if unet.get(key) not in (None, "text"):
            raise ModelError(f"{folder / 'unet'}: {key} is {unet[key]!r}: {meaning} are not supported; {_SUPPORTED}")
    if unet.cross_attention_dim != text.hidden_size:
        raise ModelError(
            f"{folder}: the UNet's cross_attention_dim is {unet.cross_attention_dim}, the text encoder's hidden_size "
            f"{text.hidden_size}; they must be equal (SDXL models do not fit)"
        )
