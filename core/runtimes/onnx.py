"""The `onnx` runtime: the same calls as ONNX graphs on the CPU, by ONNX Runtime; and their export.

A model folder's `onnx/` holds four graphs without weights (encoder, unet, decoder, text_encoder), good for every size,
number of steps and of slots, and graphs.json, which says what they need. The weights stay in the folder's safetensors
and are handed over when a session starts.
This file imports neither diffusers nor transformers to run, which saves seconds at every start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.bank import Bank, Layout, Reading, Seen
from core.models import ONNX_GRAPHS, Model, ModelDescription, ModelError, Picture, betas_schedule, has_graphs
from core.net import Net
from core.prompts import Encoder
from core.settings import EngineSettings, Policy, SettingsError

FOLDER = "onnx"
_MANIFEST = "graphs.json"
_PROBE = 64  # latents' height and width where the layout is measured: may be halved six times
_SMALL = 1024  # bytes; smaller constants stay in the graph


def load(description: ModelDescription, settings: EngineSettings) -> Model:
    """The model on ONNX Runtime. Raises ModelError, SettingsError."""
    folder = description.folder
    if not has_graphs(folder):
        raise ModelError(f"{folder}: it has no {FOLDER}/ graphs for the onnx runtime; use --runtime eager")
    if settings.device != "cpu" or settings.dtype != "float32":
        raise SettingsError(
            f"the onnx runtime computes in float32 on the cpu, not in {settings.dtype} on {settings.device}"
        )
    if settings.loras:
        raise SettingsError("LoRAs need the eager runtime; use --runtime eager")
    manifest = _manifest(folder / FOLDER / _MANIFEST)
    sessions = {graph: _session(folder, graph, manifest["weights"][graph]) for graph in ONNX_GRAPHS}
    unet = sessions["unet"]
    channels = int(unet.get_inputs()[0].shape[1])
    factor = int(manifest["factor"])
    latent = (channels, settings.height // factor, settings.width // factor)
    layout = _layout(manifest["layout"], latent[1], latent[2])
    return Model(
        settings=settings,
        description=description,
        net=_net(unet, layout),
        encode=_encode(sessions["encoder"]),
        decode=_decode(sessions["decoder"]),
        encoder=_text(folder, sessions["text_encoder"], int(manifest["length"])),
        schedule=betas_schedule(description),
        layout={} if settings.policy is Policy.OFF else layout,
        latent=latent,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be read ({error}); use --runtime eager, or export the graphs again"
        ) from error
    if missing := {"weights", "factor", "length", "layout"} - manifest.keys():
        raise ModelError(
            f"{path}: {', '.join(sorted(missing))} missing; use --runtime eager, or export the graphs again"
        )
    return manifest


def _session(folder: Path, graph: str, needed: list[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # idle threads that spin would take the cores from the camera and the publisher
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = folder / FOLDER / f"{graph}.onnx"
    weights = _weights(folder / ONNX_GRAPHS[graph])
    try:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weights[name]) for name in needed]
        options.add_external_initializers(needed, values)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors derive from Exception alone
        raise ModelError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:300]}); export it again") from error


def _weights(part: Path) -> dict[str, NDArray[np.float32]]:
    """A part's weights by their names in its safetensors, and the matrices also turned, as `name.T`."""
    from safetensors.numpy import load_file

    found: dict[str, NDArray[np.float32]] = {}
    for file in sorted(part.glob("*.safetensors")):
        for name, stored in load_file(file).items():
            found[name] = stored.astype(np.float32)
            if stored.ndim == 2:
                found[f"{name}.T"] = np.ascontiguousarray(found[name].T)
    return found


