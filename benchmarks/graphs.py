"""The included model's graphs on ONNX Runtime and on OpenVINO, side by side, and how far apart their results lie.

    pip install openvino
    python benchmarks/graphs.py [--threads 1] [--rounds 60]

OpenVINO is no dependency of the program: this says whether it should be. Prints a line a graph, then one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from core.models.description import ONNX_GRAPHS, describe
from core.runtimes.folding import Chain
from core.runtimes.onnx import runtime as runtime
from core.runtimes.onnx.weights import folded_weights, named, weights_of

Arrays = Mapping[str, np.ndarray[Any, Any]]
Run = Callable[[], list[np.ndarray[Any, Any]]]
SIDE, SLOTS = 256, 1


def whole_graphs() -> dict[str, bytes]:
    """Return the graphs with their weights in them."""
    import onnx

    description = describe("embedded")
    manifest = runtime.read_manifest(description)
    weights = {part: weights_of(description.folder / part) for part in set(ONNX_GRAPHS.values())}
    chains = {name: Chain.from_json(values) for name, values in manifest["folded"].items()}
    weights["vae"] |= folded_weights(chains, weights["vae"])
    found = {}
    for graph in ("encoder", "unet", "decoder"):
        proto = onnx.load(description.folder / "onnx" / f"{graph}.onnx", load_external_data=False)
        for constant in proto.graph.initializer:
            if constant.external_data:
                value = named(constant.name, weights[ONNX_GRAPHS[graph]])
                constant.CopyFrom(onnx.numpy_helper.from_array(value, constant.name))
        found[graph] = proto.SerializeToString()
    return found


def inputs_of(graph: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Something for each input, of the shapes of one row at SIDE x SIDE."""
    import onnx

    random, kinds = np.random.default_rng(0), {1: np.float32, 2: np.uint8, 7: np.int64, 9: np.bool_}
    made = {}
    for given in onnx.load_from_string(graph).graph.input:
        kind = kinds[given.type.tensor_type.elem_type]
        shape = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
        if given.name == "picture":
            made[given.name] = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        elif given.name in ("latents", "latent"):
            made[given.name] = random.normal(0, 1, (1, shape[1], SIDE // 8, SIDE // 8)).astype(np.float32)
        elif given.name == "timesteps":
            made[given.name] = np.array([499])
        elif given.name == "text":
            made[given.name] = random.normal(0, 1, (1, *shape[1:])).astype(np.float32)
        elif given.name in ("fresh", "strength", "threshold"):
            made[given.name] = np.array([{"fresh": 0, "strength": 0.25, "threshold": 0.93}[given.name]]).astype(kind)
        else:
            layout = runtime.read_manifest(describe("embedded"))["layout"]
            halved, channels = layout[given.name]
            tokens = (SIDE // 8 // 2**halved) ** 2
            made[given.name] = random.normal(0, 1, (1, SLOTS, tokens, channels)).astype(np.float32)
    return made


def on_onnxruntime(graph: bytes, given: Arrays, threads: int) -> Run:
    """As core.runtimes.onnx.runtime runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: list(session.run(None, dict(given)))


def on_openvino(graph: bytes, given: Arrays, threads: int) -> Run:
    """With what OpenVINO recommends for one request at a time, computing in float32 as the other does."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    request = compiled.create_infer_request()
    outputs = list(compiled.outputs)

    def run() -> list[np.ndarray[Any, Any]]:
        found = request.infer(dict(given))
        return [found[output] for output in outputs]

    return run


def main() -> None:
    """Measure in turns, so that the machine's other work meets both alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    told: dict[str, dict[str, float]] = {}
    for name, graph in whole_graphs().items():
        given = inputs_of(graph)
        runs = {"onnxruntime": on_onnxruntime(graph, given, asked.threads)}
        runs["openvino"] = on_openvino(graph, given, asked.threads)
        taken: dict[str, list[float]] = {kind: [] for kind in runs}
        first, second = (run() for run in runs.values())
        apart = max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(first, second, strict=True))
        for _ in range(asked.rounds):
            for kind, run in runs.items():
                begun = time.perf_counter()
                run()
                taken[kind].append((time.perf_counter() - begun) * 1000)
        told[name] = {kind: round(statistics.median(values), 2) for kind, values in taken.items()} | {"apart": apart}
        print(f"{name:10} {told[name]}")
    print(json.dumps({"threads": asked.threads, "median_ms": told}))


if __name__ == "__main__":
    main()
