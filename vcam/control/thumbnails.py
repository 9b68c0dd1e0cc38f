"""Small pictures of looks, kept between runs: to draw one, an engine of its own must load beside the one that runs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from core import folders
from core.settings import EngineSettings, Look
from vcam.control.jpeg import jpeg
from vcam.devices.test_pattern import draw_person
from vcam.frames import Picture
from vcam.settings.toml_schema import write_atomically

SIDE = 256  # pixels
STEPS = 2  # whatever the preset: a change of it draws none anew
SHOWN_S = 2.0  # the moment of the test picture that they show
KEPT = 200  # files; the oldest go first
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
        path = self._folder / f"{_key(small, look)}.jpg"
        made: Future[bytes] = Future()
        with contextlib.suppress(OSError):
            made.set_result(path.read_bytes())
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
    """Return a name that differs for all that makes another picture."""
    return hashlib.sha256(f"{settings} {look} {_model(settings.model)}".encode()).hexdigest()


@functools.cache
def _model(name: str) -> str:
    """Return a hash of the model's files and the test picture; takes some hundredths of a second, once."""
    from core.models.description import describe

    found = hashlib.sha256(draw_person(SHOWN_S, (SIDE, SIDE)).tobytes())
    for path in sorted(describe(name).folder.rglob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()
