"""What libjpeg prints of a camera's damaged pictures, kept off the terminal: counted, and told in the log."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

from vcam.log_file import JOURNAL

# its warnings (jerror.h of libjpeg), which it prints as lines of their own
_LIBJPEG = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|Unsupported marker type"
    rb"|Warning: unknown JFIF|Application transferred too few scanlines|Bogus "
)
LOG_EVERY = 100


@contextlib.contextmanager
def libjpeg_in_log() -> Iterator[None]:
    """Pass on what is written to file descriptor 2, but libjpeg's lines; tell in the log how many those are.

    They come from C, past sys.stderr. Python's own stderr is written directly meanwhile, and stays a terminal.
    """
    sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # there is no stderr (a service without a console): nothing can flood it
        yield
        return
    ours, theirs = os.pipe()
    os.dup2(theirs, 2)
    os.close(theirs)
    before = sys.stderr
    with open(terminal, "w", encoding=before.encoding, errors="backslashreplace", buffering=1, closefd=False) as direct:
        thread = threading.Thread(target=_pass_on, args=(ours, terminal), name="vcam-stderr", daemon=True)
        thread.start()
        sys.stderr = direct
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(terminal, 2)  # closes the pipe's end; a child that still has it keeps the thread, a daemon
            thread.join(1.0)


def _pass_on(source: int, terminal: int) -> None:
    """Copy lines until the other end is closed."""
    damaged, rest = 0, b""
    while data := os.read(source, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not _LIBJPEG.match(line):
                _write(terminal, line + b"\n")
                continue
            damaged += 1
            if damaged == 1 or damaged % LOG_EVERY == 0:
                JOURNAL.info("damaged pictures (JPEG): %d so far; the last: %s", damaged, line.decode(errors="replace"))
        if rest and not _LIBJPEG.match(rest):
            _write(terminal, rest)  # a bar or a question without an end of line
            rest = b""
    os.close(source)


def _write(terminal: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed is no reason to end
        os.write(terminal, data)
