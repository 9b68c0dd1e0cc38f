"""What happened in a run, in words: the lines that the panel shows, and the troubles that the status tells of."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from typing import Any

from vcam.log_file import FILE, JOURNAL, announce_later, print_later, without_secrets
from vcam.settings.toml_schema import one_line

LINES = 200


class EventLog:
    """The newest LINES lines, and how many there were. May be told and asked from any thread; never raises OSError.

    Nobody who tells waits for the terminal or the disk: the pacer tells too, and the thread that carries out a panic.
    """

    def __init__(self) -> None:
        self._lines: deque[dict[str, Any]] = deque(maxlen=LINES)
        self._state = ("", "")
        self._last_fault = ""
        self._stood_in = False
        self.count = 0
        # of the lines and of the troubles, which are by the part that they came from; "" where it is well again
        self._lock = threading.Lock()
        self._troubles: dict[str, str] = {"sink": ""}

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines, newest last: at (seconds since 1970) and text."""
        with self._lock:
            return list(self._lines)

    def troubles(self) -> tuple[str, ...]:
        """Return what is not as it should be now."""
        with self._lock:
            standing = list(self._troubles.values())
        return tuple(text for text in standing if text)

    def trouble_of(self, part: str) -> str:
        """Return what is not as it should be with a part; "" where all is well."""
        with self._lock:
            return self._troubles.get(part, "")

    def note(self, text: str) -> None:
        """Add a line for the panel."""
        line = {"at": round(time.time(), 3), "text": without_secrets(one_line(text))}
        with self._lock:
            self._lines.append(line)
            self.count += 1

    def say(self, text: str) -> None:
        """Tell the user at the terminal and at the panel."""
        announce_later(text)
        self.note(text)

    def fault(self, what: str, error: BaseException) -> None:
        """Tell of an error that nobody foresaw; its traceback goes to the terminal and to the log file."""
        text = one_line(f"{what} ({type(error).__name__}: {error})")
        # the file has it once a minute, with its count
        FILE.tell(lambda: JOURNAL.error(text.replace("%", "%%"), exc_info=error))
        if text == self._last_fault:  # a loop that fails again and again must not flood the terminal and the page
            return
        self._last_fault = text
        self.note(text)
        print_later(lambda: f"vcam: {text}\n" + "".join(traceback.format_exception(error)).rstrip())

    def state(self, state: str, reason: str) -> None:
        """Note the state: a change of it is a line, of the log file too."""
        if (state, reason) != self._state:
            told = f"{state}: {reason}" if reason not in ("", state) else state
            FILE.tell(lambda: JOURNAL.info("state: %s", told))
            self.note(told)
            self._state = state, reason

    def trouble(self, part: str, text: str) -> None:
        """Tell once what is not as it should be with a part; "": it is well again."""
        if self.set_trouble(part, text) and text:
            self.say(text)

    def set_trouble(self, part: str, text: str) -> bool:
        """Keep, without a word of it, what is not as it should be with a part; return whether that is new."""
        with self._lock:
            before = self._troubles.get(part, "")
            self._troubles[part] = text
        return text != before

    def stands_in(self, why: str) -> None:
        """Tell once that this machine's engine shows in place of the server's, and once that it no longer does."""
        if bool(why) != self._stood_in:
            told = f"the engine's server fails ({why}); this machine's own engine takes over until it is back"
            self.say(told if why else "the engine's server is back, and shows again")
        self._stood_in = bool(why)

    def sink_said(self, text: str) -> None:
        """Tell once why the sink takes no pictures; "": it takes them again."""
        text = one_line(text)
        if self.set_trouble("sink", text):
            self.say(text or "pictures go out again")
