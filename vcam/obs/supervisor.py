"""The bridge to OBS as the daemon sees it: a child process that is started, watched, and started again."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from vcam.obs.bridge import NOT_RUNNING, Orders, Told

SILENT_S = 30.0  # without a line from the bridge: it hangs, in what something in OBS's place does to it
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
END_S = 2.0  # how long a bridge may take to end by itself
REPEAT_S, MOST_TEXTS = 60.0, 100
LONGEST_LINE = 64 * 1024
_LOG = logging.getLogger("vcam.obs")
COMMAND = (sys.executable, "-P", "-m", "vcam.obs.bridge")


class Seldom:
    """Says a text once in REPEAT_S: whoever listens in OBS's place shall not fill the terminal, the page or the log.

    May be called from any thread.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._lock = say, clock, threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def __call__(self, text: str) -> None:
        """Say the text, and how often it was left out; or leave it out."""
        with self._lock:
            left_out = self._left_out(text)
        if left_out is not None:
            self._say(f"{text} (and {left_out} times more since it was last said)" if left_out else text)

    def _left_out(self, text: str) -> int | None:
        """Return how often the text was left out since it was said, None where it is left out now."""
        now = self._clock()
        said_s, left_out = self._said.get(text, (float("-inf"), 0))
        if now < said_s + REPEAT_S:
            self._said[text] = said_s, left_out + 1
            return None
        if len(self._said) >= MOST_TEXTS:
            self._said = {one: seen for one, seen in self._said.items() if now < seen[0] + REPEAT_S}
            if len(self._said) >= MOST_TEXTS:
                return None  # nobody says so much who means well
        self._said[text] = now, 0
        return left_out


class BridgeProcess:
    """Keeps a bridge running, from `with` to its end. say: tells the user. folder: where the bridge stands.

    latency_ms: what the bridge is told every second, None for nothing.

    state: how it stands with OBS, in words, as the bridge said within the last SILENT_S.
    """

    def __init__(
        self,
        orders: Orders,
        say: Callable[[str], None],
        folder: Path,
        command: Sequence[str] = COMMAND,
        silent_s: float = SILENT_S,
        latency_ms: Callable[[], float] | None = None,
    ) -> None:
        self._latency_ms = latency_ms
        self._orders, self._folder, self._command, self._silent_s = orders, folder, command, silent_s
        self._say = Seldom(say)
        self._state, self._heard_s = NOT_RUNNING, time.monotonic()
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()  # held from the look at `_stop` until the process is known and has its orders
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._keep_running, "vcam-obs"), (self._watch, "vcam-obs-watch"))
        ]

    @property
    def state(self) -> str:
        """How it stands with OBS, in words; begins with "connected" while it is."""
        return self._state

    def __enter__(self) -> BridgeProcess:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._end()
        for thread in self._threads:
            thread.join(5)

    def _keep_running(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            started_s = time.monotonic()
            try:
                self._run_once()
            except Exception as error:  # noqa: BLE001  a fault of ours costs this bridge, not every one after it
                _LOG.exception("watching the bridge to OBS failed")
                self._set(f"the bridge to OBS failed ({type(error).__name__}: {error}) and is started again")
            wait_s = FIRST_WAIT_S if time.monotonic() > started_s + LONGEST_WAIT_S else min(LONGEST_WAIT_S, 2 * wait_s)
            self._stop.wait(wait_s)

    def _run_once(self) -> None:
        """Run one bridge to its end."""
        process = self._started()
        if process is None:
            return
        try:
            errors = threading.Thread(target=self._log, args=(process,), daemon=True)
            errors.start()
            assert process.stdout is not None
            while line := process.stdout.readline(LONGEST_LINE):
                self._hear(line)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            errors.join(END_S)  # before its pipe is closed
        finally:
            process.kill()
            process.wait()
            _close(process.stdin, process.stdout, process.stderr)
        if not self._stop.is_set():
            self._set(f"the bridge to OBS ended (exit status {process.returncode}) and is started again")

    def _started(self) -> subprocess.Popen[str] | None:
        """Return a bridge that has its orders; None if it could not be started, or shall not run any more."""
        with self._starting:
            if self._stop.is_set():
                return None
            try:
                process = subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,  # a terminal's Ctrl-C is not for it: it ends when we close its stdin
                )
            except OSError as error:
                self._set(f"the bridge to OBS cannot be started ({error.strerror})")
                return None
            self._process, self._heard_s = process, time.monotonic()
            assert process.stdin is not None
            try:
                process.stdin.write(self._orders.to_line())
                process.stdin.flush()
            except OSError as error:
                _LOG.warning("the bridge to OBS took no orders (%s)", error)
            return process

    def _hear(self, line: str) -> None:
        try:
            told = Told(**json.loads(line))
            if not (isinstance(told.state, str) and isinstance(told.said, str)):
                raise TypeError(f"state and said must be text, they are {told.state!r} and {told.said!r}")
        except (ValueError, TypeError, RecursionError) as error:
            _LOG.warning("the bridge to OBS said what is no line of it (%s)", error)
            return
        self._state, self._heard_s = told.state, time.monotonic()
        if told.said:
            self._say(told.said)

    def _log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            _LOG.warning("bridge: %s", line.rstrip()[:2000])

    def _watch(self) -> None:
        before_s = time.monotonic()
        while not self._stop.wait(1.0):
            now_s = time.monotonic()
            if now_s > before_s + self._silent_s / 2:  # the machine slept, and nobody could say anything
                self._heard_s = now_s
            before_s = now_s
            self._tell_latency()
            if now_s > self._heard_s + self._silent_s and self._process is not None and self._process.poll() is None:
                self._set(f"the bridge to OBS has said nothing for {self._silent_s:g} s and is started again")
                self._process.kill()

    def _tell_latency(self) -> None:
        """Tell the bridge the latency, where it shall know it; one that reads none is killed before the pipe fills."""
        if self._latency_ms is None or not self._starting.acquire(blocking=False):
            return
        try:
            process = self._process
            if process is not None and process.stdin is not None and process.poll() is None:
                with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
                    process.stdin.write(f"{self._latency_ms():.1f}\n")
                    process.stdin.flush()
        finally:
            self._starting.release()

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._say(f"OBS: {state}")

    def _end(self) -> None:
        """Have the bridge end, now that `_stop` is set: none is started after this."""
        started = self._starting.acquire(timeout=END_S)
        process = self._process
        if process is None or process.poll() is not None:
            return
        if not started:  # it does not take its orders
            process.kill()
            return
        _close(process.stdin)  # which ends it
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _close(*pipes: IO[str] | None) -> None:
    for pipe in pipes:
        if pipe is not None:
            with contextlib.suppress(OSError):  # what nobody read is lost with who should have read it
                pipe.close()
