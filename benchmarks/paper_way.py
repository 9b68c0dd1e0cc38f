"""The paper's way, the peer that our engine is measured against: a bank of concatenated tensors, in eager PyTorch.

Written from the paper alone (arXiv 2405.15757, sections 4.1 to 4.3): each attention keeps past keys, values and outputs
in Python lists, concatenates them at every call, and every interval-th frame appends (a queue) or merges (DyMe: bank
and frame joined, split at random into halves, each source averaged into its most similar destination). Everything else
is the engine's own stream batch, so that the bank alone makes the difference.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from core.algorithm.unet import PlainUNet, default_places, self_attentions
from core.settings import Policy


class PaperAttention:
    """A diffusers attention processor that remembers, as the paper describes it."""

    def __init__(self, *, fuses: bool, policy: Policy, slots: int, interval: int, strength: float, threshold: float):
        self.fuses, self.policy, self.slots, self.interval = fuses, policy, slots, interval
        self.strength, self.threshold = strength, threshold
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.frames = 0

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states [rows, tokens, channels] -> the same shape."""
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        all_keys, all_values = torch.cat([key, *self.keys], dim=1), torch.cat([value, *self.values], dim=1)
        q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (query, all_keys, all_values))
        out: Tensor = attn.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if self.fuses and self.outputs:
            out = self._fused(out)
        if self.frames % self.interval == 0 and self.policy is not Policy.OFF:
            self._update(key, value, out)
        self.frames += 1
        return out

    def _fused(self, own: Tensor) -> Tensor:
        banked = torch.cat(self.outputs, dim=1)
        similarity = F.normalize(own, dim=-1) @ F.normalize(banked, dim=-1).transpose(1, 2)
        best, index = similarity.max(dim=-1)
        match = banked.gather(1, index[..., None].expand(-1, -1, own.shape[-1]))
        mixed = (1 - self.strength) * own + self.strength * match
        return torch.where((best > self.threshold)[..., None], mixed, own)

    def _update(self, key: Tensor, value: Tensor, out: Tensor) -> None:
        if self.policy is Policy.MERGE and self.keys:
            self.keys, self.values, self.outputs = ([one] for one in self._merged(key, value, out))
            return
        for kept, new in ((self.keys, key), (self.values, value), (self.outputs, out)):
            kept.append(new)
            if len(kept) > self.slots:
                kept.pop(0)

    def _merged(self, *now: Tensor) -> list[Tensor]:
        """Bank and frame, 2N tokens, as N: the destinations, into each of which its sources are averaged."""
        kept = (self.keys[0], self.values[0], self.outputs[0])
        both = [torch.cat(pair, dim=1) for pair in zip(kept, now, strict=True)]
        order = torch.randperm(both[0].shape[1], device=both[0].device)
        sources, destinations = order.chunk(2)
        unit = F.normalize(both[0], dim=-1)
        target = (unit[:, sources] @ unit[:, destinations].transpose(1, 2)).argmax(dim=-1)
        return [
            tokens[:, destinations].scatter_reduce(
                1, target[..., None].expand(-1, -1, tokens.shape[-1]), tokens[:, sources], reduce="mean"
            )
            for tokens in both
        ]


class PaperNet(PlainUNet):
    """core.algorithm.net.Net in the paper's way; the bank is in its processors, so that it is good for one stream
    only.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        policy: Policy,
        slots: int = 1,
        interval: int = 4,
        strength: float,
        threshold: float,
    ) -> None:
        """Take the UNet over; fuse where the paper does."""
        places, layers = default_places(unet), self_attentions(unet)
        processors: dict[str, Any] = unet.attn_processors
        for name in processors:
            layer = name.removesuffix(".processor")
            if layer in layers:
                processors[name] = PaperAttention(
                    fuses=layer in places,
                    policy=policy,
                    slots=slots,
                    interval=interval,
                    strength=strength,
                    threshold=threshold,
                )
        unet.set_attn_processor(processors)
        super().__init__(unet)
