"""Small detail stages, a small autoencoder for them to stand behind, and folders of models with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor, nn

from core.algorithm.detail import Detail
from tests.support.model_folders import make_folder


class Source(nn.Module):
    """In a detail stage's place: shows the source itself, which says whose it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        return source


def small_detail(seed: int) -> Detail:
    """One that has learned something, anything."""
    return random_detail(seed, full=4, half=6, quarter=6, eighth=8, whole=8)


def random_detail(seed: int, **widths: int) -> Detail:
    """One of those widths that has learned something, anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Detail(**widths)
        for weight in net.parameters():
            nn.init.normal_(weight, 0, 0.2 if widths else 0.1)
    return net.eval().requires_grad_(False)


def small_autoencoder() -> AutoencoderTiny:
    """In float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vae: Any = AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )
    vae = vae.double().eval().requires_grad_(False)
    assert isinstance(vae, AutoencoderTiny)
    return vae


def make_detailed_folder(folder: Path, **given: Any) -> Path:
    """Writes a small model whose detail stage is random; given: for `make_folder`."""
    net = small_detail(1)
    make_folder(folder, description={"name": "small", "text_to_image": False, "detail": net.widths}, **given)
    (folder / "detail").mkdir()
    save_file({name: weight.half() for name, weight in net.state_dict().items()}, folder / "detail/model.safetensors")
    return folder
