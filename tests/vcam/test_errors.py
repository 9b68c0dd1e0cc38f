"""The tree of errors: as its docstring draws it, none of them one of Python's own, all in one file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import vcam.errors
from core.errors import StreamV2VError
from vcam.errors import VcamError

ROOT = Path(__file__).parents[2]


def tree(kind: type[Exception], depth: int) -> list[tuple[int, str]]:
    own = [one for one in kind.__subclasses__() if one.__module__ == "vcam.errors"]
    return [(depth, kind.__name__), *(line for one in own for line in tree(one, depth + 1))]


def test_the_docstring_draws_the_tree() -> None:
    assert vcam.errors.__doc__ is not None
    drawn = re.findall(r"^    ((?:[│├└─ ]{4})*)(\w+) ", vcam.errors.__doc__, re.MULTILINE)
    assert [(len(branch) // 4, name) for branch, name in drawn] == tree(VcamError, 0)


def test_a_users_mistake_is_no_bug() -> None:
    assert issubclass(VcamError, StreamV2VError)
    assert not issubclass(StreamV2VError, ValueError | RuntimeError | OSError | LookupError)


@pytest.mark.parametrize("path", sorted((ROOT / "vcam").rglob("*.py")), ids=lambda path: path.name)
def test_every_error_of_ours_is_in_the_tree(path: Path) -> None:
    if path.name != "errors.py":
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        bases = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
        assert not [
            base.id for base in bases if isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception"))
        ]
