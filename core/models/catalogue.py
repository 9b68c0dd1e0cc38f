"""The models that are fetched by name: from where, which files of which revision, and under which licence.

Revisions are full commits of the hub's repositories, so that what is fetched never changes under us. Each was found in
at least two independent public sources, and so was every sha256 written here; the hub's own hash is checked besides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from core import folders

SOURCE = "source.json"  # in a finished folder: what it was made of


class File(NamedTuple):
    """A file of a repository and where it goes in the model's folder; size and sha256 are None where the hub tells.

    address: where the file lies that is not at the hub; its size and sha256 are known.
    """

    repository: str
    revision: str
    path: str
    target: str
    size: int | None = None  # bytes
    sha256: str | None = None
    address: str = ""


class Licence(NamedTuple):
    """What a part is under, and where to read it."""

    part: str
    name: str
    url: str


@dataclass(frozen=True)
class CatalogueModel:
    """A model by name. description: what goes into its streamv2v.json. lora: a target that is fused into the UNet.

    purpose: of a small model that is no engine's: what it is for.
    """

    name: str
    files: tuple[File, ...]
    licences: tuple[Licence, ...]
    description: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None
    purpose: str = ""

    @property
    def size(self) -> int:
        """Bytes to fetch, without the few small files whose size only the hub knows."""
        return sum(file.size or 0 for file in self.files)

    @property
    def own(self) -> dict[str, Any]:
        """The content of its streamv2v.json."""
        licence = ", ".join(f"{one.part}: {one.name}" for one in self.licences)
        return {"name": self.name, "licence": licence, **self.description}

    @property
    def folder(self) -> Path:
        """Where the finished model lies, or will."""
        return models_folder() / self.name

    def is_here(self) -> bool:
        """Whether the model can be used without the network."""
        return (self.folder / SOURCE).is_file()


def models_folder() -> Path:
    """Where fetched models lie (VCAM_MODELS_FOLDER, else the system's usual place for data); it need not exist."""
    if told := os.environ.get("VCAM_MODELS_FOLDER"):
        return Path(told)
    return folders.data() / "models"


def in_gb(count: int) -> str:
    """Bytes for a person."""
    if count < 1e7:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


_SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
_LCM_LORA = ("latent-consistency/lcm-lora-sdv1-5", "cf2fced511dbe7e26c8d1d397e728fbab875db4b")
_TURBO = ("stabilityai/sd-turbo", "b261bac6fd2cf515557d5d0707481eafa0485ec2")
_SDXL_TURBO = ("stabilityai/sdxl-turbo", "71153311d3dbb46851df1931d3ca6e939de83304")
_TAESDXL = ("madebyollin/taesdxl", "b20258aaef75ef61e659c1e0f14f251cf0ad153e")
_TAESD = ("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e")
_SMALL = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
)
_SMALL_2 = (  # of the second text encoder
    "text_encoder_2/config.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
)
_UNET, _TEXT = "unet/diffusion_pytorch_model", "text_encoder/model"


def _half(source: tuple[str, str], part: str, size: int, sha256: str) -> File:
    """Return the file of a part's weights in float16."""
    return File(*source, f"{part}.fp16.safetensors", f"{part}.safetensors", size, sha256)


def _plain(source: tuple[str, str], paths: Iterable[str]) -> tuple[File, ...]:
    return tuple(File(*source, path, path) for path in paths)


def _tiny(source: tuple[str, str], sha256: str) -> tuple[File, File]:
    """Return the files of a TAESD."""
    weights = "diffusion_pytorch_model.safetensors"
    return (
        File(*source, "config.json", "vae/config.json"),
        File(*source, weights, f"vae/{weights}", 9_793_292, sha256),
    )


_VAE = _tiny(_TAESD, "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549")
_VAE_LICENCE = Licence("TAESD", "MIT", "https://huggingface.co/madebyollin/taesd")

