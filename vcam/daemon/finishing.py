"""What is published of a translation: enlarged with its frame's edges, its style where the look wants it, the badge."""

from __future__ import annotations

from collections.abc import Callable

from core.settings import Origin
from vcam import fit
from vcam.daemon.badge import draw_badge
from vcam.daemon.event_log import EventLog
from vcam.daemon.loops import FinishedFrame
from vcam.frames import Picture, Translation


class Finisher:
    """Makes of each translation what is published. Called from one thread.

    size: published. badge: whether the picture carries the mark now.
    """

    def __init__(self, size: tuple[int, int], regions: fit.Regions, badge: Callable[[], bool], log: EventLog) -> None:
        self._size, self._regions, self._badge, self._log = size, regions, badge, log

    def __call__(self, made: Translation) -> FinishedFrame:
        """Return the picture, and whether it shows something of the camera as it is."""
        detail = 0.0 if made.imagined else fit.detail_at(made.look.detail, made.look.strength)
        bare: list[bool] = []

        def finish(part: Picture, guide: Picture, size: tuple[int, int]) -> Picture:
            styled = fit.enlarged(part, guide, size, detail)
            if made.imagined:  # there is nobody in it, and nothing of a camera
                return styled
            composed = self._regions.composed(styled, guide, made.look)
            bare.append(composed is not styled)
            return composed

        whole = fit.published(made.picture, made.source, self._size, finish, shot=made.shot)
        self._log.trouble("region", self._regions.trouble)
        if self._badge():
            draw_badge(whole)
        return FinishedFrame(
            whole, made.captured_s, any(bare), Origin.GENERATED if made.imagined else Origin.TRANSLATED
        )
