"""The tray icon in real hosts: asked and clicked over D-Bus (StatusNotifierItem), seen and clicked in an X11 tray."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from tests.support.patience import until
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import UseProfile
from vcam.settings.selection import profile_list
from vcam.tray.model import Light

pytestmark = [
    pytest.mark.tray,
    pytest.mark.skipif(sys.platform != "linux", reason="these hosts are Linux's"),
]
ROOT = Path(__file__).parents[2]
NOT_RUNNING = "The camera is not running"


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, ended at the latest with the block."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def host() -> Iterator[subprocess.Popen[str]]:
    """A StatusNotifierItem host."""
    command = [os.environ["TRAY_PROBE"], "serve"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout
        assert process.stdout.readline()  # that it serves, or that an icon is there already
        yield process


def probe(*verb: str, wait_s: float = 0) -> str | None:
    """What the host answers; None where there is no icon."""
    environment = os.environ | {"TRAY_WAIT": str(wait_s)}
    command = [os.environ["TRAY_PROBE"], *verb]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout if done.returncode == 0 else None


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (probe("list") or "").splitlines()]


def menu() -> dict[str, Any]:
    """The entries of the icon's menu by their labels; the first, which is the status, as "line"."""
    entries = json.loads(probe("menu") or "{}").get("items", [])
    return {("line" if n == 0 else one["label"]): one for n, one in enumerate(entries) if not one.get("separator")}


def line() -> str:
    return str(menu().get("line", {}).get("label", ""))


def click(*entry: str) -> None:
    assert probe("click", *entry, wait_s=10) is not None, f"{entry} cannot be clicked"


def marked() -> list[str]:
    return [one["label"] for one in menu().get("Profile", {}).get("items", []) if one["checked"]]


