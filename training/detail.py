"""`python -m training.detail`: train the detail stage on triples, sharp where the teacher is and steady in noise."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.algorithm.detail import EVERY, POINTS, Detail, levels, toned
from training.log import recorder
from training.optimiser import Muon, split
from training.precision import autocast
from training.teachers import TEACHERS
from training.triples import Triples, read
from training.vae import signed

# of windows, in pixels, and how many of them, step by step: the large ones know the style better
SIZES = ((96, 8), (96, 8), (160, 3), (256, 2))
BROAD = 8  # pixels: means of as many squared are a picture's tones
TONE = 2.0  # weight of having the teacher's tones: most of the distance that was left lay in them
ENERGY = 0.5  # weight of being as sharp as the teacher, window by window
EVEN = 0.05  # weight of being as sharp as the teacher on the whole, as a ratio: faint styles count as much as bold ones
STEADY = 1.0  # weight of showing the same under another noise of the sensor
INSIDE = 0.01  # weight of each step of 8 bits by which values lie outside their ranges
AGAIN = 2  # of a batch, pictures that are looked at under a second noise
HARD = ("pixel art", "anime", "cartoon", "vintage photograph")  # seen twice as often as others
LAPLACE = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]


class Rounded(Detail):
    """The detail stage as 8 bits compute it: what goes on from each point is rounded, its gradient is not.

    So it learns what rounding does to it, and gives the same for nearly the same picture. It is exact where no ranges
    have been measured, and while it is not being trained. What lies outside a point's range is cut off, and no gradient
    passes: one that did drove a gain on without end, as the picture did not show it.
    beyond: how far the last picture's values lay outside their ranges, in steps, to be held down.
    """

    beyond: Tensor

    def learning(self, picture: Tensor, source: Tensor, whole: tuple[Tensor, Tensor]) -> Tensor:
        """As `forward`, of windows; whole: some pixels of the whole translations and sources, for the tone curve."""
        self.beyond = picture.new_zeros((), dtype=torch.float32)
        return self.drawn(toned(picture, levels(source), self.tones(whole[0], levels(whole[1]))), source)

    def kept(self, name: str, value: Tensor) -> Tensor:
        """Return the value as one of 256 steps within the point's range, which holds 0 (as in eight_bits.py)."""
        low, high = self.ranges[POINTS.index(name)].clamp(max=0)[0], self.ranges[POINTS.index(name)].clamp(min=0)[1]
        if not self.training or not bool(high > low):
            return value
        step = (high - low) / 255
        inside = torch.minimum(torch.maximum(value, low.to(value)), high.to(value))
        self.beyond = self.beyond + ((value - inside).abs().float().mean() / step)
        zero = (-low / step).round()
        rounded = (inside.detach().float() / step + zero).round().clamp(0, 255) - zero
        return inside + (rounded * step - inside.detach()).to(inside)


def edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    return picture[..., :, 1:] - picture[..., :, :-1], picture[..., 1:, :] - picture[..., :-1, :]


