"""CLIP, where one is on this machine: pictures and texts as vectors of one space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from core.errors import MetricError
from core.measure.motion import Floats, Pixels
from core.models.catalogue import CLIP


class Clip:
    """A CLIP model (Radford et al., ICML 2021) of a folder, or the catalogue's (`vcam models download clip`).

    name: the folder, or `clip`. Nothing is downloaded here. Raises MetricError.
    """

    def __init__(self, name: str) -> None:
        where = str(clip_folder(name))
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MetricError("CLIP needs transformers: pip install transformers, or leave --clip out") from error
        self.name, self._torch, self._where = name, torch, where
        try:
            whole = json.loads((Path(where) / "config.json").read_bytes()).get("model_type") == "clip"
            kind: Any = transformers.CLIPModel if whole else transformers.CLIPVisionModelWithProjection
            self._prepare: Any = transformers.CLIPImageProcessor.from_pretrained(where, local_files_only=True)
            self._net: Any = kind.from_pretrained(where, local_files_only=True).eval()
        except Exception as error:  # as do broken files with transformers
            raise MetricError(f"{name}: no CLIP model in this folder; give that of a whole one") from error
        self._whole = whole
        self._last: tuple[Pixels, Floats] | None = None  # two figures ask for the same picture one after the other

    def picture(self, picture: Pixels) -> Floats:
        """Return the embedding of a picture: float32 [n]."""
        if self._last is not None and self._last[0] is picture:
            return self._last[1]
        with self._torch.inference_mode():
            given = self._prepare(images=picture, return_tensors="pt")
            vector = self._net.visual_projection(self._net.vision_model(**given).pooler_output)[0]
        self._last = (picture, cast(Floats, vector.float().numpy()))
        return self._last[1]

    def text(self, text: str) -> Floats:
        """Return the embedding of a text: float32 [n]; what is too long is cut. Raises MetricError."""
        import transformers

        if not self._whole:
            raise MetricError(f"{self.name}: this CLIP has no text half; give the folder of a whole one")
        if not any((Path(self._where) / one).is_file() for one in ("tokenizer.json", "vocab.json")):
            raise MetricError(f"{self.name}: this CLIP has no tokenizer; give the folder of a whole one")
        try:
            tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(self._where, local_files_only=True)
        except Exception as error:  # as do broken files with transformers
            raise MetricError(f"{self.name}: its tokenizer cannot be read; fetch it again") from error
        longest = self._net.config.text_config.max_position_embeddings
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
        with self._torch.inference_mode():
            vector = self._net.text_projection(self._net.text_model(**tokens).pooler_output)[0]
        return cast(Floats, vector.float().numpy())


def clip_folder(name: str) -> Path:
    """Return the folder of a CLIP: that of this name, or the catalogue's. Raises MetricError."""
    if name != CLIP.name or Path(name).is_dir():
        return Path(name)
    if not CLIP.is_here():
        raise MetricError("CLIP is not here: `vcam models download clip` fetches it; or give a folder (--clip FOLDER)")
    return CLIP.folder