def colour(folder: Path) -> str:
    """The colour in the middle of the icon."""
    if probe("icon", str(folder / "icon.ppm")) is None:
        return ""
    picture = cv2.imread(str(folder / "icon.ppm"))
    assert picture is not None
    height, width = picture.shape[:2]
    blue, green, red = picture[height * 38 // 64, width * 38 // 64]
    return f"#{red:02x}{green:02x}{blue:02x}"


class Tray:
    """Starts `vcam tray` for the cameras of a folder; a "browser" writes down what it is to open."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.opened = folder / "opened"
        browser = folder / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" >>"{self.opened}"\n')
        browser.chmod(0o755)
        self.environment = os.environ | {
            "VCAM_STATE_FOLDER": str(folder),
            "QT_QPA_PLATFORM": "xcb",  # another test of this process may have set it to offscreen
            "BROWSER": f"{browser} %s",
        }

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vcam", "tray"]
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True)
        return self.stack.enter_context(ended(process))


def camera(folder: Path) -> SwitchedDaemon:
    return SwitchedDaemon(folder, {"panel": True, "port": 0})


@pytest.fixture
def tray(tmp_path: Path) -> Iterator[Tray]:
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 cannot be loaded")
    with ExitStack() as stack:
        yield Tray(tmp_path, stack)


def test_every_entry_does_what_it_says(tray: Tray, tmp_path: Path) -> None:
    with host(), camera(tmp_path) as run:
        process = tray.start()
        until(lambda: line().startswith("P0, "), "the running camera is not shown")
        (item,) = items()
        assert "StreamV2V Camera" in item["tooltip"] or "StreamV2V Camera" in item["title"]
        kept = ["Record", "Record with the microphone", "Keep a picture"]
        entries = ["On", "Profile", "Panic: show nothing", *kept, "Open panel", "End the camera", "Quit this icon"]
        assert list(menu())[1:] == entries
        names = [one["name"] for one in profile_list(run.daemon.choice)]
        assert {"P0", "P3", "Claymation"} <= set(names)
        assert [one["label"] for one in menu()["Profile"]["items"]] == names
        assert marked() == ["P0"]
        assert colour(tmp_path) == Light.LIVE

        click("Profile", "P2")
        until(lambda: run.daemon.status().profile == "p2", "the click switched nothing")
        until(lambda: marked() == ["P2"], "the current profile has no mark")
        run.tell(UseProfile("p1"))
        until(lambda: marked() == ["P1"], "a switch made elsewhere is not shown")

        click("On")
        until(lambda: run.daemon.status().state == "paused", "On does not pause")
        until(lambda: not menu()["On"]["checked"] and line() == "Paused", "the pause is not shown")
        assert colour(tmp_path) == Light.RESTING
        click("On")
        until(lambda: run.daemon.status().state == "running" and menu()["On"]["checked"], "On does not resume")

        click("Panic: show nothing")
        until(lambda: run.daemon.status().state == "panic", "no panic")
        until(lambda: menu()["Panic: show nothing"]["checked"], "the panic is not shown")
        assert colour(tmp_path) == Light.TROUBLE
        click("Panic: show nothing")
        until(lambda: run.daemon.status().state == "running", "no way back from panic")

        click("Open panel")
        until(tray.opened.exists, "no browser was asked to open the panel")
        assert_opens(tray.opened.read_text().strip())

        click("Quit this icon")
        assert process.wait(30) == 0
        until(lambda: not items(), "the icon is still there")
        assert run.thread.is_alive(), "the camera does not end with its icon"


def assert_opens(link: str) -> None:
    """The link leads to the page."""
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    assert answer.status == 200, (link, answer.status)
    assert "enter.js" in answer.read().decode()  # which puts the page's key into the browser, and goes on to the page
    assert "Set-Cookie" not in answer.headers  # a cookie would go to every port of this machine


def test_the_camera_may_end_and_start(tray: Tray, tmp_path: Path) -> None:
    with host():
        tray.start()
        until(lambda: line() == NOT_RUNNING, "no icon without a camera")
        assert [label for label, one in menu().items() if one.get("enabled", True)] == ["Quit this icon"]
        for _ in range(2):
            with camera(tmp_path) as run:
                until(lambda: line().startswith("P0, "), "the camera is not found")
                click("Profile", "P3")
                until(lambda run=run: run.daemon.status().profile == "p3", "the click switched nothing")  # type: ignore[misc]
                click("End the camera")
                run.thread.join(30)
                assert not run.thread.is_alive()
            until(lambda: line() == NOT_RUNNING, "the end of the camera is not shown")
            assert colour(tmp_path) == Light.RESTING


def test_the_icon_may_be_killed_and_started_again(tray: Tray, tmp_path: Path) -> None:
    with host(), camera(tmp_path) as run:
        for profile in ("p1", "p2"):
            process = tray.start()
            until(lambda: line().startswith("P"), "no icon")
            click("Profile", profile.upper())
            until(lambda profile=profile: run.daemon.status().profile == profile, "the click switched nothing")  # type: ignore[misc]
            process.kill()
            until(lambda: not items(), "the killed icon is still there")
        assert run.daemon.status().state == "running"


def test_the_host_may_be_killed_and_started_again(tray: Tray, tmp_path: Path) -> None:
    with camera(tmp_path) as run:
        with host():
            process = tray.start()
            until(lambda: line().startswith("P0, "), "no icon")
        for profile in ("p1", "p2"):
            with host():
                until(lambda: line().startswith("P"), "no icon in the new host")
                click("Profile", profile.upper())
                until(lambda profile=profile: run.daemon.status().profile == profile, "the click switched nothing")  # type: ignore[misc]
        assert process.poll() is None


def test_without_a_host_it_waits_for_one(tray: Tray, tmp_path: Path) -> None:
    with camera(tmp_path):
        process = tray.start()
        assert process.stderr
        assert "shows no tray icons yet; waiting for it" in process.stderr.readline()
        assert process.poll() is None
        with host():
            until(lambda: line().startswith("P0, "), "no icon in the host that came later")
    waiting = tray.start()
    assert waiting.stderr
    assert "waiting for it" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(30) == 0


# ---------------------------------------------------------------- an X11 tray (XEmbed)


@contextmanager
def x11_host() -> Iterator[None]:
    command = ["trayer", "--edge", "top", "--align", "right", "--widthtype", "request", "--height", "32"]
    with ended(subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)):
        yield


def screen(folder: Path) -> np.ndarray[Any, Any]:
    """The whole display, RGB."""
    path = folder / "screen.png"
    subprocess.run(["import", "-window", "root", str(path)], check=True, timeout=60)
    picture = cv2.imread(str(path))
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def place(folder: Path, light: Light) -> tuple[int, int] | None:
    """Where on the display this light is: x, y of its middle."""
    wanted = np.array([int(light[n : n + 2], 16) for n in (1, 3, 5)])
    ys, xs = np.nonzero((np.abs(screen(folder).astype(int) - wanted) < 6).all(axis=2))
    return (int(xs.mean()), int(ys.mean())) if len(xs) > 40 else None


def choose(at: tuple[int, int], *keys: str) -> None:
    """Opens the icon's menu with the right button, and goes through it with the keys."""
    subprocess.run(["xdotool", "mousemove", *map(str, at), "click", "3", "sleep", "1"], check=True, timeout=30)
    subprocess.run(["xdotool", "key", "--delay", "200", *keys], check=True, timeout=30)


@pytest.mark.skipif(not all(map(shutil.which, ("trayer", "xdotool", "import"))), reason="no trayer, xdotool, import")
def test_an_x11_tray_shows_it_too(tray: Tray, tmp_path: Path) -> None:
    with camera(tmp_path) as run:
        with x11_host():
            tray.start()
            until(lambda: place(tmp_path, Light.LIVE), "no icon in the tray")
            at = place(tmp_path, Light.LIVE)
            assert at
            choose(at, "Down", "Return")  # On: the first entry that can be chosen
            until(lambda: run.daemon.status().state == "paused", "the menu does not pause")
            until(lambda: place(tmp_path, Light.RESTING), "the icon does not show the pause")
            choose(at, "Down", "Return")
            until(lambda: run.daemon.status().state == "running", "the menu does not resume")
        with x11_host():
            until(lambda: place(tmp_path, Light.LIVE), "no icon in the tray that came later")