def sharpness(picture: Tensor, window: int = 12) -> Tensor:
    """The root of the Laplacian's energy in each window of the brightness."""
    light = picture.mean(1, keepdim=True)
    energy = F.conv2d(light, LAPLACE.to(light)).square()
    return (F.avg_pool2d(energy, window, window // 2) + 1e-4).sqrt()


def loss(made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(distance in pictures, edges and tones; lack or surplus of sharpness by windows; that as a ratio); all -1..1."""
    steps = sum((u - v).abs().mean() for u, v in zip(edges(made), edges(wanted), strict=True))
    ours, theirs = sharpness(made), sharpness(wanted)
    ratio = ours.square().mean((1, 2, 3)).log() - theirs.square().mean((1, 2, 3)).log()
    tones = F.avg_pool2d(made - wanted, BROAD).abs().mean()
    return (made - wanted).abs().mean() + 2 * steps + TONE * tones, (ours - theirs).abs().mean(), ratio.abs().mean() / 2


class Windows:
    """Random windows of the triples in a folder; new files are seen as they come."""

    def __init__(self, folders: list[Path], seed: int) -> None:
        self.folders, self.random = folders, np.random.default_rng(seed)
        self.files: dict[Path, Triples] = {}
        self.hard = {list(TEACHERS).index(style) for style in HARD}
        self.look()

    def look(self) -> None:
        """Take in what has been written since."""
        for path in (path for folder in self.folders for path in sorted(folder.glob("[0-9]*.npz"))):
            if path not in self.files and ".part" not in path.name:
                self.files[path] = read(path)
        self.order = list(self.files.values())

    def one(self) -> tuple[Triples, int]:
        """A file and a row of it."""
        while True:
            found = self.order[self.random.integers(len(self.order))]
            n = int(self.random.integers(len(found.made)))
            if int(found.styles[n]) in self.hard or self.random.random() < 0.5:
                return found, n

    def __call__(self, count: int, size: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """(source, translation, teacher's) [count, 3, size, size], -1..1; pixels of whole ones."""
        rows: list[tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], ...]] = []
        for _ in range(count):
            found, n = self.one()
            y, x = self.random.integers(0, 256 - size + 1, 2)
            # the second source is cleaner than what was translated, or the very same
            source = found.clean if self.random.random() < 0.3 else found.given
            window = np.s_[n, y : y + size, x : x + size]
            cut = [source[window], found.made[window], found.wanted[window]]
            if self.random.random() < 0.5:
                cut = [one[:, ::-1] for one in cut]
            few = (n, slice(EVERY // 2, None, EVERY), slice(EVERY // 2, None, EVERY))
            rows.append((*cut, found.made[few], source[few]))
        source_, made, wanted, *whole = (signed(np.stack(list(column))) for column in zip(*rows, strict=True))
        return source_, made, wanted, (whole[0], whole[1])


def noisy(source: Tensor, random: np.random.Generator) -> Tensor:
    """With a sensor's noise of up to sigma 8 (of 255), another for each picture."""
    sigma = torch.from_numpy(
        random.uniform(0, 8, (len(source), 1, 1, 1)) * (random.random((len(source), 1, 1, 1)) < 0.6)
    )
    return (source + torch.randn_like(source) * sigma.float() / 127.5).clamp(-1, 1)


@torch.no_grad()
def ranges(net: Detail, windows: Windows, device: torch.device, batches: int = 12) -> Tensor:
    """The least and the greatest at each point of the net over whole pictures, but for one value in ten thousand."""
    random, found = np.random.default_rng(0), []
    for _ in range(batches):
        source, made, _, whole = windows(4, 256)
        seen = noisy(source, random).to(device)
        some, there = (one.to(device) for one in whole)
        points = net.points(toned(made.to(device), levels(seen), net.tones(some, levels(there))), seen)
        assert tuple(points) == POINTS
        # of as many values as `quantile` takes
        few = [value.flatten()[:: value.numel() // 500_000 + 1].float() for value in points.values()]
        found.append(torch.stack([torch.quantile(value, torch.tensor([0.00005, 0.99995]).to(value)) for value in few]))
    every = torch.stack(found)
    return torch.stack([every[..., 0].amin(0), every[..., 1].amax(0)], 1).cpu()


def rates(part: float) -> float:
    """Learning rate over a run: up within a hundredth, then down to a fiftieth along a cosine."""
    return min(1.0, part / 0.01) * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))


def train(
    windows: Windows,
    state: Path,
    *,
    seconds: float,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float]], None],
    factor: int = 1,
    speed: float = 1.0,
    save_every: float = 180,
    most: float = math.inf,
) -> Detail:
    """Train for `seconds`, from `state` if it is there; the averaged weights go there every `save_every` seconds.

    In the end the ranges are measured that computing in 8 bits needs; 0 seconds do only that.
    """
    torch.manual_seed(seed)
    net: Any = Rounded()  # Any: torch's annotations know no memory format
    if state.exists():
        net.load_state_dict(trained(state).state_dict())
    net.to(device, memory_format=torch.channels_last)

    def measure_ranges() -> None:
        net.ranges.copy_(ranges(net.eval(), windows, device, batches=3))
        net.train()

    measure_ranges()
    weights = dict(net.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    optimiser, random = Muon(*split(weights, outside=("leave",))), np.random.default_rng(seed)
    begin = saved = time.monotonic()
    sums: dict[str, float] = {}
    step = 0
    while (part := (time.monotonic() - begin) / max(seconds, 1e-6)) < 1 and step < most:
        size, batch = SIZES[step % len(SIZES)]
        source, made, wanted, whole = windows(batch * factor, size)
        source, made, wanted = (one.to(device) for one in (source, made, wanted))
        again = AGAIN * factor
        seen = torch.cat([noisy(source, random), noisy(source[:again], random)])
        given = torch.cat([made, made[:again]])
        with autocast(device):
            pair = (one.contiguous(memory_format=torch.channels_last) for one in (given, seen))
            few = [torch.cat([one, one[:again]]).to(device) for one in whole]
            shown = net.learning(*pair, (few[0], few[1])).float()
        distance, lack, uneven = loss(shown, torch.cat([wanted, wanted[:again]]))
        flicker = (shown[:again] - shown[batch * factor :]).abs().mean()
        (distance + ENERGY * lack + EVEN * uneven + STEADY * flicker + INSIDE * net.beyond).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step(2e-3 * rates(part) * speed, 1e-3 * rates(part) * speed)
        step += 1
        with torch.no_grad():
            for name, weight in weights.items():
                average[name].lerp_(weight, max(0.004, 10 / (step + 10)))
        before = (made - wanted).abs().mean() / 2
        after = (shown[: len(wanted)] - wanted).abs().mean() / 2
        for name, value in (
            ("loss", distance),
            ("lack", lack),
            ("uneven", uneven),
            ("flicker", flicker),
            ("beyond", net.beyond),
            ("l1", after),
            ("without", before),
        ):
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % 100 == 0:
            log({"step": step, "seconds": time.monotonic() - begin, **{k: v / 100 for k, v in sums.items()}})
            sums = {}
        if time.monotonic() - saved > save_every:
            saved = time.monotonic()
            measure_ranges()
            save(state, average | {"ranges": net.ranges})
            windows.look()
    net.load_state_dict(net.state_dict() | average)
    net.ranges.copy_(ranges(net.eval(), windows, device))
    net.cpu().to(memory_format=torch.contiguous_format)
    save(state, net.state_dict())
    return trained(state)


def trained(state: Path) -> Detail:
    """The detail stage of a checkpoint."""
    net = Detail()
    net.load_state_dict(net.state_dict() | torch.load(state, weights_only=True))  # a first one may have no ranges
    return net.eval()


def save(state: Path, average: dict[str, Tensor]) -> None:
    part = state.with_suffix(".part")
    torch.save({name: weight.cpu().contiguous() for name, weight in average.items()}, part)
    part.replace(state)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training.detail", description=__doc__)
    parser.add_argument("--triples", type=Path, nargs="+", default=[Path("training/cache/triples")])
    parser.add_argument("--state", type=Path, default=Path("training/cache/detail.pt"))
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch-factor", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="of learning; less for going on from a good state")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    train(
        Windows(given.triples, given.seed),
        given.state,
        seconds=given.minutes * 60,
        seed=given.seed,
        device=torch.device(given.device),
        log=recorder(given.state.with_suffix(".jsonl")),
        factor=given.batch_factor,
        speed=given.speed,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
