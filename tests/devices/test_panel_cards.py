"""What is left of a face on the page where others see a card: nothing, by pixels; and the page in its other states."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from tests.support.fake_engine import GATE
from tests.support.panel import (
    FACE,
    NAMES,
    PanelCamera,
    WatchedSink,
    as_device,
    axe_findings,
    by,
    enter,
    face_pixels,
    face_pixels_of_picture,
    fill,
    near,
    pixel,
    press,
    shows_the_published,
    text,
)
from tests.support.patience import until
from tests.support.pictures import SIZE
from vcam.commands import Panic, Pause, Resume
from vcam.devices.sinks import NullSink
from vcam.log_file import callable_here
from vcam.worker.limits import Limits

pytestmark = pytest.mark.browser
PHONE = (390, 844)


@pytest.fixture
def desktop(driver: Any) -> Any:
    as_device(driver, 1280, 1400)
    return driver


def shows_a_face(page: Any) -> bool:
    return near(pixel(page, "picture"), FACE) and face_pixels(page) > 1000


def until_no_face(page: Any, state: str) -> None:
    until(lambda: page.execute_script("return document.getElementById('state').dataset.state") == state, f"not {state}")
    until(lambda: pixel(page, "picture") and not face_pixels_of_picture(page), f"{state}: the picture keeps a face")
    assert face_pixels(page) == 0, f"{state}: a face stays somewhere on the page"


def test_the_card_of_a_camera_that_is_lost_of_a_pause_and_of_a_panic(desktop: Any, tmp_path: Path) -> None:
    page, camera = desktop, PanelCamera(tmp_path).start()
    assert camera.source is not None
    enter(page, camera)
    for state in ("waiting", "paused", "panic"):
        until(lambda: shows_a_face(page), "no picture")
        if state == "waiting":
            camera.source.trouble = "the cable is out"
        else:
            camera.tell(Pause() if state == "paused" else Panic())
        until_no_face(page, state)
        until(lambda: shows_the_published(page, camera), f"{state}: another picture than others see")
        camera.source.trouble = ""
        camera.tell(Resume())
    until(lambda: shows_a_face(page), "no picture")
    camera.end()
    until_no_face(page, "gone")  # the farewell


@pytest.mark.parametrize(("state", "tries"), [("restarting", 5), ("failed", 0)])
def test_the_card_of_an_engine_that_is_lost(desktop: Any, tmp_path: Path, state: str, tries: int) -> None:
    page = desktop
    camera = PanelCamera(tmp_path, limits=Limits(tries=tries, first_wait_s=9999, longest_wait_s=9999)).start()
    enter(page, camera)
    until(lambda: shows_a_face(page), "no picture")
    os.kill(camera.engine_pid(), signal.SIGKILL)
    until_no_face(page, state)
    until(lambda: "killed (SIGKILL" in text(page, "state-text"), "the reason is for the user, here")
    assert any("SIGKILL" in one["text"] for one in camera.daemon.log())
    until(lambda: shows_the_published(page, camera), f"{state}: another picture than others see")
    camera.end()


def test_the_card_of_a_start(desktop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv(GATE, str(gate))
    camera = PanelCamera(tmp_path, model="slow-start")
    camera.thread.start()
    until(lambda: (tmp_path / "session.json").exists(), "there is no page")
    desktop.get(camera.link())
    until_no_face(desktop, "starting")
    until(lambda: shows_the_published(desktop, camera), "another picture than others see")
    gate.touch()
    until(lambda: shows_a_face(desktop), "no picture")
    camera.end()


# ------------------------------------------------------------------------------------------- other pictures of the user


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[PanelCamera]:
    camera = PanelCamera(tmp_path, watched=True).start()
    yield camera
    camera.end()


def own_pictures(page: Any) -> None:
    """Have the looks drawn on the user's own picture, and try one."""
    tiles = "return [...document.querySelectorAll('.thumb img')].filter((one) => one.naturalWidth).length"
    before = face_pixels(page)
    by(page, "mine").click()
    until(lambda: page.execute_script("return [...mine.values()].filter(Boolean).length") >= 2, "not drawn")
    until(lambda: page.execute_script(tiles) >= 2, "not shown")
    fill(page, "prompt", "something new")
    by(page, "try").click()
    until(lambda: near(pixel(page, "trial-picture"), FACE), "the try is not the camera in that look")
    page.execute_script("document.getElementById('toast').hidden = true")
    assert face_pixels(page) > before + 5000


