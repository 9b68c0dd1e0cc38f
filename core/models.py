"""Names and folders to loaded parts: the embedded model, SD 1.5-shaped diffusers folders, LoRAs; safetensors only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.settings import EngineSettings, Look, Policy, Runtime, SettingsError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import torch
    from torch import Tensor

    from core.bank import Layout
    from core.net import Net
    from core.prompts import Encoder
    from core.schedule import Schedule

Picture = NDArray[np.uint8]  # RGB [height, width, 3]

EMBEDDED = Path(__file__).with_name("embedded_model")
_BUILT_IN = {"embedded": EMBEDDED}
_DESCRIPTION = "streamv2v.json"
_PLAIN_KEYS = {"name", "licence", "schedule", "width", "height", "steps", "strength", "text_to_image"}
_SCHEDULES = ("lcm", "turbo")  # core.schedule.ScheduleKind, which imports torch
_UNSUPPORTED = {  # of a UNet's config: what a call would have to be given besides latents, timesteps and text
    "time_cond_proj_dim": "models with a guidance embedding (LCM)",
    "addition_embed_type": "models with further conditions (SDXL)",
    "encoder_hid_dim_type": "models with further encoders",
    "class_embed_type": "models with classes",
}
_SUPPORTED = "take an SD 1.5-shaped model (for LCM: Stable Diffusion 1.5 with the LCM LoRA)"
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.msgpack", "*.h5")
_PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderTiny", "AutoencoderKL"),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
}


ONNX_GRAPHS = {"encoder": "vae", "unet": "unet", "decoder": "vae", "text_encoder": "text_encoder"}  # graph: weights


class ModelError(ValueError):
    """A model cannot be used; the message names what is wrong and what to do, in one line."""


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model without loading it: its own defaults and where it fuses features.

    places: module names (attention, transformer block or up block), None for the paper's (core.unet.default_places).
    words: those that the text encoder knows, empty where it knows any.
    """

    name: str
    folder: Path
    licence: str = "see the model's own card"
    schedule: str = "lcm"
    width: int = 512
    height: int = 512
    steps: int = 4
    strength: float = 0.4
    text_to_image: bool = True
    places: tuple[str, ...] | None = None
    fusion_strength: float = 0.8
    similarity_threshold: float = 0.98
    policy: Policy = Policy.MERGE
    slots: int = 1
    interval: int = 4
    styles: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """Loaded parts, in evaluation mode, on the settings' device and dtype; settings have nothing left to decide."""

    settings: EngineSettings
    description: ModelDescription
    net: Net
    encode: Callable[[Picture], Tensor]  # RGB uint8 [height, width, 3] -> latent [1, channels, h, w]
    decode: Callable[[Tensor], Picture]
    encoder: Encoder
    schedule: Schedule
    layout: Layout
    latent: tuple[int, int, int]  # channels, height, width
    dtype: torch.dtype
    device: torch.device
    beside: Executor | None = None  # where `decode` runs while the next picture is begun; None: it is waited for
    threads: int | None = None  # of PyTorch's own operations between the calls; None: as many as it has


def available() -> list[str]:
    """The names that need no folder."""
    return sorted(_BUILT_IN)


def describe(name: str) -> ModelDescription:
    """The description of a model by name or folder; reads JSON only. Raises ModelError."""
    folder = _folder(name)
    if folder is None:
        known = ", ".join(available())
        raise ModelError(
            f"model {name!r} is neither a known name ({known}) nor a folder; give the path of a diffusers folder"
        )
    for part, kinds in _PARTS.items():
        _check_part(folder, part, kinds)
    if not (folder / "tokenizer").is_dir():
        raise ModelError(
            f"{folder}: tokenizer/ is missing; a diffusers folder has unet, vae, text_encoder, tokenizer and scheduler"
        )
    own = _json(folder / _DESCRIPTION) if (folder / _DESCRIPTION).exists() else {}
    try:
        return _description(name, folder, own)
    except ModelError:
        raise
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / _DESCRIPTION}: {_line(error)}; docs/models.md lists its keys") from error


def _folder(name: str) -> Path | None:
    try:
        folder = _BUILT_IN.get(name) or Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long for the system, or of another user's home
        return None


def load(settings: EngineSettings) -> Model:
    """The settings' model, its LoRAs fused. Raises ModelError, SettingsError."""
    description = describe(settings.model)
    settings = resolve(settings, description)
    if settings.runtime is Runtime.ONNX:
        from core.runtimes import onnx

        return onnx.load(description, settings)
    with _quiet():
        return _load(description, settings)


