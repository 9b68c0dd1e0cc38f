"""What is known of a model without loading it: names, folders, streamv2v.json, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import ModelError, SettingsError
from core.models.catalogue import ENTRIES, in_gb
from core.models.folder_files import SCHEDULER_KEYS, check_keys, one_line, part_config, read_json, refuse_code, shown
from core.settings import EngineSettings, Look, Policy

EMBEDDED = Path(__file__).parents[1] / "embedded_model"
_BUILT_IN = {"embedded": EMBEDDED}
DESCRIPTION = "streamv2v.json"
_PLAIN_KEYS = {"name", "licence", "schedule", "width", "height", "steps", "strength", "text_to_image", "local_exposure"}
_SCHEDULES = ("lcm", "turbo")  # core.algorithm.schedule.ScheduleKind, which imports torch
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.msgpack", "*.h5")
_PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderTiny", "AutoencoderKL"),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
_TWO_ENCODERS = "text_time"  # core.algorithm.conditions.KIND, which imports torch
DETAIL_WIDTHS = ("full", "half", "quarter", "eighth", "whole")
DETAIL_FORM = 2  # another number whenever core.algorithm.detail.Detail computes otherwise of the same widths
DETAIL = "detail"  # the folder of the detail stage's weights, model.safetensors
ONNX_GRAPHS = {"encoder": "vae", "unet": "unet", "decoder": "vae", "text_encoder": "text_encoder"}  # graph: weights


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model without loading it: its own defaults and where it fuses features.

    places: module names (attention, transformer block or up block), None for the paper's
    (core.algorithm.unet.default_places).
    subtoken: into how many parts a token's width is divided when features are matched
    (core.algorithm.attention.fuse_subtoken). words: those that the text encoder knows, empty where it knows any.
    local_exposure: it is given pictures whose light is evened out (core.algorithm.exposure).
    detail: widths of its detail stage (core.algorithm.detail.Detail), empty without one. text_encoders: its parts that
    read a prompt: one, or SDXL's two, each with a tokenizer of its own.
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
    local_exposure: bool = False
    places: tuple[str, ...] | None = None
    subtoken: int = 1
    fusion_strength: float = 0.8
    similarity_threshold: float = 0.98
    policy: Policy = Policy.MERGE
    slots: int = 1
    interval: int = 4
    styles: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    detail: tuple[tuple[str, int], ...] = ()
    text_encoders: tuple[str, ...] = ("text_encoder",)

    @property
    def parts(self) -> tuple[str, ...]:
        """Its parts that hold weights, in the order in which they are loaded."""
        return ("unet", "vae", *self.text_encoders)


def check_imagines(description: ModelDescription) -> None:
    """Raise SettingsError, in words for the user, unless the model makes pictures of a text alone."""
    if not description.text_to_image:
        raise SettingsError(
            f"model {description.name!r} only translates pictures: it was trained to redraw one that it is given, and "
            f"makes none of a text alone; text-to-image needs a model such as sd15-lcm or sd-turbo, or a diffusers "
            "folder of SD 1.5's shape"
        )


def available() -> list[str]:
    """Return the model names that need no folder; core.models.hub downloads those that are not here yet."""
    return sorted({*_BUILT_IN, *ENTRIES})


def describe(name: str) -> ModelDescription:
    """Return the description of a model by name or folder, also of one not downloaded yet; reads JSON only.

    Raises ModelError.
    """
    entry = ENTRIES.get(name)
    if entry is not None and not entry.is_here():
        return _description(name, entry.folder, entry.own)
    folder = entry.folder if entry is not None else _folder(name)
    if folder is None:
        _explain_file(name)
        known = ", ".join(available())
        raise ModelError(
            f"model {name!r} is neither a known name ({known}) nor a folder; give the path of a diffusers folder"
        )
    _explain_cache(folder)
    refuse_code(folder)
    for part in ("unet", "vae"):
        _check_part(folder, part, _PARTS[part])
    for part in _text_encoders(folder):
        _check_part(folder, part, _PARTS[part])
        if not (folder / tokenizer_of(part)).is_dir():
            raise ModelError(
                f"{folder}: {tokenizer_of(part)}/ is missing; a diffusers folder has unet, vae, text_encoder, "
                "tokenizer and scheduler, one of SDXL's shape also text_encoder_2 and tokenizer_2"
            )
    own = read_json(folder / DESCRIPTION) if (folder / DESCRIPTION).exists() else {}
    try:
        return _description(name, folder, own)
    except SettingsError as error:
        raise ModelError(f"{folder / DESCRIPTION}: {one_line(error)}; docs/models.md lists its keys") from error


def _text_encoders(folder: Path) -> tuple[str, ...]:
    """Return the names of the text encoders that a folder's UNet is made for. Raises ModelError."""
    kind = part_config(folder, "unet").get("addition_embed_type")
    return ("text_encoder", "text_encoder_2") if kind == _TWO_ENCODERS else ("text_encoder",)


