"""A microphone while it is recorded: heard by a process of its own, which is watched and started again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcam.devices.microphone_process import AFTER_A_GAP, FAILED, OPENED, RATE, SOUND, messages
from vcam.log_file import JOURNAL

COMMAND = (sys.executable, "-P", "-m", "vcam.devices.microphone_process")
GONE_S = 5.0  # without sound: it hangs, or is unplugged
OPEN_S = 20.0  # ... that is being opened: libraries are loaded first
AGAIN_S = 2.0  # until one that failed is tried again
SILENT_S = 5.0  # of digital silence, which no open microphone gives
KEPT = 1500  # blocks that wait for whoever writes them: half a minute
STEADY = 100  # blocks by whose quickest all are timed: two seconds
SILENCE = "gives nothing but silence: is it muted, or may this program not hear it (the system's privacy settings)?"


@dataclass(frozen=True, eq=False)
class HeardSound:
    """Sound: samples int16 [n], `RATE` a second, and when the first of them was heard, in s of time.perf_counter."""

    samples: NDArray[np.int16]
    heard_s: float


class Microphone(Protocol):
    """What a recording hears. `take` never waits; all may be called from any thread."""

    @property
    def name(self) -> str:
        """The device's name, "" while there is none."""

    @property
    def trouble(self) -> str:
        """Why nothing is heard, in a sentence; "" while all is well."""

    def take(self) -> list[HeardSound]:
        """Return what was heard since it was last asked."""

    def close(self) -> None:
        """Close it; what was heard until then can still be taken."""


class Timing:
    """When sound was heard, by when it came: a block that was late in the pipe was not heard later.

    Of the newest blocks the one that came most quickly is believed, so that a microphone whose clock is another than
    the computer's is followed.
    """

    def __init__(self) -> None:
        self._samples = 0
        self._ahead: deque[float] = deque(maxlen=STEADY)

    def heard_s(self, came_s: float, samples: int, after_a_gap: bool = False) -> float:
        """Return when the first sample of the next block was heard; came_s: when the block came."""
        if after_a_gap:
            self._ahead.clear()
        self._ahead.append(came_s - (self._samples + samples) / RATE)
        began_s = min(self._ahead) + self._samples / RATE
        self._samples += samples
        return began_s


class _Trouble:
    """What is wrong with a microphone: said once, and that it is well again. now: in a sentence, "" while all is well.

    Belongs to the thread that hears, but for `now`.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.now, self._said, self._say = "", "", say
        self._sounded_s = time.monotonic()

    def opened(self, now_s: float) -> None:
        """Wait for the first sound of a microphone that was opened now."""
        self._sounded_s = now_s

    def listened(self, samples: NDArray[np.int16], now_s: float, name: str) -> None:
        """Notice whether anything is to be heard at all."""
        if np.any(samples):
            self._sounded_s = now_s
            self.tell("", name)
        elif now_s - self._sounded_s > SILENT_S:
            self.tell(f"the microphone {name} {SILENCE}", name)

    def tell(self, trouble: str, name: str) -> None:
        """Say a trouble that is new, and that all is well again."""
        self.now = trouble
        if trouble and trouble != self._said:
            self._say(trouble if SILENCE in trouble else f"{trouble}; the recording goes on without sound")
        elif not trouble and self._said:
            self._say(f"the microphone {name} is heard again")
        self._said = trouble


class MicrophoneProcess:
    """Hears a microphone from its making to `close`; what goes wrong is said once, and it is tried again.

    wanted: the device's name or a part of it, or DEFAULT. say: tells the user.
    """

    def __init__(self, wanted: str, say: Callable[[str], None], command: Sequence[str] = COMMAND) -> None:
        self._wanted, self._command, self._trouble = wanted, command, _Trouble(say)
        self._waiting: deque[HeardSound] = deque(maxlen=KEPT)
        self._name = self._hangs = ""
        self._came_s = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()  # held from the look at `_stop` until the process is known
        self._stop = threading.Event()
        for target, thread in ((self._keep_hearing, "vcam-microphone"), (self._watch, "vcam-microphone-watch")):
            threading.Thread(target=target, name=thread, daemon=True).start()

    @property
    def name(self) -> str:
        """See Microphone."""
        return self._name

    @property
    def trouble(self) -> str:
        """See Microphone."""
        return self._trouble.now

    def take(self) -> list[HeardSound]:
        """See Microphone."""
        taken = []
        with contextlib.suppress(IndexError):  # all is taken
            while True:
                taken.append(self._waiting.popleft())
        return taken

    def close(self) -> None:
        """See Microphone."""
        self._stop.set()
        self._end()

    def _keep_hearing(self) -> None:
        while not self._stop.is_set():
            try:
                self._hear_once()
            except Exception as error:  # noqa: BLE001  a fault of ours costs the sound for a moment, not the recording
                JOURNAL.error("hearing the microphone failed", exc_info=error)
                self._wrong(f"hearing the microphone failed ({type(error).__name__}: {error})")
            self._name = ""
            self._stop.wait(AGAIN_S)

    def _hear_once(self) -> None:
        """Hear one process to its end."""
        process = self._started()
        if process is None:
            return
        assert process.stdout is not None
        assert process.stdin is not None
        timing, why = Timing(), ""
        try:
            for message in messages(process.stdout):
                now = self._came_s = time.monotonic()
                if message.kind == OPENED:
                    self._name = message.data.decode(errors="replace")
                    self._trouble.opened(now)
                elif message.kind == FAILED:
                    why = message.data.decode(errors="replace")
                elif message.kind in (SOUND, AFTER_A_GAP):
                    samples = np.frombuffer(message.data, np.int16)
                    heard_s = timing.heard_s(message.at_s, len(samples), message.kind == AFTER_A_GAP)
                    self._waiting.append(HeardSound(samples, heard_s))
                    self._trouble.listened(samples, now, self._name)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if not self._stop.is_set():
            self._wrong(why or self._hangs or f"the microphone {self._name or self._wanted} is gone")

    def _started(self) -> subprocess.Popen[bytes] | None:
        """Return a process that opens the microphone; None if none could be started, or shall not run any more."""
        with self._starting:
            if self._stop.is_set():
                return None
            try:
                process = subprocess.Popen(
                    [*self._command, self._wanted],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # drivers write what they like; what matters comes as a message
                    start_new_session=True,  # a terminal's Ctrl-C is not for it: it ends when we close its stdin
                )
            except OSError as error:
                self._wrong(f"the microphone cannot be opened ({error.strerror})")
                return None
            self._process, self._came_s, self._hangs = process, time.monotonic(), ""
            return process

    def _watch(self) -> None:
        """End a process that gives nothing any more."""
        while not self._stop.wait(0.2):
            limit_s = GONE_S if self._name else OPEN_S
            if self._process is not None and time.monotonic() - self._came_s > limit_s:
                self._hangs = f"the microphone {self._name or self._wanted} gives nothing any more"
                self._end()
                self._came_s = time.monotonic()

    def _end(self) -> None:
        with self._starting:
            if self._process is not None:
                self._process.kill()

    def _wrong(self, trouble: str) -> None:
        self._trouble.tell(trouble, self._name)
