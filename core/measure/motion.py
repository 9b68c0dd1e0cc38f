"""Optical flow from one picture to the next, and where it can be trusted.

Pictures are RGB uint8 [height, width, 3].
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from core.errors import MetricError

OF_MOTION, PIXELS = 0.01, 0.5  # by how much, squared, a flow and its way back may be apart where a pixel is visible

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class OpticalFlow(Protocol):
    """Optical flow: what is at p in `a` is at p + flow[p] in `b`; pixels, float32 [height, width, (x, y)]."""

    def __call__(self, a: Pixels, b: Pixels) -> Floats:
        """Return the flow from `a` to `b`."""


def dis_flow() -> OpticalFlow:
    """Return OpenCV's dense inverse search flow (Kroeger et al., ECCV 2016), preset medium, on grey levels."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(a: Pixels, b: Pixels) -> Floats:
        nothing_known = np.zeros((*a.shape[:2], 2), np.float32)
        return cast(Floats, search.calc(_grey(a), _grey(b), nothing_known))

    return flow


def farneback_flow() -> OpticalFlow:
    """Return OpenCV's flow by polynomial expansion (Farneback, SCIA 2003), on grey levels.

    It looks for motion in another way than dense inverse search: what is mixed along that flow (core.steadying) may be
    judged by this one.
    """

    def flow(a: Pixels, b: Pixels) -> Floats:
        nothing_known = np.zeros((*a.shape[:2], 2), np.float32)
        found = cv2.calcOpticalFlowFarneback(_grey(a), _grey(b), nothing_known, 0.5, 5, 13, 5, 7, 1.5, 0)
        return cast(Floats, found)

    return flow


def raft_weights(given: Path | None = None) -> Path:
    """Return the file of RAFT's weights: that given, else the first in torch's own cache. Raises MetricError."""
    if given is None:
        import torch

        cached = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob("raft_*.pth"))
        if not cached:
            raise MetricError("no RAFT weights in torch's cache; give their file (raft:FILE), or use the flow dis")
        return cached[0]
    if not given.is_file():
        raise MetricError(f"{given}: no such file; give RAFT's weights (raft:FILE), or use the flow dis")
    return given


def raft_flow(weights: Path | None = None) -> OpticalFlow:
    """Return RAFT (Teed and Deng, ECCV 2020) of torchvision with weights that are on this machine; never download.

    weights: a state dict file of `raft_large` or `raft_small`; None looks in torch's own cache. Raises MetricError.
    """
    try:
        import torch

        models: Any = importlib.import_module("torchvision.models.optical_flow")  # not a dependency of ours
    except ImportError as error:
        raise MetricError("RAFT needs torchvision: pip install torchvision, or use the flow dis") from error
    except RuntimeError as error:  # its compiled half was built for another torch
        raise MetricError("this torchvision does not fit this torch; install its twin, or use the flow dis") from error
    weights = raft_weights(weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        large = (
            "feature_encoder.convnormrelu.0.weight" in state
            and state["feature_encoder.convnormrelu.0.weight"].shape[0] == 64
        )
        net = (models.raft_large if large else models.raft_small)(weights=None)
        net.load_state_dict(state)
    except Exception as error:  # a file that is something else leads torch to raise whatever
        raise MetricError(f"{weights}: not RAFT weights of torchvision; use another file or the flow dis") from error
    net = net.eval().to(device)

    def flow(a: Pixels, b: Pixels) -> Floats:
        height, width = a.shape[:2]
        below, right = -height % 8, -width % 8  # RAFT takes multiples of 8, of at least 128
        below, right = max(below, 128 - height), max(right, 128 - width)
        padded = [cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in (a, b)]
        batch = torch.from_numpy(np.stack(padded)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1  # [2, 3, h, w]
        with torch.inference_mode():
            found = net(batch[:1], batch[1:])[-1][0].permute(1, 2, 0).cpu().numpy()  # [h, w, 2]
        return np.ascontiguousarray(found[:height, :width], np.float32)

    return flow


class Motion(NamedTuple):
    """The motion from one source picture to the next.

    back: flow from now to before, float32 [height, width, 2]. visible: bool [height, width], which pixels of now can
    be seen in both; there `before` warped by `back` should look like `now`. forth: flow from before to now, at the
    pixels of before.
    """

    back: Floats
    visible: Mask
    forth: Floats

    def inside(self, region: Mask | None) -> Motion:
        """Return the same motion, where only what lies in the region (of now) counts."""
        return self if region is None else self._replace(visible=self.visible & region)


def motion(before: Pixels, now: Pixels, flow: OpticalFlow) -> Motion:
    """Return the motion between two source pictures, with the forward/backward check of Sundaram et al. (ECCV 2010).

    A pixel is visible in both when |b + f|^2 < 0.01 (|b|^2 + |f|^2) + 0.5 (pixels), where b is the flow back at the
    pixel and f the flow forth at the place it points to, and that place lies inside the picture.
    """
    back, forth = flow(now, before), flow(before, now)
    returned = warped(forth, back)
    apart = square(back + returned)
    height, width = back.shape[:2]
    x, y = places(back)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Motion(back, inside & (apart < OF_MOTION * (square(back) + square(returned)) + PIXELS), forth)


def well_inside(region: Mask | None, pixels: int) -> Mask | None:
    """Return the part of a region that is more than so many pixels from its border; the picture's edge is none."""
    if region is None:
        return None
    side = 2 * pixels + 1
    return cv2.erode(region.astype(np.uint8), np.ones((side, side), np.uint8), borderValue=1).astype(bool)


def warped(picture: npt.NDArray[Any], back: Floats) -> Floats:
    """Warp a picture by a flow back to it: result[p] = picture[p + back[p]], bilinear, float32."""
    x, y = places(back)
    source = picture.astype(np.float32)
    return cast(Floats, cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def places(back: Floats) -> tuple[Floats, Floats]:
    """Return where a flow back points to: x and y in pixels, each float32 [height, width]."""
    height, width = back.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x + back[..., 0], y + back[..., 1]


def square(flow: Floats) -> Floats:
    """Return the flow's length squared, float32 [height, width]."""
    return np.asarray((flow * flow).sum(axis=2), np.float32)


def _grey(picture: Pixels) -> Pixels:
    return cast(Pixels, cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
