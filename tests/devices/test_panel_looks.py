"""Looks in the page, in a real Chromium: favourites, search, words, the editor and its ways back, the first steps."""

from __future__ import annotations

import socket
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
    WatchedSink,
    by,
    enter,
    fill,
    leave_fields,
    near,
    pixel,
    press,
    text,
    use,
)
from tests.support.patience import until
from vcam.control.server import PAGES_KEPT_S

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelCamera]:
    camera = PanelCamera(tmp_path_factory.mktemp("looks"), watched=True).start()
    yield camera
    camera.end()


@pytest.fixture
def page(camera: PanelCamera, driver: Any) -> Any:
    enter(driver, camera)
    return driver


def shown(page: Any) -> list[str]:
    """The looks in their order."""
    script = "return [...document.querySelectorAll('.use')].map((one) => one.dataset.profile)"
    return list(page.execute_script(script))


def current(page: Any, id: str) -> bool:
    return bool(page.find_elements(By.CSS_SELECTOR, f'[data-profile="{id}"][aria-pressed="true"]'))


def test_the_first_steps_turn_green_and_do_not_come_again(page: Any, camera: PanelCamera) -> None:
    assert isinstance(camera.sink, WatchedSink)
    marks = "return [...document.querySelectorAll('#first-steps li')].map((one) => one.dataset.mark)"
    until(lambda: page.execute_script(marks) == ["done", "done", "open"], lambda: page.execute_script(marks))
    camera.sink.readers = ["zoom (pid 7)"]
    until(lambda: page.execute_script(marks) == ["done", "done", "done"], "the mark does not turn green")
    assert "zoom" in text(page, "first-steps")
    assert "zoom (pid 7) shows it" in text(page, "line")
    by(page, "first-done").click()
    assert not by(page, "first").is_displayed()
    camera.sink.readers = []
    enter(page, camera)
    until(lambda: page.execute_script("return firstFor === '' && setUp"), "it is not known that all is set up")
    assert not by(page, "first").is_displayed()


def test_favourites_come_first_with_their_keys_and_stay(page: Any, camera: PanelCamera) -> None:
    for id in ("wild", "ink"):
        use(page, id)
        until(partial(current, page, id), f"{id} is not in use")
        by(page, "star").click()
        until(lambda: by(page, "star").get_attribute("aria-pressed") == "true", "no favourite")
    for _ in range(2):
        until(lambda: shown(page)[:2] == ["wild", "ink"], "the favourites are not first")
        leave_fields(page)
        press(page, "1")
        until(lambda: camera.status.profile == "wild", "1 is not the first favourite")
        press(page, "2")
        until(lambda: camera.status.profile == "ink", "2 is not the second favourite")
        press(page, "3")
        keys = "return [...document.querySelectorAll('.use kbd')].map((one) => one.textContent)"
        assert page.execute_script(keys) == ["1", "2"]
        enter(page, camera)  # another page, as after another start
    for id in ("ink", "wild"):
        use(page, id)
        until(partial(current, page, id), f"{id} is not in use")
        by(page, "star").click()
        until(lambda: by(page, "star").get_attribute("aria-pressed") == "false", "still a favourite")
    until(lambda: shown(page) == list(camera.daemon.choice.profiles), "they are still first")


def test_searching(page: Any, camera: PanelCamera) -> None:
    fill(page, "search", "WATER")
    assert shown(page) == ["watercolour"]
    by(page, "search").send_keys(Keys.ENTER)
    until(lambda: camera.status.profile == "watercolour", "Enter does not take the first one")
    fill(page, "search", "nothing like it")
    assert shown(page) == []
    assert by(page, "none-found").is_displayed()


def test_the_look_in_use_is_in_view(page: Any, camera: PanelCamera) -> None:
    box = """const tile = document.querySelector('[aria-pressed=true].use').getBoundingClientRect(),
        grid = document.getElementById('profiles').getBoundingClientRect();
        return tile.top >= grid.top - 1 && tile.bottom <= grid.bottom + 1"""
    for id in ("woodblock", "blueprint"):
        page.execute_script("send({ command: 'use', profile: arguments[0] })", id)  # as another surface does
        until(partial(current, page, id), "not drawn")
        until(lambda: page.execute_script(box), f"{id} is out of view")


