"""The sound of recordings: which microphone they hear, and what of it belongs where in a file."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from vcam.commands import RecorderState
from vcam.daemon.loops import Shown
from vcam.daemon.sound_place import Place, SoundPlace
from vcam.devices.microphone import HeardSound, Microphone, MicrophoneProcess
from vcam.devices.microphone_process import DEFAULT, RATE
from vcam.devices.sinks import VideoFile

OpenMicrophone = Callable[[str, Callable[[str], None]], Microphone]
"""Opens the microphone of a name; what is told is said by the second."""


class Track:
    """The sound of one recording.

    on: whether its file has a track for it. microphone: what it hears now, set by the commands' thread. over: whether
    its file is complete, or never will be. `hear_until` belongs to the thread that writes the file.
    """

    def __init__(self, on: bool, fps: float) -> None:
        self.on, self.over, self._fps = on, False, fps
        self.microphone: Microphone | None = None
        self._heard_from: float | None = None  # of the picture that was written last, see Place
        self._waiting: deque[HeardSound] = deque()  # heard after the picture that is being written

    def hear_until(self, file: VideoFile, tick: int, place: Place) -> None:
        """Give the file what was heard until the picture of this beat was published."""
        before, self._heard_from = self._heard_from, place.heard_from
        if before is not None and place.heard_from != before:
            file.hush()
        microphone = self.microphone  # which may be taken away at any time
        self._waiting.extend(() if microphone is None else microphone.take())
        while before is not None and self._waiting and self._was_heard(self._waiting[0], tick, place):
            self._hear(file, self._waiting.popleft(), place)

    def _was_heard(self, sound: HeardSound, tick: int, place: Place) -> bool:
        """Return whether it was heard when this was published: by what comes later it is not to be judged."""
        return sound.heard_s * self._fps + place.now <= tick

    def _hear(self, file: VideoFile, heard: HeardSound, place: Place) -> None:
        """Give the file sound, at its place, but for what was said while nothing might be heard."""
        samples, beat = heard.samples, heard.heard_s * self._fps
        unheard = (place.heard_from - (beat + place.now)) / self._fps * RATE
        if unheard > 0:
            samples = samples.copy()
            samples[: math.ceil(min(unheard, len(samples)))] = 0
        file.hear(samples, beat + place.shown)

    def close(self) -> None:
        """Close the microphone; what it has heard can still be written."""
        if (microphone := self.microphone) is not None:
            microphone.close()

    def leave(self) -> None:
        """Hear no microphone any more."""
        microphone, self.microphone = self.microphone, None
        if microphone is not None:
            microphone.close()


class RecordedSound:
    """What recordings hear. microphone: its name, "" for none; say: tells the user; clock: of a frame's captured_s.

    `take` belongs to the publisher's thread, `told_in` may be asked from any, the rest is the commands' thread's. The
    microphone is open only during a recording.
    """

    def __init__(
        self,
        fps: float,
        say: Callable[[str], None],
        microphone: str = "",
        open_microphone: OpenMicrophone = MicrophoneProcess,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._wanted, self._on, self._open_microphone = microphone or DEFAULT, bool(microphone), open_microphone
        self._fps, self._say, self._clock, self._place = fps, say, clock, SoundPlace(fps)
        self._heard_from = -math.inf

    def take(self, now: Shown) -> Place:
        """Return where sound belongs as of what is published now."""
        place = self._place.take(now, self._clock())
        self._heard_from = place.heard_from
        return place

    def track(self) -> Track:
        """Return the sound of a recording that begins now; `open` then opens its microphone."""
        return Track(self._on, self._fps)

    def switch(self, on: bool | None, recorded: str, track: Track | None) -> None:
        """Hear the microphone from now on, or do not; None: the other way than now.

        recorded, track: of the recording that runs. One that began without sound stays so; in one that has sound it is
        silent while this is off.
        """
        before, self._on = self._on, not self._on if on is None else on
        if self._on and track is not None and not track.on:
            self._say(f"{recorded} began without sound and stays so; the next recording has the microphone")
        elif self._on is not before:
            self._say("recordings have the microphone now" if self._on else "recordings are without sound now")
        if track is not None and self._on:
            self.open(track)
        elif track is not None:
            track.leave()

    def open(self, track: Track) -> None:
        """Open the microphone for a recording that shall hear it now; what is wrong with that costs the sound alone."""
        if not (self._on and track.on and track.microphone is None):
            return
        try:
            track.microphone = self._open_microphone(self._wanted, self._say)
        except RuntimeError as error:  # the system gives no more threads
            self._say(f"the microphone cannot be heard ({error}); the recording goes on without sound")
            return
        if track.over:  # the recording has failed meanwhile, and closed what it knew of
            track.close()

    def told_in(self, state: RecorderState, track: Track | None) -> RecorderState:
        """Return the state with what is heard; track: of the recording that runs."""
        wanted = self._wanted if self._on else ""
        microphone = None if track is None else track.microphone
        if microphone is None:
            return replace(state, microphone=wanted)
        heard = "cut" if self._heard_from == math.inf else "missing" if microphone.trouble else "on"
        return replace(
            state,
            microphone=microphone.name or wanted,
            sound=heard if microphone.name else "missing",
            sound_trouble=microphone.trouble,
        )
