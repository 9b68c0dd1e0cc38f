"""The daemon as a whole with a fake engine in a real child process: commands, failures, ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.settings import EngineSettings, Look, OnSwitch
from tests.support.fake_camera import FakeCamera
from tests.support.fake_children import QUICK
from tests.support.fake_engine import FACTORY, GATE
from tests.support.fake_sink import FakeSink, near
from tests.support.model_folders import make_folder
from tests.support.patience import PATIENCE_S, until
from tests.support.pictures import RAW, SIZE, plain
from tests.support.profile_files import write_profile
from tests.support.running_daemon import RunningDaemon
from vcam import client, commands
from vcam.commands import (
    ChangeLook,
    EndRecording,
    Forget,
    NextProfile,
    OnFailure,
    Panic,
    Pause,
    PreviousProfile,
    Resume,
    SetPrompt,
    StartRecording,
    Stop,
    UseProfile,
    UseSource,
)
from vcam.daemon import instance_lock as single
from vcam.daemon import publisher as stage
from vcam.daemon.cards import Halt, card_for, daemon_state, draw_card
from vcam.daemon.daemon import RunParts, run
from vcam.devices import cameras, choose, sinks
from vcam.errors import CommandError, ProfileError, VcamError
from vcam.frames import EngineFacts, EnginePhase, Frame, Picture, TranslatorState
from vcam.settings.config import CardTexts, RecordSettings
from vcam.settings.engine_options import EngineOptions
from vcam.settings.profiles import Profile
from vcam.settings.run_options import RunOptions, settings_for
from vcam.settings.selection import profile_list

PROFILES = {
    "plain": "",
    "wide": "[engine]\nwidth = 96\n",
    "gone": "[engine]\nmodel = 'absent'\n",
    "wild": "",
}


class Run(RunningDaemon):
    """A daemon at work, with the hands on its source and sink. options: of the run; parts: in place of its own."""

    def __init__(self, tmp_path: Path, options: RunOptions, **parts: Any) -> None:
        self.source, self.sink = FakeCamera(picture=plain((64, 48))), FakeSink()
        self.folder = tmp_path / "profiles"
        self.folder.mkdir(exist_ok=True)
        for name, more in PROFILES.items():
            write_profile(self.folder, name, more=more)

        def settings_of(profile: Profile, options: RunOptions) -> EngineSettings:
            own: dict[str, Any] = {"model": options.engine.model or "fake", "width": 64, "height": 64, "steps": 1}
            return EngineSettings(**(own | profile.engine.given()))

        own = RunParts(
            engine=FACTORY,
            settings_of=settings_of,
            open_source=lambda options: self.source,
            open_sink=lambda options: self.sink,
            state_folder=lambda: tmp_path,
            limits=replace(QUICK, tries=2),
            signals=False,
        )
        super().__init__(replace(options, profiles_folder=self.folder), replace(own, **parts))
        self.thread.start()

    @property
    def shows_translation(self) -> bool:
        return near(self.sink.colour, (255 - RAW[0], 255 - RAW[1], 255 - RAW[2]))

    @property
    def shows_raw(self) -> bool:
        return near(self.sink.colour, RAW)


def card(state: str) -> Picture:
    return draw_card(card_for(state, None, CardTexts()), SIZE)


OPTIONS = RunOptions(panel=False, profile="plain", size=SIZE, fps=60)


@contextmanager
def running(tmp_path: Path, options: RunOptions = OPTIONS, raw_allowed: bool = False, **parts: Any) -> Iterator[Run]:
    """A run that has shown its first translation (unless it cannot); ends in order, and showed nothing raw."""
    at_work = Run(tmp_path, options, **parts)
    try:
        at_work.until(lambda: at_work.shows_translation or at_work.daemon.status().state == "failed")
        yield at_work
    finally:
        at_work.end()
    assert at_work.sink.closed
    assert at_work.source.closed
    assert raw_allowed or at_work.sink.times(RAW) == 0, "the raw camera was shown"
    assert not [c for c in psutil.Process().children() if "resource_tracker" not in " ".join(c.cmdline())]


def test_a_recording_that_is_not_complete_is_no_success(tmp_path: Path) -> None:
    at_work = Run(tmp_path, OPTIONS)
    at_work.until(lambda: at_work.shows_translation)
    at_work.sink.incomplete = "a.mp4 could not be completed: No space left on device"
    with pytest.raises(VcamError, match=r"^a.mp4 could not be completed: No space left on device$"):
        at_work.end()
    at_work.thread.join(PATIENCE_S)
    assert at_work.source.closed


def test_it_shows_a_card_first_then_translations_and_ends_with_a_farewell(tmp_path: Path) -> None:
    seen: list[Picture] = []
    with running(tmp_path) as at_work:
        status = at_work.daemon.status()
        seen.append(at_work.daemon.preview)
        assert (status.state, status.reason) == ("running", "")
        assert (status.profile, status.profile_name, status.prompt) == ("plain", "Plain", "plain")
        assert (status.source, status.sink, status.model) == ("fake camera", "fake sink", "fake")
        assert (status.width, status.height) == SIZE
        assert status.bank_bytes == 1000
        assert status.engine_pid in [child.pid for child in psutil.Process().children()]
        assert at_work.daemon.status().longest_interval_ms > 0
    assert (at_work.sink.last == card("stopping")).all()
    report = at_work.done.result()
    assert report.publish_interval_ms["max"] == at_work.daemon.status().longest_interval_ms
    assert report.captured >= report.translated > 0
    assert report.published > 0
    assert report.latency_ms["p95"] >= report.latency_ms["p50"] > 0
    assert report.publish_interval_ms["max"] >= report.publish_interval_ms["p95"] > 0
    assert json.loads(json.dumps(report.to_json()))["profile"] == "plain"


def test_it_ends_after_the_frames_that_were_asked_for(tmp_path: Path) -> None:
    at_work = Run(tmp_path, replace(OPTIONS, frames=20))
    assert at_work.done.result(PATIENCE_S).published == 20
    at_work.thread.join()
    assert any("as many pictures as were asked for are published: 20" in one["text"] for one in at_work.daemon.log())


# ----------------------------------------------------------------------------------------------------------- commands


def test_profiles_are_used_by_name_and_in_turn(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        ids = [profile["id"] for profile in profile_list(at_work.daemon.choice)]
        assert set(PROFILES) < set(ids), "the user's own and those shipped"
        at_work.tell(UseProfile("WILD"))
        assert at_work.daemon.status().profile == "wild"
        at_work.tell(PreviousProfile())
        assert at_work.daemon.status().profile == ids[ids.index("wild") - 1]
        at_work.tell(NextProfile())
        assert at_work.daemon.status().profile == "wild"
        assert [profile["id"] for profile in profile_list(at_work.daemon.choice) if profile["current"]] == ["wild"]


def test_a_prompt_and_a_look_change_what_is_asked_of_the_engine(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.tell(SetPrompt("neon xyz", 100))
        at_work.tell(ChangeLook({"strength": 0.25, "seed": 3}))
        assert at_work.daemon.choice.look.prompt == "neon xyz"
        assert at_work.daemon.choice.look.strength == 0.25
        assert at_work.daemon.status().prompt == "neon xyz"  # test_prompt_notes.py: what is said of it


def test_what_cannot_be_done_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        before = at_work.daemon.choice.look
        for command, words in (
            (UseProfile("nonsense"), "nonsense"),
            (UseProfile("../../etc/passwd"), "no profile"),
            (ChangeLook({"strength": 7}), "strength is 7; it must be between"),
            (ChangeLook({"strength": "much"}), "strength"),
            (ChangeLook({"colour": 1}), "a look has no 'colour'"),
            (ChangeLook({"on_switch": "explode"}), "explode"),
        ):
            with pytest.raises((ProfileError, CommandError), match=words):
                at_work.tell(command)
        assert at_work.daemon.choice.look == before
        assert at_work.daemon.status().state == "running"


def test_a_bug_in_a_command_ends_the_command_alone(tmp_path: Path) -> None:
    camera = FakeCamera(picture=plain((64, 48)))

    def opened(options: RunOptions) -> FakeCamera:
        if options.source == "bug":
            raise ValueError("bug")
        return camera

    with running(tmp_path, open_source=opened) as at_work:
        at_work.source = camera
        with pytest.raises(ValueError, match="bug"):
            at_work.tell(UseSource("bug"))
        at_work.tell(UseProfile("wild"))
        at_work.until(lambda: at_work.shows_translation)
        told = [str(line["text"]) for line in at_work.daemon.log()]
        assert "the command UseSource failed (ValueError: bug)" in told
        assert not [text for text in told if text.startswith("refused")]


def test_a_profile_edited_to_nonsense_is_refused_and_mended_is_taken(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        path = at_work.folder / "wild.toml"
        good = path.read_text()
        path.write_text(good + "strength = 9\n")
        with pytest.raises(ProfileError, match=r"wild\.toml"):
            at_work.tell(UseProfile("wild"))
        assert at_work.daemon.status().profile == "plain"
        path.write_text(good.replace('"wild"', '"wilder"'))
        at_work.tell(UseProfile("wild"))
        assert at_work.daemon.status().prompt == "wilder"


def test_panic_shows_nothing_at_once_until_resumed(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.tell(Panic())
        panic = card("panic")
        at_work.until(lambda: (at_work.sink.last == panic).all())
        sent = len(at_work.sink.sent)
        while len(at_work.sink.sent) < sent + 30:
            assert (at_work.sink.last == panic).all()
            time.sleep(0.002)
        at_work.tell(Pause())
        assert at_work.daemon.status().state == "panic"
        at_work.tell(Resume())
        at_work.until(lambda: at_work.shows_translation)
        assert at_work.daemon.status().state == "running"


def test_pause_shows_its_card_and_the_engine_rests(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.tell(Pause())
        paused = card("paused")
        at_work.until(lambda: (at_work.sink.last == paused).all())
        translated, sent = at_work.daemon.status().translated, len(at_work.sink.sent)
        at_work.until(lambda: len(at_work.sink.sent) > sent + 10)
        assert at_work.daemon.status().translated <= translated + 1
        at_work.until(lambda: at_work.source.rests > 0)
        at_work.tell(Forget())
        at_work.tell(Resume())
        at_work.until(lambda: at_work.shows_translation)


def test_stop_ends_it(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.tell(Stop())
        at_work.done.result(PATIENCE_S)
        with pytest.raises(VcamError, match="is ending"):
            at_work.tell(Pause())


def test_another_engine_is_built_beside_while_pictures_go_on(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        first = at_work.engine_pid()
        at_work.tell(UseProfile("wide"))
        at_work.until(lambda: at_work.engine_pid() != first)
        at_work.until(lambda: at_work.shows_translation)
        assert at_work.daemon.status().restarts == 0
        assert at_work.daemon.status().state == "running"


# --------------------------------------------------------------------------------------------------------------- rest


class FakeReaders:
    """As many readers as the test says."""

    how = "fake"

    def __init__(self) -> None:
        self.now, self.closed = 1, False

    def count(self) -> int:
        return self.now

    def names(self) -> list[str]:
        return [f"zoom (pid {i})" for i in range(self.now)]

    def close(self) -> None:
        self.closed = True


def test_without_readers_engine_and_camera_rest_until_one_comes(tmp_path: Path) -> None:
    looking = FakeReaders()
    with running(tmp_path, replace(OPTIONS, idle_after_s=0.2), watch_sink=lambda sink: looking) as at_work:
        at_work.until(lambda: at_work.daemon.status().readers == ("zoom (pid 0)",))
        looking.now = 0
        at_work.until_state("resting")
        assert at_work.daemon.status().reader_count == 0
        assert at_work.daemon.status().reason == "no program looks at the camera"
        rests = at_work.source.rests
        at_work.until(lambda: at_work.source.rests > rests)
        resting = card("resting")
        at_work.until(lambda: (at_work.sink.last == resting).all())
        translated, sent = at_work.daemon.status().translated, len(at_work.sink.sent)
        at_work.until(lambda: len(at_work.sink.sent) > sent + 20)
        assert at_work.daemon.status().translated <= translated + 1
        looking.now = 1
        at_work.until(lambda: at_work.shows_translation)
        assert at_work.daemon.status().state == "running"
    assert looking.closed


def test_who_looks_at_the_preview_keeps_it_awake(tmp_path: Path) -> None:
    looking = FakeReaders()
    options = replace(OPTIONS, idle_after_s=0.2)
    with running(tmp_path, options, watch_sink=lambda sink: looking) as at_work:
        looking.now = 0  # not before: a busy machine shows its first translation later than that
        at_work.until_state("resting")
        at_work.until(lambda: at_work.daemon.preview is not None and at_work.daemon.status().state == "running")
        at_work.until_state("resting")


def test_a_recording_keeps_it_awake(tmp_path: Path) -> None:
    """Else the recording would be of the card alone."""
    looking = FakeReaders()
    options = replace(OPTIONS, idle_after_s=0.2, record=RecordSettings(str(tmp_path / "videos")))
    with running(tmp_path, options, watch_sink=lambda sink: looking) as at_work:
        looking.now = 0  # not before: a busy machine shows its first translation later than that
        at_work.until_state("resting")
        at_work.tell(StartRecording())
        at_work.until_state("running")
        frames = at_work.source.index
        at_work.until(lambda: at_work.source.index > frames)  # the thread of the camera knows it too
        rests = at_work.source.rests
        at_work.until(lambda: at_work.daemon.status().recorded_s > 2)
        assert (at_work.source.rests, at_work.daemon.status().state) == (rests, "running")
        at_work.tell(EndRecording())
        at_work.until_state("resting")


@pytest.mark.parametrize("way", ["switched off", "cannot be told"])
def test_it_never_rests_if_that_was_asked_for_or_nobody_can_tell(tmp_path: Path, way: str) -> None:
    looking = FakeReaders()
    looking.now = 0
    off = way == "switched off"
    options = replace(OPTIONS, idle_after_s=0.0 if off else 0.05)
    with running(tmp_path, options, watch_sink=lambda sink: looking if off else None) as at_work:
        translated = at_work.daemon.status().translated
        at_work.until(lambda: at_work.daemon.status().translated > translated + 30)
        assert at_work.source.rests == 0


# ----------------------------------------------------------------------------------------------------------- failures


def test_a_camera_in_trouble_shows_the_card_and_comes_back(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.source.trouble = "the camera is unplugged"
        at_work.until_state("waiting")
        assert at_work.daemon.status().reason == "the camera is unplugged"
        at_work.until(lambda: (at_work.sink.last == card("waiting")).all())
        at_work.source.trouble = ""
        at_work.until(lambda: at_work.shows_translation)
        assert at_work.daemon.status().state == "running"


def test_the_engine_killed_comes_back_and_nothing_raw_is_shown(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        for _ in range(2):
            before = at_work.daemon.status().restarts
            seen = at_work.daemon.status().translated
            at_work.until(lambda: at_work.daemon.status().translated > seen + 5)  # noqa: B023  used at once
            os.kill(at_work.engine_pid(), signal.SIGKILL)
            at_work.until(lambda: at_work.daemon.status().restarts > before)  # noqa: B023  used at once
            at_work.until_state("running")


def test_an_engine_that_fails_for_good_leaves_the_card_with_the_reason_until_another_is_asked_for(
    tmp_path: Path,
) -> None:
    with running(tmp_path, replace(OPTIONS, profile="gone")) as at_work:
        status = at_work.daemon.status()
        assert status.state == "failed"
        assert "there is no model 'absent'" in status.reason
        sent = len(at_work.sink.sent)
        at_work.until(lambda: len(at_work.sink.sent) > sent + 5)
        assert not at_work.shows_translation
        at_work.tell(UseProfile("plain"))
        at_work.until(lambda: at_work.shows_translation)
        assert at_work.daemon.status().reason == ""


def test_an_engine_that_raises_at_every_picture_ends_on_the_card(tmp_path: Path) -> None:
    with running(tmp_path, replace(OPTIONS, prompt="raise")) as at_work:
        assert "CUDA error: an illegal memory access" in at_work.daemon.status().reason
        at_work.tell(SetPrompt("good"))
        at_work.until(lambda: at_work.shows_translation)


def test_a_profile_whose_engine_cannot_be_had_keeps_the_picture(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        at_work.tell(UseProfile("gone"))
        at_work.until(lambda: any("not possible" in note for note in at_work.daemon.status().notes))
        assert at_work.daemon.status().state == "running"
        at_work.until(lambda: at_work.shows_translation)


def test_the_raw_camera_is_shown_only_by_choice(tmp_path: Path) -> None:
    options = replace(OPTIONS, profile="gone", on_failure=OnFailure.RAW)
    with running(tmp_path, options, raw_allowed=True) as at_work:
        at_work.until(lambda: at_work.shows_raw)
        at_work.tell(Panic())
        panic = card("panic")
        at_work.until(lambda: (at_work.sink.last == panic).all())
        sent, raw = len(at_work.sink.sent), at_work.sink.times(RAW)
        at_work.until(lambda: len(at_work.sink.sent) > sent + 20)
        assert at_work.sink.times(RAW) == raw, "panic goes over everything"


@pytest.mark.parametrize("halt", [Pause(), Panic()])
def test_nobody_sees_the_camera_while_it_is_halted(tmp_path: Path, halt: Pause | Panic) -> None:
    with running(tmp_path) as at_work:
        at_work.until(lambda: at_work.daemon.camera is not None)
        at_work.tell(halt)
        # what a capture that was under way leaves there
        at_work.daemon._pipeline.slots.captured.put(Frame(plain((64, 48)), 0.0, 0))
        assert at_work.daemon.camera is None
        at_work.tell(Resume())
        at_work.until(lambda: at_work.daemon.camera is not None)


def test_hold_keeps_the_last_translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "HOLD_S", 0.01)
    monkeypatch.setattr(stage, "HOLD_FRAMES", 0)
    with running(tmp_path, replace(OPTIONS, on_failure=OnFailure.HOLD)) as at_work:
        at_work.source.trouble = "unplugged"
        at_work.until_state("waiting")
        sent = len(at_work.sink.sent)
        at_work.until(lambda: len(at_work.sink.sent) > sent + 30)
        assert at_work.shows_translation


def test_a_sink_in_trouble_is_told_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as at_work:
        at_work.sink.trouble = "the device is gone"
        at_work.until(lambda: "the device is gone" in at_work.daemon.status().notes)
        at_work.sink.trouble = ""
        at_work.until(lambda: not at_work.daemon.status().notes)
    assert capsys.readouterr().err.count("the device is gone") == 1


def test_a_fault_of_ours_in_a_loop_is_told_and_the_camera_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as at_work:
        at_work.source.raises = True
        at_work.until(lambda: any("ZeroDivisionError" in note for note in at_work.daemon.status().notes))
        index = at_work.source.index
        at_work.until(lambda: at_work.source.index > index + 5)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_source_that_cannot_be_opened_closes_the_sink(tmp_path: Path) -> None:
    sink = FakeSink()

    def no_source(options: RunOptions) -> FakeCamera:
        raise VcamError("film.mp4: no such file")

    with pytest.raises(VcamError, match="no such file"):
        Run(tmp_path, OPTIONS, open_source=no_source, open_sink=lambda options: sink)
    assert sink.closed


# ---------------------------------------------------------------------------------------------------- start and end


def test_an_unknown_profile_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    def never(options: RunOptions) -> Any:
        raise AssertionError("opened")

    parts = RunParts(open_sink=never, open_source=never, state_folder=lambda: tmp_path)
    with pytest.raises(ProfileError, match="nonsense"):
        run(RunOptions(profile="nonsense"), parts)


def test_a_second_one_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    words = rf"runs already \(pid {os.getpid()}\); to end it: vcam stop"
    with single.only_one(tmp_path), pytest.raises(VcamError, match=words):
        run(OPTIONS, RunParts(state_folder=lambda: tmp_path))
    with single.only_one(tmp_path):
        pass


def test_a_state_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VcamError, match="set VCAM_STATE_FOLDER"):
        run(OPTIONS, RunParts(state_folder=lambda: tmp_path / "file" / "state"))


def test_the_panel_is_served_and_the_client_switches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, replace(OPTIONS, panel=True, port=18787)) as at_work:
        at_work.until((tmp_path / client.SESSION_FILE).exists)
        assert client.status(tmp_path).state == "running"
        assert client.send(UseProfile("wild"), tmp_path).profile == "wild"
        with pytest.raises(VcamError, match="no profile"):
            client.send(UseProfile("x"), tmp_path)
        assert at_work.daemon.status().profile == "wild"
    assert "vcam: panel: http://127.0.0.1:" in capsys.readouterr().err
    with pytest.raises(VcamError, match="no StreamV2V Camera is running"):
        client.status(tmp_path)


def test_a_bank_that_the_engine_made_anew_is_told_by_the_status(tmp_path: Path) -> None:
    with running(tmp_path) as at_work:
        assert at_work.daemon.status().refreshes == 0
        at_work.tell(SetPrompt("drift"))
        at_work.until(lambda: at_work.daemon.status().refreshes > 0)
        assert "bank made anew: " in client.status_text(at_work.daemon.status())


def test_port_0_is_any_free_one_and_everybody_is_told_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, replace(OPTIONS, panel=True, port=0)) as at_work:
        at_work.until((tmp_path / client.SESSION_FILE).exists)
        status = client.status(tmp_path)
        assert status.panel_port is not None
        assert status.panel_port >= 1024
        address = f"http://127.0.0.1:{status.panel_port}/"
        assert client.panel_link(tmp_path).startswith(address)
        assert f"at port {status.panel_port};" in client.status_text(status)
    told = capsys.readouterr().err
    assert f"vcam: panel: {address}" in told
    assert "taken" not in told


def test_auto_takes_the_first_camera_else_the_test_picture_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there: list[Any] = []
    monkeypatch.setattr(cameras, "list_cameras", lambda: there)
    choose.choose_source("auto", SIZE, 30).close()
    assert "the test picture, because no camera was found" in capsys.readouterr().err
    there.append(cameras.Camera("C920", "id", "/nowhere"))
    source = choose.choose_source("auto", SIZE, 30)
    assert "C920 (the first camera found)" in capsys.readouterr().err
    source.close()


def test_auto_goes_without_a_virtual_camera_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(wanted: str, size: tuple[int, int], fps: float, marking: object = None, origin: object = None) -> Any:
        if wanted == "camera":
            raise VcamError("there is no virtual camera: modprobe")
        return sinks.NullSink(size)

    monkeypatch.setattr(sinks, "open_sink", none)
    assert choose.choose_sink("auto", SIZE, 30).name == "none"
    assert "preview alone; there is no virtual camera: modprobe" in capsys.readouterr().err
    with pytest.raises(VcamError):
        choose.choose_sink("camera", SIZE, 30)


def test_the_strength_that_was_asked_for_is_every_profiles(tmp_path: Path) -> None:
    with running(tmp_path, replace(OPTIONS, strength=0.3)) as at_work:
        assert at_work.daemon.choice.look.strength == 0.3
        at_work.tell(UseProfile("wild"))
        assert (at_work.daemon.choice.look.prompt, at_work.daemon.choice.look.strength) == ("wild", 0.3)


def test_the_model_is_the_command_lines_then_the_profiles_then_the_configurations(tmp_path: Path) -> None:
    own, theirs, ours = (str(make_folder(tmp_path / name)) for name in ("own", "theirs", "ours"))
    plain = Profile("x", "X", look=Look(prompt="x"))
    named = replace(plain, engine=EngineOptions(model=theirs))
    chosen = [
        settings_for(profile, RunOptions(engine=EngineOptions(model=model), machine=EngineOptions(model=default))).model
        for profile, model, default in [
            (plain, None, None),
            (plain, None, ours),
            (named, None, ours),
            (named, own, ours),
            (plain, own, ours),
        ]
    ]
    assert chosen == ["embedded", ours, theirs, own, own]


def test_sources_by_word(tmp_path: Path) -> None:
    assert choose.choose_source("pattern", SIZE, 30).name == "test picture"
    assert choose.choose_source("camera:Some Camera", SIZE, 30).name == "Some Camera"
    with pytest.raises(VcamError, match="the camera that this program makes"):
        choose.choose_source("camera:StreamV2V Camera", SIZE, 30)
    with pytest.raises(VcamError, match=r"nothing\.mp4"):
        choose.choose_source(str(tmp_path / "nothing.mp4"), SIZE, 30)


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ((Halt.STOPPING, TranslatorState(EnginePhase.RUNNING), "x"), "stopping"),
        ((Halt.PANIC, TranslatorState(EnginePhase.RUNNING), "x"), "panic"),
        ((Halt.PAUSED, TranslatorState(EnginePhase.FAILED, "y"), "x"), "paused"),
        ((Halt.NO, TranslatorState(EnginePhase.FAILED, "y"), "x"), "failed"),
        ((Halt.NO, TranslatorState(EnginePhase.STARTING, "y", 0.5), "x"), "starting"),
        ((Halt.NO, TranslatorState(EnginePhase.STARTING, "y", 0.9, facts=EngineFacts(pid=1)), "x"), "waiting"),
        ((Halt.NO, TranslatorState(EnginePhase.STARTING, "y", 0.9, facts=EngineFacts(pid=1)), ""), "starting"),
        ((Halt.NO, TranslatorState(EnginePhase.RESTARTING, "y", facts=EngineFacts(pid=1)), "x"), "waiting"),
        ((Halt.NO, TranslatorState(EnginePhase.RESTARTING, "y"), "x"), "restarting"),
        ((Halt.NO, TranslatorState(EnginePhase.FAILED, "y", facts=EngineFacts(pid=1)), "x"), "failed"),
        ((Halt.NO, TranslatorState(EnginePhase.FAILED, "y"), "x", True), "failed"),
        ((Halt.NO, TranslatorState(EnginePhase.RUNNING), "x", True), "resting"),
        ((Halt.NO, TranslatorState(EnginePhase.RUNNING), "x"), "waiting"),
        ((Halt.NO, TranslatorState(EnginePhase.RUNNING), ""), "running"),
    ],
)
def test_which_state_goes_over_which(arguments: Any, state: str) -> None:
    assert daemon_state(*arguments)[0] == state
    assert card_for(state, None, CardTexts()).title


def test_changed_looks_are_looks() -> None:
    assert commands.changed(Look(), {"on_switch": "flush", "seed": 4}) == Look(seed=4, on_switch=OnSwitch.FLUSH)


@pytest.mark.parametrize("prompt", ["x" * 2001, "a\x1b[2Jb", "a\0", "a\nb", "\ud800"])
def test_a_look_takes_no_prompt_that_the_command_for_one_refuses(prompt: str) -> None:
    for change in (
        lambda: commands.from_json({"command": "prompt", "prompt": prompt}),
        lambda: commands.changed(Look(), {"prompt": prompt}),
        lambda: commands.changed(Look(), {"negative_prompt": prompt}),
    ):
        with pytest.raises(CommandError, match="must be one line of at most 2000 characters"):
            change()


SCRIPT = """
import json, signal, sys, threading, time
from pathlib import Path
from core.settings import EngineSettings
from vcam.commands import Pause
from vcam.daemon.daemon import RunParts, run
from vcam.settings.run_options import RunOptions
from vcam.errors import VcamError

