"""The wheel: what it holds, and that the program that it installs finds its profiles and translates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def copied(folder: Path) -> Path:
    """A folder with what the Dockerfile copies: an image is built from no more."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    (folder / target).mkdir(exist_ok=True)
                    shutil.copy(ROOT / source, folder / target)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = copied(tmp_path_factory.mktemp("image"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize(
    ("program", "file"),
    [
        ("hadolint", "Dockerfile"),
        ("hadolint", "deploy/Dockerfile.serve"),
        ("actionlint", ".github/workflows/test.yml"),
    ],
)
def test_the_linters_of_what_runs_elsewhere_have_nothing_to_say(program: str, file: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    done = subprocess.run([program, file], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def shipped_data() -> set[str]:
    """What the checkout holds beside its Python files, under the names it must have in a wheel."""
    kept = {".json", ".safetensors", ".onnx", ".txt", ".html", ".css", ".js", ".lua", ".svg", ".jpg"}
    data = {
        path.relative_to(ROOT).as_posix()
        for package in ("core", "vcam")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kept
    }
    return data | {f"vcam/shipped_profiles/{path.name}" for path in (ROOT / "profiles").glob("*.toml")}


def test_the_wheel_holds_model_panel_profiles_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert shipped_data() <= names
    assert any(name.startswith("core/embedded_model/") and name.endswith(".safetensors") for name in names)
    assert any(name.startswith("vcam/control/static/") and name.endswith(".html") for name in names)
    assert {"vcam/setup_scripts/camera.sh", "vcam/setup_scripts/camera.ps1"} <= names
    assert "vcam/CHANGELOG.md" in names, "`vcam update` reads it"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "training/", "profiles/"))]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an empty environment that holds the wheel; libraries are lent by this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    python = programs / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return programs


def test_the_installed_program_finds_its_profiles(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"VCAM_CONFIG_FOLDER": str(tmp_path / "config")}
    run = [str(installed / "vcam"), "--help"]
    told = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert "translate" in told
    run = [str(installed / "vcam"), "profiles"]
    told = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert "claymation" in told


def test_the_installed_program_translates(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        picture = np.full((128, 128, 3), 60 + 40 * index, np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture)
    run = [str(installed / "vcam"), "translate", "in", "out", "--profile", "claymation", "--json"]
    environment = os.environ | {"VCAM_CONFIG_FOLDER": str(tmp_path / "config")}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["frames_in"], report["frames_out"]) == (3, 3)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of a short name: a socket's may have 107 letters, and pytest's own folders have nearly as many."""
    with tempfile.TemporaryDirectory(prefix="vcam-") as folder:
        yield Path(folder)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


@pytest.mark.skipif(os.name == "nt", reason="folders are not those of HOME there")
@pytest.mark.parametrize("xdg", [False, True], ids=["usual folders", "XDG folders"])
def test_a_run_and_its_removal_leave_nothing(installed: Path, home: Path, xdg: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VCAM_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(home / "tmp")}
    if xdg:
        kinds = ("CONFIG_HOME", "DATA_HOME", "CACHE_HOME", "STATE_HOME", "RUNTIME_DIR")
        environment |= {f"XDG_{kind}": str(home / "xdg" / kind.lower()) for kind in kinds}
        (home / "xdg" / "runtime_dir").mkdir(parents=True, mode=0o700)
    for others in (home / "tmp", home / ".config" / "another", home / "Videos"):
        others.mkdir(parents=True)
    (home / ".config" / "another" / "settings").write_text("not ours")
    before = contents(home)
    run = [str(installed / "vcam"), "run", "--source", "pattern", "--frames", "10", "--sink", "none", "--port", "0"]
    done = subprocess.run(
        run,
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,  # it has its session go before others: not that of all tests
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("vcam.log"))
    run = [str(installed / "vcam"), "uninstall", "--yes"]
    done = subprocess.run(run, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(home) == before
    assert "the program itself: " in done.stdout
