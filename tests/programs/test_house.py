"""The house's own rules: who imports whom, what must start light, that the shipped profiles load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcam.settings.profiles import load_profiles

ROOT = Path(__file__).parents[2]
MAY_IMPORT_CORE = {
    "arguments.py",
    "bench.py",
    "examine.py",
    "engine.py",
    "engines.py",
    "evaluate.py",
    "factories.py",
    "models.py",
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
            (
                "core.measure.metrics",
                "core.measure.motion",
                "core.models.catalogue",
                "core.models.hub",
                "core.runtimes.tensorrt.plans",
            )
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