def test_a_word_that_is_not_known_is_marked_and_known_ones_are_offered(page: Any) -> None:
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#styles button"), "no styles")
    fill(page, "prompt", "claymation, a flurble talking ")
    assert "flurble" in text(page, "unknown")
    assert "claymation" not in text(page, "unknown")
    fill(page, "prompt", "claymation, a pers")
    assert not by(page, "unknown").is_displayed(), "a word that is being typed may become one"
    (offered,) = [one for one in page.find_elements(By.CSS_SELECTOR, "#suggestions button") if one.text == "person"]
    offered.click()
    assert by(page, "prompt").get_attribute("value") == "claymation, a person "
    next(one for one in page.find_elements(By.CSS_SELECTOR, "#styles button") if one.text == "neon").click()
    assert by(page, "prompt").get_attribute("value") == "neon, a person "


def save(page: Any) -> None:
    page.find_element(By.CSS_SELECTOR, "#editor-form .primary").click()


def edit(page: Any, id: str) -> None:
    use(page, id)
    until(lambda: current(page, id), f"{id} is not in use")
    by(page, "edit").click()
    until(lambda: by(page, "editor").is_displayed(), "the editor does not open")


def test_a_look_is_made_changed_duplicated_deleted_and_brought_back(page: Any, camera: PanelCamera) -> None:
    by(page, "new-profile").click()
    save(page)
    until(lambda: "Name" in text(page, "editor-error"), "a name that is missing is not told")
    by(page, "e-name").send_keys("Old Bröñze!")
    assert text(page, "e-file") == "Kept as old-bronze.toml"
    fill(page, "e-prompt", "gold statue")
    save(page)
    file = camera.profiles / "old-bronze.toml"
    until(file.exists, "the look was not saved")
    until(lambda: "old-bronze" in shown(page), "the new look is not shown")
    edit(page, "old-bronze")
    fill(page, "e-prompt", "marble statue")
    save(page)
    until(lambda: "marble" in file.read_text(), "the change was not saved")
    until(by(page, "undo").is_displayed, "the page does not say so")
    assert "saved" in text(page, "toast-text")
    by(page, "undo").click()
    until(lambda: "gold" in file.read_text(), "the change is not taken back")
    by(page, "duplicate").click()
    until(lambda: by(page, "editor").is_displayed(), "the editor does not open")
    save(page)
    copy = camera.profiles / "old-bronze-copy.toml"
    until(copy.exists, "the copy was not saved")
    edit(page, "old-bronze-copy")
    by(page, "editor-delete").click()
    assert copy.exists(), "one click deletes"
    by(page, "editor-delete").click()
    until(lambda: not copy.exists(), "the copy was not deleted")
    until(by(page, "undo").is_displayed, "the page does not say so")
    assert "deleted" in text(page, "toast-text")
    by(page, "undo").click()
    until(copy.exists, "the copy does not come back")


def test_an_older_undo_is_gone_when_a_change_begins(page: Any, camera: PanelCamera) -> None:
    page.execute_script("toast('Plain is saved', () => { window.undone = true; })")
    edit(page, "plain")
    page.execute_script("drawLooks = () => new Promise(() => {})")  # the page never comes to the new words
    fill(page, "e-prompt", "marble statue")
    save(page)
    until(lambda: "marble" in (camera.profiles / "plain.toml").read_text(), "the change was not saved")
    assert not by(page, "undo").is_displayed()
    page.execute_script("document.getElementById('undo').click()")
    assert page.execute_script("return window.undone") is None


