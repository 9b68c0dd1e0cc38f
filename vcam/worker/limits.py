"""When an engine counts as dead, and when the next one may be started: values and pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

Clock = Callable[[], float]
ASLEEP_S = 1.0  # the translating thread looks several times a second: a longer gap means that nobody ran
MOST_DOUBLINGS = 30  # of the wait between two tries
WELL_AFTER = 3  # pictures after which a restarted engine counts as well again


@dataclass(frozen=True)
class Limits:
    """How long an engine may be silent, in seconds, and how often it may fail before it is given up.

    frame_s: for a picture once one has come; first_frame_s: for the first (it may compile); load_s: between two
    messages while it loads. raises: pictures in a row that may fail before a restart. tries: restarts in a row
    without a picture. first_wait_s, longest_wait_s: the wait before the first restart, and before any.
    """

    load_s: float = 600.0
    first_frame_s: float = 300.0
    frame_s: float = 10.0
    raises: int = 5
    tries: int = 5
    first_wait_s: float = 0.25
    longest_wait_s: float = 8.0

    def wait_s(self, failures: int) -> float:
        """Return the wait before the next start after so many failures in a row."""
        doublings = min(max(0, failures - 1), MOST_DOUBLINGS)  # a server may be away for weeks
        return float(min(self.longest_wait_s, self.first_wait_s * 2**doublings))


LIMITS = Limits()


class AwakeClock:
    """A clock that stands still while this process does: suspended, stopped, or the lid closed.

    It must be read several times a second by the thread that owns it. A gap between two readings of more than
    ASLEEP_S does not count: a process that did not run has waited for nothing, and its child did not run either.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = clock()
        self._awake_s = self._last_s

    def __call__(self) -> float:
        """Return the seconds of `clock` without its gaps."""
        now = self._clock()
        gap, self._last_s = now - self._last_s, now
        self._awake_s += gap if gap <= ASLEEP_S else 0.0
        return self._awake_s


@dataclass(frozen=True)
class Activity:
    """What the parent has seen of a child, in seconds of its clock.

    heard_s: when it last sent a message. busy_since_s: when it began with the picture that it works on, None while
    it is idle; in_flight: pictures that it was given and has not answered. loaded: whether it takes pictures.
    fusing: whether it was told of other LoRAs and has not answered. pictures: translations so far, busy_s: the
    seconds that they took. frame_s: seconds per frame, smoothed, 0 while unknown. raises: pictures in a row that
    failed.
    """

    heard_s: float
    busy_since_s: float | None = None
    loaded: bool = False
    fusing: bool = False
    pictures: int = 0
    busy_s: float = 0.0
    frame_s: float = 0.0
    raises: int = 0
    in_flight: int = 0


def frame_given(activity: Activity, now: float) -> Activity:
    """Return the activity after a picture was given; one that is still busy begins with it later."""
    since_s = now if activity.busy_since_s is None else activity.busy_since_s
    return replace(activity, busy_since_s=since_s, in_flight=activity.in_flight + 1)


def frame_failed(activity: Activity, now: float) -> Activity:
    """Return the activity after a picture at which the engine failed."""
    return replace(_one_answered(activity, now), raises=activity.raises + 1)


def _one_answered(activity: Activity, now: float) -> Activity:
    left = max(0, activity.in_flight - 1)
    return replace(activity, busy_since_s=now if left else None, in_flight=left)


def frame_finished(activity: Activity, now: float, translated: bool) -> Activity:
    """Return the activity after an answer to a picture; the wait for the camera is no time of the engine's."""
    frame_s, busy_s = activity.frame_s, activity.busy_s
    if activity.busy_since_s is not None:
        took = now - activity.busy_since_s
        busy_s += took
        frame_s = took if not frame_s else 0.8 * frame_s + 0.2 * took
    pictures = activity.pictures + translated
    return replace(_one_answered(activity, now), frame_s=frame_s, busy_s=busy_s, raises=0, pictures=pictures)


def why_hung(activity: Activity, limits: Limits, now: float) -> str:
    """Return why an engine that is silent counts as hung, "" while it may be."""
    if not activity.loaded:
        if now - activity.heard_s > limits.load_s:
            return f"the engine has not loaded and said nothing for {_seconds(limits.load_s)} s"
    elif activity.busy_since_s is not None:
        limit = max(limits.frame_s, 20 * activity.frame_s)
        if not activity.pictures or activity.fusing:
            limit = limits.first_frame_s  # fusing a large model's weights takes its time
        if now - activity.busy_since_s > limit:
            return f"the engine has not answered for {_seconds(limit)} s"
    return ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


@dataclass(frozen=True)
class Restarts:
    """How often an engine had to be started again, and when the next may be.

    total: since the run began. in_a_row: failures since an engine was well. next_start_s: not before. given_up: no
    more starts until the user asks for something. reason: of the last failure, "" once an engine is well again.
    """

    next_start_s: float
    total: int = 0
    in_a_row: int = 0
    given_up: bool = False
    reason: str = ""

    def due(self, now: float) -> bool:
        """Return whether an engine may be started now."""
        return not self.given_up and now >= self.next_start_s


def after_failure(before: Restarts, reason: str, final: bool, limits: Limits, now: float) -> Restarts:
    """Return when to try again after a failure, or that it is given up; final: trying again will not help."""
    failures = before.in_a_row + 1
    return Restarts(
        next_start_s=now + limits.wait_s(failures),
        total=before.total + 1,
        in_a_row=failures,
        given_up=final or failures >= limits.tries,
        reason=reason,
    )


def after_pictures(before: Restarts, pictures: int) -> Restarts:
    """Return the restarts once the engine has shown so many pictures: after WELL_AFTER the count begins anew."""
    return replace(before, in_a_row=0, reason="") if before.in_a_row and pictures >= WELL_AFTER else before


def fresh_try(before: Restarts, now: float) -> Restarts:
    """Return the restarts once the user asked for something: that deserves a try at once."""
    return replace(before, in_a_row=0, given_up=False, next_start_s=now, reason="")
