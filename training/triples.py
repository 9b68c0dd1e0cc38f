"""`python -m training.triples`: source, what the model makes of it, and its teacher's picture, for the detail stage."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import words
from training.data import Photographs, Random
from training.lessons import Bytes, Shard, to_bytes
from training.lessons import load as load_lessons
from training.photos import Photos
from training.precision import autocast
from training.run import Parts, load
from training.scenes import base_picture, degrade
from training.teachers import ATTRIBUTES, LINED, TEACHERS, analyse, balance, lesson
from training.unet import amount
from training.vae import signed

BATCH = 8
NOTHING = 0.05  # share in which nothing is asked for


class Triples(NamedTuple):
    """Pictures [n, h, w, 3] that belong together, and the style of each (its number; -1 is none).

    The sources are as the network is given them, their light evened out.
    """

    clean: Bytes
    given: Bytes  # the source, as a camera gives it
    made: Bytes  # by the model
    wanted: Bytes  # by the teacher, blended with the source as strength asks
    styles: NDArray[np.int64]


@torch.no_grad()
def translations(
    parts: Parts, pictures: Bytes, prompts: list[str], timesteps: list[Tensor], generator: torch.Generator
) -> Bytes:
    """What the model makes of pictures [n, h, w, 3]: one step for each of `timesteps` [n], as the stream batch does."""
    device = next(parts.unet.parameters()).device
    ids = parts.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
    hidden = parts.text(ids).last_hidden_state
    alphas = parts.scheduler.alphas_cumprod.to(device)
    given = signed(pictures, device).contiguous(memory_format=torch.channels_last)
    latents = parts.vae.encoder(given) * parts.vae.config.scaling_factor  # see training.precision
    with autocast(device):
        noise = torch.randn(latents.shape[1:], generator=generator).to(device)
        for timestep in timesteps:
            alpha = alphas[timestep.to(device)].view(-1, 1, 1, 1)
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
            latents = parts.unet(noisy, timestep.to(device), hidden).sample.float()
        made = parts.vae.decode(latents / parts.vae.config.scaling_factor).sample.float()
    shown = made.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)
    return np.asarray(shown.cpu().numpy())


def wish(random: Random, styles: list[str]) -> tuple[str, str]:
    """A style and an attribute ("" for none)."""
    if random.random() < NOTHING:
        return "", ""
    style = str(random.choice(styles))
    if random.random() > 0.25:
        return style, ""
    names = list(ATTRIBUTES) + (["thick", "thin"] * 3 if style in LINED else [])
    return style, str(random.choice(names))


def first_steps(random: Random, count: int) -> Tensor:
    """First timesteps: mostly the full style, now and then a touch of it or more than it."""
    usual = random.integers(440, 561, count)
    other = random.integers(150, 851, count)
    return torch.from_numpy(np.where(random.random(count) < 0.75, usual, other))


def make(random: Random, parts: Parts, photos: Photos, bundled: Photographs, styles: list[str], size: int) -> Triples:
    """One batch of triples."""
    sources, wishes, inputs, known = [], [], [], []
    double = random.random() < 0.15  # translated at half the size, and enlarged
    big = size * 2 if double else size
    for _ in range(BATCH):
        picture = photos.crop(random, big) if random.random() < 0.75 else base_picture(random, big, bundled)
        sources.append(balance(picture))
        inputs.append(balance(degrade(picture, random)) if random.random() < 0.7 else sources[-1])
        known.append(analyse(picture))
        wishes.append(wish(random, styles))
    begin = first_steps(random, BATCH)
    steps = [begin]
    if random.random() < 0.75:  # two steps of four; the second as the scheduler spaces them
        steps.append((begin.float() * random.uniform(0.4, 0.55)).long())
    prompts = [words.prompt(random, *wanted) for wanted in wishes]
    seen = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) if double else p for p in inputs]
    noise = torch.Generator().manual_seed(int(random.integers(1 << 31)))
    made = translations(parts, np.stack([to_bytes(p) for p in seen]), prompts, steps, noise)
    shares = amount(begin).clamp(max=1).tolist()
    found = []
    for row, (source, (style, attribute)) in enumerate(zip(sources, wishes, strict=True)):
        share = shares[row] if style else 0.0
        taught = lesson(known[row], style, attribute) if style else source
        taught = source + (taught - source) * share
        shown = made[row]
        if double:
            shown = cv2.resize(shown, (big, big), interpolation=cv2.INTER_LINEAR)
            # a window of the enlarged picture is as much to learn from as a whole one
            y, x = random.integers(0, big - size + 1, 2)
        else:
            y = x = 0
        window = np.s_[y : y + size, x : x + size]
        found.append((to_bytes(source)[window], to_bytes(inputs[row])[window], shown[window], to_bytes(taught)[window]))
    clean, given, shown, wanted = (np.stack(list(column)) for column in zip(*found, strict=True))
    styles_ = np.array([list(TEACHERS).index(style) if style else -1 for style, _ in wishes])
    return Triples(clean, given, shown, wanted, styles_)


def of_lessons(random: Random, parts: Parts, shards: list[Shard]) -> Triples:
    """One batch of triples whose teachers' pictures are there already, as lessons."""
    begin = first_steps(random, BATCH)
    steps = [begin]
    if random.random() < 0.75:
        steps.append((begin.float() * random.uniform(0.4, 0.55)).long())
    clean, given, taught, prompts, known = [], [], [], [], []
    for _ in range(BATCH):
        shard = shards[random.integers(len(shards))]
        row = int(random.integers(len(shard.lessons)))
        picture, style, attribute = shard.lessons[row]
        while not style:  # an attribute alone is no style
            row = int(random.integers(len(shard.lessons)))
            picture, style, attribute = shard.lessons[row]
        clean.append(shard.inputs[picture, 0])
        given.append(shard.inputs[picture, random.integers(shard.inputs.shape[1])])
        if random.random() < NOTHING:
            style, attribute = "", ""
        taught.append(shard.targets[row] if style else shard.inputs[picture, 0])
        prompts.append(words.prompt(random, style, attribute))
        known.append(list(TEACHERS).index(style) if style else -1)
    noise = torch.Generator().manual_seed(int(random.integers(1 << 31)))
    made = translations(parts, np.stack(given), prompts, steps, noise)
    share = amount(begin).clamp(max=1).numpy()[:, None, None, None]
    plain = np.stack(clean).astype(np.float32)
    blended = np.round(plain + (np.stack(taught).astype(np.float32) - plain) * share).astype(np.uint8)
    return Triples(np.stack(clean), np.stack(given), made, blended, np.array(known))