def test_escape_does_not_throw_work_away(page: Any, camera: PanelCamera) -> None:
    edit(page, "plain")
    press(page, Keys.ESCAPE)
    until(lambda: not by(page, "editor").is_displayed(), "nothing was changed: it closes")
    edit(page, "plain")
    by(page, "e-name").send_keys(" and simple")
    press(page, Keys.ESCAPE)
    until(lambda: by(page, "editor-leave").is_displayed(), "nobody asks")
    assert by(page, "editor").is_displayed()
    for _ in range(3):  # from the second on, the browser itself would close without asking
        press(page, Keys.ESCAPE)
    assert by(page, "editor").is_displayed()
    page.execute_script("document.getElementById('editor').close()")  # as a phone's second "back" does
    until(lambda: by(page, "editor-leave").is_displayed(), "nobody asks")
    by(page, "editor-stay").click()
    assert by(page, "e-name").get_attribute("value").endswith("and simple")
    by(page, "editor-cancel").click()
    by(page, "editor-discard").click()
    assert not by(page, "editor").is_displayed()
    assert "simple" not in (camera.profiles / "plain.toml").read_text()


def test_a_look_comes_as_a_file_and_goes_as_one(page: Any, camera: PanelCamera, driver: Any, tmp_path: Path) -> None:
    (tmp_path / "Sepia Tone.toml").write_text('name = "Sepia"\n[look]\nprompt = "vintage photograph, a person"\n')
    by(page, "import").send_keys(str(tmp_path / "Sepia Tone.toml"))
    until((camera.profiles / "sepia-tone.toml").exists, "the file did not become a look")
    (tmp_path / "bad.toml").write_text("name = 3")
    by(page, "import").send_keys(str(tmp_path / "bad.toml"))
    until(lambda: "bad.toml: name is 3" in text(page, "error"), "a bad file is not told")
    use(page, "sepia-tone")
    until(lambda: current(page, "sepia-tone"), "not in use")
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "out")})
    by(page, "export").click()
    until((tmp_path / "out" / "sepia-tone.toml").exists, "no file came")
    assert "vintage photograph" in (tmp_path / "out" / "sepia-tone.toml").read_text()


def test_pictures_come_with_the_program_and_are_made_from_ones_own(page: Any, camera: PanelCamera) -> None:
    image = '[data-profile="plain"] .thumb img'
    until(lambda: page.find_elements(By.CSS_SELECTOR, image), "no picture of a look")
    by(page, "mine").click()
    until(lambda: not page.find_elements(By.CSS_SELECTOR, image), "the examples stay")
    until(lambda: page.find_elements(By.CSS_SELECTOR, image), "no picture from the user's own")
    by(page, "mine").click()
    until(lambda: page.find_elements(By.CSS_SELECTOR, image), "the examples do not come back")


def test_a_camera_that_is_gone_greys_the_page_which_comes_back_by_itself(driver: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    camera = PanelCamera(tmp_path, port).start()
    enter(driver, camera)
    until(lambda: near(pixel(driver, "picture"), FACE), "no picture")
    camera.end()
    until(lambda: by(driver, "gone").is_displayed(), "the page does not say that the camera is gone")
    assert driver.execute_script("return document.getElementById('main').inert")
    assert by(driver, "veil").is_displayed(), "a face stays"
    assert text(driver, "again").endswith("vcam run")
    assert text(driver, "state-text") == "Not running"
    leave_fields(driver)
    press(driver, "x")  # there is nobody to tell
    camera = PanelCamera(tmp_path, port).start()
    try:
        until(lambda: text(driver, "state-text") == "Live", "the page does not come back")
        assert not by(driver, "gone").is_displayed()
        assert not driver.execute_script("return document.getElementById('main').inert")
        until(lambda: near(pixel(driver, "picture"), FACE), "the picture does not come back")
        assert not by(driver, "veil").is_displayed()
    finally:
        camera.end()
    until(lambda: by(driver, "gone").is_displayed(), "the page does not say that the camera is gone again")
    assert driver.execute_script("return localStorage.getItem('vcam-key')")
    driver.execute_script(f"lastThereMs -= {1000 * PAGES_KEPT_S:.0f}")
    until(lambda: by(driver, "fresh-link").is_displayed(), "its key goes on being sent to whoever listens there now")
    assert not driver.execute_script("return localStorage.getItem('vcam-key')")
