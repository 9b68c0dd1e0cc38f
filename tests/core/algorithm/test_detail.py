"""core.algorithm.detail: a translation with its detail, and the right source beside each frame."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from core.algorithm import stream
from core.algorithm.detail import Detail
from core.algorithm.frame import DetailedDecode, Sharpen, queue
from core.settings import Policy
from tests.core.algorithm.test_frame import DEVICE, LATENT, SIZE, advance, parts, pictures, plan, whole


class Source(nn.Module):
    """In a detail stage's place: shows the source itself, which says whose it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        return source


def shaken(seed: int) -> Detail:
    """One that has learned something, anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Detail(full=4, half=6, quarter=6, eighth=8, whole=8)
        for weight in net.parameters():
            nn.init.normal_(weight, 0, 0.2)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(8, 8), (64, 80), (48, 136)])
def test_it_begins_as_the_identity_at_every_size(size: tuple[int, int]) -> None:
    picture, source = (torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for _ in range(2))
    assert torch.equal(Sharpen(Detail())(picture, source), picture)


def test_it_looks_at_both_pictures() -> None:
    sharpen = Sharpen(shaken(0))
    one, other = (torch.randint(0, 256, (32, 40, 3), dtype=torch.uint8) for _ in range(2))
    shown = sharpen(one, other)
    assert not torch.equal(shown, sharpen(one, one))
    assert not torch.equal(shown, sharpen(other, other))


def test_a_source_waits_until_its_frame_is_shown() -> None:
    waiting, shown = torch.zeros(2, 1, 1, 3, dtype=torch.uint8), []
    for number in range(1, 6):
        source, waiting = queue(torch.full((1, 1, 3), number, dtype=torch.uint8), waiting)
        shown.append(int(source[0, 0, 0]))
    assert shown == [0, 0, 1, 2, 3]


def test_where_nobody_asks_nothing_is_remembered() -> None:
    picture, none = torch.ones(8, 8, 3, dtype=torch.uint8), torch.zeros(0, 0, 0, 3, dtype=torch.uint8)
    source, after = queue(picture, none)
    assert source is picture
    assert after is none


@pytest.mark.parametrize("steps", [1, 2, 4])
@torch.inference_mode()
def test_each_frame_is_shown_with_its_own_source(steps: int) -> None:
    model, own = parts(), plan(Policy.FIFO, steps)
    decode = DetailedDecode(copy.deepcopy(model.decode.vae), Source().double())
    frame = whole(model._replace(decode=decode), own)
    size, layout = (SIZE, SIZE), {}
    state = stream.start(layout, steps, 1, own.guidance, LATENT, torch.float64, DEVICE, size)
    apart = stream.start(layout, steps, 1, own.guidance, LATENT, torch.float64, DEVICE, size)
    by_parts = stream.Parts(
        encode=lambda picture: model.encode(torch.from_numpy(picture)),
        net=model.net,
        decode=lambda latent, source: decode(latent, source).numpy(),
    )
    given = pictures(steps + 2)
    for number, picture in enumerate(given):
        shown, state = advance(frame, own, state, picture, cached=True)
        develop, apart = stream.by_parts(by_parts, own, apart, picture.numpy())
        assert torch.equal(torch.from_numpy(develop()), shown)
        if number >= steps - 1:
            assert torch.equal(shown, given[number - steps + 1])
    assert state.memory.sources.shape == (steps - 1, SIZE, SIZE, 3)
