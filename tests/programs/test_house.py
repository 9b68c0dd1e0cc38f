"""The house's own rules: who imports whom, one class a name, no class that nobody can keep in mind, a light start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.models.description import describe
from tests.support import import_graph
from tests.support.import_graph import imports, module_graph, modules, python_files, room_graph
from vcam.settings.profiles import load_profiles

ROOT = Path(__file__).parents[2]
HEAVY = {"av", "cv2", "diffusers", "numpy", "starlette", "torch", "transformers", "uvicorn"}
# What comes with an extra, if at all.
EXTRAS = {"SpoutGL", "c2pa", "cyndilib", "mido", "pythonosc", "pyvirtualcam", "rtmidi", "sounddevice", "syphon"}
# What may be imported of the engine anywhere, and at once: it loads nothing heavy.
LIGHT_CORE = ("core.settings", "core.errors", "core.folders")
# What may be imported at once by those who may import the engine.
QUICK_CORE = (
    "core.measure.alignment",
    "core.measure.clip",
    "core.measure.definitions",
    "core.measure.delay",
    "core.measure.identity",
    "core.measure.metrics",
    "core.measure.motion",
    "core.models.catalogue",
    "core.models.hub",
    "core.plans",
)
MAY_IMPORT_CORE = {
    "vcam/cli/arguments.py",
    "vcam/cli/engines.py",
    "vcam/cli/models.py",
    "vcam/control/thumbnails.py",
    "vcam/daemon/reports.py",
    "vcam/doctor/examine.py",
    "vcam/fit/small_models.py",
    "vcam/offline/bench.py",
    "vcam/offline/evaluate.py",
    "vcam/offline/pairing.py",
    "vcam/offline/suite/inputs.py",
    "vcam/offline/suite/page.py",
    "vcam/offline/suite/results.py",
    "vcam/offline/suite/run.py",
    "vcam/offline/translate.py",
    "vcam/settings/engine_options.py",
    "vcam/settings/model_facts.py",
    "vcam/video/landmarks.py",
    "vcam/worker/factories.py",
}
ROOMS, FLOORS, ARROWS = 19, 8, 68  # of vcam, at most
CHANGING_ATTRIBUTES = 12  # of a class, at most


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def in_folder(package: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", python_files(ROOT, package), ids=shown)


# ---------------------------------------------------------------- who imports whom


@in_folder("core")
def test_core_never_imports_vcam(path: Path) -> None:
    assert not [one.name for one in imports(path) if one.name.split(".")[0] == "vcam"]


@in_folder("vcam")
def test_vcam_imports_the_engine_late_and_in_few_places(path: Path) -> None:
    for one in imports(path):
        if one.name.split(".")[0] != "core" or one.name.startswith(LIGHT_CORE):
            continue
        assert shown(path) in MAY_IMPORT_CORE, f"{shown(path)} imports {one.name}"
        assert one.late or one.name.startswith(QUICK_CORE), (
            f"{shown(path)} imports {one.name} when it is itself imported"
        )


def test_those_who_may_import_the_engine_do() -> None:
    files = {shown(path): [one.name for one in imports(path)] for path in python_files(ROOT, "vcam")}
    using = {
        path
        for path, names in files.items()
        if any(name.split(".")[0] == "core" and not name.startswith(LIGHT_CORE) for name in names)
    }
    assert using == MAY_IMPORT_CORE


def circles() -> Iterator[str]:
    """The circles of modules and of rooms."""
    graph = module_graph(modules(ROOT, "core", "vcam"))
    for graphs in (graph, room_graph(graph, "core"), room_graph(graph, "vcam")):
        yield from ("circle: " + " ".join(names) for names in import_graph.circles(graphs))


def too_many_rooms() -> Iterator[str]:
    """What of vcam's house is larger than it may be."""
    rooms = room_graph(module_graph(modules(ROOT, "vcam")), "vcam")
    if len(rooms) > ROOMS:
        yield f"vcam has more than {ROOMS} rooms"
    if sum(len(goals) for goals in rooms.values()) > ARROWS:
        yield f"vcam has more than {ARROWS} arrows between its rooms"
    if not import_graph.circles(rooms) and import_graph.floors(rooms) > FLOORS:
        yield f"vcam has more than {FLOORS} floors"


