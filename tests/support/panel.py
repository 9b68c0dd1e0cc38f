"""The page in a real Chromium: a camera with a fake engine behind it, and hands and eyes for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from core.settings import EngineSettings
from tests.support.fake_camera import FakeCamera
from tests.support.fake_engine import FACTORY
from tests.support.microphone_program import COMMAND
from tests.support.patience import until
from tests.support.pictures import SIZE
from tests.support.profile_files import write_profile
from tests.support.running_daemon import RunningDaemon
from vcam.daemon.daemon import RunParts
from vcam.devices.microphone import MicrophoneProcess
from vcam.devices.sinks import NullSink
from vcam.frames import FrameSink, FrameSource
from vcam.settings.config import ObsSettings, RecordSettings
from vcam.settings.run_options import RunOptions
from vcam.worker.limits import LIMITS, Limits

NAMES = {"auto": "fake camera", "pattern": "test picture"}
FACE = (245, 55, 225)  # what the fake engine makes of the fake camera's picture


class WatchedSink(NullSink):
    """A virtual camera that programs can look at: readers are their names."""

    name, how = "StreamV2V Camera (/dev/video9)", "the test"

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.readers: list[str] = []

    def count(self) -> int:
        return len(self.readers)

    def names(self) -> list[str]:
        return self.readers


class PanelCamera(RunningDaemon):
    """A daemon with a fake engine, and the browser's way into it.

    watched: its sink is a camera that can be watched; sink: one of the test's own. limits: of its engine, whose model
    is `model`. wished: fields of RunOptions.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        watched: bool = False,
        sink: FrameSink | None = None,
        limits: Limits = LIMITS,
        model: str = "embedded",
        asked_sink: str = "auto",
        **wished: Any,
    ) -> None:
        self.profiles = folder / "profiles"
        self.profiles.mkdir(exist_ok=True)
        for id in ("plain", "wild"):
            write_profile(self.profiles, id)
        self.sink = sink or (WatchedSink(SIZE) if watched else NullSink(SIZE))
        self.source: FakeCamera | None = None

        def settings_of(profile: Any, options: RunOptions) -> EngineSettings:
            given: dict[str, Any] = {"width": 96, "height": 64, "steps": 1} | options.engine.given()
            given.pop("preset", None)
            return EngineSettings(model=model, **given)

        parts = RunParts(
            engine=FACTORY,
            settings_of=settings_of,
            open_source=self._open_source,
            open_sink=lambda options: self.sink,
            open_microphone=lambda name, say: MicrophoneProcess("sine", say, COMMAND),
            watch_sink=lambda sink: sink if isinstance(sink, WatchedSink) else None,
            state_folder=lambda: folder,
            thumbnails_folder=lambda: folder / "thumbnails",
            limits=limits,
            signals=False,
        )
        usual: dict[str, Any] = {
            "size": SIZE,
            "sink": asked_sink,
            "port": port,
            "fps": 15,
            "idle_after_s": 0,
            "profile": "plain",
            "profiles_folder": self.profiles,
            "obs": ObsSettings(enabled=False),
            "record": RecordSettings(str(folder / "videos")),
        }
        super().__init__(RunOptions(**(usual | wished)), parts)
        self.folder = folder

    def _open_source(self, options: RunOptions) -> FrameSource:
        self.source = FakeCamera(NAMES[options.source], pause_s=0.03)
        return self.source

    @property
    def status(self) -> Any:
        return self.daemon.status()

    def link(self) -> str:
        from vcam import client

        return client.panel_link(self.folder)

    def start(self) -> PanelCamera:
        self.thread.start()
        until(lambda: self.status.state == "running", "the camera does not run")
        return self


def enter(driver: Any, camera: PanelCamera) -> None:
    """Open the page and wait for it."""
    driver.get(camera.link())
    until(lambda: text(driver, "state-text") == "Live", "the page does not connect")
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, ".use")) >= 2, "no looks are shown")


def by(driver: Any, id: str) -> Any:
    return driver.find_element(By.ID, id)


def text(driver: Any, id: str) -> str:
    return str(driver.execute_script("return document.getElementById(arguments[0])?.textContent ?? ''", id))


def press(driver: Any, *keys: str) -> None:
    for key in keys:  # as a keyboard does, wherever the focus is: a field for files takes no keys by its own way
        ActionChains(driver).send_keys(key).perform()


def leave_fields(driver: Any) -> None:
    driver.execute_script("document.activeElement.blur()")


