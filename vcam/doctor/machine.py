"""Facts about this machine for `vcam doctor`: each function looks at one thing, and judges nothing."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Imported by a process of its own: a wheel that does not suit the processor kills what imports it. What is pure Python,
# or builds on what is imported here, is looked for and not imported: that took most of the time.
_LOAD = """
import importlib.util, json, sys
told = {"loads": {}, "devices": [], "cuda": None, "providers": []}
told["triton"] = importlib.util.find_spec("triton") is not None
for name in ("diffusers", "transformers"):
    told["loads"][name] = "" if importlib.util.find_spec(name) else f"there is no package {name}"
for name in ("numpy", "cv2", "av", "torch", "onnxruntime"):
    try:
        module = __import__(name)
        told["loads"][name] = ""
    except Exception as error:
        told["loads"][name] = f"{type(error).__name__}: {error}"
        continue
    if name == "torch":
        told["cuda"] = module.version.cuda
        if module.cuda.is_available():
            for i in range(module.cuda.device_count()):
                one = module.cuda.get_device_properties(i)
                told["devices"].append([one.name, one.total_memory])
        told["mps"] = bool(getattr(module.backends, "mps", None) and module.backends.mps.is_available())
    if name == "onnxruntime":
        told["providers"] = module.get_available_providers()
print(json.dumps(told))
"""


_OUTLOOK = """
import json, sys
from core.errors import StreamV2VError
from core.runtimes.load import outlook
try:
    told = outlook(sys.argv[1])
except StreamV2VError as error:
    told = None, str(error)