SD15_LCM = CatalogueModel(
    "sd15-lcm",
    (
        *_plain(_SD15, _SMALL),
        _half(_SD15, _UNET, 1_719_125_304, "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21"),
        _half(_SD15, _TEXT, 246_144_864, "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e"),
        *_VAE,
        File(
            *_LCM_LORA,
            "pytorch_lora_weights.safetensors",
            "lcm-lora.safetensors",
            134_621_556,
            "8f90d840e075ff588a58e22c6586e2ae9a6f7922996ee6649a7f01072333afe4",
        ),
    ),
    (
        Licence("Stable Diffusion 1.5", "CreativeML OpenRAIL-M", f"https://huggingface.co/{_SD15[0]}"),
        Licence("LCM-LoRA", "OpenRAIL++", f"https://huggingface.co/{_LCM_LORA[0]}"),
        _VAE_LICENCE,
    ),
    {"schedule": "lcm", "steps": 4, "strength": 0.4},
    lora="lcm-lora.safetensors",
)
SD_TURBO = CatalogueModel(
    "sd-turbo",
    (
        *_plain(_TURBO, _SMALL),
        _half(_TURBO, _UNET, 1_731_904_736, "40ec400881e27d1376c7c95c5bd495f407b33756e80eb6365e301c33a07af6e5"),
        _half(_TURBO, _TEXT, 680_820_392, "bc1827c465450322616f06dea41596eac7d493f4e95904dcb51f0fc745c4e13f"),
        *_VAE,
    ),
    (
        Licence(
            "SD-Turbo",
            "Stability AI's community licence; for commercial use see https://stability.ai/license",
            f"https://huggingface.co/{_TURBO[0]}",
        ),
        _VAE_LICENCE,
    ),
    {"schedule": "turbo", "steps": 2, "strength": 0.5},
)
SDXL_TURBO = CatalogueModel(
    "sdxl-turbo",
    (
        *_plain(_SDXL_TURBO, (*_SMALL, *_SMALL_2)),
        _half(_SDXL_TURBO, _UNET, 5_135_149_760, "48fa46161a745f48d4054df3fe13804ee255486bca893403b60373c188fd1bdb"),
        _half(_SDXL_TURBO, _TEXT, 246_144_152, "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd"),
        _half(
            _SDXL_TURBO,
            "text_encoder_2/model",
            1_389_382_176,
            "ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4",
        ),
        *_tiny(_TAESDXL, "ff4824aca94dd6111e0340fa749347fb74101060d9712cb5ef1ca8f1cf17502f"),
    ),
    (
        Licence(
            "SDXL-Turbo",
            "Stability AI's non-commercial community licence; for commercial use see https://stability.ai/license",
            f"https://huggingface.co/{_SDXL_TURBO[0]}",
        ),
        Licence("TAESDXL", "MIT", f"https://huggingface.co/{_TAESDXL[0]}"),
    ),
    {"schedule": "turbo", "steps": 1, "strength": 0.5},
)
ENTRIES: Mapping[str, CatalogueModel] = {entry.name: entry for entry in (SD15_LCM, SD_TURBO, SDXL_TURBO)}

_YUNET = ("ShiqiYu/libfacedetection.train", "0047ac24afb1a50a0c6105001c89d1b5b805dbf1", "onnx/yunet_n_dynamic.onnx")
_SELFIE = ("@mediapipe/selfie_segmentation", "0.1.1675465747", "selfie_segmentation_landscape.tflite")

FACE = CatalogueModel(
    "face",
    (
        File(
            *_YUNET,
            "yunet.onnx",
            322_906,
            "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
            f"https://raw.githubusercontent.com/{'/'.join(_YUNET)}",
        ),
    ),
    (Licence("YuNet", "Apache-2.0", f"https://github.com/{_YUNET[0]}"),),
    purpose='finds faces, for framing = "face"',
)
PERSON = CatalogueModel(
    "person",
    (
        File(
            *_SELFIE,
            "selfie_segmentation_landscape.tflite",
            249_792,
            "4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894",
            f"https://cdn.jsdelivr.net/npm/{_SELFIE[0]}@{_SELFIE[1]}/{_SELFIE[2]}",
        ),
    ),
    (Licence("MediaPipe selfie segmentation", "Apache-2.0", "https://github.com/google-ai-edge/mediapipe"),),
    purpose="tells a person from what is behind, for region",
)
_CLIP = ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")
CLIP = CatalogueModel(
    "clip",
    (
        *_plain(
            _CLIP,
            (
                "config.json",
                "merges.txt",
                "preprocessor_config.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.json",
            ),
        ),
        File(
            *_CLIP,
            "model.safetensors",
            "model.safetensors",
            1_710_540_580,
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        ),
    ),
    (Licence("CLIP ViT-L/14", "MIT", "https://github.com/openai/CLIP"),),
    purpose="compares pictures with each other and with a prompt, for `vcam eval --clip clip`",
)
HELPERS: Mapping[str, CatalogueModel] = {entry.name: entry for entry in (FACE, PERSON, CLIP)}
"""Models that see something in a picture; none is an engine's."""
