"""A whole daemon without a camera, whose pictures are made of the prompt alone: the source `imagine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import SettingsError
from core.settings import EngineSettings
from tests.support.fake_camera import FakeCamera
from tests.support.fake_sink import near
from tests.support.model_folders import make_folder
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import ChangeEngine, ChangeLook, Panic, Resume, SetPrompt, StartRecording, UseProfile, UseSource
from vcam.devices.choose import choose_source
from vcam.errors import VcamError
from vcam.frames import FrameSource
from vcam.settings.run_options import RunOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


class DreamingDaemon(SwitchedDaemon):
    """Opens the source `imagine` as it is, others as fakes; a fake engine, a real model folder."""

    def __init__(self, folder: Path, model: Path, options: dict[str, Any] | None = None) -> None:
        def settings_of(profile: Any, options: RunOptions) -> EngineSettings:
            return EngineSettings(model=options.engine.model or str(model), width=96, height=64, steps=1)

        super().__init__(folder, {"source": "imagine", **(options or {})}, settings_of=settings_of)

    def _open(self, options: RunOptions) -> FrameSource:
        if options.source == "imagine":
            return choose_source("imagine", options.size or (64, 48), options.fps)
        return FakeCamera(options.source)

    def shows(self, seed: int) -> bool:
        """Whether what was imagined by the profile of this seed was published last."""
        return near(self.sink.colour, (200 + seed, 200, 200)) and self.sink.colour[0] == 200 + seed


def test_pictures_come_of_the_prompt_alone_and_follow_the_look(tmp_path: Path, model: Path) -> None:
    with DreamingDaemon(tmp_path, model) as run:
        run.until(lambda: run.shows(0))
        assert run.daemon.status().source == "Imagined pictures"
        run.tell(UseProfile("p3"))
        run.until(lambda: run.shows(3))
        run.tell(ChangeLook({"region": "person", "framing": "face", "detail": 1.0}))
        told = run.daemon.status().translated
        run.until(lambda: run.daemon.status().translated > told + 3)
        assert run.shows(3), "there is no person in it, no face and no edge of a camera"
        run.tell(SetPrompt("a castle"))
        told = run.daemon.status().translated
        run.until(lambda: run.daemon.status().translated > told + 3)
        assert run.daemon.status().restarts == 0


def test_a_panic_ends_it_at_once_and_resume_brings_it_back(tmp_path: Path, model: Path) -> None:
    with DreamingDaemon(tmp_path, model) as run:
        run.until(lambda: run.shows(0))
        run.tell(Panic())
        shown = len(run.sink.sent)
        run.until(lambda: len(run.sink.sent) > shown + 8)
        assert not any(near(one.colour, (200, 200, 200)) for one in run.sink.sent[shown + 1 :])
        run.tell(Resume())
        run.until(lambda: run.shows(0))


def test_from_a_camera_to_the_prompt_alone_and_back(tmp_path: Path, model: Path) -> None:
    with DreamingDaemon(tmp_path, model, {"source": "camera:a"}) as run:
        run.until(lambda: near(run.sink.colour, (245, 55, 225)))
        run.tell(StartRecording())
        run.until(lambda: run.daemon.status().recorded_s > 0.2)
        run.tell(UseSource("imagine"))
        run.until(lambda: run.shows(0))
        run.until(lambda: run.daemon.status().recorded_s > 0.2)
        run.tell(UseSource("camera:a"))
        run.until(lambda: near(run.sink.colour, (245, 55, 225)))
    films = sorted((tmp_path / "videos").glob("*.mp4"), key=lambda path: path.stat().st_ino)
    said = [b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes() for path in films]
    assert sorted(said) in ([False, True], [False, True, True]), "each film says what it is, the last may be empty"


def test_a_source_whose_recording_cannot_be_written_changes_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise VcamError("the disk is full")

    with DreamingDaemon(tmp_path, model, {"source": "camera:a"}) as run:
        run.until(lambda: near(run.sink.colour, (245, 55, 225)))
        run.tell(StartRecording())
        path = run.daemon.status().recording
        monkeypatch.setattr("vcam.daemon.recording_files.VideoFile", full)
        with pytest.raises(VcamError, match="the disk is full"):
            run.tell(UseSource("imagine"))
        status = run.daemon.status()
        assert (status.source, run.daemon.choice.options.source, status.recording) == ("camera:a", "camera:a", path)
        monkeypatch.undo()
        run.tell(UseSource("imagine"))
        run.until(lambda: run.shows(0))
        assert run.daemon.status().recording not in ("", path)


def test_a_model_that_only_translates_is_refused_and_the_picture_goes_on(tmp_path: Path, model: Path) -> None:
    with DreamingDaemon(tmp_path, model) as run:
        run.until(lambda: run.shows(0))
        with pytest.raises(SettingsError, match="'embedded' only translates pictures"):
            run.tell(ChangeEngine({"model": "embedded"}))
        assert run.daemon.choice.settings.model == str(model)
        told = run.daemon.status().translated
        run.until(lambda: run.daemon.status().translated > told + 3)
        assert run.shows(0)


def test_a_model_that_only_translates_keeps_its_camera(tmp_path: Path) -> None:
    with DreamingDaemon(tmp_path, Path("embedded"), {"source": "camera:a"}) as run:
        with pytest.raises(SettingsError, match="'embedded' only translates pictures"):
            run.tell(UseSource("imagine"))
        assert run.daemon.status().source == "camera:a"


def test_a_film_that_says_translated_takes_nothing_that_is_generated(tmp_path: Path, model: Path) -> None:
    with DreamingDaemon(tmp_path, model, {"source": "camera:a", "sink": "a.mp4"}) as run:
        with pytest.raises(VcamError, match=r"a\.mp4 says that it is AI-translated.*--source imagine"):
            run.tell(UseSource("imagine"))
        assert run.daemon.choice.options.source == "camera:a"
