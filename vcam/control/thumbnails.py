"""Small pictures of looks: those of the shipped ones come with the program, others are drawn once and kept.

To draw one, an engine of its own must load beside the one that runs. `python -m vcam.control.thumbnails` draws those
that come with the program anew: after a change of the model, a shipped profile or the test picture.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from core import folders
from core.settings import EngineSettings, Look
from vcam.control.jpeg import jpeg
from vcam.devices.test_pattern import draw_person
from vcam.frames import Picture
from vcam.settings.toml_schema import write_atomically

SIDE = 256  # pixels
STEPS = 2  # whatever the preset: a change of it draws none anew
SHOWN_S = 2.0  # the moment of the test picture that they show
_OF_THE_MACHINE = ("device", "dtype", "runtime", "policy", "slots", "interval")  # one picture is the same with any
KEPT = 200  # files; the oldest go first
SHIPPED = Path(__file__).parent / "thumbnails"
TranslatePicture = Callable[[EngineSettings, Look, Picture], Future[Picture]]


def thumbnails_folder() -> Path:
    """Return the folder that keeps them; it need not exist."""
    return folders.cache() / "thumbnails"


class Thumbnails:
    """The test picture in any look, as JPEG. translate: translates a picture (Previews.translate). Thread-safe."""

    def __init__(self, folder: Path, translate: TranslatePicture) -> None:
        self._folder, self._translate = folder, translate

    def get(self, settings: EngineSettings, look: Look) -> Future[bytes]:
        """Return the JPEG; the future may end with VcamError. Raises VcamError if too many are asked for."""
        small = replace(settings, width=SIDE, height=SIDE, steps=max(STEPS, settings.steps))
        name = f"{_key(small, look)}.jpg"
        path = self._folder / name
        made: Future[bytes] = Future()
        for there in (SHIPPED / name, path):
            with contextlib.suppress(OSError):
                made.set_result(there.read_bytes())
                return made

        def drawn(picture: Future[Picture]) -> None:
            try:
                data = jpeg(picture.result())
            except BaseException as error:  # noqa: BLE001  whoever waits for the thumbnail is told
                made.set_exception(error)
                return
            with contextlib.suppress(OSError):  # a full disk: it is drawn again at the next start
                _keep(path, data)
            made.set_result(data)

        made.set_running_or_notify_cancel()  # who asked may leave; the picture is for the next one then
        self._translate(small, look, draw_person(SHOWN_S, (SIDE, SIDE))).add_done_callback(drawn)
        return made


def _keep(path: Path, data: bytes) -> None:
    write_atomically(path, data)
    there = sorted(path.parent.glob("*.jpg"), key=lambda one: one.stat().st_mtime)
    for old in there[:-KEPT]:
        old.unlink()


def _key(settings: EngineSettings, look: Look) -> str:
    """Return a name that differs for all that makes another picture: a value that nobody changed makes none."""
    both = [(given, one) for given in (settings, look) for one in fields(given)]
    said = [f"{one.name}={value!r}" for given, one in both if (value := _of(given, one)) is not None]
    return hashlib.sha256(f"{said} {_model(settings.model)}".encode()).hexdigest()[:32]


def _of(given: EngineSettings | Look, one: Field[Any]) -> object:
    """Return the value of a field, None for its default, and for what only says on what and how fast it is drawn."""
    value = getattr(given, one.name)
    return None if value == one.default or one.name in _OF_THE_MACHINE else value


@functools.cache
def _model(name: str) -> str:
    """Return a hash of the model's files and the test picture; takes some hundredths of a second, once."""
    from core.models.description import DESCRIPTION, describe

    found = hashlib.sha256(draw_person(SHOWN_S, (SIDE, SIDE)).tobytes())
    folder = describe(name).folder
    for path in sorted([*folder.rglob("*.safetensors"), *folder.glob(DESCRIPTION)]):
        found.update(path.read_bytes())
    return found.hexdigest()


def draw_shipped() -> None:
    """Draw the pictures of the shipped profiles into the package, by an engine in this process."""
    from core.engine import Engine
    from core.settings import Policy
    from vcam.settings.profiles import load_profiles, shipped_folder
    from vcam.settings.run_options import RunOptions, settings_for

    for old in SHIPPED.glob("*.jpg"):
        old.unlink()

    def translate(settings: EngineSettings, look: Look, picture: Picture) -> Future[Picture]:
        engine = Engine(replace(settings, policy=Policy.OFF, slots=1), look)
        first = engine.translate(picture)
        drawn: Future[Picture] = Future()
        drawn.set_result(next(iter(engine.drain())) if first is None else first)
        return drawn

    nowhere = shipped_folder() / "nowhere"
    for profile in load_profiles(nowhere).profiles.values():
        settings = settings_for(profile, RunOptions())
        Thumbnails(SHIPPED, translate).get(settings, profile.look).result()
        print(profile.id)


if __name__ == "__main__":
    draw_shipped()
