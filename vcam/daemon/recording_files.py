"""The files that a user keeps: recordings and pictures, named by the time."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from core.settings import Origin
from vcam.devices.sinks import VideoFile, picture_file
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.settings.config import MarkingSettings
from vcam.settings.toml_schema import write_atomically


@dataclass(frozen=True)
class RecordingFiles:
    """Where they lie, and what they are: suffix, size and pictures a second of a recording; marking: how each says that
    it is AI-made.
    """

    folder: Path
    suffix: str
    size: tuple[int, int]
    fps: float
    marking: MarkingSettings

    def recording(self, origin: Origin, with_sound: bool, taken: Collection[Path]) -> tuple[Path, VideoFile]:
        """Return a new recording and its name. taken: names that are no file's yet. Raises VcamError."""
        path = self._new_path(self.suffix, taken)
        return path, VideoFile(path, self.size, self.fps, self.marking, origin, with_sound)

    def keep(self, picture: Picture, origin: Origin) -> Path:
        """Keep a picture, as PNG; return its name. Raises VcamError."""
        path = self._new_path(".png", ())
        data = picture_file(picture, ".png", self.marking, origin)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise VcamError(f"{path} cannot be written ({error.strerror or error})") from error
        return path

    def _new_path(self, suffix: str, taken: Collection[Path]) -> Path:
        """Return a name by the time that nobody has yet, in the folder, which is made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VcamError(
                f"{self.folder} cannot be made ({error.strerror or error}): set folder under [record] in config.toml"
            ) from error
        stem = f"{datetime.datetime.now():StreamV2V %Y-%m-%d %H.%M.%S}"
        names = (f"{stem}{'' if number == 1 else f' {number}'}{suffix}" for number in range(1, 1000))
        return next(path for name in names if (path := self.folder / name) not in taken and not path.exists())
