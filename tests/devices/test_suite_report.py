"""The report of a suite in a real Chromium, from its file: tables, plots, players, and a blind test that is blind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By

from core.measure.motion import Pixels
from core.settings import EngineSettings, Look, Policy
from tests.support import synthetic_films as films
from tests.support.late_engine import LateEngine
from tests.support.media_files import film
from tests.support.patience import until
from vcam.offline.suite.make import make_report
from vcam.offline.suite.plan import SuitePlan, parse_setting
from vcam.offline.suite.run import SuiteInstruments
from vcam.settings.engine_options import EngineOptions
from vcam.settings.profiles import Profile

pytestmark = pytest.mark.browser
SECRETS = ("steady", "walk", "talk", "fifo")


class Negative(LateEngine):
    """A negative; without a bank it is darker."""

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        super().__init__(settings, look)
        self._dark = settings.policy is Policy.OFF

    def translate(self, picture: Pixels) -> Pixels | None:
        made = super().translate(picture)
        return made if made is None or not self._dark else np.asarray(made // 2, np.uint8)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    clips = []
    for name, seed in (("walk", 0), ("talk", 3)):
        pictures = films.moving(films.texture(seed), 8)
        clips.append(film(folder / f"{name}.mp4", pictures, rate=24, size=(films.WIDTH, films.HEIGHT)))
    settings = (parse_setting("steady:bank=fifo"), parse_setting("off"))
    asked = EngineOptions(width=96, height=64, steps=1)
    plan = SuitePlan(tuple(clips), (Profile("pale", "Pale", look=Look(prompt="pale")),), settings, asked=asked, side=80)
    lab = SuiteInstruments(
        make_engine=Negative, open_landmarks=lambda: lambda picture: [], reference=lambda prompt, size: lambda one: one
    )
    make_report(plan, folder / "out", lab=lab, progress=False, note=lambda text: None)
    return folder / "out" / "report.html"


@pytest.fixture
def page(report: Path, driver: Any) -> Any:
    driver.get(report.as_uri())
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    return driver


def test_the_report_shows_itself_from_its_file(page: Any) -> None:
    rows = page.find_elements(By.CSS_SELECTOR, "#table tbody tr")
    assert [row.find_element(By.CSS_SELECTOR, "td").text for row in rows] == ["steady", "off"]
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot-list svg")) >= 3
    assert len(page.find_elements(By.CSS_SELECTOR, "#players video")) == 3
    heads = [head.text for head in page.find_elements(By.CSS_SELECTOR, "#table thead th")]
    assert [row.find_elements(By.CSS_SELECTOR, "td")[heads.index("latency")].text for row in rows] == ["0", "0"]
    inputs = [row.text.split(" ")[0] for row in page.find_elements(By.CSS_SELECTOR, "#input-list tbody tr")]
    assert {"walk.mp4", "talk.mp4", "profile"} <= set(inputs)
    loaded = "return [...document.querySelectorAll('#players video')].every(v => v.readyState >= 2 && v.videoWidth > 0)"
    until(lambda: page.execute_script(loaded))
    assert (
        page.execute_script(
            "return performance.getEntriesByType('resource').map(r => r.name)"
            ".filter(n => !n.startsWith('blob:') && !n.startsWith('data:'))"
        )
        == []
    )
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_players_run_together_and_one_that_is_ahead_is_brought_back(page: Any) -> None:
    until(lambda: page.execute_script("return videos.length === 3 && videos.every(v => v.readyState >= 2)"))
    page.find_element(By.ID, "forth").click()
    times = "return videos.map(v => v.currentTime)"
    until(lambda: len(set(page.execute_script(times))) == 1 and page.execute_script(times)[0] > 0)
    page.execute_script("document.getElementById('speed').value = '0.25'; document.getElementById('play').click()")
    page.execute_script("videos[1].currentTime = videos[1].duration - 0.02")
    together = "v => !v.paused && !v.ended && Math.abs(v.currentTime - videos[0].currentTime) <= 0.05"
    until(lambda: page.execute_script(f"return videos.every({together})"), "one film is at another place")


def test_the_blind_test_is_blind_and_gives_the_key_at_the_end(page: Any) -> None:
    page.find_element(By.ID, "begin").click()
    orders = set()
    for pair in (1, 2):
        blind = page.find_element(By.ID, "blind")
        until(lambda: page.execute_script("return document.getElementById('left').readyState >= 2"))
        assert f"Pair {pair} of 2" in blind.text
        sources = [page.find_element(By.ID, side).get_attribute("src") for side in ("left", "right")]
        assert all(source.startswith("blob:") for source in sources)
        seen = blind.get_attribute("outerHTML")
        assert not [word for word in SECRETS if word in seen]
        assert not page.find_element(By.TAG_NAME, "main").is_displayed()
        orders.update(sources)
        page.find_element(By.TAG_NAME, "body").send_keys("1")
    assert len(orders) == 4, "each film has a name of its own each time"
    until(lambda: page.find_element(By.TAG_NAME, "main").is_displayed())
    key = [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td")]
        for row in page.find_elements(By.CSS_SELECTOR, "#counts table:last-of-type tbody tr")
    ]
    kept = json.loads(page.execute_script("return localStorage.getItem('streamv2v-blind-' + data.id)"))
    assert len(kept) == 2
    assert all(vote["better"] == vote["left"] for vote in kept)
    assert {(row[0], row[2], row[4]) for row in key} == {(vote["clip"], vote["left"], vote["better"]) for vote in kept}
    page.refresh()
    assert "Your counts" in page.find_element(By.ID, "counts").text


def test_over_many_trials_neither_side_is_always_the_same(page: Any) -> None:
    found = page.execute_script(
        "const seen = new Set(); for (let i = 0; i < 40; i++) { document.getElementById('begin').click();"
        "test.trials.forEach(([x, y]) => seen.add(x.clip + x.by)); test.done = []; test.trials = []; end(); } "
        "return [...seen]"
    )
    assert sorted(found) == ["talk.mp4off", "talk.mp4steady", "walk.mp4off", "walk.mp4steady"]


def test_both_films_and_the_votes_are_seen_at_once_on_a_low_screen(page: Any) -> None:
    size = page.get_window_size()
    page.set_window_size(1280, 560)
    try:
        page.find_element(By.ID, "begin").click()
        until(lambda: page.execute_script("return document.getElementById('left').videoHeight > 0"))
        low = "return document.querySelector('[data-vote=a]').getBoundingClientRect().bottom <= innerHeight"
        until(lambda: page.execute_script(low), "the votes lie below the screen")
        assert page.execute_script("return document.getElementById('left').getBoundingClientRect().height > 80")
    finally:
        page.set_window_size(size["width"], size["height"])