def test_a_panic_throws_every_picture_of_the_user_away(desktop: Any, camera: PanelCamera) -> None:
    """The looks that were drawn on the user's picture, and the try, showed the face after a panic."""
    page = desktop
    enter(page, camera)
    until(lambda: shows_a_face(page), "no picture")
    own_pictures(page)
    by(page, "split").click()
    by(page, "panic").click()
    assert face_pixels(page) == 0, "the press itself hides them"
    until_no_face(page, "panic")
    for id in ("try", "mine", "compare", "split"):
        assert not by(page, id).is_enabled(), f"{id} would show the user"
    assert not by(page, "input").is_displayed()
    press(page, "c", "t")
    assert not by(page, "input").is_displayed()
    camera.tell(Resume())
    until(lambda: shows_a_face(page), "the picture does not come back")
    assert not by(page, "trial").is_displayed()
    assert by(page, "mine").get_attribute("aria-pressed") == "false"
    assert page.execute_script("return mine.size") == 0


def test_a_pause_covers_them_as_long_as_it_lasts(desktop: Any, camera: PanelCamera) -> None:
    page = desktop
    enter(page, camera)
    until(lambda: shows_a_face(page), "no picture")
    own_pictures(page)
    camera.tell(Pause())  # by another surface
    until_no_face(page, "paused")
    camera.tell(Resume())
    until(lambda: shows_a_face(page), "the picture does not come back")
    assert by(page, "trial").is_displayed()
    assert by(page, "mine").get_attribute("aria-pressed") == "true"


def test_a_try_that_comes_after_a_panic_is_not_shown(desktop: Any, camera: PanelCamera) -> None:
    page = desktop
    enter(page, camera)
    until(lambda: shows_a_face(page), "no picture")
    page.execute_script("""window.plainAsk = ask; ask = (path, ...more) => path === "/api/v1/try"
        ? new Promise((done) => { window.answerTry = () => plainAsk("/api/v1/picture.jpg").then(done); })
        : plainAsk(path, ...more);""")
    by(page, "try").click()
    until(lambda: page.execute_script("return Boolean(window.answerTry)"), "nothing is asked")
    camera.tell(Panic())
    until_no_face(page, "panic")
    page.execute_script("answerTry()")
    camera.tell(Resume())
    until(lambda: shows_a_face(page), "the picture does not come back")
    assert not by(page, "trial").is_displayed()
    assert not page.execute_script("return document.getElementById('trial-picture').hasAttribute('src')")


# ------------------------------------------------------------------------------------------------------ the first steps


def marks(page: Any) -> list[str]:
    return list(
        page.execute_script("return [...document.querySelectorAll('#first-steps li')].map((o) => o.dataset.mark)")
    )


def test_what_the_system_does_not_tell_is_ticked_off_by_the_user(desktop: Any, tmp_path: Path) -> None:
    """As on Windows and macOS: a mark that waits for a program would never turn green."""
    sink = NullSink(SIZE)
    sink.name = "StreamV2V Camera (OBS Virtual Camera)"
    page, camera = desktop, PanelCamera(tmp_path, sink=sink).start()
    enter(page, camera)
    until(lambda: marks(page) == ["done", "done", "own"], lambda: marks(page))
    assert "OBS Virtual Camera" in text(page, "first-steps")
    assert "green" not in text(page, "first-steps")
    page.execute_script(
        "document.querySelector('#first-steps input').dataset.kept = 'yes'; firstFor = ''; return drawFirst()"
    )
    box = page.find_element("css selector", "#first-steps input")
    assert box.get_attribute("data-kept") == "yes", "drawn anew under the pointer"
    box.click()
    until(lambda: "You are on" in text(page, "first-title"), "it cannot be ticked off")
    by(page, "first-done").click()
    enter(page, camera)
    until(lambda: page.execute_script("return firstFor === '' && setUp"), "it is not known that all is set up")
    assert not by(page, "first").is_displayed()
    camera.end()


