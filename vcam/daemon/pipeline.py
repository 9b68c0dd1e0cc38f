"""The way of a frame in threads of its own: captured, translated, published."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vcam.daemon.event_log import EventLog
from vcam.daemon.loops import FinishedFrame, FrameSlots, again_and_again, capture_loop, finish_loop, translate_loop
from vcam.daemon.publisher import Clock, Publisher
from vcam.devices.source_switch import SourceSwitch
from vcam.errors import VcamError
from vcam.frames import Frame, Translation
from vcam.worker.translator import WorkerTranslator

END_S = 10.0  # how long a thread may take to end; a driver that hangs is left behind


class Pipeline:
    """Source, translator and publisher, and the slots between them; each is called by one thread from `start` on."""

    def __init__(
        self,
        source: SourceSwitch,
        translator: WorkerTranslator,
        publisher: Publisher,
        slots: FrameSlots,
        log: EventLog,
        clock: Clock,
    ) -> None:
        self.source, self.translator, self.publisher, self.slots = source, translator, publisher, slots
        self._log, self._clock = log, clock
        self._threads: list[threading.Thread] = []
        self.lost = ""  # why what was published is not all kept, once this is closed

    def start(
        self,
        stop: threading.Event,
        resting: Callable[[], bool],
        framed: Callable[[Frame], Frame],
        finish: Callable[[Translation], FinishedFrame],
    ) -> None:
        """Start the threads, which end once `stop` is set.

        resting: whether camera and engine shall rest now. framed: says which part of a frame is shown. finish: makes
        of a translation what is published.
        """

        def capture() -> None:
            capture_loop(self.source, self.slots, stop, resting, framed)

        def translate() -> None:
            translate_loop(self.translator, self.slots, stop, self._clock, resting)

        def finishing() -> None:
            finish_loop(self.slots, finish, stop, resting)

        def finished() -> None:
            again_and_again(finishing, stop, lambda error: self._failed("finish", error))

        def captured() -> None:
            again_and_again(capture, stop, lambda error: self._failed("capture", error))

        def translated() -> None:
            try:
                again_and_again(translate, stop, lambda error: self._failed("translate", error))
            finally:
                self.translator.close()  # here: on Linux the child dies with the thread that made it

        for name, work in (
            ("publish", lambda: self._publish(stop)),
            ("capture", captured),
            ("translate", translated),
            ("finish", finished),
        ):
            self._threads.append(threading.Thread(target=work, name=f"vcam-{name}", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait for the threads, at most END_S for each, and close the source."""
        for thread in self._threads:
            thread.join(END_S)
        self.source.close()

    def _publish(self, stop: threading.Event) -> None:
        try:
            self.publisher.publish(self.slots, stop, self._log.sink_said, self._log.fault)
        except Exception as error:  # noqa: BLE001  the pacer itself: nothing can be published any more, and it says why
            self._log.fault("publishing failed", error)
            self._log.set_trouble("publish", f"{type(error).__name__}: {error}")
        finally:
            stop.set()
            self._close_publisher()  # here: nobody else may be at the sink while it sends

    def _close_publisher(self) -> None:
        try:
            self.publisher.close(self.slots.counts.published)
        except VcamError as error:
            self._log.say(str(error))
            self.lost = str(error)
        except Exception as error:  # noqa: BLE001  the run ends all the same, and says that something is lost
            self._log.fault("what the pictures went to could not be closed", error)
            self.lost = f"{self.publisher.sink.name} could not be closed ({type(error).__name__}: {error})"

    def _failed(self, name: str, error: BaseException) -> None:
        self._log.fault(f"{name} failed and is started again", error)
        self._log.set_trouble(name, f"{name} failed ({type(error).__name__}: {error}) and was started again")
