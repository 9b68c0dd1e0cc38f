"""Switching does not stall: of many switches the last one wins, an engine is exchanged beside the running one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.settings import EngineSettings
from tests.support.doubles import SIZE, Source, write_profile
from vcam.commands import ChangeEngine, CommandError, Reload, Toggle, UseProfile, UseSource
from vcam.daemon.daemon import Daemon, Parts
from vcam.devices.source_switch import SourceSwitch
from vcam.frames import Picture
from vcam.settings.config import ObsSettings
from vcam.settings.run_options import RunOptions, settings_for
from vcam.settings.selection import listed

WAIT_S = 90.0


class Sink:
    """Keeps for which tick something was sent, and what its middle was."""

    name, size = "fake sink", SIZE

    def __init__(self) -> None:
        self.sent: list[tuple[int, tuple[int, ...]]] = []

    def send(self, picture: Picture, tick: int) -> None:
        self.sent.append((tick, tuple(int(value) for value in picture[32, 48])))

    def close(self) -> None: ...


class Running:
    """A daemon at work in a thread. options: of the run; parts: in place of the test's own."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None, **parts: Any) -> None:
        self.folder = folder / "profiles"
        self.folder.mkdir(exist_ok=True)
        for n in range(4):
            write_profile(self.folder, f"p{n}", seed=n)
        self.sink, self.stop = Sink(), threading.Event()
        self.sources: list[Source] = []
        given: dict[str, Any] = {
            "engine": "tests.support.fake_engine:make",
            "settings_of": lambda profile, options: EngineSettings(
                model="fake", width=options.width or 96, height=64, steps=options.steps or 1
            ),
        }
        self.parts = Parts(
            **(given | parts),
            open_source=self.open,
            open_sink=lambda options: self.sink,
            state_folder=lambda: folder,
            signals=False,
        )
        wished: dict[str, Any] = {"size": SIZE, "fps": 30, "panel": False, "obs": ObsSettings(enabled=False)}
        chosen = RunOptions(**(wished | (options or {})), profile="p0", profiles_folder=self.folder)
        self.daemon = Daemon(chosen, self.parts, self.stop)
        self.thread = threading.Thread(target=self.daemon.run)

    def open(self, options: RunOptions) -> Source:
        self.sources.append(Source(options.source))
        return self.sources[-1]

    def __enter__(self) -> Running:
        self.thread.start()
        until(lambda: self.daemon.status().state == "running")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)

    def tell(self, command: Any) -> None:
        self.daemon.submit(command).result(WAIT_S)

    def shows(self, seed: int) -> bool:
        return self.sink.sent[-1][1] == (245 + seed, 55, 225)


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_many_switches_the_last_one_wins(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        for n in range(60):
            run.tell(UseProfile(f"p{n % 4}"))
        run.tell(UseProfile("p2"))
        told = run.daemon.status().translated
        until(lambda: run.daemon.status().translated > told + 3 and run.shows(2))  # what was under way is over
        settled = len(run.sink.sent)
        until(lambda: len(run.sink.sent) > settled + 10)
        assert {seen for _, seen in run.sink.sent[settled:]} == {(247, 55, 225)}
        assert run.daemon.status().restarts == 0


@pytest.mark.slow
def test_ten_switches_a_second_for_a_minute_leave_the_memory_as_it_was(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        process = psutil.Process()
        for n in range(100):
            run.tell(UseProfile(f"p{n % 4}"))
        before = process.memory_info().rss
        for n in range(600):
            run.tell(UseProfile(f"p{n % 4}"))
            time.sleep(0.1)
        until(lambda: run.shows(3))
        run.sink.sent.clear()
        assert process.memory_info().rss - before < 20 * 2**20


def test_every_picture_is_of_one_look_or_the_other(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        until(lambda: run.shows(0))
        start = len(run.sink.sent)
        run.tell(UseProfile("p3"))
        until(lambda: run.shows(3))
        assert {seen for _, seen in run.sink.sent[start:]} <= {(245, 55, 225), (248, 55, 225)}


def test_another_engine_is_built_beside_while_the_running_one_goes_on(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        until(lambda: run.shows(0))
        start = len(run.sink.sent)
        run.tell(ChangeEngine({"width": 128, "steps": 2}))
        assert run.daemon.choice.settings.width == 128
        until(lambda: run.daemon.status().notes)  # "preparing ..."
        until(lambda: not run.daemon.status().notes)
        assert {seen for _, seen in run.sink.sent[start:]} == {(245, 55, 225)}, "no card between the two"
        for bad in ({"steps": 99}, {"width": "x"}, {"policy": "none"}, {"colour": 1}, {"width": 97}):
            with pytest.raises(CommandError):
                run.tell(ChangeEngine(bad))
        assert run.daemon.choice.settings.width == 128


def test_another_source_is_taken_and_the_one_before_is_closed(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        run.tell(UseSource("camera:Other"))
        until(lambda: run.sources[0].closed == 1 and run.sources[1].index > 0)
        assert run.daemon.status().source == "camera:Other"
    assert [one.closed for one in run.sources] == [1, 1]


def test_a_switch_of_sources_closes_each_once() -> None:
    first, second, third = (Source(name) for name in "abc")
    switch = SourceSwitch(first)
    switch.use(second)
    switch.use(third)
    assert switch.name == "c"
    assert switch.read(0.1) is not None
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)
    switch.close()
    assert (first.closed, second.closed, third.closed) == (1, 1, 1)


def test_toggle_and_reload(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        run.tell(Toggle())
        assert run.daemon.status().state == "paused"
        run.tell(Toggle())
        until(lambda: run.daemon.status().state == "running")
        write_profile(run.folder, "p9", "a new prompt")
        assert "p9" not in [one["id"] for one in listed(run.daemon.choice)]
        run.tell(Reload())
        assert "p9" in [one["id"] for one in listed(run.daemon.choice)]
        texts = [one["text"] for one in run.daemon.log()]
        assert [one for one in texts if one in ("toggle", "reload")] == ["toggle", "toggle", "reload"]


@pytest.mark.slow
def test_the_included_model_goes_on_while_looks_are_switched(tmp_path: Path) -> None:
    with Running(tmp_path, engine="vcam.worker.factories:core_engine", settings_of=settings_for) as run:
        until(lambda: run.daemon.status().fps > 0)
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
            until(goes_on)
            after = run.daemon.status()
            assert after.profile == f"p{n % 4}"
            assert after.published >= before.published + 3, "each translation was published"
        assert states == {"running"}, "no card stood in"
        ticks = [tick for tick, _ in run.sink.sent[start:]]
        assert ticks == sorted(set(ticks)), "none twice, none late"
        assert run.daemon.status().restarts == 0
