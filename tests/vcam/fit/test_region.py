"""A style on the person or behind it: its border, how it moves, what is shown elsewhere, what without a mask."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from core.errors import StreamV2VError
from core.settings import Look, Region
from tests.support.clock import Clock
from tests.support.stand_in_eyes import SKIN, PaintedPerson, is_skin, none_here, scene
from vcam.errors import VideoError
from vcam.fit import Mask, PersonFinder, Regions, WhenThere
from vcam.fit.region import SteadyMask, along_edges
from vcam.frames import Picture

SIZE = (320, 240)
CAMERA = scene(SIZE, (0.6, 0.5, 0.5))
STYLED: Picture = np.full((240, 320, 3), (0, 200, 0), np.uint8)
STILL: Picture = np.full((50, 100, 3), (0, 0, 255), np.uint8)
PERSON = is_skin(CAMERA)
INSIDE = cv2.erode(PERSON.astype(np.uint8), np.ones((25, 25))) > 0
OUTSIDE = cv2.dilate(PERSON.astype(np.uint8), np.ones((25, 25))) == 0


def read_still(path: str) -> Picture:
    if path != "/still.png":
        raise VideoError(f"{path}: no such picture; check the name")
    return STILL


def regions(finder: PersonFinder | None = None) -> Regions:
    def open() -> PersonFinder:
        if finder is None:
            none_here()
            raise AssertionError
        return finder

    return Regions(WhenThere(open), read_still)


def look(region: str, elsewhere: str = "camera") -> Look:
    return Look(region=Region(region), elsewhere=elsewhere)


def composed(region: str, elsewhere: str) -> Picture:
    return regions(PaintedPerson()).composed(STYLED, CAMERA, look(region, elsewhere))


WALL = (90, 90, 90)
SHOWN = {
    ("person", "camera"): ((0, 200, 0), WALL),
    ("person", "blur"): ((0, 200, 0), WALL),
    ("person", "/still.png"): ((0, 200, 0), (0, 0, 255)),
    ("background", "camera"): (SKIN, (0, 200, 0)),
    ("background", "blur"): (SKIN, (0, 200, 0)),
    ("background", "/still.png"): ((0, 0, 255), (0, 200, 0)),
}


@pytest.mark.parametrize("wanted", SHOWN, ids=" ".join)
def test_the_style_is_where_it_is_wanted_and_the_rest_is_what_was_chosen(wanted: tuple[str, str]) -> None:
    out = composed(*wanted).astype(int)
    for part, colour in zip((INSIDE, OUTSIDE), SHOWN[wanted], strict=True):
        assert np.abs(out[part] - colour).max() <= 2


def test_a_blurred_background_has_nothing_of_the_person_in_it() -> None:
    out = composed("person", "blur").astype(int)
    near = (cv2.dilate(PERSON.astype(np.uint8), np.ones((41, 41))) > 0) & OUTSIDE
    assert np.abs(out[near] - WALL).max() <= 2, "the wall is even up to the person"


def test_what_is_blurred_cannot_be_read() -> None:
    written = CAMERA.copy()
    cv2.putText(written, "secret", (10, 40), cv2.FONT_HERSHEY_PLAIN, 2, (255, 255, 255), 2)
    out = regions(PaintedPerson()).composed(STYLED, written, look("person", "blur"))
    before, after = (np.abs(np.diff(one[:60, :130].astype(int), axis=1)).max() for one in (written, out))
    assert after < 8 < 100 < before, "the steepest edge that is left"


def test_all_of_the_picture_is_the_same_array_and_asks_no_model() -> None:
    finder = PaintedPerson()
    assert regions(finder).composed(STYLED, CAMERA, look("all")) is STYLED
    assert finder.looks == 0


@pytest.mark.parametrize("elsewhere", ["camera", "blur", "/still.png"])
@pytest.mark.parametrize("region", ["person", "background"])
def test_without_the_model_all_is_styled_and_the_sentence_is_there(region: str, elsewhere: str) -> None:
    one = regions(None)
    assert one.composed(STYLED, CAMERA, look(region, elsewhere)) is STYLED
    assert "vcam models download" in one.trouble
    one.composed(STYLED, CAMERA, look("all"))
    assert one.trouble == ""


def test_without_the_still_picture_all_is_styled_not_the_room_shown() -> None:
    one = regions(PaintedPerson())
    assert one.composed(STYLED, CAMERA, look("person", "/gone.png")) is STYLED
    assert one.trouble == "/gone.png: no such picture; check the name"
    assert one.composed(STYLED, CAMERA, look("person", "/still.png")) is not STYLED
    assert one.trouble == ""


def test_a_finder_that_fails_shows_nothing() -> None:
    class Failing:
        def person(self, picture: Picture) -> Mask:
            raise cv2.error("out of memory")

    with pytest.raises(cv2.error):
        regions(Failing()).composed(STYLED, CAMERA, look("person"))


# --------------------------------------------------------------------------------------------------------- the border


@pytest.mark.parametrize("colours", [((250, 10, 200), (90, 90, 90)), ((250, 190, 30), (190, 190, 190))])
def test_the_border_is_the_cameras_edge_also_between_colours_of_one_brightness(
    colours: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    person, wall = colours
    truth = np.zeros((480, 640), np.float32)
    cv2.ellipse(truth, (320, 300), (110, 170), 0, 0, 360, 1, -1)
    picture = np.where(truth[..., None] > 0, person, wall).astype(np.uint8)
    rough = np.asarray(cv2.blur(cv2.resize(truth, (160, 120), interpolation=cv2.INTER_AREA), (5, 5)), np.float32)
    plain = cv2.resize(rough, (640, 480), interpolation=cv2.INTER_LINEAR)
    fine = along_edges(rough, picture, (640, 480))
    assert fine.shape == (480, 640)
    assert fine.min() >= 0
    assert fine.max() <= 1
    assert np.abs(fine - truth).mean() < 0.4 * np.abs(plain - truth).mean()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_plain_mask_stays_plain_whatever_the_picture(level: float) -> None:
    noise: Picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    fine = along_edges(np.full((36, 64), level, np.float32), noise, (320, 240))
    assert np.abs(fine - level).max() < 0.01


# ------------------------------------------------------------------------------------------------------------ in time


class Told:
    """A finder that gives these masks, one after the other, and takes its time."""

    def __init__(self, masks: list[Mask], clock: Clock | None = None, takes_s: float = 0.0) -> None:
        self.masks, self.clock, self.takes_s = iter(masks), clock, takes_s

    def person(self, picture: Picture) -> Mask:
        if self.clock is not None:
            self.clock.now += self.takes_s
        return next(self.masks)


def bar(at: int, noise: float = 0.0, seed: int = 0) -> Mask:
    mask = np.zeros((36, 64), np.float32)
    mask[:, at : at + 16] = 1
    mask += np.random.default_rng(seed).normal(0, noise, mask.shape)
    return mask.clip(0, 1).astype(np.float32)


def test_a_mask_that_flickers_stands_still_and_one_that_moves_is_followed_at_once() -> None:
    flickering = [bar(20, 0.08, seed) for seed in range(20)]
    steady = SteadyMask(Told([*flickering, bar(40)]), math.inf)
    seen = [steady.of(CAMERA) for _ in flickering]

    def change(masks: list[Mask]) -> float:
        return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(masks[5:])]))

    assert change(seen) < 0.6 * change(flickering)
    assert np.abs(steady.of(CAMERA) - bar(40)).mean() < 0.03


@pytest.mark.parametrize(("takes_s", "apart_s", "each"), [(0.005, 0.051, 1), (0.03, 0.051, 2), (0.06, 0.051, 4)])
def test_masks_take_no_more_than_their_share_of_the_time(takes_s: float, apart_s: float, each: int) -> None:
    clock = Clock()
    told = Told([bar(20, seed=n) for n in range(100)], clock, takes_s)
    steady, made = SteadyMask(told, 0.3, clock), 0
    last = None
    for number in range(40):
        clock.now = 100 + apart_s * number
        mask = steady.of(CAMERA)
        made += mask is not last
        last = mask
    assert made == math.ceil(40 / each)


def test_a_picture_of_another_shape_has_a_mask_of_its_own() -> None:
    clock = Clock()
    steady = SteadyMask(Told([bar(20), bar(30)], clock, 10), 0.3, clock)
    first = steady.of(CAMERA)
    assert steady.of(CAMERA) is first
    assert steady.of(scene((120, 200), None)) is not first


def test_what_cannot_be_shown_elsewhere_is_refused_where_it_is_said() -> None:
    with pytest.raises(StreamV2VError, match="elsewhere is 'blurr'; it must be camera, blur or the path of a picture"):
        Look(elsewhere="blurr")
