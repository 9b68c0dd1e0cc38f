"""Reads the TOML files that people write: every unknown key, wrong type or odd value is told, none is guessed."""

from __future__ import annotations

import difflib
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from core import folders
from vcam.errors import OptionError

LARGEST_FILE = 64 * 1024  # bytes; ours are under 1 kB
DEEPEST = 16  # tables and lists within each other, and parts of a dotted key; ours have 3
LONGEST_LINE = 300  # characters of an error

Check = Callable[[str, object], object]
"""Takes a dotted key and its value, gives the value to use; raises OptionError with what is allowed."""


def shown(value: object) -> str:
    """Return a value as an error shows it: on one line, and not longer than a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


BACKSLASH = "a backslash begins an escape between double quotes: write the path with / or in single quotes"
_ESCAPED = set("\t\n\r\b\f")  # what TOML makes of a backslash and a letter


def one_line(text: object) -> str:
    """Return a text on one line of at most LONGEST_LINE characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error: "; did you mean ink?", or nothing if no known word is near."""
    by_small = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(word.casefold()[:100], by_small, n=1)
    return f"; did you mean {by_small[near[0]]}?" if near else ""


def listed(words: Iterable[str], joint: str = "or") -> str:
    """Words as a sentence has them: "keep, decay or flush"."""
    *head, last = words
    return f"{', '.join(head)} {joint} {last}" if head else last


def text(longest: int, shortest: int = 1, fold: bool = False) -> Check:
    """Make a check for a text of `shortest` to `longest` characters on one line; blanks at its ends are taken off.

    fold: line ends and runs of blanks become one blank, so that a prompt may be written on several lines.
    """

    def check(key: str, value: object) -> str:
        if not isinstance(value, str):
            raise OptionError(f"{key} is {shown(value)}; it must be text in quotes")
        # at its beginning a tab or a line end is a path's: "\temp", "\new"
        kept = " ".join(value.split()) if fold else value.rstrip().lstrip(" ")
        if any(not c.isprintable() for c in kept):
            hint = f"; {BACKSLASH}" if set(kept) & _ESCAPED else ""
            raise OptionError(f"{key} is {shown(value)}; it must be one line without control characters{hint}")
        if len(kept) < shortest:
            raise OptionError(f"{key} is empty; it must be a text")
        if len(kept) > longest:
            raise OptionError(f"{key} has {len(kept)} characters; it must have at most {longest}")
        return kept

    return check


def flag(key: str, value: object) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise OptionError(f"{key} is {shown(value)}; it must be true or false")
    return value


def whole(low: int, high: int) -> Check:
    """Make a check for a whole number, low <= value <= high."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise OptionError(f"{key} is {shown(value)}; it must be a whole number between {low} and {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Make a check for a finite number, low <= value <= high."""

    def check(key: str, value: object) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not right or not low <= value <= high or not math.isfinite(value):  # type: ignore[operator, arg-type]
            raise OptionError(f"{key} is {shown(value)}; it must be a number between {low:g} and {high:g}")
        return float(value)  # type: ignore[arg-type]

    return check


def choice(kind: type[StrEnum]) -> Check:
    """Make a check for one of an enumeration's words."""

    def check(key: str, value: object) -> StrEnum:
        words = [one.value for one in kind]
        if value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            raise OptionError(f"{key} is {shown(value)}; it must be {listed(words)}{hint}")
        return kind(value)

    return check


def each(check_one: Check) -> Check:
    """Make a check of all members of a list."""

    def check(key: str, value: object) -> list[object]:
        if not isinstance(value, list):
            raise OptionError(f"{key} is {shown(value)}; it must be a list")
        return [check_one(key, one) for one in value]

    return check


def read_values(path: Path, schema: Mapping[str, Check]) -> dict[str, object]:
    """Return the values of a TOML file by dotted key ("look.bank.interval"), each as its check in `schema` gave it.

    Raises OptionError with one line that begins with the file's name.
    """
    try:
        return _values(_raw(path), schema)
    except OptionError as error:
        raise OptionError(one_line(f"{path.name}: {error}")) from error


def read_text(text: str, name: str, schema: Mapping[str, Check]) -> dict[str, object]:
    """Return the values of a TOML file that came as its text, as `read_values` does; name: begins what is wrong."""
    try:
        return _values(text.encode("utf-8", "surrogatepass"), schema)  # half a character is told as no UTF-8
    except OptionError as error:
        raise OptionError(one_line(f"{name}: {error}")) from error


def check_values(values: Mapping[str, object], schema: Mapping[str, Check]) -> dict[str, object]:
    """Each value as its check gives it; raises OptionError."""
    checked: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, int) and abs(value) >= 2**63:  # TOML's own limit; nobody need write out the digits
            raise OptionError(f"{key} is {shown(value)}; that is far too large")
        checked[key] = schema[key](key, value)
    return checked


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old file or the new one; raises OSError."""
    folders.make(path.parent)
    # not *.toml: a folder watcher must not take the half-written file for a profile
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _values(raw: bytes, schema: Mapping[str, Check]) -> dict[str, object]:
    return check_values(_flat(_parsed(raw), _tables(schema), schema), schema)


def _raw(path: Path) -> bytes:
    try:
        if not path.is_file():  # before open: a pipe would wait for ever
            if path.is_symlink() and not path.exists():
                raise OptionError(
                    f"it is a link to {shown(os.readlink(path))}, where nothing is; delete it, or mend it"
                )
            raise OptionError("no such file" if not path.exists() else "it is not a file")
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise OptionError(f"it cannot be read ({error.strerror or error})") from error


def _parsed(raw: bytes) -> dict[str, object]:
    if len(raw) > LARGEST_FILE:
        raise OptionError(f"it is larger than {LARGEST_FILE // 1024} KiB; that is no settings file of ours")
    try:
        content = raw.decode("utf-8-sig")  # Windows editors write the mark
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise OptionError(f"it is not UTF-8 text (line {line}); save it as UTF-8") from error
    if deep := _too_deep(content):
        raise OptionError(deep)
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        hint = ""
        if "\\" in str(error) or "hex value" in str(error):
            hint = f"; {BACKSLASH}"
        raise OptionError(f"it is not valid TOML: {error}{hint}") from error
    except (RecursionError, ValueError) as error:  # thousands of brackets, or of digits
        raise OptionError("it is not valid TOML: nested too deep, or a number too long") from error


# Strings and comments, each up to its end or, where that is missing, to where a reader would give up: so the scan is
# linear whatever the file holds.
_STRINGS_AND_COMMENTS = re.compile(
    r"""\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\\?\Z)|\'\'\'.*?(?:\'\'\'|\Z)"""
    r"""|"(?:\\[^\n]|[^"\\\n])*(?:"|\\?(?=\n)|\\?\Z)|'[^'\n]*(?:'|(?=\n)|\Z)|\#[^\n]*""",
    re.DOTALL,
)


