"""The one call that every runtime offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.algorithm.bank import Bank, Features, Reading

Picture = NDArray[np.uint8]  # RGB [height, width, 3]


class Net(Protocol):
    """(latents, timesteps, text, bank, reading) -> (prediction, features seen)."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading
    ) -> tuple[Tensor, Features]:
        """latents [rows, channels, h, w], timesteps [rows], text [rows, words, width] -> (prediction, features seen).

        The prediction has the latents' shape and is what the scheduler's prediction_type says. With an empty bank it
        is the stock UNet's.
        """
        ...
