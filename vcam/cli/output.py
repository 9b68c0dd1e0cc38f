"""What a verb prints: a line for a person, or one JSON object for a program; notes and errors on stderr."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from typing import Any

from vcam.log_file import callable_here


def print_note(text: str) -> None:
    """Print a note or an error of the program, if stderr takes it: a full disk is no reason to end."""
    with contextlib.suppress(OSError):
        print(f"vcam: {callable_here(text)}", file=sys.stderr, flush=True)


def print_progress(text: str) -> None:
    """Say what is being done, where a person watches: nothing of it goes into a file or a pipe."""
    if sys.stderr is not None and sys.stderr.isatty():
        print_note(f"{text} ...")


def keep_streams_open() -> None:
    """Let what a closed terminal or a full disk did not take go, so that it is no failure of the program's end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_outcome(args: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    """Print what a long run did, if that can be printed: the run is done all the same. Raises BrokenPipeError."""
    try:
        print_result(args, data, text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        keep_streams_open()


def print_result(args: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    """Print the verb's result: `data` where --json was asked for, else `text`."""
    if args.json:
        print(json.dumps(_plain(data)))
    elif text:
        print(callable_here(text))


def counted(count: int, thing: str) -> str:
    """Return "1 frame", "2 frames"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _plain(value: Any) -> Any:
    """Return the value as strict JSON holds it: no NaN, no infinity, paths and fractions as text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
