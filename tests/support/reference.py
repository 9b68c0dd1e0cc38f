"""StreamV2V (arXiv 2405.15757) written out literally, slowly and in float64: what the engine is proven against.

Nothing here is shared with `core`. A frame is worked through on its own, step by step; what a step may look back at is
a plain list of past frames. Stock sub-modules of the UNet (residual blocks, samplers, norms, linear layers) are called
as they are; the transformer blocks are written out, because that is where the method acts. Words: a row is one
denoising step; a slot is one frame in a bank; a place is where features are fused, by the UNet's module name:
`....attn1` (the attention's output, before the residual), `....transformer_blocks.0` or `up_blocks.1` (their output).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

Permutation = Callable[[int, int], Sequence[int]]
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


# ---------------------------------------------------------------------------------------------------------------------
# The schedule


def lcm_timesteps(steps: int, strength: float, original_steps: int = 50, train_steps: int = 1000) -> list[int]:
    """Timesteps, descending, of a latent consistency model: `steps` of them out of the lower `strength` share."""
    stride = train_steps // original_steps
    distilled = [(i + 1) * stride - 1 for i in range(int(original_steps * strength))]
    if len(distilled) < steps:
        raise ValueError(f"strength {strength} leaves {len(distilled)} timesteps; {steps} are asked for")
    descending = list(reversed(distilled))
    return [descending[math.floor(i * (len(descending) / steps))] for i in range(steps)]


def add_noise(clean: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise."""
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


def to_epsilon(output: Tensor, noisy: Tensor, abar: Tensor, prediction: str) -> Tensor:
    """The noise that the UNet's output speaks of: x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps."""
    match prediction:
        case "epsilon":
            return output
        case "v_prediction":  # v = sqrt(abar) eps - sqrt(1 - abar) x_0
            return abar.sqrt() * output + (1 - abar).sqrt() * noisy
        case "sample":
            return (noisy - abar.sqrt() * output) / (1 - abar).sqrt()
    raise ValueError(f"prediction is {prediction!r}")


def to_clean(output: Tensor, noisy: Tensor, abar: Tensor, prediction: str) -> Tensor:
    """The clean latent x_0 that the UNet's output speaks of."""
    match prediction:
        case "epsilon":
            return (noisy - (1 - abar).sqrt() * output) / abar.sqrt()
        case "v_prediction":
            return abar.sqrt() * noisy - (1 - abar).sqrt() * output
        case "sample":
            return output
    raise ValueError(f"prediction is {prediction!r}")


def boundary(clean: Tensor, noisy: Tensor, timestep: int, schedule: str) -> Tensor:
    """The result of a step: LCM's boundary condition (c_out x_0 + c_skip x_t), or x_0 itself for turbo models."""
    if schedule == "turbo":
        return clean
    scaled = TIMESTEP_SCALING * timestep
    c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    c_out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
    return c_out * clean + c_skip * noisy


# ---------------------------------------------------------------------------------------------------------------------
# The bank: what a frame leaves behind, which of it the next ones see, and how it is merged


@dataclass(frozen=True)
class Features:
    """What one frame leaves behind in one row: layer -> keys and values, place -> features; each [tokens, channels]."""

    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


