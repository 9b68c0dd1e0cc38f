"""Whether the UNet costs less for a batch of several cameras' pictures than for each by itself.

    python -m benchmarks.batching [--model embedded] [--runtime eager,onnx] [--size 256x192] [--repeats 40] [--json OUT]

On one thread, in processor time, medians; batches of 1, 2 and 4 take turns: a busy machine is as unkind to each.
A batch is measured as rows of one call, each with a bank of its own, as those of several cameras would be. Encoder and
decoder take one picture a call in each runtime's graphs, so a whole frame is counted with them once a picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from core.engine import Engine
from core.runtimes.onnx import runtime as onnx_runtime
from core.settings import EngineSettings, Look, Policy, Runtime

BATCHES = (1, 2, 4)
GRAPHS = ("encoder", "unet", "decoder", "detail", "text_encoder", "text_encoder_2")


def measured(model: str, runtime: Runtime, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Return milliseconds of the UNet by batch ("unet 2"), of the other stages, and shares of N single frames."""
    width, height = size
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    stages = []
    for rows in BATCHES:
        settings = EngineSettings(model, width, height, rows, Policy.FIFO, runtime=runtime, device="cpu")
        engine = Engine(settings, Look("ink drawing, a person talking"))
        for _ in range(rows + 2):  # until every row has a bank
            engine.translate(picture)
        stages.append(engine._step.stages(engine._sampling, engine._state, picture))
    taken: dict[str, list[float]] = {}
    with torch.inference_mode():
        for turn in range(repeats + 2):
            calls = {f"unet {rows}": one["unet"] for rows, one in zip(BATCHES, stages, strict=True)}
            calls |= {name: stages[0][name] for name in ("encode", "bank", "decode")}
            for name, call in calls.items():
                began = time.process_time()
                call()
                if turn >= 2:
                    taken.setdefault(name, []).append(1000 * (time.process_time() - began))
    found = {name: statistics.median(ms) for name, ms in taken.items()}
    beside = found["encode"] + found["bank"] + found["decode"]
    for rows in BATCHES[1:]:
        found[f"unet {rows}, of single ones"] = found[f"unet {rows}"] / (rows * found["unet 1"])
        found[f"frame {rows}, of single ones"] = (found[f"unet {rows}"] / rows + beside) / (found["unet 1"] + beside)
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="eager,onnx")
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # all rows in one call of the graph, as on other makers' hardware
    onnx_runtime._divided = lambda settings, threads, weights: onnx_runtime._Threads(
        dict.fromkeys(GRAPHS, 1), 1, beside=False, rows_at_once=True
    )
    width, _, height = args.size.partition("x")
    result = {
        name: measured(args.model, Runtime(name), (int(width), int(height)), args.repeats)
        for name in args.runtime.split(",")
    }
    for name, found in result.items():
        print(name, found, flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
