"""The real bindings of both TensorRT libraries: their classes, members and signatures.

`tensorrt` is imported without its libraries: empty ones stand in for what it links to. `tensorrt_rtx` is whole.

    python -m tests.support.tensorrt_bindings

writes the types (typings/) that mypy checks core/runtimes against: the classes that the stand-in has, with those of
their members that it has, in the real bindings' own words.
"""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import trt_stand_in

_LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# run in a process of its own: what is told of each class is its members' docstrings, or its members if it is an enum
_LOOK = """
import ctypes, json, sys
for library in sys.argv[2:]:
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
trt = __import__("tensorrt_rtx" if len(sys.argv) == 2 else "tensorrt_bindings")
def told(kind):
    if hasattr(kind, "__members__"):
        return {name: int(value) for name, value in kind.__members__.items()}
    members = {name: getattr(kind, name) for name in dir(kind) if name == "__init__" or not name.startswith("_")}
    return {n: (m.fget.__doc__ or "") if isinstance(m, property) else m.__doc__ for n, m in members.items()}
names = json.loads(sys.argv[1])
found = {name: told(getattr(trt, name)) for name in names}
found["Severity"] = told(trt.ILogger.Severity)
print(json.dumps({"version": trt.__version__, "classes": found}))
"""
# what gives None besides, by the bindings' documentation; their signatures do not tell
_MAY_BE_NONE = {
    "create_execution_context",
    "deserialize_cuda_engine",
    "get_aliased_input_tensor",
    "get_timing_cache",
    "serialize",
}
PACKAGES = {"tensorrt": "tensorrt-cu13-bindings", "tensorrt_rtx": "tensorrt-rtx"}


def why_not(module: str) -> str:
    """Why the bindings cannot be looked at here, "" if they can."""
    try:
        importlib.metadata.version(PACKAGES[module])
    except importlib.metadata.PackageNotFoundError:
        return f"{PACKAGES[module]} is not installed"
    if module == "tensorrt_rtx":
        return ""
    if sys.platform != "linux":
        return "the empty libraries are made for Linux only"
    if shutil.which("cc") is None:
        return "no C compiler, which makes the empty libraries"
    return ""


