"""The panel in a real Chromium: every control does what it says, by keyboard too; strangers get nothing."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.settings import EngineSettings
from tests.support.fake_camera import FakeCamera
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S, until
from tests.support.pictures import SIZE
from tests.support.profile_files import write_profile
from tests.support.running_daemon import RunningDaemon
from vcam.daemon.daemon import RunParts
from vcam.devices.sinks import NullSink
from vcam.settings.config import ObsSettings
from vcam.settings.run_options import RunOptions

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.browser
NAMES = {"auto": "fake camera", "pattern": "test picture"}


class Camera(RunningDaemon):
    """A daemon with a fake engine, and the browser's way into it."""

    def __init__(self, folder: Path) -> None:
        self.profiles = folder / "profiles"
        self.profiles.mkdir()
        for id in ("plain", "wild"):
            write_profile(self.profiles, id)

        def settings_of(profile: Any, options: RunOptions) -> EngineSettings:
            given: dict[str, Any] = {"width": 96, "height": 64, "steps": 1} | options.engine.given()
            given.pop("preset", None)
            return EngineSettings(model="embedded", **given)

        parts = RunParts(
            engine=FACTORY,
            settings_of=settings_of,
            open_source=lambda options: FakeCamera(NAMES[options.source], pause_s=0.03),
            open_sink=lambda options: NullSink(SIZE),
            state_folder=lambda: folder,
            thumbnails_folder=lambda: folder / "thumbnails",
            signals=False,
        )
        options = RunOptions(
            size=SIZE,
            port=0,
            fps=15,
            profile="plain",
            profiles_folder=self.profiles,
            obs=ObsSettings(enabled=False),
        )
        super().__init__(options, parts)
        self.folder = folder

    @property
    def status(self) -> Any:
        return self.daemon.status()

    def link(self) -> str:
        from vcam import client

        return client.panel_link(self.folder)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Camera]:
    camera = Camera(tmp_path_factory.mktemp("panel"))
    camera.thread.start()
    until(lambda: camera.status.state == "running", "the camera does not run")
    yield camera
    camera.end()


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1100"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(PATIENCE_S)
    driver.set_script_timeout(PATIENCE_S)
    yield driver
    driver.quit()


@pytest.fixture
def page(camera: Camera, driver: Any) -> Any:
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.get(camera.link())
    until(lambda: text(driver, "state-text") == "Running", "the panel does not connect")
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, ".use")) >= 2, "no profiles are shown")
    return driver


def by(driver: Any, id: str) -> Any:
    return driver.find_element(By.ID, id)


def text(driver: Any, id: str) -> str:
    return str(driver.execute_script("return document.getElementById(arguments[0])?.textContent ?? ''", id))


def press(driver: Any, *keys: str) -> None:
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def fill(driver: Any, id: str, value: str) -> None:
    field = by(driver, id)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(value)


def click(driver: Any, selector: str) -> None:
    def clicked() -> bool:
        try:
            driver.find_element(By.CSS_SELECTOR, selector).click()
        except StaleElementReferenceException:  # the list was drawn anew between the two
            return False
        return True

    until(clicked, f"no {selector} to click on")


def use(driver: Any, id: str) -> None:
    click(driver, f'button[data-profile="{id}"]')


def pixel(driver: Any, id: str) -> list[int]:
    """The middle pixel of an image as the browser shows it."""
    script = """const i = document.getElementById(arguments[0]), c = document.createElement("canvas");
        if (!i.naturalWidth) return [];
        c.width = i.naturalWidth; c.height = i.naturalHeight; const p = c.getContext("2d"); p.drawImage(i, 0, 0);
        return [...p.getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3)"""
    return list(driver.execute_script(script, id))


def near(found: list[int], wanted: tuple[int, int, int]) -> bool:
    return len(found) == 3 and all(abs(one - two) < 12 for one, two in zip(found, wanted, strict=True))


def test_it_shows_what_is_published_and_what_the_camera_sees(page: Any, camera: Camera) -> None:
    until(lambda: near(pixel(page, "picture"), (245, 55, 225)), "the published picture is not shown")
    assert not by(page, "input").is_displayed()
    by(page, "show-input").click()
    until(lambda: near(pixel(page, "input"), (10, 200, 30)), "the camera is not shown")
    assert float(text(page, "fps")) > 0
    assert page.execute_script("return plots.fps.points.length") >= 0


