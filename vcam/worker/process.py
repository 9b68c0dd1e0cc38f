"""One child as the parent sees it: started, watched, given pictures and orders, ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from core.settings import EngineSettings, Look, Lora
from vcam.frames import Frame
from vcam.worker import child
from vcam.worker.messages import (
    Done,
    Failed,
    Fused,
    Given,
    Leave,
    NewLook,
    NewLoras,
    Progress,
    Raised,
    Ready,
    Unknown,
)
from vcam.worker.pictures import SharedPictures

Clock = Callable[[], float]


@dataclass(frozen=True)
class Limits:
    """How long the child may be silent (s), and how often it may fail before it is given up.

    frame_s: for a picture once one has come; first_frame_s: for the first (it may compile); load_s: between two
    words while it loads. raises: pictures in a row that may fail before a restart. tries: restarts in a row without
    a picture.
    """

    load_s: float = 600.0
    first_frame_s: float = 300.0
    frame_s: float = 10.0
    raises: int = 5
    tries: int = 5
    first_wait_s: float = 0.25
    longest_wait_s: float = 8.0

    def wait_s(self, failures: int) -> float:
        """The back-off before the next start after so many failures in a row."""
        return float(min(self.longest_wait_s, self.first_wait_s * 2 ** max(0, failures - 1)))


LIMITS = Limits()


class EngineProcess:
    """One child: alive when built, its messages read by `step`, ended by `close`. Used from one thread.

    `failure` is why it is of no more use, "" while it is; final: trying again will not help.
    """

    def __init__(
        self, settings: EngineSettings, look: Look, factory: str, threads: int, limits: Limits, clock: Clock
    ) -> None:
        self.settings, self.look = settings, look
        self.failure, self.final = "", False
        self.progress = Progress("starting", 0.02)
        self.facts: dict[str, Any] = {}
        self.refused = ""
        self.unknown: tuple[str, ...] = ()
        self.pictures = 0
        self.frame_s = 0.0
        self._fused, self._fusing = settings.loras, 0  # LoRAs that it has, and how often it was told of others since
        self._waiting: dict[type[NamedTuple], NamedTuple] = {}  # orders for which it has no time yet
        self._limits, self._clock = limits, clock
        self._raises = 0
        self._busy_since_s: float | None = None
        self._heard_s = clock()
        self._shared = SharedPictures(settings)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=child.main,
            args=(theirs, self._shared.name, settings, look, factory, threads, os.getpid()),
            name="vcam-engine",
            daemon=True,
        )
        with _sigint_blocked():  # inherited: a Ctrl-C while the child starts must not kill it before its order comes
            self._process.start()
        theirs.close()

    @property
    def ready(self) -> bool:
        """Whether it has loaded."""
        return bool(self.facts)

    @property
    def idle(self) -> bool:
        """Whether a picture given now would be begun at once."""
        return self.ready and not self.failure and self._busy_since_s is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid or 0

    def give(self, frame: Frame, mirror: bool) -> None:
        """Hand a frame over; only while idle."""
        from vcam import fit  # OpenCV: the child shall not load it

        size = (self.settings.width, self.settings.height)
        self._shared.given[:] = fit.crop_to(frame.picture, size, mirror)
        self._put_waiting()
        self._busy_since_s = self._clock()
        self._put(Given(frame.index, frame.captured_s))

    def set_look(self, look: Look, transition_ms: int) -> None:
        """The look from the next picture on."""
        self.look = look
        self.send(NewLook(look, self._frames(transition_ms)))

    def takes(self, settings: EngineSettings) -> bool:
        """Whether `use_loras` makes of this engine one of these settings."""
        return self.is_but_for_loras(settings) and bool(self.facts.get("changes_loras"))

    def is_but_for_loras(self, settings: EngineSettings) -> bool:
        """Whether it has these settings, whatever its LoRAs."""
        return replace(self.settings, loras=settings.loras) == settings

    def use_loras(self, loras: tuple[Lora, ...], transition_ms: int) -> None:
        """These LoRAs from the next picture on; the settings say so unless the child refuses them."""
        self.settings = replace(self.settings, loras=loras)
        self.send(NewLoras(loras, self._frames(transition_ms)))

    def _frames(self, transition_ms: int) -> int:
        return round(transition_ms / 1000 / self.frame_s) if self.frame_s else 0

    def send(self, order: NamedTuple) -> None:
        """Have the child carry out an order before its next picture; of a kind only the newest is carried out.

        So the pipe never fills while the child loads, hangs, or waits for us to read its answers.
        """
        self._waiting.pop(type(order), None)
        self._waiting[type(order)] = order

    def _put_waiting(self) -> None:
        if self.idle:
            for order in self._waiting.values():
                self._fusing += isinstance(order, NewLoras)
                self._put(order)
            self._waiting.clear()

    def _put(self, order: NamedTuple) -> None:
        with contextlib.suppress(OSError):  # a broken pipe is found by `step`
            self._pipe.send(order)

    def waitable(self) -> list[Any]:
        """What becomes ready when there is something to `step` for."""
        return [] if self.failure else [self._pipe, self._process.sentinel]

    def step(self) -> Frame | None:
        """Read what the child said, notice that it died or hangs; the newest translation, if one came."""
        shown: Frame | None = None
        try:
            while not self.failure and self._pipe.poll():
                shown = self._heard(self._pipe.recv()) or shown
            self._put_waiting()
        except (EOFError, OSError):
            self._process.join(1)
            self.failure = self.failure or _death(self._process.exitcode)
        if not self.failure and not self._process.is_alive():
            self.failure = _death(self._process.exitcode)
        if not self.failure:
            self._watch()
        return shown

    def _heard(self, message: object) -> Frame | None:
        now = self._heard_s = self._clock()
        match message:
            case Progress():
                self.progress = message
            case Ready(facts):
                self.facts = facts
                self.progress = Progress("making the first picture", 0.9)
            case Unknown(words):
                self.unknown = words
            case Done(shown, bank_bytes):
                self._raises = 0
                self._measure(now)
                self.facts = {**self.facts, "bank_bytes": bank_bytes}
                if shown is not None:
                    self.pictures += 1
                    return Frame(self._shared.result.copy(), shown.captured_s, shown.number)
            case Raised(at, text) if at != "picture":
                self.refused = text
                if at == "loras":
                    self._answered(self._fused)
            case Fused(loras):
                self._answered(loras)
            case Raised(_, text):
                self._busy_since_s = None
                self._raises += 1
                if self._raises >= self._limits.raises:
                    self.failure = f"the engine fails at every picture: {text}"
            case Failed(text, final):
                self.failure, self.final = text, final
        return None

    def _answered(self, loras: tuple[Lora, ...]) -> None:
        """The child has these LoRAs; the settings say so when no further ones are under way."""
        self._fused = loras
        self._fusing -= 1
        if self._busy_since_s is not None:
            self._busy_since_s = self._heard_s  # the picture was begun only now
        if not self._fusing and NewLoras not in self._waiting:
            self.settings = replace(self.settings, loras=loras)

    def _measure(self, now: float) -> None:
        """Seconds per frame, smoothed; waiting for the camera is not the engine's time."""
        if self._busy_since_s is not None:
            took = now - self._busy_since_s
            self.frame_s = took if not self.frame_s else 0.8 * self.frame_s + 0.2 * took
        self._busy_since_s = None

    def _watch(self) -> None:
        now = self._clock()
        if not self.ready:
            if now - self._heard_s > self._limits.load_s:
                self.failure = f"the engine has not loaded and said nothing for {self._limits.load_s:g} s"
        elif self._busy_since_s is not None:
            limit = max(self._limits.frame_s, 20 * self.frame_s)
            if not self.pictures or self._fusing:
                limit = self._limits.first_frame_s  # fusing a large model's weights takes its time
            if now - self._busy_since_s > limit:
                self.failure = f"the engine has not answered for {limit:g} s"

    def close(self, grace_s: float = 0.0) -> None:
        """End the child: asked for grace_s, then killed; give the memory back."""
        if grace_s and not self.failure:
            self._put(Leave())
            self._process.join(grace_s)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(5)
        self._pipe.close()
        self._shared.remove()


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in {s.value for s in signal.Signals} else str(-exitcode)
        return f"the engine was killed ({name})" + (": out of memory?" if name == "SIGKILL" else "")
    return f"the engine ended by itself (exit status {exitcode})"


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
