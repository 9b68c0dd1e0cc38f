"""The log of `vcam run`: what it said and what happened, in a file that does not grow; no pictures, no secrets."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from core import folders

LOG_FILE = "vcam.log"
LARGEST = 1_000_000  # bytes of one file
KEPT = 3  # files before it
REPEAT_S = 60.0  # how often a warning that repeats is written
_KINDS = 1000  # of messages that are remembered
_WAITING = 1000  # what may wait to be told; what comes when so much waits is left out
TOLD_S = 2.0  # how long an end waits for what is still to be told
JOURNAL = logging.getLogger("vcam.log_file")
JOURNAL.propagate = False  # who says it to the user has done so already
JOURNAL.addHandler(logging.NullHandler())
# Nothing of ours writes these; a library might.
_SECRETS = re.compile(
    r"(?i)((?:ticket|token|password|authorization|bearer|secret)[\"']?\s*[=:]?\s*[\"']?(?:bearer\s+)?)[^\s\"',;&]+"
)


_VERBS = (
    "bench|cameras|completion|doctor|engines|eval|forget|imagine|microphone|mirror|models|next|obs|pair|panel|"
    "panic|pause|previous|profiles|prompt|record|record-stop|record-toggle|reload|resume|run|serve|service|setup|size|"
    "snapshot|status|stop|suite|toggle|translate|tray|uninstall|update|use"
)
_CALL = re.compile(rf"(?<![\w/\\.-])vcam(?= (?:{_VERBS})\b)")
_INSTALL = re.compile(r"(?<![\w-])(?:[^\s(`]+ -m )?pip install(?P<again> --force-reinstall)?(?= [\"'A-Za-z-])")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]*", re.IGNORECASE)
_SECRET_PART = re.compile(r"(?i)((?:user|usr|login|pass|pwd|token|key|auth|secret)[a-z]*=)[^/&;]*")


def log_folder() -> Path:
    """Where the log lies (VCAM_LOG_FOLDER, else the system's usual place); it need not exist."""
    if told := os.environ.get("VCAM_LOG_FOLDER"):
        return Path(told)
    return folders.log()


def without_secrets(text: str) -> str:
    """Return the text with each address in it shown without user, password and query, which may hold a token."""
    return _ADDRESS.sub(lambda found: _shown(found[0]), text)


def _shown(address: str) -> str:
    scheme, _, rest = address.partition("://")
    _, _, place = rest.rpartition("@")  # a password may hold what else ends it: rather too much is left out
    path, *query = re.split(r"[?#]", place, maxsplit=1)
    return f"{scheme}://" + _SECRET_PART.sub(r"\1***", path) + "?***" * len(query)


def callable_here(text: str, at_terminal: bool = True) -> str:
    """Return the text with each command `vcam VERB`, and each `pip install` in it, as whoever reads it can call it.

    Where `vcam` is not on the path (after run.sh) that is the program's own path; at a terminal from where we stand.
    Packages go into this program's own environment, by whoever made that.
    """
    if "pip install" in text:
        text = _INSTALL.sub(lambda found: _installer(bool(found["again"])), text)
    if "vcam " not in text:
        return text
    program = _program(at_terminal)
    return text if program == "vcam" else _CALL.sub(lambda _: program, text)


def environment_maker() -> str:
    """Return who made the environment that this program runs in: pipx, uv or pip."""
    for maker, sign in (("pipx", "pipx_metadata.json"), ("uv", "uv-receipt.toml")):
        if Path(sys.prefix, sign).is_file():
            return maker
    return "pip"


def _installer(again: bool) -> str:
    """Return the beginning of the command that puts packages into this environment."""
    maker, python = environment_maker(), f'"{sys.executable}"' if " " in sys.executable else sys.executable
    if maker == "pipx":
        return f"pipx inject{' --force' if again else ''} streamv2v-camera"
    begin = f"uv pip install --python {python}" if maker == "uv" else f"{python} -m pip install"
    return begin + (" --force-reinstall" if again else "")


def _program(at_terminal: bool) -> str:
    """Return what calls this installation's `vcam`."""
    ours = Path(sys.executable).parent / ("vcam.exe" if sys.platform == "win32" else "vcam")
    on_path = shutil.which("vcam")
    if not ours.exists() or (on_path and Path(on_path).resolve() == ours.resolve()):
        return "vcam"
    if at_terminal:
        with contextlib.suppress(OSError, ValueError):  # we stand in a folder that is gone, or elsewhere
            ours = ours.relative_to(Path.cwd())
    return f'"{ours}"' if " " in str(ours) else str(ours)


class _Lossy(io.RawIOBase):
    """Writes to `to`, which lies below `stream`; what that does not take is lost."""

    def __init__(self, stream: TextIO, to: io.RawIOBase) -> None:
        self._stream, self._to = stream, to  # a stream that nobody holds closes what it lies on

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._to.fileno()

    def isatty(self) -> bool:
        return self._to.isatty()

    def write(self, data: Any) -> int:
        try:
            return self._to.write(data) or len(data)
        except OSError:
            return len(data)


def lossy(stream: TextIO) -> TextIO:
    """Return the stream so that what it does not take (a full disk, a closed terminal) is lost and raises nothing.

    An ordinary stream keeps such text, and raises again whenever somebody flushes it: multiprocessing does at each
    start of a process, so that no engine could be started any more. What lies on no file is returned as it is.
    """
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, _Lossy):
        return stream
    below = io.BufferedWriter(_Lossy(stream, raw))
    return io.TextIOWrapper(below, stream.encoding, "backslashreplace", line_buffering=True)


