"""Camera health: what pictures, and their absence, make of it; no camera and no clock."""

from __future__ import annotations

import numpy as np
import pytest

from vcam.commands import OnFailure
from vcam.daemon.publisher import HOLD_S, hold_s
from vcam.devices.health import (
    LOST_S,
    OPEN_LIMIT_S,
    SILENT_S,
    CameraHealth,
    Condition,
    judge,
    opened,
    opening,
)
from vcam.frames import Picture


def grey(value: int) -> Picture:
    return np.full((4, 4, 3), value, np.uint8)


def at_rate(interval_s: float, pictures: int = 8) -> tuple[CameraHealth, float]:
    """A camera that has given so many different pictures, and the time of the last one."""
    health = opened(opening(0.0), 0.0)
    for index in range(pictures):
        health, condition = judge(health, grey(100 + index), index * interval_s)
        assert condition is Condition.WELL
    return health, (pictures - 1) * interval_s


def test_opening_takes_a_while_but_not_for_ever() -> None:
    health = opening(5.0)
    assert judge(health, None, 5.0 + OPEN_LIMIT_S - 0.1)[1] is Condition.OPENING
    assert judge(health, None, 5.0 + OPEN_LIMIT_S)[1] is Condition.STUCK


@pytest.mark.parametrize(
    ("interval_s", "silent_s", "lost_s"), [(1 / 30, SILENT_S, LOST_S), (4.0, 10.0, 16.0), (15.0, 37.5, 60.0)]
)
def test_silence_is_measured_by_the_cameras_own_interval(interval_s: float, silent_s: float, lost_s: float) -> None:
    health, last_s = at_rate(interval_s)
    assert health.interval_s == pytest.approx(interval_s)
    for after_s, condition in (
        (silent_s - 0.1, Condition.WAITING),
        (silent_s + 0.1, Condition.SILENT),
        (lost_s - 0.1, Condition.SILENT),
        (lost_s + 0.1, Condition.LOST),
    ):
        assert judge(health, None, last_s + after_s)[1] is condition


def test_one_hiccup_does_not_make_a_quick_camera_a_slow_one() -> None:
    health, last_s = at_rate(1 / 30)
    health, _ = judge(health, grey(7), last_s + 9.0)
    assert health.interval_s == pytest.approx(1 / 30)


def test_a_camera_that_was_opened_anew_keeps_its_interval_and_its_doubt() -> None:
    health, last_s = at_rate(4.0)
    again = opening(last_s + 60, health)
    assert (again.interval_s, again.pictures, again.opened) == (4.0, 0, False)
    assert judge(opened(again, last_s + 61), grey(200), last_s + 62)[0].interval_s == 4.0


def seen(value: int, times: int, interval_s: float, has_lens: bool = True) -> list[Condition]:
    """What the same picture again and again is called."""
    health, conditions = opened(opening(0.0, has_lens=has_lens), 0.0), []
    for index in range(times):
        health, condition = judge(health, grey(value), index * interval_s)
        conditions.append(condition)
    return conditions


def test_a_picture_that_stays_is_doubted_once() -> None:
    assert seen(100, 400, 0.1).count(Condition.FROZEN) == 1
    assert Condition.FROZEN not in seen(100, 6, 4.0), "few pictures prove nothing"


def test_black_is_told_after_a_while_and_only_of_a_lens() -> None:
    conditions = seen(3, 40, 0.1)
    assert conditions[5] is Condition.WELL
    assert conditions[-1] is Condition.BLACK
    assert set(seen(3, 200, 0.1, has_lens=False)) == {Condition.WELL}


def test_the_last_translation_is_held_while_no_new_picture_is_due() -> None:
    assert hold_s(OnFailure.CARD, 0.0, 1 / 30) == HOLD_S
    assert hold_s(OnFailure.CARD, 0.0, 4.0) == 10.0, "until the camera would be called silent"
    assert hold_s(OnFailure.CARD, 3.0, 4.0) == 12.0
    assert hold_s(OnFailure.HOLD, 0.0, 4.0) == float("inf")
