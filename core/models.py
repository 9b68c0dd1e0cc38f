"""Names and folders to loaded parts: the embedded model, SD 1.5-shaped diffusers folders, LoRAs; safetensors only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.settings import EngineSettings, Lora, Policy, SettingsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from core.bank import Layout
    from core.prompts import Encoder
    from core.schedule import Schedule
    from core.unet import Net

Picture = NDArray[np.uint8]  # RGB [height, width, 3]

EMBEDDED = Path(__file__).with_name("embedded_model")
_BUILT_IN = {"embedded": EMBEDDED}
_DESCRIPTION = "streamv2v.json"
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.msgpack", "*.h5")
_PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderTiny", "AutoencoderKL"),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
}


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
    """Loaded parts, in evaluation mode, on the settings' device and dtype."""

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


def available() -> list[str]:
    """The names that need no folder."""
    return sorted(_BUILT_IN)


def describe(name: str) -> ModelDescription:
    """The description of a model by name or folder; reads JSON only. Raises ModelError."""
    folder = _BUILT_IN.get(name, Path(name).expanduser())
    if not folder.is_dir():
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / _DESCRIPTION}: {error!r}; see docs/models.md for its keys") from error


def load(settings: EngineSettings) -> Model:
    """The settings' model, its LoRAs fused. Raises ModelError, SettingsError."""
    description = describe(settings.model)
    with _quiet():
        return _load(description, settings)


def _load(description: ModelDescription, settings: EngineSettings) -> Model:
    import torch

    from core import unet as unets
    from core.prompts import Encoder

    folder = description.folder
    dtype, device = getattr(torch, settings.dtype), _device(settings.device)
    schedule = _schedule(description)
    unet, vae = _part(folder, "unet", dtype), _part(folder, "vae", dtype)
    text_encoder, tokenizer = _text_encoder(folder, dtype), _tokenizer(folder)
    _check_shapes(folder, unet.config, vae.config, text_encoder.config)
    if settings.loras:
        _fuse_loras(unet, vae, text_encoder, tokenizer, settings.loras)
    factor = 2 ** (len(_widths(vae.config)) - 1)
    latent = (int(unet.config.in_channels), settings.height // factor, settings.width // factor)
    try:
        layout = unets.layout(unet.config, description.places, latent[1], latent[2])
        places = unets.default_places(unet) if description.places is None else description.places
        net = unets.BankedUNet(unet, places) if settings.policy is not Policy.OFF else unets.PlainUNet(unet)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: its UNet cannot run at {settings.width}x{settings.height}: {_line(error)}"
        ) from error
    for part in (net, vae, text_encoder):
        part.eval().requires_grad_(False).to(device)
    return Model(
        description=description,
        net=net,
        encode=partial(_encode, vae),
        decode=partial(_decode, vae),
        encoder=Encoder(tokenizer, text_encoder, dtype),
        schedule=schedule,
        layout={} if settings.policy is Policy.OFF else layout,
        latent=latent,
        dtype=dtype,
        device=device,
    )


