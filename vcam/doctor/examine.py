"""`vcam doctor`: looks at this machine as Zoom would, says what it found, and prints the remedy."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core import folders
from core.errors import StreamV2VError
from vcam.doctor import checks, machine
from vcam.doctor.checks import Finding, Mark

if TYPE_CHECKING:
    from vcam.settings.config import ObsSettings

_SIGNS = {Mark.GOOD: "✓", Mark.NOTE: "!", Mark.BAD: "✗"}
_PLAIN_SIGNS = {Mark.GOOD: "ok ", Mark.NOTE: "!  ", Mark.BAD: "BAD"}


def examine(say: Callable[[str], object] = lambda text: None) -> list[Finding]:
    """Look at everything; takes seconds, and never raises for what it finds. say: is told what takes them."""
    from vcam.settings.config import Config, config_folder, load_config
    from vcam.settings.engine_options import DEFAULT_MODEL

    try:
        config, problem = load_config(), ""
    except StreamV2VError as error:
        config, problem = Config(), str(error)
    model = config.engine.model or DEFAULT_MODEL
    with ThreadPoolExecutor(2) as beside:  # two processes of their own take nearly all the time
        loading, memory = beside.submit(machine.load_packages), beside.submit(machine.outlook, model)
        say("looking at cameras, OBS, profiles and the disk")
        first = [
            checks.check_python(sys.version_info[:3], struct.calcsize("P") * 8),
            *checks.check_packages(machine.requirements(), machine.installed_version, sys.executable),
        ]
        last = [
            *_cameras(),
            *_virtual_camera(config.sink == "camera"),
            _obs(config.obs),
            _port(config.port),
            checks.check_files("config.toml", config_folder(), int(_has_config()), [problem] if problem else []),
            _profiles(),
            _disk(),
            _running(),
        ]
        say("loading the packages, as the camera would")
        told = loading.result()
        say("working out the memory that the model takes")
        engine = [
            checks.check_loading(told),
            checks.check_gpu(driver := machine.nvidia_driver(), told, sys.platform),
            checks.check_runtimes(told),
            _tensorrt(driver),
            _model(model),
            checks.check_memory(*memory.result()),
        ]
    return [*first, *engine, *last]


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return an object for JSON: ok, and the findings."""
    return {"ok": is_well(findings), "findings": [asdict(one) for one in findings]}


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing needed is broken."""
    return all(one.mark is not Mark.BAD for one in findings)


def as_text(findings: Sequence[Finding], encoding: str | None = "utf-8") -> str:
    """Return a line for each finding, with a mark that the encoding can show, and one for what to do."""
    try:
        "".join(_SIGNS.values()).encode(encoding or "ascii")
        signs = _SIGNS
    except (UnicodeEncodeError, LookupError):
        signs = _PLAIN_SIGNS
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{signs[one.mark]} {one.name:<{width}}  {one.found}")
        if one.remedy:
            lines.append(f"{' ' * len(signs[one.mark])} {'':<{width}}  -> {one.remedy}")
    count = sum(one.mark is Mark.BAD for one in findings)
    verdict = f"{count} to mend: see {signs[Mark.BAD].strip()}" if count else "nothing needed is broken"
    return "\n".join([*lines, verdict])


def _model(name: str) -> Finding:
    from core.errors import ModelError
    from core.models.description import describe, require

    try:
        require(name)
        folder = describe(name).folder
    except ModelError as error:
        return checks.check_model(name, None, [str(error)])
    wrong = machine.broken_model(folder)
    if name == "embedded":
        wrong += [f"{file} was changed since it was installed" for file in machine.changed_since_installed()]
    return checks.check_model(name, folder, wrong)


def _tensorrt(driver: tuple[str, str] | None) -> Finding:
    from core.runtimes.tensorrt import cache, readiness
    from core.runtimes.tensorrt.library import named

    for cuda in checks.OLDEST_DRIVERS:
        if machine.installed_version(f"tensorrt_rtx_cu{cuda}_libs"):
            old = checks.check_rtx_driver(driver, cuda)
            if old is not None:
                return old
    machine_here, why = readiness.this_machine()
    if machine_here is None:
        return checks.check_tensorrt(why, "", 0, 0)
    plans = cache.listing(machine_here)
    good = [one for one in plans if not one.problem and one.manifest and one.manifest.verdict == "verified"]
    useless = sum(bool(one.problem) and not one.elsewhere for one in plans)
    return checks.check_tensorrt("", named(machine_here.library).name, len(good), useless)


def _cameras() -> list[Finding]:
    from vcam.devices.cameras import list_cameras

    cameras = list_cameras()
    found = [checks.check_cameras([(camera.name, str(camera.path)) for camera in cameras])]
    if sys.platform == "linux":
        from vcam.devices import v4l2

        for camera in cameras:
            path = str(camera.path)
            may = os.access(path, os.R_OK | os.W_OK)
            one = checks.check_camera(camera.name, path, may, machine.groups_of_device(path), v4l2.holders(path))
            found += [one] if one else []
    return found


def _virtual_camera(wanted: bool) -> list[Finding]:
    if sys.platform == "win32":
        import winreg

        return [checks.check_windows_camera(machine.directshow_names(winreg), wanted)]
    if sys.platform == "darwin":
        return [checks.check_mac_camera(machine.mac_camera_extension(), wanted)]
    return _linux_virtual_camera(wanted)


def _linux_virtual_camera(wanted: bool) -> list[Finding]:
    if sys.platform != "linux":
        return []
    from vcam.devices import v4l2

    module, secure = machine.loopback_module(), machine.secure_boot()
    major, minor = os.uname().release.split(".")[:2]
    kernel = int(major), int("".join(c for c in minor if c.isdecimal()) or 0)
    devices = [
        checks.Loopback(
            one.name,
            one.path,
            os.access(one.path, os.R_OK | os.W_OK),
            one.captures and one.takes_output,
            tuple(v4l2.holders(one.path)),
        )
        for one in v4l2.devices()
        if one.is_loopback
    ]
    return [
        checks.check_module(module, kernel, secure, wanted),
        checks.check_loopback(devices, module, _status() is not None, wanted),
        checks.check_secure_boot(secure, module.loaded),
    ]


def _obs(settings: ObsSettings) -> Finding:
    from vcam.obs import places

    if not settings.enabled:
        return checks.good("OBS", "switched off in config.toml")
    where = places.address(settings)
    there = bool(shutil.which("obs") or shutil.which("obs64") or places.config_folders())
    return checks.check_obs(there, where.host, where.port, machine.obs_websocket(where.host, where.port))


def _port(wanted: int) -> Finding:
    status = _status()
    return checks.check_port(wanted, wanted != 0 and machine.port_taken(wanted), status.panel_port if status else None)


def _has_config() -> bool:
    from vcam.settings.config import config_folder

    return os.path.exists(config_folder() / "config.toml")  # of one in a folder that is closed to us, too: not there


def _profiles() -> Finding:
    from vcam.settings.profiles import load_profiles, user_profile_folder

    profiles, problems = load_profiles()
    return checks.check_files("profiles", user_profile_folder(), len(profiles), [str(one) for one in problems])


def _disk() -> Finding:
    from vcam.client import state_folder
    from vcam.settings.config import config_folder

    places = (folders.home(), config_folder(), state_folder())
    return checks.check_disk({str(place): machine.free_bytes(place) for place in places})


def _running() -> Finding:
    status = _status()
    return checks.check_running(status.state, status.reason) if status else checks.check_running("", "")


def _status() -> Any:
    from vcam import client

    try:
        return client.status()
    except StreamV2VError:
        return None
