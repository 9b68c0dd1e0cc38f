"""core.algorithm.net.Net by a diffusers UNet: stock modules, with the bank as arguments and results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from core.algorithm import conditions
from core.algorithm.attention import (
    BankCall,
    CrossAttention,
    FusedTransformerBlock,
    FusedUpBlock,
    PlainAttention,
    SelfAttention,
    keys_values,
)
from core.algorithm.bank import Bank, Features, Layout, Reading
from core.errors import PlaceError
from core.settings import BankedFeature, FusionPlace

Places = Iterable[str] | FusionPlace | None  # where features are fused: by name, or the paper's; None: `attentions`


class BankedUNet(nn.Module):
    """A diffusers UNet whose self-attention and named places read a bank; it takes over the given UNet."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        places: Places,
        parts: int = 1,
        keeps: BankedFeature = BankedFeature.FUSED,
    ) -> None:
        """Take the UNet over; places: names of attention layers, transformer or up blocks (`Places`).

        parts: as in core.algorithm.attention.FusedUpBlock; other than 1 it needs places that are up blocks. keeps:
        which feature of those places is banked. Raises PlaceError for any other name.
        """
        super().__init__()
        self.keeps = keeps
        wanted = set(place_names(unet, places))
        self.self_attentions = self_attentions(unet)
        modules = dict(unet.named_modules())
        processors: dict[str, Any] = {}
        for name in unet.attn_processors:
            layer = name.removesuffix(".processor")
            banked = layer in self.self_attentions
            processors[name] = SelfAttention(layer, layer in wanted) if banked else CrossAttention(layer)
        unet.set_attn_processor(processors)
        for place in sorted(wanted if parts > 1 else wanted - set(self.self_attentions)):
            module = modules.get(place)
            parent, _, child = place.rpartition(".")
            if parent == "up_blocks" and module is not None:
                unet.up_blocks[int(child)] = FusedUpBlock(place, module, parts)
            elif parts > 1:
                raise PlaceError(f"fusion place {place!r} is no up block of this UNet, which subtoken {parts} needs")
            elif isinstance(module, BasicTransformerBlock):
                modules[parent].register_module(child, FusedTransformerBlock(place, module))
            else:
                raise PlaceError(
                    f"fusion place {place!r} is none of this UNet's self-attentions, transformer blocks or up blocks"
                )
        self.unet = unet
        self.pooled = conditions.pooled_width(unet.config)
        if self.pooled:
            unet.add_time_proj = _ProjectedSizes(unet.add_time_proj)  # type: ignore[assignment]

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        bank: Bank,
        reading: Reading,
        cross: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Features]:
        """See core.algorithm.net.Net; cross: `cross_attention` of the text, where the caller has it."""
        seen: Features = {}
        call = BankCall(bank, reading, seen, cross or {}, self.keeps)
        told = conditions.apart(text, self.pooled)
        (prediction,) = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=told.words,
            added_cond_kwargs=told.added,
            cross_attention_kwargs={"bank_call": call},
            return_dict=False,
        )
        return prediction, seen

    def text_layers(self) -> list[nn.Module]:
        """Return the layers that `cross_attention` runs."""
        attentions = (module for module in self.unet.modules() if isinstance(module, Attention))
        crossing = (one for one in attentions if isinstance(one.processor, CrossAttention))
        return [layer for attention in crossing for layer in (attention.to_k, attention.to_v)]

    def cross_attention(self, text: Tensor) -> dict[str, Tensor]:
        """Return layer -> its keys and values [rows, words, 2*channels] of the text [rows, words, width].

        They serve every frame until the text or the weights change.
        """
        words = conditions.apart(text, self.pooled).words
        attentions = (module for module in self.unet.modules() if isinstance(module, Attention))
        return {
            attention.processor.layer: keys_values(attention, words)
            for attention in attentions
            if isinstance(attention.processor, CrossAttention)
        }


class _ProjectedSizes(nn.Module):
    """SDXL's sizes as sinusoids of the text's type: diffusers joins the two, and a graph joins what is of one type."""

    def __init__(self, project: nn.Module) -> None:
        super().__init__()
        self.project = project

    def forward(self, sizes: Tensor) -> Tensor:
        projected: Tensor = self.project(sizes)
        return projected.to(sizes.dtype)