def _encode(vae: Any, picture: Picture) -> Tensor:
    import torch

    values = torch.from_numpy(np.ascontiguousarray(picture)).to(vae.device)
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
    known = {"name", "licence", "schedule", "width", "height", "steps", "strength", "text_to_image"}
    plain = {key: own[key] for key in known & own.keys()}
    fusion, bank = own.get("fusion", {}), own.get("bank", {})
    if (folder / "scheduler" / "scheduler_config.json").exists() and "schedule" not in own:
        trailing = _json(folder / "scheduler" / "scheduler_config.json").get("timestep_spacing") == "trailing"
        plain["schedule"] = "turbo" if trailing else "lcm"
    default = ModelDescription(name, folder)
    return ModelDescription(
        **{"name": name, **plain},
        folder=folder,
        places=tuple(fusion["places"]) if "places" in fusion else None,
        fusion_strength=float(fusion.get("strength", default.fusion_strength)),
        similarity_threshold=float(fusion.get("threshold", default.similarity_threshold)),
        policy=Policy(bank.get("policy", default.policy)),
        slots=int(bank.get("slots", default.slots)),
        interval=int(bank.get("interval", default.interval)),
        styles=tuple(own.get("styles", ())),
        words=tuple(own.get("words", ())),
    )


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
    kind = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if kind not in kinds:
        raise ModelError(f"{where}: it is a {kind}; it must be {' or '.join(kinds)}")
    if not any(where.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in _PICKLES for p in where.glob(pattern))
        if pickles:
            raise ModelError(
                f"{where / pickles[0]}: pickled weights can run code and are refused; convert them to safetensors"
            )
        raise ModelError(f"{where}: there are no weights (*.safetensors)")


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
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device is {name!r}; it cannot be used here ({_line(error)}); use cpu") from error
    return device


def _diffusers() -> Any:
    import diffusers

    return diffusers  # Any: its lazy module has no types


def _variant(where: Path) -> str | None:
    """The variant in the weights' file name (`model.fp16.safetensors`), where there is no plain file."""
    files = sorted(p.name for p in where.glob("*.safetensors"))
    plain = [name for name in files if name.count(".") == 1]
    return None if plain or not files else files[0].split(".")[1].split("-")[0]


def _part(folder: Path, part: str, dtype: torch.dtype) -> Any:
    """A diffusers model of the folder, every weight of which was found."""
    where = folder / part
    kind = getattr(_diffusers(), _json(where / "config.json")["_class_name"])
    return _pretrained(kind, where, dtype, variant=_variant(where))


def _text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextModel

    return _pretrained(CLIPTextModel, folder / "text_encoder", dtype, variant=_variant(folder / "text_encoder"))


def _pretrained(kind: Any, where: Path, dtype: torch.dtype, variant: str | None) -> Any:
    from safetensors import SafetensorError

    try:
        model, report = kind.from_pretrained(
            str(where),
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
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
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder / 'tokenizer'}: cannot be loaded ({_line(error)}); fetch the model again") from error


def _schedule(description: ModelDescription) -> Schedule:
    from core.schedule import Prediction, Schedule, ScheduleKind

    path = description.folder / "scheduler" / "scheduler_config.json"
    config = _json(path)
    try:
        # every scheduler of diffusers shares these keys; DDIM's constructor turns them into alphas_cumprod
        keys = (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
        )
        betas = _diffusers().DDIMScheduler(**{key: config[key] for key in keys if key in config})
        return Schedule(
            betas.alphas_cumprod.double(),
            ScheduleKind(description.schedule),
            Prediction(config.get("prediction_type", "epsilon")),
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: {_line(error)}") from error


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
    if unet.cross_attention_dim != text.hidden_size:
        raise ModelError(
            f"{folder}: the UNet's cross_attention_dim is {unet.cross_attention_dim}, the text encoder's hidden_size "
            f"{text.hidden_size}; they must be equal (SDXL models do not fit)"
        )


def _fuse_loras(unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, loras: Sequence[Lora]) -> None:
    """Add the LoRAs to the weights, in place."""
    library = _diffusers()
    pipeline = library.StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, library.LCMScheduler(), None, None, requires_safety_checker=False
    )
    for number, lora in enumerate(loras):
        path = Path(lora.path).expanduser()
        if path.suffix != ".safetensors":
            raise ModelError(f"LoRA {path}: only .safetensors files are taken; pickled weights can run code")
        if not path.is_file():
            raise ModelError(f"LoRA {path}: there is no such file")
        try:
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=f"lora{number}", local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ModelError(f"LoRA {path}: it does not fit this model ({_line(error)})") from error
    pipeline.set_adapters([f"lora{n}" for n in range(len(loras))], [lora.weight for lora in loras])
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
