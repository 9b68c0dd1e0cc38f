"""The `onnx` runtime: the same calls as ONNX graphs on the CPU, by ONNX Runtime; and their export.

A model folder's `onnx/` holds four graphs without weights (encoder, unet, decoder, text_encoder), good for every size,
number of steps and of slots. The weights stay in the folder's safetensors and are handed over when a session starts.
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
_LAYOUT = "streamv2v.layout"  # in the UNet graph's metadata: name -> [times halved, channels]
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
    sessions = {graph: _session(folder, graph, part) for graph, part in ONNX_GRAPHS.items()}
    unet = sessions["unet"]
    channels = int(unet.get_inputs()[0].shape[1])
    factor = int(sessions["decoder"].get_modelmeta().custom_metadata_map["factor"])
    latent = (channels, settings.height // factor, settings.width // factor)
    layout = _layout(unet.get_modelmeta().custom_metadata_map, latent[1], latent[2])
    return Model(
        settings=settings,
        description=description,
        net=_net(unet, layout),
        encode=_encode(sessions["encoder"]),
        decode=_decode(sessions["decoder"]),
        encoder=_text(folder, sessions["text_encoder"]),
        schedule=betas_schedule(description),
        layout={} if settings.policy is Policy.OFF else layout,
        latent=latent,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def _session(folder: Path, graph: str, part: str) -> Any:
    import onnxruntime
    from safetensors.numpy import load_file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # idle threads that spin would take the cores from the camera and the publisher
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    names, values = [], []
    for file in sorted((folder / part).glob("*.safetensors")):
        for name, value in load_file(file).items():
            names.append(f"{part}.{name}")
            values.append(onnxruntime.OrtValue.ortvalue_from_numpy(value.astype(np.float32)))
    path = folder / FOLDER / f"{graph}.onnx"
    options.add_external_initializers(names, values)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors derive from Exception alone
        raise ModelError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:300]}); export it again") from error


def _layout(metadata: Mapping[str, str], height: int, width: int) -> Layout:
    levels: dict[str, tuple[int, int]] = json.loads(metadata[_LAYOUT])
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


def _text(folder: Path, session: Any) -> Encoder:
    from tokenizers import Tokenizer

    length = int(session.get_modelmeta().custom_metadata_map["length"])
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
    own_names = {p.data_ptr(): name for name, p in plain.named_parameters()}  # before places are wrapped
    net = unet.BankedUNet(plain, places)
    length, width = int(text_encoder.config.max_position_embeddings), int(plain.config.cross_attention_dim)
    target = folder / FOLDER
    target.mkdir(exist_ok=True)

    picture = torch.zeros(8 * factor, 10 * factor, 3, dtype=torch.uint8)
    latent = torch.zeros(1, int(plain.config.in_channels), 8, 10)
    auto = torch.export.Dim.AUTO
    _write(_Encoder(vae), (picture,), ({0: auto, 1: auto},), ["picture"], ["latent"], {}, target / "encoder.onnx")
    _write(
        _Decoder(vae),
        (latent,),
        ({2: auto, 3: auto},),
        ["latent"],
        ["picture"],
        {"factor": str(factor)},
        target / "decoder.onnx",
    )
    ids = torch.zeros(1, length, dtype=torch.int64)
    _write(
        _Text(text_encoder),
        (ids,),
        ({},),
        ["ids"],
        ["embedding"],
        {"length": str(length)},
        target / "text_encoder.onnx",
    )
    rows, size = 2, 16
    row: dict[int, Any] = {0: auto}
    shapes = unet.layout(plain.config, places, size, size)
    rings = [torch.zeros(rows, 3, tokens, channels) for tokens, channels in shapes.values()]
    flags = torch.zeros(rows)
    _write(
        _UNet(net, list(shapes)),
        (
            torch.zeros(rows, latent.shape[1], size, size),
            torch.zeros(rows, dtype=torch.int64),
            torch.zeros(rows, length, width),
            flags.bool(),
            flags,
            flags,
            rings,
        ),
        ({0: auto, 2: auto, 3: auto}, row, row, row, row, row, [{0: auto, 1: auto, 2: auto}] * len(rings)),
        ["latents", "timesteps", "text", "fresh", "strength", "threshold", *shapes],
        ["prediction", *(f"seen.{name}" for name in shapes)],
        {_LAYOUT: json.dumps(levels)},
        target / "unet.onnx",
        own_names,
    )


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
    metadata: Mapping[str, str],
    path: Path,
    own_names: Mapping[int, str] | None = None,
) -> None:
    """Export one graph, its weights replaced by their names in the safetensors."""
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
    names = {}
    for name, parameter in module.named_parameters():
        part, _, rest = name.removeprefix("net.").partition(".")
        names[name] = f"{part}.{(own_names or {}).get(parameter.data_ptr(), rest)}"
    renamed = {}
    for constant in proto.graph.initializer:
        size = len(constant.raw_data)
        if constant.name in names and size >= _SMALL:
            renamed[constant.name] = names[constant.name]
            constant.ClearField("raw_data")
            constant.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "safetensors"), ("offset", "0"), ("length", str(size))):
                constant.external_data.add(key=key, value=value)
            constant.name = renamed[constant.name]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    partial = path.with_suffix(".part")
    partial.write_bytes(proto.SerializeToString())
    os.replace(partial, path)
