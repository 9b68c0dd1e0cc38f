"""The `onnx` runtime: encoder, UNet and decoder as ONNX graphs, by ONNX Runtime, on the CPU or a provider's hardware.

A model folder's `onnx/` holds graphs without weights (encoder, unet, decoder, text_encoder; of SDXL's shape also
text_encoder_2), good for every size, number of steps and of slots, and graphs.json, which says what they need
(core.runtimes.onnx.export writes them). The weights stay in the folder's safetensors and are handed over when a session
starts.
This file imports neither diffusers nor transformers, which saves seconds at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.algorithm.bank import Bank, Features, Layout, Reading
from core.algorithm.net import Net, Picture
from core.algorithm.stream import net_rows
from core.errors import ModelError, SettingsError
from core.models.description import (
    DETAIL,
    ONNX_GRAPHS,
    ModelDescription,
    fingerprint,
    graphs_of,
    has_graphs,
    stored,
)
from core.models.folder_files import check_keys, part_config, read_json, whole
from core.models.light_text import TextEncoder, light_encoder
from core.models.loading import betas_schedule
from core.models.resolved import Resolved
from core.runtimes.folding import Chain
from core.runtimes.model import Model
from core.runtimes.onnx import providers
from core.runtimes.onnx.eight_bits import in_eight_bits
from core.runtimes.onnx.weights import folded_weights, in_float32, named, weights_of
from core.runtimes.parts import ModelParts, PartsStep
from core.settings import EngineSettings, Policy, Provider

FOLDER = "onnx"
MANIFEST = "graphs.json"
SIDES = ("height", "width")  # how a graph of pictures alone calls their sides
LARGE = 100_000_000  # numbers in a UNet whose single operations are worth several threads; SD 1.5 has 860 million
VERSION = 2  # of what the graphs take and give, and of the manifest
_ALL_GRAPHS = ("encoder", "unet", "decoder", "text_encoder", "text_encoder_2", DETAIL)
_REMEDY = "use --runtime eager, or export the graphs again (docs/models.md)"


def _is_layout(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(level, list)
        and len(level) == 2
        and all(isinstance(one, int) and 0 <= one < 65_536 for one in level)
        and level[0] < 16
        for level in value.values()
    )


def _are_names(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(names := value.get(graph), list) and all(isinstance(name, str) for name in names)
        for graph in ONNX_GRAPHS
    )


_MANIFEST_KEYS = {
    "factor": whole(1, 64),
    "length": whole(1, 10_000),
    "layout": (_is_layout, "an object of [times halved, channels]"),
    "weights": (_are_names, "an object of lists of names, one for each graph"),
    "folded": (lambda value: isinstance(value, dict), "an object"),
}


def load(resolved: Resolved) -> Model:
    """Load the model on ONNX Runtime. Raises ModelError, SettingsError."""
    description, settings = resolved.description, resolved.settings
    folder = description.folder
    if not has_graphs(folder):
        raise ModelError(f"{folder}: it has no {FOLDER}/ graphs for the onnx runtime; use --runtime eager")
    if settings.device != "cpu" or settings.dtype != "float32":
        raise SettingsError(
            f"the onnx runtime computes in float32 on the cpu, not in {settings.dtype} on {settings.device}"
        )
    if settings.loras:
        raise SettingsError("LoRAs need the eager runtime; use --runtime eager")
    if settings.bank_graph:
        raise SettingsError(
            f"the onnx runtime's graphs have the model's own bank, not {settings.bank_graph}; --runtime eager (which "
            "auto takes) or compiled runs it"
        )
    manifest = read_manifest(description)
    weights = sum(tensor.numbers for tensor in stored(folder / "unet"))
    threads = _divided(settings, torch.get_num_threads(), weights)
    factor = int(manifest["factor"])
    channels = int(part_config(folder, "unet")["in_channels"])
    latent = (channels, settings.height // factor, settings.width // factor)
    layout = _layout(manifest["layout"], latent[1], latent[2])
    shapes = _shapes(settings, latent, layout)
    builder = SessionBuilder(providers.require(settings.provider), settings.provider, shapes)
    sessions = _sessions(builder, description, manifest, threads.sessions)
    unet = sessions["unet"]
    parts = ModelParts(
        encode=_encode(sessions["encoder"]),
        net=_net(unet, layout, ThreadPoolExecutor(threads.workers, "unet"), threads),
        decode=_decode(sessions["decoder"], sessions.get(DETAIL)),
    )
    return Model(
        resolved=resolved,
        open=lambda state: PartsStep(parts),
        encoder=light_encoder(
            description,
            {name: _text(sessions[name]) for name in description.text_encoders},
            int(manifest["length"]),
            (settings.height, settings.width),
        ),
        schedule=betas_schedule(description),
        layout={} if settings.policy is Policy.OFF else layout,
        latent=latent,
        dtype=torch.float32,
        device=torch.device("cpu"),
        beside=ThreadPoolExecutor(1, "decode") if threads.beside else None,
        placement=providers.placement(settings.provider, list(sessions.values())),
        threads=1,  # between the calls there is little to do, and PyTorch's threads wait for each other by spinning
    )


class _Threads(NamedTuple):
    """The CPU's threads: of each graph's session, of rows side by side, and whether decoding runs beside both.

    rows_at_once: all rows go through the UNet in one call.
    """

    sessions: dict[str, int]
    workers: int
    beside: bool
    rows_at_once: bool = False


def _divided(settings: EngineSettings, threads: int, weights: int) -> _Threads:
    """weights: how many numbers the UNet has."""
    rows = len(net_rows(settings.guidance, settings.steps))
    # A small UNet's many small operations gain less by threads than its rows do by running side by side. A large one
    # takes all threads, and so does what runs beside it: idle ones sleep, so whoever works at the moment has the cores.
    unet = threads if weights >= LARGE else max(1, threads // (rows + 1))
    if settings.provider is not Provider.CPU:
        # other hardware takes all rows at once, and DirectML one call at a time
        return _Threads(dict.fromkeys(_ALL_GRAPHS, threads), 1, beside=False, rows_at_once=True)
    # with one step there is no second row to run beside the first: the last picture is decoded meanwhile
    beside = settings.steps == 1 and threads > 1
    decoder = max(1, threads - unet) if beside and weights < LARGE else threads
    each = {"encoder": threads, "unet": unet, "decoder": decoder, DETAIL: decoder}
    each |= dict.fromkeys(("text_encoder", "text_encoder_2"), threads)
    return _Threads(each, min(rows, threads), beside)


def read_manifest(description: ModelDescription) -> dict[str, Any]:
    """Return what core.runtimes.onnx.export wrote on the folder's graphs and what they need. Raises ModelError."""
    path = description.folder / FOLDER / MANIFEST
    try:
        manifest = read_json(path)
    except ModelError as error:
        told = (
            str(error).rpartition(";")[0].replace("it holds no JSON object", f"not of version {VERSION}, nor an object")
        )
        raise ModelError(f"{told}; {_REMEDY}") from error
    if manifest.get("version") != VERSION:
        raise ModelError(f"{path}: not of version {VERSION}; {_REMEDY}")
    if missing := {"made_for", "weights", "factor", "length", "layout", "folded"} - manifest.keys():
        raise ModelError(f"{path}: {', '.join(sorted(missing))} missing; {_REMEDY}")
    check_keys(path, manifest, _MANIFEST_KEYS)
    if manifest["made_for"] != fingerprint(description):
        raise ModelError(f"{path}: the graphs were made for another configuration of this model; {_REMEDY}")
    return manifest


def _shapes(settings: EngineSettings, latent: tuple[int, int, int], layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return the first sizes of the graphs' inputs, by name, where all rows go through the UNet in one call."""
    rows = len(net_rows(settings.guidance, settings.steps))
    picture = (settings.height, settings.width)
    rings = {name: (rows, settings.ring_slots, tokens) for name, (tokens, _) in layout.items()}
    plain = dict.fromkeys(("timesteps", "text", "fresh", "strength", "threshold"), (rows,))
    return plain | rings | {"latents": (rows, *latent), "latent": (1, *latent), "picture": picture, "source": picture}


def _sessions(
    builder: SessionBuilder, description: ModelDescription, manifest: Mapping[str, Any], threads: Mapping[str, int]
) -> dict[str, Any]:
    folder, graphs = description.folder, graphs_of(description)
    weights = {part: weights_of(folder / part) for part in set(graphs.values())}

    def needed(graph: str) -> dict[str, NDArray[Any]]:
        """Made for one session at a time: what is not stored as the graph wants it is in memory no longer."""
        return {name: named(name, weights[graphs[graph]]) for name in manifest["weights"][graph]}

    found: dict[str, Any] = {}
    try:
        chains = {name: Chain.from_json(values) for name, values in manifest["folded"].items()}
        weights["vae"] |= folded_weights(chains, weights["vae"])
        if DETAIL in weights:
            weights[DETAIL] = in_float32(weights[DETAIL])
            weights[DETAIL] |= in_eight_bits(weights[DETAIL])
        for graph in graphs:
            found[graph] = builder.session(folder / FOLDER / f"{graph}.onnx", needed(graph), threads[graph])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,
    ) as error:  # of torch, where shapes do not fit
        raise ModelError(
            f"{folder / FOLDER / MANIFEST}: does not fit the weights ({' '.join(str(error).split())}); {_REMEDY}"
        ) from error
    return found


