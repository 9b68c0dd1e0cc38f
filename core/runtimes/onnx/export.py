"""Exports a model folder's graphs, which the `onnx` runtime runs; needs onnx and onnxscript.

The graphs hold no weights: they are made from random ones, so that every constant that is a weight is recognised by its
bytes' hash, and new weights of the same shapes need no new graphs.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.algorithm import conditions, unet
from core.algorithm.bank import Reading
from core.algorithm.prompts import before_last, before_last_and_pooled
from core.errors import ModelError
from core.models import loading as models
from core.models.description import DETAIL, ModelDescription, describe, fingerprint
from core.models.folder_files import one_line, part_config
from core.progress import Report, silent
from core.runtimes import folding
from core.runtimes.onnx import runtime as onnx
from core.runtimes.onnx.detail_graph import detail_graph
from core.runtimes.onnx.eight_bits import in_eight_bits
from core.runtimes.onnx.weights import Weights, folded_weights, weights_of

Names = list[str]
_PROBE = 64  # latents' height and width where the layout is measured; it can be halved six times


class _Encoder(nn.Module):
    """picture uint8 [height, width, 3] -> latent [1, channels, h, w]."""

    def __init__(self, layers: nn.Sequential, scaling: float) -> None:
        super().__init__()
        self.layers = layers
        self.scaling = scaling

    def forward(self, picture: Tensor) -> Tensor:
        latent: Tensor = self.layers(picture.permute(2, 0, 1)[None].float() / 255)  # a TAESD's picture is 0..1
        return latent * self.scaling


class _Decoder(nn.Module):
    """latent [1, channels, h, w] -> picture uint8 [height, width, 3]."""

    def __init__(self, layers: nn.Sequential, scaling: float) -> None:
        super().__init__()
        self.layers = layers
        self.scaling = scaling

    def forward(self, latent: Tensor) -> Tensor:
        values = self.layers(torch.tanh(latent / (3 * self.scaling)) * 3)  # as diffusers' DecoderTiny
        levels: Tensor = (values[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        return levels


class _Text(nn.Module):
    """ids int64 [1, words] -> embeddings [1, words, width]."""

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, ids: Tensor) -> Tensor:
        embedding: Tensor = self.text_encoder(ids)[0]
        return embedding


class _FirstText(_Text):
    """The first of SDXL's two text encoders."""

    def forward(self, ids: Tensor) -> Tensor:
        return before_last(self.text_encoder, ids)


class _SecondText(_Text):
    """The second of them: ids -> embeddings, and the pooled text [1, pooled]."""

    def forward(self, ids: Tensor) -> Any:
        return before_last_and_pooled(self.text_encoder, ids)


class _UNet(nn.Module):
    """core.algorithm.net.Net on plain tensors: (latents, timesteps, text, fresh, strength, threshold, rings)."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        fresh: Tensor,
        strength: Tensor,
        threshold: Tensor,
        rings: list[Tensor],
    ) -> tuple[Tensor, ...]:
        bank = dict(zip(self.names, rings, strict=True))
        prediction, seen = self.net(latents, timesteps, text, bank, Reading(fresh, strength, threshold))
        return prediction, *(seen[name] for name in self.names)


def export(folder: Path, report: Report = silent) -> None:
    """Write the graphs of a model folder (with an AutoencoderTiny) to its `onnx/`. Raises ModelError.

    One part after the other is in memory, once. report: hears which, and how much of all is done, 0..1.
    """
    description = describe(str(folder))
    if part_config(folder, "vae")["_class_name"] != "AutoencoderTiny":
        raise ModelError(f"{folder / 'vae'}: only an AutoencoderTiny can be exported; use --runtime eager")
    with tempfile.TemporaryDirectory() as likeness, tempfile.TemporaryDirectory() as made:
        shutil.copytree(
            folder, likeness, ignore=shutil.ignore_patterns("*.safetensors", onnx.FOLDER), dirs_exist_ok=True
        )
        _export(description, Path(likeness), Path(made), report)
        (folder / onnx.FOLDER).mkdir(exist_ok=True)
        for written in sorted(Path(made).iterdir(), key=lambda path: path.name == onnx.MANIFEST):
            # beside its place first, so that each file is whole at any moment; the manifest comes last
            beside = folder / onnx.FOLDER / f"{written.name}.part"
            shutil.copyfile(written, beside)
            os.replace(beside, folder / onnx.FOLDER / written.name)


@contextmanager
def _random_weights(folder: Path, part: str, likeness: Path) -> Iterator[Weights]:
    """Let the likeness of the model folder have random weights of a part's names and shapes; yield them, mapped."""
    from safetensors import safe_open

    rng = np.random.default_rng(0)
    written = []
    for file in sorted((folder / part).glob("*.safetensors")):
        with safe_open(file, framework="np") as stored:
            shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
        written.append(likeness / part / file.name)
        _write_random(written[-1], shapes, rng)
    weights = weights_of(likeness / part)
    yield weights
    weights.clear()
    gc.collect()  # what was exported is a circle of objects
    for file in written:
        file.unlink()


