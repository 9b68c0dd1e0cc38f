"""The text encoder and the UNet: trained together, on the noised photograph's latent, towards the teacher's latent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core.algorithm.bank import Bank, Reading
from core.algorithm.unet import BankedUNet
from training import words
from training.lessons import Shard
from training.optimiser import Muon, rate, split
from training.parts import (
    AutoencoderTiny,
    CLIPTextConfig,
    CLIPTextModel,
    LCMScheduler,
    Scheduler,
    Text,
    Unet,
    UNet2DConditionModel,
    Vae,
    Words,
)
from training.precision import autocast, precision
from training.vae import LATENTS, SPREAD, Pairs, pyramid_loss, signed

STRENGTH = ((0, 0.0), (100, 0.15), (200, 0.4), (300, 0.7), (400, 0.92), (480, 1.0), (600, 1.0), (850, 1.1))
IDENTITY = 0.07  # share of lessons in which nothing is asked for and nothing shall change
BLENDED = 0.08  # share in which two prompts are mixed half way, as while one blends into the next
REMEMBERED = 0.45  # share of iterations in which the picture before is in the bank
STEADY = 0.4  # weight of being like the picture before where nothing moved
PLACES = ("up_blocks.2",)  # where the bank's features are fused


def scheduler() -> Scheduler:
    """The noise schedule (that of Stable Diffusion) and the few-step sampler."""
    return LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        original_inference_steps=50,
        steps_offset=0,
    )


def build_unet() -> Unet:
    """The untrained UNet: three levels, attention at the two lower ones, pooled text for the rest."""
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENTS,
        out_channels=LATENTS,
        block_out_channels=(64, 96, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=[2, 3, 3],
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    with torch.no_grad():
        unet.conv_in.weight.div_(SPREAD)
        unet.conv_out.weight.zero_()
    return unet


def build_text(tokenizer: Words) -> Text:
    """The untrained text encoder."""
    torch_text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=words.LENGTH,
            hidden_act="gelu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_factor=1.0,
        )
    )
    with torch.no_grad():
        for name, weight in torch_text.named_parameters():
            if "token_embedding" in name:
                weight.normal_(0, 0.5)
            elif "position_embedding" in name:
                weight.normal_(0, 0.1)
    return torch_text


def amount(timestep: Tensor) -> Tensor:
    """How much of the style the first step shall bring at a timestep: this is what strength means."""
    knots, values = zip(*STRENGTH, strict=True)
    return torch.from_numpy(np.interp(timestep.cpu().numpy(), knots, values)).float().to(timestep.device)


class Lesson(NamedTuple):
    """Whole latents (as the encoder gives them) of one picture and of what it shall become, and the words for it."""

    given: Tensor
    source: NDArray[np.uint8]  # the picture whose latents are given, [h, w, 3]
    clean: Tensor
    wanted: Tensor
    prompts: tuple[str, str]
    mix: float  # weight of the second prompt


class Latents:
    """Latents of all pictures and lessons, encoded when first asked for and kept."""

    def __init__(self, shards: list[Shard], vae: Vae, seed: int) -> None:
        self.shards, self.vae, self.random = shards, vae, np.random.default_rng(seed)
        self.kept: dict[tuple[int, str, int], Tensor] = {}
        self.of_picture = [
            [
                [n for n, lesson in enumerate(shard.lessons) if lesson[0] == picture]
                for picture in range(len(shard.inputs))
            ]
            for shard in shards
        ]

    def encode(self, wanted: list[tuple[int, str, int]]) -> None:
        """Make sure that these are there; they are (shard, "input" or "target", row)."""
        missing = sorted({key for key in wanted if key not in self.kept})
        if not missing:
            return
        rows = []
        for shard, kind, row in missing:
            inputs, targets, _ = self.shards[shard]
            rows.append(inputs.reshape(-1, *inputs.shape[2:])[row] if kind == "input" else targets[row])
        device = next(self.vae.parameters()).device
        pictures = signed(np.stack(rows), device)
        with torch.no_grad():
            made = self.vae.encoder(pictures.contiguous(memory_format=torch.channels_last)).half()
        self.kept.update(zip(missing, made, strict=True))

    def draw(self, count: int) -> list[Lesson]:
        """Random lessons."""
        plans, needed = [], []
        for _ in range(count):
            shard = int(self.random.integers(len(self.shards)))
            inputs, _, lessons = self.shards[shard]
            picture = int(self.random.integers(len(inputs)))
            versions = inputs.shape[1]
            clean = (shard, "input", picture * versions)
            given = (shard, "input", picture * versions + int(self.random.integers(versions)))
            targets, prompts = [], []
            mix = float(self.random.uniform(0, 1)) if self.random.random() < BLENDED else 0.0
            for _ in range(2 if mix else 1):
                if self.random.random() < IDENTITY:
                    targets.append(clean)
                    prompts.append(words.prompt(self.random, "", "") if self.random.random() < 0.7 else "")
                else:
                    row = int(self.random.choice(self.of_picture[shard][picture]))
                    targets.append((shard, "target", row))
                    prompts.append(words.prompt(self.random, *lessons[row][1:]))
            plans.append((given, clean, targets, prompts, mix))
            needed += [given, clean, *targets]
        self.encode(needed)
        found = []
        for given, clean, targets, prompts, mix in plans:
            wanted = self.kept[targets[0]].float()
            if mix:
                wanted = wanted.lerp(self.kept[targets[1]].float(), mix)
            pair = (prompts[0], prompts[-1])
            inputs = self.shards[given[0]].inputs
            source = inputs.reshape(-1, *inputs.shape[2:])[given[2]]
            found.append(Lesson(self.kept[given].float(), source, self.kept[clean].float(), wanted, pair, mix))
        return found


class Eye(nn.Module):
    """A linear stand-in for the decoder, fitted by least squares: a convolution and a pixel shuffle; a cheap loss."""

    def __init__(self, latents: Tensor, pictures: Tensor) -> None:
        super().__init__()
        patches = F.unfold(latents, 3, padding=1).mT.flatten(0, 1)  # [n*tokens, channels*9]
        patches = torch.cat([patches, torch.ones(len(patches), 1)], 1)
        blocks = F.pixel_unshuffle(pictures, 8).flatten(2).mT.flatten(0, 1)  # [n*tokens, 192]
        gram = patches.T @ patches + 1e-2 * torch.eye(patches.shape[1])
        solved = torch.linalg.solve(gram, patches.T @ blocks)
        self.weight = nn.Buffer(solved[:-1].T.reshape(192, latents.shape[1], 3, 3).contiguous())
        self.bias = nn.Buffer(solved[-1].contiguous())

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(latents, self.weight, self.bias, padding=1), 8)


class Batch(NamedTuple):
    """What is carried to the next iteration, where these pictures go through their second step."""

    now: Tensor  # predicted x0, scaled
    wanted: Tensor
    ids: Tensor  # [n, 2, tokens]
    mix: Tensor
    timestep: Tensor


@dataclass(frozen=True)
class Phase:
    """Until `until` of the run: windows of `window` latents, `batch` of them, the real decoder's loss on `decoded`."""

    until: float
    window: int
    batch: int
    decoded: int


