"""Where Qt cannot show anything it ends the program (134): that is found out before, and said in a sentence."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S
from vcam.tray import display

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Qt brings what it needs")


@linux
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("libxcb-cursor.so.0: cannot open shared object file: No such file", "apt install libxcb-cursor0 (Fedora"),
        ("libEGL.so.1: cannot open shared object file: No such file", "apt install libegl1 libxcb-cursor0 (Fedora"),
        ("libodd.so.3: cannot open shared object file: No such file", "libodd.so.3, which this system lacks"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_packages(
    message: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str) -> None:
        raise OSError(message)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert words in display.why_not(Path("/qt"), {"DISPLAY": ":0"})


@linux
def test_one_platform_that_loads_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> None:
        if "wayland" in path:
            raise OSError("libwayland-client.so.0: cannot open shared object file: No such file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert display.why_not(Path("/qt"), {"WAYLAND_DISPLAY": "wayland-0"}) == ""
    assert "libwayland-client0" in display.why_not(Path("/qt"), {"QT_QPA_PLATFORM": "wayland"})


@linux
def test_a_platform_that_qt_does_not_have(tmp_path: Path) -> None:
    assert "QT_QPA_PLATFORM" in display.why_not(tmp_path, {"QT_QPA_PLATFORM": "toaster"})


@linux
def test_a_display_that_nobody_answers_at_is_said_in_a_line() -> None:
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed", exc_type=ImportError)
    environment = {k: v for k, v in os.environ.items() if k not in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-m", "vcam", "tray"],
        env=environment | {"DISPLAY": ":77"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vcam: error: ")
    assert len(done.stderr.splitlines()) == 1