def test_profiles_prompt_and_buttons(page: Any, camera: Camera) -> None:
    use(page, "wild")
    until(lambda: camera.status.profile == "wild", "the click switched nothing")
    until(lambda: page.find_elements(By.CSS_SELECTOR, '[data-profile="wild"][aria-pressed="true"]'), "not marked")
    fill(page, "prompt", "a person of gold")
    fill(page, "blend", "900")
    by(page, "prompt").send_keys(Keys.ENTER)
    until(lambda: camera.status.prompt == "a person of gold", "the prompt was not taken")
    assert any("900" in one["text"] for one in camera.daemon.log())
    by(page, "pause").click()
    until(lambda: text(page, "state-text") == "Paused", "not paused")
    by(page, "pause").click()
    until(lambda: camera.status.state == "running", "not resumed")
    by(page, "panic").click()
    until(lambda: camera.status.state == "panic", "no panic")
    by(page, "panic").click()
    until(lambda: camera.status.state == "running", "panic does not end")
    by(page, "forget").click()
    until(lambda: "forget" in [one["text"] for one in camera.daemon.log()], "nothing forgotten")


def grid(driver: Any) -> list[list[int]]:
    """Nine points of the published picture as the browser shows it."""
    script = """const i = document.getElementById("picture"), c = document.createElement("canvas");
        if (!i.naturalWidth) return [];
        c.width = i.naturalWidth; c.height = i.naturalHeight; const p = c.getContext("2d"); p.drawImage(i, 0, 0);
        return [1, 2, 3].flatMap((y) => [1, 2, 3].map((x) =>
            [...p.getImageData(x * c.width / 4, y * c.height / 4, 1, 1).data].slice(0, 3)))"""
    return list(driver.execute_script(script))


