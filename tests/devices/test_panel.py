"""The page in a real Chromium: every control does what it says, by keyboard too; strangers get nothing."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.panel import (
    FACE,
    PanelCamera,
    as_device,
    axe_findings,
    by,
    choose,
    enter,
    fill,
    leave_fields,
    near,
    pixel,
    press,
    shows_the_published,
    slide,
    text,
    use,
)
from tests.support.patience import until
from tests.support.pictures import SIZE
from vcam.commands import ChangeLook, Mirror, UseSource
from vcam.daemon.daemon import keep_running
from vcam.devices.sinks import VideoFile
from vcam.errors import VcamError
from vcam.log_file import callable_here

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelCamera]:
    camera = PanelCamera(tmp_path_factory.mktemp("panel")).start()
    yield camera
    camera.end()


@pytest.fixture
def page(camera: PanelCamera, driver: Any) -> Any:
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    enter(driver, camera)
    return driver


def test_it_shows_what_is_published_and_beside_it_what_the_camera_sees(page: Any, camera: PanelCamera) -> None:
    until(lambda: near(pixel(page, "picture"), FACE), "the published picture is not shown")
    assert not by(page, "input").is_displayed()
    by(page, "split").click()
    until(lambda: near(pixel(page, "input"), (10, 200, 30)), "the camera is not shown")
    assert by(page, "wipe").is_displayed()
    slide(page, "wipe", 20)
    assert page.execute_script("return getComputedStyle(document.getElementById('input')).clipPath").endswith("20%)")
    by(page, "split").click()
    until(lambda: not by(page, "input").is_displayed(), "the camera stays")
    assert "pictures a second" in text(page, "line")
    one = {"state": "running", "fps": 1.4, "latency_ms": 900, "readers": [], "reader_count": None, "sink": "none"}
    assert page.execute_script("return sentence(arguments[0])", one) == "1 picture a second · 0.9 s behind"


def test_holding_a_key_or_the_button_shows_the_camera_and_letting_go_ends_it(page: Any, camera: PanelCamera) -> None:
    event = "document.dispatchEvent(new KeyboardEvent(arguments[0], { key: 'c' }))"
    page.execute_script(event, "keydown")
    until(lambda: by(page, "input").is_displayed(), "C shows nothing")
    assert "only you" in text(page, "compare-says")
    page.execute_script(event, "keyup")
    assert not by(page, "input").is_displayed()
    from selenium.webdriver import ActionChains

    ActionChains(page).click_and_hold(by(page, "compare")).perform()
    until(lambda: by(page, "input").is_displayed(), "holding the button shows nothing")
    ActionChains(page).release().perform()
    until(lambda: not by(page, "input").is_displayed(), "the camera stays")


def test_looks_prompt_and_buttons(page: Any, camera: PanelCamera) -> None:
    use(page, "wild")
    until(lambda: camera.status.profile == "wild", "the click switched nothing")
    until(lambda: page.find_elements(By.CSS_SELECTOR, '[data-profile="wild"][aria-pressed="true"]'), "not marked")
    fill(page, "prompt", "a person of gold")
    page.execute_script("document.getElementById('advanced').open = true")
    slide(page, "s-transition", 900)
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
    until(lambda: "trails cleared" in [one["text"] for one in camera.daemon.log()], "nothing forgotten")


@pytest.mark.parametrize(("button", "state"), [("panic", "panic"), ("pause", "paused")])
def test_a_card_that_stands_still_is_shown_at_once(page: Any, camera: PanelCamera, button: str, state: str) -> None:
    """Chromium shows a part of a live picture when the next one comes: a card came once, and the face stayed."""
    until(lambda: near(pixel(page, "picture"), FACE), "the published picture is not shown")
    by(page, button).click()
    assert by(page, "veil").is_displayed(), "the face is covered by the press itself"
    try:
        until(lambda: camera.status.state == state, "the button does nothing")
        until(lambda: not near(pixel(page, "picture"), FACE), "the face stays on the page")
        until(lambda: shows_the_published(page, camera), "the page shows something else than what is published")
    finally:
        by(page, button).click()
        until(lambda: camera.status.state == "running", "not resumed")
    until(lambda: near(pixel(page, "picture"), FACE), "the picture does not come back")


def test_an_engine_that_was_given_up_can_be_tried_again(page: Any) -> None:
    until(lambda: page.execute_script("return status !== null"), "no status")
    script = """const told = []; send = async (command) => { told.push(command.command); };
        status = { ...status, state: "failed" }; drawPicture(status);
        const button = document.getElementById("pause"), says = button.textContent;
        button.click(); return [says, ...told]"""
    assert page.execute_script(script) == ["Try again", "resume"]


def test_everything_by_keyboard_alone(page: Any, camera: PanelCamera) -> None:
    first, second, *_ = camera.daemon.choice.profiles
    leave_fields(page)
    press(page, "2")
    until(lambda: camera.status.profile == second, "2 is not the second look")
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
    told = len(camera.daemon.log())
    leave_fields(page)
    press(page, "?")
    until(lambda: by(page, "keys").is_displayed(), "? does not list the keys")
    keys = "return [...document.querySelectorAll('#keys-list kbd')].map((one) => one.textContent)"
    assert page.execute_script(keys) == ["1–9", *"NBPXRMSCTLF/?"]
    words = "return [...document.querySelectorAll('#keys-list dd')].map((one) => one.textContent)"
    assert all(page.execute_script(words)), "a key without a word"
    press(page, "x")  # nor is what is pressed in a dialog
    press(page, Keys.ESCAPE)
    until(lambda: not by(page, "keys").is_displayed(), "Esc does not close it")
    press(page, "/")
    assert page.execute_script("return document.activeElement.id") == "search"
    assert not [one for one in camera.daemon.log()[told:] if "panic" in one["text"] or "pause" in one["text"]]
    leave_fields(page)
    reached = []
    for _ in range(80):
        press(page, Keys.TAB)
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.className"))
    wanted = {"pause", "record", "snapshot", "compare", "panic", "search", "use", "s-strength", "prompt", "try", "star"}
    assert wanted <= set(reached)


def test_sliders_and_pickers(page: Any, camera: PanelCamera) -> None:
    use(page, "plain")
    until(lambda: camera.status.profile == "plain", "not plain")
    page.execute_script("document.getElementById('advanced').open = true")
    by(page, "s-strength").send_keys(Keys.END)
    until(lambda: camera.daemon.choice.look.strength == 1.0, "strength did not change")
    by(page, "s-fusion_strength").send_keys(Keys.HOME)
    until(lambda: camera.daemon.choice.look.fusion_strength == 0.0, "steadiness did not change")
    by(page, "s-similarity_threshold").send_keys(Keys.END)
    until(lambda: camera.daemon.choice.look.similarity_threshold == 1.0, "the threshold did not change")
    by(page, "s-detail").send_keys(Keys.HOME)
    until(lambda: camera.daemon.choice.look.detail == 0.0, "detail did not change")
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
    page.execute_script("document.getElementById('preset-fast').click()")
    until(lambda: camera.status.preset_asked == camera.status.preset == "fast", "the preset did not change")
    page.execute_script("document.getElementById('preset-auto').click()")
    until(lambda: camera.status.preset_asked == "auto", "the preset did not change")
    until(lambda: text(page, "preset-says"), "the page does not say what auto measures")


def test_mirror_and_the_size_that_is_sent(page: Any, camera: PanelCamera) -> None:
    """Mirrored at once; another size from the next start, by the command line, which checks it."""
    page.execute_script("document.getElementById('advanced').open = true")
    by(page, "mirror").click()
    until(lambda: camera.status.mirror, "the picture is not mirrored")
    camera.tell(Mirror(False))
    until(lambda: not by(page, "mirror").is_selected(), "the page does not follow another surface")
    now = f"{SIZE[0]}x{SIZE[1]}"
    assert by(page, "sent-picker").get_attribute("value") == now
    assert not by(page, "sent-says").is_displayed()
    choose(page, "sent-picker", "1280x720")
    assert by(page, "sent-says").is_displayed()
    assert "begins again" in text(page, "sent-why")
    assert text(page, "send-at") == "Begin again at 1280 × 720"
    choose(page, "sent-picker", now)
    assert not by(page, "sent-says").is_displayed()
    script = """status = { ...status, ...arguments[0] }; sayHowSent();
        return [document.getElementById("sent-why").textContent, document.getElementById("send-at").disabled]"""
    choose(page, "sent-picker", "1280x720")
    for facts, words in (
        ({"reader_count": 1, "readers": ["zoom (pid 7)"]}, "Close it there first: zoom (pid 7)"),
        ({"reader_count": 0, "recording": "a.mp4"}, "A recording is not finished"),
        ({"recording": "", "state": "panic"}, "Resume first"),
    ):
        why, disabled = page.execute_script(script, facts)  # in one go: the camera goes on saying how it is
        assert words in why
        assert disabled


def test_one_click_begins_again_with_another_size(driver: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    camera = PanelCamera(tmp_path, port)
    first, began = (
        camera.daemon,
        threading.Thread(target=lambda: keep_running(camera.daemon, camera.parts, camera.stop, [])),
    )
    began.start()
    until(lambda: first.status().state == "running", "the camera does not run")
    enter(driver, camera)
    driver.execute_script("document.getElementById('advanced').open = true")
    choose(driver, "sent-picker", "1280x720")
    by(driver, "send-at").click()
    until(lambda: driver.execute_script("return status?.width") == 1280, "the page does not come back in the new size")
    until(lambda: text(driver, "state-text") == "Live", "the camera does not run")
    assert not by(driver, "gone").is_displayed()
    until(
        lambda: driver.execute_script("return document.getElementById('picture').naturalWidth") == 1280, "not so wide"
    )
    assert by(driver, "sent-picker").get_attribute("value") == "1280x720"
    assert not by(driver, "sent-says").is_displayed()
    camera.stop.set()
    began.join()


def test_framing_and_region(page: Any, camera: PanelCamera) -> None:
    """Neither model is here: the page says which command fetches it, and the picture goes on."""
    page.execute_script("document.getElementById('advanced').open = true")
    until(lambda: by(page, "framing-picker").get_attribute("value") == "fill", "the framing is not drawn")
    choose(page, "framing-picker", "face")
    until(lambda: camera.daemon.choice.look.framing == "face", "the framing did not change")
    called = callable_here("`vcam models download face`", at_terminal=False)  # as it can be called on this machine
    until(lambda: called in text(page, "notes"), lambda: f"{called} is not in: {text(page, 'notes')}")
    choose(page, "framing-picker", "fit")
    until(lambda: camera.daemon.choice.look.framing == "fit", "the framing did not change")
    until(lambda: "models download" not in text(page, "notes"), "the note stays")
    assert not by(page, "elsewhere-picker").is_enabled(), "the style is everywhere"
    choose(page, "region-picker", "person")
    until(lambda: camera.daemon.choice.look.region == "person", "the region did not change")
    until(lambda: "models download person" in text(page, "notes"), "the page does not name the command")
    until(lambda: by(page, "elsewhere-picker").is_enabled(), "what is behind cannot be chosen")
    choose(page, "elsewhere-picker", "blur")
    until(lambda: camera.daemon.choice.look.elsewhere == "blur", "what is behind did not change")
    choose(page, "region-picker", "all")
    choose(page, "framing-picker", "fill")
    until(lambda: "models download" not in text(page, "notes"), "the note stays")


def test_what_the_model_takes_by_itself_is_drawn_where_it_is(page: Any, camera: PanelCamera) -> None:
    use(page, "wild")
    use(page, "plain")
    until(lambda: camera.daemon.choice.look.fusion_strength is None, "not the model's own")
    until(lambda: by(page, "s-fusion_strength").get_attribute("value") == "0.25", "steadiness is not there")
    until(lambda: by(page, "s-similarity_threshold").get_attribute("value") == "0.93", "the threshold is not there")


def test_a_value_that_is_refused_snaps_back(page: Any, camera: PanelCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slider said one thing while another was live."""
    use(page, "plain")
    until(lambda: by(page, "s-strength").get_attribute("value") == "0.5", "the look is not drawn")
    page.execute_script("document.getElementById('advanced').open = true")
    until(lambda: by(page, "steps-picker").get_attribute("value"), "the steps are not drawn")
    steps, asked = by(page, "steps-picker").get_attribute("value"), camera.status.preset_asked

    def refuse(command: Any) -> None:
        raise VcamError(f"no {type(command).__name__} today")

    monkeypatch.setattr(camera.daemon._commands, "_apply", refuse)
    by(page, "s-strength").send_keys(Keys.END)
    until(lambda: f"no {ChangeLook.__name__} today" in text(page, "error"), "the refusal is not told")
    until(lambda: by(page, "s-strength").get_attribute("value") == "0.5", "strength shows what is not so")
    page.execute_async_script("logged = -1; show(status); drawLog().then(drawLooks).then(arguments[0])")
    assert "today" in text(page, "error"), "what the page does by itself took the words away"
    choose(page, "steps-picker", "4" if steps != "4" else "2")

    def live() -> str:  # `auto` may take another preset meanwhile
        return str(camera.daemon.choice.settings.steps)

    until(lambda: by(page, "steps-picker").get_attribute("value") == live(), "the steps show what is not so")
    page.execute_script("document.getElementById('preset-sharp').click()")
    until(
        lambda: page.execute_script("return document.querySelector('[name=preset]:checked')?.value ?? ''") == asked,
        "the quality shows what is not so",
    )