def fill(driver: Any, id: str, value: str) -> None:
    field = by(driver, id)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(value)


def slide(driver: Any, id: str, value: float) -> None:
    """Move a slider and let it go."""
    script = """const slider = document.getElementById(arguments[0]); slider.value = arguments[1];
        for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));"""
    driver.execute_script(script, id, value)


def click(driver: Any, selector: str) -> None:
    def clicked() -> bool:
        try:
            driver.find_element(By.CSS_SELECTOR, selector).click()
        except (NoSuchElementException, StaleElementReferenceException):  # the list is drawn anew meanwhile
            return False
        return True

    until(clicked, f"no {selector} to click on")


def use(driver: Any, id: str) -> None:
    click(driver, f'button[data-profile="{id}"]')


def choose(driver: Any, id: str, value: str) -> None:
    until(lambda: driver.find_elements(By.CSS_SELECTOR, f'#{id} option[value="{value}"]'), f"no {value} in {id}")
    by(driver, id).send_keys("")  # has the focus, as for a hand that chooses: its options stay as they are
    driver.find_element(By.CSS_SELECTOR, f'#{id} option[value="{value}"]').click()


def pixel(driver: Any, id: str) -> list[int]:
    """The middle pixel of an image as the browser shows it."""
    script = """const i = document.getElementById(arguments[0]), c = document.createElement("canvas");
        if (!i.naturalWidth) return [];
        c.width = i.naturalWidth; c.height = i.naturalHeight; const p = c.getContext("2d"); p.drawImage(i, 0, 0);
        return [...p.getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3)"""
    return list(driver.execute_script(script, id))


def near(found: list[int], wanted: tuple[int, int, int]) -> bool:
    return len(found) == 3 and all(abs(one - two) < 12 for one, two in zip(found, wanted, strict=True))


def grid(driver: Any) -> list[list[int]]:
    """Nine points of the published picture as the browser shows it."""
    script = """const i = document.getElementById("picture"), c = document.createElement("canvas");
        if (!i.naturalWidth) return [];
        c.width = i.naturalWidth; c.height = i.naturalHeight; const p = c.getContext("2d"); p.drawImage(i, 0, 0);
        return [1, 2, 3].flatMap((y) => [1, 2, 3].map((x) =>
            [...p.getImageData(x * c.width / 4, y * c.height / 4, 1, 1).data].slice(0, 3)))"""
    return list(driver.execute_script(script))


def shows_the_published(page: Any, camera: PanelCamera) -> bool:
    published, (width, height) = camera.daemon.preview.astype(int), SIZE
    wanted = [published[y * height // 4, x * width // 4] for y in (1, 2, 3) for x in (1, 2, 3)]
    found = grid(page)
    return len(found) == 9 and all(
        abs(int(one) - int(two)) < 40
        for mine, theirs in zip(found, wanted, strict=True)
        for one, two in zip(mine, theirs, strict=True)
    )


_COUNT = """const [wanted, only] = arguments, uncovered = document.getElementById("veil").hidden;
    const shown = (one) => one.checkVisibility() && (uncovered || !one.closest("#screen"));
    const images = [...document.images].filter((one) => only ? one.id === only : shown(one));
    let count = 0;
    for (const image of images.filter((one) => one.naturalWidth)) {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const paper = canvas.getContext("2d");
        paper.drawImage(image, 0, 0);
        const all = paper.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let n = 0; n < all.length; n += 4) count += wanted.every((one, k) => Math.abs(all[n + k] - one) < 12);
    }
    return count"""


def face_pixels(driver: Any) -> int:
    """How many pixels of all pictures that are to be seen have the colour that the fake engine makes of the camera's.

    By the pictures themselves: Chromium hangs now and then where it is asked for what a window shows of a live one.
    """
    return int(driver.execute_script(_COUNT, FACE, ""))


def face_pixels_of_picture(driver: Any) -> int:
    """The same of the published picture itself, whatever lies over it."""
    return int(driver.execute_script(_COUNT, FACE, "picture"))


def as_device(driver: Any, width: int, height: int, scheme: str = "light") -> None:
    """Show the page in a window of that size, light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)


def axe_findings(driver: Any) -> list[tuple[str, list[str]]]:
    """What axe holds for serious or critical, by its name, and where."""
    axe = pytest.importorskip("axe_core_python", reason="axe is not installed")
    driver.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = driver.execute_async_script("const done = arguments[0]; axe.run().then(done, (e) => done(String(e)))")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious]
