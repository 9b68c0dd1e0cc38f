"""What one buffer for [now | bank] would save the eager runtime: the copies between a layer's keys and its attention.

    python benchmarks/one_buffer.py [--shape full|embedded] [--size 512] [--rows 1] [--slots 1] [--frames 8]

Every self-attention of that UNet takes a frame in three ways, in turns, on random weights:

`joined`: as eager does. Keys and values are worked out, and joined to the ring's, a copy of both.
`copied in`: keys and values are copied into a slot of a ring with one slot more, which attention reads as it lies;
where a frame is kept, the next one takes another slot, and what the ring holds is never copied.
`one buffer`: so too, and they are written there by their own matrix product (torch.mm with out).
`not copied`: the same products and the same attention, over keys that lie joined already: no way can be quicker.

Prints processor time of all layers together, medians, and the ratios to `joined`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.algorithm.attention import attend, extend
from core.algorithm.products import linear
from core.algorithm.unet import layout, self_attentions
from core.runtimes.allocation import keep_freed_memory

WARM_UP = 1  # frames


class Layer(NamedTuple):
    """A self-attention: its weights [channels, channels], what comes in, and its bank.

    hidden [rows, tokens, channels]; ring and buffer: keys, then values, [rows, slots (+1), tokens, channels], of which
    the last slot of the buffer is this frame's.
    """

    heads: int
    query: Tensor
    key: Tensor
    value: Tensor
    hidden: Tensor
    ring: tuple[Tensor, Tensor]
    buffer: tuple[Tensor, Tensor]

    def joined(self) -> Tensor:
        """Attend as eager does."""
        query, *made = (linear(self.hidden, weight) for weight in (self.query, self.key, self.value))
        keys, values = (extend(now, ring, None) for now, ring in zip(made, self.ring, strict=True))
        return attend(query, keys, values, self.heads)

    def copied_in(self) -> Tensor:
        """Attend with a copy of this frame's keys and values in the buffer."""
        query, *made = (linear(self.hidden, weight) for weight in (self.query, self.key, self.value))
        for now, buffer in zip(made, self.buffer, strict=True):
            buffer[:, -1] = now
        return self._attended(query)

    def one_buffer(self) -> Tensor:
        """Attend with keys and values that were never anywhere but in the buffer."""
        for weight, buffer in zip((self.key, self.value), self.buffer, strict=True):
            for row, one in enumerate(self.hidden):
                torch.mm(one, weight.T, out=buffer[row, -1])
        return self._attended(linear(self.hidden, self.query))

    def not_copied(self) -> Tensor:
        """Attend with keys and values that lie joined already, and work them out for nothing."""
        query, *_ = (linear(self.hidden, weight) for weight in (self.query, self.key, self.value))
        return self._attended(query)

    def _attended(self, query: Tensor) -> Tensor:
        keys, values = (one.flatten(1, 2) for one in self.buffer)
        return attend(query, keys, values, self.heads)


WAYS: dict[str, Callable[[Layer], Tensor]] = {
    "joined": Layer.joined,
    "copied in": Layer.copied_in,
    "one buffer": Layer.one_buffer,
    "not copied": Layer.not_copied,
}


def layers(config: dict[str, Any], latent: tuple[int, int], rows: int, slots: int) -> list[Layer]:
    """Return every self-attention of a UNet of that configuration, at latents of that height and width."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    modules: dict[str, Any] = dict(unet.named_modules())
    shapes, random = layout(config, (), *latent), torch.Generator().manual_seed(0)
    found = []
    for name in self_attentions(unet):
        tokens, channels = shapes[f"{name}.key"]
        query, key, value = (torch.randn(channels, channels, generator=random) / channels**0.5 for _ in range(3))
        hidden = torch.randn(rows, tokens, channels, generator=random)
        keys, values = (torch.randn(rows, slots + 1, tokens, channels, generator=random) for _ in range(2))
        ring = keys[:, :-1].clone(), values[:, :-1].clone()
        found.append(Layer(modules[name].heads, query, key, value, hidden, ring, (keys, values)))
    return found


def largest_difference(given: Sequence[Layer]) -> float:
    """Return how far apart `joined` and `one buffer` are at most."""
    return max(float((one.joined() - one.one_buffer()).abs().max()) for one in given)


def taken_ms(given: Sequence[Layer], frames: int) -> dict[str, list[float]]:
    """Return the processor's milliseconds of each frame by each way, the order turned round each time."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(WARM_UP + frames):
        for name in list(WAYS)[:: -1 if number % 2 else 1]:
            begun = time.process_time()
            for one in given:
                WAYS[name](one)
            taken[name].append(1000 * (time.process_time() - begun))
    return {name: many[WARM_UP:] for name, many in taken.items()}


def configuration(shape: str) -> dict[str, Any]:
    """Return a UNet's configuration: of the included model, or of one of benchmarks/random_model.py's shapes."""
    if shape == "embedded":
        from core.models.description import describe
        from core.models.folder_files import part_config

        return dict(part_config(describe("embedded").folder, "unet"))
    from benchmarks.random_model import SHAPES

    return SHAPES[shape].unet


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="full")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the engine does
    latent = (args.size // 8, args.size // 8)
    with torch.inference_mode():
        given = layers(configuration(args.shape), latent, args.rows, args.slots)
        apart = largest_difference(given)
        taken = taken_ms(given, args.frames)
    medians = {name: statistics.median(many) for name, many in taken.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:9.2f} ms   {median / medians['joined']:.3f} of joined")
    print(f"largest difference of the results: {apart:.2g}")
    print(json.dumps({"medians_ms": medians, "largest_difference": apart, **vars(args)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
