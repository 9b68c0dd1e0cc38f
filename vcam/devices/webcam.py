"""A camera of this machine as a source of frames."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from vcam.devices.cameras import (
    Camera,
    ChosenCamera,
    choose_camera,
    choose_first,
    list_cameras,
    look_again,
    namesakes,
    present_identities,
    seen_with,
)
from vcam.devices.capture import Clock, DeviceCapture, open_capture
from vcam.devices.health import OPEN_LIMIT_S, Condition
from vcam.devices.live_source import LiveSource
from vcam.errors import DeviceError

if sys.platform == "linux":
    from vcam.devices import v4l2

Opener = Callable[[str | int, tuple[int, int], float], DeviceCapture]
_LOG = logging.getLogger("vcam.camera")


class Webcam(LiveSource):
    """A camera as FrameSource, found again by its identity after any failure.

    wanted: as in `choose_camera`; it need not be there yet. A missing, busy, silent, black or frozen camera gives None
    and says so in `trouble`. What is still frozen after it was opened anew is taken for a picture that does not move.
    """

    def __init__(
        self,
        wanted: str,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        cameras: Callable[[], list[Camera]] = list_cameras,
        opener: Opener = open_capture,
    ) -> None:
        def identities() -> frozenset[str]:
            if cameras is list_cameras:
                return present_identities()
            return frozenset(camera.identity for camera in cameras())

        device = _CameraDevice(wanted, cameras, identities, lambda path: opener(path, size, fps))
        super().__init__(device, clock, sleep)


class _CameraDevice:
    """The camera that is wanted, and the one that was found for it, as LiveDevice."""

    has_lens = True

    def __init__(
        self,
        wanted: str,
        cameras: Callable[[], list[Camera]],
        identities: Callable[[], frozenset[str]],
        opener: Callable[[str | int], DeviceCapture],
    ) -> None:
        self._wanted, self._cameras, self._identities, self._opener = wanted, cameras, identities, opener
        self._chosen: ChosenCamera | None = None

    @property
    def name(self) -> str:
        return self._chosen.camera.name if self._chosen else self._wanted or "camera"

    def find(self) -> Callable[[], DeviceCapture]:
        """Take the camera that was used before, under whatever number it has now, else the one that is wanted."""
        cameras = self._cameras()
        if self._chosen is None:
            self._chosen = choose_first(choose_camera(self._wanted, cameras), cameras)
        before, self._chosen = self._chosen, look_again(self._chosen, cameras)
        if self._chosen.missed:
            raise DeviceError(self._missing(cameras))
        camera = self._chosen.camera
        if camera.identity != before.camera.identity:
            _LOG.info("%s (%s) is taken for the camera that was unplugged", camera.name, camera.path)
        return lambda: self._opener(camera.path)

    def gives_pictures(self) -> bool:
        """Note which other cameras are there beside it; return whether it is to be left for the one chosen first."""
        assert self._chosen is not None
        there = self._identities()
        self._chosen = seen_with(self._chosen, there)
        return self._chosen.first != self._chosen.camera.identity and self._chosen.first in there

    def in_words(self, condition: Condition) -> str:
        match condition:
            case Condition.STUCK:
                return f"{self.name} does not open (waited {OPEN_LIMIT_S:g} s): unplug it and plug it in"
            case Condition.BLACK:
                return f"{self.name} gives a black picture: is its cover or privacy switch closed?"
            case Condition.FROZEN:
                return f"{self.name} gives the same picture again and again: opening it anew"
            case _:
                return f"{self.name} gives no pictures"

    def why_ended(self, failure: str) -> str:
        assert self._chosen is not None
        camera, cameras = self._chosen.camera, self._cameras()
        if all(one.identity != camera.identity for one in cameras):
            return self._missing(cameras)
        if failure != "open":
            return f"{camera.name} stopped giving pictures: trying again"
        if sys.platform == "linux":
            path = str(camera.path)
            if not os.access(path, os.R_OK | os.W_OK):
                return f"no permission for {path}: add yourself to the group video, then log in again"
            if users := v4l2.holders(path):
                return f"{camera.name} is in use by {', '.join(users)}: close it there"
        return f"{camera.name} cannot be opened: does another program use it?"

    def _missing(self, cameras: Sequence[Camera]) -> str:
        assert self._chosen is not None
        told = f"{self.name} is not there: plug it in again"
        if others := namesakes(self._chosen, cameras):
            told += f" (another one of that name is there: --source camera:{others[0].path})"
        return told
