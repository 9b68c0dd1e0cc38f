"""The autoencoder: 256 x 256 pictures to 32 x 32 latents of 24 channels and back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.lessons import Bytes, Shard
from training.optimiser import Muon, rate, split
from training.parts import AutoencoderTiny, Vae
from training.precision import autocast

LATENTS = 24
SPREAD = 10.0  # diffusion works on latents of this standard deviation: noise leaves the features of a face alone
WIDE, CONSTANT = 32, 31  # encoder width; the channel that carries the constant 1


def build() -> Vae:
    """Return the untrained autoencoder."""
    return AutoencoderTiny(
        encoder_block_out_channels=(WIDE,) * 4,
        decoder_block_out_channels=(24,) * 4,
        num_encoder_blocks=(0, 0, 2, 2),
        num_decoder_blocks=(4, 3, 1, 0),
        latent_channels=LATENTS,
        scaling_factor=SPREAD,
    )


def haar(band: int) -> Tensor:
    """Return a 3x3 kernel whose lower right 2x2 part is a Haar filter: 0 mean, 1 left-right, 2 up-down, 3 diagonal."""
    signs = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]])[band]
    return F.pad(signs.float() / 4, (1, 0, 1, 0))


@torch.no_grad()
def initialise(vae: Vae, pictures: Tensor) -> None:
    """Start as a Haar transform of opponent colours, whitened on `pictures` [n, 3, h, w]: ordinary starts stall."""
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.mul_(0.3)
            if module.bias is not None:
                module.bias.zero_()
    for block in [m for m in vae.modules() if type(m).__name__ == "AutoencoderTinyBlock"]:
        block.conv[0].bias.fill_(0.05)
        block.conv[2].bias.fill_(0.05)
        block.conv[4].weight.mul_(0.1)
        block.conv[4].weight.sub_(block.conv[4].weight.mean((1, 2, 3), keepdim=True))
    layers = vae.encoder.layers
    convolutions: list[Any] = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    stem, half, quarter, eighth, out = convolutions
    opponent = torch.tensor([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]).float()
    stem.weight.zero_()
    stem.weight[:3, :, 1, 1] = opponent / opponent.abs().sum(1, keepdim=True)
    stem.bias[CONSTANT] = 1
    plans: list[list[tuple[int, int]]] = [[(c, b) for c in range(3) for b in range(4)]]
    # after `half`: channel 4 * colour + band; take every mean, then details in the order in which they matter
    plans.append([(c, 0) for c in range(12)] + [(c, b) for c in (0, 1, 2, 4, 8, 3) for b in (1, 2, 3)] + [(5, 1)])
    for layer, plan in zip((half, quarter), plans, strict=True):
        layer.weight.zero_()
        for channel, (source, band) in enumerate(plan):
            layer.weight[channel, source] = haar(band)
        layer.weight[CONSTANT, CONSTANT, 1, 1] = 1
    quarter.weight[:CONSTANT, CONSTANT, 1, 1] = 1  # lift all above zero: what follows are ReLUs
    features = layers[: list(layers).index(eighth)](pictures.add(1).div(2))
    candidates = [(c, b) for c in range(CONSTANT) for b in range(4)]
    kernels = torch.stack([haar(b) for _, b in candidates])[:, None]
    seen = F.conv2d(features[:, [c for c, _ in candidates]], kernels, stride=2, padding=1, groups=len(candidates))
    best = seen.var((0, 2, 3)).argsort(descending=True)[:CONSTANT].tolist()
    eighth.weight.zero_()
    for channel, (source, band) in enumerate(candidates[i] for i in best):
        eighth.weight[channel, source] = haar(band)
        if band:
            eighth.weight[channel, CONSTANT, 1, 1] = 1
    eighth.weight[CONSTANT, CONSTANT, 1, 1] = 1
    features = layers[: list(layers).index(out)](pictures.add(1).div(2))
    mean, std = features.mean((0, 2, 3))[:LATENTS], features.std((0, 2, 3))[:LATENTS]
    out.weight.mul_(0.05)
    out.weight[torch.arange(LATENTS), torch.arange(LATENTS), 1, 1] = 1 / std
    out.bias.copy_(-mean / std)
    both_ends: list[Any] = [layer for layer in vae.decoder.layers if isinstance(layer, nn.Conv2d)]
    first, *others = both_ends
    first.weight.mul_(0.1)
    first.weight[torch.arange(24), torch.arange(24), 1, 1] = 0.5
    first.bias.fill_(1.0)
    for layer in others[:-1]:
        layer.weight.mul_(0.3)
        layer.weight[torch.arange(24), torch.arange(24), 1, 1] += 1
    others[-1].weight.sub_(others[-1].weight.mean((1, 2, 3), keepdim=True)).mul_(0.3)
    others[-1].bias.fill_(0.5)


@torch.no_grad()
def soften(vae: Vae) -> None:
    """Halve what the encoder gives, and double the scaling factor: the decoder's tanh then clips no strong detail.

    The latents that the UNet sees stay the same; the decoder has to be trained again. A second call does nothing.
    """
    if vae.config.scaling_factor > SPREAD:
        return
    out = vae.encoder.layers[-1]
    out.weight.mul_(0.5)
    out.bias.mul_(0.5)
    vae.decoder.layers[0].weight.mul_(2)
    vae.register_to_config(scaling_factor=SPREAD * 2)


def pyramid_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 on the picture and on its Laplacian pyramid (edges count twice)."""
    difference = made - wanted
    loss = difference.abs().mean()
    for weight in (1.2, 0.8, 0.5):
        small = F.avg_pool2d(difference, 2)
        loss = loss + weight * (difference - F.interpolate(small, scale_factor=2, mode="nearest")).abs().mean()
        difference = small
    return loss + 0.5 * difference.abs().mean()


