"""Exports a model folder's graphs, which the `onnx` runtime runs; needs onnx and onnxscript.

The graphs hold no weights: they are made from random ones, so that every constant that is a weight is recognised by its
bytes, and new weights of the same shapes need no new graphs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from core.models.description import DETAIL, ModelDescription, describe, fingerprint, graphs_of
from core.models.folder_files import part_config
from core.runtimes import folding
from core.runtimes.onnx import runtime as onnx
from core.runtimes.onnx.detail_graph import detail_graph
from core.runtimes.onnx.eight_bits import in_eight_bits

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


def export(folder: Path) -> None:
    """Write the graphs of a model folder (with an AutoencoderTiny) to its `onnx/`. Raises ModelError."""
    description = describe(str(folder))
    if part_config(folder, "vae")["_class_name"] != "AutoencoderTiny":
        raise ModelError(f"{folder / 'vae'}: only an AutoencoderTiny can be exported; use --runtime eager")
    parts = set(graphs_of(description).values())
    with _random_weights(folder, parts) as likeness, tempfile.TemporaryDirectory() as made:
        _export(description, likeness, Path(made))
        (folder / onnx.FOLDER).mkdir(exist_ok=True)
        for written in sorted(Path(made).iterdir(), key=lambda path: path.name == onnx.MANIFEST):
            # beside its place first, so that each file is whole at any moment; the manifest comes last
            beside = folder / onnx.FOLDER / f"{written.name}.part"
            shutil.copyfile(written, beside)
            os.replace(beside, folder / onnx.FOLDER / written.name)


@contextmanager
def _random_weights(folder: Path, parts: set[str]) -> Iterator[Path]:
    """Yield a copy of the model folder with random weights of the same names and shapes."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / folder.name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors", onnx.FOLDER))
        for part in sorted(parts):
            for file in sorted((folder / part).glob("*.safetensors")):
                with safe_open(file, framework="np") as stored:
                    shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
                values = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
                save_file(values, copy / part / file.name, {"format": "pt"})
        yield copy


def _export(description: ModelDescription, folder: Path, out: Path) -> None:
    """Export the model of `folder` to files in `out`."""
    plain, vae, *text_encoders = (models.part(folder, name, torch.float32) for name in description.parts)
    layout = unet.layout(plain.config, description.places, _PROBE, _PROBE)
    graphs = graphs_of(description)
    weights = {part: onnx.weights_of(folder / part) for part in set(graphs.values())}
    length, width = int(text_encoders[0].config.max_position_embeddings), int(plain.config.cross_attention_dim)
    words = length + conditions.further_rows(plain.config)
    (encoder, into), (decoder, back) = (
        folding.fold(getattr(vae, half).layers, f"{half}.layers") for half in ("encoder", "decoder")
    )
    factor, scaling = 2 ** (len(vae.config.encoder_block_out_channels) - 1), float(vae.config.scaling_factor)
    weights["vae"] |= onnx.folded_weights(into | back, weights["vae"])
    used = {}

    def write(graph: str, module: nn.Module, args: Any, dynamic: Any, inputs: list[str], outputs: list[str]) -> None:
        proto = _graph(module, args, dynamic, inputs, outputs)
        used[graph] = _refer(proto.graph, weights[graphs[graph]])
        (out / f"{graph}.onnx").write_bytes(proto.SerializeToString(deterministic=True))

    _write_pictures(
        write, _Encoder(encoder, scaling), _Decoder(decoder, scaling), factor, int(plain.config.in_channels)
    )
    _write_texts(write, text_encoders, torch.zeros(1, length, dtype=torch.int64))
    _write_unet(write, plain, description.places, description.subtoken, (words, width))
    if description.detail:
        made, used[DETAIL] = detail_graph(weights[DETAIL] | in_eight_bits(weights[DETAIL]))
        (out / f"{DETAIL}.onnx").write_bytes(made.SerializeToString(deterministic=True))
    manifest = {
        "version": onnx.VERSION,
        "made_for": fingerprint(description),
        "factor": factor,
        "length": length,
        "layout": {name: (_halved(tokens), channels) for name, (tokens, channels) in layout.items()},
        "folded": {name: chain.to_json() for name, chain in (into | back).items()},
        "weights": used,
    }
    (out / onnx.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


_Write = Callable[[str, nn.Module, Any, Any, list[str], list[str]], None]


def _write_pictures(write: _Write, encoder: _Encoder, decoder: _Decoder, factor: int, channels: int) -> None:
    auto = torch.export.Dim.AUTO
    picture = torch.zeros(8 * factor, 10 * factor, 3, dtype=torch.uint8)
    write("encoder", encoder, (picture,), ({0: auto, 1: auto},), ["picture"], ["latent"])
    latent = torch.zeros(1, channels, 8, 10)
    write("decoder", decoder, (latent,), ({2: auto, 3: auto},), ["latent"], ["picture"])


def _write_texts(write: _Write, text_encoders: list[Any], ids: Tensor) -> None:
    """Write the text encoders; ids: an example of what they take."""
    if len(text_encoders) == 1:
        write("text_encoder", _Text(text_encoders[0]), (ids,), ({},), ["ids"], ["text_embedding"])
        return
    first, second = text_encoders
    write("text_encoder", _FirstText(first), (ids,), ({},), ["ids"], ["text_embedding"])
    write("text_encoder_2", _SecondText(second), (ids,), ({},), ["ids"], ["text_embedding", "pooled"])


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


def _halved(tokens: int) -> int:
    for halved in range(7):
        if (_PROBE >> halved) ** 2 == tokens:
            return halved
    raise ModelError(
        f"a layer with {tokens} tokens at {_PROBE}x{_PROBE} latents is no power-of-two level of the picture"
    )


def _graph(module: nn.Module, args: Any, dynamic: Any, inputs: list[str], outputs: list[str]) -> Any:
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
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    return proto


def _refer(graph: Any, weights: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Make the graph's weights references, and return their names (core.runtimes.onnx.runtime.named)."""
    from onnx import TensorProto

    names = {value.tobytes(): name for name, value in weights.items()}
    names |= {value.T.tobytes(): f"{name}.T" for name, value in weights.items() if value.ndim == 2}
    renamed: dict[str, str] = {}
    for constant in graph.initializer:
        data, shape = constant.raw_data, tuple(constant.dims)
        name = names.get(data)
        if name is None:
            continue
        if onnx.named(name, weights).shape != shape:
            name = f"{name}:{'x'.join(map(str, shape))}"
        renamed[constant.name] = name
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "safetensors"), ("offset", "0"), ("length", str(len(data)))):
            constant.external_data.add(key=key, value=value)
        constant.name = name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return list(renamed.values())
