"""The model folder: diffusers layout, fp16 safetensors, and our own description of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from core.algorithm.detail import Detail
from training import words
from training.parts import Text, Unet, Vae
from training.teachers import TEACHERS
from training.unet import PLACES, scheduler

INDEX = {
    "_class_name": "StableDiffusionImg2ImgPipeline",
    "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "LCMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}

DROPPED = {
    "text_encoder": ("_name_or_path", "dtype"),
    "unet": ("_name_or_path",),
    "vae": ("_name_or_path", "block_out_channels"),  # diffusers writes the second and warns when it reads it
}


def description(detail: Detail | None) -> dict[str, object]:
    """What the engine is told of the model (streamv2v.json)."""
    own: dict[str, object] = {
        "name": "embedded",
        "licence": "Apache-2.0",
        "schedule": "lcm",
        "width": 256,
        "height": 256,
        "steps": 2,
        "strength": 0.5,
        "text_to_image": False,
        "local_exposure": True,
        "fusion": {"places": list(PLACES), "subtoken": 8, "strength": 0.25, "threshold": 0.93},
        "bank": {"policy": "fifo", "slots": 1, "interval": 1},
        "styles": list(TEACHERS),
        "words": words.vocabulary(),
    }
    return own if detail is None else own | {"detail": detail.widths}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_detail(folder: Path, detail: Detail) -> None:
    """The detail stage's weights, fp16."""
    (folder / "detail").mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in detail.state_dict().items()}
    save_file(weights, folder / "detail" / "model.safetensors")


def export(folder: Path, text: Text, unet: Unet, vae: Vae, detail: Detail | None = None) -> int:
    """Write the whole model folder; returns its size in bytes."""
    for part, name in ((text, "text_encoder"), (unet, "unet"), (vae, "vae")):
        part.to(torch.float16).save_pretrained(folder / name, safe_serialization=True)
        part.float()
        config = folder / name / "config.json"
        found = {k: v for k, v in json.loads(config.read_text()).items() if k not in DROPPED[name]}
        write_json(config, found)
    words.tokenizer().save_pretrained(folder / "tokenizer")
    scheduler().save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", INDEX)
    if detail is not None:
        write_detail(folder, detail)
    write_json(folder / "streamv2v.json", description(detail))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