def slot_frames(frame: int, slots: int, interval: int, filling: str = "first") -> list[int]:
    """Which past frames a fifo bank of `slots` slots holds at `frame`, oldest first: empty at frame 0.

    filling: "first" repeats the first frame until the ring is full, "growing" holds what there is.
    """
    if frame == 0:
        return []
    kept = [past for past in range(frame) if past % interval == 0]
    missing = slots - len(kept) if filling == "first" else 0
    return [0] * missing + kept if missing > 0 else kept[-slots:]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of each row of a [n, channels] with each row of b [m, channels]: [n, m]."""
    similarity: Tensor = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T
    return similarity


def assign(tokens: Tensor, permutation: Sequence[int]) -> list[tuple[int, list[int]]]:
    """For each destination, in order: (destination, its sources), both as rows of tokens [2n, channels].

    The first n entries of the permutation are the sources, the last n the destinations; a source goes to the
    destination that is most similar to it.
    """
    half = len(permutation) // 2
    if sorted(permutation) != list(range(len(tokens))) or len(permutation) != 2 * half:
        raise ValueError("the permutation does not fit the tokens")
    sources, destinations = list(permutation[:half]), list(permutation[half:])
    similarity = cosine(tokens[sources], tokens[destinations])  # [n sources, n destinations]
    groups: list[tuple[int, list[int]]] = [(destination, []) for destination in destinations]
    for source, row in zip(sources, similarity.tolist(), strict=True):
        groups[row.index(max(row))][1].append(source)
    return groups


def merge_tokens(tokens: Tensor, groups: list[tuple[int, list[int]]]) -> Tensor:
    """Each destination becomes the mean of itself and its sources: tokens [2n, channels] -> [n, channels]."""
    merged = []
    for destination, sources in groups:
        total = tokens[destination].clone()
        for source in sources:
            total += tokens[source]
        merged.append(total / (1 + len(sources)))
    return torch.stack(merged)


def layer_of(place: str, layers: Mapping[str, object]) -> str | None:
    """The self-attention layer whose keys decide how a place's features are merged; None: the features themselves."""
    if place in layers:
        return place
    return f"{place}.attn1" if f"{place}.attn1" in layers else None