def save(path: Path, triples: list[Triples]) -> None:
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        allow_pickle=False,
        **{name: np.concatenate([getattr(t, name) for t in triples]) for name in Triples._fields},
    )
    part.replace(path)


def read(path: Path) -> Triples:
    with np.load(path) as stored:
        return Triples(*(stored[name] for name in Triples._fields))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training.triples", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("core/embedded_model"))
    parser.add_argument(
        "--photos", type=Path, help="a folder with films, kodak and portraits, for pictures of their own"
    )
    parser.add_argument("--lessons", type=Path, help="a folder of lessons instead, whose teachers need not work again")
    parser.add_argument("--out", type=Path, default=Path("training/cache/triples"))
    parser.add_argument("--styles", nargs="*", default=list(TEACHERS))
    parser.add_argument("--shards", type=int, default=20, help="files to make; those that are there stay")
    parser.add_argument("--batches", type=int, default=12, help=f"batches of {BATCH} in a file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    parts = load(given.model)
    for part in (parts.text, parts.unet, parts.vae):
        part.to(given.device)
    one: Callable[[Random], Triples]
    if given.lessons:
        one = partial(of_lessons, parts=parts, shards=load_lessons(given.lessons))
    elif given.photos:
        own = {"photos": Photos(given.photos), "bundled": Photographs(), "styles": given.styles, "size": 256}
        one = partial(make, parts=parts, **own)
    else:
        parser.error("--photos or --lessons is needed")
    for number in range(given.shards):
        path, begin = given.out / f"{number:03d}.npz", time.monotonic()
        if path.exists():
            continue
        random = np.random.default_rng([given.seed, number])
        save(path, [one(random) for _ in range(given.batches)])
        line = {"shard": number, "triples": given.batches * BATCH, "seconds": round(time.monotonic() - begin, 1)}
        print(json.dumps(line), file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
