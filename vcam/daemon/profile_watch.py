"""Profiles that are edited while the camera runs: they act at once, and nonsense in one is told at once."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from core.errors import StreamV2VError
from vcam.commands import Command, Reload, UseProfile
from vcam.settings.profiles import parse_profile, user_profile_folder
from vcam.settings.selection import Choice

LOOK_S = 0.5  # how often the folder is looked at; a file is read once it has stood still that long
Stamps = dict[Path, tuple[int, int, int]]


class ProfileWatch:
    """Looks at the user's folder of profiles, from one thread; gives commands where a file has changed.

    folder: None is the usual place. say: tells the user what is wrong with a file.
    """

    def __init__(
        self, folder: Path | None, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._say, self._clock = folder or user_profile_folder(), say, clock
        self._acted = self._seen = stamps(self._folder)
        self._next_s = clock() + LOOK_S

    def look(self, choice: Choice) -> Command | None:
        """Return what is to be done about the files that changed, None where nothing is; at most each LOOK_S."""
        if self._clock() < self._next_s:
            return None
        self._next_s = self._clock() + LOOK_S
        before, self._seen = self._seen, stamps(self._folder)
        if self._seen != before or self._seen == self._acted:
            return None  # nothing is new, or somebody is still writing
        changed = {path.stem.lower(): path for path, _ in self._seen.items() - self._acted.items()}
        self._acted = self._seen
        good = [id for id, path in changed.items() if self._reads(path)]
        return UseProfile(choice.profile.id) if choice.profile.id in good else Reload()

    def _reads(self, path: Path) -> bool:
        """Tell whether the file is a profile, and the user why it is none."""
        try:
            parse_profile(path)
        except StreamV2VError as error:
            self._say(str(error))
            return False
        return True


def stamps(folder: Path) -> Stamps:
    """Return for each profile of the folder what changes when it is written; none where the folder cannot be read."""
    found: Stamps = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(".toml") and not entry.name.startswith("."):
                    with contextlib.suppress(OSError):  # gone meanwhile: a file costs itself, not the others
                        stat = _stat(entry)
                        found[Path(entry.path)] = stat.st_mtime_ns, stat.st_size, stat.st_ino
    except OSError:
        return {}
    return found


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Return what is known of a file; of a link to nothing, what is known of the link."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