@in_folder("tests")
def test_no_test_imports_another_test(path: Path) -> None:
    """What two of them need is in tests/support."""
    ours = [one.name for one in imports(path) if one.name.split(".")[0] == "tests"]
    assert [name for name in ours if not name.startswith("tests.support")] == []


def test_the_import_graph_sees_late_imports_and_circles(tmp_path: Path) -> None:
    house = tmp_path / "house"
    for name, text in {
        "__init__": "",
        "attic": "from house.hall import door\n",
        "hall.__init__": "",
        "hall.door": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import attic\n",
        "cellar": "import house.hall.door\n",
    }.items():
        path = house.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    rooms = room_graph(module_graph(modules(tmp_path, "house")), "house")
    assert rooms == {"house.attic": {"house.hall"}, "house.hall": set(), "house.cellar": {"house.hall"}}
    assert (import_graph.circles(rooms), import_graph.floors(rooms)) == ([], 2)
    (house / "hall" / "door.py").write_text("def open():\n    from house import attic\n")
    graph = module_graph(modules(tmp_path, "house"))
    assert import_graph.circles(graph) == [["house.attic", "house.hall.door"]]
    assert import_graph.circles(room_graph(graph, "house")) == [["house.attic", "house.hall"]]


# ---------------------------------------------------------------- classes


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]


def changing(cls: ast.ClassDef) -> set[str]:
    """The attributes that a class's methods give new values after its making, in whatever kind of assignment."""
    methods = [node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        target.attr
        for method in methods
        if method.name not in ("__init__", "__post_init__")
        for target in ast.walk(method)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store | ast.Del)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }


def class_names_that_stand_twice() -> Iterator[str]:
    """The names of public classes of core and vcam that are in more files than one."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in (*python_files(ROOT, "core"), *python_files(ROOT, "vcam")):
        for cls in classes(path):
            if not cls.name.startswith("_"):
                places[cls.name].append(shown(path))
    yield from (f"class {name}: {' '.join(where)}" for name, where in places.items() if len(where) > 1)


def classes_with_much_state() -> Iterator[str]:
    """The classes with more attributes that change than one can keep in mind."""
    for path in (*python_files(ROOT, "core"), *python_files(ROOT, "vcam")):
        for cls in classes(path):
            if len(changing(cls)) > CHANGING_ATTRIBUTES:
                yield f"{shown(path)}: {cls.name} has more than {CHANGING_ATTRIBUTES} attributes that change"


def test_every_kind_of_assignment_is_a_change() -> None:
    code = """
class Camera:
    def __init__(self):
        self.made = self.kept = 1
    def work(self):
        self.a, (self.b, *self.c) = 1, (2, 3)
        self.d += 1
        self.e: int = 2
        for self.f in (): ...
        with open("x") as self.g: ...
        del self.h
        self.kept.x = self.made
"""
    (cls,) = ast.parse(code).body
    assert isinstance(cls, ast.ClassDef)
    assert changing(cls) == set("abcdefgh")


# ---------------------------------------------------------------- all of it together

RULES = (circles, too_many_rooms, class_names_that_stand_twice, classes_with_much_state)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[], Iterator[str]]) -> None:
    assert list(rule()) == []


# ---------------------------------------------------------------- what must start light, and what is shipped


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vcam.cli.main", HEAVY),
        ("core.settings", HEAVY),
        ("core.measure.metrics", {"diffusers", "torch", "transformers"}),
        ("vcam.daemon.daemon", EXTRAS),
        ("vcam.devices.sinks", EXTRAS),
        ("vcam.control.osc", EXTRAS),
        ("vcam.control.midi", EXTRAS),
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


def test_the_readme_counts_the_styles_and_the_looks_that_are_there() -> None:
    words = {16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen", 20: "twenty", 21: "twenty-one"}
    known, looks = len(describe("embedded").styles), len(list((ROOT / "profiles").glob("*.toml")))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"[{words[known]} styles](docs/contact-sheet.jpg), of which {words[looks]} come as looks" in readme