def shows_the_published(page: Any, camera: Camera) -> bool:
    published, (width, height) = camera.daemon.preview.astype(int), SIZE
    wanted = [published[y * height // 4, x * width // 4] for y in (1, 2, 3) for x in (1, 2, 3)]
    found = grid(page)
    return len(found) == 9 and all(
        abs(int(one) - int(two)) < 40
        for mine, theirs in zip(found, wanted, strict=True)
        for one, two in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize(("button", "state"), [("panic", "panic"), ("pause", "paused")])
def test_a_card_that_stands_still_is_shown_at_once(page: Any, camera: Camera, button: str, state: str) -> None:
    """Chromium shows a part of a live picture when the next one comes: a card came once, and the face stayed."""
    face = (245, 55, 225)
    until(lambda: near(pixel(page, "picture"), face), "the published picture is not shown")
    by(page, button).click()
    try:
        until(lambda: camera.status.state == state, "the button does nothing")
        until(lambda: not near(pixel(page, "picture"), face), "the face stays on the page")
        until(lambda: shows_the_published(page, camera), "the page shows something else than what is published")
    finally:
        by(page, button).click()
        until(lambda: camera.status.state == "running", "not resumed")
    until(lambda: near(pixel(page, "picture"), face), "the picture does not come back")


def test_everything_by_keyboard_alone(page: Any, camera: Camera) -> None:
    first, second, *_ = camera.daemon.choice.profiles
    page.execute_script("document.activeElement.blur()")
    press(page, "2")
    until(lambda: camera.status.profile == second, "2 is not the second profile")
    press(page, "b")
    until(lambda: camera.status.profile == first, "b is not back")
    press(page, "n")
    until(lambda: camera.status.profile == second, "n is not next")
    press(page, "p")
    until(lambda: camera.status.state == "paused", "p is not pause")
    press(page, "p")
    until(lambda: camera.status.state == "running", "p does not resume")
    press(page, "x")
    until(lambda: camera.status.state == "panic", "x is not panic")
    press(page, "x")
    until(lambda: camera.status.state == "running", "x does not end the panic")
    by(page, "prompt").send_keys(" pxn")  # typing is no command
    time.sleep(0.5)
    assert camera.status.state == "running"
    page.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(80):
        press(page, Keys.TAB)
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.className"))
    wanted = {"pause", "forget", "panic", "prompt", "blend", "try", "use", "s-strength", "s-fusion_strength"}
    assert wanted <= set(reached)


def test_sliders_and_pickers(page: Any, camera: Camera) -> None:
    by(page, "s-strength").send_keys(Keys.END)
    until(lambda: camera.daemon.choice.look.strength == 1.0, "strength did not change")
    by(page, "s-fusion_strength").send_keys(Keys.HOME)
    until(lambda: camera.daemon.choice.look.fusion_strength == 0.0, "fusion did not change")
    by(page, "s-similarity_threshold").send_keys(Keys.END)
    until(lambda: camera.daemon.choice.look.similarity_threshold == 1.0, "the threshold did not change")
    by(page, "s-detail").send_keys(Keys.HOME)
    until(lambda: camera.daemon.choice.look.detail == 0.0, "detail did not change")
    by(page, "s-transition").send_keys(Keys.HOME)
    assert by(page, "blend").get_attribute("value") == "0"
    page.find_element(By.CSS_SELECTOR, "#source-box summary").click()
    until(lambda: by(page, "source-picker").get_attribute("length") != "0", "no sources")
    choose(page, "source-picker", "pattern")
    until(lambda: camera.status.source == "test picture", "the source did not change")
    choose(page, "steps-picker", "2")
    until(lambda: camera.daemon.choice.settings.steps == 2, "the steps did not change")
    choose(page, "size-picker", "144x96")
    until(
        lambda: (camera.daemon.choice.settings.width, camera.daemon.choice.settings.height) == (144, 96),
        "the size did not change",
    )
    until(
        lambda: camera.status.state == "running" and not any("preparing" in note for note in camera.status.notes),
        "the new engine does not run",
    )
    choose(page, "preset-picker", "fast")
    until(lambda: camera.status.preset_asked == camera.status.preset == "fast", "the preset did not change")
    choose(page, "preset-picker", "auto")
    until(lambda: camera.status.preset_asked == "auto", "the preset did not change")
    until(lambda: text(page, "preset-says"), "the page does not say what auto measures")


def choose(driver: Any, id: str, value: str) -> None:
    until(lambda: driver.find_elements(By.CSS_SELECTOR, f'#{id} option[value="{value}"]'), f"no {value} in {id}")
    by(driver, id).send_keys("")  # has the focus, as for a hand that chooses: its options stay as they are
    driver.find_element(By.CSS_SELECTOR, f'#{id} option[value="{value}"]').click()


def test_a_profile_is_made_changed_duplicated_and_deleted(page: Any, camera: Camera) -> None:
    by(page, "new-profile").click()
    fill(page, "e-id", "Not Good!")
    by(page, "e-name").send_keys("Bronze")
    fill(page, "e-prompt", "bronze")
    page.find_element(By.CSS_SELECTOR, "#editor-form .primary").click()
    until(lambda: "File name" in text(page, "editor-error"), "a bad file name is not told")
    fill(page, "e-id", "bronze")
    fill(page, "e-strength", "0.7")
    page.find_element(By.CSS_SELECTOR, "#editor-form .primary").click()
    until(lambda: (camera.profiles / "bronze.toml").exists(), "the profile was not saved")
    assert "strength = 0.7" in (camera.profiles / "bronze.toml").read_text()
    until(lambda: page.find_elements(By.CSS_SELECTOR, '[data-profile="bronze"]'), "the new profile is not shown")
    open_editor(page, "Bronze")
    fill(page, "e-prompt", "old bronze")
    page.find_element(By.CSS_SELECTOR, "#editor-form .primary").click()
    until(lambda: "old bronze" in (camera.profiles / "bronze.toml").read_text(), "the change was not saved")
    open_editor(page, "Bronze")
    by(page, "editor-duplicate").click()
    fill(page, "e-id", "copy")
    page.find_element(By.CSS_SELECTOR, "#editor-form .primary").click()
    until(lambda: (camera.profiles / "copy.toml").exists(), "the copy was not saved")
    assert 'name = "Bronze copy"' in (camera.profiles / "copy.toml").read_text()
    open_editor(page, "Bronze copy")
    by(page, "editor-delete").click()
    assert (camera.profiles / "copy.toml").exists(), "one click deletes"
    by(page, "editor-delete").click()
    until(lambda: not (camera.profiles / "copy.toml").exists(), "the copy was not deleted")


def open_editor(driver: Any, name: str) -> None:
    label = f'[aria-label="Edit {name}"]'
    until(lambda: driver.find_elements(By.CSS_SELECTOR, label) and not by(driver, "editor").is_displayed(), name)
    click(driver, label)
    until(lambda: by(driver, "editor").is_displayed(), "the editor does not open")


def test_a_look_is_tried_before_it_is_live(page: Any, camera: Camera) -> None:
    use(page, "plain")
    until(lambda: camera.status.prompt == "plain", "not plain")
    fill(page, "prompt", "something new")
    page.execute_script("document.activeElement.blur()")
    press(page, "t")
    until(lambda: "only you see this" in text(page, "trial-text"), "nothing is shown for the try")
    until(lambda: near(pixel(page, "trial-picture"), (245, 55, 225)), "the try is not the camera in that look")
    assert camera.status.prompt == "plain"
    press(page, "l")
    until(lambda: camera.status.prompt == "something new", "the tried look is not taken")
    assert not by(page, "trial").is_displayed()


def test_thumbnails_come(page: Any, camera: Camera) -> None:
    until(lambda: page.find_elements(By.CSS_SELECTOR, '[data-profile="plain"] .thumb img'), "no thumbnail")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_axe_finds_nothing_serious(page: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe is not installed")
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    shape = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = page.execute_async_script("const done = arguments[0]; axe.run().then(done, (e) => done(String(e)))")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious]
    assert not told


def test_no_console_errors_and_no_request_elsewhere(page: Any, camera: Camera) -> None:
    page.get_log("browser")
    page.get_log("performance")
    page.get(camera.link())
    until(lambda: text(page, "state-text") == "Running", "the panel does not connect")
    time.sleep(2)
    assert [one["message"] for one in page.get_log("browser") if one["level"] == "SEVERE"] == []
    here = camera.link().partition("/login")[0].removeprefix("http")
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith((f"http{here}/", "data:")), url


# ---------------------------------------------------------------------------------------------------------- strangers

ATTACK = """<!doctype html><title>elsewhere</title><img id="image" src="{panel}/api/v1/picture.jpg">
<script>
const told = {{}}, all = [];
const attempt = (name, work) => all.push(work().then(() => told[name] = "came through", (e) => told[name] = "refused"));
const json = {{"Content-Type": "application/json"}}, body = '{{"command": "panic"}}';
const asked = (path, more) => fetch("{panel}" + path, {{credentials: "include", ...more}}).then((a) => {{
    if (!a.ok) throw Error(a.status); return a.text(); }});
attempt("read status", () => asked("/api/v1/status"));
attempt("read picture", () => asked("/api/v1/picture.jpg"));
attempt("command", () => asked("/api/v1/command", {{method: "POST", headers: json, body}}));
attempt("simple command", () => asked("/api/v1/command", {{method: "POST", body}}));
attempt("image", () => new Promise((yes, no) => {{
    const i = new Image(); i.onload = yes; i.onerror = no; i.src = "{panel}/api/v1/picture.jpg?x"; }}));
attempt("socket", () => new Promise((yes, no) => {{
    const s = new WebSocket("{panel}".replace("http", "ws") + "/api/v1/events");
    s.onmessage = yes; s.onerror = no; }}));
fetch("{panel}/api/v1/command", {{method: "POST", mode: "no-cors", credentials: "include", body}});
Promise.all(all).then(() => window.told = told);
</script>"""


def test_a_page_of_another_origin_gets_nothing(page: Any, camera: Camera, tmp_path: Path) -> None:
    panel = page.current_url.rstrip("/")  # this browser has a key, for that page alone
    (tmp_path / "index.html").write_text(ATTACK.format(panel=panel))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        before = len(camera.daemon.log())
        try:
            for host in ("127.0.0.1", "localhost"):  # same site with another port, and another site
                page.get(f"http://{host}:{elsewhere.server_port}/")
                until(lambda: page.execute_script("return window.told"), "the page of the attack does not end")
                told = page.execute_script("return window.told")
                assert set(told.values()) == {"refused"}, told
                assert page.execute_script("return document.getElementById('image').naturalWidth") == 0
            time.sleep(0.5)
        finally:
            elsewhere.shutdown()
    assert camera.status.state == "running"
    assert not [one for one in camera.daemon.log()[before:] if "panic" in one["text"]]
