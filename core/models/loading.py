"""Reading a model folder's parts into PyTorch: diffusers folders of SD's and SDXL's shapes, LoRAs; safetensors only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from core.algorithm import conditions
from core.algorithm.bank import Layout
from core.algorithm.detail import Detail
from core.algorithm.frame import DetailedDecoder, PictureDecoder, UpcastVae
from core.algorithm.prompts import PromptEncoder, TextPart, clip_encoder, clip_pair_encoder
from core.algorithm.schedule import Prediction, Schedule, ScheduleKind
from core.errors import ModelError, PlaceError, SettingsError
from core.models import loras
from core.models.description import (
    DESCRIPTION,
    DETAIL,
    ModelDescription,
    class_name,
    scheduler_config,
    tokenizer_of,
    variant,
)
from core.models.folder_files import known_config, one_line, part_config
from core.models.resolved import Resolved
from core.models.tokenizer import load_tokenizer
from core.settings import Policy

if TYPE_CHECKING:
    from core.algorithm.unet import BankedUNet

_UNSUPPORTED = {  # of a UNet's config: what a call would have to be given besides latents, timesteps and text
    "time_cond_proj_dim": "models with a guidance embedding (LCM)",
    "addition_embed_type": "models with further conditions",
    "encoder_hid_dim_type": "models with further encoders",
    "class_embed_type": "models with classes",
}
_SUPPORTED = "take an SD 1.5-, SD 2- or SDXL-shaped model (for LCM: Stable Diffusion 1.5 with the LCM LoRA)"
_TAKEN = (None, "text", conditions.KIND)


class LoadedParts(NamedTuple):
    """A model's parts as PyTorch modules, in evaluation mode, on the settings' device and in their dtype.

    layout: of the bank, empty without one. latent: channels, height, width. weights: with the LoRAs in them, by
    core.models.loras.named_weights' names; originals: the same without LoRAs, of those that LoRAs change. decode: by
    the VAE, and the detail stage where the model has one.
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


def load_parts(resolved: Resolved, *, nets_on: torch.device | None = None) -> LoadedParts:
    """Load the model's parts and fuse the settings' LoRAs into them. Raises ModelError, SettingsError.

    nets_on: where the UNet and the VAE go if not to the settings' device. core.models.host_memory works out the RAM
    that this takes.
    """
    settings, folder = resolved.settings, resolved.description.folder
    dtype, device = getattr(torch, settings.dtype), device_of(settings.device)
    schedule = betas_schedule(resolved.description)
    texts = resolved.description.text_encoders
    places = dict.fromkeys(("unet", "vae"), nets_on or device) | dict.fromkeys(texts, device)
    upcast = UpcastVae.needed(part_config(folder, "unet"), part_config(folder, "vae"), dtype)
    dtypes = dict.fromkeys(places, dtype) | ({"vae": torch.float32} if upcast else {})
    # to its device before the next is read, so that the host holds one of them at most
    unet, vae, *text_encoders = (
        part(folder, name, dtypes[name]).eval().requires_grad_(False).to(place) for name, place in places.items()
    )
    vae = UpcastVae(vae, dtype).eval() if upcast else vae
    read = [
        TextPart(load_tokenizer(folder, tokenizer_of(name)), one)
        for name, one in zip(texts, text_encoders, strict=True)
    ]
    _check_shapes(folder, unet.config, vae.config, [one.config for one in text_encoders])
    # by the names before a bank wraps some of the layers
    weights = loras.named_weights({"unet": unet} | dict(zip(texts, text_encoders, strict=True)))
    fusion = loras.switch(weights, {}, settings.loras)
    loras.put(weights, fusion.values)
    latent = _latent(resolved, unet.config, vae.config)
    layout = {} if settings.policy is Policy.OFF else _layout(resolved, unet, latent)
    encoder = _prompt_encoder(read, dtype, (settings.height, settings.width))
    decode = _decoder(resolved.description, vae, nets_on or device)
    return LoadedParts(unet, vae, encoder, schedule, layout, latent, dtype, device, weights, fusion.originals, decode)


def _prompt_encoder(parts: Sequence[TextPart], dtype: torch.dtype, size: tuple[int, int]) -> PromptEncoder:
    if len(parts) == 1:
        return clip_encoder(*parts[0], dtype)
    return clip_pair_encoder(parts[0], parts[1], dtype, size)


def _decoder(description: ModelDescription, vae: Any, device: torch.device) -> PictureDecoder:
    """Return what turns latents into pictures, by the model's detail stage too if it has one. Raises ModelError."""
    if not description.detail:
        return PictureDecoder(vae)
    return DetailedDecoder(vae, detail_stage(description, vae.dtype, device))


def detail_stage(description: ModelDescription, dtype: torch.dtype, device: torch.device) -> Detail:
    """Load the model's detail stage, which it must have. Raises ModelError."""
    from safetensors.torch import load_file

    path = description.folder / DETAIL / "model.safetensors"
    net = Detail(**dict(description.detail))
    try:
        net.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise whatever a broken file leads them to
        told = f"{path}: does not fit the model's description ({one_line(error)}); fetch the model again, or train its"
        raise ModelError(f"{told} detail stage anew (python -m training.detail)") from error
    return net.to(device, dtype).eval().requires_grad_(False)


