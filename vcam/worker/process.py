"""One engine's process as the daemon sees it: started, watched, given pictures and orders, ended."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from core.settings import EngineSettings, Look, Lora
from vcam.frames import EngineFacts, Frame, Picture, Spread, Translation
from vcam.worker import child
from vcam.worker.limits import Activity, Clock, Limits, frame_failed, frame_finished, frame_given, why_hung
from vcam.worker.messages import (
    EngineLoaded,
    Exit,
    FrameDone,
    LoadFailed,
    LoadingProgress,
    LorasFused,
    Order,
    OrderFailed,
    SetLook,
    TranslateFrame,
    UseLoras,
)
from vcam.worker.shared_pictures import SharedPictures

STARTING = LoadingProgress("starting", 0.02)
FIRST_PICTURE = LoadingProgress("making the first picture", 0.9)


@dataclass(frozen=True)
class EngineReport:
    """What the child has told of itself; facts: None until it has loaded."""

    facts: EngineFacts | None = None
    progress: LoadingProgress = STARTING


class PicturePair(Protocol):
    """The picture `given` to an engine and its `result`: RGB uint8 [height, width, 3] of the settings' size."""

    given: Picture
    result: Picture


class EngineChild(Protocol):
    """Where an engine runs, as EngineProcess sees it: a process of this machine, or a connection to a server.

    pictures: `given` is sent with the order to translate it, `result` holds the translation while its message is read.
    window: pictures that it takes before the first is answered. here: whether it runs on this machine.
    """

    window: int
    here: bool

    @property
    def pictures(self) -> PicturePair:
        """The picture to be sent, and the translation that came."""

    @property
    def pid(self) -> int:
        """The process id; 0 where it is no process of this machine."""

    @property
    def waitable(self) -> list[Any]:
        """What multiprocessing.connection.wait finds ready when there is a message, or when it has ended."""

    @property
    def times(self) -> Mapping[str, Spread]:
        """What the way of a picture takes, by its parts; empty for a process of this machine."""

    @property
    def pause_s(self) -> float:
        """How long the next picture shall wait here for a newer one, because it would wait there; 0 for not at all."""

    def send(self, order: Order) -> None:
        """Send an order, without waiting for anything."""

    def messages(self) -> Iterator[object]:
        """Yield the messages that have come; raises EOFError or OSError once it has gone."""

    def death(self, wait_s: float = 0.0) -> str:
        """Return how it ended, waiting so long for it; "" while it lives."""

    def cut(self) -> None:
        """Let no picture leave this machine from now on; from any thread, at once."""

    def close(self, grace_s: float) -> None:
        """End it within about grace_s."""


class ChildProcess:
    """The process, its pipe and the pictures that it shares with the daemon; it runs when this is built."""

    window = 1  # there is one place for a picture in the memory that is shared
    here = True
    times: Mapping[str, Spread] = {}
    pause_s = 0.0

    def __init__(self, settings: EngineSettings, look: Look, factory: str, threads: int) -> None:
        self.pictures = SharedPictures(settings)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=child.main,
            args=(theirs, self.pictures.name, settings, look, factory, threads, os.getpid()),
            name="vcam-engine",
            daemon=True,
        )
        with theirs:
            try:
                with _sigint_blocked():  # inherited: a Ctrl-C while it starts must not kill it before its order comes
                    self._process.start()
            except BaseException:
                self._pipe.close()
                self.pictures.remove()
                raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def waitable(self) -> list[Any]:
        """What multiprocessing.connection.wait finds ready when there is a message, or when the process has ended."""
        return [self._pipe, self._process.sentinel]

    def send(self, order: Order) -> None:
        """Send an order; that the process has gone is found when its messages are read."""
        with contextlib.suppress(OSError):
            self._pipe.send(order)

    def messages(self) -> Iterator[object]:
        """Yield the messages that have come; raises EOFError or OSError once the process has gone."""
        while self._pipe.poll():
            yield self._pipe.recv()

    def death(self, wait_s: float = 0.0) -> str:
        """Return how the process ended, waiting so long for it; "" while it lives."""
        self._process.join(wait_s)
        if self._process.is_alive():
            return "" if not wait_s else "the engine closed its pipe"
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the engine ended by itself (exit status {code})"
        name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else str(-code)
        return f"the engine was killed ({name})" + (": out of memory?" if name == "SIGKILL" else "")

    def cut(self) -> None:
        """Do nothing: its pictures stay on this machine."""

    def close(self, grace_s: float) -> None:
        """Have the process end within grace_s, then kill it; give the memory back."""
        if grace_s:
            self.send(Exit())
            self._process.join(grace_s)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(5)
        self._pipe.close()
        self.pictures.remove()