if __name__ == "__main__":
    folder, model = Path(sys.argv[1]), sys.argv[2]
    parts = RunParts(
        engine="tests.support.fake_engine:make",
        settings_of=lambda profile, options: EngineSettings(model=model, width=64, height=64, steps=1),
        state_folder=lambda: folder,
    )
    def tell() -> None:
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            time.sleep(0.001)
        print("begin", flush=True)  # from here on a signal ends it in order

    threading.Thread(target=tell, daemon=True).start()
    report = run(RunOptions(source="pattern", sink=str(folder / "out.mp4"), size=(96, 64), port=0), parts)
    print(json.dumps(report.to_json()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("begin", signal.SIGTERM),
        ("starting", signal.SIGINT),
        ("running", signal.SIGINT),
        ("running", signal.SIGTERM),
        ("paused", signal.SIGTERM),
        ("failed", signal.SIGINT),
    ],
)
def test_a_signal_ends_it_in_order_in_every_state(tmp_path: Path, when: str, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    model = {"starting": "slow-start", "failed": "absent"}.get(when, "fake")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), GATE: str(tmp_path / "never")}
    with subprocess.Popen(
        [sys.executable, script, str(tmp_path), model],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begin\n"
        if when == "begin":
            time.sleep(0.2)  # somewhere while the parts are built
        else:
            _until_state(tmp_path, "running" if when == "paused" else when)
            if when == "paused":
                client.send(Pause(), tmp_path)
        engines = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    report = json.loads(output.splitlines()[-1])
    assert report["published"] >= 0
    until(
        lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in engines),
        "a child was left behind",
    )
    assert not (tmp_path / client.SESSION_FILE).exists()
    assert (tmp_path / "out.mp4").exists() == (report["published"] > 0)


def _until_state(folder: Path, state: str) -> None:
    def there() -> bool:
        try:
            return client.status(folder).state == state
        except VcamError:
            return False  # it does not listen yet

    until(there, f"never {state}")
