"""What the model does not read of a prompt is said at once where the prompt was given, of a whole daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import EngineSettings
from tests.support.profile_files import write_profile
from tests.support.running_daemon import SwitchedDaemon
from vcam import client
from vcam.cli.main import main
from vcam.commands import ChangeLook

GOH = "the model does not know goh (van gogh?), and ignores such words"


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SwitchedDaemon]:
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path))
    settings = EngineSettings(model="embedded", width=96, height=64, steps=1)
    with SwitchedDaemon(tmp_path, settings_of=lambda profile, options: settings) as running:
        write_profile(running.folder, "goh", prompt="by van goh")
        yield running


def test_the_command_line_says_it_and_the_answer_has_it(
    camera: SwitchedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prompt", "a", "portrait", "by", "van", "goh"]) == 0
    assert f"vcam: note: {GOH}" in capsys.readouterr().err
    assert main(["use", "goh", "--json"]) == 0
    printed = capsys.readouterr()
    assert f"vcam: note: {GOH}" in printed.err
    assert json.loads(printed.out)["prompt_notes"] == [GOH]
    assert main(["prompt", "claymation " * 30]) == 0
    assert "the model reads 22 tokens of a prompt; not read: 'claymation" in capsys.readouterr().err
    assert main(["use", "p0"]) == 0
    assert GOH not in capsys.readouterr().err


def test_the_page_has_it_among_its_notes(camera: SwitchedDaemon) -> None:
    told = client.send(ChangeLook({"prompt": "van goh"}))
    assert told.prompt_notes == (GOH,)
    assert GOH in told.notes
    assert GOH not in client.send(ChangeLook({"prompt": "van gogh"})).notes
