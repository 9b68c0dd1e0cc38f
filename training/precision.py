"""In which precision a machine trains fastest.

Never the encoder's: what it gives are small differences of large sums, which bfloat16 leaves wrong by two fifths, and a
UNet that learned on those latents is given others when it runs.
"""

from __future__ import annotations

import torch


def precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it: a processor without AVX-512 takes four times as long as in float32."""
    has = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.bfloat16 if has else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Compute in that precision."""
    dtype = precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
