"""The house's own rules: who imports whom, what a wheel holds, what the install scripts do."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vcam.settings.profiles import load_profiles

ROOT = Path(__file__).parents[2]
MAY_IMPORT_CORE = {
    "arguments.py",
    "bench.py",
    "examine.py",
    "engines.py",
    "evaluate.py",
    "factories.py",
    "models.py",
    "profiles.py",
    "thumbnails.py",
    "translate.py",
    "verbs.py",
}
HEAVY = {"av", "cv2", "diffusers", "numpy", "starlette", "torch", "transformers", "uvicorn"}

# ---------------------------------------------------------------- who imports whom


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that the file imports, and whether that happens inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", files("core"), ids=lambda path: path.name)
def test_core_never_imports_vcam(path: Path) -> None:
    assert not [name for name, _ in imports(path) if name.split(".")[0] == "vcam"]


@pytest.mark.parametrize("path", files("vcam"), ids=lambda path: path.name)
def test_vcam_imports_the_engine_late_and_in_few_places(path: Path) -> None:
    for name, inside in imports(path):
        if name.split(".")[0] != "core" or name.startswith(("core.settings", "core.errors")):
            continue
        assert path.name in MAY_IMPORT_CORE, f"{path.name} imports {name}"
        light = name.startswith(
            ("core.measure.metrics", "core.measure.motion", "core.models.catalogue", "core.models.hub")
        )
        assert inside or light, f"{path.name} imports {name} when it is itself imported"


@pytest.mark.parametrize("path", files("tests"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_test_imports_another_test(path: Path) -> None:
    """What two of them need is in tests/support."""
    ours = [name for name, _ in imports(path) if name.split(".")[0] == "tests"]
    assert [name for name in ours if not name.startswith("tests.support")] == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vcam.cli.main", HEAVY),
        ("core.settings", HEAVY),
        ("core.measure.metrics", {"diffusers", "torch", "transformers"}),
    ],
)
def test_what_must_start_light_does(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not heavy & set(loaded.split())


def test_every_shipped_profile_loads(tmp_path: Path) -> None:
    loaded = load_profiles(tmp_path)
    assert not loaded.problems
    assert len(loaded.profiles) >= 8
    assert set(loaded.profiles) == {path.stem for path in (ROOT / "profiles").glob("*.toml")}


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def shipped_data() -> set[str]:
    """What the checkout holds beside its Python files, under the names it must have in a wheel."""
    kept = {".json", ".safetensors", ".onnx", ".txt", ".html", ".css", ".js", ".lua"}
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
    import cv2

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


# ---------------------------------------------------------------- the install scripts

on_unix = pytest.mark.skipif(os.name == "nt", reason="the .sh scripts are for Unix")

# Stands in for python: writes down what it is asked, makes "environments" that hold itself.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    "-c import venv, ensurepip") exit "${NO_VENV:-0}" ;;
    "-c import sys; print"*) echo python3.11-venv ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip config list") echo "global.no-index" ;;
    "-m pip install"*) exit "${PIP_FAILS:-0}" ;;
    -) cat >/dev/null; echo "${LACKS:-}" ;;
esac
"""


class Checkout:
    """A checkout with nothing but what the scripts need, at a path with spaces, and a python that plays along."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my camera"
        self.log = folder / "asked"
        self.python = folder / "python3"
        shutil.copytree(ROOT / "install_scripts", self.root / "install_scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def start(self, *arguments: str, script: str = "run.sh", **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            [str(self.root / "install_scripts" / script), *arguments],
            cwd="/",
            env=os.environ | {"PYTHON": str(self.python), "LOG": str(self.log)} | environment,
            capture_output=True,
            text=True,
        )

    def asked(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.log.read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@on_unix
def test_a_first_start_installs_and_a_second_only_starts(checkout: Checkout) -> None:
    first = checkout.start("--profile", "ink")
    assert first.returncode == 0, first.stderr
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (1, 1)
    second = checkout.start("--profile", "two words")
    assert second.returncode == 0
    assert checkout.log.read_text().splitlines() == ["-c ", "-m vcam run --profile two words"]


@on_unix
def test_what_the_checks_need_is_enough_to_run(checkout: Checkout) -> None:
    assert checkout.start(script="test.sh").returncode == 0
    assert [checkout.asked(f"-m {check}") for check in ("ruff check", "ruff format", "mypy", "pytest")] == [1, 1, 3, 2]
    assert checkout.start("-k", "bank", script="test.sh").returncode == 0
    assert checkout.log.read_text().splitlines() == ["-c ", "-m pytest -k bank"]
    assert checkout.start().returncode == 0
    assert checkout.asked("-m pip") == 0


@on_unix
@pytest.mark.parametrize("harm", ["cut short", "python gone"])
def test_a_damaged_environment_is_made_anew(checkout: Checkout, harm: str) -> None:
    checkout.start()
    environment = checkout.root / ".venv"
    (environment / "left over").touch()
    if harm == "cut short":
        (environment / ".installing").touch()
    else:
        (environment / "bin" / "python").unlink()
    assert checkout.start().returncode == 0
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (1, 1)
    assert not (environment / "left over").exists()


@on_unix
def test_a_failed_installation_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.start(PIP_FAILS="1")
    assert failed.returncode == 1
    assert "error: the installation did not finish" in failed.stderr
    assert checkout.asked("-m vcam") == 0
    assert checkout.start().returncode == 0
    assert checkout.asked("-m pip install") == 1


@on_unix
@pytest.mark.parametrize("change", ["new constraints", "moved"])
def test_a_changed_checkout_is_installed_again(checkout: Checkout, change: str) -> None:
    checkout.start()
    if change == "moved":
        checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    else:
        with (checkout.root / "constraints.txt").open("a") as constraints:
            constraints.write("six==1.17.0\n")
    assert checkout.start().returncode == 0
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (0, 1)


@on_unix
@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"NO_VENV": "1"}, ["no venv module", "apt-get install python3.11-venv"]),
        pytest.param(
            {"LACKS": "libGL.so.1"},
            ["OpenCV needs libGL.so.1", "apt-get install libgl1"],
            marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these libraries"),
        ),
    ],
    ids=["venv", "libGL"],
)
def test_a_missing_system_part_is_named_before_anything_is_made(
    checkout: Checkout, lack: dict[str, str], words: list[str]
) -> None:
    refused = checkout.start(**lack)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert all(word in refused.stderr for word in words)
    assert not (checkout.root / ".venv").exists()


@on_unix
def test_no_python_is_said_with_the_remedy(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "cmp", "dirname", "uname"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    refused = checkout.start(PYTHON="", PATH=str(tools))
    assert refused.returncode == 1
    assert "no Python >= 3.11 found" in refused.stderr
