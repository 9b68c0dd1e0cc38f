"""The UNet call that every model offers, and the type of a picture."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.algorithm.bank import Bank, Features, Reading

Picture = NDArray[np.uint8]  # RGB [height, width, 3]


class Net(Protocol):
    """A UNet that reads a bank: (latents, timesteps, text, bank, reading) -> (prediction, features seen)."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading
    ) -> tuple[Tensor, Features]:
        """Predict: latents [rows, channels, h, w], timesteps [rows], text [rows, words, width].

        The text's last rows may be no words (core.algorithm.conditions).
        Return (prediction, features seen). The prediction has the latents' shape and is of the kind that the
        scheduler's prediction_type names. With an empty bank it is the stock UNet's.
        """
        ...