class SessionBuilder(NamedTuple):
    """What makes the sessions of a model: ONNX Runtime, its provider, and the first sizes of the graphs' inputs."""

    onnxruntime: Any
    provider: Provider
    shapes: Mapping[str, tuple[int, ...]]

    def session(self, path: Path, weights: Mapping[str, NDArray[np.float32]], threads: int) -> Any:
        """Return a session of that graph with its weights. Raises ModelError."""
        library = self.onnxruntime
        options, given = providers.options(library, self.provider)
        options.intra_op_num_threads = threads
        # idle threads that spin would take the cores from the camera and the publisher
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            values = [library.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
            sizes = dict(zip(SIDES, self.shapes["picture"], strict=True))
            if self.provider is not Provider.CPU:
                sizes |= self._free_sizes(path, weights, values)
            # where shapes are known, what is multiplied and added stays in the layout of the convolutions around it
            for name, size in sizes.items():
                options.add_free_dimension_override_by_name(name, size)
            options.add_external_initializers(list(weights), values)
            return library.InferenceSession(str(path), options, providers=given)
        except Exception as error:  # onnxruntime's errors derive from Exception alone
            raise ModelError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:300]}); {_REMEDY}") from error

    def _free_sizes(self, path: Path, weights: Mapping[str, NDArray[np.float32]], values: list[Any]) -> dict[str, int]:
        """Return the sizes that the graph leaves open, by their names in it: other hardware wants to know them."""
        options = self.onnxruntime.SessionOptions()
        options.graph_optimization_level = self.onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_external_initializers(list(weights), values)
        inputs = self.onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).get_inputs()
        pairs = [pair for one in inputs for pair in zip(one.shape, self.shapes.get(one.name, ()), strict=False)]
        return {name: size for name, size in pairs if isinstance(name, str)}


def _layout(levels: Mapping[str, tuple[int, int]], height: int, width: int) -> Layout:
    """Return the bank's layout at latents of that size; levels: name -> (times halved, channels)."""
    return {
        name: (-(-height // 2**halved) * -(-width // 2**halved), channels)
        for name, (halved, channels) in levels.items()
    }


def _net(session: Any, layout: Layout, pool: Executor, threads: _Threads) -> Net:
    """Return a Net that runs the independent rows on several threads, the caller's and the pool's, or all at once."""
    workers = threads.workers
    outputs = [output.name for output in session.get_outputs()]

    def net(latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading) -> tuple[Tensor, Features]:
        rows = latents.shape[0]
        rings = bank or {name: torch.zeros(rows, 1, *shape) for name, shape in layout.items()}
        # a row that reads its own features instead of a bank is a plain UNet's
        fresh = torch.full((rows,), not bank) if reading.fresh is None or not bank else reading.fresh
        threshold = reading.threshold if bank else torch.full((rows,), 2.0)
        feed = {"latents": latents, "timesteps": timesteps, "text": text}
        feed |= {"fresh": fresh, "strength": reading.strength, "threshold": threshold} | rings
        arrays = {name: np.ascontiguousarray(t.numpy()) for name, t in feed.items()}

        def run(some: slice) -> list[NDArray[np.float32]]:
            found: list[NDArray[np.float32]] = session.run(outputs, {name: one[some] for name, one in arrays.items()})
            return found

        def share(first: int) -> list[list[NDArray[np.float32]]]:
            if threads.rows_at_once:
                return [run(slice(None))]
            return [run(slice(row, row + 1)) for row in range(first, rows, workers)]

        # the first share runs here: a thread that is awake need not be woken
        others = [pool.submit(share, first) for first in range(1, workers)]
        shares = [share(0), *(other.result() for other in others)]
        apart = [shares[at % workers][at // workers] for at in range(sum(map(len, shares)))]
        prediction, *seen = (torch.from_numpy(np.concatenate(values)) for values in zip(*apart, strict=True))
        return prediction, dict(zip(layout, seen, strict=True)) if bank else {}

    return net


def _encode(session: Any) -> Callable[[Picture], Tensor]:
    def encode(picture: Picture) -> Tensor:
        return torch.from_numpy(session.run(None, {"picture": np.ascontiguousarray(picture)})[0])

    return encode


def _decode(session: Any, detail: Any) -> Callable[[Tensor, Tensor], Picture]:
    """detail: the detail stage's session; None for a model without."""

    def decode(latent: Tensor, source: Tensor) -> Picture:
        picture: Picture = session.run(None, {"latent": np.ascontiguousarray(latent.numpy())})[0]
        return picture

    def detailed(latent: Tensor, source: Tensor) -> Picture:
        given = {"picture": decode(latent, source), "source": np.ascontiguousarray(source.numpy())}
        picture: Picture = detail.run(None, given)[0]
        return picture

    return decode if detail is None else detailed


def _text(session: Any) -> TextEncoder:
    """Return the text encoder of a graph, which gives [1, words, width], and the pooled text where it has one."""

    def encode(ids: Tensor) -> list[Tensor]:
        return [torch.from_numpy(value) for value in session.run(None, {"ids": ids.numpy()})]

    return encode
