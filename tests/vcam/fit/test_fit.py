"""Crop, pad and mirror."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcam.devices.test_pattern import draw_person
from vcam.fit import crop_to, cropped, detail_at, enlarged, pad_to, published, viewed
from vcam.fit.crops import brought_to
from vcam.frames import FILLED, Focus, Picture, Shot

SIDES = st.integers(1, 70)


def flat(width: int, height: int, colour: tuple[int, int, int] = (200, 30, 40)) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


@given(SIDES, SIDES, SIDES, SIDES, st.booleans())
def test_a_flat_picture_of_any_size_stays_flat_when_cropped(a: int, b: int, c: int, d: int, mirror: bool) -> None:
    out = crop_to(flat(a, b), (c, d), Shot(mirrored=mirror))
    assert out.shape == (d, c, 3)
    assert np.abs(out.astype(int) - (200, 30, 40)).max() <= 1


@given(SIDES, SIDES, SIDES.filter(lambda side: side > 7), SIDES.filter(lambda side: side > 7))
def test_padding_gives_the_size_and_a_picture_of_its_own(a: int, b: int, c: int, d: int) -> None:
    picture = flat(a, b)
    out = pad_to(picture, (c, d))
    assert out.shape == (d, c, 3)
    assert not np.shares_memory(out, picture)
    brightest = out.reshape(-1, 3).astype(int).max(0)  # a very long picture is a line in the middle
    assert np.abs(brightest - (200, 30, 40)).max() <= 2


def test_crop_takes_the_middle_and_mirrors() -> None:
    picture = flat(40, 20)
    picture[:, :10], picture[:, 30:] = 0, 0  # the sides, that a square crop leaves out
    picture[:, 10:20] = (10, 20, 30)
    square = crop_to(picture, (20, 20))
    assert (square[:, 0] == (10, 20, 30)).all()
    assert (crop_to(picture, (20, 20), Shot(mirrored=True)) == square[:, ::-1]).all()


def test_padding_keeps_the_whole_picture_between_darker_sides() -> None:
    out = pad_to(flat(20, 20), (40, 20))
    assert (out[:, 10:30] == (200, 30, 40)).all()
    assert 0 < out[:, :10, 0].mean() < 120


def test_colours_do_not_change_places() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 255
    for out in (crop_to(picture, (16, 16)), pad_to(picture, (16, 16))):
        assert out[8, 8].tolist() == [255, 0, 0]


def test_a_picture_of_almost_the_shape_fills_it() -> None:
    picture = np.full((224, 304, 3), 200, np.uint8)
    assert (pad_to(picture, (640, 480)) > 190).all()
    assert (pad_to(np.full((256, 256, 3), 200, np.uint8), (640, 480))[:, :40] < 190).all()


# ------------------------------------------------------------------------------- enlarged with the camera's own edges

LARGE, SMALL = (640, 480), (320, 240)


def camera() -> Picture:
    """A person before a wall with fine print on it."""
    picture = draw_person(1.0, LARGE).copy()
    for row in range(12, 480, 24):
        cv2.putText(picture, "fine print on the wall " * 3, (0, row), cv2.FONT_HERSHEY_PLAIN, 0.8, (30, 30, 30))
    return picture


CAMERA = camera()


def small_of(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, SMALL, interpolation=cv2.INTER_AREA), np.uint8)


def distance(a: Picture, b: Picture) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


def shown(small: Picture, source: Picture, size: tuple[int, int], detail: float, shot: Shot = FILLED) -> Picture:
    def finish(part: Picture, guide: Picture, inner: tuple[int, int]) -> Picture:
        return enlarged(part, guide, inner, detail)

    return published(small, source, size, finish, shot=shot)


def coarse(picture: Picture) -> np.ndarray:
    """What of a picture is coarser than the small one's pixels, as brightness."""
    return cv2.cvtColor(small_of(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)


STYLES: dict[str, Callable[[Picture], Picture]] = {
    "the same": lambda p: p,
    "darker": lambda p: p // 2,
    "inverted": lambda p: 255 - p,
    "posterised": lambda p: np.where(p > 120, 230, 60).astype(np.uint8),
}


@pytest.mark.parametrize("style", STYLES)
def test_an_enlarged_picture_gets_back_what_its_source_still_has(style: str) -> None:
    true = STYLES[style](CAMERA)
    plain, half, whole = (enlarged(small_of(true), CAMERA, LARGE, detail) for detail in (0, 0.5, 1))
    assert distance(half, true) < 0.85 * distance(plain, true)
    assert distance(whole, true) < distance(half, true)


def test_detail_0_is_plain_enlargement_and_so_is_strength_1() -> None:
    small = small_of(STYLES["posterised"](CAMERA))
    plain = enlarged(small, CAMERA, LARGE, 0)
    assert (plain == pad_to(small, LARGE)).all()
    assert (shown(small, CAMERA, LARGE, detail_at(1.0, strength=1.0)) == plain).all()
    assert (shown(small, CAMERA, LARGE, detail_at(1.0, strength=0.5)) != plain).any()
    assert [detail_at(0.8, strength) for strength in (0.02, 0.5, 0.75, 1)] == [0.8, 0.8, 0.4, 0]


@pytest.mark.parametrize("style", STYLES)
def test_nothing_that_the_small_picture_could_have_shown_comes_from_the_camera(style: str) -> None:
    """Who is recognised is so by what is coarse: of that the enlarged picture has what the translation has."""
    somebody_else = STYLES[style](draw_person(4.0, LARGE)[::-1])
    small = small_of(somebody_else)
    plain, whole = (coarse(enlarged(small, CAMERA, LARGE, detail)) for detail in (0, 1))
    assert np.abs(whole - plain).mean() < 0.5, "grey levels of 255"
    seen = coarse(CAMERA)
    before, after = (np.corrcoef(one.ravel(), seen.ravel())[0, 1] for one in (plain, whole))
    assert abs(after - before) < 0.005


def test_where_the_style_has_put_something_else_the_cameras_edges_stay_out() -> None:
    small: Picture = np.random.default_rng(0).integers(0, 255, (*SMALL[::-1], 3), np.uint8)
    plain, other, own = (enlarged(p, CAMERA, LARGE, d) for p, d in ((small, 0), (small, 1), (small_of(CAMERA), 1)))
    added = distance(own, enlarged(small_of(CAMERA), CAMERA, LARGE, 0))
    assert distance(other, plain) < 0.05 * added


def test_a_still_sensors_noise_is_no_edge() -> None:
    random = np.random.default_rng(0)
    wall = np.full((480, 640, 3), 120, np.uint8)
    small = np.full((240, 320, 3), (200, 90, 40), np.uint8)
    noisy = (wall + random.normal(0, 8, wall.shape)).clip(0, 255).astype(np.uint8)
    assert distance(enlarged(small, noisy, LARGE, 1), enlarged(small, wall, LARGE, 1)) < 0.05


def test_a_sensors_noise_does_not_flicker_along_the_edges() -> None:
    small, plain = small_of(CAMERA), enlarged(small_of(CAMERA), CAMERA, LARGE, 0)
    shown = []
    for seed in range(2):
        noise = np.random.default_rng(seed).normal(0, 8, CAMERA.shape)
        shown.append(enlarged(small, (CAMERA + noise).clip(0, 255).astype(np.uint8), LARGE, 1))
    assert distance(*shown) < 1, "of two frames that differ by 9 grey levels"
    assert distance(shown[0], CAMERA) < 0.9 * distance(plain, CAMERA), "and still there is detail"


SHOTS = {"fill": FILLED, "fit": Shot(whole=True), "face": Shot(focus=Focus(0.6, 0.3, 0.8))}


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shot", SHOTS.values(), ids=SHOTS)
def test_the_guide_is_the_very_part_that_the_engine_saw(shot: Shot, mirror: bool) -> None:
    shot = shot._replace(mirrored=mirror)
    for size in ((320, 192), (192, 320), (320, 240)):
        guides: list[Picture] = []

        def finish(part: Picture, guide: Picture, inner: tuple[int, int], guides: list[Picture] = guides) -> Picture:
            guides.append(guide)
            guides.append(part)
            return enlarged(part, guide, inner, 1.0)

        engine = viewed(CAMERA, size, shot)
        assert engine.shape == (size[1], size[0], 3)
        out = published(engine, CAMERA, LARGE, finish, shot=shot)
        assert out.shape == CAMERA.shape
        guide, part = guides
        again = brought_to(guide, (part.shape[1], part.shape[0]))
        assert distance(again, part) < 1, "grey levels of 255"


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shot", SHOTS.values(), ids=SHOTS)
def test_what_is_published_is_the_part_that_was_translated(shot: Shot, mirror: bool) -> None:
    """An engine that changes nothing gives back what is shown of the camera's own picture, sharp."""
    shot = shot._replace(mirrored=mirror)
    engine = viewed(CAMERA, (320, 240), shot)
    own = viewed(CAMERA, LARGE, shot)
    assert distance(shown(engine, CAMERA, LARGE, 1.0, shot), own) < 0.6 * distance(pad_to(engine, LARGE), own)


def test_what_is_too_high_is_cut_where_there_are_no_heads() -> None:
    """From 4:3 to 16:9 and from a square to 4:3 below alone; from a telephone held upright mostly below."""
    upright = (1080, 1920)
    for size, wanted, top in (((640, 480), (1280, 720), 0), ((512, 512), (640, 480), 0), (upright, (640, 480), 315)):
        rows = np.repeat(np.arange(size[1], dtype=np.int64)[:, None], size[0], axis=1)
        picture = np.stack([rows // 256, rows % 256, rows % 7], axis=2).astype(np.uint8)
        first = cropped(picture, wanted)[0, 0].astype(int)
        assert 256 * first[0] + first[1] == top


def test_a_focus_at_an_edge_stays_within_the_picture() -> None:
    for x, y, height in ((0, 0, 0.3), (1, 1, 0.3), (0.5, 0.9, 1.0), (0.9, 0.5, 0.001)):
        assert viewed(CAMERA, (64, 48), shot=Shot(focus=Focus(x, y, height))).shape == (48, 64, 3)
    corner = cropped(CAMERA, (64, 48), shot=Shot(focus=Focus(1, 1, 0.5)))
    assert (corner == CAMERA[240:, 320:]).all()


@given(SIDES, SIDES, SIDES.filter(lambda side: side > 7), SIDES.filter(lambda side: side > 7), st.booleans())
def test_detail_fits_every_size(a: int, b: int, c: int, d: int, mirror: bool) -> None:
    out = shown(flat(a, b), CAMERA, (c, d), 1.0, Shot(mirrored=mirror))
    assert out.shape == (d, c, 3)
