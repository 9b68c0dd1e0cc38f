"""What a plan needs of its model's folder: the text encoders, what a text goes through, and what LoRAs change.

The UNet and the VAE are in the plan; neither they nor the libraries that know them (diffusers, transformers) are
loaded, for these take longer than everything else of a start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.algorithm import conditions
from core.algorithm.prompts import PromptEncoder
from core.errors import ModelError
from core.models import loras
from core.models.clip import ClipText, load_clip
from core.models.folder_files import part_config
from core.models.light_text import TextEncoder, light_encoder
from core.models.resolved import Resolved
from core.models.stored_weights import StoredWeights

_UNET = "unet."


class PlanWeights(Mapping[str, Tensor]):
    """What LoRAs can change, by core.models.loras.named_weights' names.

    The text encoders' weights are those in use; the UNet's are read from its files when they are asked for.
    """

    def __init__(self, texts: Mapping[str, Tensor], unet: StoredWeights) -> None:
        self._texts = texts
        self._unet = unet
        self._changed: dict[str, Tensor] = {}  # of the UNet's, what differs from the files or did
        matrices = (one for one in unet if one.endswith(".weight") and len(unet.shape(one)) in (2, 4))
        self._names = {f"{_UNET}{name}": name for name in matrices}

    def __getitem__(self, name: str) -> Tensor:
        if name in self._texts:
            return self._texts[name]
        return self._changed[name] if name in self._changed else self._unet[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        yield from self._texts
        yield from self._names

    def __len__(self) -> int:
        return len(self._texts) + len(self._names)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Take other values from now on; text encoders get them where their weights lie."""
        loras.put(self._texts, {name: values[name] for name in values if name in self._texts})
        self._changed |= {name: values[name] for name in values if name not in self._texts}


class TextLayers:
    """The layers of a UNet by which its cross-attentions make keys and values of a text."""

    def __init__(self, layers: Iterable[str], weights: Mapping[str, Tensor], pooled: int, device: torch.device) -> None:
        """layers: names of the cross-attentions; pooled: core.algorithm.conditions.pooled_width. Raises ModelError."""
        self._weights, self._pooled, self._device = weights, pooled, device
        self._joined: dict[str, Tensor] = {}  # layer -> [2*channels, width] of keys, then of values
        self._read(layers)

    def __call__(self, text: Tensor) -> dict[str, Tensor]:
        """See core.algorithm.unet.BankedUNet.cross_attention."""
        words = conditions.apart(text, self._pooled).words
        return {layer: F.linear(words, weight) for layer, weight in self._joined.items()}

    def weights_changed(self, names: Iterable[str]) -> None:
        """Take the new values of those of the weights' names that are of these layers."""
        changed = set(names)
        self._read([one for one in self._joined if changed & set(_projections(one))])

    def _read(self, layers: Iterable[str]) -> None:
        for layer in layers:
            try:
                both = [self._weights[name] for name in _projections(layer)]
            except KeyError as error:
                raise ModelError(f"the UNet has no weight {error.args[0]}, which its engine asks for") from error
            self._joined[layer] = torch.cat([one.to(self._device) for one in both])


def _projections(layer: str) -> Sequence[str]:
    return [f"{_UNET}{layer}.{name}.weight" for name in ("to_k", "to_v")]


class TextParts:
    """A model's text encoders, and what else a plan of it needs of the folder."""

    def __init__(self, resolved: Resolved, device: torch.device) -> None:
        """Load the text encoders, with the settings' LoRAs in them. Raises ModelError."""
        settings, description = resolved.settings, resolved.description
        folder, dtype = description.folder, getattr(torch, settings.dtype)
        encoders = {name: load_clip(folder, name, dtype, device) for name in description.text_encoders}
        texts = {f"{part}.{name}": one for part, made in encoders.items() for name, one in made.matrices().items()}
        self.weights = PlanWeights(texts, StoredWeights(folder / "unet", dtype))
        fusion = loras.switch(self.weights, {}, settings.loras)
        self.weights.put(fusion.values)
        self.originals = fusion.originals
        self.pooled = conditions.pooled_width(part_config(folder, "unet"))
        pair = len(encoders) > 1
        given = {name: _encoding(one, device, before_last=pair) for name, one in encoders.items()}
        length = next(iter(encoders.values())).length
        self.encoder: PromptEncoder = light_encoder(description, given, length, (settings.height, settings.width))


def _encoding(encoder: ClipText, device: torch.device, *, before_last: bool) -> TextEncoder:
    """before_last: as SDXL takes a text."""

    def encode(ids: Tensor) -> list[Tensor]:
        if int(ids.max()) >= encoder.known:
            raise ModelError(
                f"the tokenizer gives token {int(ids.max())}, the text encoder knows {encoder.known}: they are not of "
                "one model; fetch it again"
            )
        found = encoder(ids.to(device))
        words = [found.before_last if before_last else found.last]
        return words if found.pooled is None else [*words, found.pooled]

    return encode