def tokenizer_of(text_encoder: str) -> str:
    """Return the name of the folder with that text encoder's tokenizer."""
    return text_encoder.replace("text_encoder", "tokenizer")


def _explain_file(name: str) -> None:
    """Raise ModelError with the way to a folder if the name is a checkpoint's file."""
    if name.lower().endswith((".safetensors", ".ckpt", ".pt", ".bin", ".gguf")):
        raise ModelError(
            f"model {name!r} is a single file; a diffusers folder is needed. diffusers makes one of an SD 1.5 "
            "checkpoint: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER) ; a LoRA "
            "goes into a profile's loras"
        )


def _explain_cache(folder: Path) -> None:
    """Raise ModelError if the folder is one of the hub's cache, above the model's own folder."""
    if (folder / "unet").is_dir() or not (folder.name.startswith("models--") or (folder / "blobs").is_dir()):
        return
    found = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
    remedy = f"give {found[-1]}" if found else "it has no snapshots/, so nothing was fetched to its end: fetch it again"
    raise ModelError(f"{folder}: is a folder of the hub's cache; the model's own lies in its snapshots/: {remedy}")


def require(name: str) -> None:
    """Raise ModelError if the model is one of the catalogue's and yet to be fetched."""
    entry = ENTRIES.get(name)
    if entry is not None and not entry.is_here():
        raise ModelError(
            f"model {name} is not on this machine yet; `vcam models download {name}` fetches it ({in_gb(entry.size)})"
        )


def _folder(name: str) -> Path | None:
    try:
        folder = _BUILT_IN.get(name) or Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long for the system, or of another user's home
        return None


def has_graphs(folder: Path) -> bool:
    """Whether the model folder holds the graphs of the onnx runtime."""
    return all((folder / "onnx" / f"{graph}.onnx").is_file() for graph in ONNX_GRAPHS)


def graphs_of(description: ModelDescription) -> dict[str, str]:
    """Return the graphs of the onnx runtime for that model, and the part whose weights each has."""
    encoders = {part: part for part in description.text_encoders}
    return ONNX_GRAPHS | encoders | ({DETAIL: DETAIL} if description.detail else {})


