"""The trial of the wheel in empty homes: it says what is left, by a stand-in for pipx and for the program."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import fresh_install

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its stand-ins are scripts of the shell")

PIPX = """#!/bin/sh
place="$HOME/.local/share/pipx/venvs/streamv2v-camera"
[ "$1" = uninstall ] && exec rm -r "$place" "$HOME/.local/bin/vcam"
mkdir -p "$place/bin" "$HOME/.local/bin"
cp "$VCAM_STAND_IN" "$place/bin/vcam"
ln -s "$place/bin/vcam" "$HOME/.local/bin/vcam"
"""
VCAM = """#!/bin/sh
state="$HOME/.local/state/streamv2v-camera"
[ "$1" = uninstall ] && exec rm -r {removes}
touch "$(readlink -f "$0").compiled"
mkdir -p "$state"
touch "$state/log"
"""


def tried(folder: Path, removes: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    for name, text in (("pipx", PIPX.replace("$VCAM_STAND_IN", str(folder / "vcam"))), ("vcam", VCAM)):
        (folder / name).write_text(text.replace("{removes}", removes))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return fresh_install.trial("pipx", "made.whl", folder / "constraints.txt")


def test_what_leaves_nothing_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(tmp_path, '"$HOME/.local/state"', monkeypatch)
    said = capsys.readouterr().out
    assert "the run made 3 files and folders" in said
    assert "vcam uninstall left: nothing" in said


@pytest.mark.parametrize(
    ("removes", "left"),
    [
        ('"$state/log"', ".local/state/, .local/state/streamv2v-camera/"),
        ('"$state"', ".local/state/"),
    ],
)
def test_an_empty_folder_is_something_left(
    removes: str, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not tried(tmp_path, removes, monkeypatch)
    assert f"vcam uninstall left: {left}\n" in capsys.readouterr().out


def test_the_homes_know_nothing_of_who_tries(tmp_path: Path) -> None:
    here = {"PATH": "/bin", "VCAM_STATE_FOLDER": "/s", "XDG_CONFIG_HOME": "/c", "UV_FIND_LINKS": "/wheels"}
    told = fresh_install.environment_of(tmp_path, here)
    assert told == {
        "PATH": "/bin",
        "UV_FIND_LINKS": "/wheels",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }
