"""Another published size: no virtual camera changes its own, so the run begins again, by itself, as it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.settings import Look
from vcam.commands import Status
from vcam.errors import VcamError
from vcam.settings.config import check_published_size, parse_size
from vcam.settings.run_options import DEFAULT_SIZE, RunOptions
from vcam.settings.selection import Choice


@dataclass(frozen=True)
class Again:
    """How the next run begins: with these options and this look; before: where the new size cannot be had."""

    options: RunOptions
    before: RunOptions
    look: Look

    @property
    def size(self) -> str:
        """The new size, as --size takes it."""
        return as_text(self.options)


def begin_again(choice: Choice, status: Status, size: str) -> Again | None:
    """Return how to go on with this size, None where it is so already.

    Raises VcamError where that would cost a picture that somebody looks at, a recording, or a panic's card.
    """
    wanted = check_published_size("size", parse_size(size))
    if wanted == (status.width, status.height):
        return None
    if status.state in ("paused", "panic"):
        raise VcamError("nothing is shown now, and begun again the camera would show you: resume first")
    if status.recording or status.finishing:
        raise VcamError("a recording is not finished yet: end it, then change the size")
    if Path(choice.options.sink).suffix:
        raise VcamError(f"the picture goes into {choice.options.sink}, which has one size from begin to end")
    if status.reader_count:
        who = ", ".join(status.readers) or "a program"
        raise VcamError(f"{who} shows the camera, whose size cannot change meanwhile: close it there first")
    before = replace(
        choice.options,
        profile=choice.profile.id,
        port=choice.options.port if status.panel_port is None else status.panel_port,
        open_panel=False,
        record=replace(choice.options.record, microphone=status.microphone),
    )
    return Again(replace(before, size=wanted, sink=_sink_again(choice.options.sink, status)), before, choice.look)


def _sink_again(asked: str, status: Status) -> str:
    """Return what the picture goes to next: the camera that `auto` found, not none where that refuses the size."""
    return "camera" if asked == "auto" and not status.sink.startswith("none") else asked


def changes_to(look: Look, wanted: Look) -> dict[str, Any]:
    """Return what must change of a look for it to be the wanted one (see ChangeLook)."""
    now = asdict(look)
    return {name: value for name, value in asdict(wanted).items() if value != now[name]}


def as_text(options: RunOptions) -> str:
    """Return the published size as --size takes it."""
    width, height = options.size or DEFAULT_SIZE
    return f"{width}x{height}"
