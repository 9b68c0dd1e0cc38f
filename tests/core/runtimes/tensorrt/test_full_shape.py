"""The tensorrt runtime's graph at the shape of Stable Diffusion 1.5: too large for one protobuf file."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from benchmarks.random_model import carry_pictures
from core.algorithm import stream
from core.algorithm.frame import PictureDecoder, PictureEncoder
from core.algorithm.prompts import PromptEncoder
from core.algorithm.schedule import Prediction, Schedule, ScheduleKind, row_coefficients, timesteps
from core.algorithm.stream import SamplingParameters
from core.algorithm.unet import layout
from core.models.description import ModelDescription
from core.models.loading import LoadedParts
from core.models.resolved import Resolved
from core.runtimes.parts import ModelParts, PartsStep
from core.runtimes.tensorrt import graphs, make_plan
from core.runtimes.tensorrt import runtime as tensorrt
from core.runtimes.tensorrt.library import FULL
from core.settings import EngineSettings, Guidance, Policy
from tests.support import trt_stand_in
from tests.support.small_models import scaled_linear_alphas


@pytest.mark.slow
def test_a_frame_of_full_sd15_shape_with_weights_over_2_gb_equals_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole frame at SD 1.5's shape (860 million weights, float32), exported with its weights beside the graph."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt_stand_in.module())
    wanted = EngineSettings(width=128, height=128, steps=1, policy=Policy.FIFO, device="cpu", dtype="float32")
    loaded, description = full_shape(), ModelDescription("sd15", tmp_path)
    shape = tensorrt.plan_shape(loaded.layout, wanted, (10, 16))
    frame = make_plan.frame_module(loaded, Resolved(description, wanted))
    example = make_plan.example_tensors(loaded, frame, wanted, shape)
    state = stream.initial_state(loaded.layout, 1, 1, Guidance.NONE, loaded.latent, torch.float32, loaded.device)
    sampling = full_sampling(loaded)
    views = list(np.random.default_rng(0).integers(0, 256, (12, 128, 128, 3), dtype=np.uint8))
    encode, decode = PictureEncoder(loaded.vae), PictureDecoder(loaded.vae)
    parts = ModelParts(lambda p: encode(torch.from_numpy(p)), frame.net, lambda x, source: decode(x, source).numpy())
    eager, after = [], state
    with torch.inference_mode():
        for view in views:
            pending, after = PartsStep(parts)(sampling, after, view)
            eager.append(pending())
    assert eager[-1].std() > 2  # a picture, no grey
    with torch.no_grad():
        cross = frame.net.cross_attention(stream.text_rows(sampling))  # type: ignore[operator]
    with graphs.graph_attention(frame.net, in_place=shape.in_place) as reading:
        module = graphs.FrameGraph(frame, list(example), reading)
        outputs = graphs.frame_outputs(shape.layout)
        made = graphs.export(module, example, outputs, tmp_path / "frame.onnx", (10, 16), {})
    del frame, module, loaded, parts, after
    gc.collect()
    assert (tmp_path / "frame.onnx.data").stat().st_size > 2**31
    assert made.path.stat().st_size < 2**26
    state = stream.initial_state(shape.layout, 1, 1, Guidance.NONE, (4, 16, 16), torch.float32, torch.device("cpu"))
    engine: Any = trt_stand_in.engine_of(made.path)  # as good as tensorrt.ICudaEngine
    plan = tensorrt.LoadedPlan(FULL, engine, tmp_path / "kernels")
    step = tensorrt.TensorRtStep([plan], shape, state, lambda _: cross, Policy.OFF)
    for view, expected in zip(views, eager, strict=True):
        pending, state = step(sampling, state, view)
        assert np.abs(pending().astype(int) - expected).max() <= 1


def full_shape() -> LoadedParts:
    """Random parts of Stable Diffusion 1.5's shape: its UNet's and TAESD's configurations are diffusers' defaults."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval().requires_grad_(False)
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964
    vae = AutoencoderTiny().eval().requires_grad_(False)
    carry_pictures(vae)
    encoder = PromptEncoder(lambda prompt: torch.zeros(1, 77, 768), lambda word: True)
    schedule = Schedule(scaled_linear_alphas(), ScheduleKind.LCM)
    device, bank = torch.device("cpu"), layout(unet.config, None, 16, 16)
    decode = PictureDecoder(vae)
    return LoadedParts(unet, vae, encoder, schedule, bank, (4, 16, 16), torch.float32, device, {}, {}, decode)


def full_sampling(loaded: LoadedParts) -> SamplingParameters:
    chosen = timesteps(ScheduleKind.LCM, 1, 0.5)
    generator = torch.Generator().manual_seed(0)
    noise, text = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(2, 77, 768, generator=generator)
    first = row_coefficients(loaded.schedule, chosen, torch.float32, loaded.device)
    bank = (Guidance.NONE, 1.0, 1.0, Policy.FIFO, 2, 0.8, 0.5, 0)
    return SamplingParameters(first, noise, Prediction.EPSILON, text[:1], text[1:], *bank)
