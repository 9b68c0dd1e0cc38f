"""Extended attention and feature fusion (paper, sections 4.1 and 4.2), and what carries them into diffusers.

Pure functions at the heart. The processors and wrappers hold no state: the bank comes in, and the features seen go out,
by a keyword argument of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from core.algorithm import between_tokens, products
from core.algorithm.bank import Bank, Features, Reading, gather_tokens, normalized, read
from core.settings import BankedFeature


class BankCall(NamedTuple):
    """What travels with one UNet call: the bank, how to read it, and the features seen, which the layers fill in.

    keeps: which feature is seen where features are fused. cross: cross-attention layer -> its keys and values of the
    text, [rows, words, 2*channels]; a layer that is not in it works out its own.
    """

    bank: Bank
    reading: Reading
    seen: Features
    cross: Mapping[str, Tensor]
    keeps: BankedFeature = BankedFeature.FUSED


def attend(query: Tensor, keys: Tensor, values: Tensor, heads: int, allowed: Tensor | None = None) -> Tensor:
    """Apply multi-head attention: query [rows, m, channels], keys and values [rows, n, channels] -> as query.

    allowed: bool [rows, n], the keys that are looked at; None: all.
    """
    # [rows, heads, n, channels/heads]
    q, k, v = (t.reshape(t.shape[0], t.shape[1], heads, -1).transpose(1, 2) for t in (query, keys, values))
    if allowed is None:
        return products.attend(q, k, v).flatten(2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None, None]).transpose(1, 2).flatten(2)


def extend(now: Tensor, ring: Tensor, fresh: Tensor | None) -> Tensor:
    """Return [K_now ; K_bank] along tokens: now [rows, tokens, channels], ring [rows, slots, tokens, channels]."""
    return torch.cat([now, ring.flatten(1, 2) if fresh is None else read(ring, now, fresh)], dim=1)


def held_tokens(held: Tensor, tokens: int) -> Tensor:
    """Return bool [rows, slots*tokens], the tokens of the slots of `held`, bool [rows, slots]."""
    return held[:, :, None].expand(-1, -1, tokens).flatten(1)


def fuse(own: Tensor, ring: Tensor, strength: Tensor, threshold: Tensor, held: Tensor | None = None) -> Tensor:
    """Move each token towards its most similar token of the bank, where their cosine is over the threshold.

    own [rows, tokens, channels], ring [rows, slots, tokens, channels], strength and threshold [rows]. held: as in
    core.algorithm.bank.Reading.
    """
    banked = ring.flatten(1, 2)  # [rows, slots*tokens, channels]
    similarity = _similarities(normalized(own), banked, ring.shape[2], held)
    best, index = similarity.max(dim=-1)
    return _moved(own, gather_tokens(banked, index), best, strength, threshold)


def _similarities(direction: Tensor, banked: Tensor, tokens: int, held: Tensor | None) -> Tensor:
    """Return the cosines [rows, tokens, slots*tokens] of unit vectors; what no slot holds is less alike than any is."""
    similarity = products.with_each(direction, normalized(banked))
    if held is None:
        return similarity
    return torch.where(held_tokens(held, tokens)[:, None], similarity, -2.0)


def _moved(own: Tensor, match: Tensor, similarity: Tensor, strength: Tensor, threshold: Tensor) -> Tensor:
    """Return `own` moved towards its match, where the two are alike; similarity [rows, tokens]."""
    mixed = torch.lerp(own, match, strength[:, None, None])
    return torch.where((similarity > threshold[:, None])[..., None], mixed, own)


class SubtokenGrid(NamedTuple):
    """The points between tokens where a match may lie; the tokens are a grid of height x width.

    shares [points, 9]: how much a token and each of its eight neighbours adds to each point (`subtoken_shares`).
    """

    shares: Tensor
    height: int
    width: int


def subtoken_shares(parts: int) -> Tensor:
    """Return the bilinear shares [points, 9] of a token and its neighbours at steps of 1/parts of a token."""
    steps = torch.arange(-(parts // 2), parts // 2 + 1) / parts
    line = (1 - (steps[:, None] - torch.arange(-1, 2)).abs()).clamp_min(0)  # [steps, 3]
    return (line[:, None, :, None] * line[None, :, None, :]).reshape(-1, 9)  # [steps*steps, 3*3]


def fuse_subtoken(
    own: Tensor, ring: Tensor, strength: Tensor, threshold: Tensor, grid: SubtokenGrid, held: Tensor | None = None
) -> Tensor:
    """Fuse as `fuse` does, but let the match lie between tokens, so that motion by less than a token is followed.

    Ours, not the paper's; video codecs compensate motion by parts of a pixel in the same way. The most similar token is
    found first, then the point around it where the bilinear mix of the bank's tokens is most similar.
    """
    banked = ring.flatten(1, 2)  # [rows, slots*tokens, channels]
    direction, (rows, tokens, channels) = normalized(own), own.shape
    similarity = _similarities(direction, banked, ring.shape[2], held)
    index = products.largest(similarity)  # [rows, tokens]
    nine = _neighbours(ring.shape[1], grid)[index]  # [rows, tokens, 9]
    if held is None and own.dtype.itemsize > 2 and products.at_once(own):
        cosines = between_tokens.cosines(similarity, ring, index, nine, grid.shares, grid.width)
        best, point = cosines.max(dim=-1)
        return _moved(own, between_tokens.mixes(ring, nine, grid.shares[point]), best, strength, threshold)
    around = gather_tokens(banked, nine.flatten(1)).reshape(rows, tokens, 9, channels)
    best, point = _similarity(direction, around, grid.shares).max(dim=-1)
    match = (grid.shares.to(around.dtype)[point][:, :, None] @ around)[:, :, 0]  # [rows, tokens, channels]
    return _moved(own, match, best, strength, threshold)


def _similarity(direction: Tensor, around: Tensor, shares: Tensor) -> Tensor:
    """Return the cosines [rows, tokens, points] of unit vectors [rows, tokens, channels] and mixes of nine tokens.

    around [rows, tokens, 9, channels], shares [points, 9].
    """
    pairs = (shares[:, :, None] * shares[:, None]).flatten(1)  # [points, 81]
    if around.dtype.itemsize > 2:
        products = (around @ around.transpose(2, 3)).flatten(2)  # [rows, tokens, 81]
        lengths = products @ pairs.to(around.dtype).T  # squared, [rows, tokens, points]
        dots = (around @ direction[..., None])[..., 0] @ shares.to(around.dtype).T
        return dots * lengths.clamp_min(1e-12).rsqrt()
    # No product of matrices in float32: TensorRT for RTX has none for Turing. A mix is its middle token and a little of
    # what the others differ by: the former's products are summed in float32, and rounding the latter's shifts no match.
    size = torch.linalg.vector_norm(around.float(), dim=-1).amax(dim=-1)  # or squares of half precision may overflow
    near = (around.float() / size.clamp_min(1e-12)[..., None, None]).to(around.dtype)
    middle, shares = near[:, :, 4:5], shares.to(around.dtype)
    apart = near - middle
    products = torch.cat([apart, middle, direction[:, :, None]], dim=2) @ apart.transpose(2, 3)  # [rows, tokens, 11, 9]
    spread = (products[:, :, :9].flatten(2) @ pairs.to(around.dtype).T).float()  # [rows, tokens, points]
    leaning, turning = (products[:, :, 9:] @ shares.T).float().unbind(2)
    lengths = _summed(middle, middle) + 2 * leaning + spread
    cosines: Tensor = (_summed(middle, direction[:, :, None]) + turning) * lengths.clamp_min(1e-12).rsqrt()
    return cosines


def _summed(one: Tensor, other: Tensor) -> Tensor:
    """Return the products [rows, tokens, 1] of vectors [rows, tokens, 1, channels], in float32."""
    total: Tensor = (one.float() * other.float()).sum(dim=-1)
    return total


def _neighbours(slots: int, grid: SubtokenGrid) -> Tensor:
    """Return the indices of each token of a ring and its neighbours in its slot, [slots*tokens, 9]; edges repeat."""
    height, width = grid.height, grid.width
    device, step = grid.shares.device, torch.arange(-1, 2, device=grid.shares.device)
    y = (torch.arange(height, device=device)[:, None] + step).clamp(0, height - 1)  # [height, 3]
    x = (torch.arange(width, device=device)[:, None] + step).clamp(0, width - 1)  # [width, 3]
    there = (y[:, None, :, None] * width + x[None, :, None, :]).reshape(1, height * width, 9)
    first = torch.arange(slots, device=device)[:, None, None] * (height * width)
    return (first + there).flatten(0, 1)


def fuse_at(place: str, own: Tensor, call: BankCall, grid: SubtokenGrid | None = None) -> Tensor:
    """Return `own` [rows, tokens, channels] fused with the bank at `place`, and bank it as the call says."""
    name = f"{place}.feature"
    ring = call.bank.get(name)
    if ring is None:
        fused = own
    else:
        reading = call.reading
        strength, threshold, held = reading.strength, reading.threshold, reading.held
        if grid is None:
            fused = fuse(own, ring, strength, threshold, held)
        else:
            fused = fuse_subtoken(own, ring, strength, threshold, grid, held)
    call.seen[name] = own if call.keeps is BankedFeature.PLAIN else fused
    return fused


def project(attn: Attention, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value, each [rows, tokens, channels]; by one product where the weights are fused."""
    if attn.fused_projections:
        query, key, value = attn.to_qkv(hidden).chunk(3, dim=-1)
        return query, key, value
    return attn.to_q(hidden), attn.to_k(hidden), attn.to_v(hidden)