def times(phases: tuple[Phase, ...], factor: int) -> tuple[Phase, ...]:
    """The same phases with larger batches."""
    return tuple(Phase(p.until, p.window, p.batch * factor, p.decoded * factor) for p in phases)


PHASES = (Phase(0.6, 16, 24, 0), Phase(0.9, 24, 14, 2), Phase(1.01, 32, 8, 2))


def predict(
    net: Callable[..., tuple[Tensor, Bank]], noisy: Tensor, timestep: Tensor, text: Tensor, bank: Bank, reading: Reading
) -> tuple[Tensor, Bank]:
    """Predicted x0 (scaled latents), and the bank that the picture after it reads."""
    with autocast(noisy.device):
        made, seen = net(noisy, timestep, text, bank, reading)
    return made.float() * SPREAD, {name: feature[:, None] for name, feature in seen.items()}


def nothing(rows: int, device: torch.device) -> Reading:
    """How an empty bank is read."""
    return Reading(torch.ones(rows, dtype=torch.bool, device=device), *torch.zeros(2, rows, device=device))


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """As the scheduler does; alphas: cumulated, one a row."""
    a = alphas.view(-1, 1, 1, 1)
    return (a.sqrt() * latents + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)


def noisy_views(
    pictures: list[NDArray[np.uint8]], corners: NDArray[np.int64], size: int, random: np.random.Generator
) -> Tensor:
    """A window of each picture [h, w, 3] with a sensor's noise: [n, 3, size, size], -1..1."""
    found = [p[y : y + size, x : x + size] for p, (y, x) in zip(pictures, corners.tolist(), strict=True)]
    levels = np.stack(found) + random.normal(0, 1, (len(found), size, size, 3)) * random.uniform(
        0, 8, (len(found), 1, 1, 1)
    )
    return torch.from_numpy(levels.clip(0, 255) / 127.5 - 1).permute(0, 3, 1, 2).float()


