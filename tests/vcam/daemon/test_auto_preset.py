"""The preset `auto` in a run: it measures, climbs or steps down beside the running picture, says so, and remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.settings import EngineSettings
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import OnFailure
from vcam.daemon.auto_preset import WARM_UP, WINDOW_S, AutoPreset
from vcam.frames import EngineFacts, EnginePhase, EngineWork, TranslatorState
from vcam.settings import presets
from vcam.settings.engine_options import EngineOptions
from vcam.settings.presets import BY_SHARPNESS, Preset
from vcam.settings.profiles import LoadedProfiles, Profile
from vcam.settings.run_options import RunOptions
from vcam.settings.selection import Choice, first_choice, with_engine
from vcam.settings.speeds import place, remembered

FAST, BALANCED, FINE, SHARP = BY_SHARPNESS
WIDTHS = {FAST: 64, BALANCED: 128, FINE: 192, SHARP: 256}
OWN_SIZE = Profile("own", "Own", engine=EngineOptions(width=512))


def settings_of(profile: Profile, options: RunOptions) -> EngineSettings:
    preset = options.engine.preset or Preset.AUTO
    if preset is Preset.AUTO:
        preset = options.automatic.get("fake", BALANCED)
    width = profile.engine.width or WIDTHS[preset]
    return EngineSettings(model="fake", width=width, height=64, steps=1)


class Machine:
    """A machine on which each preset makes so many pictures a second; it remembers in `folder`."""

    def __init__(self, folder: Path, **rates: float) -> None:
        self.rates = {settings: rates.get(preset.value, 0.0) for preset, settings in WIDTHS.items()}
        self.said: list[str] = []
        options = RunOptions()
        self.auto = AutoPreset(options, folder, self.said.append)
        profiles = {"plain": Profile("plain", "Plain"), "own": OWN_SIZE}
        options = replace(options, profile="plain", automatic=self.auto.automatic)
        self.choice: Choice = first_choice(options, settings_of, LoadedProfiles(profiles, []))
        self.shown = self.choice.settings
        self.tried: list[Preset] = []

    def state(self, pictures: int, **more: Any) -> TranslatorState:
        rate = self.rates.get(self.shown.width, 1.0)
        work = EngineWork(self.shown, pictures, pictures / rate if rate else 0.0)
        facts = EngineFacts(model="fake", runtime="onnx")
        return TranslatorState(EnginePhase.RUNNING, facts=facts, work=work, **more)

    def run(self) -> Preset:
        """Let it run until `auto` changes nothing any more."""
        wanted: Choice | None = self.choice
        while wanted is not None:
            self.choice, wanted = wanted, None
            self.tried.append(self.choice.taken)
            refused = not self.rates.get(self.choice.settings.width, 1.0)
            if not refused:
                self.shown = self.choice.settings
            for pictures in range(WARM_UP + 2 + int((WINDOW_S + 0.5) * max(self.rates.values()))):
                wanted = wanted or self.auto.look(self.choice, self.state(pictures, refused="no memory" * refused))
        return self.choice.taken


def test_the_sharpest_preset_that_makes_15_pictures_is_taken_told_and_remembered(tmp_path: Path) -> None:
    first = Machine(tmp_path, fast=90, balanced=50, fine=25, sharp=16)
    assert (first.run(), first.tried) == (SHARP, [BALANCED, FINE, SHARP])
    assert first.said == [
        "auto: balanced makes 50.0 pictures a second; trying fine",
        "auto: fine makes 25.0 pictures a second; trying sharp",
        "auto: sharp makes 16.0 pictures a second on this machine (balanced 50.0, fine 25.0)",
    ]
    assert first.auto.says == "sharp makes 16.0 pictures a second on this machine (balanced 50.0, fine 25.0)"
    speed = remembered(tmp_path, place(RunOptions()))["fake"]
    assert (speed.preset, speed.runtime, speed.rates) == (SHARP, "onnx", {BALANCED: 50.0, FINE: 25.0, SHARP: 16.0})
    assert Machine(tmp_path, sharp=16).tried == []
    again = Machine(tmp_path, fast=90, balanced=50, fine=25, sharp=16)
    assert again.choice.settings.width == WIDTHS[SHARP], "from the first picture on"
    assert (again.run(), again.tried) == (SHARP, [SHARP])


def test_what_is_too_slow_is_left_and_what_was_left_is_not_tried_again_at_the_next_start(tmp_path: Path) -> None:
    first = Machine(tmp_path, fast=90, balanced=40, fine=20, sharp=9)
    assert (first.run(), first.tried) == (FINE, [BALANCED, FINE, SHARP, FINE])
    again = Machine(tmp_path, fast=90, balanced=40, fine=20, sharp=9)
    assert (again.run(), again.tried) == (FINE, [FINE])


def test_a_machine_that_was_busy_then_is_measured_anew(tmp_path: Path) -> None:
    busy = Machine(tmp_path, fast=12, balanced=7, fine=4, sharp=3)
    assert (busy.run(), busy.tried) == (FAST, [BALANCED, FAST])
    assert busy.said[-1] == (
        "auto: fast makes 12.0 pictures a second on this machine: "
        "fewer than 15, with the quickest preset (balanced 7.0)"
    )
    idle = Machine(tmp_path, fast=36, balanced=17, fine=9, sharp=8)
    assert (idle.run(), idle.tried) == (BALANCED, [FAST, BALANCED])


def test_a_preset_for_which_there_is_no_memory_is_no_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, fast=90, balanced=60, fine=0, sharp=0)
    assert (machine.run(), machine.tried) == (BALANCED, [BALANCED, FINE, BALANCED])


def test_nothing_is_measured_where_a_preset_or_a_size_was_asked_for_or_pictures_are_skipped(tmp_path: Path) -> None:
    for change in ("preset", "size", "skip"):
        machine = Machine(tmp_path, fast=5, balanced=5, fine=5, sharp=5)
        if change == "preset":
            machine.choice = with_engine(machine.choice, {"preset": "balanced"})
        if change == "size":
            machine.choice = replace(machine.choice, profile=OWN_SIZE)
        if change == "skip":
            machine.choice = replace(machine.choice, look=replace(machine.choice.look, skip_difference=1.0))
        machine.run()
        assert (len(machine.tried), machine.said) == (1, []), change


def test_what_was_found_is_said_again_after_a_profile_of_another_size(tmp_path: Path) -> None:
    machine = Machine(tmp_path, fast=90, balanced=50, fine=6, sharp=3)
    machine.run()
    found, plain = machine.auto.says, machine.choice
    machine.choice = replace(plain, profile=OWN_SIZE)
    machine.run()
    assert machine.auto.says == ""
    machine.choice = plain
    machine.run()
    assert machine.auto.says == found != ""


def test_auto_asked_for_again_measures_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path, fast=90, balanced=50, fine=6, sharp=3)
    machine.run()
    machine.rates = dict.fromkeys(machine.rates, 40.0)
    assert machine.run() is BALANCED, "a run measures once"
    machine.choice = with_engine(machine.choice, {"preset": "auto"})
    assert machine.run() is SHARP


def test_a_preset_is_changed_beside_the_running_picture_and_the_status_says_which(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path, {"on_failure": OnFailure.HOLD}, settings_of=settings_of) as run:
        run.until(lambda: run.shows(0))
        start = len(run.sink.sent)
        run.change_beside({"preset": "fast"})
        status = run.daemon.status()
        assert (status.preset, status.preset_asked, status.preset_says) == ("fast", "fast", "")
        assert {one.colour for one in run.sink.sent[start:]} == {(245, 55, 225)}, "no card between the two"


def test_a_run_climbs_by_itself_and_its_log_and_status_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "ENOUGH", 0.01)  # pictures a second: any machine makes them, however busy
    with SwitchedDaemon(tmp_path, settings_of=settings_of) as run:
        run.until(lambda: "sharp makes" in run.daemon.status().preset_says)
        status = run.daemon.status()
        assert (status.preset, status.preset_asked) == ("sharp", "auto")
        run.until(lambda: [one for one in run.daemon.log() if "auto: sharp makes" in one["text"]])
        assert run.daemon.choice.settings.width == WIDTHS[SHARP]
    assert remembered(tmp_path, place(run.daemon.choice.options))["fake"].preset is SHARP
