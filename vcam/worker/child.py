"""The child: makes an engine, and answers orders until it is told to leave."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from multiprocessing.connection import Connection

from core.settings import EngineSettings, Look
from vcam.worker.factories import Engine, instead
from vcam.worker.messages import (
    Done,
    Failed,
    Forget,
    Fused,
    Given,
    Leave,
    NewLook,
    NewLoras,
    Prepare,
    Progress,
    Raised,
    Ready,
    Unknown,
)
from vcam.worker.pictures import SharedPictures


def main(
    pipe: Connection, pictures: str, settings: EngineSettings, look: Look, factory: str, threads: int, parent: int
) -> None:
    """The child's life. pictures: name of its SharedPictures; factory: "module:function", as in factories.py."""
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us too; the parent ends us in its order
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with contextlib.suppress(OSError):
            os.nice(2)  # the pacer in the parent goes first, without starving the engine on a busy machine
    shared = SharedPictures(settings, pictures)
    try:
        engine = _load(pipe, settings, look, factory, threads)
        if engine is not None:
            _serve(pipe, engine, look, shared)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # no destructors: a hung driver must not keep us


def _die_with_parent(parent: int) -> None:
    """End this process when its parent ends, however that comes."""

    def watch() -> None:
        process = multiprocessing.parent_process()
        if process is not None:
            process.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: works even while C code holds the GIL
        if os.getppid() != parent:
            os._exit(1)


def _load(pipe: Connection, settings: EngineSettings, look: Look, factory: str, threads: int) -> Engine | None:
    def report(text: str, fraction: float) -> None:
        pipe.send(Progress(text, fraction))

    try:
        module, _, name = factory.partition(":")
        engine: Engine = getattr(importlib.import_module(module), name)(settings, look, threads, report)
    except ValueError as error:  # ModelError, SettingsError: what was asked for cannot be had
        pipe.send(Failed(_one_line(error), final=True))
        return None
    except Exception as error:  # noqa: BLE001  whatever it is, the parent shall hear of it
        pipe.send(Failed(f"{type(error).__name__}: {_one_line(error)}", final=False))
        return None
    note, to_build = instead(settings, engine)
    if note:
        print(f"vcam: {note}", file=sys.stderr, flush=True)
    pipe.send(
        Ready(
            {
                "note": note,
                "to_build": to_build,
                "model": settings.model,
                "runtime": str(engine.settings.runtime),
                "device": engine.settings.device,
                "delay": engine.delay,
                "bank_bytes": engine.bank_bytes,
                "changes_loras": engine.changes_loras,
                "pid": os.getpid(),
            }
        )
    )
    return engine


def _serve(pipe: Connection, engine: Engine, look: Look, shared: SharedPictures) -> None:
    """Answer orders until told to leave."""
    in_flight: deque[Given] = deque(maxlen=engine.delay + 1)
    to_prepare: deque[str] = deque()
    _tell_unknown(pipe, engine, look)
    while True:
        if to_prepare and not pipe.poll():
            with contextlib.suppress(Exception):  # it will be said when the prompt is used
                engine.prepare([to_prepare.popleft()])
            continue
        order = pipe.recv()
        if isinstance(order, Leave):
            return
        try:
            match order:
                case Given():
                    in_flight.append(order)
                    picture = engine.translate(shared.given)
                    if picture is not None:
                        shared.result[:] = picture
                    pipe.send(Done(None if picture is None else in_flight[0], engine.bank_bytes))
                case NewLook():
                    engine.set_look(order.look, order.frames)
                    _tell_unknown(pipe, engine, order.look)
                case NewLoras():
                    engine.use_loras(order.loras, order.frames)
                    pipe.send(Fused(order.loras))
                case Prepare():
                    to_prepare.extend(order.prompts)
                case Forget():
                    engine.forget()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001  the parent decides what becomes of an engine that raises
            at = "picture" if isinstance(order, Given) else "loras" if isinstance(order, NewLoras) else "look"
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            pipe.send(Raised(at, name + _one_line(error)))


def _tell_unknown(pipe: Connection, engine: Engine, look: Look) -> None:
    pipe.send(Unknown(tuple(engine.unknown_words(look.prompt))))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
