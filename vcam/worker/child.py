"""The engine's process as it sees itself: makes an engine, and answers orders until it is told to end."""

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

from core.errors import StreamV2VError
from core.settings import EngineSettings, Look
from vcam.frames import EngineFacts
from vcam.log_file import lossy
from vcam.worker.factories import EngineProtocol, builds_loras, instead
from vcam.worker.messages import (
    EmptyBank,
    EncodePrompts,
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
from vcam.worker.priority import step_back
from vcam.worker.shared_pictures import SharedPictures


def main(
    pipe: Connection, pictures: str, settings: EngineSettings, look: Look, factory: str, threads: int, parent: int
) -> None:
    """Make the engine, answer orders, and end the process.

    pictures: the name of its SharedPictures. factory: "module:function", as in factories.py. parent: its process id.
    """
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)  # what cannot be said is no reason to end
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us too; the parent ends us in its order
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # and so does the end of the terminal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    step_back(2)  # the pacer in the parent goes first, without starving the engine on a busy machine
    shared = SharedPictures(settings, pictures)
    try:
        engine = _load(pipe, settings, look, factory, threads)
        if engine is not None:
            _serve(pipe, engine, shared)
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


def _load(pipe: Connection, settings: EngineSettings, look: Look, factory: str, threads: int) -> EngineProtocol | None:
    def report(text: str, fraction: float) -> None:
        pipe.send(LoadingProgress(text, fraction))

    try:
        module, _, name = factory.partition(":")
        engine: EngineProtocol = getattr(importlib.import_module(module), name)(settings, look, threads, report)
    except StreamV2VError as error:  # what was asked for cannot be had
        pipe.send(LoadFailed(_one_line(error), final=True))
        return None
    except Exception as error:  # noqa: BLE001  whatever it is, the parent shall hear of it
        pipe.send(LoadFailed(f"{type(error).__name__}: {_one_line(error)}", final=False))
        return None
    note, to_build = instead(settings, engine)
    if note:
        print(f"vcam: {note}", file=sys.stderr, flush=True)
    pipe.send(
        EngineLoaded(
            EngineFacts(
                model=settings.model,
                runtime=str(engine.settings.runtime),
                device=engine.settings.device,
                delay=engine.delay,
                bank_bytes=engine.bank_bytes,
                changes_loras=engine.changes_loras,
                builds_loras=builds_loras(settings, engine),
                pid=os.getpid(),
                note=note,
                provider=engine.provider,
                to_build=to_build,
            )
        )
    )
    return engine


def _serve(pipe: Connection, engine: EngineProtocol, shared: SharedPictures) -> None:
    """Answer orders until one says to end; prompts are encoded when no order waits."""
    in_flight: deque[TranslateFrame] = deque(maxlen=engine.delay + 1)
    to_encode: deque[str] = deque()
    while True:
        if to_encode and not pipe.poll():
            with contextlib.suppress(Exception):  # it will be said when the prompt is used
                engine.prepare([to_encode.popleft()])
            continue
        order = pipe.recv()
        try:
            match order:
                case Exit():
                    return
                case EncodePrompts(prompts):
                    to_encode.extend(prompts)
                case TranslateFrame():
                    in_flight.append(order)
                    try:
                        _translate(pipe, engine, shared, order, in_flight[0])
                    except Exception:
                        in_flight.pop()  # nothing of it will come out
                        raise
                case SetLook(wanted, frames):
                    engine.set_look(wanted, frames)
                case UseLoras(loras, frames):
                    engine.use_loras(loras, frames)
                    pipe.send(LorasFused(loras))
                case EmptyBank():
                    engine.forget()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001  the parent decides what becomes of an engine that raises
            pipe.send(_failed(order, error))


def _translate(
    pipe: Connection, engine: EngineProtocol, shared: SharedPictures, order: TranslateFrame, shown: TranslateFrame
) -> None:
    """Carry out the order; shown: the one whose picture comes out of the engine now, if one does."""
    picture = engine.imagine() if order.imagined else engine.translate(shared.given)
    if picture is not None:
        shared.result[:] = picture
    pipe.send(FrameDone(None if picture is None else shown, engine.bank_bytes, engine.refreshes))


def _failed(order: Order, error: Exception) -> OrderFailed:
    name = "" if isinstance(error, StreamV2VError) else f"{type(error).__name__}: "
    text = name + _one_line(error)
    match order:
        case TranslateFrame():
            return OrderFailed("picture", text, order)
        case UseLoras():
            return OrderFailed("loras", text)
        case _:
            return OrderFailed("look", text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
