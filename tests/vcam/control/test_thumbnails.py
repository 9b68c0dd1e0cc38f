"""Thumbnails are drawn once, whatever is started anew; looks that nobody waits for are not tried."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.settings import EngineSettings, Look
from tests.support.patience import PATIENCE_S
from vcam.control import thumbnails
from vcam.control.previews import Previews
from vcam.control.thumbnails import SIDE, Thumbnails
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.settings.engine_options import EngineOptions
from vcam.settings.presets import Preset
from vcam.settings.profiles import load_profiles
from vcam.settings.run_options import RunOptions, settings_for
from vcam.worker.limits import Limits
from vcam.worker.process import EngineProcess

SETTINGS = EngineSettings(model="embedded", width=320, height=240, steps=2)


class Drawing:
    """Draws in the look's seed, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[EngineSettings, Look]] = []
        self.error: VcamError | None = None

    def ask(self, settings: EngineSettings, look: Look, picture: Picture) -> Future[Picture]:
        assert picture.shape == (SIDE, SIDE, 3)
        self.asked.append((settings, look))
        made: Future[Picture] = Future()
        if self.error:
            made.set_exception(self.error)
        else:
            made.set_result(np.full_like(picture, look.seed))
        return made


def grey(data: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    return int(picture[9, 9])


def test_each_look_is_drawn_once_whatever_is_started_anew(tmp_path: Path) -> None:
    drawing = Drawing()
    for _ in range(2):  # two runs of the program
        made = Thumbnails(tmp_path / "cache", drawing.ask)
        assert [abs(grey(made.get(SETTINGS, Look(seed=seed)).result(0)) - seed) <= 1 for seed in (40, 90)] == [True] * 2
    assert [(s.width, s.height, k.seed) for s, k in drawing.asked] == [(SIDE, SIDE, 40), (SIDE, SIDE, 90)]
    made.get(replace(SETTINGS, steps=3), Look(seed=40)).result(0)
    assert len(drawing.asked) == 3, "another engine makes another picture"
    made.get(replace(SETTINGS, steps=1, width=320), Look(seed=40)).result(0)
    assert len(drawing.asked) == 3, "a preset does not"


def test_another_model_makes_other_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = Drawing()
    made = Thumbnails(tmp_path, drawing.ask)
    made.get(SETTINGS, Look()).result(0)
    monkeypatch.setattr(thumbnails, "_model", lambda name: "trained anew")
    made.get(SETTINGS, Look()).result(0)
    assert len(drawing.asked) == 2


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "KEPT", 2)
    made = Thumbnails(tmp_path, Drawing().ask)
    for seed in range(3):
        made.get(SETTINGS, Look(seed=seed)).result(0)
        for path in tmp_path.glob("*.jpg"):
            os.utime(path, (path.stat().st_mtime - 100, path.stat().st_mtime - 100))
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_a_folder_that_cannot_be_and_a_look_that_cannot_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    drawing = Drawing()
    made = Thumbnails(tmp_path / "file" / "cache", drawing.ask)
    assert grey(made.get(SETTINGS, Look(seed=7)).result(0)) == pytest.approx(7, abs=1)
    drawing.error = VcamError("the engine was killed")
    with pytest.raises(VcamError, match="killed"):
        made.get(SETTINGS, Look(seed=8)).result(0)


def test_a_try_that_nobody_waits_for_is_left_out_and_the_next_is_made() -> None:
    has_left = threading.Event()

    def start(settings: EngineSettings, look: Look) -> EngineProcess:
        assert has_left.wait(PATIENCE_S)
        return EngineProcess(settings, look, "tests.support.fake_engine:make", 1, Limits(), lambda: 0.0)

    previews = Previews(start)
    picture = np.full((64, 64, 3), 50, np.uint8)
    settings = EngineSettings(model="fake", width=64, height=64, steps=1)
    try:
        first, left, last = (previews.translate(settings, Look(seed=seed), picture) for seed in (1, 2, 3))
        assert left.cancel()
        has_left.set()
        assert first.result(PATIENCE_S)[9, 9].tolist() == [206, 205, 205]
        assert last.result(PATIENCE_S)[9, 9].tolist() == [208, 205, 205]
    finally:
        previews.close()


def test_where_no_process_can_be_started_it_is_told_and_the_next_try_is_made() -> None:
    begun: list[Look] = []

    def start(settings: EngineSettings, look: Look) -> EngineProcess:
        begun.append(look)
        if len(begun) == 1:
            raise OSError(11, "Resource temporarily unavailable")
        return EngineProcess(settings, look, "tests.support.fake_engine:make", 1, Limits(), lambda: 0.0)

    previews = Previews(start)
    picture = np.full((64, 64, 3), 50, np.uint8)
    settings = EngineSettings(model="fake", width=64, height=64, steps=1)
    try:
        with pytest.raises(VcamError, match=r"cannot be tried now: .*temporarily unavailable"):
            previews.translate(settings, Look(seed=1), picture).result(PATIENCE_S)
        assert previews.translate(settings, Look(seed=2), picture).result(PATIENCE_S)[9, 9].tolist() == [207, 205, 205]
    finally:
        previews.close()


def test_every_shipped_look_has_its_picture_in_the_package(tmp_path: Path) -> None:
    """`python -m vcam.control.thumbnails` draws them anew where this fails."""

    def draw(settings: EngineSettings, look: Look, picture: Picture) -> Future[Picture]:
        raise AssertionError(f"{look.prompt} must be drawn: its picture is not in the package")

    made, wanted = Thumbnails(tmp_path, draw), set()
    for profile in load_profiles(tmp_path / "none").profiles.values():
        for preset in (Preset.FAST, Preset.SHARP):
            settings = settings_for(profile, RunOptions(engine=EngineOptions(preset=preset, device="cpu")))
            wanted.add(made.get(settings, profile.look).result(0))
    there = [path.read_bytes() for path in thumbnails.SHIPPED.glob("*.jpg")]
    assert len(there) == len(set(there)) == len(wanted)