def _description(name: str, folder: Path, own: Mapping[str, Any]) -> ModelDescription:
    plain = {key: own[key] for key in _PLAIN_KEYS & own.keys()}
    fusion, bank = own.get("fusion", {}), own.get("bank", {})
    for key, table in (("fusion", fusion), ("bank", bank)):
        if not isinstance(table, dict):
            raise SettingsError(f"{key} is {table!r}; it must be an object")
    _check_keys(own, fusion, bank)
    if (folder / "scheduler" / "scheduler_config.json").exists() and "schedule" not in own:
        trailing = scheduler_config(folder).get("timestep_spacing") == "trailing"
        plain["schedule"] = "turbo" if trailing else "lcm"
    default = ModelDescription(name, folder)
    description = ModelDescription(
        **{"name": name, **plain},
        folder=folder,
        places=_texts("fusion.places", fusion["places"]) if "places" in fusion else None,
        subtoken=fusion.get("subtoken", default.subtoken),
        fusion_strength=fusion.get("strength", default.fusion_strength),
        similarity_threshold=fusion.get("threshold", default.similarity_threshold),
        policy=_policy(bank.get("policy", default.policy)),
        slots=bank.get("slots", default.slots),
        interval=bank.get("interval", default.interval),
        styles=_texts("styles", own.get("styles", ())),
        words=_texts("words", own.get("words", ())),
        detail=_detail_widths(folder, own.get("detail", {})),
        text_encoders=_text_encoders(folder) if (folder / "unet").is_dir() else default.text_encoders,
    )
    _check(description)
    return description


def _check_keys(own: Mapping[str, Any], fusion: Mapping[str, Any], bank: Mapping[str, Any]) -> None:
    unknown = own.keys() - _PLAIN_KEYS - {"fusion", "bank", "styles", "words", "detail"}
    unknown |= {f"fusion.{key}" for key in fusion.keys() - {"places", "subtoken", "strength", "threshold"}}
    unknown |= {f"bank.{key}" for key in bank.keys() - {"policy", "slots", "interval"}}
    if unknown:
        raise SettingsError(f"unknown key {', '.join(sorted(unknown))}")


def _policy(value: object) -> Policy:
    if value not in list(Policy):
        raise SettingsError(f"bank.policy is {value!r}; it must be {', '.join(Policy)}")
    return Policy(str(value))


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise SettingsError(f"{key} is {value!r}; it must be a list of texts")
    return tuple(value)


def _detail_widths(folder: Path, value: object) -> tuple[tuple[str, int], ...]:
    """Check the widths of a detail stage, whose weights must be there."""
    if not isinstance(value, dict) or not all(type(wide) is int and 0 < wide <= 512 for wide in value.values()):
        raise SettingsError(f"detail is {value!r}; it must be an object of widths, whole numbers from 1 to 512")
    if strangers := sorted(value.keys() - DETAIL_WIDTHS):
        raise SettingsError(f"unknown key detail.{strangers[0]}; detail has {', '.join(DETAIL_WIDTHS)}")
    if value and not (folder / DETAIL / "model.safetensors").is_file():
        raise ModelError(f"{folder}: {DETAIL}/model.safetensors is missing; fetch the model again")
    return tuple(sorted(value.items()))


def _check(own: ModelDescription) -> None:
    """Raise SettingsError unless an engine can be built of the description's values."""
    EngineSettings(width=own.width, height=own.height, steps=own.steps, slots=own.slots)
    Look(
        strength=own.strength,
        fusion_strength=own.fusion_strength,
        similarity_threshold=own.similarity_threshold,
        interval=own.interval,
    )
    if own.subtoken not in range(1, 17) or isinstance(own.subtoken, bool):
        raise SettingsError(f"fusion.subtoken is {own.subtoken!r}; it must be a whole number between 1 and 16")
    if own.schedule not in _SCHEDULES:
        raise SettingsError(f"schedule is {own.schedule!r}; it must be {' or '.join(_SCHEDULES)}")
    for key in ("text_to_image", "local_exposure"):
        if not isinstance(value := getattr(own, key), bool):
            raise SettingsError(f"{key} is {value!r}; it must be true or false")
    if own.detail and own.text_to_image:
        raise SettingsError("detail is given, but a picture that is imagined has no source; set text_to_image to false")
    _texts("name and licence", [own.name, own.licence])