def cut(pictures: list[Tensor], corners: NDArray[np.int64], window: int) -> Tensor:
    """A window of each picture [channels, h, w], its upper left corner at [y, x]."""
    return torch.stack(
        [p[:, y : y + window, x : x + window] for p, (y, x) in zip(pictures, corners.tolist(), strict=True)]
    )


class School(NamedTuple):
    """What a run of training is made of; the text encoder and the UNet are what learns."""

    vae: Vae
    scale: float  # from the encoder's latents to the UNet's
    latents: Latents
    tokenizer: Words
    text: Text
    net: Callable[..., tuple[Tensor, Bank]]
    eye: Eye
    alphas: Tensor
    device: torch.device


class Task(NamedTuple):
    """One iteration's pictures: the first `fresh` are new lessons, the others go through their second step."""

    start: Tensor
    target: Tensor
    wanted: Tensor  # of the fresh ones
    tokens: Tensor  # [n, 2, tokens]
    mix: Tensor
    timestep: Tensor
    lessons: list[Lesson]
    corners: NDArray[np.int64]
    fresh: int


class Memories(NamedTuple):
    """What the bank holds of the picture before, how it is read, and what was made of that picture."""

    bank: Bank
    reading: Reading
    moved: NDArray[np.int64]  # [fresh, 2]: by how many pixels the picture has moved since; empty without a bank
    past: Tensor


def set_task(school: School, phase: Phase, old: Batch | None, random: np.random.Generator) -> Task:
    """Draw new lessons, and take on what is carried from the iteration before."""
    fresh, device = phase.batch - (len(old.now) if old else 0), school.device
    lessons = school.latents.draw(fresh)
    room = lessons[0].given.shape[-1] - phase.window
    corners = random.integers(0, room + 1, (fresh, 2))
    clean, wanted, given = (
        cut([getattr(lesson, name) for lesson in lessons], corners, phase.window).to(device) * school.scale
        for name in ("clean", "wanted", "given")
    )
    kind = random.random(fresh)
    chosen = np.where(
        kind < 0.55,
        random.integers(440, 561, fresh),
        np.where(kind < 0.88, random.integers(40, 440, fresh), random.integers(560, 851, fresh)),
    )
    timestep = torch.from_numpy(chosen).to(device)
    wanted = clean.lerp(wanted, amount(timestep).view(-1, 1, 1, 1))
    prompts = [p for lesson in lessons for p in lesson.prompts]
    ids = school.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    tokens = ids.input_ids.view(fresh, 2, -1).to(device)
    mix = torch.tensor([lesson.mix for lesson in lessons], device=device)
    if not old:
        return Task(given, wanted, wanted, tokens, mix, timestep, lessons, corners, fresh)
    pairs_ = ((given, old.now), (wanted, old.wanted), (tokens, old.ids), (mix, old.mix), (timestep, old.timestep))
    start, target, tokens, mix, timestep = (torch.cat(pair) for pair in pairs_)
    return Task(start, target, wanted, tokens, mix, timestep, lessons, corners, fresh)


