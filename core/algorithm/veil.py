"""What a detail stage may see of the source at a strength that promises a picture of the prompt alone."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FROM = 0.9  # strength from which on the source is veiled; up to there looks are meant to keep a face
COARSE = 1 / 16  # of the shorter side, about the sigma of the blur at strength 1: a face has no eyes then


def veiled(picture: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Return the picture without what tells a person, the more of it the nearer strength (0..1) is to 1.

    RGB uint8 [height, width, 3] both; the same array up to FROM. A detail stage draws what it sees in the source
    whatever the noise has hidden of it from the UNet, so what must not be shown it must not see.
    """
    share = (strength - FROM) / (1 - FROM)
    reach = round(share * COARSE * min(picture.shape[:2]))
    if reach <= 0:
        return picture
    out = picture
    for _ in range(3):  # three boxes are nearly a Gaussian, and cost the same at any width
        out = np.asarray(cv2.blur(out, (2 * reach + 1, 2 * reach + 1), borderType=cv2.BORDER_REPLICATE), np.uint8)
    return out