LEVELS = {"s-detail": 0.11, "s-fusion_strength": 0.12, "s-similarity_threshold": 0.13}
PICKERS = ("framing-picker", "region-picker", "elsewhere-picker", "size-picker", "source-picker")


def test_every_other_control_snaps_back_too(page: Any, camera: PanelCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    use(page, "plain")
    page.execute_script("document.getElementById('advanced').open = true")
    camera.tell(UseSource("auto"))  # whatever was chosen before: the picker then has another one to offer
    until(lambda: camera.status.source == "fake camera", "not the camera")
    choose(page, "region-picker", "person")
    until(lambda: by(page, "elsewhere-picker").is_enabled(), "what is behind cannot be chosen")
    page.execute_script("return drawSources(true)")
    others = """const picker = document.getElementById(arguments[0]);
        return [...picker.options].map((one) => one.value).filter((value) => value && value !== picker.value)"""
    until(lambda: all(page.execute_script(others, picker) for picker in PICKERS), "no choices")

    def shown(control: str) -> str:
        return str(by(page, control).get_attribute("value"))

    def so(control: str) -> str:
        if control == "size-picker":  # `auto` may take another preset meanwhile
            settings = camera.daemon.choice.settings
            return f"{settings.width}x{settings.height}"
        return before[control]

    until(lambda: shown("s-fusion_strength") == "0.25" and shown("region-picker") == "person", "the look is not drawn")
    before = {one: shown(one) for one in (*LEVELS, *PICKERS, "sent-picker", "mirror")}

    def refuse(*_: Any) -> None:
        raise VcamError("not today")

    def until_refused(control: str) -> None:
        until(lambda: by(page, "error").is_displayed(), f"{control}: the refusal is not told")
        until(lambda: shown(control) == so(control), lambda: f"{control}: {shown(control)}, and not {so(control)}")
        page.execute_script("document.getElementById('error').hidden = true")

    monkeypatch.setattr(camera.daemon._commands, "_apply", refuse)
    monkeypatch.setattr("vcam.daemon.daemon.begin_again", refuse)
    for level, value in LEVELS.items():
        slide(page, level, value)
        until_refused(level)
    for picker in PICKERS:
        choose(page, picker, page.execute_script(others, picker)[-1])
        until_refused(picker)
    by(page, "mirror").click()
    until_refused("mirror")
    assert not by(page, "mirror").is_selected()
    choose(page, "sent-picker", "1280x720")
    by(page, "send-at").click()
    until_refused("sent-picker")
    assert not by(page, "sent-says").is_displayed()
    monkeypatch.undo()
    choose(page, "region-picker", "all")
    until(lambda: camera.daemon.choice.look.region == "all", "the region did not change")


def test_every_size_on_offer_fills_the_picture(page: Any, camera: PanelCamera) -> None:
    """464x336 for 640x480 left bars."""
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#size-picker option"), "no sizes")
    values = [one.get_attribute("value") for one in page.find_elements(By.CSS_SELECTOR, "#size-picker option")]
    shapes = [int(width) / int(height) for width, height in (value.split("x") for value in values)]
    assert len(values) >= 2
    assert all(0.97 < shape / (SIZE[0] / SIZE[1]) < 1.03 for shape in shapes), values


def test_recording_and_keeping_a_picture(page: Any, camera: PanelCamera) -> None:
    by(page, "record").click()
    until(lambda: camera.status.recording, "nothing is recorded")
    until(lambda: by(page, "recording").is_displayed(), "the page does not say that it records")
    until(lambda: camera.status.recorded_s > 0.3, "nothing is recorded")
    by(page, "record").click()
    until(lambda: ".mp4" in text(page, "toast-text"), "the page does not say where the recording is")
    by(page, "snapshot").click()
    until(lambda: ".png" in text(page, "toast-text"), "the page does not say where the picture is")
    assert sorted(path.suffix for path in (camera.folder / "videos").iterdir()) == [".mp4", ".png"]


def test_keys_record_keep_a_picture_and_clear_trails(page: Any, camera: PanelCamera) -> None:
    leave_fields(page)
    press(page, "r")
    until(lambda: camera.status.recorded_s > 0.3, "R records nothing")
    press(page, "r")
    until(lambda: camera.status.saved.endswith(".mp4"), "R does not end it")
    press(page, "s")
    until(lambda: camera.status.saved.endswith(".png"), "S keeps no picture")
    told = len(camera.daemon.log())
    press(page, "f")
    until(lambda: "trails cleared" in [one["text"] for one in camera.daemon.log()[told:]], "F clears nothing")


def test_that_a_recording_hears_the_microphone_is_on_the_button_and_on_the_picture(
    page: Any, camera: PanelCamera
) -> None:
    assert text(page, "microphone") == "Mic off"
    by(page, "microphone").click()
    until(lambda: text(page, "microphone") == "Mic on", "the button does not say it")
    by(page, "record").click()
    until(lambda: "with sound" in text(page, "recorded"), "the picture does not say it")
    assert "Test sine" in (by(page, "microphone").get_attribute("title") or "")
    by(page, "panic").click()
    until(lambda: "sound is off" in text(page, "recorded"), "a panic does not show")
    by(page, "panic").click()
    until(lambda: "with sound" in text(page, "recorded"), "it does not come back")
    press(page, "m")
    until(lambda: text(page, "microphone") == "Mic off", "the key turns nothing off")
    until(lambda: "sound" not in text(page, "recorded"), "it is still said")
    by(page, "record").click()
    until(lambda: not camera.status.recording and not camera.status.finishing, "it does not end")


def test_a_recording_that_is_being_finished_is_told_until_it_is_kept(
    page: Any, camera: PanelCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, close = threading.Event(), VideoFile.close

    def slow(file: VideoFile) -> None:
        finish.wait(60)
        close(file)

    monkeypatch.setattr(VideoFile, "close", slow)
    by(page, "record").click()
    until(lambda: camera.status.recorded_s > 0.3, "nothing is recorded")
    by(page, "record").click()
    until(lambda: "Finishing" in text(page, "recorded"), "the page says nothing")
    assert by(page, "recording").is_displayed()
    assert not by(page, "record").is_enabled(), "a press would be refused"
    finish.set()
    until(lambda: by(page, "record").is_enabled(), "the button does not come back")
    assert not by(page, "recording").is_displayed()


def test_an_end_that_waits_for_a_recording_is_told(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, close = threading.Event(), VideoFile.close

    def slow(file: VideoFile) -> None:
        finish.wait(60)
        close(file)

    monkeypatch.setattr(VideoFile, "close", slow)
    camera = PanelCamera(tmp_path).start()
    enter(driver, camera)
    by(driver, "record").click()
    until(lambda: camera.status.recorded_s > 0.3, "nothing is recorded")
    camera.stop.set()
    until(lambda: text(driver, "state-text") == "Ending: the recording is being finished", "the page says nothing")
    assert text(driver, "veil-title") == "Ending"
    assert not by(driver, "gone").is_displayed(), "another could not be started yet"
    finish.set()
    until(lambda: by(driver, "gone").is_displayed(), "the page does not say that it has ended")
    camera.end()


def test_a_look_is_tried_before_it_is_live(page: Any, camera: PanelCamera) -> None:
    use(page, "plain")
    until(lambda: camera.status.prompt == "plain", "not plain")
    fill(page, "prompt", "something new")
    leave_fields(page)
    press(page, "t")
    until(lambda: "only you see this" in text(page, "trial-text"), "nothing is shown for the try")
    until(lambda: near(pixel(page, "trial-picture"), FACE), "the try is not the camera in that look")
    assert camera.status.prompt == "plain"
    press(page, "l")
    until(lambda: camera.status.prompt == "something new", "the tried look is not taken")
    assert not by(page, "trial").is_displayed()


CUT_WORDS = """return [...document.querySelectorAll(".segments label")]
    .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_axe_finds_nothing_serious(page: Any, scheme: str, width: int) -> None:
    as_device(page, width, 1000, scheme)
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    opened = ["", "document.getElementById('help').click()", "document.getElementById('new-profile').click()"]
    for action in opened:
        page.execute_script(action)
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, (action, wide)  # a phone's innerWidth grows with what is too wide
        assert page.execute_script(CUT_WORDS) == [], "a choice's words are cut"
        assert axe_findings(page) == [], action
        page.execute_script("for (const one of document.querySelectorAll('dialog')) one.close()")


WORDS = """const said = [document.title, document.body.innerText];
    for (const one of document.querySelectorAll("[title], [aria-label], [placeholder], [alt]"))
        said.push(one.title, one.ariaLabel, one.placeholder, one.alt);
    return said.filter(Boolean).join("\\n")"""


def test_it_speaks_the_users_words_and_not_the_codes(page: Any) -> None:
    until(lambda: page.execute_script("return status !== null && looks.length"), "no status")
    page.execute_script("for (const one of document.querySelectorAll('details, dialog')) one.open = true")
    said = str(page.execute_script(WORDS))
    assert "Steadiness" in said
    assert "Clear trails" in said
    assert not re.findall(r"(?i)\b(?:sinks?|forget|banks?|fusion|latents?|denois\w*|similarity|slots?)\b", said)


def test_no_console_errors_and_no_request_elsewhere(page: Any, camera: PanelCamera) -> None:
    page.get_log("browser")
    page.get_log("performance")
    page.get(camera.link())
    until(lambda: text(page, "state-text") == "Live", "the page does not connect")
    time.sleep(2)
    assert page.execute_script("return document.querySelector('header img').naturalWidth") > 0, "no icon"
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


def test_a_page_of_another_origin_gets_nothing(page: Any, camera: PanelCamera, tmp_path: Path) -> None:
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