def merge(
    compact: Features, now: Features, frame: int, permutation: Permutation, due: Callable[[str], bool] = lambda _: True
) -> Features:
    """The paper's dynamic merging (DyMe) of a compact bank slot with the current frame: a new compact slot.

    due: whether a layer or place is merged now; another keeps what it has.
    """
    merged = Features(dict(compact.keys), dict(compact.values), dict(compact.features))
    groups = {}
    for layer in filter(due, now.keys):
        both = torch.cat([compact.keys[layer], now.keys[layer]])  # bank tokens first, then current ones
        groups[layer] = assign(both, permutation(frame, len(both) // 2))
        merged.keys[layer] = merge_tokens(both, groups[layer])
        merged.values[layer] = merge_tokens(torch.cat([compact.values[layer], now.values[layer]]), groups[layer])
    for place in now.features:
        both = torch.cat([compact.features[place], now.features[place]])
        layer_or_none = layer_of(place, now.keys)
        if not due(layer_or_none or place):
            continue
        if layer_or_none is None:
            merged.features[place] = merge_tokens(both, assign(both, permutation(frame, len(both) // 2)))
        else:
            merged.features[place] = merge_tokens(both, groups[layer_or_none])
    return merged


# ---------------------------------------------------------------------------------------------------------------------
# The two places where the bank acts


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, head by head: queries [n, channels], keys and values [m, channels]."""
    width = queries.shape[1] // heads
    outputs = []
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        logits = queries[:, mine] @ keys[:, mine].T / math.sqrt(width)  # [n, m]
        weights = (logits - logits.max(dim=1, keepdim=True).values).exp()
        weights = weights / weights.sum(dim=1, keepdim=True)
        outputs.append(weights @ values[:, mine])
    return torch.cat(outputs, dim=1)


def fuse(own: Tensor, banked: Sequence[Tensor], strength: float, threshold: float) -> Tensor:
    """Mix each token of own [n, channels] with its most similar token of all slots, if similar enough."""
    if not banked:
        return own
    bag = torch.cat(list(banked))  # [slots*n, channels]
    best = cosine(own, bag).max(dim=1)
    fused = own.clone()
    for token, (similarity, match) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        if similarity > threshold:
            fused[token] = (1 - strength) * own[token] + strength * bag[match]
    return fused


# ---------------------------------------------------------------------------------------------------------------------
# The UNet


@dataclass(frozen=True)
class Prompt:
    """What SDXL is told: words [tokens, text width], their pooled text [pooled], and six sizes of the picture."""

    words: Tensor
    pooled: Tensor
    sizes: Sequence[int]


@dataclass
class Call:
    """One pass of one frame through the UNet: what it may look back at, how it fuses, and what it leaves behind."""

    unet: Any
    prompt: Tensor | Prompt  # [tokens, text width]
    bank: Sequence[Features] = ()  # slots, oldest first; none: plain attention, no fusion
    places: frozenset[str] = frozenset()
    strength: float = 0.0
    threshold: float = 1.0
    seen: Features = field(default_factory=Features)
    keeps: str = "fused"
    attends: bool = True

    @property
    def text(self) -> Tensor:
        """The words [tokens, text width]."""
        return self.prompt.words if isinstance(self.prompt, Prompt) else self.prompt

    def fused(self, place: str, own: Tensor) -> Tensor:
        """The features [tokens, channels] that flow on from a place, and are remembered."""
        if place not in self.places:
            return own
        features = fuse(own, [slot.features[place] for slot in self.bank], self.strength, self.threshold)
        self.seen.features[place] = features if self.keeps == "fused" else own
        return features

    def self_attention(self, name: str, module: Any, x: Tensor) -> Tensor:
        """Extended self-attention of x [tokens, channels] over the frame itself and every slot of the bank."""
        queries, keys, values = module.to_q(x), module.to_k(x), module.to_v(x)
        self.seen.keys[name], self.seen.values[name] = keys, values
        read = self.bank if self.attends else ()
        all_keys = torch.cat([keys] + [slot.keys[name] for slot in read])
        all_values = torch.cat([values] + [slot.values[name] for slot in read])
        return self.fused(name, module.to_out[0](attend(queries, all_keys, all_values, module.heads)))

    def cross_attention(self, module: Any, x: Tensor) -> Tensor:
        """Attention of x [tokens, channels] over the text."""
        attended = attend(module.to_q(x), module.to_k(self.text), module.to_v(self.text), module.heads)
        out: Tensor = module.to_out[0](attended)
        return out

    def feed_forward(self, module: Any, x: Tensor) -> Tensor:
        """The GEGLU feed-forward layer."""
        hidden, gate = module.net[0].proj(x).chunk(2, dim=1)
        out: Tensor = module.net[2](hidden * nn.functional.gelu(gate))
        return out

    def transformer_block(self, name: str, block: Any, x: Tensor) -> Tensor:
        """Self-attention, cross-attention and feed-forward, each with its residual; x [tokens, channels]."""
        x = x + self.self_attention(f"{name}.attn1", block.attn1, block.norm1(x))
        x = x + self.cross_attention(block.attn2, block.norm2(x))
        x = x + self.feed_forward(block.ff, block.norm3(x))
        return self.fused(name, x)

    def transformer(self, name: str, module: Any, picture: Tensor) -> Tensor:
        """A stack of transformer blocks over the pixels of picture [1, channels, height, width]."""
        height, width = picture.shape[2:]
        x = module.norm(picture)
        linear = isinstance(module.proj_in, nn.Linear)  # SD 2 projects tokens, SD 1.5 projects pixels
        x = module.proj_in(to_tokens(x)) if linear else to_tokens(module.proj_in(x))
        for i, block in enumerate(module.transformer_blocks):
            x = self.transformer_block(f"{name}.transformer_blocks.{i}", block, x)
        out: Tensor = (
            to_picture(module.proj_out(x), height, width) if linear else module.proj_out(to_picture(x, height, width))
        )
        return out + picture

    def output(self, noisy: Tensor, timestep: int) -> Tensor:
        """The UNet's output for one noisy latent [channels, height, width]."""
        unet = self.unet
        x = noisy[None]
        # diffusers computes the sinusoids in float32; so must we, to agree in float64
        time = unet.time_embedding(unet.time_proj(torch.tensor([timestep])).to(x.dtype))
        if unet.config.addition_embed_type == "text":
            time = time + unet.add_embedding(self.text[None])
        if isinstance(self.prompt, Prompt):
            sizes = [unet.add_time_proj(torch.tensor([size]))[0] for size in self.prompt.sizes]
            told = torch.cat([self.prompt.pooled, *(size.to(x.dtype) for size in sizes)])
            time = time + unet.add_embedding(told[None])

        x = unet.conv_in(x)
        skips = [x]
        for i, block in enumerate(unet.down_blocks):
            for j, resnet in enumerate(block.resnets):
                x = resnet(x, time)
                if hasattr(block, "attentions"):
                    x = self.transformer(f"down_blocks.{i}.attentions.{j}", block.attentions[j], x)
                skips.append(x)
            if block.downsamplers is not None:
                x = block.downsamplers[0](x)
                skips.append(x)

        x = unet.mid_block.resnets[0](x, time)
        x = self.transformer("mid_block.attentions.0", unet.mid_block.attentions[0], x)
        x = unet.mid_block.resnets[1](x, time)

        for i, block in enumerate(unet.up_blocks):
            for j, resnet in enumerate(block.resnets):
                x = resnet(torch.cat([x, skips.pop()], dim=1), time)
                if hasattr(block, "attentions"):
                    x = self.transformer(f"up_blocks.{i}.attentions.{j}", block.attentions[j], x)
            if block.upsamplers is not None:
                x = block.upsamplers[0](x)
            height, width = x.shape[2:]
            x = to_picture(self.fused(f"up_blocks.{i}", to_tokens(x)), height, width)

        out: Tensor = unet.conv_out(nn.functional.silu(unet.conv_norm_out(x)))[0]
        return out


def to_tokens(picture: Tensor) -> Tensor:
    """[1, channels, height, width] -> [height*width, channels], row after row."""
    return picture[0].flatten(1).T


def to_picture(tokens: Tensor, height: int, width: int) -> Tensor:
    """[height*width, channels] -> [1, channels, height, width]."""
    return tokens.T.reshape(1, -1, height, width)


def self_attention_layers(unet: Any) -> list[str]:
    """Names of all self-attention layers of a UNet."""
    return [name for name, _ in unet.named_modules() if name.endswith(".attn1")]


# ---------------------------------------------------------------------------------------------------------------------
# The stream


@dataclass
class Reference:
    """StreamV2V, one frame after the other: `frame(latent, text) -> clean latent`, `forget()`.

    timesteps: of each row, descending. noise: fixed, [rows, channels, height, width]. policy: "fifo", "merge" or
    "off". guidance: "none", "full", "self-negative" or "onetime-negative", with scale and residual (StreamDiffusion's
    gamma and delta). frame_number counts the frames since the last `forget`. keeps: "fused" or "plain", which feature
    of a place is remembered. filling: of `slot_frames`. attends: whether attention looks back, not only fusion. due:
    whether a layer or place is merged at a frame; by default all of them every interval-th.
    """

    unet: Any
    alphas_cumprod: Tensor
    timesteps: Sequence[int]
    noise: Tensor
    prediction: str = "epsilon"
    schedule: str = "lcm"
    policy: str = "off"
    slots: int = 1
    interval: int = 1
    places: Sequence[str] = ()
    strength: float = 0.0
    threshold: float = 1.0
    permutation: Permutation | None = None
    guidance: str = "none"
    scale: float = 1.0
    residual: float = 1.0
    keeps: str = "fused"
    filling: str = "first"
    attends: bool = True
    due: Callable[[str, int], bool] | None = None
    frame_number: int = 0
    # (row, "positive" or "negative") -> what each past frame left behind, and the compact slot of a merging bank
    past: dict[tuple[int, str], list[Features]] = field(default_factory=dict)
    compact: dict[tuple[int, str], Features] = field(default_factory=dict)

    def forget(self) -> None:
        """Empty the bank: the next frame is the first one."""
        self.frame_number = 0
        self.past = {}
        self.compact = {}

    def bank(self, row: int, branch: str) -> list[Features]:
        """The slots that the current frame looks back at in one row, oldest first."""
        if self.frame_number == 0 or self.policy == "off":
            return []
        if self.policy == "merge":
            return [self.compact[row, branch]]
        past = self.past[row, branch]
        return [past[frame] for frame in slot_frames(self.frame_number, self.slots, self.interval, self.filling)]

    def remember(self, row: int, branch: str, seen: Features) -> None:
        """Take in what the current frame left behind."""
        self.past.setdefault((row, branch), []).append(seen)
        if self.policy == "merge" and self.frame_number == 0:
            self.compact[row, branch] = seen
        elif self.policy == "merge":
            assert self.permutation is not None
            frame = self.frame_number

            def due(name: str) -> bool:
                return frame % self.interval == 0 if self.due is None else self.due(name, frame)

            self.compact[row, branch] = merge(self.compact[row, branch], seen, frame, self.permutation, due)

    def unet_output(self, row: int, branch: str, noisy: Tensor, timestep: int, text: Tensor | Prompt) -> Tensor:
        """One pass through the UNet with the bank of one row; the bank then remembers the frame."""
        call = Call(
            self.unet,
            text,
            self.bank(row, branch),
            frozenset(self.places),
            self.strength,
            self.threshold,
            keeps=self.keeps,
            attends=self.attends,
        )
        output = call.output(noisy, timestep)
        self.remember(row, branch, call.seen)
        return output

    def frame(
        self,
        latent: Tensor,
        text: Tensor | Prompt,
        negative: Tensor | Prompt | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> Tensor:
        """Translate one frame: latent [channels, height, width], text and negative [tokens, text width]."""
        timesteps = timesteps or self.timesteps
        denoised = latent  # row 0 starts from the picture itself
        onetime_clean = latent
        for row, timestep in enumerate(timesteps):
            abar = self.alphas_cumprod[timestep]
            noisy = add_noise(denoised, self.noise[row], abar)
            output = self.unet_output(row, "positive", noisy, timestep, text)
            if self.guidance == "none":
                clean = to_clean(output, noisy, abar, self.prediction)
            else:
                positive = to_epsilon(output, noisy, abar, self.prediction)
                if self.guidance == "full" or (self.guidance == "onetime-negative" and row == 0):
                    assert negative is not None
                    output = self.unet_output(row, "negative", noisy, timestep, negative)
                    against = to_epsilon(output, noisy, abar, self.prediction)
                    onetime_clean = to_clean(output, noisy, abar, self.prediction)
                if self.guidance == "full":
                    epsilon = against + self.scale * (positive - against)
                else:
                    # StreamDiffusion, section 3.2: the noise that would lead back to the picture itself
                    # (self-negative), or to what the negative prompt made of it at the first step (onetime-negative)
                    back_to = latent if self.guidance == "self-negative" else onetime_clean
                    virtual = (noisy - abar.sqrt() * back_to) / (1 - abar).sqrt()
                    epsilon = self.residual * virtual + self.scale * (positive - self.residual * virtual)
                clean = to_clean(epsilon, noisy, abar, "epsilon")
            denoised = boundary(clean, noisy, timestep, self.schedule)
        self.frame_number += 1
        return denoised

    def call(self, in_flight: list[Tensor], latent: Tensor, text: Tensor | Prompt) -> Tensor:
        """One call of a stream batch whose rows share one clock; changes the latents in flight, zeros at first.

        Row r takes the frame of r calls ago one step on; all rows look back and remember by the number of the call,
        also those that hold no frame yet. Without guidance.
        """
        started = [latent, *in_flight]
        for row, timestep in enumerate(self.timesteps):
            abar = self.alphas_cumprod[timestep]
            noisy = add_noise(started[row], self.noise[row], abar)
            output = self.unet_output(row, "positive", noisy, timestep, text)
            clean = to_clean(output, noisy, abar, self.prediction)
            started[row] = boundary(clean, noisy, timestep, self.schedule)
        self.frame_number += 1
        in_flight[:] = started[:-1]
        return started[-1]

    def with_(self, **changes: Any) -> Reference:
        """A fresh one with other settings."""
        return replace(self, **{"frame_number": 0, "past": {}, "compact": {}, **changes})


def seeded_permutation(seed: int) -> Permutation:
    """A permutation for each (frame, tokens): random, but always the same."""

    def permutation(frame: int, tokens: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + frame * 1009 + tokens)
        return torch.randperm(2 * tokens, generator=generator).tolist()

    return permutation
