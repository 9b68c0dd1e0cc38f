"""What `vcam doctor` makes of the facts: pure functions, each of one thing, each giving a Finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vcam.doctor.machine import KernelModule, ObsWebsocket, PackageReport

OUR_NAME = "StreamV2V Camera"
LOAD_MODULE = f'sudo modprobe v4l2loopback exclusive_caps=1 card_label="{OUR_NAME}"'
RELOAD_MODULE = f"close what uses it, then: sudo modprobe -r v4l2loopback && {LOAD_MODULE}"
JOIN_VIDEO = "sudo usermod -aG video $USER, then log out and in again"
LOW_DISK = 1 << 30  # bytes
NO_DISK = 100 << 20
LOOPBACK_FOR_NEW_KERNELS = (0, 15, 3)


class Mark(StrEnum):
    """good; note: it works, but something wished for is missing; bad: something needed is broken."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One line of `vcam doctor`: what was looked at, what was found, and what to do, "" where there is nothing."""

    name: str
    mark: Mark
    found: str
    remedy: str = ""


def good(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, Mark.GOOD, found)


def note(name: str, found: str, remedy: str = "") -> Finding:
    """Something wished for is missing."""
    return Finding(name, Mark.NOTE, found, remedy)


def bad(name: str, found: str, remedy: str) -> Finding:
    """Something needed is broken."""
    return Finding(name, Mark.BAD, found, remedy)


# ---------------------------------------------------------------------------------------------------- Python, packages


def check_python(version: tuple[int, int, int], bits: int) -> Finding:
    """Python 3.11 or newer, 64 bits."""
    found = f"{'.'.join(map(str, version))}, {bits} bits"
    if version < (3, 11):
        return bad("Python", found, "install Python 3.11 or newer, delete .venv, then ./install_scripts/run.sh")
    if bits != 64:
        return bad("Python", found, "install the 64-bit Python, delete .venv, then run the install script again")
    return good("Python", found)