@dataclass
class _LoraOrders:
    """Which LoRAs the child has in its weights, and how often it was told of others since."""

    fused: tuple[Lora, ...]
    under_way: int = 0


StartChild = Callable[[EngineSettings, Look, str, int], EngineChild]
"""(settings, look, factory, threads) -> what runs the engine: ChildProcess, or a connection to a server."""


class EngineProcess:
    """An engine in a child: alive when built, its messages read by `step`, ended by `close`. Used from one thread.

    `cut` and `times` are for any thread.

    failure: why it is of no more use, "" while it is. final: trying again will not help. refused: why the newest look
    or LoRAs could not be used, until the owner has read it.
    """

    def __init__(
        self,
        settings: EngineSettings,
        look: Look,
        factory: str,
        threads: int,
        limits: Limits,
        clock: Clock,
        start: StartChild = ChildProcess,
    ) -> None:
        self.settings, self.look = settings, look
        self.failure, self.final, self.refused = "", False, ""
        self.report = EngineReport()
        self.activity = Activity(clock())
        self._limits, self._clock = limits, clock
        self._loras = _LoraOrders(settings.loras)
        self._waiting: dict[type[Order], Order] = {}  # orders for which the child has no time yet
        self._child = start(settings, look, factory, threads)
        # those whose translation is still to come; no engine that keeps its word is further behind
        self._given: deque[tuple[Frame, Look]] = deque(maxlen=settings.steps + self._child.window + 2)

    @property
    def ready(self) -> bool:
        """Whether it has loaded."""
        return self.report.facts is not None

    @property
    def idle(self) -> bool:
        """Whether a picture given now would be begun at once."""
        return self._has_room and self._child.pause_s <= 0

    @property
    def idle_in_s(self) -> float:
        """In how many seconds it is idle unless a message comes before; infinite where only a message has it be so."""
        return max(0.0, self._child.pause_s) if self._has_room else math.inf

    @property
    def _has_room(self) -> bool:
        return self.ready and not self.failure and self.activity.in_flight < self._child.window

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        return self._child.here

    @property
    def pid(self) -> int:
        """The child's process id; 0 where it is no process of this machine."""
        return self._child.pid

    @property
    def times(self) -> Mapping[str, Spread]:
        """What the way of a picture to another machine takes, by its parts; empty here."""
        return self._child.times

    def cut(self) -> None:
        """Let no picture leave this machine from now on; from any thread, at once."""
        self._child.cut()

    def give(self, frame: Frame) -> None:
        """Hand a frame over; only while idle."""
        if not frame.imagined:
            from vcam import fit  # OpenCV: the child shall not load it

            size = (self.settings.width, self.settings.height)
            self._child.pictures.given[:] = fit.viewed(frame.picture, size, frame.shot)
        self._send_waiting()
        self.activity = frame_given(self.activity, self._clock())
        self._given.append((frame, self.look))
        self._child.send(TranslateFrame(frame.index, frame.captured_s, frame.imagined))

    def set_look(self, look: Look, transition_ms: int) -> None:
        """Use the look from the next picture on."""
        self.look = look
        self.send(SetLook(look, self._frames(transition_ms)))

    def takes(self, settings: EngineSettings) -> bool:
        """Return whether `use_loras` makes of this engine one of these settings."""
        return self.is_but_for_loras(settings) and self.report.facts is not None and self.report.facts.changes_loras

    def is_but_for_loras(self, settings: EngineSettings) -> bool:
        """Return whether it has these settings, whatever its LoRAs."""
        return replace(self.settings, loras=settings.loras) == settings

    def use_loras(self, loras: tuple[Lora, ...], transition_ms: int) -> None:
        """Use these LoRAs from the next picture on; `settings` says so unless the child refuses them."""
        self.settings = replace(self.settings, loras=loras)
        self.send(UseLoras(loras, self._frames(transition_ms)))

    def _frames(self, transition_ms: int) -> int:
        return round(transition_ms / 1000 / self.activity.frame_s) if self.activity.frame_s else 0

    def send(self, order: Order) -> None:
        """Have the child carry out an order before its next picture; of a kind only the newest is carried out.

        So the pipe never fills while the child loads, hangs, or waits for us to read its answers.
        """
        self._waiting.pop(type(order), None)
        self._waiting[type(order)] = order

    def _send_waiting(self) -> None:
        if self.idle:
            for order in self._waiting.values():
                self._loras.under_way += isinstance(order, UseLoras)
                self._child.send(order)
            self._waiting.clear()
            self.activity = replace(self.activity, fusing=self._loras.under_way > 0)

    def waitable(self) -> list[Any]:
        """Return what becomes ready when there is something to `step` for."""
        return [] if self.failure else self._child.waitable

    def step(self) -> Translation | None:
        """Read what the child said and notice that it died or hangs; return the newest translation, if one came."""
        shown: Translation | None = None
        try:
            for message in self._child.messages() if not self.failure else ():
                shown = self._heard(message) or shown
                if self.failure:
                    break
            self._send_waiting()
        except (EOFError, OSError):
            self.failure = self.failure or self._child.death(wait_s=1.0)
        self.failure = self.failure or self._child.death() or why_hung(self.activity, self._limits, self._clock())
        return shown

    def _heard(self, message: object) -> Translation | None:
        """Take note of a message; return the translation if it is one."""
        now = self._clock()
        self.activity = replace(self.activity, heard_s=now)
        match message:
            case LoadingProgress():
                self.report = replace(self.report, progress=message)
            case EngineLoaded(facts):
                self.report = replace(self.report, facts=facts, progress=FIRST_PICTURE)
                self.activity = replace(self.activity, loaded=True)
            case FrameDone():
                return self._frame_done(message, now)
            case OrderFailed("picture", text, unshown):
                self._forget_given(unshown)
                self._picture_failed(text)
            case OrderFailed(kind, text):
                self.refused = text
                if kind == "loras":
                    self._loras_answered(self._loras.fused, now)
            case LorasFused(loras):
                self._loras_answered(loras, now)
            case LoadFailed(text, final):
                self.failure, self.final = text, final
        return None

    def _frame_done(self, done: FrameDone, now: float) -> Translation | None:
        shown = done.shown
        self.activity = frame_finished(self.activity, now, translated=shown is not None)
        if self.report.facts is not None:
            facts = replace(self.report.facts, bank_bytes=done.bank_bytes, refreshes=done.refreshes)
            self.report = replace(self.report, facts=facts)
        self._forget_given(done.unshown)
        if shown is None:
            return None
        if not any(_is_of(frame, shown) for frame, _ in self._given):
            self.failure = f"the engine answers with picture {shown.number}, which it was not given"
            return None
        frame, look = self._given.popleft()
        while not _is_of(frame, shown):
            frame, look = self._given.popleft()
        picture = self._child.pictures.result.copy()
        return Translation(
            picture, shown.captured_s, shown.number, frame.picture, look, shot=frame.shot, imagined=frame.imagined
        )

    def _forget_given(self, order: TranslateFrame | None) -> None:
        if order is not None:
            kept = (one for one in self._given if not _is_of(one[0], order))
            self._given = deque(kept, maxlen=self._given.maxlen)

    def _picture_failed(self, text: str) -> None:
        self.activity = frame_failed(self.activity, self._clock())
        if self.activity.raises >= self._limits.raises:
            self.failure = f"the engine fails at every picture: {text}"

    def _loras_answered(self, loras: tuple[Lora, ...], now: float) -> None:
        """Note that the child has these LoRAs; the settings say so when no further ones are under way."""
        self._loras.fused = loras
        self._loras.under_way -= 1
        begun_s = None if self.activity.busy_since_s is None else now  # the picture was begun only now
        self.activity = replace(self.activity, busy_since_s=begun_s, fusing=self._loras.under_way > 0)
        if not self._loras.under_way and UseLoras not in self._waiting:
            self.settings = replace(self.settings, loras=loras)

    def close(self, grace_s: float = 0.0) -> None:
        """End the child: asked for grace_s, then killed; give the memory back."""
        self._child.close(0.0 if self.failure else grace_s)


def _is_of(frame: Frame, order: TranslateFrame) -> bool:
    """Return whether the order is this frame's."""
    return (frame.index, frame.captured_s) == order[:2]


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