def _layout(levels: Mapping[str, tuple[int, int]], height: int, width: int) -> Layout:
    """levels: name -> (times halved, channels)."""
    return {
        name: (-(-height // 2**halved) * -(-width // 2**halved), channels)
        for name, (halved, channels) in levels.items()
    }


def _net(session: Any, layout: Layout) -> Net:
    outputs = [output.name for output in session.get_outputs()]

    def net(latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading) -> tuple[Tensor, Seen]:
        rows = latents.shape[0]
        rings = bank or {name: torch.zeros(rows, 1, *shape) for name, shape in layout.items()}
        # a row that reads its own features instead of a bank is a plain UNet's
        fresh = reading.fresh if bank else torch.ones(rows, dtype=torch.bool)
        threshold = reading.threshold if bank else torch.full((rows,), 2.0)
        feed = {"latents": latents, "timesteps": timesteps, "text": text}
        feed |= {"fresh": fresh, "strength": reading.strength, "threshold": threshold} | rings
        found = session.run(outputs, {name: np.ascontiguousarray(t.numpy()) for name, t in feed.items()})
        prediction, *seen = (torch.from_numpy(value) for value in found)
        return prediction, dict(zip(layout, seen, strict=True)) if bank else {}

    return net


def _encode(session: Any) -> Callable[[Picture], Tensor]:
    def encode(picture: Picture) -> Tensor:
        return torch.from_numpy(session.run(None, {"picture": np.ascontiguousarray(picture)})[0])

    return encode


def _decode(session: Any) -> Callable[[Tensor], Picture]:
    def decode(latent: Tensor) -> Picture:
        picture: Picture = session.run(None, {"latent": np.ascontiguousarray(latent.numpy())})[0]
        return picture

    return decode


def _text(folder: Path, session: Any, length: int) -> Encoder:
    from tokenizers import Tokenizer

    path = folder / "tokenizer"
    try:
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{path}: cannot be loaded ({error}); fetch the model again") from error
    pad, unknown = (tokenizer.token_to_id(config[key]) for key in ("pad_token", "unk_token"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=pad, pad_token=config["pad_token"])

    def embed(prompt: str) -> Tensor:
        ids: NDArray[np.int64] = np.array([tokenizer.encode(prompt).ids], dtype=np.int64)
        return torch.from_numpy(session.run(None, {"ids": ids})[0])

    def known(word: str) -> bool:
        return unknown not in tokenizer.encode(word, add_special_tokens=False).ids

    return Encoder(embed, known)


class _Encoder(nn.Module):
    """picture uint8 [height, width, 3] -> latent [1, channels, h, w]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, picture: Tensor) -> Tensor:
        latent: Tensor = self.vae.encode(picture.permute(2, 0, 1)[None].float() / 127.5 - 1).latents
        return latent * float(self.vae.config.scaling_factor)


class _Decoder(nn.Module):
    """latent [1, channels, h, w] -> picture uint8 [height, width, 3]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        values = self.vae.decode(latent / float(self.vae.config.scaling_factor)).sample
        levels: Tensor = ((values[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8)
        return levels


class _Text(nn.Module):
    """ids int64 [1, words] -> embeddings [1, words, width]."""

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, ids: Tensor) -> Tensor:
        embedding: Tensor = self.text_encoder(ids)[0]
        return embedding


class _UNet(nn.Module):
    """The one call with its bank as a list: (latents, timesteps, text, fresh, strength, threshold, *rings)."""

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
    """Write the graphs of a model folder (AutoencoderTiny, tokenizer.json) to its `onnx/`; needs onnx, onnxscript."""
    from core import models, unet

    description = models.describe(str(folder))
    vae, plain, text_encoder = (models.part(folder, name, torch.float32) for name in ("vae", "unet", "text_encoder"))
    factor = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
    places = unet.default_places(plain) if description.places is None else description.places
    layout = unet.layout(plain.config, places, _PROBE, _PROBE)
    levels = {name: (_halved(tokens), channels) for name, (tokens, channels) in layout.items()}
    net = unet.BankedUNet(plain, places)
    length, width = int(text_encoder.config.max_position_embeddings), int(plain.config.cross_attention_dim)
    (folder / FOLDER).mkdir(exist_ok=True)
    picture = torch.zeros(8 * factor, 10 * factor, 3, dtype=torch.uint8)
    latent = torch.zeros(1, int(plain.config.in_channels), 8, 10)
    ids = torch.zeros(1, length, dtype=torch.int64)
    auto = torch.export.Dim.AUTO
    sized = ({0: auto, 1: auto},)
    used = {}
    used["encoder"] = _write(_Encoder(vae), (picture,), sized, ["picture"], ["latent"], folder, "encoder")
    sized = ({2: auto, 3: auto},)
    used["decoder"] = _write(_Decoder(vae), (latent,), sized, ["latent"], ["picture"], folder, "decoder")
    used["text_encoder"] = _write(
        _Text(text_encoder), (ids,), ({},), ["ids"], ["text_embedding"], folder, "text_encoder"
    )
    # 18 halves to 9 and 5: diffusers then sizes each upsampling by its skip connection, which is right for every size
    rows, size = 2, 18
    row: dict[int, Any] = {0: auto}
    shapes = unet.layout(plain.config, places, size, size)
    rings = [torch.zeros(rows, 3, tokens, channels) for tokens, channels in shapes.values()]
    # a tensor each: the exporter takes one that is given twice for one input
    fresh, strength, threshold = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows), torch.ones(rows)
    used["unet"] = _write(
        _UNet(net, list(shapes)),
        (
            torch.zeros(rows, latent.shape[1], size, size),
            torch.zeros(rows, dtype=torch.int64),
            torch.zeros(rows, length, width),
            fresh,
            strength,
            threshold,
            rings,
        ),
        ({0: auto, 2: auto, 3: auto}, row, row, row, row, row, [{0: auto, 1: auto, 2: auto}] * len(rings)),
        ["latents", "timesteps", "text", "fresh", "strength", "threshold", *shapes],
        ["prediction", *(f"seen.{name}" for name in shapes)],
        folder,
        "unet",
    )
    manifest = {"factor": factor, "length": length, "layout": levels, "weights": used}
    (folder / FOLDER / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _halved(tokens: int) -> int:
    for halved in range(7):
        if (_PROBE >> halved) ** 2 == tokens:
            return halved
    raise ModelError(
        f"a layer with {tokens} tokens at {_PROBE}x{_PROBE} latents is no power-of-two level of the picture"
    )


def _write(
    module: nn.Module,
    args: tuple[Any, ...],
    dynamic: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    folder: Path,
    graph: str,
) -> list[str]:
    """Export one graph; its weights become references to the safetensors. Returns their names."""
    import onnx

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
    used = _refer(proto.graph, _weights(folder / ONNX_GRAPHS[graph]), onnx.TensorProto.EXTERNAL)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    path = folder / FOLDER / f"{graph}.onnx"
    partial = path.with_suffix(".part")
    partial.write_bytes(proto.SerializeToString())
    os.replace(partial, path)
    return used


def _refer(graph: Any, weights: Mapping[str, NDArray[np.float32]], external: int) -> list[str]:
    """Replace the constants that are weights by references; the exporter renames and turns them, so bytes decide."""
    names = {(value.shape, value.tobytes()): name for name, value in weights.items()}
    renamed: dict[str, str] = {}
    for constant in graph.initializer:
        name = names.get((tuple(constant.dims), constant.raw_data))
        if name is None or len(constant.raw_data) < _SMALL:
            continue
        if name in renamed.values():  # of the same bytes as another
            continue
        renamed[constant.name] = name
        size = len(constant.raw_data)
        constant.ClearField("raw_data")
        constant.data_location = external
        for key, value in (("location", "safetensors"), ("offset", "0"), ("length", str(size))):
            constant.external_data.add(key=key, value=value)
        constant.name = name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return list(renamed.values())
