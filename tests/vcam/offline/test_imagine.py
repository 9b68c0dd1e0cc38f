"""`vcam imagine`: prompts get their time and blend, the film is whole and marked, smoothness is told as it is."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from core.errors import SettingsError
from core.settings import EngineSettings, Look, Policy, Runtime
from tests.support.model_folders import make_folder, settings
from vcam.errors import VcamError
from vcam.offline.imagine import ImagineJob, ImagineReport, PromptSwitch, change, imagine, timetable, transitions
from vcam.settings.config import MarkingSettings
from vcam.video import Pixels, probe, read

METADATA = MarkingSettings(credentials=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


def run(folder: Path, target: Path, *prompts: str, **more: Any) -> ImagineReport:
    given = {name: more.pop(name) for name in ("seconds", "fps", "transition_ms", "look") if name in more}
    own = settings(folder, steps=2, policy=Policy.FIFO, runtime=Runtime.EAGER)
    usual: dict[str, Any] = {"seconds": 2, "fps": 10, "marking": METADATA}
    job = ImagineJob(prompts, target, own, **usual | given)
    return imagine(job, progress=False, note=lambda text: None, **more)


# ------------------------------------------------------------------------------------------------ when is which prompt


def test_each_prompt_has_the_same_time_and_half_of_it_is_the_way_to_it() -> None:
    assert timetable(["a", "b", "c"], 30) == [
        PromptSwitch(0, "a", 0),
        PromptSwitch(10, "b", 5),
        PromptSwitch(20, "c", 5),
    ]
    assert timetable(["a", "b"], 30, 6) == [PromptSwitch(0, "a", 0), PromptSwitch(15, "b", 6)]
    assert timetable(["a", "b"], 30, 0)[1].frames == 0, "at once"
    assert timetable(["a", "b"], 30, 900)[1].frames == 15, "no longer than there is time"
    assert timetable(["a"], 1) == [PromptSwitch(0, "a", 0)]


def test_more_prompts_than_pictures_are_refused() -> None:
    with pytest.raises(VcamError, match="3 prompts need as many pictures, and there are 2: give more --seconds"):
        timetable(["a", "b", "c"], 2)


class Greys:
    """An engine whose picture is as bright as the prompt says, reached in even steps; remembers its looks."""

    def __init__(self, steps: int, look: Look) -> None:
        self.settings = EngineSettings(width=64, height=64, steps=steps)
        self.delay = steps - 1
        self.looks: list[tuple[int, str, int]] = []
        self.calls = 0
        self.now = self.target = float(look.prompt)
        self.step = 0.0
        self.made: list[float] = []

    def set_look(self, look: Look, frames: int = 0) -> None:
        self.looks.append((self.calls, look.prompt, frames))
        self.target = float(look.prompt)
        self.step = (self.target - self.now) / max(1, frames)

    def imagine(self) -> Pixels | None:
        self.calls += 1
        self.now = self.target if abs(self.target - self.now) <= abs(self.step) else self.now + self.step
        self.made.append(self.now)
        if len(self.made) <= self.delay:
            return None
        return np.full((64, 64, 3), round(self.made[-1]), np.uint8)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_prompt_begins_at_its_picture_whatever_the_delay(folder: Path, tmp_path: Path, steps: int) -> None:
    made: list[Greys] = []

    def engine(settings: EngineSettings, look: Look) -> Greys:
        made.append(Greys(steps, look))
        return made[0]

    report = run(folder, tmp_path / "a.mp4", "40", "120", transition_ms=400, make_engine=engine)
    assert made[0].looks == [(10 + steps - 1, "120", 4)]
    levels = [round(float(one.rgb.mean())) for one in read(probe(tmp_path / "a.mp4"), lambda text: None)]
    assert np.abs(np.array(levels) - [*[40] * 10, 60, 80, 100, *[120] * 7]).max() <= 3
    (one,) = report.transitions
    assert (one.prompt, one.pictures, one.rest) == ("120", 4 + steps - 1, 0)
    assert one.largest == 20


# -------------------------------------------------------------------------------------------------- what smooth means


def test_a_change_is_the_root_of_the_mean_square() -> None:
    dark, half = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    half[0] = 200
    assert change(dark, dark) == 0
    assert change(dark, half) == change(half, dark) == pytest.approx(200 / 2**0.5)


def test_a_jump_is_told_from_a_walk() -> None:
    switches = [PromptSwitch(0, "a", 0), PromptSwitch(5, "b", 4)]
    walk, jump = [0.5] * 4 + [10.0] * 4 + [0.5] * 3, [0.5] * 4 + [40.0, 0, 0, 0] + [0.5] * 3
    (even,), (sudden,) = (transitions(switches, changes, 0) for changes in (walk, jump))
    assert (even.mean, even.largest, even.unevenness, even.rest) == (10, 10, 1, 0.5)
    assert (sudden.mean, sudden.largest, sudden.unevenness) == (10, 40, 4)


def test_a_film_that_was_stopped_before_a_switch_tells_nothing_of_it() -> None:
    assert transitions([PromptSwitch(0, "a", 0), PromptSwitch(5, "b", 4)], [1.0] * 3, 0) == []


# ------------------------------------------------------------------------------------------- with a model of that kind


def test_a_model_of_sd15s_shape_makes_a_film_that_blends(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    report = run(folder, target, "ink a", "neon blue")
    media = probe(target)
    assert (report.frames_out, report.interrupted, report.runtime, report.bank) == (20, False, "eager", "fifo")
    assert (media.width, media.height, media.rate) == (64, 64, Fraction(10))
    assert len(list(read(media, lambda text: None))) == 20
    (one,) = report.transitions
    assert one.rest == 0, "one noise: the picture stands still while the prompt does"
    assert one.pictures == 6, "half of its second, and one under way"
    assert one.largest > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]
    with av.open(str(target)) as container:
        assert container.metadata["comment"].startswith("AI-generated by")


def test_the_noise_may_wander_under_a_prompt_that_stands(folder: Path, tmp_path: Path) -> None:
    report = run(folder, tmp_path / "out.mp4", "ink a", "neon blue", look=Look(wander=5))
    assert report.transitions[0].rest > 0


def test_a_model_that_only_translates_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'embedded' only translates pictures.*sd15-lcm or sd-turbo"):
        imagine(ImagineJob(("a",), tmp_path / "out.mp4", EngineSettings()), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_pictures_may_be_made(folder: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int | None]] = []
    tell: Callable[[int, int | None], None] = lambda done, of: progress.append((done, of))  # noqa: E731
    job = ImagineJob(("ink",), tmp_path / "out", settings(folder, steps=1), seconds=0.5, fps=8, marking=METADATA)
    report = imagine(job, progress=tell, note=lambda text: None)
    assert len(list((tmp_path / "out").glob("*.png"))) == report.frames_out == 4
    assert progress[-1] == (4, 4)
    assert report.transitions == ()
