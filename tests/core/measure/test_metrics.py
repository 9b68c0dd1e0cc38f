"""The metrics on sequences whose motion, noise and ghosts are known exactly."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from core.errors import MetricError
from core.measure import metrics
from core.measure.clip import Clip
from core.measure.drift import POINTS
from core.measure.flicker import FlickerSums
from core.measure.metrics import (
    cosine,
    descriptor,
    edit_strength,
    edit_structure,
    frame_consistency,
    ghosting,
    measure,
    pair_warp_error,
    warp_error,
)
from core.measure.motion import Motion, OpticalFlow, dis_flow, farneback_flow, motion, raft_flow, warped

HEIGHT, WIDTH = 120, 160


@functools.cache
def texture(seed: int = 0, size: int = 400) -> np.ndarray:
    """A smooth random colour texture, RGB uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3), np.float32)
    for sigma, weight in ((2, 1.0), (5, 1.5), (12, 2.0)):
        layer = cv2.GaussianBlur(rng.standard_normal((size, size, 3)).astype(np.float32), (0, 0), sigma)
        total += weight * layer / layer.std()
    return np.clip(128 + 30 * total, 0, 255).astype(np.uint8)


def moved(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The window of `picture` whose contents have moved by (dx, dy) pixels."""
    matrix = np.array([[1, 0, 100 - dx], [0, 1, 100 - dy]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=flags)


def pan(frames: int, dx: float, dy: float, picture: np.ndarray | None = None) -> list[np.ndarray]:
    picture = texture() if picture is None else picture
    return [moved(picture, dx * t, dy * t) for t in range(frames)]


def turning(frames: int, degrees: float) -> list[np.ndarray]:
    picture = texture(3)
    result = []
    for t in range(frames):
        matrix = cv2.getRotationMatrix2D((200, 200), degrees * t, 1)
        turned = cv2.warpAffine(picture, matrix, (400, 400), flags=cv2.INTER_CUBIC)
        result.append(turned[140 : 140 + HEIGHT, 120 : 120 + WIDTH])
    return result


def known(back: tuple[float, float]) -> Motion:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[:] = back
    return Motion(flow, np.ones((HEIGHT, WIDTH), bool), -flow)


# ------------------------------------------------------------------------------------------------ flow and warp


@pytest.mark.parametrize("flow", [dis_flow, farneback_flow])
@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -4), (2.5, 1.25), (-6, 5)])
def test_a_known_shift_is_found(shift: tuple[float, float], flow: Callable[[], OpticalFlow]) -> None:
    before, now = pan(2, *shift)
    seen = motion(before, now, flow())
    inner = seen.back[20:-20, 20:-20]
    assert np.abs(inner - np.array([-shift[0], -shift[1]])).mean() < 0.15
    assert seen.visible[20:-20, 20:-20].mean() > 0.97


@pytest.mark.parametrize("flow", [dis_flow, farneback_flow])
def test_a_known_rotation_is_found(flow: Callable[[], OpticalFlow]) -> None:
    before, now = turning(2, 2.0)
    seen = motion(before, now, flow())
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    cx, cy, angle = 200 - 120, 200 - 140, np.deg2rad(2.0)  # counter-clockwise on the screen
    dx, dy = x - cx, y - cy
    there = np.stack([np.cos(angle) * dx - np.sin(angle) * dy - dx, np.sin(angle) * dx + np.cos(angle) * dy - dy], 2)
    error = np.linalg.norm(seen.back - there, axis=2)
    assert error[15:-15, 15:-15].mean() < 0.2
    assert warp_error([before, now], [before, now]) == pytest.approx(0, abs=3)


@examples(max_examples=15)
@given(st.integers(-9, 9), st.integers(-9, 9))
def test_a_whole_shift_is_undone_exactly(dx: int, dy: int) -> None:
    before, now = pan(2, dx, dy)
    back = warped(before, known((-dx, -dy)).back)
    inner = (slice(10, -10), slice(10, -10))
    assert (back[inner] == now[inner]).all()


def test_a_part_of_a_pixel_is_bilinear() -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
    picture = np.dstack([ramp] * 3)
    back = warped(picture, known((0.25, 0)).back)
    assert np.allclose(back[:, 5:-5, 0], ramp[:, 5:-5] + 0.25, atol=1e-2)


# ------------------------------------------------------------------------------------------------ warp error


def test_identical_pictures_have_no_error() -> None:
    still = [texture()[:HEIGHT, :WIDTH]] * 4
    found = measure(still, still)
    assert found.warp_error == found.warp_error_input == 0
    assert found.frame_consistency == pytest.approx(100)
    assert found.edit_strength == 0
    assert found.edit_structure == pytest.approx(0, abs=1e-5)
    assert found.ghosting is None  # nothing moves
    assert found.frames == 4


@pytest.mark.parametrize("sigma", [2.0, 5.0, 15.0])
def test_noise_has_the_error_that_theory_says(sigma: float) -> None:
    rng = np.random.default_rng(1)
    still = [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 6
    noisy = [np.clip(np.rint(s + rng.normal(0, sigma, s.shape)), 0, 255).astype(np.uint8) for s in still]
    assert warp_error(still, noisy) == pytest.approx(2 * (sigma**2 + 1 / 12), rel=0.03)  # 1/12: rounding


@pytest.mark.parametrize("shift", [(3, 1), (-5, 0), (1.5, 2.25)])
def test_an_edit_that_moves_with_the_picture_has_little_error(shift: tuple[float, float]) -> None:
    source = pan(5, *shift)
    edit = pan(5, *shift, picture=255 - texture(0)[..., ::-1])
    frozen = [edit[0]] * 5
    assert (warp_error(source, edit) or 0) < 12
    assert (warp_error(source, source) or 0) < 12
    assert (warp_error(source, frozen) or 0) > 300


def test_a_constant_flicker_is_its_square() -> None:
    source = [texture()[:HEIGHT, :WIDTH] // 2] * 6
    output = [s + np.uint8(10 * (i % 2)) for i, s in enumerate(source)]
    assert warp_error(source, output) == pytest.approx(100)


@given(st.integers(0, 100), st.integers(0, 100))
def test_the_error_is_symmetric_in_sign(a: int, b: int) -> None:
    first, second = (np.full((32, 32, 3), v, np.uint8) for v in (a, b))
    still = Motion(np.zeros((32, 32, 2), np.float32), np.ones((32, 32), bool), np.zeros((32, 32, 2), np.float32))
    assert pair_warp_error(first, second, still) == pair_warp_error(second, first, still) == (a - b) ** 2


def square_over_ground(frames: int, step: int) -> list[np.ndarray]:
    ground, square = texture(7)[:HEIGHT, :WIDTH], texture(8)[:40, :40]
    result = []
    for t in range(frames):
        picture = ground.copy()
        picture[40:80, 20 + step * t : 60 + step * t] = square
        result.append(picture)
    return result


def square_flow(step: int) -> OpticalFlow:
    """The exact flow of `square_over_ground` between its first two pictures, told apart by where the square is."""
    ground, square = texture(7)[:HEIGHT, :WIDTH], texture(8)[:40, :40]

    def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        result = np.zeros((HEIGHT, WIDTH, 2), np.float32)
        forth = (a[40:80, 20:60] == square).all()
        at = 20 if forth else 20 + step
        assert (a[:40] == ground[:40]).all()
        result[40:80, at : at + 40, 0] = step if forth else -step
        return result

    return flow


def test_what_a_moving_square_uncovers_does_not_count() -> None:
    before, now = square_over_ground(2, 6)
    seen = motion(before, now, square_flow(6))
    uncovered = np.zeros((HEIGHT, WIDTH), bool)
    uncovered[40:80, 20:26] = True
    assert not seen.visible[uncovered].any()
    assert seen.visible[~uncovered].all()
    assert pair_warp_error(before, now, seen) == 0


def test_dis_leaves_out_most_of_what_is_uncovered() -> None:
    before, now = square_over_ground(2, 6)
    seen = motion(before, now, dis_flow())
    assert seen.visible[42:78, 20:26].mean() < 0.6
    assert seen.visible[:30].mean() > 0.97
    assert seen.visible[85:].mean() > 0.97
    all_of_it = pair_warp_error(before, now, seen._replace(visible=np.ones_like(seen.visible)))
    checked = pair_warp_error(before, now, seen)
    assert checked is not None
    assert all_of_it is not None
    assert checked < 0.85 * all_of_it


def test_what_left_the_picture_does_not_count() -> None:
    before, now = pan(2, 8, 0)
    seen = motion(before, now, dis_flow())
    assert seen.visible[20:-20, :6].mean() < 0.2


def test_a_cut_is_left_out() -> None:
    black, rng = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.random.default_rng(0)
    far = known((500, 500))._replace(visible=np.zeros((HEIGHT, WIDTH), bool))
    noise = rng.integers(0, 255, black.shape).astype(np.uint8)
    assert pair_warp_error(black, noise, far) is None


# ------------------------------------------------------------------------------------------------ consistency


def test_the_descriptor_is_a_unit_vector_that_tells_pictures_apart() -> None:
    a, b = texture(0)[:HEIGHT, :WIDTH], texture(1)[:HEIGHT, :WIDTH]
    assert np.linalg.norm(descriptor(a)) == pytest.approx(1, abs=1e-5)
    assert descriptor(a).shape == (1152,)
    assert cosine(descriptor(a), descriptor(a)) == pytest.approx(1)
    assert cosine(descriptor(a), descriptor(b)) < 0.9


def test_a_plain_picture_has_a_descriptor() -> None:
    plain = descriptor(np.full((40, 40, 3), 99, np.uint8))
    assert np.isfinite(plain).all()
    assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-5)


def test_consistency_falls_with_flicker() -> None:
    rng = np.random.default_rng(2)
    calm = pan(6, 1, 0)

    def shaken(sigma: float) -> list[np.ndarray]:
        noise = [cv2.GaussianBlur(rng.normal(0, 1, c.shape), (0, 0), 3) for c in calm]
        return [np.clip(c + sigma * n / n.std(), 0, 255).astype(np.uint8) for c, n in zip(calm, noise, strict=True)]

    values = [frame_consistency(film) or 0.0 for film in (calm, shaken(10), shaken(40))]
    assert values == sorted(values, reverse=True)
    assert 97 < values[0] <= 100


def test_one_picture_has_no_consistency() -> None:
    assert frame_consistency([texture()]) is None
    assert warp_error([texture()], [texture()]) is None


@examples(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_consistency_lies_between_0_and_100(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = frame_consistency([rng.integers(0, 256, (32, 48, 3)).astype(np.uint8) for _ in range(2)])
    assert value is not None
    assert 0 <= value <= 100


# ------------------------------------------------------------------------------------------------ strength


def test_black_against_white_is_100() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert edit_strength([black], [white]) == pytest.approx(100, abs=0.1)


def test_a_known_colour_difference() -> None:
    skimage = pytest.importorskip("skimage.color")
    a, b = (np.full((32, 32, 3), c, np.uint8) for c in ((200, 40, 30), (30, 90, 200)))
    wanted = skimage.deltaE_cie76(skimage.rgb2lab(a[:1, :1]), skimage.rgb2lab(b[:1, :1])).item()
    assert edit_strength([a], [b]) == pytest.approx(wanted, rel=0.01)


def test_structure_is_ssim() -> None:
    a = texture(4)[:HEIGHT, :WIDTH]
    assert edit_structure([a], [a]) == pytest.approx(0, abs=1e-5)
    assert edit_structure([a], [texture(5)[:HEIGHT, :WIDTH]]) > 0.7
    darker = (a * 0.8).astype(np.uint8)
    assert edit_structure([a], [darker]) < 0.15  # structure stays
    assert edit_strength([a], [darker]) > 5  # colour does not


@given(st.integers(1, 60))
def test_more_change_is_more_strength(amount: int) -> None:
    a = np.full((32, 32, 3), 100, np.uint8)
    assert edit_strength([a], [a + np.uint8(amount)]) < edit_strength([a], [a + np.uint8(amount + 5)])


# ------------------------------------------------------------------------------------------------ ghosts


def ghosted(clean: list[np.ndarray], share: float) -> list[np.ndarray]:
    result = [clean[0].astype(np.float64)]
    for picture in clean[1:]:
        result.append((1 - share) * picture + share * result[-1])
    return [np.rint(r).astype(np.uint8) for r in result]


@functools.cache
def styles() -> dict[str, np.ndarray]:
    """Clean edits of a pan: all move with the picture."""
    base = texture(0)
    rng = np.random.default_rng(9)
    clay = cv2.GaussianBlur(rng.normal(0, 1, base.shape[:2]), (0, 0), 1.5)[..., None]
    with_texture = np.clip(base.astype(float) + 25 * clay / clay.std(), 0, 255).astype(np.uint8)
    edges = cv2.Laplacian(cv2.cvtColor(base, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=3)
    ink = np.dstack([np.where(np.abs(edges) > np.percentile(np.abs(edges), 70), 20, 235).astype(np.uint8)] * 3)
    return {
        "same": base,
        "negative": 255 - base,
        "posterised": base // 64 * 64,
        "own texture": with_texture,
        "ink": ink,
    }


SHIFTS = [(3, 0), (5, -4), (2, 1)]


@pytest.mark.parametrize("style", ["same", "negative"])
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_known_share_of_a_ghost_is_found(style: str, shift: tuple[int, int], share: float) -> None:
    clean = pan(5, *shift, picture=styles()[style])
    assert ghosting(pan(5, *shift), ghosted(clean, share)) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("style", ["posterised", "own texture", "ink"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_ghost_of_what_the_edit_invents_is_found_in_part(style: str, shift: tuple[int, int]) -> None:
    clean = pan(5, *shift, picture=styles()[style])
    found = [ghosting(pan(5, *shift), ghosted(clean, share)) or 0 for share in (0.1, 0.3, 0.5)]
    assert found == sorted(found)
    assert 0.5 / 3 < found[2] < 0.5


@pytest.mark.parametrize("style", ["same", "negative", "posterised", "own texture", "ink"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_clean_edit_is_never_accused(style: str, shift: tuple[int, int]) -> None:
    clean = pan(5, *shift, picture=styles()[style])
    assert ghosting(pan(5, *shift), clean) == pytest.approx(0, abs=0.03)


def test_a_picture_that_stands_still_or_is_late_is_all_ghost() -> None:
    source = pan(8, 4, 2)
    assert ghosting(source, [source[0]] * 8) == pytest.approx(1, abs=0.1)


def test_independent_noise_is_no_ghost() -> None:
    rng = np.random.default_rng(3)
    source = pan(6, 4, 0)
    noisy = [np.clip(s + rng.normal(0, 20, s.shape), 0, 255).astype(np.uint8) for s in source]
    assert ghosting(source, noisy) == pytest.approx(0, abs=0.05)


def test_plain_pictures_have_no_ghost_to_measure() -> None:
    source = pan(4, 4, 0)
    assert ghosting(source, [np.full_like(s, 77) for s in source]) is None


# ------------------------------------------------------------------------------------------------ whole films


def test_one_pass_equals_the_single_functions() -> None:
    source, output = pan(5, 3, 1), ghosted(pan(5, 3, 1, picture=255 - texture()), 0.2)
    seen: list[int] = []
    found = measure(iter(source), iter(output), done=seen.append)
    assert found.warp_error == warp_error(source, output)
    assert found.warp_error_input == warp_error(source, source)
    assert found.frame_consistency == frame_consistency(output)
    assert found.edit_strength == edit_strength(source, output)
    assert found.edit_structure == edit_structure(source, output)
    assert found.ghosting == ghosting(source, output)
    assert seen == [1, 2, 3, 4, 5]


def test_memory_does_not_grow_with_length() -> None:
    still = texture()[:64, :64]

    def peak(frames: int) -> int:
        def many() -> Iterator[np.ndarray]:
            return (still + np.uint8(i % 3) for i in range(frames))

        tracemalloc.start()
        measure(many(), many())
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(3)
    assert peak(4 * POINTS) < peak(2 * POINTS) * 1.2  # from there on stretches of the curve are put together


@pytest.mark.parametrize(("a", "b"), [(3, 5), (5, 3), (0, 1)])
def test_other_counts_are_named(a: int, b: int) -> None:
    one = texture()[:32, :32]
    longer, shorter = max(a, b), min(a, b)
    with pytest.raises(MetricError, match=f"has {longer} pictures and the other {shorter}"):
        measure([one] * a, [one] * b)


def test_other_sizes_and_nothing_are_named() -> None:
    with pytest.raises(MetricError, match="32x40 in the source and 40x32 in the output"):
        measure([np.zeros((40, 32, 3), np.uint8)], [np.zeros((32, 40, 3), np.uint8)])
    with pytest.raises(MetricError, match="no picture"):
        measure([], [])


class StandIn(torch.nn.Module):
    """What torchvision's RAFT is to its caller; sees whole shifts of up to 4 pixels, the same for all pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first = torch.nn.Sequential(torch.nn.Conv2d(3, width, 7))
        self.feature_encoder = torch.nn.ModuleDict({"convnormrelu": first})

    def forward(self, image1: torch.Tensor, image2: torch.Tensor) -> list[torch.Tensor]:
        _, channels, height, width = image1.shape
        assert image1.shape == image2.shape == (1, 3, height, width)
        assert channels == 3
        assert height % 8 == width % 8 == 0, "RAFT takes multiples of 8"
        assert min(height, width) >= 128, "torchvision's RAFT refuses smaller pictures"
        assert -1 <= float(image1.min()) < -0.5 < 0.5 < float(image1.max()) <= 1
        inner = (slice(4, -4), slice(4, -4))

        def miss(shift: tuple[int, int]) -> float:
            rolled = torch.roll(image2, (-shift[1], -shift[0]), (2, 3))
            return float((rolled - image1)[0, :, *inner].square().mean())

        best = min(itertools.product(range(-4, 5), range(-4, 5)), key=miss)
        flow = torch.tensor(best, dtype=torch.float32)[None, :, None, None].expand(1, 2, height, width)
        return [torch.zeros_like(flow), flow]  # one an iteration, the last is the best


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A torchvision with RAFT; the widths of the networks that were built."""
    built: list[int] = []

    def make(width: int) -> Callable[..., StandIn]:
        def raft(weights: None) -> StandIn:
            assert weights is None  # which would download
            built.append(width)
            return StandIn(width)

        return raft

    for name in ("torchvision", "torchvision.models", "torchvision.models.optical_flow"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module: Any = sys.modules["torchvision.models.optical_flow"]
    module.raft_small, module.raft_large = make(32), make(64)
    return built


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("shift", [(3, -2), (0, 0), (-1, 4)])
def test_raft_gives_the_motion_in_the_pictures_own_pixels(
    tmp_path: Path, torchvision: list[int], width: int, shift: tuple[int, int]
) -> None:
    torch.save(StandIn(width).state_dict(), tmp_path / "raft.pth")
    flow = raft_flow(tmp_path / "raft.pth")
    assert torchvision == [width]  # by the weights' own shape
    before, now = pan(2, *shift)
    found = flow(before, now)
    assert found.shape == (HEIGHT, WIDTH, 2)
    assert found.dtype == np.float32
    assert (found == shift).all()
    assert (flow(before[:61, :93], now[:61, :93]) == shift).all()  # no multiple of 8, and smaller than RAFT takes


def test_raft_takes_the_weights_of_torchs_cache(
    tmp_path: Path, torchvision: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MetricError, match="no RAFT weights in torch's cache"):
        raft_flow()
    (tmp_path / "checkpoints").mkdir()
    torch.save(StandIn(64).state_dict(), tmp_path / "checkpoints" / "raft_large_C_T_SKHT_V2-ff5fadd5.pth")
    raft_flow()
    assert torchvision == [64]


@pytest.mark.parametrize("content", [{"nothing": torch.zeros(1)}, [1, 2], torch.zeros(3), None])
def test_files_that_are_no_raft_weights_are_refused(tmp_path: Path, torchvision: list[int], content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path) if content is not None else path.write_bytes(b"no weights at all")
    with pytest.raises(MetricError, match=r"other\.pth: not RAFT weights"):
        raft_flow(path)


def test_raft_without_a_file_or_torchvision_says_what_to_do(
    tmp_path: Path, torchvision: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MetricError, match=r"nowhere\.pth: no such file; give RAFT's weights"):
        raft_flow(tmp_path / "nowhere.pth")
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    with pytest.raises(MetricError, match="RAFT needs torchvision: pip install"):
        raft_flow(tmp_path / "nowhere.pth")

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(MetricError, match="does not fit this torch"):
        raft_flow(tmp_path / "nowhere.pth")


def clip_folder(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        projection_dim=16,
    )
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_from_a_folder(tmp_path: Path) -> None:
    embed = Clip(str(clip_folder(tmp_path))).picture
    still = [texture()[:HEIGHT, :WIDTH]] * 2
    assert embed(still[0]).shape == (16,)
    assert frame_consistency(still, embed) == pytest.approx(100, abs=1e-3)
    other = [still[0], 255 - still[0]]
    assert (frame_consistency(other, embed) or 100) < 99.9


def test_a_clip_that_is_not_there_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetricError, match="nowhere: no CLIP model in this folder"):
        Clip(str(tmp_path / "nowhere"))
    folder = clip_folder(tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(MetricError, match="clip: no CLIP model"):
        Clip(str(folder))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MetricError, match="CLIP needs transformers: pip install"):
        Clip(str(folder))


def test_the_metrics_need_no_torch() -> None:
    code = "import sys, core.measure.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(metrics.__file__).parents[2])


def test_the_flicker_of_a_picture_with_more_points_than_a_row_may_have_is_measured() -> None:
    wide = np.asarray(np.tile(texture(), (4, 4, 1))[:1448, :1500], np.uint8)  # at spacing 8: 33,847 points
    still = np.zeros((*wide.shape[:2], 2), np.float32)
    seen = Motion(still, np.ones(wide.shape[:2], bool), still)
    sums = FlickerSums()
    for index in range(3):
        sums.add(wide, wide, seen if index else None, None)