class TimeTable(nn.Module):
    """Looks up a timestep's embedding: timesteps int64 [rows] -> [rows, width]."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        """Look up in a table [timesteps, width]."""
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        """See the class."""
        return self.table[timesteps]


class _Embedded(nn.Module):
    """Stands where diffusers embeds a timestep: what was looked up is embedded already."""

    def forward(self, embedding: Tensor, condition: Tensor | None = None) -> Tensor:
        return embedding


def tabulate_time(unet: UNet2DConditionModel, timesteps: int) -> Callable[[], None]:
    """Let the UNet look up its time embeddings, for timesteps 0 to timesteps-1; what it predicts stays the same.

    Return a function that works the table out again, for when the weights have changed.
    """
    project, embed = unet.time_proj, unet.time_embedding
    every, dtype = torch.arange(timesteps, device=unet.device), unet.dtype

    @torch.no_grad()
    def embeddings() -> Tensor:
        embedding: Tensor = embed(project(every).to(dtype))
        return embedding

    table = TimeTable(embeddings())
    unet.time_proj, unet.time_embedding = table, _Embedded()  # type: ignore[assignment]

    def tabulate_again() -> None:
        table.table.copy_(embeddings())

    return tabulate_again


class PlainUNet(nn.Module):
    """A diffusers UNet without a bank: nothing is read, no features are returned."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        self.pooled = conditions.pooled_width(unet.config)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        bank: Bank,
        reading: Reading,
        cross: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Features]:
        """See core.algorithm.net.Net; cross: `cross_attention` of the text, where the caller has it."""
        told = conditions.apart(text, self.pooled)
        (prediction,) = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=told.words,
            added_cond_kwargs=told.added,
            cross_attention_kwargs={"cross": cross} if cross else None,
            return_dict=False,
        )
        return prediction, {}

    def cross_attention(self, text: Tensor) -> dict[str, Tensor]:
        """Return layer -> its keys and values, as BankedUNet's; nothing unless every layer's processor takes them."""
        layers = {name: module for name, module in self.unet.named_modules() if isinstance(module, Attention)}
        if not all(isinstance(layer.processor, PlainAttention) for layer in layers.values()):
            return {}
        words = conditions.apart(text, self.pooled).words
        return {name: keys_values(layer, words) for name, layer in layers.items() if layer.is_cross_attention}


def self_attentions(unet: UNet2DConditionModel) -> list[str]:
    """Return the names of the self-attention layers (attn1), in the order in which they run."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors if ".attn1." in name]
    # diffusers lists up blocks before the mid block but runs them after
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    return sorted(names, key=lambda name: order[name.partition(".")[0]])


def default_places(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Return where the paper fuses (section 4.2): attention outputs of the mid block and the first two up blocks.

    Those of SD 1.5 work at a quarter of the latents' size and below, for finer fusion blurs; SDXL's second up block
    works at half, so there it is the first alone (docs/models.md). A UNet too small for such levels fuses in both.
    """
    levels = len(unet.up_blocks)  # each of which works at twice the size of the one before, the last at the latents'
    coarse = [block for block in (0, 1) if levels - 1 - block >= 2] or [0, 1]
    low = ("mid_block.", *(f"up_blocks.{block}." for block in coarse))
    return tuple(name for name in self_attentions(unet) if name.startswith(low))


def place_names(unet: UNet2DConditionModel, places: Places) -> tuple[str, ...]:
    """Return the names of the places of that UNet."""
    if isinstance(places, FusionPlace):
        blocks = places is FusionPlace.BLOCKS
        return tuple(name.removesuffix(".attn1") if blocks else name for name in default_places(unet))
    return default_places(unet) if places is None else tuple(places)


def layout(config: Mapping[str, Any], places: Places, height: int, width: int) -> Layout:
    """Return the shapes of a UNet's bank at latents of height x width, from its configuration alone.

    Raises PlaceError.
    """
    words = 2 + conditions.further_rows(config)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(config))
        net = BankedUNet(unet, places)
        flag = torch.empty(1)
        _, seen = net(
            torch.empty(1, int(config["in_channels"]), height, width),
            torch.empty(1),
            torch.empty(1, words, int(config["cross_attention_dim"])),
            {},
            Reading(flag, flag, flag),
        )
    return {name: (feature.shape[1], feature.shape[2]) for name, feature in seen.items()}