def resolve(settings: EngineSettings, description: ModelDescription) -> EngineSettings:
    """The settings with every `auto` decided: a CUDA device if there is one, and the quickest runtime that fits."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    runtime = settings.runtime
    if runtime is Runtime.AUTO:
        graphs = has_graphs(description.folder) and (device, dtype, settings.loras) == ("cpu", "float32", ())
        runtime = Runtime.ONNX if graphs else Runtime.EAGER
    return replace(settings, device=device, dtype=dtype, runtime=runtime)


def has_graphs(folder: Path) -> bool:
    """Whether the model folder holds the graphs of the onnx runtime."""
    return all((folder / "onnx" / f"{graph}.onnx").is_file() for graph in ONNX_GRAPHS)


def _load(description: ModelDescription, settings: EngineSettings) -> Model:
    import torch

    from core import loras
    from core import unet as unets
    from core.prompts import clip

    folder = description.folder
    dtype, device = getattr(torch, settings.dtype), _device(settings.device)
    schedule = betas_schedule(description)
    unet, vae, text_encoder = (part(folder, name, dtype) for name in ("unet", "vae", "text_encoder"))
    tokenizer = _tokenizer(folder)
    _check_shapes(folder, unet.config, vae.config, text_encoder.config)
    if settings.loras:
        loras.fuse(unet, text_encoder, settings.loras)
    factor = 2 ** (len(_widths(vae.config)) - 1)
    if settings.width % factor or settings.height % factor:
        raise ModelError(f"{folder}: its VAE needs multiples of {factor}; {settings.width}x{settings.height} is none")
    latent = (int(unet.config.in_channels), settings.height // factor, settings.width // factor)
    layout: Layout = {}
    net: unets.BankedUNet | unets.PlainUNet = unets.PlainUNet(unet)
    if settings.policy is not Policy.OFF:
        layout = _layout(description, unet, latent)
        places = unets.default_places(unet) if description.places is None else description.places
        net = unets.BankedUNet(unet, places)
    for module in (net, vae, text_encoder):
        module.eval().requires_grad_(False).to(device)
    return Model(
        settings=settings,
        description=description,
        net=net,
        encode=partial(_encode, vae),
        decode=partial(_decode, vae),
        encoder=clip(tokenizer, text_encoder, dtype),
        schedule=schedule,
        layout=layout,
        latent=latent,
        dtype=dtype,
        device=device,
    )


def _layout(description: ModelDescription, unet: Any, latent: tuple[int, int, int]) -> Layout:
    from core import unet as unets

    _, height, width = latent
    try:
        return unets.layout(unet.config, description.places, height, width)
    except unets.PlaceError as error:
        raise ModelError(f"{description.folder / _DESCRIPTION}: fusion.places: {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:  # what diffusers raises at inputs that it misses
        raise ModelError(
            f"{description.folder}: its UNet cannot run at latents of {width}x{height}: {_line(error)}"
        ) from error


def _encode(vae: Any, picture: Picture) -> Tensor:
    import torch

    values = torch.from_numpy(picture.copy()).to(vae.device)  # a copy, for the picture may be read-only
    encoded = vae.encode(values.permute(2, 0, 1)[None].to(vae.dtype) / 127.5 - 1)
    latent: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latent * float(vae.config.scaling_factor)


def _decode(vae: Any, latent: Tensor) -> Picture:
    import torch

    values = vae.decode(latent / vae.config.scaling_factor).sample
    levels = ((values[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture: Picture = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    return picture


def _description(name: str, folder: Path, own: Mapping[str, Any]) -> ModelDescription:
    plain = {key: own[key] for key in _PLAIN_KEYS & own.keys()}
    fusion, bank = own.get("fusion", {}), own.get("bank", {})
    for key, table in (("fusion", fusion), ("bank", bank)):
        if not isinstance(table, dict):
            raise ValueError(f"{key} is {table!r}; it must be an object")
    _check_keys(own, fusion, bank)
    if (folder / "scheduler" / "scheduler_config.json").exists() and "schedule" not in own:
        trailing = _json(folder / "scheduler" / "scheduler_config.json").get("timestep_spacing") == "trailing"
        plain["schedule"] = "turbo" if trailing else "lcm"
    default = ModelDescription(name, folder)
    description = ModelDescription(
        **{"name": name, **plain},
        folder=folder,
        places=_texts("fusion.places", fusion["places"]) if "places" in fusion else None,
        fusion_strength=fusion.get("strength", default.fusion_strength),
        similarity_threshold=fusion.get("threshold", default.similarity_threshold),
        policy=Policy(bank.get("policy", default.policy)),
        slots=bank.get("slots", default.slots),
        interval=bank.get("interval", default.interval),
        styles=_texts("styles", own.get("styles", ())),
        words=_texts("words", own.get("words", ())),
    )
    _check(description)
    return description


def _check_keys(own: Mapping[str, Any], fusion: Mapping[str, Any], bank: Mapping[str, Any]) -> None:
    unknown = own.keys() - _PLAIN_KEYS - {"fusion", "bank", "styles", "words"}
    unknown |= {f"fusion.{key}" for key in fusion.keys() - {"places", "strength", "threshold"}}
    unknown |= {f"bank.{key}" for key in bank.keys() - {"policy", "slots", "interval"}}
    if unknown:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{key} is {value!r}; it must be a list of texts")
    return tuple(value)


def _check(own: ModelDescription) -> None:
    """Raise ValueError unless an engine can be built of the description's values."""
    EngineSettings(width=own.width, height=own.height, steps=own.steps, slots=own.slots)
    Look(
        strength=own.strength,
        fusion_strength=own.fusion_strength,
        similarity_threshold=own.similarity_threshold,
        interval=own.interval,
    )
    if own.schedule not in _SCHEDULES:
        raise ValueError(f"schedule is {own.schedule!r}; it must be {' or '.join(_SCHEDULES)}")
    if not isinstance(own.text_to_image, bool):
        raise ValueError(f"text_to_image is {own.text_to_image!r}; it must be true or false")
    _texts("name and licence", [own.name, own.licence])