def keys_values(attn: Attention, text: Tensor) -> Tensor:
    """Return a cross-attention's keys and values of text [rows, words, width], joined: [rows, words, 2*channels]."""
    return torch.cat([attn.to_k(text), attn.to_v(text)], dim=-1)


def look_at(attn: Attention, hidden: Tensor, text: Tensor | None, ready: Tensor | None) -> Tensor:
    """Attend to a text, [rows, words, width], or without one to itself: hidden [rows, tokens, channels] -> as hidden.

    ready: the layer's `keys_values` of the text, where the caller has them.
    """
    if ready is None:
        seen = hidden if text is None else text
        key, value = attn.to_k(seen), attn.to_v(seen)
    else:
        key, value = ready.chunk(2, dim=-1)
    out: Tensor = attn.to_out[0](attend(attn.to_q(hidden), key, value, attn.heads))
    return out


class SelfAttention:
    """A diffusers attention processor: self-attention that also looks at the bank of its layer."""

    def __init__(self, layer: str, fuses: bool) -> None:
        self.layer = layer
        self.fuses = fuses

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        bank_call: BankCall | None = None,
    ) -> Tensor:
        """Attend: hidden_states [rows, tokens, channels] -> the same shape."""
        assert bank_call is not None
        query, key, value = project(attn, hidden_states)
        key_name, value_name = f"{self.layer}.key", f"{self.layer}.value"
        bank_call.seen[key_name], bank_call.seen[value_name] = key, value
        allowed = None
        if key_name in bank_call.bank:
            fresh, held = bank_call.reading.fresh, bank_call.reading.held
            if held is not None:
                allowed = torch.cat(
                    [torch.ones_like(key[..., 0], dtype=torch.bool), held_tokens(held, key.shape[1])], 1
                )
            key = extend(key, bank_call.bank[key_name], fresh)
            value = extend(value, bank_call.bank[value_name], fresh)
        out = attn.to_out[0](attend(query, key, value, attn.heads, allowed))
        return fuse_at(self.layer, out, bank_call) if self.fuses else out