def look(module: str) -> dict[str, Any]:
    """version; classes: name -> member -> docstring, or member -> number for an enum."""
    names = json.dumps(sorted(trt_stand_in.PUBLIC[module]))
    if module == "tensorrt_rtx":
        done = subprocess.run([sys.executable, "-c", _LOOK, names], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))
    major = importlib.metadata.version("tensorrt-cu13-bindings").split(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "empty.c"
        code.write_text("\n".join(f"void *{symbol}(void) {{ return 0; }}" for symbol in _SYMBOLS))
        paths = [f"{folder}/{library}.so.{major}" for library in _LIBRARIES]
        for path in paths:
            command = ["cc", "-shared", "-fPIC", "-o", path, f"-Wl,-soname,{Path(path).name}", str(code)]
            subprocess.run(command, check=True, capture_output=True)
        done = subprocess.run([sys.executable, "-c", _LOOK, names, *paths], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def signatures(doc: str, name: str) -> list[str]:
    """The parameters and result of each overload that a docstring tells, such as `(name: str) -> int`."""
    plain = re.sub(r"tensorrt(_rtx)?_bindings\.tensorrt(_rtx)?\.|nvinfer1::", "", doc)
    found = re.findall(rf"^\s*(?:\d+\. )?{name}(\(self.*\) -> .*)$", plain, re.MULTILINE)
    return [re.sub(r"^\(self: [\w.]+(, )?", "(", one) for one in found]


def parameters(signature: str) -> list[str]:
    """The names of a signature's parameters."""
    inside = signature[1 : signature.rindex(") ->")]
    return re.findall(r"(\w+): ", re.sub(r"\[[^\]]*\]|<[^>]*>", "", inside))


def ours(kind: type) -> list[str]:
    """The public members of a stand-in's class, those that it inherits first."""
    own = [one for one in reversed(kind.__mro__) if one.__module__ == trt_stand_in.__name__]
    found = dict.fromkeys(name for one in own for name in vars(one))
    return [name for name in found if not name.startswith("_") and name not in ("Severity", "compiled")]


def stub_file(module: str) -> Path:
    """Where the types of a library are."""
    return Path(__file__).parents[2] / "typings" / module / "__init__.pyi"


def stub(module: str) -> str:
    """The .pyi file."""
    told = look(module)
    lines = [
        '"""TensorRT\'s Python bindings as far as they are used; tests/support/tensorrt_bindings.py writes this."""',
        "",
        f"# from {PACKAGES[module]} {told['version']}",
        "",
        "from collections.abc import Iterator",
        "from enum import Enum, IntEnum",
        "",
        "__version__: str",
        "",
        "class Dims:",
        "    def __iter__(self) -> Iterator[int]: ...",
        "",
        "class ParserError: ...",
        "class IParserError(ParserError): ...",
    ]
    for name, members in sorted(told["classes"].items()):
        if name == "Severity":
            continue
        kind = trt_stand_in.PUBLIC[module][name]
        if issubclass(kind, enum.Enum):
            lines += ["", *_enum(name, members)]
            continue
        lines += ["", f"class {name}:"]
        if name == "ILogger":
            lines += ["    class Severity(Enum):"]
            lines += [f"        {level} = {number}" for level, number in told["classes"]["Severity"].items()]
        if name == "IHostMemory":
            lines += ["    def __buffer__(self, flags: int) -> memoryview: ..."]
        lines += [line for member in ["__init__", *ours(kind)] for line in _member(kind, member, members)]
        if lines[-1].startswith("class "):
            lines[-1] += " ..."
    return "\n".join(lines) + "\n"


def _enum(kind: str, members: dict[str, int]) -> list[str]:
    base = "IntEnum" if kind.endswith("Flag") else "Enum"
    return [f"class {kind}({base}):", *(f"    {name} = {number}" for name, number in members.items())]


def _member(kind: type, name: str, members: dict[str, str]) -> list[str]:
    if name not in members:
        return []
    found = signatures(members[name] or "", name)
    if not found:
        typed = re.search(r"-> [\w:.]*?(\w+)\s", f"{members[name]} ")
        if name == "__init__" or typed is None:
            return []
        return [f"    {name}: {typed.group(1)}{' | None' if name == 'progress_monitor' else ''}"]
    wanted = inspect.signature(getattr(kind, name)).parameters.keys() - {"self"}
    if not wanted:
        result = found[0].rpartition(" -> ")[2]
        return [f"    def {name}(self) -> {result}{' | None' if name in _MAY_BE_NONE else ''}: ..."]
    if name == "create_execution_context":  # by its strategy or by a configuration
        wanted = {"runtime_config"}
    best = next((one for one in found if set(parameters(one)) == wanted), found[0])
    return [f"    def {name}(self, {_typed(best, name)[1:]}: ..."]


def _typed(signature: str, name: str) -> str:
    text = re.sub(r"(?:typing\.)?SupportsInt", "int", signature)
    text = re.sub(r"typing_extensions\.Buffer|\bbuffer\b|capsule", "bytes", text).replace("nvonnxparser::", "")
    text = re.sub(r"= <[^>]*>", "= ...", text)
    text = text.replace("IRuntimeConfig = None", "IRuntimeConfig | None = ...")
    text = text.replace("str = None", "str | None = ...").replace("parent_phase: str", "parent_phase: str | None")
    return text + (" | None" if name in _MAY_BE_NONE else "")


if __name__ == "__main__":
    for one in PACKAGES:
        stub_file(one).parent.mkdir(exist_ok=True)
        stub_file(one).write_text(stub(one), encoding="utf-8")
