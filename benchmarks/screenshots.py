"""Pictures of the page in every state in which a user meets it, and what axe finds there.

    python benchmarks/screenshots.py OUT [--only panic,desktop-dark] [--source FILM] [--docs docs]

A camera of its own (`vcam run`, the test picture, the included model, empty folders) is shown by Chromium
(selenium), on a desktop and on a phone, light and dark: the first start, running, with everything open, the keys, the
editor, recording, paused, panic, the engine gone (killed until it is given up), the camera gone (killed). Writes
OUT/STATE-SHAPE-SCHEME.png, each the whole page, for eyes; prints a line each with axe's serious and critical findings
(of axe-core-python, where it is installed). --docs: the folder that gets those of PICTURES, each as much of it as the
window shows. Exit status 1 if there is one, or if anything is wider than its window.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import psutil  # noqa: E402  the path first

from vcam import client  # noqa: E402
from vcam.commands import EndRecording, Panic, Pause, Resume, StartRecording, UseMicrophone  # noqa: E402
from vcam.errors import VcamError  # noqa: E402

SHAPES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
PICTURES = {
    "running-desktop-light": ("page", 790),
    "first-desktop-light": ("page-first", 265),
    "panic-phone-light": ("page-panic", 844),
}
"""Which of them the documentation shows: name there, and how many rows of it."""
WAIT_S = 300.0


def until(true: Callable[[], object], what: str) -> None:
    """Wait for a fact. Raises SystemExit."""
    end_s = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > end_s:
            raise SystemExit(f"not in {WAIT_S:.0f} s: {what}")
        time.sleep(0.1)


class Camera:
    """A `vcam run` of this checkout with folders of its own."""

    def __init__(self, folder: Path, source: str) -> None:
        self.state = folder / "state"
        names = {name: str(folder / name.lower()) for name in ("STATE", "CONFIG", "LOG", "MODELS", "ENGINES")}
        environment = os.environ | {f"VCAM_{name}_FOLDER": path for name, path in names.items()}
        path = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))  # so it is called `vcam`
        environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "PATH": path}
        command = [sys.executable, "-P", "-m", "vcam", "run", "--source", source]
        command += ["--port", "0", "--fps", "10"]
        self.process = subprocess.Popen(command, cwd=folder, env=environment)
        until(lambda: self._answers() and client.status(self.state).state == "running", "the camera shows a picture")

    def _answers(self) -> bool:
        with contextlib.suppress(VcamError):
            client.status(self.state)
            return True
        return False

    def send(self, command: Any, state: str) -> None:
        """Have it do that, and wait until it is so."""
        client.send(command, self.state)
        until(lambda: client.status(self.state).state == state, state)

    def lose_its_engine(self) -> None:
        """Kill its engine as often as it is started."""
        while (status := client.status(self.state)).state != "failed":
            if status.engine_pid is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(status.engine_pid).kill()
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and what it started, as no program expects it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, for as long as it is needed."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver: Any = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.command_executor.client_config.timeout = int(WAIT_S)
    driver.set_page_load_timeout(WAIT_S)
    driver.set_script_timeout(WAIT_S)
    try:
        yield driver
    finally:
        driver.quit()


class Eyes:
    """Looks at the page in every shape and scheme. only: names of states, or SHAPE-SCHEME; empty for all."""

    def __init__(self, driver: Any, out: Path, only: Sequence[str]) -> None:
        self._driver, self._out, self._only = driver, out, only
        self.faults = 0
        self._axe = ""
        if (axe := importlib.util.find_spec("axe_core_python")) is not None and axe.origin is not None:
            self._axe = (Path(axe.origin).parent / "axe.min.js").read_text()

    def look(self, state: str, before: str = "") -> None:
        """Write the pictures of this state and print what is wrong; before: a script that makes it so."""
        for shape, (width, height) in SHAPES.items():
            for scheme in SCHEMES:
                if self._only and not {state, f"{shape}-{scheme}"} & set(self._only):
                    continue
                self._be(width, height, scheme)
                self._driver.execute_script(before)
                time.sleep(0.5)  # what is drawn by the picture that comes next
                wrong = self._wrong(width)
                whole = int(self._driver.execute_script("return document.documentElement.scrollHeight"))
                self._be(width, max(height, whole), scheme)
                time.sleep(0.3)
                self._keep(self._out / f"{state}-{shape}-{scheme}.png")
                print(f"{state} {shape} {scheme}: {'; '.join(wrong) or 'nothing serious'}", flush=True)
                self.faults += len(wrong)

    def _keep(self, path: Path) -> None:
        from selenium.common.exceptions import TimeoutException

        for left in reversed(range(10)):
            try:
                self._driver.save_screenshot(str(path))
                return
            except TimeoutException:  # of chromedriver itself, on a busy machine
                if not left:
                    raise

    def _be(self, width: int, height: int, scheme: str) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def _wrong(self, width: int) -> list[str]:
        wide = int(self._driver.execute_script("return document.documentElement.scrollWidth"))
        wrong = [] if wide <= width else [f"{wide} wide"]
        if not self._driver.execute_script("return document.styleSheets.length === 2"):
            wrong.append("a style sheet is missing")
        if not self._axe:
            return wrong
        self._driver.execute_script(self._axe)
        run = (
            "const done = arguments[0]; axe.run().then(done, (error) => done({ violations: [], error: String(error) }))"
        )
        found = self._driver.execute_async_script(run)
        if "error" in found:
            return [*wrong, found["error"]]
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        return wrong + [f"{one['id']} at {one['nodes'][0]['html'][:100]}" for one in serious]


def look_everywhere(eyes: Eyes, driver: Any, camera: Camera) -> None:
    """Take the page through its states."""
    is_now = "return document.getElementById('state').dataset.state"

    def until_drawn(state: str) -> None:
        until(lambda: driver.execute_script(is_now) == state, f"the page is {state}")

    close = "for (const one of document.querySelectorAll('dialog')) one.close();"
    driver.get(client.panel_link(camera.state))
    until_drawn("running")
    time.sleep(3)  # pictures, looks and figures come
    eyes.look("first")
    driver.execute_script("document.getElementById('first-done').click()")
    eyes.look("running")
    driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    eyes.look("open")
    eyes.look("keys", f"{close} document.getElementById('help').click()")
    eyes.look("editor", f"{close} document.getElementById('edit').click()")
    driver.execute_script(close + "for (const one of document.querySelectorAll('main details')) one.open = false")
    camera.send(UseMicrophone(True), "running")
    camera.send(StartRecording(), "running")
    eyes.look("recording")
    camera.send(EndRecording(), "running")
    for state, command in (("paused", Pause()), ("panic", Panic())):
        camera.send(command, state)
        until_drawn(state)
        eyes.look(state)
        camera.send(Resume(), "running")
    camera.lose_its_engine()
    until_drawn("failed")
    eyes.look("engine-gone")
    camera.kill()
    until_drawn("gone")
    eyes.look("camera-gone")


def keep_for_docs(out: Path, docs: Path) -> None:
    """Write those of PICTURES that were taken, as WebP."""
    for taken, (name, rows) in PICTURES.items():
        picture = cv2.imread(str(out / f"{taken}.png"))
        if picture is not None:
            cv2.imwrite(str(docs / f"{name}.webp"), picture[:rows], [cv2.IMWRITE_WEBP_QUALITY, 86])


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--source", default="pattern", help="a film of one picture a second is kind to a busy machine")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, browser() as driver:
        camera = Camera(Path(folder), given.source)
        try:
            eyes = Eyes(driver, given.out.absolute(), [one for one in given.only.split(",") if one])
            look_everywhere(eyes, driver, camera)
        finally:
            camera.kill()
    if given.docs is not None:
        keep_for_docs(given.out, given.docs)
    return 1 if eyes.faults else 0


if __name__ == "__main__":
    sys.exit(main())
