"""Looks tried in private: an engine of its own, beside the running one, translates single pictures."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

from core.settings import EngineSettings, Look, Policy
from vcam.errors import VcamError
from vcam.frames import Frame, Picture
from vcam.log_file import JOURNAL
from vcam.worker.process import EngineProcess
from vcam.worker.translator import StartEngine

IDLE_S = 30.0  # how long the engine stays after the last preview
LONGEST_S = 120.0  # for one picture, loading included
WAITING = 40  # previews that may wait
NICE = 10  # the running engine goes first


class _Job(NamedTuple):
    settings: EngineSettings
    look: Look
    picture: Picture
    imagined: bool
    done: Future[Picture]


class Previews:
    """Translates single pictures, one after the other, in a thread and a process that end when nothing is asked.

    `translate` may be called from any thread.
    """

    def __init__(self, start: StartEngine) -> None:
        self._start = start
        self._jobs: queue.Queue[_Job | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._index = 0  # of the pictures given, over all jobs: what was in flight before is known by it

    def translate(
        self, settings: EngineSettings, look: Look, picture: Picture, *, imagined: bool = False
    ) -> Future[Picture]:
        """Return the picture, to be translated with this look and no bank; the future may end with VcamError.

        imagined: a picture of the prompt alone is wanted, and the one given is but its place.

        Raises VcamError if too many wait, or the program is ending.
        """
        job = _Job(replace(settings, policy=Policy.OFF, slots=1), look, picture, imagined, Future())
        with self._lock:
            if self._closed:
                raise VcamError("StreamV2V Camera is ending")
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                raise VcamError("too many looks are being tried at once; try again in a moment") from None
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="vcam-previews", daemon=True)
                self._thread.start()
        return job.done

    def close(self) -> None:
        """End thread and process."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            with contextlib.suppress(queue.Full):
                self._jobs.put_nowait(None)
            thread.join(5)

    def _work(self) -> None:
        engine: EngineProcess | None = None
        try:
            while True:
                job = self._next()
                if job is None:
                    return
                if job.done.set_running_or_notify_cancel():  # else nobody waits for it any more
                    engine = self._carry_out(job, engine)
        finally:
            if engine is not None:
                engine.close()

    def _next(self) -> _Job | None:
        """Return the next job; None when this thread shall end, of which `translate` then knows."""
        try:
            return self._jobs.get(timeout=IDLE_S)
        except queue.Empty:
            with self._lock:
                if self._jobs.empty():
                    self._thread = None
                    return None
            return self._jobs.get()

    def _carry_out(self, job: _Job, engine: EngineProcess | None) -> EngineProcess | None:
        """Carry out a job, whatever comes of it; return the engine for the next one."""
        try:
            if engine is not None and (engine.settings != job.settings or engine.failure):
                old, engine = engine, None
                old.close()
            if engine is None:
                engine = self._started(job)
            job.done.set_result(self._translated(engine, job))
        except VcamError as error:
            job.done.set_exception(error)
        except Exception as error:  # noqa: BLE001  it ends this preview alone, and the next one begins with a new engine
            JOURNAL.exception("a preview failed")
            job.done.set_exception(error)
            if engine is not None:
                with contextlib.suppress(OSError, ValueError):  # what had failed may fail to close as well
                    engine.close()
            return None
        return engine

    def _started(self, job: _Job) -> EngineProcess:
        try:
            engine = self._start(job.settings, job.look)
        except OSError as error:  # the system has no room for another process
            raise VcamError(f"the look cannot be tried now: {error}") from error
        if sys.platform != "win32" and engine.pid:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, engine.pid, NICE)
        return engine

    def _translated(self, engine: EngineProcess, job: _Job) -> Picture:
        end = time.monotonic() + LONGEST_S
        first = self._index
        look_sent = False
        while time.monotonic() < end and not self._closed:
            shown = engine.step()
            if engine.failure:
                raise VcamError(engine.failure)
            if engine.refused:
                refused, engine.refused = engine.refused, ""
                raise VcamError(refused)
            if shown is not None and shown.index >= first:
                return shown.picture
            if engine.idle:
                if not look_sent:
                    engine.set_look(job.look, 0)
                    look_sent = True
                engine.give(Frame(job.picture, time.perf_counter(), self._index, imagined=job.imagined))
                self._index += 1
            else:
                time.sleep(0.005)
        raise VcamError("the look could not be tried in time")