def announce(text: str) -> None:
    """Tell the user at the terminal what was chosen or what happened, and keep it in the log."""
    with contextlib.suppress(OSError):  # a terminal that was closed, a full disk: neither is a reason to end
        print(f"vcam: {callable_here(text)}", file=sys.stderr, flush=True)
    JOURNAL.info(text)


class Teller:
    """Tells, on a thread of its own and in its order, what may block: a terminal that is held, a disk that stalls.

    `tell` never waits and may be called from any thread. name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name, self._beginning = name, threading.Lock()
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def tell(self, work: Callable[[], None]) -> None:
        """Have this done soon; what it raises of OSError, ValueError and MemoryError costs its words alone."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(work)
        with self._beginning, contextlib.suppress(RuntimeError, MemoryError):  # no thread to be had: at the next call
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def wait(self, at_most_s: float = TOLD_S) -> None:
        """Wait until what is there by now is told, but no longer than at_most_s."""
        told = threading.Event()
        self.tell(told.set)
        told.wait(at_most_s)

    def _run(self) -> None:
        while True:
            work = self._waiting.get()
            with contextlib.suppress(OSError, ValueError, MemoryError):
                work()


TERMINAL, FILE = Teller("vcam-terminal"), Teller("vcam-log")


def print_later(text: str | Callable[[], str]) -> None:
    """Print to the terminal without ever waiting for it. text: or what makes it, there."""
    TERMINAL.tell(lambda: _print_raw(text if isinstance(text, str) else text()))


def announce_later(text: str) -> None:
    """Do what `announce` does for those who must not wait: the pacer, and the thread that carries out a panic."""
    FILE.tell(lambda: JOURNAL.info(text))
    print_later(lambda: f"vcam: {callable_here(text)}")


def _print_raw(text: str) -> None:
    """Print a line past the buffer: a write that blocks in it keeps its lock, and the end of Python would abort."""
    out = sys.stderr
    raw = getattr(getattr(out, "buffer", None), "raw", None)
    if raw is None:
        print(text, file=out, flush=True)
        return
    left = f"{text}\n".encode(out.encoding or "utf-8", "backslashreplace")
    while left:
        left = left[raw.write(left) or 0 :]


class Repeats(logging.Filter):
    """Lets a message through once in REPEAT_S; the next one says how many of its kind were left out.

    What happens a thousand times a second (no more open files, a damaged camera) must not fill a disk or a terminal.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.RLock()  # of any thread; a destructor may log in between
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is to be written; it may then name those left out."""
        if record.levelno < logging.WARNING:
            return True
        kind = record.name, record.levelno, str(record.msg)
        with self._lock:
            now = self._clock()
            told_s, left_out = self._seen.get(kind, (float("-inf"), 0))
            if now < told_s + REPEAT_S:
                self._seen[kind] = told_s, left_out + 1
                return False
            if len(self._seen) >= _KINDS:
                self._seen = {one: seen for one, seen in list(self._seen.items()) if now < seen[0] + REPEAT_S}
            self._seen[kind] = now, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times more since it was last said)", None
        return True


class _Handler(RotatingFileHandler):
    """Writes the log; that it cannot be written is told once, and costs nothing else."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell why a line was lost: a full disk, most likely."""
        if not self._told:
            self._told = True
            error = sys.exc_info()[1]
            why = error.strerror if isinstance(error, OSError) else error
            with contextlib.suppress(OSError):
                print(f"vcam: the log {self.baseFilename} cannot be written ({why}); lines are lost", file=sys.stderr)

    def close(self) -> None:
        """Close the file; what could not be written before cannot be now."""
        with contextlib.suppress(OSError):
            super().close()


class _Formatter(logging.Formatter):
    """A line with its time, without what looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redacted(text: str) -> str:
    """Return the text with whatever follows password, token, ticket or the like taken out."""
    return _SECRETS.sub(r"\1***", without_secrets(text))


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[Path | None]:
    """Keep the log in the folder while the body runs; its path, or None and a line to the user."""
    path = folder / LOG_FILE
    try:
        folders.make(folder, 0o700)
        handler = _Handler(path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8", errors="replace")
    except OSError as error:
        print(f"vcam: no log: {path} cannot be written ({error.strerror})", file=sys.stderr)
        yield None
        return
    handler.addFilter(Repeats())
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [JOURNAL, logging.getLogger()]  # what libraries say, too
    before = JOURNAL.level
    JOURNAL.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield path
    finally:
        FILE.wait()
        for logger in loggers:
            logger.removeHandler(handler)
        JOURNAL.setLevel(before)
        handler.close()
