"""Who imports whom, read from the sources: imports inside functions count, those for the type checker alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

Graph = dict[str, set[str]]  # module or room -> what it imports


class Import(NamedTuple):
    """A module, or a name of one, that a file imports."""

    name: str
    late: bool  # inside a function


def python_files(root: Path, package: str) -> list[Path]:
    return sorted(path for path in (root / package).rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[Import]:
    """Every module that the file imports when it runs; of `from a import b` the name is a.b."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), late=False)


def _imports(node: ast.AST, late: bool) -> Iterator[Import]:
    match node:
        case ast.Import():
            yield from (Import(alias.name, late) for alias in node.names)
        case ast.ImportFrom():
            yield from (Import(f"{node.module}.{alias.name}", late) for alias in node.names)
        case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for child in node.orelse:
                yield from _imports(child, late)
        case _:
            late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for inner in ast.iter_child_nodes(node):
                yield from _imports(inner, late)


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """The modules of these packages by their dotted names; a package's own is its __init__."""
    found = {}
    for package in packages:
        for path in python_files(root, package):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def module_graph(known: dict[str, Path]) -> Graph:
    """Which of the modules imports which."""
    graph: Graph = {name: set() for name in known}
    for name, path in known.items():
        for wanted in imports(path):
            module = wanted.name
            while module and module not in known:
                module = module.rpartition(".")[0]
            if module and module != name:
                graph[name].add(module)
    return graph


def room_graph(graph: Graph, package: str) -> Graph:
    """The same of the package's rooms: its sub-packages, and the modules that lie in no sub-package."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    inside = {module: goals for module, goals in graph.items() if module.startswith(f"{package}.")}
    rooms: Graph = {room(module): set() for module in inside}
    for module, goals in inside.items():
        rooms[room(module)] |= {room(goal) for goal in goals if goal in inside} - {room(module)}
    return rooms


def circles(graph: Graph) -> list[list[str]]:
    """Modules or rooms of which each imports, over others, every other one of them; sorted."""

    def reached(start: str) -> set[str]:
        found, waiting = set[str](), [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    goals = {name: reached(name) for name in graph}
    found = {tuple(sorted(other for other in goals[name] if name in goals[other])) for name in graph}
    return sorted(list(names) for names in found if names)


def floors(graph: Graph) -> int:
    """How many floors a house of these rooms has: the rooms on the longest way down. The graph has no circle."""
    height: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        height[room] = 1 + max((height[goal] for goal in graph.get(room, ())), default=0)
    return max(height.values(), default=0)