def _write_random(file: Path, shapes: Mapping[str, list[int]], rng: np.random.Generator) -> None:
    """Write a safetensors file of random float32 weights, one after the other: they need not be in memory together."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # weights begin where their kind can be mapped
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            out.write((rng.standard_normal(shape, np.float32) * np.float32(0.05)).data)


def _export(description: ModelDescription, likeness: Path, out: Path, report: Report) -> None:
    """Export the model to files in `out`, part by part, with random weights that the likeness of its folder gets."""
    used: dict[str, list[str]] = {}

    def of(part: str) -> AbstractContextManager[Weights]:
        return _random_weights(description.folder, part, likeness)

    def writer(weights: Weights) -> _Write:
        def write(
            graph: str, module: nn.Module, args: Any, dynamic: Any, inputs: list[str], outputs: list[str]
        ) -> None:
            proto, used[graph] = _referring(_program(module, args, dynamic, inputs, outputs), weights)
            (out / f"{graph}.onnx").write_bytes(proto.SerializeToString(deterministic=True))

        return write

    report("exporting the autoencoder", 0.0)
    with of("vae") as weights:
        vae = models.part(likeness, "vae", torch.float32)
        folded, factor = _write_pictures(writer(weights), vae, weights)
        del vae
    length, encoders = 0, description.text_encoders
    for number, name in enumerate(encoders):
        report(f"exporting the text encoder {name}", 0.1 + 0.2 * number / len(encoders))
        with of(name) as weights:
            encoder = models.part(likeness, name, torch.float32)
            length = length or int(encoder.config.max_position_embeddings)
            kind = _Text if len(encoders) == 1 else (_FirstText, _SecondText)[number]
            _write_text(writer(weights), name, encoder, kind, length)
            del encoder
    report("exporting the UNet", 0.3)
    with of("unet") as weights:
        plain = _unet(likeness, weights)
        layout = unet.layout(plain.config, description.places, _PROBE, _PROBE)
        words = length + conditions.further_rows(plain.config)
        text = (words, int(plain.config.cross_attention_dim))
        _write_unet(writer(weights), plain, description.places, description.subtoken, text)
        del plain
    if description.detail:
        report("exporting the detail stage", 0.95)
        models.detail_stage(description, torch.float32, torch.device("cpu"))  # says what is wrong with it
        with of(DETAIL) as weights:
            made, used[DETAIL] = detail_graph(weights | in_eight_bits(weights))
        (out / f"{DETAIL}.onnx").write_bytes(made.SerializeToString(deterministic=True))
    manifest = {
        "version": onnx.VERSION,
        "made_for": fingerprint(description),
        "factor": factor,
        "length": length,
        "layout": {name: (_halved(tokens), channels) for name, (tokens, channels) in layout.items()},
        "folded": folded,
        "weights": used,
    }
    (out / onnx.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    report("the graphs are exported", 1.0)


_Write = Callable[[str, nn.Module, Any, Any, Names, Names], None]


def _write_pictures(write: _Write, vae: Any, weights: Weights) -> tuple[dict[str, Any], int]:
    """Write encoder and decoder; return the folded chains as JSON, and how many pixels a latent's is wide.

    weights: of the VAE, which get those of the chains beside them.
    """
    (encoder, into), (decoder, back) = (
        folding.fold(getattr(vae, half).layers, f"{half}.layers") for half in ("encoder", "decoder")
    )
    factor, scaling = 2 ** (len(vae.config.encoder_block_out_channels) - 1), float(vae.config.scaling_factor)
    weights |= folded_weights(into | back, weights)
    auto = torch.export.Dim.AUTO
    picture = torch.zeros(8 * factor, 10 * factor, 3, dtype=torch.uint8)
    write("encoder", _Encoder(encoder, scaling), (picture,), ({0: auto, 1: auto},), ["picture"], ["latent"])
    latent = torch.zeros(1, int(vae.config.latent_channels), 8, 10)
    write("decoder", _Decoder(decoder, scaling), (latent,), ({2: auto, 3: auto},), ["latent"], ["picture"])
    return {name: chain.to_json() for name, chain in (into | back).items()}, factor


def _write_text(write: _Write, graph: str, encoder: Any, kind: type[_Text], length: int) -> None:
    """Write a text encoder's graph; length: words of a text."""
    outputs = ["text_embedding", "pooled"] if kind is _SecondText else ["text_embedding"]
    write(graph, kind(encoder), (torch.zeros(1, length, dtype=torch.int64),), ({},), ["ids"], outputs)


