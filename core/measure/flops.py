"""Counts a frame's arithmetic by its shapes: divided by a machine's measured peak, it is the least time of a frame."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from core.algorithm import conditions, stream
from core.algorithm import unet as unets
from core.algorithm.detail import Detail
from core.algorithm.frame import DetailedDecoder, FrameModule, PictureDecoder, PictureEncoder, example_inputs
from core.algorithm.schedule import Prediction
from core.models.folder_files import part_config
from core.models.loading import quiet
from core.models.resolved import Resolved
from core.settings import Policy


def frame_flops(resolved: Resolved) -> int:
    """Return the floating-point operations of one frame, 2 for each multiplication with its addition.

    Encoder and decoder are included; a merge, which falls due in few frames, is not, nor are the text's keys and
    values. Counted on tensors without storage.
    """
    import diffusers as library

    diffusers: Any = library  # its lazy module has no types
    settings, folder, detail = resolved.settings, resolved.description.folder, resolved.description.detail
    with quiet(), torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(part_config(folder, "unet"))
        config = part_config(folder, "vae")
        kind = getattr(diffusers, config["_class_name"])
        vae = kind.from_config(config)
        picture = torch.zeros(settings.height, settings.width, 3, dtype=torch.uint8)
        encode = PictureEncoder(vae)
        latent = encode(picture).shape[1:]
        off = settings.policy is Policy.OFF
        layout = {} if off else unets.layout(unet.config, resolved.places, *latent[1:])
        net = unets.BankedUNet(unet, resolved.places, resolved.subtoken)
        state = stream.initial_state(
            layout,
            settings.steps,
            settings.ring_slots,
            settings.guidance,
            latent,
            torch.float32,
            torch.device("meta"),
            resolved.sources,
        )
        frame = FrameModule(
            encode,
            net,
            DetailedDecoder(vae, Detail(**dict(detail))) if detail else PictureDecoder(vae),
            prediction=Prediction.EPSILON,
            guidance=settings.guidance,
            policy=settings.policy,
        )
        words = int(part_config(folder, "text_encoder")["max_position_embeddings"])
        words += conditions.further_rows(unet.config)
        inputs = example_inputs(net, state.tensors, len(state.positions), (words, int(unet.config.cross_attention_dim)))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            frame(picture, inputs, state.tensors)
    return int(counter.get_total_flops())


def peak_flops(device: str, dtype: str, *, seconds: float = 0.5) -> float:
    """Return the floating-point operations a second of large matrix products, the best of a short measurement."""
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