class CrossAttention:
    """A diffusers attention processor: plain cross-attention, whose keys and values may come with the call."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        bank_call: BankCall | None = None,
    ) -> Tensor:
        """Attend to the text: hidden_states [rows, tokens, channels], text [rows, words, width] -> as hidden_states."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        ready = None if bank_call is None else bank_call.cross.get(self.layer)
        # joined here too: the shipped graphs are written from these very steps
        return look_at(attn, hidden_states, text, keys_values(attn, text) if ready is None else ready)


class PlainAttention:
    """A diffusers attention processor without a bank, for self- and cross-attention of layers that are `plain`.

    What it does not know itself, a mask and states that are a picture, it leaves to diffusers' processor.
    """

    def __init__(self, layer: str = "") -> None:
        """layer: by which a call's `cross` knows it."""
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        cross: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Attend: hidden_states [rows, tokens, channels], text [rows, words, width] -> as hidden_states.

        cross: layer -> its `keys_values` of the text, where the caller has them.
        """
        if attention_mask is not None or hidden_states.ndim != 3:
            theirs: Tensor = AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return theirs
        return look_at(attn, hidden_states, encoder_hidden_states, None if cross is None else cross.get(self.layer))


def plain(attn: Attention) -> bool:
    """Return whether a layer is nothing but products and attention: no norms, no residual, no other scale."""
    own: object = attn.processor
    if type(own) is not AttnProcessor2_0 or attn.residual_connection or attn.rescale_output_factor != 1:
        return False
    norms = (attn.group_norm, attn.spatial_norm, attn.norm_cross, attn.norm_q, attn.norm_k)
    return all(norm is None for norm in norms)


def quicken_attention(net: nn.Module) -> None:
    """Let every layer that is `plain` attend by PlainAttention under its name in the net, in place."""
    for name, layer in net.named_modules():
        if isinstance(layer, Attention) and plain(layer):
            layer.set_processor(PlainAttention(name))  # type: ignore[arg-type]


class FusedTransformerBlock(nn.Module):
    """A transformer block whose output is fused with the bank."""

    def __init__(self, place: str, block: nn.Module) -> None:
        super().__init__()
        self.place = place
        self.block = block

    def forward(self, hidden_states: Tensor, *, cross_attention_kwargs: dict[str, Any], **kwargs: Any) -> Tensor:
        """Attend: hidden_states [rows, tokens, channels] -> the same shape."""
        out = self.block(hidden_states, cross_attention_kwargs=cross_attention_kwargs, **kwargs)
        return fuse_at(self.place, out, cross_attention_kwargs["bank_call"])


class FusedUpBlock(nn.Module):
    """An up block whose output [rows, channels, height, width] is fused with the bank, a pixel being a token."""

    has_cross_attention = True  # so that diffusers hands over cross_attention_kwargs, with the bank in it

    shares: Tensor | None

    def __init__(self, place: str, block: nn.Module, parts: int = 1) -> None:
        """Take the block over; parts: matches lie at steps of 1/parts of a token (`fuse_subtoken`), 1: on tokens."""
        super().__init__()
        self.place = place
        self.block = block
        self.register_buffer("shares", subtoken_shares(parts) if parts > 1 else None, persistent=False)
        self.attends = bool(getattr(block, "has_cross_attention", False))

    @property
    def resnets(self) -> nn.ModuleList:
        """The inner block's residual layers, whose number diffusers asks for."""
        return self.block.resnets  # type: ignore[return-value]

    def forward(
        self,
        hidden_states: Tensor,
        temb: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        upsample_size: int | None = None,
        *,
        cross_attention_kwargs: dict[str, Any],
        **attention: Any,
    ) -> Tensor:
        """Run the inner block on hidden_states [rows, channels, height, width] and fuse its output."""
        if self.attends:
            attention["cross_attention_kwargs"] = cross_attention_kwargs
        else:
            attention = {}
        out: Tensor = self.block(
            hidden_states=hidden_states,
            temb=temb,
            res_hidden_states_tuple=res_hidden_states_tuple,
            upsample_size=upsample_size,
            **attention,
        )
        # contiguous: a banked view would hand its strides on to the ring, and a compiled call would be compiled again
        tokens = out.flatten(2).transpose(1, 2).contiguous()  # [rows, height*width, channels]
        grid = None if self.shares is None else SubtokenGrid(self.shares, *out.shape[2:])
        fused = fuse_at(self.place, tokens, cross_attention_kwargs["bank_call"], grid)
        return fused.transpose(1, 2).reshape(out.shape)
