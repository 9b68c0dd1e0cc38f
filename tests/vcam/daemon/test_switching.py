"""Switching does not stall: of many switches the last one wins, an engine is exchanged beside the running one."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.support.fake_camera import FakeCamera
from tests.support.profile_files import write_profile
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import ChangeEngine, OnFailure, Reload, Toggle, UseProfile, UseSource
from vcam.devices.source_switch import SourceSwitch
from vcam.errors import CommandError
from vcam.settings.run_options import settings_for
from vcam.settings.selection import profile_list


def test_of_many_switches_the_last_one_wins(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path, {"on_failure": OnFailure.HOLD}) as run:  # no card, however late the engine is
        for n in range(60):
            run.tell(UseProfile(f"p{n % 3}"))
        run.tell(UseProfile("p3"))
        run.until(lambda: run.shows(3))  # which was not shown before: what was under way is over
        settled = len(run.sink.sent)
        told = run.daemon.status().translated
        run.until(lambda: len(run.sink.sent) > settled + 10 and run.daemon.status().translated > told + 3)
        assert {one.colour for one in run.sink.sent[settled:]} == {(248, 55, 225)}
        assert run.daemon.status().restarts == 0


@pytest.mark.slow
def test_ten_switches_a_second_for_a_minute_leave_the_memory_as_it_was(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path) as run:
        process = psutil.Process()
        for n in range(100):
            run.tell(UseProfile(f"p{n % 4}"))
        before = process.memory_info().rss
        for n in range(600):
            run.tell(UseProfile(f"p{n % 4}"))
            time.sleep(0.1)
        run.until(lambda: run.shows(3))
        run.sink.sent.clear()
        assert process.memory_info().rss - before < 20 * 2**20


def test_every_picture_is_of_one_look_or_the_other(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path, {"on_failure": OnFailure.HOLD}) as run:  # no card, however late the engine is
        run.until(lambda: run.shows(0))
        start = len(run.sink.sent)
        run.tell(UseProfile("p3"))
        run.until(lambda: run.shows(3))
        assert {one.colour for one in run.sink.sent[start:]} <= {(245, 55, 225), (248, 55, 225)}


def test_another_engine_is_built_beside_while_the_running_one_goes_on(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path, {"on_failure": OnFailure.HOLD}) as run:
        run.until(lambda: run.shows(0))
        start = len(run.sink.sent)
        run.change_beside({"width": 128, "steps": 2})
        assert run.daemon.choice.settings.width == 128
        assert {one.colour for one in run.sink.sent[start:]} == {(245, 55, 225)}, "no card between the two"
        for bad in ({"steps": 99}, {"width": "x"}, {"policy": "none"}, {"colour": 1}, {"width": 97}):
            with pytest.raises(CommandError):
                run.tell(ChangeEngine(bad))
        assert run.daemon.choice.settings.width == 128


def test_another_source_is_taken_and_the_one_before_is_closed(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path) as run:
        run.tell(UseSource("camera:Other"))
        run.until(lambda: run.sources[0].closed == 1 and run.sources[1].index > 0)
        assert run.daemon.status().source == "camera:Other"
    assert [one.closed for one in run.sources] == [1, 1]


def test_a_switch_of_sources_closes_each_once() -> None:
    first, second, third = (FakeCamera(name) for name in "abc")
    switch = SourceSwitch(first)
    switch.use(second)
    switch.use(third)
    assert switch.name == "c"
    assert switch.read(0.1) is not None
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)
    switch.close()
    assert (first.closed, second.closed, third.closed) == (1, 1, 1)


def test_toggle_and_reload(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path) as run:
        run.tell(Toggle())
        assert run.daemon.status().state == "paused"
        run.tell(Toggle())
        run.until(lambda: run.daemon.status().state == "running")
        write_profile(run.folder, "p9", "a new prompt")
        assert "p9" not in [one["id"] for one in profile_list(run.daemon.choice)]
        run.tell(Reload())
        assert "p9" in [one["id"] for one in profile_list(run.daemon.choice)]
        texts = [one["text"] for one in run.daemon.log()]
        told = ["pause, or go on", "pause, or go on", "looks read anew"]
        assert [one for one in texts if one in told] == told


@pytest.mark.slow
def test_the_included_model_goes_on_while_looks_are_switched(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path, engine="vcam.worker.factories:core_engine", settings_of=settings_for) as run:
        run.until(lambda: run.daemon.status().fps > 0)
        for n, prompt in enumerate(("claymation", "ink drawing", "neon", "gold statue")):
            write_profile(run.folder, f"p{n}", f"{prompt}, a person talking", n)
        run.tell(Reload())
        states, start = set[str](), len(run.sink.sent)
        for n in range(8):
            before = run.daemon.status()

            def goes_on(seen: int = before.translated) -> bool:
                status = run.daemon.status()
                states.add(status.state)
                return status.translated >= seen + 3

            run.tell(UseProfile(f"p{n % 4}"))
            run.until(goes_on)
            after = run.daemon.status()
            assert after.profile == f"p{n % 4}"
            assert after.published >= before.published + 3, "each translation was published"
        assert states == {"running"}, "no card stood in"
        ticks = [one.tick for one in run.sink.sent[start:]]
        assert ticks == sorted(set(ticks)), "none twice, none late"
        assert run.daemon.status().restarts == 0
