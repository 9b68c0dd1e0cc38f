"""The log of `vcam run`: what it said and what happened, in a file that does not grow; no pictures, no secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_FILE = "vcam.log"
LARGEST = 1_000_000  # bytes of one file
KEPT = 3  # files before it
JOURNAL = logging.getLogger("vcam.log_file")
JOURNAL.propagate = False  # who says it to the user has done so already
JOURNAL.addHandler(logging.NullHandler())
# Nothing of ours writes these; a library might.
_SECRETS = re.compile(
    r"(?i)((?:ticket|token|password|authorization|bearer|secret)[\"']?\s*[=:]?\s*[\"']?(?:bearer\s+)?)[^\s\"',;&]+"
)


def log_folder() -> Path:
    """Where the log lies (VCAM_LOG_FOLDER, else the system's usual place); it need not exist."""
    if told := os.environ.get("VCAM_LOG_FOLDER"):
        return Path(told)
    import platformdirs

    return platformdirs.user_log_path("streamv2v-camera", appauthor=False)


def announce(text: str) -> None:
    """Tell the user at the terminal what was chosen or what happened, and keep it in the log."""
    print(f"vcam: {text}", file=sys.stderr, flush=True)
    JOURNAL.info(text)


class _Formatter(logging.Formatter):
    """A line with its time, without what looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redacted(text: str) -> str:
    """The text with whatever follows password, token, ticket or the like taken out."""
    return _SECRETS.sub(r"\1***", text)


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[Path | None]:
    """Keep the log in the folder while the body runs; its path, or None and a line to the user."""
    path = folder / LOG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = RotatingFileHandler(path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8", errors="replace")
    except OSError as error:
        print(f"vcam: no log: {path} cannot be written ({error.strerror})", file=sys.stderr)
        yield None
        return
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [JOURNAL, logging.getLogger("vcam"), logging.getLogger("core")]
    before = JOURNAL.level
    JOURNAL.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield path
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        JOURNAL.setLevel(before)
        handler.close()
