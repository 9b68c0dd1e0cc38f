"""How much arithmetic a frame is, by its shapes alone: the floor under its time on a machine of a measured peak."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from core.algorithm import stream
from core.algorithm import unet as unets
from core.algorithm.detail import Detail
from core.algorithm.frame import DetailedDecoder, FrameModule, PictureDecoder, PictureEncoder, example_inputs
from core.algorithm.schedule import Prediction
from core.models.description import ModelDescription, part_config
from core.models.loading import quiet
from core.settings import EngineSettings, Policy


def frame_flops(description: ModelDescription, settings: EngineSettings) -> int:
    """Floating-point operations of one frame (2 for each multiplication and addition), encoder and decoder included.

    Counted on tensors without storage, where the text's keys and values are at hand; a merge, which falls due in few
    frames, is not in it.
    """
    import diffusers as library

    diffusers: Any = library  # its lazy module has no types
    folder = description.folder
    with quiet(), torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(part_config(folder, "unet"))
        config = part_config(folder, "vae")
        kind = getattr(diffusers, config["_class_name"])
        vae = kind.from_config(config)
        picture = torch.zeros(settings.height, settings.width, 3, dtype=torch.uint8)
        encode = PictureEncoder(vae)
        latent = encode(picture).shape[1:]
        off = settings.policy is Policy.OFF
        places = () if off else description.places or unets.default_places(unet)
        layout = {} if off else unets.layout(unet.config, places, *latent[1:])
        net = unets.BankedUNet(unet, places, 1 if off else description.subtoken)
        slots = settings.slots if settings.policy is Policy.FIFO else 1
        state = stream.initial_state(
            layout,
            settings.steps,
            slots,
            settings.guidance,
            latent,
            torch.float32,
            torch.device("meta"),
            (settings.height, settings.width) if description.detail else None,
        )
        frame = FrameModule(
            encode,
            net,
            DetailedDecoder(vae, Detail(**description.detail)) if description.detail else PictureDecoder(vae),
            prediction=Prediction.EPSILON,
            guidance=settings.guidance,
            policy=settings.policy,
        )
        words = int(part_config(folder, "text_encoder")["max_position_embeddings"])
        inputs = example_inputs(net, state.tensors, len(state.positions), (words, int(unet.config.cross_attention_dim)))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            frame(picture, inputs, state.tensors)
    return int(counter.get_total_flops())


def peak_flops(device: str, dtype: str, *, seconds: float = 0.5) -> float:
    """Floating-point operations a second in the product of large matrices: the best that this machine shows now."""
    size = 8192 if device.startswith("cuda") else 1024
    left, right = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < until:
        started = time.perf_counter()
        left @ right
        if left.is_cuda:
            torch.cuda.synchronize(left.device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best