print(json.dumps(told))
"""


INCLUDED_MODEL_BYTES = 500_000_000  # of its process, as seen in real runs (docs/models.md)


@dataclass(frozen=True)
class PackageReport:
    """What loading the big packages told: package -> why it does not load ("" if it does); CUDA as PyTorch sees it.

    devices: name and memory in bytes. triton: whether it is there, which compiles for CUDA devices. failure: why the
    whole look failed, "" if it did not.
    """

    loads: dict[str, str]
    devices: tuple[tuple[str, int], ...] = ()
    cuda: str | None = None
    mps: bool = False
    providers: tuple[str, ...] = ()
    failure: str = ""
    triton: bool = False


def load_packages(timeout_s: float = 180.0) -> PackageReport:
    """Load the big packages in another process."""
    try:
        done = subprocess.run([sys.executable, "-P", "-c", _LOAD], capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return PackageReport({}, failure=str(error))
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return PackageReport({}, failure=f"status {done.returncode} {last}".strip())
    told = json.loads(done.stdout.splitlines()[-1])
    return PackageReport(
        told["loads"],
        tuple((str(name), int(memory)) for name, memory in told["devices"]),
        told["cuda"],
        bool(told.get("mps")),
        tuple(told["providers"]),
        triton=bool(told["triton"]),
    )


def outlook(model: str, timeout_s: float = 180.0) -> tuple[bool | None, str]:
    """Whether the model fits into the memory, None where that cannot be told, and a sentence; in another process.

    What the included model takes is known; of any other it is worked out, which takes some seconds.
    """
    if model == "embedded":
        import psutil

        free = psutil.virtual_memory().available
        sizes = f"the included model takes about {INCLUDED_MODEL_BYTES / 1e9:.1f} GB; {free / 1e9:.1f} GB are free"
        return free >= INCLUDED_MODEL_BYTES, sizes
    try:
        command = [sys.executable, "-P", "-c", _OUTLOOK, model]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    fits, told = json.loads(done.stdout.splitlines()[-1])
    return None if fits is None else bool(fits), str(told)


def requirements(distribution: str = "streamv2v-camera") -> list[str]:
    """Return what this program says it needs, as pip writes it: of the checkout, else of what is installed."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        import tomllib

        with contextlib.suppress(OSError, ValueError, KeyError):
            table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
            if table["name"] == distribution:
                extras = table.get("optional-dependencies", {})
                return list(table["dependencies"]) + [
                    f'{line}{" and" if ";" in line else ";"} extra == "{extra}"'
                    for extra, lines in extras.items()
                    for line in lines
                ]
    from importlib import metadata

    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def installed_version(package: str) -> str | None:
    """Return the version of a package, None if it is not there."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def nvidia_driver() -> tuple[str, str] | None:
    """(name of the GPU, driver's version) as nvidia-smi says; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    name, comma, version = done.stdout.partition("\n")[0].partition(",")
    return (name.strip(), version.strip()) if done.returncode == 0 and comma else ("", "")


# ------------------------------------------------------------------------------------------------------------- model


def broken_weights(path: Path) -> str:
    """Return what is wrong with a safetensors file, "" if nothing: its size must be what its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                return f"{path.name} has {size} bytes"
            (length,) = struct.unpack("<Q", start)
            if length > min(size, 100_000_000):
                return f"{path.name} is no safetensors file ({size} bytes)"
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path.name} cannot be read ({type(error).__name__})"
    return "" if size == 8 + length + end else f"{path.name} has {size} bytes of {8 + length + end}"


def broken_model(folder: Path) -> list[str]:
    """Return what is wrong with the files of a model's folder."""
    weights = sorted(folder.rglob("*.safetensors"))
    wrong = [said for path in weights if (said := broken_weights(path))]
    if not weights:
        wrong.append("there are no weights (*.safetensors)")
    for path in sorted(folder.rglob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            wrong.append(f"{path.name} cannot be read ({type(error).__name__})")
    wrong += [f"{path.name} is empty" for path in sorted(folder.rglob("*.onnx")) if not path.stat().st_size]
    return wrong


def changed_since_installed(distribution: str = "streamv2v-camera", under: str = "core/embedded_model/") -> list[str]:
    """Files of the installed program that are not what was installed, by the installation's own hashes."""
    import base64
    import hashlib
    from importlib import metadata

    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    changed = []
    for file in files:
        if not str(file).startswith(under) or file.hash is None:
            continue
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest() if path.is_file() else b""
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(path.name)
    return changed


# ------------------------------------------------------------------------------------------- the virtual camera, Linux


@dataclass(frozen=True)
class KernelModule:
    """The kernel module v4l2loopback: whether it is loaded, its version, whether it is there to be loaded at all."""

    loaded: bool
    version: str
    available: bool
    at_boot: bool
    options: str


def loopback_module(root: Path = Path("/"), release: str | None = None) -> KernelModule:
    """Return what is known of v4l2loopback without being root. `root` holds sys, lib/modules and etc."""
    loaded = (root / "sys/module/v4l2loopback").is_dir()
    version = _text(root / "sys/module/v4l2loopback/version")
    modules = root / "lib/modules" / (release or platform.release())
    available = loaded or (modules.is_dir() and any(modules.rglob("v4l2loopback.ko*")))
    folders = [root / "etc/modules-load.d", root / "usr/lib/modules-load.d"]
    at_boot = any(re.search(r"^\s*v4l2loopback", text, re.M) for text in _texts(folders))
    found = re.search(r"^\s*options\s+v4l2loopback\s+(.*)$", "\n".join(_texts([root / "etc/modprobe.d"])), re.M)
    return KernelModule(loaded, version, available, at_boot, found[1].strip() if found else "")


def secure_boot(root: Path = Path("/")) -> bool | None:
    """Whether the firmware refuses unsigned modules; None if it does not say (no EFI)."""
    for path in sorted((root / "sys/firmware/efi/efivars").glob("SecureBoot-*")):
        with contextlib.suppress(OSError):
            return path.read_bytes()[-1:] == b"\x01"
    return None


def groups_of_device(path: str) -> str:
    """Return the name of the group that owns a device, "" if it cannot be told."""
    if sys.platform != "win32":
        import grp

        with contextlib.suppress(OSError, KeyError):
            return grp.getgrgid(os.stat(path).st_gid).gr_name
    return ""


# --------------------------------------------------------------------------------------- the virtual camera, elsewhere

_DIRECTSHOW_CAMERAS = r"CLSID\{860BB310-5D01-11D0-BD3B-00A0C911CE86}\Instance"


def directshow_names(winreg: Any) -> list[str]:
    """Names of the DirectShow cameras registered for this process's word size; winreg: the module."""
    names = []
    try:
        with winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, _DIRECTSHOW_CAMERAS) as folder:
            for i in range(winreg.QueryInfoKey(folder)[0]):
                with winreg.OpenKey(folder, winreg.EnumKey(folder, i)) as one:
                    names.append(str(winreg.QueryValueEx(one, "FriendlyName")[0]))
    except OSError:
        return names  # no such class: no camera was ever registered
    return names


def mac_camera_extension(run: Callable[[list[str]], str] | None = None) -> str:
    """State of OBS's camera extension on macOS ("activated enabled", ...), "" if it is not there."""
    ask = run or _output
    for line in ask(["systemextensionsctl", "list"]).splitlines():
        if "obs-studio.mac-camera-extension" in line:
            state = re.search(r"\[([^\]]*)\]\s*$", line)
            return state[1] if state else line.strip()
    return ""


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


# ----------------------------------------------------------------------------------------------------- OBS, port, disk


@dataclass(frozen=True)
class ObsWebsocket:
    """OBS's websocket server: whether somebody answers, as OBS or not, its version, and whether it wants a password."""

    answers: bool
    is_obs: bool = False
    version: str = ""
    wants_password: bool = False


def obs_websocket(host: str, port: int, timeout_s: float = 2.0) -> ObsWebsocket:
    """Say hello to OBS's websocket server and leave again."""
    try:
        with socket.create_connection((host, port), timeout_s):
            pass
    except OSError:
        return ObsWebsocket(False)
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    try:
        with connect(
            f"ws://{host}:{port}",
            subprotocols=[Subprotocol("obswebsocket.json")],
            open_timeout=timeout_s,
            close_timeout=timeout_s,
            proxy=None,
        ) as link:
            hello = json.loads(link.recv(timeout_s))
        data = hello["d"]
        return ObsWebsocket(True, True, str(data["obsWebSocketVersion"]), "authentication" in data)
    except (OSError, ValueError, KeyError, TypeError, TimeoutError, WebSocketException):
        return ObsWebsocket(True)


def port_taken(port: int) -> bool:
    """Whether somebody listens at the port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_bytes(folder: Path) -> int | None:
    """Free space where the folder lies or would lie, in bytes; None if it cannot be told."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            with contextlib.suppress(OSError):
                return shutil.disk_usage(place).free
            return None
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _texts(folders: Iterable[Path]) -> list[str]:
    return [_text(path) for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.conf"))]
