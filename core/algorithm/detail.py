"""The detail stage: what a small decoder has lost, given back from the picture that was translated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


QUIET = 2.0  # levels of 255 that a sensor's noise changes the mean of some pixels by
MOVES = 12.0  # levels over that, from which on a change is taken as it is
LEAST = 0.2  # share of the new picture where nothing but noise is seen


def steadied(picture: Tensor, before: Tensor) -> Tensor:
    """Return the picture, less its sensor's noise where it is as it was before; both uint8 [height, width, 3]."""
    was = before.float()
    change = picture.float() - was
    height, width = (side // 2 for side in picture.shape[:2])
    # the mean of 2 by 2 pixels by plain sums: pooling a picture whose colours lie side by side takes longer
    rows = change.view(height, 2, 6 * width)
    pairs = (rows[:, 0] + rows[:, 1]).view(height, width, 2, 3)
    blocks = (pairs[:, :, 0] + pairs[:, :, 1]).abs().mean(2) / 4
    seen = F.avg_pool2d(blocks[None, None], 3, 1, 1)
    share = _twice(((seen - QUIET) / MOVES).clamp(LEAST, 1))[0, 0, :, :, None]
    return (was + share * change).round().to(torch.uint8)


POINTS = (
    *("enter", "to_half", "to_quarter", "to_eighth", "eighth.0", "after.0", "eighth.1", "after.1"),
    *("whole", "from_eighth", "joined", "quarter", "after.quarter"),
    *("gain_half", "shift_half", "scaled_half", "gated_half"),
    *("gain_full", "shift_full", "scaled_full", "gated_full", "full", "leave"),
)


KNOTS = 12  # brightnesses, evenly spaced, between which a tone curve is a straight line
EVERY = 4  # of so many pixels each way, one is looked at for the curve
SOME = (..., slice(EVERY // 2, None, EVERY), slice(EVERY // 2, None, EVERY))  # those, of [..., h, w]
PRESENT = 1e-3  # share of the pixels that hardly counts
GREYS = (0.299, 0.587, 0.114)  # weights of red, green and blue in a brightness


def knots() -> Tensor:
    """Return the share of each knot in each level of brightness, [256, KNOTS]; a level's shares sum to 1."""
    at = torch.arange(256)[:, None] / 255 * (KNOTS - 1)
    return (1 - (at - torch.arange(KNOTS)).abs()).clamp(min=0)


def levels(source: Tensor) -> Tensor:
    """Return the brightness of pictures [n, 3, h, w], -1..1, in levels 0..255, int64 [n, h, w]."""
    red, green, blue = source.float().unbind(1)
    grey = GREYS[0] * red + GREYS[1] * green + GREYS[2] * blue
    return ((grey + 1) * 127.5).round().clamp(0, 255).to(torch.int64)


class ToneCurve(nn.Module):
    """Puts right what colour each brightness of the source has become, in the picture as a whole.

    A small UNet knows the style, but misses its tones by a little, everywhere alike. What the translation makes of each
    brightness is seen over the whole picture, and tells the style and the mistake: a net of two layers says what to add
    at each of KNOTS brightnesses. So what comes in at one side may change the tones of the other, a little. It begins
    as nothing.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4 * KNOTS, hidden), nn.ReLU(), nn.Linear(hidden, 3 * KNOTS))
        for weight in self.layers[2].parameters():
            nn.init.zeros_(weight)
        self.knots: Tensor
        self.register_buffer("knots", knots(), persistent=False)

    def forward(self, picture: Tensor, level: Tensor) -> Tensor:
        """Return what to add at each level of brightness, [n, 256, 3], -1..1; looks at every pixel that is given.

        picture: [n, 3, h, w], -1..1; level: the source's `levels` there, [n, h, w].
        """
        shares = self.knots[level.flatten(1)].float()  # [n, pixels, KNOTS]
        colours = picture.flatten(2).mT.float()  # [n, pixels, 3]
        counts = shares.mean(1)  # [n, KNOTS]
        # no matrix product: TensorRT has none in float32 for Turing, and in float16 so many pixels do not sum up
        sums = (shares[..., None] * colours[:, :, None]).mean(1)
        means = sums / (counts + PRESENT)[..., None]  # 0 where there is no such pixel
        seen = torch.cat([means.flatten(1), counts], 1).to(self.knots)
        added: Tensor = self.knots @ self.layers(seen).view(-1, KNOTS, 3)
        return added


def toned(picture: Tensor, level: Tensor, added: Tensor) -> Tensor:
    """Return the picture with what a tone curve adds at each pixel's brightness; see ToneCurve."""
    count, each = added.shape[:2]
    if count > 1:
        level = level + each * torch.arange(count, device=level.device)[:, None, None]
    # one index a pixel: whole rows of three colours are looked up
    more = F.embedding(level, added.flatten(0, 1))  # [n, h, w, 3]
    return (picture + more.permute(0, 3, 1, 2).to(picture)).clamp(-1, 1)


class Detail(nn.Module):
    """Translation and source [n, 3, h, w], -1..1, to the translation with its detail; sides are multiples of 8.

    The full resolution sees few filters; which of them matter, and where, is decided at a half, a quarter and an eighth
    of it, and by the mean of the whole picture, which knows the style. It begins as the identity. The last layer makes
    four pixels at once, at half the resolution. Before all of it the picture's tones are put right (ToneCurve).
    ranges: the least and the greatest that is found at each of `POINTS`, for a runtime that computes in 8 bits.
    """

    def __init__(self, full: int = 16, half: int = 32, quarter: int = 32, eighth: int = 48, whole: int = 64) -> None:
        super().__init__()
        self.tones = ToneCurve(whole)
        self.widths = {"full": full, "half": half, "quarter": quarter, "eighth": eighth, "whole": whole}
        self.enter = nn.Conv2d(6, full, 3, padding=1)
        self.to_half = nn.Conv2d(full, half, 3, 2, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 3, 2, padding=1)
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, 2, padding=1)
        self.eighth = nn.ModuleList([nn.Conv2d(eighth, eighth, 3, padding=1) for _ in range(2)])
        self.whole = nn.Sequential(nn.Linear(eighth, whole), nn.ReLU(), nn.Linear(whole, 2 * eighth))
        self.from_eighth, self.quarter = nn.Conv2d(eighth, quarter, 1), nn.Conv2d(quarter, quarter, 3, padding=1)
        self.gain_half, self.shift_half = (nn.Conv2d(quarter, half, 1) for _ in range(2))
        self.gain_full, self.shift_full = (nn.Conv2d(half, full, 1) for _ in range(2))
        self.full = nn.Conv2d(full, full, 3, padding=1)
        self.leave = nn.Conv2d(full, 12, 4, 2, padding=1)
        for weight in self.leave.parameters():
            nn.init.zeros_(weight)
        self.ranges: Tensor
        self.register_buffer("ranges", torch.zeros(len(POINTS), 2))

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        """Return the translation with its detail, both -1..1."""
        level = levels(source)
        return self.drawn(toned(picture, level, self.tones(picture[SOME], level[SOME])), source)

    def drawn(self, picture: Tensor, source: Tensor) -> Tensor:
        """Return a translation whose tones are right with its detail, both -1..1."""
        out: Tensor = picture + F.pixel_shuffle(self.points(picture, source)["leave"], 2)
        return out

    def kept(self, name: str, value: Tensor) -> Tensor:
        """Return what goes on from a point: the value itself; training rounds it as 8 bits would."""
        return value

    def points(self, picture: Tensor, source: Tensor) -> dict[str, Tensor]:
        """Return what is found at each of `POINTS`, in their order; the last is what is added, four pixels at once."""
        found: dict[str, Tensor] = {}

        def at(name: str, value: Tensor) -> Tensor:
            found[name] = value
            return self.kept(name, value)

        full = at("enter", F.relu(self.enter(torch.cat([picture, source], 1))))
        half = at("to_half", F.relu(self.to_half(full)))
        quarter = at("to_quarter", F.relu(self.to_quarter(half)))
        eighth = at("to_eighth", F.relu(self.to_eighth(quarter)))
        for number, layer in enumerate(self.eighth):
            eighth = at(f"after.{number}", eighth + at(f"eighth.{number}", F.relu(layer(eighth))))
        gain, shift = self.whole(eighth.mean((2, 3)))[:, :, None, None].chunk(2, 1)
        eighth = at("from_eighth", self.from_eighth(at("whole", eighth * (1 + gain) + shift)))
        quarter = at("joined", F.relu(quarter + _twice(eighth)))
        quarter = at("after.quarter", quarter + at("quarter", F.relu(self.quarter(quarter))))
        gain, shift = at("gain_half", self.gain_half(quarter)), at("shift_half", self.shift_half(quarter))
        half = at("gated_half", F.relu(at("scaled_half", half * _twice(gain)) + _twice(shift)))
        gain, shift = at("gain_full", self.gain_full(half)), at("shift_full", self.shift_full(half))
        full = at("gated_full", F.relu(at("scaled_full", full * _twice(gain)) + _twice(shift)))
        found["leave"] = at("leave", self.leave(at("full", F.relu(self.full(full)))))
        return found