def banked(unet: Any, resolved: Resolved) -> BankedUNet:
    """Return the UNet, which is taken over, with the bank that the settings ask for. Raises ModelError."""
    from core.algorithm.unet import BankedUNet

    try:
        keeps = resolved.settings.rules.keeps
        return BankedUNet(unet, resolved.places, resolved.subtoken, keeps).to(unet.device)
    except PlaceError as error:
        raise ModelError(f"{resolved.description.folder / DESCRIPTION}: fusion.subtoken: {error}") from error


def _latent(resolved: Resolved, unet: Any, vae: Any) -> tuple[int, int, int]:
    """Return the latent's channels, height and width. Raises ModelError where the VAE cannot halve the picture."""
    settings, factor = resolved.settings, 2 ** (len(_widths(vae)) - 1)
    if settings.width % factor or settings.height % factor:
        raise ModelError(
            f"{resolved.description.folder}: its VAE needs multiples of {factor}; {settings.width}x{settings.height} "
            "is none"
        )
    return int(unet.in_channels), settings.height // factor, settings.width // factor


def _layout(resolved: Resolved, unet: Any, latent: tuple[int, int, int]) -> Layout:
    from core.algorithm import unet as unets

    folder, (_, height, width) = resolved.description.folder, latent
    try:
        return unets.layout(unet.config, resolved.places, height, width)
    except PlaceError as error:
        raise ModelError(f"{folder / DESCRIPTION}: fusion.places: {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:  # what diffusers raises at inputs that it misses
        raise ModelError(f"{folder}: its UNet cannot run at latents of {width}x{height}: {one_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' progress bars and log lines; our own errors and progress replace them."""
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


def device_of(name: str) -> torch.device:
    """Return the device of that name, on which a tensor was just made. Raises SettingsError."""
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
    """Load one of ModelDescription.parts; no weight may be missing. Raises ModelError."""
    where = folder / name
    known = known_config(folder, name)
    if name.startswith("text_encoder"):
        return _pretrained(_clip if name == "text_encoder" else _clip_with_projection, where, dtype, known)
    # diffusers reads the configuration by itself, and hands its class the arguments that it has: those of PART_KEYS
    return _pretrained(lambda config: (getattr(_diffusers(), class_name(folder, name)), {}), where, dtype, known)


def _clip(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return transformers' text encoder and its configuration, made of the known keys alone."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel, {"config": CLIPTextConfig(**config)}


def _clip_with_projection(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return transformers' text encoder that gives a pooled text too, and its configuration, as `_clip`."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection, {"config": CLIPTextConfig(**config)}


def _pretrained(
    kind_of: Callable[[Mapping[str, Any]], tuple[Any, dict[str, Any]]],
    where: Path,
    dtype: torch.dtype,
    config: Mapping[str, Any],
) -> Any:
    try:
        kind, given = kind_of(config)
        model, report = kind.from_pretrained(
            str(where),
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant(where),
            **given,
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


def betas_schedule(description: ModelDescription) -> Schedule:
    """Return the model's noise schedule, by its scheduler_config.json. Raises ModelError."""
    path, config = description.folder / "scheduler" / "scheduler_config.json", scheduler_config(description.folder)
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


def _check_shapes(folder: Path, unet: Any, vae: Any, texts: Sequence[Any]) -> None:
    """Raise ModelError unless the parts fit together."""
    if unet.in_channels != vae.latent_channels or unet.out_channels != unet.in_channels:
        raise ModelError(
            f"{folder}: the UNet takes {unet.in_channels} channels and gives {unet.out_channels}, the VAE has "
            f"{vae.latent_channels}; an SD 1.5-shaped model has the same number (inpainting models do not fit)"
        )
    for key, meaning in _UNSUPPORTED.items():
        if unet.get(key) not in (_TAKEN if key == "addition_embed_type" else (None,)):
            raise ModelError(f"{folder / 'unet'}: {key} is {unet[key]!r}: {meaning} are not supported; {_SUPPORTED}")
    width = sum(one.hidden_size for one in texts)
    if unet.cross_attention_dim != width:
        raise ModelError(
            f"{folder}: the UNet's cross_attention_dim is {unet.cross_attention_dim}, the text encoders' hidden_size "
            f"{' + '.join(str(one.hidden_size) for one in texts)}; they must be equal"
        )
    if len(texts) > 1:
        _check_conditions(folder, unet, texts)


def _check_conditions(folder: Path, unet: Any, texts: Sequence[Any]) -> None:
    """Raise ModelError unless an SDXL-shaped UNet takes the second encoder's pooled text, and six sizes."""
    if texts[0].max_position_embeddings != texts[1].max_position_embeddings:
        raise ModelError(
            f"{folder}: its text encoders read {texts[0].max_position_embeddings} and "
            f"{texts[1].max_position_embeddings} tokens; they must read the same number"
        )
    widths = [unet.get(key) for key in ("addition_time_embed_dim", "projection_class_embeddings_input_dim")]
    if None in widths or conditions.pooled_width(unet) != texts[1].projection_dim:
        raise ModelError(
            f"{folder / 'unet'}: projection_class_embeddings_input_dim is {widths[1]} and addition_time_embed_dim "
            f"{widths[0]}; for SDXL the first is {conditions.SIZES} times the second and text_encoder_2's "
            f"projection_dim, {texts[1].projection_dim} (SDXL's refiner does not fit)"
        )