def check_packages(requirements: Iterable[str], version_of: Callable[[str], str | None], python: str) -> list[Finding]:
    """Every package that is needed here in a version that is allowed; those of extras are only noted."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for line in requirements:
        one = Requirement(line)
        extra = _extra_of(line)
        version = version_of(one.name)
        if extra == "dev" or (one.marker is not None and not one.marker.evaluate({"extra": extra})):
            continue
        if extra == "tensorrt" and version is None:
            continue  # few have it, and nothing is missing without it
        count += 1
        if version is not None and one.specifier.contains(version, prereleases=True):
            continue
        found = f"{version}, but {one.specifier} is needed" if version else "is not installed"
        remedy = f'{python} -m pip install "{one.name}{one.specifier}"'
        wrong.append(
            note(one.name, f"{found} (extra {extra}: {_EXTRAS.get(extra, 'optional')})", remedy)
            if extra
            else bad(one.name, found, remedy)
        )
    if not count:
        return [note("packages", "what is needed cannot be told: this is no installation", "./install_scripts/run.sh")]
    return [good("packages", f"{count - len(wrong)} of {count} in an allowed version"), *wrong]


_EXTRAS = {"camera": "feeds the virtual camera", "obs": "OBS hotkeys", "tray": "tray icon", "tensorrt": "TensorRT"}


def _extra_of(line: str) -> str:
    _, _, after = line.partition("extra ==")
    return after.strip().strip("\"'").split('"')[0].split("'")[0]


def check_loading(told: PackageReport) -> Finding:
    """Check that the big packages load."""
    again = "delete .venv, then ./install_scripts/run.sh"
    if told.failure:
        return bad("loading", f"the packages cannot be loaded: {told.failure}", again)
    wrong = [f"{name}: {why}" for name, why in told.loads.items() if why]
    if wrong:
        return bad("loading", "; ".join(wrong), again)
    return good("loading", ", ".join(told.loads) + " load")


def check_gpu(driver: tuple[str, str] | None, told: PackageReport, system: str) -> Finding:
    """Judge the GPU, as the driver and as PyTorch see it."""
    if told.devices:
        names = ", ".join(f"{name} ({memory / 2**30:.0f} GiB)" for name, memory in told.devices)
        version = f", driver {driver[1]}" if driver and driver[1] else ""
        return good("GPU", f"{names}, CUDA {told.cuda}{version}")
    if told.mps:
        return good("GPU", "Apple's, by Metal")
    if driver is None:
        return good("GPU", "none that PyTorch can use: the included model runs on the CPU")
    if driver == ("", ""):
        return note("GPU", "nvidia-smi does not answer: the driver is not running", "restart; then nvidia-smi")
    if told.cuda is None:
        return note("GPU", f"{driver[0]}, but this PyTorch is built without CUDA", _CUDA_TORCH[system == "win32"])
    oldest = OLDEST_DRIVERS.get(told.cuda.partition(".")[0], 0)
    newer = f"NVIDIA's driver {oldest} or newer" if is_older(driver[1], oldest) else "a newer NVIDIA driver"
    return note(
        "GPU",
        f"{driver[0]}, driver {driver[1]}, but PyTorch (CUDA {told.cuda}) cannot use it",
        f"install {newer}, then restart",
    )


# the oldest driver that runs what is built for a CUDA, by NVIDIA's tables
OLDEST_DRIVERS = {"12": 525, "13": 580}


def is_older(driver: str, oldest: int) -> bool:
    """Whether a driver, such as 576.88, is older than that branch; not where its version cannot be read."""
    major = driver.partition(".")[0]
    return major.isdecimal() and int(major) < oldest


def check_rtx_driver(driver: tuple[str, str] | None, cuda: str) -> Finding | None:
    """Return that the driver is too old for TensorRT for RTX, built for that CUDA; None if it is not."""
    oldest = OLDEST_DRIVERS.get(cuda, 0)
    if driver is None or not is_older(driver[1], oldest):
        return None
    found = f"TensorRT for RTX, built for CUDA {cuda}, needs driver {oldest} or newer; this is {driver[1]}"
    return note("TensorRT", found, f"install NVIDIA's driver {oldest} or newer, then restart")


_CUDA_TORCH = {
    False: ".venv/bin/python -m pip install --force-reinstall torch",
    True: r".venv\Scripts\python -m pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130",
}


def check_runtimes(told: PackageReport) -> Finding:
    """List what may run the model."""
    torch = not told.loads.get("torch", "absent")
    found = {
        "eager": torch,
        "onnx": "CPUExecutionProvider" in told.providers,
        "compiled": torch and told.triton and bool(told.devices),
    }
    if not any(found.values()):
        return bad("runtimes", "none", "delete .venv, then ./install_scripts/run.sh")
    return good("runtimes", ", ".join(name for name, there in found.items() if there))


def check_tensorrt(why_not: str, version: str, verified: int, useless: int) -> Finding:
    """TensorRT, and how many engines are there for it. why_not: why it cannot run here, "" if it can."""
    if why_not:
        return good("TensorRT", f"not used: {why_not}")
    engines = f"{verified} engine{'s' * (verified != 1)} verified" if verified else "no engine yet"
    if useless:
        return note("TensorRT", f"{version}, {engines}, {useless} of no use", "vcam engines clean")
    if not verified:
        return note("TensorRT", f"{version}, {engines}", "vcam engines build")
    return good("TensorRT", f"{version}, {engines}")


def check_model(name: str, folder: Path | None, wrong: Sequence[str]) -> Finding:
    """Check that the files of the model are whole."""
    if folder is None:
        return bad("model", f"{name}: {wrong[0]}", "in config.toml set engine.model, or leave it out")
    if wrong:
        again = "git checkout core/embedded_model, or install again" if name == "embedded" else "get its files again"
        return bad("model", f"{name}: {'; '.join(wrong)}", again)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return good("model", f"{name}, {size / 2**20:.0f} MiB, files whole")


def check_memory(fits: bool | None, told: str) -> Finding:
    """Whether the model fits into the memory that is free; None: it could not be told, for the reason told."""
    if fits is None:
        return note("memory", f"what the model takes cannot be told: {told}")
    return good("memory", told) if fits else bad("memory", told, "close what uses it, or take a smaller --engine-size")


# ------------------------------------------------------------------------------------------------------------- cameras


def check_cameras(cameras: Sequence[tuple[str, str]]) -> Finding:
    """There is a real camera; each is (name, path)."""
    if not cameras:
        return note("cameras", "none found", "plug one in; vcam run --source pattern needs none")
    return good("cameras", ", ".join(f"{name} ({path})" for name, path in cameras))


def check_camera(name: str, path: str, may_open: bool, group: str, users: Sequence[str]) -> Finding | None:
    """Return what is wrong with one camera (Linux), None if nothing is."""
    if not may_open:
        join = JOIN_VIDEO if group in ("video", "") else f"sudo usermod -aG {group} $USER, then log out and in again"
        return bad(f"camera {name}", f"no permission for {path}", join)
    if users:
        return note(f"camera {name}", f"in use by {', '.join(users)}", "close it there, if vcam shall use it")
    return None


# -------------------------------------------------------------------------------------------------- the virtual camera


def check_module(module: KernelModule, kernel: tuple[int, int], secure: bool | None, wanted: bool) -> Finding:
    """v4l2loopback is loaded, and will be after the next start. wanted: the configuration asks for the camera."""
    name = "v4l2loopback"
    missing = bad if wanted else note
    if not module.available:
        return missing(name, "is not installed", "vcam setup camera")
    if not module.loaded:
        signed = " (Secure Boot is on: the module must be signed, see README 'Secure Boot')" if secure else ""
        return missing(name, f"is installed, but not loaded{signed}", "vcam setup camera")
    version = f"{module.version or 'of unknown version'} is loaded"
    parts = tuple(int(part) for part in module.version.split(".") if part.isdecimal())
    if kernel >= (6, 8) and parts and parts < LOOPBACK_FOR_NEW_KERNELS:
        text = ".".join(map(str, LOOPBACK_FOR_NEW_KERNELS))
        return note(name, f"{version}; with kernel {kernel[0]}.{kernel[1]} {text} is advised", "update the package")
    if not module.at_boot or OUR_NAME not in module.options:
        return note(name, f"{version}, but not set up for the next start", "vcam setup camera")
    return good(name, version)


@dataclass(frozen=True)
class Loopback:
    """A v4l2loopback device as found: with whom it is open, whether it announces both sides at once."""

    name: str
    path: str
    may_open: bool
    both_sides: bool
    users: tuple[str, ...] = ()


def check_loopback(devices: Sequence[Loopback], module: KernelModule, ours_runs: bool, wanted: bool) -> Finding:
    """One device has our label, exclusive_caps and permissions."""
    name = "virtual camera"
    ours = [device for device in devices if device.name == OUR_NAME]
    if not ours:
        missing = bad if wanted else note
        others = ", ".join(f"{device.path} ({device.name})" for device in devices)
        found = f'none is labelled "{OUR_NAME}"' + (f"; there are {others}" if others else "")
        return missing(name, found, RELOAD_MODULE if module.loaded else "vcam setup camera")
    device = ours[0]
    if not device.may_open:
        return bad(name, f"no permission for {device.path}", JOIN_VIDEO)
    if device.both_sides:
        return bad(name, f"{device.path} lacks exclusive_caps=1: Chrome and Zoom do not list it", RELOAD_MODULE)
    if device.users and not ours_runs:
        found = f"{device.path} is open in {', '.join(device.users)}"
        return note(name, found, "close it there if vcam run says that the camera is busy")
    twice = f"; {len(ours)} devices have this label, the first is taken" if len(ours) > 1 else ""
    return good(name, f"{OUR_NAME} ({device.path}), exclusive_caps, permissions{twice}")


def check_secure_boot(on: bool | None, loaded: bool) -> Finding:
    """Secure Boot refuses unsigned modules."""
    if on and not loaded:
        how = "sudo mokutil --import /var/lib/dkms/mok.pub (Ubuntu: /var/lib/shim-signed/mok/MOK.der), restart, enrol"
        return note("Secure Boot", "on: the kernel loads signed modules only", how)
    return good("Secure Boot", {True: "on, and the module is loaded", False: "off", None: "not there"}[on])


def check_windows_camera(names: Sequence[str], wanted: bool) -> Finding:
    """Check that a virtual camera is registered on Windows."""
    if OUR_NAME in names:
        return good("virtual camera", f"{OUR_NAME} (UnityCapture)")
    if "OBS Virtual Camera" in names:
        return good("virtual camera", "OBS Virtual Camera (this name is fixed; camera.ps1 gives our own)")
    missing = bad if wanted else note
    return missing("virtual camera", "none is registered", r".\install_scripts\camera.ps1")


def check_mac_camera(state: str, wanted: bool) -> Finding:
    """OBS's camera extension is on."""
    if "enabled" in state:
        return good("virtual camera", f"OBS Virtual Camera ({state})")
    missing = bad if wanted else note
    how = "install OBS 30 or newer, start it, click Start Virtual Camera, allow it in System Settings, then stop it"
    return missing("virtual camera", f"OBS's camera extension: {state or 'not there'}", how)


