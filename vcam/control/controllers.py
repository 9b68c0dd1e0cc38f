"""What a controller of another kind (OSC, MIDI) may do, and what becomes of its keys and faders."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from vcam.commands import ChangeLook, Command, to_json
from vcam.control.guard import RateLimit
from vcam.errors import CommandError
from vcam.settings.config import LEVELS
from vcam.settings.toml_schema import one_line

SAID_PER_S, SAID_AT_MOST = 0.2, 5  # a controller that says nonsense shall not fill the terminal
COMMANDS_PER_S = 50  # of each kind; a fader's values that come together are one
_LOWEST = {"strength": 0.03, "detail": 0.0}  # what a fader's lower end means


def level(name: str, share: float) -> ChangeLook:
    """Return the command of a fader at `share` (0..1; what is beyond is taken for the end); raise CommandError."""
    if name not in LEVELS:
        raise CommandError(f"a fader sets {' or '.join(LEVELS)}, not {name[:40]!r}")
    if not math.isfinite(share):
        raise CommandError(f"{name}: {share} is no number")
    return ChangeLook({name: round(min(1.0, max(_LOWEST[name], share)), 3)})


def newest_levels(commands: Iterable[Command]) -> Iterator[Command]:
    """Yield the commands in their order, of changes of the look that follow each other one with the newest values."""
    changes: dict[str, object] = {}
    for command in commands:
        if isinstance(command, ChangeLook):
            changes |= command.changes
            continue
        if changes:
            yield ChangeLook(changes)
            changes = {}
        yield command
    if changes:
        yield ChangeLook(changes)


class Hand:
    """Gives a controller's commands, if it may; says what is refused, seldom.

    what: the user's word for it; table: of config.toml, which says what it may.
    """

    def __init__(
        self,
        what: str,
        table: str,
        allow: Iterable[str],
        submit: Callable[[Command], Future[None]],
        say: Callable[[str], None],
    ) -> None:
        self._what, self._table, self._allow = what, table, frozenset(allow)
        self._submit, self._say = submit, say
        self._seldom = RateLimit(SAID_PER_S, SAID_AT_MOST)
        self._limits = {name: RateLimit(COMMANDS_PER_S, 2 * COMMANDS_PER_S) for name in self._allow}

    def give(self, command: Command) -> None:
        """Have the command carried out, without waiting for it."""
        name = to_json(command)["command"]
        if name not in self._allow:
            self.say(f"may not give the command {name!r}; allow under [{self._table}] in config.toml says what it may")
            return
        if not self._limits[name].allows():  # of its own, so that many of another kind keep no panic out
            self.say(f"more than {COMMANDS_PER_S} commands {name!r} a second; what is over that is left out")
            return
        self._submit(command).add_done_callback(self._done)

    def say(self, text: str) -> None:
        """Tell the user on one line, which may hold a stranger's words, unless so much was said just now."""
        if self._seldom.allows():
            self._say(one_line(f"{self._what}: {text}"))

    def _done(self, future: Future[None]) -> None:
        with contextlib.suppress(BaseException):  # what it says must not end the thread that carried the command out
            if not future.cancelled() and (error := future.exception()) is not None:
                self.say(str(error))
