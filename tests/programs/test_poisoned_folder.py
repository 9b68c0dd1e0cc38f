"""Files of the folder that one stands in are never executed, whatever their names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vcam.cli.service import this_systems_service
from vcam.doctor import machine

ROOT = Path(__file__).parents[2]
NAMES = ("types.py", "torch.py", "cv2.py", "av.py", "numpy.py", "json.py", "core/__init__.py", "vcam/__init__.py")


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder whose modules write into a log that they were executed; the log's path."""
    log = tmp_path / "executed"
    folder = tmp_path / "downloads"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(log)!r}, 'a').write(__name__ + ' ')\nraise SystemExit('poisoned')\n")
    monkeypatch.chdir(folder)
    return log


def executed(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def vcam(*words: str, options: tuple[str, ...] = ("-P",)) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, *options, "-m", "vcam", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_engines_process_takes_nothing_from_there(poisoned: Path, tmp_path: Path) -> None:
    script = "import sys; from vcam.__main__ import start; sys.exit(start())"  # what the program `vcam` does
    place = tmp_path / "bin" / "vcam"
    place.parent.mkdir()
    place.write_text(script)
    words = ["run", "--source", "pattern", "--sink", "none", "--frames", "60", "--no-panel", "--engine-size", "128x128"]
    environment = os.environ | {"VCAM_STATE_FOLDER": str(tmp_path / "s"), "VCAM_LOG_FOLDER": str(tmp_path / "l")}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run([sys.executable, str(place), *words], env=environment, capture_output=True, text=True)
    assert (done.returncode, executed(poisoned)) == (0, ""), done.stderr
    assert "restarting" not in done.stderr


def test_the_doctors_processes_take_nothing_from_there(poisoned: Path) -> None:
    found = machine.load_packages()
    assert found.failure == ""
    assert set(found.loads.values()) == {""} or "poisoned" not in str(found.loads)
    machine.outlook("embedded")
    assert executed(poisoned) == ""


def test_a_small_verb_takes_nothing_from_there(poisoned: Path) -> None:
    assert "cartoon" in vcam("profiles").stdout
    assert executed(poisoned) == ""


def test_without_the_option_what_python_has_not_loaded_itself_is_not_taken_either(poisoned: Path) -> None:
    for name in ("types.py", "json.py", "numpy.py", "vcam/__init__.py"):  # python -m itself may take these
        (Path.cwd() / name).unlink()
    Path("vcam").rmdir()
    assert "cartoon" in vcam("profiles", options=()).stdout
    assert executed(poisoned) == ""


def test_the_service_starts_so_and_in_a_folder_of_ours() -> None:
    text = str(this_systems_service().content)
    assert re.search(r"-P.{1,30}-m.{1,30}vcam", text)
    assert str(this_systems_service().folder) in text


@pytest.mark.skipif(os.name == "nt", reason="the .sh scripts are for Unix")
def test_the_launcher_takes_nothing_from_there(poisoned: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "install_scripts", root / "install_scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    told = subprocess.run(
        ["bash", "-c", 'source "$0/install_scripts/common.sh"; wanted', str(root)], capture_output=True, text=True
    ).stdout
    (root / ".venv" / ".ready-run").write_text(told)
    (root / ".venv" / "pyvenv.cfg").write_text((Path(sys.executable).parents[1] / "pyvenv.cfg").read_text())
    (root / ".venv" / "lib").symlink_to(Path(sys.executable).parents[1] / "lib")
    done = subprocess.run([root / "install_scripts" / "run.sh", "--help"], capture_output=True, text=True)
    assert (done.returncode, executed(poisoned)) == (0, ""), done.stderr
    assert "usage: vcam run" in done.stdout