def remember(
    school: School, task: Task, phase: Phase, noise: Tensor, hidden: Tensor, random: np.random.Generator
) -> Memories:
    """Fill the bank with what the camera saw a frame ago: half of the cameras stand still, the others moved."""
    device, fresh, empty = school.device, task.fresh, nothing(len(task.start), school.device)
    room = task.lessons[0].given.shape[-1] - phase.window
    moved = random.integers(-7, 8, (fresh, 2)) * (random.random((fresh, 1)) < 0.5)
    at = (task.corners * 8 + moved).clip(0, room * 8)
    views = noisy_views([lesson.source for lesson in task.lessons], at, phase.window * 8, random)
    with torch.no_grad():
        before = school.vae.encoder(views.to(device, memory_format=torch.channels_last)) * school.scale
    with torch.no_grad():
        noisy = add_noise(before, noise, school.alphas[task.timestep])
        past, bank = predict(school.net, noisy, task.timestep, hidden, {}, empty)
    strengths = torch.from_numpy(random.uniform(0, 0.9, fresh)).to(device, precision(device))
    thresholds = torch.from_numpy(random.uniform(0.9, 1, fresh)).float().to(device)
    fresh_rows = torch.zeros(fresh, dtype=torch.bool, device=device)
    return Memories(bank, Reading(fresh_rows, strengths, thresholds), moved, past)


