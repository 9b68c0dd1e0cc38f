"""How a camera does: a value, and the pure function that says what the newest picture, or its absence, makes of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from vcam.frames import Picture

OPEN_LIMIT_S = 15.0
SILENT_S = 3.0
LOST_S = 10.0  # of silence, after which the camera is opened anew
BLACK_S = 2.0
FROZEN_S, FROZEN_PICTURES = 5.0, 6  # equal to the last bit for so long and so many: no sensor's pictures are
LATE_INTERVALS = 2.5  # of the camera's own interval: what is not later than that may still come in order
LOST_INTERVALS = 4.0
FIRST_INTERVAL_S = 4.0  # taken for the camera's own until its second picture tells better
_GAPS = 5


class Condition(Enum):
    """What a camera does now."""

    OPENING = auto()
    STUCK = auto()  # it has been opening for too long
    WELL = auto()
    WAITING = auto()  # no new picture is due yet
    BLACK = auto()
    FROZEN = auto()  # it may give the same picture for ever; told once for each picture that stays
    SILENT = auto()
    LOST = auto()  # silent for so long that only opening it anew may help


@dataclass(frozen=True, eq=False)
class CameraHealth:
    """What is known of a camera since it was opened; seconds of the caller's clock.

    since_s: when opening began. picture_s, bright_s, moved_s: when the last picture, the last that was not black and
    the last that differed from the one before came, since_s if none did. pictures: how many came. gaps: between the
    last few. same: how many in a row equal `newest`. doubted: the picture that stays has been reported as frozen.
    has_lens: whether black and frozen pictures mean that something is wrong.
    """

    since_s: float
    picture_s: float
    bright_s: float
    moved_s: float
    opened: bool = False
    pictures: int = 0
    gaps: tuple[float, ...] = ()
    newest: Picture | None = None
    same: int = 0
    doubted: bool = False
    has_lens: bool = True

    @property
    def interval_s(self) -> float:
        """Return the camera's own seconds between two pictures; 0 before the first one."""
        if self.gaps:
            return statistics.median(self.gaps)
        return FIRST_INTERVAL_S if self.pictures else 0.0

    def late_after_s(self, least_s: float, intervals: float = LATE_INTERVALS) -> float:
        """Return how long a picture may stay away: `least_s`, or so many of the camera's own intervals."""
        return max(least_s, intervals * self.interval_s)


def opening(now: float, before: CameraHealth | None = None, has_lens: bool = True) -> CameraHealth:
    """Return the health of a camera that is being opened; `before` keeps its rate and the picture that was doubted."""
    fresh = CameraHealth(now, now, now, now, has_lens=has_lens)
    if before is None:
        return fresh
    return replace(fresh, gaps=before.gaps, newest=before.newest, doubted=before.doubted)


def opened(health: CameraHealth, now: float) -> CameraHealth:
    """Return the health of a camera that has just opened: its pictures are waited for from now on."""
    return replace(health, opened=True, picture_s=now, bright_s=now, moved_s=now)


def judge(health: CameraHealth, picture: Picture | None, now: float) -> tuple[CameraHealth, Condition]:
    """Return the health and the condition after a look at the camera; picture: what it gave, None for nothing new."""
    if picture is None:
        return health, _without_picture(health, now)
    health = _with_picture(health, picture, now)
    if health.has_lens and now - health.bright_s >= health.late_after_s(BLACK_S):
        return health, Condition.BLACK
    stays = health.same >= FROZEN_PICTURES and now - health.moved_s >= FROZEN_S
    if health.has_lens and stays and not health.doubted:
        return replace(health, doubted=True), Condition.FROZEN
    return health, Condition.WELL


def _without_picture(health: CameraHealth, now: float) -> Condition:
    if not health.opened:
        return Condition.STUCK if now - health.since_s >= OPEN_LIMIT_S else Condition.OPENING
    silent_s = now - health.picture_s
    if silent_s < health.late_after_s(SILENT_S):
        return Condition.WAITING
    return Condition.SILENT if silent_s < health.late_after_s(LOST_S, LOST_INTERVALS) else Condition.LOST


def _with_picture(health: CameraHealth, picture: Picture, now: float) -> CameraHealth:
    gaps = (*health.gaps, now - health.picture_s)[-_GAPS:] if health.pictures else health.gaps
    stays = health.newest is not None and np.array_equal(health.newest, picture)
    return replace(
        health,
        opened=True,
        picture_s=now,
        bright_s=health.bright_s if is_black(picture) else now,
        moved_s=health.moved_s if stays else now,
        pictures=health.pictures + 1,
        gaps=gaps,
        newest=picture,
        same=health.same + 1 if stays else 0,
        doubted=health.doubted and stays,
    )


def is_black(picture: Picture) -> bool:
    """Return whether the picture shows nothing: a covered lens, a privacy switch. A dark room is not black."""
    few = picture[:: max(1, picture.shape[0] // 32), :: max(1, picture.shape[1] // 32)]
    return int(few.max()) <= 20