def _write_unet(write: _Write, plain: Any, places: tuple[str, ...] | None, parts: int, text: tuple[int, int]) -> None:
    """Write the UNet; text: words and width of the text's embedding."""
    auto = torch.export.Dim.AUTO
    # 18 halves to 9 and 5: diffusers then sizes each upsampling by its skip connection, which is right for every size
    rows, size = 2, 18
    row: dict[int, Any] = {0: auto}
    shapes = unet.layout(plain.config, places, size, size)
    rings = [torch.zeros(rows, 3, tokens, channels) for tokens, channels in shapes.values()]
    # a tensor each: the exporter takes one that is given twice for one input
    fresh, strength, threshold = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows), torch.ones(rows)
    latents, timesteps = torch.zeros(rows, plain.config.in_channels, size, size), torch.zeros(rows, dtype=torch.int64)
    write(
        "unet",
        _UNet(unet.BankedUNet(plain, places, parts), list(shapes)),
        (latents, timesteps, torch.zeros(rows, *text), fresh, strength, threshold, rings),
        ({0: auto, 2: auto, 3: auto}, row, row, row, row, row, [{0: auto, 1: auto, 2: auto}] * len(rings)),
        ["latents", "timesteps", "text", "fresh", "strength", "threshold", *shapes],
        ["prediction", *(f"seen.{name}" for name in shapes)],
    )


def _unet(folder: Path, weights: Weights) -> Any:
    """Return the UNet of that configuration on those very weights, of which there is no copy. Raises ModelError."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with models.quiet(), torch.device("meta"):
        made: Any = UNet2DConditionModel.from_config(part_config(folder, "unet"))
    try:
        made.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{folder / 'unet'}: the weights do not fit its config.json ({one_line(error)})") from error
    return made


def _halved(tokens: int) -> int:
    for halved in range(7):
        if (_PROBE >> halved) ** 2 == tokens:
            return halved
    raise ModelError(
        f"a layer with {tokens} tokens at {_PROBE}x{_PROBE} latents is no power-of-two level of the picture"
    )


def _program(module: nn.Module, args: Any, dynamic: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Return the module as torch.onnx has it; its weights are the module's own, and nothing else holds them."""
    program = torch.onnx.export(
        module.eval(),
        args,
        dynamo=True,
        opset_version=18,
        dynamic_shapes=dynamic,
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )
    assert program is not None
    return program


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=32).digest()


def _referring(program: Any, weights: Weights) -> tuple[Any, list[str]]:
    """Return the program's graph with references in its weights' place, and their names (onnx.weights.named).

    They are found by hashes of their bytes, and leave the program before it becomes a protobuf message: that would hold
    all of them once more.
    """
    from onnx_ir import ExternalTensor

    names = {_digest(value): (name, value.shape) for name, value in weights.items()}
    names |= {_digest(one.T): (f"{name}.T", one.T.shape) for name, one in weights.items() if one.ndim == 2}
    references: dict[str, str] = {}
    for constant in program.model.graph.initializers.values():
        values = constant.const_value
        found = names.get(_digest(values.numpy()))
        if found is None:
            continue
        name, shape = found
        own = tuple(values.shape.numpy())
        references[constant.name] = name if shape == own else f"{name}:{'x'.join(map(str, own))}"
        constant.const_value = ExternalTensor(
            "safetensors", 0, values.nbytes, values.dtype, shape=values.shape, name=constant.name
        )
    proto = program.model_proto
    for constant in proto.graph.initializer:
        constant.name = references.get(constant.name, constant.name)
    for node in proto.graph.node:
        node.input[:] = [references.get(name, name) for name in node.input]
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    return proto, list(references.values())
