"""Engines beside each other in one process, frame by frame: a plain loop, the paper's way, ours, and anybody's.

    python benchmarks/side_by_side.py [--model FOLDER|random] [--size 256,512] [--steps 1] [--rounds 24]
                                      [--runtimes eager,onnx] [--banks off,fifo,merge] [--without-paper]
                                      [--other NAME=FILE.py ...]

`plain` calls the model's own diffusers parts and nothing else: encode, noise, UNet, estimate, decode. Each round takes
one frame by every engine, in the opposite order every other round. A file given with --other has a function
`open(model, size, steps, prompt)` that returns `translate(picture) -> picture`, RGB uint8 [size, size, 3]: so can
another program's engine be put beside ours. On CUDA a frame is timed by events. Compiling and the first frames are not
counted. Prints a table for each size, which of our promises hold, and one JSON object on the last line.

`--model random` makes weights that mean nothing in Stable Diffusion 1.5's form, its UNet `--width` times as wide, TAESD
in full; so `--model random --size 256,512 --rounds 16` is one run of minutes on two quiet cores. A narrower UNet has
narrower heads, in which softmax weighs more than in any real model: with `--width 1` the heads are real ones, and each
engine holds 3.4 GB of weights; `--without-paper` saves one. `--minutes` ends the run earlier where the machine is
slower: fewer rounds count then.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.rig import PROMPT, Run, engine, paper_engine, pictures, say
from core.algorithm import schedule as schedules
from core.algorithm.net import Picture
from core.models.loading import load_parts
from core.models.resolved import Resolved
from core.runtimes.choice import resolve
from core.settings import Policy, Runtime

Translate = Callable[[Picture], Any]
WARM_UP = 6  # frames: banks fill, libraries choose their kernels, what is freed has found its place
SAMPLES = 2000  # of the bootstrap


class Taken(NamedTuple):
    """A frame's cost, in milliseconds: by the clock, and of the process's own processor time."""

    wall: float
    cpu: float


class Figures(NamedTuple):
    """Of an engine: milliseconds, and ratios to the first engine's, with the bounds of 95 in 100 bootstrap samples."""

    median: float
    quartiles: tuple[float, float]
    largest_over_median: float
    ratio: float
    between: tuple[float, float]
    cpu_ratio: float


def figures(own: Sequence[Taken], first: Sequence[Taken], random: np.random.Generator) -> Figures:
    """Compare an engine's frames with the first engine's of the same rounds, by their means: what comes rarely counts.

    The ratio's bounds are those of resampled rounds.
    """
    ours, theirs = (np.array([one.wall for one in many]) for many in (own, first))
    picked = random.integers(0, len(ours), (SAMPLES, len(ours)))
    ratios = ours[picked].mean(1) / theirs[picked].mean(1)
    median = float(np.median(ours))
    return Figures(
        median,
        _two(np.percentile(ours, (25, 75))),
        float(ours.max()) / median,
        float(ours.mean() / theirs.mean()),
        _two(np.percentile(ratios, (2.5, 97.5))),
        float(np.mean([one.cpu for one in own]) / np.mean([one.cpu for one in first])),
    )


