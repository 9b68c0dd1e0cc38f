"""Sinks that work on threads of their own, beside the virtual camera or alone: none of them costs the pacer's beat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from vcam.errors import DeviceError, VcamError
from vcam.frames import FrameSink, LatestSlot, Picture

OPEN_S = 20.0  # how long one may take to open
END_S = 2.0  # ... and to take its last picture; a library that hangs is left behind
STUCK_S = 3.0  # without taking a picture
_LOOK_S = 0.1  # how often a thread that waits looks whether it shall end


class SinkThread:
    """A sink that opens, works and closes on a thread of its own: `send` never waits, and the newest picture wins.

    make: opens the sink. what: the user's word for it. Raises DeviceError where it does not open.
    """

    def __init__(self, make: Callable[[], FrameSink], what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._what, self._clock = make, what, clock
        self._pictures: LatestSlot[tuple[Picture, int]] = LatestSlot()
        self._opened: Future[FrameSink] = Future()
        self._stop = threading.Event()
        self._trouble, self._wrong = "", ""
        self._busy_s: float | None = None  # since when the sink has been taking a picture
        self._thread = threading.Thread(target=self._run, name=f"vcam-{what.lower()}", daemon=True)
        self._thread.start()
        try:
            self._sink = self._opened.result(OPEN_S)
        except TimeoutError as error:
            self._stop.set()
            raise DeviceError(f"{what} did not open within {OPEN_S:.0f} s") from error
        self.name: str = self._sink.name
        self.size: tuple[int, int] = self._sink.size

    @property
    def watching(self) -> int | None:
        """How many programs receive it; None where that cannot be told."""
        watching: int | None = getattr(self._sink, "watching", None)
        return watching

    def send(self, picture: Picture, tick: int) -> None:
        """Leave the picture to the thread; raise DeviceError if the sink does not take what it was given before."""
        self._pictures.put((picture, tick))
        busy_s = self._busy_s
        if busy_s is not None and self._clock() - busy_s > STUCK_S:
            raise DeviceError(f"{self._what} has taken no picture for more than {STUCK_S:.0f} s")
        if self._trouble:
            raise DeviceError(self._trouble)

    def close(self) -> None:
        """End the thread, once the last picture is out; raise DeviceError if the sink could not be closed."""
        self._stop.set()
        self._thread.join(END_S)
        if self._wrong:
            raise DeviceError(self._wrong)

    def _run(self) -> None:
        try:
            sink = self._make()
        except VcamError as error:
            self._opened.set_exception(error)
            return
        except Exception as error:  # noqa: BLE001  libraries raise what they like
            told = DeviceError(f"{self._what} could not be opened ({type(error).__name__}: {error})")
            self._opened.set_exception(told)
            return
        self._opened.set_result(sink)
        while True:
            ending = self._stop.is_set()  # what was left before that is still sent
            one = self._pictures.take(0.0 if ending else _LOOK_S)
            if one is not None:
                self._give(sink, *one)
            elif ending:
                break
        try:
            sink.close()
        except Exception as error:  # noqa: BLE001  see above
            self._wrong = f"{self._what} could not be closed ({type(error).__name__}: {error})"

    def _give(self, sink: FrameSink, picture: Picture, tick: int) -> None:
        self._busy_s = self._clock()
        try:
            sink.send(picture, tick)
        except VcamError as error:
            self._trouble = str(error)
        except Exception as error:  # noqa: BLE001  see above: it costs this picture, and is told
            self._trouble = f"{self._what} takes no pictures ({type(error).__name__}: {error})"
        else:
            self._trouble = ""
        finally:
            self._busy_s = None


class CameraAndMore:
    """The main sink, and others beside it that get every picture too; what they do not take is said, and no more.

    say: tells the user, and never waits: it is the pacer that tells.
    """

    def __init__(self, main: FrameSink, more: Sequence[SinkThread], say: Callable[[str], None]) -> None:
        self.main, self.more, self._say = main, tuple(more), say
        self.size = main.size
        self.name = ", ".join(one.name for one in (main, *more))
        self._troubles = [""] * len(self.more)

    def send(self, picture: Picture, tick: int) -> None:
        """Show the picture everywhere; raises VcamError if the main sink does not take it."""
        self.send_beside(picture, tick)
        self.main.send(picture, tick)

    def send_beside(self, picture: Picture, tick: int) -> None:
        """Show the picture everywhere but in the main sink."""
        for index, one in enumerate(self.more):
            try:
                one.send(picture, tick)
            except VcamError as error:
                trouble = str(error)
            else:
                trouble = ""
            if trouble != self._troubles[index]:
                self._troubles[index] = trouble
                self._say(trouble or f"{one.name} takes pictures again")

    def close(self) -> None:
        """End all, whatever the others do; raises the first error, the main sink's before all.

        It is a VcamError if what one was sent is not all kept.
        """
        errors: list[Exception] = []
        for one in (self.main, *self.more):
            try:
                one.close()
            except Exception as error:  # noqa: BLE001  the others are closed all the same; it is raised below
                errors.append(error)
        if errors:
            raise errors[0]