@contextmanager
def _quiet() -> Iterator[None]:
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


def _check_part(folder: Path, part: str, kinds: Sequence[str]) -> None:
    """Raise ModelError unless the part has a config of one of those kinds, and weights as safetensors."""
    where = folder / part
    if not (where / "config.json").is_file():
        raise ModelError(
            f"{folder}: {part}/config.json is missing; a diffusers folder with an SD 1.5-shaped {part} is needed"
        )
    config = _json(where / "config.json")
    given = (config.get("_class_name"), config.get("architectures"))
    if not any(value in (kind, [kind]) for value in given for kind in kinds):
        raise ModelError(f"{where}: it is a {given[0] or given[1]}; it must be {' or '.join(kinds)}")
    if not _weights(where):
        pickles = sorted(p.name for pattern in _PICKLES for p in where.glob(pattern))
        if pickles:
            raise ModelError(
                f"{where / pickles[0]}: pickled weights can run code and are refused; convert them to safetensors"
            )
        raise ModelError(f"{where}: there are no weights ({_stem(where)}.safetensors); fetch the model again")


def _stem(where: Path) -> str:
    return "model" if where.name == "text_encoder" else "diffusion_pytorch_model"


def _weights(where: Path) -> list[str]:
    return sorted(path.name for path in where.glob(f"{_stem(where)}*.safetensors"))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({_line(error)}); fetch the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: it holds no JSON object; fetch the model again")
    return value


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device is {name!r}; it cannot be used here ({_line(error)}); use cpu") from error
    return device


def _diffusers() -> Any:
    import diffusers

    return diffusers  # Any: its lazy module has no types


def _variant(where: Path) -> str | None:
    """The variant in the weights' file name (`model.fp16.safetensors`), where there is no plain file."""
    files = _weights(where)
    plain = [name for name in files if name.count(".") == 1]
    return None if plain else files[0].split(".")[1].split("-")[0]


def part_config(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of the folder's unet, vae or text_encoder. Raises ModelError."""
    return _json(folder / name / "config.json")


def part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """The folder's unet, vae or text_encoder, every weight of which was found. Raises ModelError."""
    where = folder / name
    config = part_config(folder, name)
    if name == "text_encoder":
        from transformers import CLIPTextModel

        return _pretrained(CLIPTextModel, where, dtype, _variant(where))
    return _pretrained(getattr(_diffusers(), config["_class_name"]), where, dtype, _variant(where))


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
            f"{where}: the weights do not fit its config.json ({_line(error)}); fetch the model again"
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
        raise ModelError(f"{folder / 'tokenizer'}: cannot be loaded ({_line(error)}); fetch the model again") from error


def betas_schedule(description: ModelDescription) -> Schedule:
    """The model's noise schedule, from its scheduler_config.json. Raises ModelError."""
    import torch

    from core.schedule import Prediction, Schedule, ScheduleKind

    path = description.folder / "scheduler" / "scheduler_config.json"
    config = _json(path)
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
        raise ModelError(f"{path}: {_line(error)}; fetch the model again") from error


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
