"""`vcam suite` as a program with the included model: killed in the middle and begun again it gives the same report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import synthetic_films as films
from tests.support.media_files import film
from tests.support.patience import PATIENCE_S, until

FRAMES = 8


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is asked of the suite: one clip, two looks, two settings, and another system's film at half the rate."""
    folder = tmp_path_factory.mktemp("asked")
    size = (films.WIDTH, films.HEIGHT)
    clip = film(folder / "walk.mp4", films.source(FRAMES), rate=24, size=size, options={"crf": "6"})
    (folder / "CoDeF").mkdir()
    edited = [np.asarray(255 - one, np.uint8) for one in films.source(FRAMES)[::2]]
    film(folder / "CoDeF" / "walk-ink.mp4", edited, rate=12, size=size, options={"crf": "6"})
    words = [str(clip), "--profiles", "claymation,ink", "--settings", "default", "off", "--frames", str(FRAMES)]
    return [*words, "--no-faces", "--other", f"CoDeF={folder / 'CoDeF'}"]


def suite(asked: list[str], out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "vcam", "suite", *asked, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(asked: list[str], out: Path) -> dict[str, Any]:
    """Run it to its end and return its report, less what the clock told."""
    with suite(asked, out) as process:
        said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, said.decode()
    result: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for row in [*result["rows"], *result["table"].values()]:
        del row["speed"]
    return result


def test_a_suite_that_was_killed_goes_on_to_the_same_report(asked: list[str], tmp_path: Path) -> None:
    whole = finished(asked, tmp_path / "whole")
    assert {row["by"]: len(row["figures"]) > 10 for row in whole["rows"]} == dict.fromkeys(
        ("default", "off", "CoDeF"), True
    )
    assert len(whole["rows"]) == 5
    assert any("12 pictures a second" in text for row in whole["rows"] for text in row["said"])
    out = tmp_path / "killed"
    with suite(asked, out) as process:
        until(lambda: process.poll() is not None or len(list(out.glob("cells/[!.]*.json"))) >= 2)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert not (out / "report.json").exists(), "it was killed before its end"
    made = {path: path.stat().st_mtime_ns for path in out.glob("cells/[!.]*.json")}
    assert finished(asked, out) == whole
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was done was not done again"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "claymation" in page
