"""The tray: what it shows of a status; its menu with Qt's offscreen platform; a real host where a lab has one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import patience
from tests.support.controlled_daemon import ControlledDaemon
from vcam.commands import Command, Panic, Resume, Snapshot, Status, Stop, Toggle, ToggleRecording, UseProfile
from vcam.errors import VcamError
from vcam.tray.model import GONE, Light, View, view

ROOT = Path(__file__).parents[3]
PROFILES = [{"id": "ink", "name": "Ink"}, {"id": "rock", "name": "Rock & Roll"}]
RUNNING = Status(state="running", profile="ink", profile_name="Ink", fps=12.4)


@pytest.mark.parametrize(
    ("status", "light", "line", "on"),
    [
        (RUNNING, Light.LIVE, "Ink, 12 fps", True),
        (replace(RUNNING, notes=("the model does not know: xyz",)), Light.LIVE, "Ink, 12 fps: the model does", True),
        (replace(RUNNING, state="paused"), Light.RESTING, "Paused", False),
        (replace(RUNNING, state="panic"), Light.TROUBLE, "Panic: nothing is shown", False),
        (replace(RUNNING, state="failed", reason="out of memory"), Light.TROUBLE, "Failed: out of memory", True),
        (replace(RUNNING, state="waiting", reason="camera unplugged"), Light.BUSY, "Waiting: camera unplugged", True),
        (Status(), Light.BUSY, "Starting", True),
    ],
)
def test_the_view_says_what_is_going_on(status: Status, light: Light, line: str, on: bool) -> None:
    shown = view(status, PROFILES)
    assert (shown.light, shown.on, shown.alive) == (light, on, True)
    assert shown.line.startswith(line)
    assert [one.current for one in shown.profiles] == [status.profile == "ink", False]


class Daemon:
    """What the tray asks and tells; may be gone."""

    def __init__(self) -> None:
        self.view: View | None = view(RUNNING, PROFILES)
        self.told: list[Command] = []

    def ask(self) -> View:
        if self.view is None:
            raise VcamError("no camera runs")
        return self.view

    def tell(self, command: Command) -> None:
        if self.view is None:
            raise VcamError("no camera runs")
        self.told.append(command)


@pytest.fixture(scope="module")
def qt() -> Any:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    try:
        from PySide6.QtWidgets import QApplication
    except ImportError as error:
        pytest.skip(f"PySide6 cannot be loaded: {error}")
    return QApplication.instance() or QApplication([])


@pytest.fixture
def tray(qt: Any) -> Iterator[tuple[Any, Daemon]]:
    from vcam.tray.app import CameraClient, Tray

    daemon = Daemon()
    camera = CameraClient(daemon.ask, daemon.tell)
    yield Tray(camera, lambda: daemon.told.append(Stop()), lambda: None), daemon
    camera.close()


def until(qt: Any, true: Callable[[], object]) -> None:
    def meanwhile() -> None:
        qt.processEvents()
        patience.pause()

    patience.until(true, meanwhile=meanwhile)


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), OSError(28, "full"), KeyError("state")])
def test_what_nobody_foresaw_costs_one_look_and_one_command(error: Exception) -> None:
    pytest.importorskip("PySide6", reason="the tray's library is not installed")
    from vcam.tray.app import CameraClient

    def fails(*_: object) -> Any:
        raise error

    camera = CameraClient(fails, fails)
    camera.view = view(RUNNING, PROFILES)
    camera.tell(Panic())
    patience.until(lambda: camera.refusals and camera.view is GONE)
    assert f"Panic failed ({type(error).__name__}" in camera.refusals[0]
    camera._fetch, camera._send = lambda: view(RUNNING, PROFILES), lambda command: None
    patience.until(lambda: camera.view.alive)
    camera.close()


def test_the_menu_shows_the_camera_and_commands_it(qt: Any, tray: tuple[Any, Daemon]) -> None:
    icon, daemon = tray
    until(qt, lambda: icon.view.alive)
    assert icon.menu.line.text() == "Ink, 12 fps"
    names = [(one.text(), one.isChecked()) for one in icon.menu.profiles.actions()]
    assert names == [("Ink", True), ("Rock && Roll", False)]
    icon.menu.profiles.actions()[1].trigger()
    icon.menu.on.trigger()
    icon.menu.panic.trigger()
    until(qt, lambda: len(daemon.told) == 3)
    assert set(daemon.told) == {UseProfile("rock"), Toggle(), Panic()}
    daemon.view = view(replace(RUNNING, state="panic", profile="rock"), PROFILES)
    until(qt, lambda: icon.view.panic and icon.menu.panic.isChecked() and not icon.menu.on.isChecked())
    assert [one.isChecked() for one in icon.menu.profiles.actions()] == [False, True]
    icon.menu.panic.trigger()
    until(qt, lambda: Resume() in daemon.told)
    icon.menu.record.trigger()
    icon.menu.snapshot.trigger()
    until(qt, lambda: {ToggleRecording(), Snapshot()} <= set(daemon.told))
    daemon.view = view(replace(RUNNING, recording="/videos/a.mp4"), PROFILES)
    until(qt, lambda: icon.menu.record.isChecked())


def test_it_lives_through_the_cameras_end_and_start(qt: Any, tray: tuple[Any, Daemon]) -> None:
    icon, daemon = tray
    until(qt, lambda: icon.view.alive)
    daemon.view = None
    until(qt, lambda: icon.view == GONE)
    assert icon.menu.line.text() == "The camera is not running"
    assert not icon.menu.on.isEnabled()
    assert icon.menu.quit.isEnabled()
    daemon.view = view(RUNNING, PROFILES)
    until(qt, lambda: icon.view.alive and icon.menu.on.isEnabled())


def test_the_icon_has_the_colour_of_the_state(qt: Any) -> None:
    from vcam.tray.app import drawn

    for light in Light:
        middle = drawn(light).pixmap(64, 64).toImage().pixelColor(38, 38).name()
        assert middle == light.value


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_no_display_is_said_in_a_line(qt: Any) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-m", "vcam", "tray"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience.PATIENCE_S,
    )
    assert done.returncode == 1
    assert "there is no display" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_asks_the_real_server(qt: Any, tmp_path: Path) -> None:
    from vcam.control.server import Server
    from vcam.tray.app import asked

    with pytest.raises(VcamError):
        asked(tmp_path)
    with Server(ControlledDaemon(), 0, tmp_path):
        shown = asked(tmp_path)
    assert (shown.alive, shown.light, [one.id for one in shown.profiles]) == (True, Light.LIVE, ["ink"])
