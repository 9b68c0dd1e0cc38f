"""A whole daemon with a source that gives a picture now and then: slides, a time-lapse, a camera in the dark."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.support.fake_sink import near
from tests.support.media_files import film
from tests.support.pictures import RAW, SIZE, plain
from tests.support.running_daemon import SwitchedDaemon
from vcam.daemon import publisher
from vcam.devices.video_loop import VideoLoop
from vcam.settings.run_options import RunOptions

EVERY_S = Fraction(1, 2)
HOLD_S = 0.1  # for the 1.5 s that a translation stands in otherwise: the source is five times as slow


class Slides(SwitchedDaemon):
    """Shows a film of one picture in EVERY_S."""

    def _open(self, options: RunOptions) -> VideoLoop:
        path = self.folder / "slides.mp4"
        return VideoLoop(film(path, [plain(SIZE)] * 4, rate=1 / EVERY_S, pixel_format="yuv444p", options={"bf": "0"}))


def test_the_picture_stays_between_two_pictures_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "HOLD_S", HOLD_S)
    shown = (255 - RAW[0], 255 - RAW[1], 255 - RAW[2])
    with Slides(tmp_path) as slides:
        slides.until(lambda: near(slides.sink.colour, shown))
        began, captured = len(slides.sink.sent), slides.daemon.status().captured
        states = set()

        def three_more() -> bool:
            status = slides.daemon.status()
            states.add((status.state, status.reason))
            return status.captured >= captured + 3

        slides.until(three_more)
    published = slides.sink.sent[began:-1]  # the last one says goodbye
    assert len(published) > 20
    assert all(near(one.colour, shown) for one in published)
    assert states == {("running", "")}
