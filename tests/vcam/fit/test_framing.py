"""Framing by a face: what is shown, how it moves, and what becomes of it without a detector or a face."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest

from core.errors import ModelError
from core.settings import Framing
from tests.support.clock import Clock
from tests.support.stand_in_eyes import PaintedFace, is_skin, none_here, scene
from vcam.fit import Face, FaceDetector, Framer, WhenThere, cropped
from vcam.frames import FILLED, Focus, Shot

SIZE, FPS = (160, 90), 30
Place = tuple[float, float, float]


def framer(open: Callable[[], FaceDetector] = PaintedFace) -> Framer:
    return Framer(WhenThere(open), SIZE[0] / SIZE[1])


def shots(one: Framer, faces: Iterable[Place | None], begin: int = 0) -> list[Shot]:
    """What is shown of a camera's frames with the face at these places, one after the other."""
    return [one.shot(scene(SIZE, face), index / FPS, Framing.FACE) for index, face in enumerate(faces, begin)]


def focus(shot: Shot) -> Focus:
    assert shot.focus is not None
    return shot.focus


def test_fill_and_fit_ask_no_detector() -> None:
    detector = PaintedFace()
    one = framer(lambda: detector)
    picture = scene(SIZE, (0.8, 0.4, 0.2))
    assert one.shot(picture, 0.0, Framing.FILL) == FILLED
    assert one.shot(picture, 0.0, Framing.FIT) == Shot(whole=True)
    assert (detector.looks, one.trouble) == (0, "")


def test_head_and_shoulders_are_shown_from_the_first_picture_on() -> None:
    face = (1.2, 0.3, 0.1)
    (shot,) = shots(framer(), [face])
    shown = is_skin(cropped(scene(SIZE, face), SIZE, shot=shot))
    rows, columns = np.nonzero(shown)
    high = shown.shape[0]
    assert 0.25 < (rows.max() + 1 - rows.min()) / high < 0.45, "a third of the picture is face"
    assert rows.min() / high > 0.15, "there is room for the hair"
    assert rows.max() / high < 0.7, "and for the shoulders"
    assert abs(columns.mean() / shown.shape[1] - 0.5) < 0.05


@pytest.mark.parametrize("face", [(0.05, 0.05, 0.1), (1.7, 0.95, 0.1), (0.9, 0.5, 0.9), (0.9, 0.25, 0.5)])
def test_the_forehead_is_in_the_picture_wherever_the_face_is(face: Place) -> None:
    picture = scene(SIZE, face)
    shot = shots(framer(), [face])[0]
    top = np.nonzero(is_skin(picture))[0].min()
    _, y, height = focus(shot)
    assert y - height / 2 <= top / SIZE[1] + 0.02
    assert round(y - height / 2, 6) >= 0
    assert y + height / 2 <= 1.000001


def test_a_head_that_nods_does_not_move_the_picture() -> None:
    nods = [(0.9 + 0.01 * (i % 2), 0.4 + 0.005 * (i % 5), 0.2) for i in range(3 * FPS)]
    assert len(set(shots(framer(), nods))) == 1


def test_a_face_that_goes_elsewhere_is_followed_without_a_jump() -> None:
    one = framer()
    seen = shots(one, [(0.4, 0.5, 0.2)] * 10 + [(1.3, 0.4, 0.15)] * (4 * FPS))
    steps = [abs(b.x - a.x) / a.height for a, b in pairwise(map(focus, seen))]
    assert 0.005 < max(steps) < 0.05, "of the shown height, in a thirtieth of a second"
    changes = [abs(b - a) for a, b in pairwise(steps)]
    assert max(changes) < 0.012, "nor does it start or stop at once"
    end = focus(seen[-1])
    assert abs(end.x - 1.3 * SIZE[1] / SIZE[0]) < 0.02
    assert seen[-1] == seen[-2], "and then stands still"


def test_a_face_that_hides_is_waited_for_and_one_that_left_is_not() -> None:
    one = framer()
    face = (0.4, 0.4, 0.15)
    before = shots(one, [face] * 10)[-1]
    hidden = shots(one, [None] * (3 * FPS), begin=10)
    assert set(hidden) == {before}
    gone = shots(one, [None] * (6 * FPS), begin=10 + 3 * FPS)
    x, y, height = focus(gone[-1])
    assert (round(x, 3), round(y, 3), round(height, 3)) == (0.5, 0.5, 1.0)
    steps = [abs(b.height - a.height) for a, b in pairwise(map(focus, gone))]
    assert max(steps) < 0.05


def test_a_face_that_comes_later_is_glided_to() -> None:
    seen = shots(framer(), [None] * 10 + [(1.2, 0.3, 0.1)] * FPS)
    assert seen[0] == FILLED
    first = next(shot for shot in seen if shot.focus is not None)
    assert focus(first).height > 0.95


def test_the_face_that_is_followed_stays_so_beside_another_of_about_its_size() -> None:
    places = [Face(0.3, 0.4, 0.04, 0.1)]

    class Several:
        def faces(self, picture: object) -> list[Face]:
            return places

    one = framer(Several)
    first = shots(one, [None] * 10)[-1]
    places.append(Face(0.8, 0.4, 0.05, 0.12))
    assert shots(one, [None] * FPS, begin=10)[-1] == first
    places[1] = Face(0.8, 0.4, 0.1, 0.2)  # comes close to the camera
    assert focus(shots(one, [None] * (4 * FPS), begin=40)[-1]).x > 0.6


def test_faces_are_looked_for_five_times_a_second() -> None:
    detector = PaintedFace()
    shots(framer(lambda: detector), [(0.9, 0.4, 0.2)] * (2 * FPS))
    assert 10 <= detector.looks <= 12


def test_a_clock_that_stood_still_or_went_back_moves_nothing() -> None:
    one = framer()
    times = [0.0] * 10 + [5.0, 5.0, 1.0]
    seen = [one.shot(scene(SIZE, (0.4 + 0.3 * (at_s > 0), 0.4, 0.2)), at_s, Framing.FACE) for at_s in times]
    assert abs(focus(seen[-1]).x - focus(seen[0]).x) < 0.1


def test_without_the_model_it_fills_says_so_and_begins_once_the_model_has_come() -> None:
    clock, here = Clock(), [False]

    def open() -> PaintedFace:
        return PaintedFace() if here[0] else none_here()

    one = Framer(WhenThere(open, clock), SIZE[0] / SIZE[1])
    picture = scene(SIZE, (0.4, 0.4, 0.2))
    assert one.shot(picture, 0.0, Framing.FACE) == FILLED
    assert "`vcam models download face`" in one.trouble
    here[0] = True
    assert one.shot(picture, 0.0, Framing.FACE) == FILLED, "the disk is not asked for each picture"
    clock.now += 3
    assert focus(one.shot(picture, 0.0, Framing.FACE)).height < 0.8
    assert one.trouble == ""


def test_only_what_the_user_can_mend_is_taken_for_a_missing_model() -> None:
    def broken() -> PaintedFace:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        WhenThere(broken).get()
    with pytest.raises(ModelError):
        none_here()


def test_another_framing_forgets_the_face() -> None:
    one = framer()
    shots(one, [(0.4, 0.4, 0.15)] * 10)
    one.shot(scene(SIZE, None), 1.0, Framing.FILL)
    assert shots(one, [None] * 3, begin=40) == [FILLED] * 3
