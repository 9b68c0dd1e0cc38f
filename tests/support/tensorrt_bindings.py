"""The real `tensorrt` bindings, imported without TensorRT's libraries: empty ones stand in for what they link to.

    python -m tests.support.tensorrt_bindings > typings/tensorrt/__init__.pyi

writes the types that mypy checks core/runtimes against: the classes that the stand-in has, with those of their members
that it has, in the real bindings' own words.
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
import tensorrt_bindings as trt
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
    "build_serialized_network",
    "create_execution_context",
    "deserialize_cuda_engine",
    "get_aliased_input_tensor",
    "get_timing_cache",
}
_KNOWN_CLASSES = {one.__name__ for one in trt_stand_in.PUBLIC}


def why_not() -> str:
    """Why the bindings cannot be looked at here, "" if they can."""
    if sys.platform != "linux":
        return "the empty libraries are made for Linux only"
    if shutil.which("cc") is None:
        return "no C compiler, which makes the empty libraries"
    try:
        importlib.metadata.version("tensorrt-cu13-bindings")
    except importlib.metadata.PackageNotFoundError:
        return "tensorrt-cu13-bindings is not installed"
    return ""


def look() -> dict[str, Any]:
    """version; classes: name -> member -> docstring, or member -> number for an enum."""
    major = importlib.metadata.version("tensorrt-cu13-bindings").split(".")[0]
    names = json.dumps(sorted(_KNOWN_CLASSES))
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
    plain = doc.replace("tensorrt_bindings.tensorrt.", "")
    found = re.findall(rf"^\s*(?:\d+\. )?{name}(\(self.*\) -> .*)$", plain, re.MULTILINE)
    return [re.sub(r"^\(self: [\w.]+(, )?", "(", one) for one in found]


def parameters(signature: str) -> list[str]:
    """The names of a signature's parameters."""
    inside = signature[1 : signature.rindex(") ->")]
    return re.findall(r"(\w+): ", re.sub(r"\[[^\]]*\]|<[^>]*>", "", inside))


def ours(kind: type) -> list[str]:
    """The public members of a stand-in's class."""
    return [name for name in vars(kind) if not name.startswith("_") and name != "Severity"]


def stub() -> str:
    """The .pyi file."""
    told = look()
    lines = [
        '"""TensorRT\'s Python bindings as far as they are used; tests/support/tensorrt_bindings.py writes this."""',
        "",
        f"# from tensorrt-cu13-bindings {told['version']}",
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
        kind = getattr(trt_stand_in, name)
        if issubclass(kind, enum.Enum):
            lines += ["", *_enum(kind, members)]
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


def _enum(kind: type, members: dict[str, int]) -> list[str]:
    base = "IntEnum" if kind.__name__.endswith("Flag") else "Enum"
    return [f"class {kind.__name__}({base}):", *(f"    {name} = {number}" for name, number in members.items())]


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
    best = next((one for one in found if set(parameters(one)) == wanted), found[0])
    return [f"    def {name}(self, {_typed(best, name)[1:]}: ..."]


def _typed(signature: str, name: str) -> str:
    text = re.sub(r"(?:typing\.)?SupportsInt", "int", signature)
    text = re.sub(r"typing_extensions\.Buffer|\bbuffer\b|capsule", "bytes", text).replace("nvonnxparser::", "")
    text = re.sub(r"= <[^>]*>", "= ...", text)
    text = text.replace("str = None", "str | None = ...").replace("parent_phase: str", "parent_phase: str | None")
    return text + (" | None" if name in _MAY_BE_NONE else "")


if __name__ == "__main__":
    print(stub(), end="")