def test_what_was_chosen_is_told_as_chosen(desktop: Any, tmp_path: Path) -> None:
    page, camera = desktop, PanelCamera(tmp_path, source="pattern", asked_sink="none").start()
    enter(page, camera)
    until(lambda: marks(page) == ["done", "done"], lambda: marks(page))
    assert text(page, "first-title") == "All is as you chose"
    assert "No camera" not in text(page, "first-steps")
    assert "set" not in text(page, "first-steps").replace("test", "")
    by(page, "first-done").click()
    enter(page, camera)
    until(lambda: len(marks(page)) == 2, "not drawn")
    assert not by(page, "first").is_displayed()
    assert not page.execute_script("return setUp"), "a camera that comes later is still to be set up"
    camera.end()


def test_without_a_camera_there_is_the_test_picture_and_the_one_command_that_sets_up_the_virtual_one(
    desktop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NAMES, "auto", "test picture")
    page, camera = desktop, PanelCamera(tmp_path).start()
    enter(page, camera)
    until(lambda: marks(page) == ["note", "open", "open"], lambda: marks(page))
    assert "No camera was found" in text(page, "first-steps")
    assert "test picture" in text(page, "first-steps")
    (command,) = page.find_elements("css selector", "#first-steps code")
    program = callable_here("vcam setup camera", at_terminal=False)
    assert command.text == program or "pip install" in command.text, "where its library is missing, that first"
    camera.end()


# --------------------------------------------------------------------------------------------------- shapes and schemes


def test_a_phone_has_picture_panic_looks_and_strength_in_this_order(driver: Any, camera: PanelCamera) -> None:
    as_device(driver, *PHONE)
    enter(driver, camera)
    until(lambda: shows_a_face(driver), "no picture")
    by(driver, "first-done").click()
    tops = """const parts = ["#screen", "#panic", "#pause", "#profiles .use", "#s-strength", "#prompt", "#advanced"];
        return parts.map((one) => document.querySelector(one).getBoundingClientRect().top + scrollY)"""
    found = driver.execute_script(tops)
    assert found == sorted(found), found
    assert found[1] < PHONE[1] / 2, "panic is not at hand"
    assert found[3] < PHONE[1], "no look is to be seen at once"
    assert found[4] < 1.5 * PHONE[1], "strength is far"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 1000), PHONE])
def test_axe_finds_nothing_serious_in_any_state(
    driver: Any, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    page = driver
    as_device(page, width, height, scheme)
    camera = PanelCamera(tmp_path, watched=True, limits=Limits(tries=0)).start()
    enter(page, camera)
    until(lambda: by(page, "first").is_displayed(), "no first steps")
    assert isinstance(camera.sink, WatchedSink)
    found = {"first": axe_findings(page)}
    by(page, "first-done").click()
    for state, command in (("panic", Panic()), ("paused", Pause())):
        camera.tell(command)
        until_no_face(page, state)
        found[state] = axe_findings(page)
        camera.tell(Resume())
    os.kill(camera.engine_pid(), signal.SIGKILL)
    until_no_face(page, "failed")
    until(lambda: text(page, "pause") == "Try again", lambda: text(page, "pause"))
    found["failed"] = axe_findings(page)
    camera.end()
    until_no_face(page, "gone")
    # as where the camera is killed: one that ends may still tell that it does, and then the button is another
    page.execute_script("document.getElementById('pause').textContent = 'Try again'")
    found["gone"] = axe_findings(page)
    assert not any(found.values()), found
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width, wide