def _too_deep(content: str) -> str:
    """Return why a text is nested too deep to be parsed, "" if it is not; takes milliseconds.

    The parser's time grows with the square of the parts of a dotted key, and its stack with the nesting of lists.
    """
    depth, bare = 0, _STRINGS_AND_COMMENTS.sub("s", content)
    for number, line in enumerate(bare.split("\n"), 1):
        for piece in re.split(r"([\[\]{},=])", line):
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
            if depth > DEEPEST or piece.count(".") >= DEEPEST:
                return f"its keys or lists are nested more than {DEEPEST} deep (about line {number})"
        depth = max(0, depth)
    return ""


def expanded(path: str) -> Path:
    """Return the path with a leading ~ or ~user written out; raises OptionError for a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OptionError(f"{shown(path)}: there is no home folder of that user; write the full path") from error


def _tables(schema: Mapping[str, Check]) -> set[str]:
    return {key[:dot] for key in schema for dot, sign in enumerate(key) if sign == "."}


def _flat(
    data: Mapping[str, object], tables: set[str], schema: Mapping[str, Check], within: str = ""
) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in data.items():
        key = within + name
        if "." not in name and key in schema:
            values[key] = value
        elif "." not in name and key in tables:
            if not isinstance(value, dict):
                raise OptionError(f"{key} is {shown(value)}; it must be a table: [{key}]")
            values |= _flat(value, tables, schema, key + ".")
        else:
            raise OptionError(_unknown(name, within, tables, schema))
    return values


def _unknown(name: str, within: str, tables: set[str], schema: Mapping[str, Check]) -> str:
    key = within + name
    here = [k.removeprefix(within) for k in [*schema, *tables] if k.startswith(within)]
    here = list(dict.fromkeys(k for k in here if "." not in k))
    if hint := did_you_mean(name, here):
        return f"unknown key {key}{hint}"
    if homes := [k for k in [*schema, *tables] if k.rpartition(".")[2] == name]:
        return f"unknown key {key}; did you mean {homes[0]}?"
    return f"unknown key {key}; known here: {listed(here, 'and')}"
