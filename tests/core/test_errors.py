"""The tree of errors: as its docstring draws it, and light enough for every program to import."""

from __future__ import annotations

import subprocess
import sys

import core.errors
from core.errors import StreamV2VError


def _tree(kind: type[Exception], depth: int) -> list[tuple[int, str]]:
    own = [one for one in kind.__subclasses__() if one.__module__ == "core.errors"]
    return [(depth, kind.__name__), *(line for one in own for line in _tree(one, depth + 1))]


def _drawn(text: str) -> list[tuple[int, str]]:
    lines = [line for line in text.splitlines() if line.strip().startswith(("StreamV2VError", "├", "└", "│"))]
    names = [(line, next(word for word in line.split() if word.isidentifier())) for line in lines]
    return [((line.index(name) - 4) // 4, name) for line, name in names]


def test_the_docstring_draws_the_tree() -> None:
    assert core.errors.__doc__ is not None
    assert _drawn(core.errors.__doc__) == _tree(StreamV2VError, 0)


def test_every_error_of_ours_is_one_and_importing_them_imports_nothing_else() -> None:
    code = "import sys, core.errors, core.settings; print(*[name for name in sys.modules if name in sys.argv[1:]])"
    heavy = ["torch", "numpy", "diffusers", "core.engine", "core.models"]
    found = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
