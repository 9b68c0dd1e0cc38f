"""OBS's microphone in step with the picture: its sync offset follows the measured latency, in small steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vcam.errors import ObsRefused
from vcam.obs import answers
from vcam.obs.setup import LARGEST_OFFSET_MS, Ask, microphone_of

WITHIN_MS = 15.0  # of the latency the offset is let be: ears notice about 40 ms
STEP_MS = 5.0  # at once: what OBS then leaves out or repeats of the sound is too short to be heard as a jump
BEAT_S = 0.5  # between two steps
LOOK_AGAIN_S = 15.0  # how often OBS is asked for the offset, which its user may have changed


def next_offset_ms(offset_ms: float, latency_ms: float, moving: bool) -> float:
    """Return the offset after one step from `offset_ms` towards the latency; the same where it is near enough.

    moving: whether the step before moved it: then it goes on until it is there, and stays when the latency trembles.
    """
    wanted = min(float(LARGEST_OFFSET_MS), latency_ms)
    if abs(wanted - offset_ms) <= (STEP_MS / 2 if moving else WITHIN_MS):
        return offset_ms
    return offset_ms + max(-STEP_MS, min(STEP_MS, wanted - offset_ms))


class AudioSync:
    """Moves the sync offset of one audio input of OBS. microphone: its name, "" for OBS's first.

    `step` is called as often as one likes. Raises ObsError.
    """

    def __init__(self, ask: Ask, microphone: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._name = microphone
        self._offset_ms: float | None = None
        self._moving = False
        self._next_s = self._look_s = clock()

    def step(self, latency_ms: float) -> float | None:
        """Take a step if one is due and the latency is known (over 0); return the offset after it, None without one."""
        now = self._clock()
        if now < self._next_s or latency_ms <= 0:
            return None
        self._next_s = now + BEAT_S
        if self._offset_ms is None or now >= self._look_s:
            self._look_s = now + LOOK_AGAIN_S
            self._name = self._name or microphone_of(self._ask)
            answer: dict[str, Any] = self._ask("GetInputAudioSyncOffset", inputName=self._name)
            self._offset_ms = answers.number(answer, "inputAudioSyncOffset")
        wanted = next_offset_ms(self._offset_ms, latency_ms, self._moving)
        self._moving = wanted != self._offset_ms
        if not self._moving:
            return None
        self._ask("SetInputAudioSyncOffset", inputName=self._name, inputAudioSyncOffset=round(wanted))
        self._offset_ms = wanted
        return wanted


def stepped(sync: AudioSync, latency_ms: float, say: Callable[[str], None]) -> None:
    """Take a step; what OBS refuses (there is no such input) is said. Raises ObsError where OBS is gone."""
    try:
        sync.step(latency_ms)
    except ObsRefused as error:
        say(f"OBS: the sound cannot be kept in step: {error}")