# ---------------------------------------------------------------------------------------------- OBS, port, files, disk


def check_obs(there: bool, host: str, port: int, link: ObsWebsocket) -> Finding:
    """OBS's websocket server answers; without OBS all else works."""
    where = f"{host}:{port}"
    if link.is_obs:
        password = "with" if link.wants_password else "without"
        return good("OBS", f"its websocket {link.version} answers at {where}, {password} a password")
    if link.answers:
        return note("OBS", f"{where} answers, but not as OBS", "in OBS: Tools > WebSocket Server Settings: the port")
    if not there:
        return note("OBS", f"is not installed, or not running; nothing answers at {where}", "only for OBS hotkeys")
    return note("OBS", f"does not answer at {where}", "start OBS; Tools > WebSocket Server Settings > Enable")


def check_port(port: int, taken: bool, ours: int | None) -> Finding:
    """Check that the panel's port is free, or our own. ours: the port of the running camera."""
    if ours is not None:
        return good("port", f"{ours}: the running camera's")
    if port == 0:
        return good("port", "the panel takes any free one")
    if taken:
        return note(
            "port", f"{port} is taken by another program: the panel takes the next free one", "vcam run --port N"
        )
    return good("port", f"{port} is free")


def check_files(name: str, folder: Path, count: int, problems: Sequence[str]) -> Finding:
    """Check that the user's files are valid: profiles, config.toml."""
    if problems:
        return bad(name, "; ".join(problems), f"mend or delete it in {folder}")
    return good(name, f"{count} valid" if count else f"nothing set ({folder})")


def check_disk(folders: Mapping[str, int | None]) -> Finding:
    """There is room to write."""
    low = {folder: free for folder, free in folders.items() if free is not None and free < LOW_DISK}
    if low:
        folder, free = min(low.items(), key=lambda item: item[1])
        judge = bad if free < NO_DISK else note
        return judge("disk", f"{free / 2**20:.0f} MiB free at {folder}", "delete what is not needed")
    known = [free for free in folders.values() if free is not None]
    return good("disk", f"{min(known) / 2**30:.0f} GiB free" if known else "cannot be told")


def check_running(state: str, reason: str) -> Finding:
    """Judge what the running camera says."""
    if not state:
        return good("the camera", "is not running")
    if state == "failed":
        return bad("the camera", f"{state}: {reason}", "vcam status tells more; then vcam resume")
    return good("the camera", f"{state}: {reason}" if reason else state)
