"""A recorder without a camera: it records pictures of 64x48 that a test gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcam.daemon.recorded_sound import RecordedSound
from vcam.daemon.recorder import Recorder
from vcam.daemon.recording_files import RecordingFiles
from vcam.settings.config import MarkingSettings

MARKED, UNMARKED = MarkingSettings(), MarkingSettings(credentials=False)


def recorder_in(
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    suffix: str = ".mp4",
    fps: float = 25,
    marking: MarkingSettings = MARKED,
    **sound: Any,
) -> Recorder:
    """Return one that keeps its files there. sound: microphone, open_microphone and clock of RecordedSound."""
    return Recorder(RecordingFiles(folder, suffix, (64, 48), fps, marking), RecordedSound(fps, say, **sound), say)
