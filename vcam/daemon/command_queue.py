"""Commands in the order they came: each ends its own future and nothing else."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future

from core.errors import StreamV2VError
from vcam.commands import Command, Panic, Pause, Stop
from vcam.daemon.event_log import EventLog
from vcam.daemon.told_commands import in_words
from vcam.errors import VcamError

_STOPPING = (Panic, Pause, Stop)  # carried out although nobody waits for them any more: better late than not


class CommandQueue:
    """Takes commands from any thread; one thread carries them out. apply: carries out one, or raises.

    A command that raises is over with that: StreamV2VErrors are refusals, told to who sent it; anything else
    is a fault of ours, told with its traceback in the log as well. Neither touches what comes after it.
    """

    def __init__(self, apply: Callable[[Command], None], log: EventLog) -> None:
        self._apply, self._log = apply, log
        # no SimpleQueue: before Python 3.13 its `get` waits for ever when a signal comes as the time runs out
        self._waiting: queue.Queue[tuple[Command, Future[None]]] = queue.Queue()

    def submit(self, command: Command) -> Future[None]:
        """Queue a command; its future ends when it was done, or with what it raised."""
        done: Future[None] = Future()
        self._waiting.put((command, done))
        return done

    def carry_out(self, timeout_s: float) -> bool:
        """Wait so long for a command and carry it out; return whether there was one."""
        try:
            command, done = self._waiting.get(timeout=timeout_s)
        except queue.Empty:
            return False
        wanted = done.set_running_or_notify_cancel()  # from here on nobody can cancel it
        if not wanted and not isinstance(command, _STOPPING):
            return True
        error = self._error_of(command)
        if wanted and error is None:
            done.set_result(None)
        elif wanted:
            done.set_exception(error)
        return True

    def _error_of(self, command: Command) -> BaseException | None:
        """Carry the command out; return what it raised."""
        try:
            self._apply(command)
            self._log.note(in_words(command))
        except StreamV2VError as error:
            self._log.note(f"refused: {error}")
            return error
        except BaseException as error:  # noqa: BLE001  whatever it is, a library's SystemExit too: it costs this command
            self._log.fault(f"the command {type(command).__name__} failed", error)
            return error
        return None

    def refuse_rest(self, reason: str) -> None:
        """End the futures of the commands that nobody will carry out, with a VcamError."""
        while True:
            try:
                _, done = self._waiting.get_nowait()
            except queue.Empty:
                return
            if done.set_running_or_notify_cancel():
                done.set_exception(VcamError(reason))
