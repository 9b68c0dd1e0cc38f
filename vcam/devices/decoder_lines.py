"""What libjpeg and OpenCV print of damaged pictures, kept off the terminal: counted, and told in the log."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from vcam.log_file import JOURNAL, lossy

# its warnings (jerror.h of libjpeg), which it prints as lines of their own
_LIBJPEG = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|Unsupported marker type"
    rb"|Warning: unknown JFIF|Application transferred too few scanlines|Bogus "
)
# and OpenCV's own: "[ WARN:0@0.249] global grfmt_tiff.cpp:123 TIFF_Warning ...", an error's with an empty line after it
_OPENCV = re.compile(rb"\[ *(?:DEBUG|INFO|WARN|ERROR|FATAL): *\d+@")
LOG_EVERY = 100
PASSED_ON_S = 1.0  # that the end waits until all lines are passed on, at most


@dataclass
class DecoderLines:
    """How many lines were kept off the terminal, and the first of them."""

    count: int = 0
    first: str = ""
    kinds: Counter[str] = field(default_factory=Counter)

    def takes(self, line: bytes, before: bytes) -> bool:
        """Tell whether a line is a decoder's, `before` the one before it; count it then, and tell the log."""
        if not line and _OPENCV.match(before):
            return True
        kind = "JPEG" if _LIBJPEG.match(line) else "OpenCV" if _OPENCV.match(line) else ""
        if not kind:
            return False
        text = line.decode(errors="replace")
        self.first = self.first or text
        self.count += 1
        self.kinds[kind] += 1
        if (so_far := self.kinds[kind]) == 1 or so_far % LOG_EVERY == 0:
            JOURNAL.info("damaged pictures (%s): %d so far; the last: %s", kind, so_far, text)
        return True


@contextlib.contextmanager
def decoders_in_log() -> Iterator[DecoderLines]:
    """Pass on what is written to file descriptor 2, but the decoders' lines; yields what is known of those.

    They come from C, past sys.stderr. Python's own stderr is written directly meanwhile, and stays a terminal.
    """
    sys.stderr.flush()
    lines = DecoderLines()
    try:
        terminal = os.dup(2)
    except OSError:  # there is no stderr (a service without a console): nothing can flood it
        yield lines
        return
    ours, theirs = os.pipe()
    over, end = os.pipe()
    passed_on = threading.Event()
    os.dup2(theirs, 2)
    os.close(theirs)
    before = sys.stderr
    direct = lossy(open(terminal, "w", encoding=before.encoding, buffering=1, closefd=False))  # noqa: SIM115
    arguments = ours, terminal, lines, over, passed_on
    thread = threading.Thread(target=_pass_on, args=arguments, name="vcam-stderr", daemon=True)
    thread.start()
    sys.stderr = direct
    try:
        yield lines
    finally:
        sys.stderr = before
        os.dup2(terminal, 2)  # closes the pipe's end; a child that still has it keeps the thread, a daemon
        os.close(end)
        passed_on.wait(PASSED_ON_S)
        direct.close()


def _pass_on(source: int, terminal: int, known: DecoderLines, over: int, passed_on: threading.Event) -> None:
    """Copy lines until the other end is closed. passed_on: set once all is that was there when `over` was closed."""
    rest = before = b""
    while data := _read(source, over, passed_on):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not known.takes(line, before):
                _write(terminal, line + b"\n")
            before = line
        if rest and not _LIBJPEG.match(rest) and not _OPENCV.match(rest):
            _write(terminal, rest)  # a bar or a question without an end of line
            rest = b""
    passed_on.set()
    os.close(source)
    os.close(over)


def _read(source: int, over: int, passed_on: threading.Event) -> bytes:
    if sys.platform != "win32" and not passed_on.is_set():  # where pipes can be waited for
        from multiprocessing.connection import wait

        if source not in wait([source, over]):
            passed_on.set()
    return os.read(source, 65536)


def _write(terminal: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed is no reason to end
        os.write(terminal, data)