def _check_part(folder: Path, part: str, kinds: Sequence[str]) -> None:
    """Raise ModelError unless the part has a config of one of those kinds, and weights as safetensors."""
    where = folder / part
    if not (where / "config.json").is_file():
        raise ModelError(
            f"{folder}: {part}/config.json is missing; a diffusers folder with an SD 1.5-shaped {part} is needed"
        )
    if not class_name(folder, part):
        config = read_json(where / "config.json")
        given = (config.get("_class_name"), config.get("architectures"))
        raise ModelError(f"{where}: it is a {shown(given[0] or given[1])}; it must be {' or '.join(kinds)}")
    if not weight_files(where):
        pickles = sorted(p.name for pattern in _PICKLES for p in where.glob(pattern))
        if pickles:
            raise ModelError(
                f"{where / pickles[0]}: pickled weights can run code and are refused; convert them to safetensors"
            )
        raise ModelError(f"{where}: there are no weights ({_stem(where)}.safetensors); fetch the model again")


def _stem(where: Path) -> str:
    return "model" if where.name.startswith("text_encoder") else "diffusion_pytorch_model"


def weight_files(where: Path) -> list[str]:
    """Return the names of the safetensors files in a part's folder."""
    return sorted(path.name for path in where.glob(f"{_stem(where)}*.safetensors"))


def variant(where: Path) -> str | None:
    """Return the variant in the weights' file name (`model.fp16.safetensors`), None where there is a plain file."""
    files = weight_files(where)
    plain = [name for name in files if name.count(".") == 1]
    return None if plain else files[0].split(".")[1].split("-")[0]


def loaded_files(where: Path) -> list[str]:
    """Those of weight_files that are loaded: the plain ones, or those of one variant."""
    kind = variant(where)
    return [name for name in weight_files(where) if (name.count(".") == 1 if kind is None else f".{kind}" in name)]


class Stored(NamedTuple):
    """A tensor of a safetensors file. dtype: as the format calls it (F32, F16, ...); size: bytes in the file."""

    name: str
    dtype: str
    numbers: int
    size: int


def stored(where: Path) -> list[Stored]:
    """Return the tensors that are loaded from a part's folder, by the headers of its files. Raises ModelError."""
    return [tensor for name in loaded_files(where) for tensor in _tensors(where / name)]


def _tensors(path: Path) -> list[Stored]:
    try:
        return [
            Stored(key, str(one["dtype"]), math.prod(one["shape"]), one["data_offsets"][1] - one["data_offsets"][0])
            for key, one in header(path)[0].items()
            if key != "__metadata__"
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{path}: is no safetensors file; fetch the model again") from error


def header(path: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file (safetensors' README), and where its tensors begin. Raises ModelError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")  # of the JSON that follows
            found: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError, MemoryError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path}: is no safetensors file; fetch the model again") from error
    return found, 8 + length


def scheduler_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of the folder's scheduler. Raises ModelError."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise ModelError(
            f"{path}: is missing; it says how noise was added when the model was trained. Fetch the model's scheduler/ "
            "too (SD 1.5: from its repository on the hub)"
        )
    config = read_json(path)
    check_keys(path, config, SCHEDULER_KEYS)
    return config


def class_name(folder: Path, part: str) -> str:
    """Return which of the classes that we know the part is of, "" if of none. Raises ModelError."""
    config = part_config(folder, part)
    given = (config.get("_class_name"), config.get("architectures"))
    return next((kind for kind in _PARTS[part] if any(value in (kind, [kind]) for value in given)), "")


def fingerprint(description: ModelDescription) -> str:
    """Return a hash of all that a graph of the model depends on besides the weights' values. Raises ModelError.

    That is the parts' configurations, without who wrote them, where features are fused, and a detail stage's widths
    and form.
    """
    parts = {part: part_config(description.folder, part) for part in sorted(description.parts)}
    own = {part: {key: config[key] for key in config if _shapes_a_graph(key)} for part, config in parts.items()}
    detail = [dict(description.detail), DETAIL_FORM] if description.detail else []
    text = json.dumps([own, description.places, description.subtoken, *detail], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _shapes_a_graph(key: str) -> bool:
    return not key.startswith("_") and key not in ("dtype", "torch_dtype", "transformers_version")
