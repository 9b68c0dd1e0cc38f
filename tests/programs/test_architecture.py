"""docs/architecture.md is held to the code: what it names exists, and its table of imports is the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.import_graph import Graph, module_graph, modules, room_graph

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- imports: begin -->\n", "<!-- imports: end -->"


def paths(text: str) -> list[str]:
    """What the page names as a file or folder of the checkout."""
    named = re.findall(r"`([a-z_]+/[A-Za-z0-9_./-]*|[a-z_]+\.(?:py|md|toml))`", text)
    return sorted(set(named))


def imports_table() -> str:
    """The rooms of both packages and what each imports, as the page has it."""
    graph: Graph = module_graph(modules(ROOT, "core", "vcam"))
    lines = ["| room | imports |", "| --- | --- |"]
    for package in ("core", "vcam"):
        rooms = room_graph(graph, package)
        for room, goals in sorted(rooms.items()):
            names = ", ".join(goal.partition(".")[2] for goal in sorted(goals))
            lines.append(f"| `{room}` | {names or '-'} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", paths(PAGE))
def test_every_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_paths_are_found_at_all() -> None:
    assert {"vcam/daemon/publisher.py", "core/algorithm/bank.py", "profiles/"} <= set(paths(PAGE))
    assert len(paths(PAGE)) > 40


def test_the_table_of_imports_is_the_codes() -> None:
    written = PAGE[PAGE.index(BEGIN) + len(BEGIN) : PAGE.index(END)]
    assert written == imports_table(), "python -m tests.programs.test_architecture writes it anew"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))))
def test_every_class_named_exists(name: str) -> None:
    found = [
        path
        for package in ("core", "vcam")
        for path in (ROOT / package).rglob("*.py")
        if re.search(rf"^\s*class {name}\b|^{name}\b.*=", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert found


@pytest.mark.parametrize("room", [*sorted(p.name for p in (ROOT / "vcam").iterdir() if (p / "__init__.py").is_file())])
def test_every_room_of_vcam_is_described(room: str) -> None:
    assert f"`vcam/{room}/`" in PAGE


if __name__ == "__main__":
    start, end = PAGE.index(BEGIN) + len(BEGIN), PAGE.index(END)
    text = PAGE[:start] + imports_table() + PAGE[end:]
    (ROOT / "docs" / "architecture.md").write_text(text, encoding="utf-8")