def judge(
    school: School, made: Tensor, task: Task, memories: Memories, phase: Phase, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, its part in latents, its part in pixels)."""
    scale, eye, target = school.scale, school.eye, task.target
    huber = (((made - target) / SPREAD).square() + 0.01).sqrt().mean() - 0.1
    seen = pyramid_loss(eye(made / scale), eye(target / scale))
    loss = huber + 0.7 * seen
    if len(memories.moved) and (still := torch.from_numpy((memories.moved == 0).all(1)).to(school.device)).any():
        # nothing moved: with the bank, what is shown now is what was shown before
        loss = loss + STEADY * pyramid_loss(eye(made[still] / scale), eye(memories.past[still] / scale))
    if phase.decoded:
        some = torch.from_numpy(random.integers(0, len(made), phase.decoded)).to(school.device)
        y, x = random.integers(0, phase.window - 16 + 1, 2)
        with autocast(school.device):
            pair = torch.cat([made[some], target[some]])[..., y : y + 16, x : x + 16] / scale
            shown = school.vae.decoder(pair.contiguous(memory_format=torch.channels_last)).float()
        loss = loss + 0.5 * pyramid_loss(shown[: phase.decoded], shown[phase.decoded :])
    return loss, huber, seen


def carry(task: Task, made: Tensor, count: int, random: np.random.Generator) -> Batch:
    """`count` of the fresh pictures at most, at an earlier timestep, for the next iteration."""
    go_on = torch.from_numpy(random.permutation(task.fresh)[:count]).to(made.device)
    later = torch.from_numpy(random.uniform(0.25, 0.75, len(go_on))).to(made.device)
    return Batch(
        made.detach()[go_on],
        task.wanted[go_on],
        task.tokens[go_on],
        task.mix[go_on],
        (task.timestep[go_on] * later).long().clamp(40),
    )


def iterate(
    school: School, phase: Phase, carried: Batch | None, random: np.random.Generator
) -> tuple[dict[str, float], Batch | None]:
    """One iteration up to the gradients: (losses, what is carried to the next)."""
    remembers = random.random() < REMEMBERED
    old = carried if not remembers and carried is not None and carried.now.shape[-1] == phase.window else None
    task = set_task(school, phase, old, random)
    hidden = school.text(task.tokens.flatten(0, 1)).last_hidden_state.view(len(task.tokens), 2, words.LENGTH, -1)
    hidden = hidden[:, 0].lerp(hidden[:, 1], task.mix.view(-1, 1, 1))
    noise = torch.randn_like(task.start)
    if remembers:
        memories = remember(school, task, phase, noise, hidden, random)
    else:
        none = np.empty((0, 2), np.int64)
        memories = Memories({}, nothing(len(task.start), school.device), none, task.start)
    noisy = add_noise(task.start, noise, school.alphas[task.timestep])
    made, _ = predict(school.net, noisy, task.timestep, hidden, memories.bank, memories.reading)
    loss, huber, seen = judge(school, made, task, memories, phase, random)
    loss.backward()  # type: ignore[no-untyped-call]
    losses = {"loss": loss.item(), "latent": huber.item(), "pixels": seen.item()}
    return losses, carried if remembers else carry(task, made, phase.batch * 3 // 8, random)


def train(
    shards: list[Shard],
    folder: Path,
    *,
    seconds: float,
    phases: tuple[Phase, ...] = PHASES,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float]], None],
    save_every: float,
    export: Callable[[Text, Unet], None],
    most: float = math.inf,
    pace: float = 1.0,
) -> None:
    """Train for `seconds` or up to `most` steps, going on from `folder`/unet.pt; `export` gets the averaged models."""
    torch.manual_seed(seed)
    state = folder / "unet.pt"
    vae = (
        AutoencoderTiny.from_pretrained(folder / "vae")
        .to(device, memory_format=torch.channels_last)
        .requires_grad_(False)
    )
    latents = Latents(shards, vae, seed + int(time.time()) % 1000 if state.exists() else seed)
    tokenizer = words.tokenizer()
    text, unet = build_text(tokenizer).to(device), build_unet().to(device, memory_format=torch.channels_last)
    weights: dict[str, Tensor] = dict(nn.ModuleDict({"text": text, "unet": unet}).named_parameters())
    optimiser = Muon(*split(weights, outside=("unet.conv_out",)))
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    step, spent = 0, 0.0
    if state.exists():
        was = torch.load(state, map_location=device, weights_only=True)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(was["weights"][name])
        optimiser.load_state_dict(was["optimiser"])
        average, step, spent = was["average"], was["step"], was["spent"]
    net = BankedUNet(unet, PLACES)
    school = School(
        vae,
        float(vae.config.scaling_factor),
        latents,
        tokenizer,
        text,
        torch.compile(net, dynamic=True) if device.type == "cuda" else net,
        fit_eye(shards, vae, device),
        scheduler().alphas_cumprod.to(device),
        device,
    )
    random = np.random.default_rng([seed, step])
    begin = time.monotonic() - spent
    saved = spent
    carried: Batch | None = None
    sums: dict[str, float] = {}
    while (spent := time.monotonic() - begin) < seconds and step < most:
        part = spent / seconds
        phase = next(p for p in phases if part < p.until)
        losses, carried = iterate(school, phase, carried, random)
        speed = rate(part) * pace
        optimiser.step(4e-3 * speed, 3e-3 * speed)
        step += 1
        with torch.no_grad():
            for name, weight in weights.items():
                average[name].lerp_(weight, max(0.01, 10 / (step + 10)))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        if step % 25 == 0:
            means = {name: value / 25 for name, value in sums.items()}
            log({"step": step, "seconds": spent, "window": phase.window, **means})
            sums = {}
        if spent - saved > save_every:
            saved = spent
            save(state, weights, optimiser, average, step, spent)
            export(*averaged(state))
    save(state, weights, optimiser, average, step, spent)
    export(*averaged(state))


def save(
    state: Path,
    weights: dict[str, Tensor],
    optimiser: Muon,
    average: dict[str, Tensor],
    step: int,
    spent: float,
) -> None:
    """Write the checkpoint."""
    part = state.with_suffix(".part")
    torch.save(
        {
            "weights": {name: weight.detach() for name, weight in weights.items()},
            "optimiser": optimiser.state_dict(),
            "average": average,
            "step": step,
            "spent": spent,
        },
        part,
    )
    part.replace(state)


def begin_with(model: Path, state: Path) -> None:
    """Write a checkpoint that goes on from a finished model folder, with a fresh optimiser and no time spent."""
    parts = {
        "text": CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32),
        "unet": UNet2DConditionModel.from_pretrained(model / "unet").float(),
    }
    weights: dict[str, Tensor] = dict(nn.ModuleDict(parts).named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            if name.startswith("unet.conv_out"):
                weight.div_(SPREAD)
    optimiser = Muon(*split(weights, outside=("unet.conv_out",)))
    save(state, weights, optimiser, {name: weight.detach().clone() for name, weight in weights.items()}, 0, 0.0)


def averaged(state: Path) -> tuple[Text, Unet]:
    """The models with the averaged weights of a checkpoint; the UNet's output has the latents' spread by itself."""
    average = torch.load(state, map_location="cpu", weights_only=True)["average"]
    both = nn.ModuleDict({"text": build_text(words.tokenizer()), "unet": build_unet()})
    with torch.no_grad():
        for name, weight in both.named_parameters():
            weight.copy_(average[name] * (SPREAD if name.startswith("unet.conv_out") else 1))
    return both["text"], both["unet"]


@torch.no_grad()
def pairs(shards: list[Shard], folder: Path, count: int, seed: int, device: torch.device) -> Pairs:
    """What the trained UNet makes of `count` lessons in two steps, and what was wanted."""
    vae = AutoencoderTiny.from_pretrained(folder / "vae").to(device)
    scale = float(vae.config.scaling_factor)
    text, unet = (part.to(device) for part in averaged(folder / "unet.pt"))
    tokenizer, alphas, random = words.tokenizer(), scheduler().alphas_cumprod.to(device), np.random.default_rng(seed)
    made, wanted = [], []
    for _ in range(-(-count // 8)):
        pictures, prompts = [], []
        for _ in range(8):
            shard = shards[random.integers(len(shards))]
            row = int(random.integers(len(shard.lessons)))
            picture, style, attribute = shard.lessons[row]
            pictures.append(shard.inputs[picture, random.integers(shard.inputs.shape[1])])
            prompts.append(words.prompt(random, style, attribute))
            wanted.append(torch.from_numpy(shard.targets[row].copy()).permute(2, 0, 1))
        given = signed(np.stack(pictures), device)
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        hidden = text(ids).last_hidden_state
        latents = vae.encoder(given) * scale
        for low, high in ((480, 561), (200, 320)):
            timestep = torch.from_numpy(random.integers(low, high, 8)).to(device)
            noisy = add_noise(latents, torch.randn_like(latents), alphas[timestep])
            with autocast(device):
                latents = unet(noisy, timestep, hidden).sample.float()
        made.append((latents / scale).half().cpu())
    return Pairs(torch.cat(made), torch.stack(wanted))


def fit_eye(shards: list[Shard], vae: Vae, device: torch.device) -> Eye:
    """Fit the linear stand-in on pictures of the data set and what the decoder makes of them."""
    rows = np.concatenate([shard.targets[:: max(1, len(shard.targets) // 8)] for shard in shards])[:96]
    pictures = signed(rows, device)
    with torch.no_grad():
        latents = vae.encoder(pictures)
        return Eye(latents.cpu(), vae.decoder(latents).cpu()).to(device)
