"""The program `vcam`: reads the command line, runs one verb, and makes of a failure a line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from core.errors import StreamV2VError
from vcam.cli.arguments import build_parser
from vcam.cli.output import keep_streams_open, print_note
from vcam.cli.verbs import INTERRUPTED, VERBS
from vcam.log_file import lossy

_READER_GONE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0; 1 after one line on stderr; 2 for wrong usage; 130 for Ctrl-C."""
    _open_what_was_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a name still shows the rest
    sys.stderr = lossy(sys.stderr)  # what is told on the way is no reason to fail; a result that is lost is one
    try:
        return _run_verb(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader has gone (vcam profiles | head): the interpreter's own flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    finally:
        keep_streams_open()


def _open_what_was_closed() -> None:
    """Have nothing in the place of streams that were closed for us (`vcam status >&-`, some launchers).

    Else the next file that is opened has their number, and what a library writes to 2 would be within a film.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open to the end


def _run_verb(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
        if not args.version and args.verb is None:
            parser.print_help(sys.stderr)
            return 2
    except SystemExit as ended:  # argparse has printed help (0) or what is wrong (2)
        return int(ended.code or 0)
    if args.version:
        print(f"vcam {_version()}")
        return 0
    _start_logging(args.debug)
    try:
        status: int = VERBS[args.verb](args)
        sys.stdout.flush()  # a reader that has gone shows here, not at exit
        return status
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the one place where a failure becomes a line and a status
        if args.debug:
            import traceback

            traceback.print_exc()
        print_note("error: " + (_line(error) if isinstance(error, StreamV2VError) else _unexpected(error)))
        return 1


def _unexpected(error: Exception) -> str:
    """Return the line for a failure that nobody foresaw; its traceback goes to a file."""
    import traceback

    what = f"{type(error).__name__}: {_line(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        what = f"{error.filename}: {error.strerror}"
    from core import folders
    from core.errors import StreamV2VError
    from vcam.client import state_folder

    try:
        path = state_folder() / "last-error.log"
        folders.make(path.parent)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    except (OSError, StreamV2VError):  # no folder, or no home to have one in
        return f"{what} (unexpected; --debug shows where)"
    return f"{what} (unexpected; {path} tells where)"


def _line(error: Exception) -> str:
    from vcam.settings.toml_schema import one_line

    return one_line(error)


def _start_logging(debug: bool) -> None:
    import logging

    others = logging.getLogger().handlers.copy()  # of a program that calls this one: theirs are not ours to silence
    logging.basicConfig(
        stream=sys.stderr, format="vcam: %(message)s", level=logging.DEBUG if debug else logging.WARNING
    )
    from vcam.log_file import Repeats

    for handler in logging.getLogger().handlers:
        if handler not in others:
            handler.addFilter(Repeats())
    for ours in ("vcam", "core"):
        logging.getLogger(ours).setLevel(logging.DEBUG if debug else logging.INFO)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("streamv2v-camera")
    except metadata.PackageNotFoundError:
        return "(not installed: run from a checkout)"
