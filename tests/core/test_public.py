"""What `import core` gives: every name of `__all__`, and nothing heavy until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import core
import core.errors


@pytest.mark.parametrize("name", core.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(core, name).__class__ is not None
    assert name in dir(core)


def test_every_error_is_among_them() -> None:
    errors = {name for name in vars(core.errors) if name.endswith(("Error", "Cancelled"))}
    assert errors <= set(core.__all__)


def test_what_a_type_checker_sees_is_what_is_exported() -> None:
    tree = ast.parse(Path(core.__file__).read_text(encoding="utf-8"))
    (block,) = (one for one in tree.body if isinstance(one, ast.If))
    seen = {alias.name for one in block.body if isinstance(one, ast.ImportFrom) for alias in one.names}
    assert seen == set(core.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Knobs'"):
        core.Knobs  # noqa: B018


def test_settings_and_errors_load_no_pytorch() -> None:
    code = (
        "import sys; from core import EngineSettings, ModelError; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