def signed(pictures: Bytes, device: torch.device | str = "cpu") -> Tensor:
    """Pictures [n, h, w, 3] as a net takes them: [n, 3, h, w], -1..1."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


class Crops:
    """Random crops, aligned to 8 pixels, of targets (3 in 5) and inputs of all shards."""

    def __init__(self, shards: list[Shard], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shards = shards

    def __call__(self, count: int, size: int) -> Tensor:
        """Pictures [count, 3, size, size], -1..1."""
        found = []
        for _ in range(count):
            shard = self.shards[self.random.integers(len(self.shards))]
            rows = shard.targets if self.random.random() < 0.6 else shard.inputs.reshape(-1, *shard.inputs.shape[2:])
            picture = rows[self.random.integers(len(rows))]
            top, left = self.random.integers(0, (np.array(picture.shape[:2]) - size) // 8 + 1) * 8
            cut = picture[top : top + size, left : left + size]
            found.append(cut[:, ::-1] if self.random.random() < 0.5 else cut)
        return signed(np.stack(found))


class Pairs(NamedTuple):
    """What the UNet makes of pictures, and what its teachers would have made: the decoder mends what it can."""

    latents: Tensor  # [n, channels, h, w], as the encoder gives them
    wanted: Tensor  # uint8 [n, 3, 8*h, 8*w]

    def draw(self, count: int, size: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random windows: latents [count, channels, size/8, size/8] and pictures [count, 3, size, size], -1..1."""
        latents, pictures = [], []
        for n in random.integers(len(self.latents), size=count):
            y, x = random.integers(0, self.latents.shape[-1] - size // 8 + 1, 2)
            latents.append(self.latents[n, :, y : y + size // 8, x : x + size // 8].float())
            pictures.append(self.wanted[n, :, y * 8 : y * 8 + size, x * 8 : x * 8 + size].float())
        return torch.stack(latents), torch.stack(pictures).div(127.5).sub(1)


def train(
    shards: list[Shard],
    folder: Path,
    *,
    seconds: float,
    batch: int,
    size: int,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float]], None],
    pairs: Pairs | None = None,
    most: float = math.inf,
) -> Vae:
    """Train for `seconds` and save to `folder`.

    With `pairs` only the decoder goes on, half on them and half on what the encoder gives.
    """
    decoder_only = pairs is not None
    torch.manual_seed(seed)
    crops, random = Crops(shards, seed), np.random.default_rng(seed)
    if decoder_only:
        vae = AutoencoderTiny.from_pretrained(folder)
        soften(vae)
    else:
        vae = build()
        initialise(vae, crops(32, size))
    vae.to(device, memory_format=torch.channels_last)
    trained = vae.decoder if decoder_only else vae
    optimiser = Muon(*split(dict(trained.named_parameters())))
    average = {name: weight.detach().clone() for name, weight in vae.named_parameters()}
    begin, step = time.monotonic(), 0
    while (part := (time.monotonic() - begin) / seconds) < 1 and step < most:
        picture = crops(batch, size).to(device, memory_format=torch.channels_last)
        # the encoder in float32: see training.precision
        with torch.set_grad_enabled(not decoder_only):
            latent = vae.encoder(picture)
        with autocast(device):
            if pairs is not None:
                made_latent, wanted = (t.to(device) for t in pairs.draw(batch, size, random))
                latent, picture = torch.cat([latent, made_latent]), torch.cat([picture, wanted])
            noisy = latent + torch.randn_like(latent) * (0.12 * SPREAD / vae.config.scaling_factor) * torch.rand(
                len(latent), 1, 1, 1, device=device
            )
            made = vae.decoder(noisy).float()
        loss = shown = pyramid_loss(made, picture)
        if not decoder_only:
            mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
            loss = (
                loss
                + 0.02 * (mean.square().mean() + (std - 1).square().mean())
                + 0.2 * (latent.abs() - 3).relu().mean()
            )
        loss.backward()  # type: ignore[no-untyped-call]
        speed = rate(part, fall_from=0.5)
        optimiser.step(2e-3 * speed * (0.4 if decoder_only else 1), 2e-3 * speed)
        step += 1
        with torch.no_grad():
            for name, weight in vae.named_parameters():
                average[name].lerp_(weight, max(0.01, 1 / step))
        if step % 20 == 0:
            l1 = (made - picture).abs().mean().item() / 2
            log({"step": step, "seconds": time.monotonic() - begin, "loss": shown.item(), "l1": l1})
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            weight.copy_(average[name])
    vae.cpu().to(memory_format=torch.contiguous_format)
    vae.save_pretrained(folder)
    return vae