def _two(pair: NDArray[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def take_turns(
    engines: Mapping[str, Translate],
    source: Callable[[], Picture],
    rounds: int,
    clock: Callable[[Translate], Taken],
    until_s: float = float("inf"),
) -> dict[str, list[Taken]]:
    """Take a frame by each engine, `rounds` times, the order turned round each time; `clock` measures one.

    until_s: of the monotonic clock, from when on no round is begun but the first.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in engines}
    for number in range(rounds):
        if number and time.monotonic() > until_s:
            break
        picture = source()
        for name in list(engines)[:: -1 if number % 2 else 1]:
            translate = engines[name]
            taken[name].append(clock(lambda one=picture, run=translate: run(one)))  # type: ignore[misc]
    return taken


def by_the_clock(run: Callable[..., Any]) -> Taken:
    """Measure one frame on the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Taken(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu))


def by_events(run: Callable[..., Any]) -> Taken:
    """Measure one frame on the current CUDA device, from an idle device to its last kernel."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    cpu = time.process_time()
    before.record()
    run()
    after.record()
    after.synchronize()
    return Taken(float(before.elapsed_time(after)), 1000 * (time.process_time() - cpu))


def plain(resolved: Resolved) -> Translate:
    """Return a loop over the model's parts with nothing around it: no bank, no state but the frames in flight."""
    loaded, steps = load_parts(resolved), resolved.settings.steps
    chosen = schedules.timesteps(
        loaded.schedule.kind, steps, resolved.description.strength, len(loaded.schedule.alphas_cumprod)
    )
    rows = schedules.row_coefficients(loaded.schedule, chosen, loaded.dtype, loaded.device)
    text = loaded.encoder(PROMPT).expand(steps, -1, -1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, *loaded.latent, generator=generator).to(loaded.device, loaded.dtype)
    scaling = float(loaded.vae.config.scaling_factor)
    waiting = [torch.zeros(1, *loaded.latent, dtype=loaded.dtype, device=loaded.device)] * (steps - 1)
    sources: list[torch.Tensor] = []

    @torch.inference_mode()
    def translate(picture: Picture) -> Picture:
        given = torch.from_numpy(picture).to(loaded.device)
        sources[:] = [given, *sources][:steps]
        values = given.to(loaded.dtype).permute(2, 0, 1)[None] / 127.5 - 1
        encoded = loaded.vae.encode(values)
        latent = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        noisy = rows.alpha * torch.cat([latent * scaling, *waiting]) + rows.sigma * noise
        predicted = loaded.unet(noisy, rows.timesteps, encoder_hidden_states=text, return_dict=False)[0]
        clean = rows.out * schedules.x0(loaded.schedule.prediction, rows, noisy, predicted) + rows.skip * noisy
        waiting[:] = [clean[row : row + 1] for row in range(steps - 1)]
        made: Picture = loaded.decode(clean[-1:], sources[-1]).cpu().numpy()
        return made

    return translate


def another(file: Path, run: Run, steps: int) -> Translate:
    """Open the engine of a file given with --other. Raises SystemExit where it has none."""
    found = importlib.util.spec_from_file_location(file.stem, file)
    if found is None or found.loader is None:
        raise SystemExit(f"{file}: no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    if not hasattr(module, "open"):
        raise SystemExit(f"{file}: has no function open(model, size, steps, prompt)")
    made: Translate = module.open(run.model, run.size, steps, PROMPT)
    return made


def contenders(
    run: Run,
    steps: int,
    runtimes: Sequence[Runtime],
    banks: Sequence[Policy],
    others: Mapping[str, Path],
    *,
    paper: bool = True,
) -> dict[str, Translate]:
    """Open every engine, the plain loop first; paper: the paper's way too, where it can be."""
    resolved = resolve(run.settings(steps, Policy.OFF, runtime=Runtime.EAGER))
    found: dict[str, Translate] = {"plain": plain(resolved)}
    if paper and Runtime.EAGER in runtimes and Policy.MERGE in banks and not resolved.description.detail:
        say("opening the paper's way")
        found["paper's way, merge"] = paper_engine(run, run.settings(steps, Policy.MERGE)).translate
    for runtime in runtimes:
        for bank in banks:
            say(f"opening {runtime}, {bank}")
            found[f"{runtime}, {bank}"] = engine(run, run.settings(steps, bank, runtime=runtime)).translate
    for name, file in others.items():
        found[name] = another(file, run, steps)
    return found


class Promise(NamedTuple):
    """Something that a run is to show: what, the figure found, and the most that it may be."""

    what: str
    found: float
    most: float

    @property
    def told(self) -> str:
        """In a line."""
        return (
            f"{'holds' if self.found <= self.most else 'FAILS'}: {self.what}: {self.found:.3f}, at most {self.most:.3f}"
        )


def promises(rows: Mapping[str, Figures], size: int) -> list[Promise]:
    """Return what is promised of those engines of ours that are there: ratios of means, and the largest frame."""
    found = []
    for name, own in rows.items():
        runtime, _, bank = name.partition(", ")
        if bank == "off":
            found.append(Promise(f"{name} over the plain loop", own.ratio, 1.03))
        if runtime not in list(Runtime) or not bank:
            continue
        found.append(Promise(f"{name}, largest frame over the median", own.largest_over_median, 1.05))
        off, fifo = rows.get(f"{runtime}, off"), rows.get(f"{runtime}, fifo")
        if bank == "merge" and off is not None:
            found.append(Promise(f"{name} over off", own.ratio / off.ratio, 1.10 if size >= 512 else 1.04))
        if bank == "merge" and fifo is not None:
            found.append(Promise(f"{runtime}, fifo over merge", fifo.ratio / own.ratio, 1.0))
    return found


def random_folder(folder: Path, width: float) -> Path:
    """Write random weights of Stable Diffusion 1.5's form, its UNet `width` times as wide, and return the folder."""
    from benchmarks.random_model import FULL, SMALL, make

    channels = tuple(max(32, round(width * one / 32) * 32) for one in FULL.unet["block_out_channels"])
    text = SMALL.text_encoder | {"hidden_size": 64, "intermediate_size": 128}
    unet = FULL.unet | {"block_out_channels": channels, "cross_attention_dim": text["hidden_size"]}
    return make(folder, FULL._replace(unet=unet, text_encoder=text))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=float, default=0.4)
    parser.add_argument("--size", default="256")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--runtimes", default="eager")
    parser.add_argument("--banks", default="off,fifo,merge")
    parser.add_argument("--without-paper", action="store_true")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=FILE.py")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = arguments(argv)
    sizes, begun_s, found = [int(one) for one in given.size.split(",")], time.monotonic(), []
    with tempfile.TemporaryDirectory() as made:
        model = str(random_folder(Path(made), given.width)) if given.model == "random" else given.model
        for number, size in enumerate(sizes):
            # a picture of twice the side is four times the work
            share = sum(one**2 for one in sizes[: number + 1]) / sum(one**2 for one in sizes)
            found.append(measured(given, model, size, begun_s + 60 * given.minutes * share))
    print(json.dumps(found[0] if len(found) == 1 else {"sizes": found}))
    return 0


def measured(given: argparse.Namespace, model: str, size: int, until_s: float) -> dict[str, Any]:
    """Measure at one size, print its table, and return all that is known of it; until_s: as in `take_turns`."""
    dtype = "float16" if given.device.startswith("cuda") else "float32"
    run = Run(model, given.device, dtype, size, given.rounds, 0, 0, smoke=False, until_s=float("inf"))
    others = {name: Path(file) for name, _, file in (one.partition("=") for one in given.other)}
    load_before = os.getloadavg()[0]
    engines = contenders(
        run,
        given.steps,
        [Runtime(one) for one in given.runtimes.split(",")],
        [Policy(one) for one in given.banks.split(",")],
        others,
        paper=not given.without_paper,
    )
    source = pictures(run)
    clock = by_events if given.device.startswith("cuda") else by_the_clock
    take_turns(engines, lambda: next(source), WARM_UP, clock, until_s)
    taken = take_turns(engines, lambda: next(source), given.rounds, clock, until_s)
    random, first = np.random.default_rng(0), next(iter(taken.values()))
    rows = {name: figures(own, first, random) for name, own in taken.items()}
    print(f"{size}x{size}, {given.steps} steps, {len(first)} rounds")
    print(f"{'engine':22} {'median ms':>10} {'quartiles':>15} {'largest':>8} {'ratio':>6} {'95 %':>13} {'cpu':>6}")
    for name, one in rows.items():
        quartiles, between = f"{one.quartiles[0]:.0f}..{one.quartiles[1]:.0f}", "{:.3f}..{:.3f}".format(*one.between)
        print(
            f"{name:22} {one.median:10.1f} {quartiles:>15} {one.largest_over_median:8.3f} {one.ratio:6.3f} "
            f"{between:>13} {one.cpu_ratio:6.3f}"
        )
    kept = promises(rows, size)
    print("\n".join(one.told for one in kept))
    facts = {
        "model": f"random, {given.width} wide" if given.model == "random" else Path(given.model).name,
        "device": given.device,
        "size": size,
        "steps": given.steps,
        "rounds": len(first),
        "threads": torch.get_num_threads(),
        "load": [load_before, os.getloadavg()[0]],
        "promises": [one._asdict() for one in kept],
    }
    return facts | {"engines": {name: one._asdict() for name, one in rows.items()}}


if __name__ == "__main__":
    sys.exit(main())
