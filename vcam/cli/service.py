"""`vcam service`: StreamV2V Camera started at login: a systemd user unit, a launchd agent or a Windows logon task."""

from __future__ import annotations

import contextlib
import os
import plistlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from core import folders
from vcam.errors import ServiceError
from vcam.settings.config import config_folder

UNIT = "streamv2v-camera.service"
AGENT = "org.streamv2v.camera"
TASK = "StreamV2V Camera"

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command; its exit status and what it said."""


@dataclass(frozen=True)
class Service:
    """How a system starts a program at login: a file, and the commands that make it known, forget it and ask for it.

    folder: where the program is run: one of ours, because a program may take what lies where it stands for its own.
    running: what `ask` says in its answer while the service runs.
    """

    kind: str
    path: Path
    content: bytes
    folder: Path
    install: tuple[tuple[str, ...], ...]
    remove: tuple[tuple[str, ...], ...]
    ask: tuple[str, ...]
    running: str


@dataclass(frozen=True)
class ServiceStatus:
    """Whether the service is there and runs."""

    kind: str
    path: str
    installed: bool
    running: bool


# ------------------------------------------------------------------------------------------ the files: pure functions


def systemd_unit(command: Sequence[str], folder: Path) -> str:
    """Return the unit's text for a command line that is run in `folder`."""
    line = " ".join(_quoted(word) for word in command)
    return f"""[Unit]
Description=StreamV2V Camera
Documentation=https://arxiv.org/abs/2405.15757
After=graphical-session.target

[Service]
ExecStart={line}
WorkingDirectory={_escaped(str(folder))}
Restart=on-failure
RestartSec=3
TimeoutStopSec=20

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """Quote a word so that systemd reads it back as it is, specifiers and variables included."""
    plain = _escaped(word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$"))
    return f'"{plain}"'


def _escaped(path: str) -> str:
    """Return the text with systemd's specifiers made plain; a path is neither quoted nor split."""
    return path.replace("%", "%%")


def launchd_agent(command: Sequence[str], folder: Path) -> bytes:
    """Return the agent's property list for a command line that is run in `folder`."""
    return plistlib.dumps(
        {
            "Label": AGENT,
            "ProgramArguments": list(command),
            "WorkingDirectory": str(folder),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ProcessType": "Interactive",
        }
    )


def logon_task(command: Sequence[str], user: str, folder: Path) -> str:
    """Return the task's XML for a command line that is run in `folder`; user: DOMAIN\\name."""
    arguments = subprocess.list2cmdline(list(command[1:]))
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>StreamV2V Camera</Description></RegistrationInfo>
  <Triggers>
    <LogonTrigger><Enabled>true</Enabled><UserId>{escape(user)}</UserId></LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{escape(user)}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>10</Count></RestartOnFailure>
    <Enabled>true</Enabled>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(command[0])}</Command>
      <Arguments>{escape(arguments)}</Arguments>
      <WorkingDirectory>{escape(str(folder))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""


# ------------------------------------------------------------------------------------------------------- the systems


def linux_service(command: Sequence[str], config_home: Path, folder: Path) -> Service:
    """Return the systemd user unit."""
    systemctl = ("systemctl", "--user")
    return Service(
        kind="systemd user unit",
        path=config_home / "systemd" / "user" / UNIT,
        content=systemd_unit(command, folder).encode(),
        folder=folder,
        install=((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", UNIT)),
        remove=((*systemctl, "disable", "--now", UNIT),),
        ask=(*systemctl, "is-active", UNIT),
        running="active",
    )


def mac_service(command: Sequence[str], home: Path, uid: int, folder: Path) -> Service:
    """Return the launchd agent."""
    path = home / "Library" / "LaunchAgents" / f"{AGENT}.plist"
    return Service(
        kind="launchd agent",
        path=path,
        content=launchd_agent(command, folder),
        folder=folder,
        install=(("launchctl", "bootstrap", f"gui/{uid}", str(path)),),
        remove=(("launchctl", "bootout", f"gui/{uid}/{AGENT}"),),
        ask=("launchctl", "print", f"gui/{uid}/{AGENT}"),
        running="state = running",
    )


def windows_service(command: Sequence[str], folder: Path, user: str) -> Service:
    """Return the logon task; folder: where its XML is kept."""
    path = folder / "logon-task.xml"
    return Service(
        kind="logon task",
        path=path,
        content=logon_task(command, user, folder).encode("utf-16"),
        folder=folder,
        install=(("schtasks", "/Create", "/F", "/TN", TASK, "/XML", str(path)), ("schtasks", "/Run", "/TN", TASK)),
        remove=(("schtasks", "/End", "/TN", TASK), ("schtasks", "/Delete", "/F", "/TN", TASK)),
        ask=("schtasks", "/Query", "/TN", TASK, "/FO", "LIST"),
        running="Running",
    )


def this_systems_service() -> Service:
    """Return the service of the system that this runs on; it starts `vcam run` as config.toml says."""
    command = (_python(), "-P", "-m", "vcam", "run")
    folder = config_folder()
    if sys.platform == "win32":
        user = f"{os.environ.get('USERDOMAIN', '.')}\\{os.environ.get('USERNAME', '')}"
        return windows_service(command, folder, user)
    if sys.platform == "darwin":
        return mac_service(command, folders.home(), os.getuid(), folder)
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or folders.home() / ".config")
    return linux_service(command, config_home, folder)


def _python() -> str:
    """Return this Python; on Windows the one that opens no window."""
    windowless = Path(sys.executable).with_name("pythonw.exe")
    return str(windowless if sys.platform == "win32" and windowless.exists() else sys.executable)


# ------------------------------------------------------------------------------------------------------ what is done


def install(service: Service, run: Run | None = None) -> None:
    """Write the file and make it known; done again, it takes the new file. Raises ServiceError."""
    run = run or _run
    if service.path.exists():
        _forget(service, run)
    try:
        for folder in (service.path.parent, service.folder):
            folders.make(folder)
        service.path.write_bytes(service.content)
    except OSError as error:
        raise ServiceError(f"{service.path} cannot be written: {error.strerror}") from error
    for command in service.install:
        code, said = run(command)
        if code != 0:
            remove(service, run)  # a file that starts nothing would only be in the way
            raise ServiceError(
                f"{' '.join(command)} failed ({_first_line(said)}); nothing is installed{_what_is_missing(said)}"
            )


def remove(service: Service, run: Run | None = None) -> bool:
    """Stop it, forget it, delete the file; False if it was not there."""
    there = service.path.exists()
    _forget(service, run or _run)
    with contextlib.suppress(FileNotFoundError):
        service.path.unlink()
    return there


def status(service: Service, run: Run | None = None) -> ServiceStatus:
    """Whether it is installed and runs."""
    there = service.path.exists()
    code, said = (run or _run)(service.ask) if there else (1, "")
    running = code == 0 and any(line.strip().endswith(service.running) for line in said.splitlines())
    return ServiceStatus(service.kind, str(service.path), there, running)


def _what_is_missing(said: str) -> str:
    """Return what to do about a user's systemd that cannot be reached; "" for any other refusal."""
    if "bus" not in said.lower():
        return ""
    return ": log in as this user itself, not by su or sudo, or: sudo loginctl enable-linger $USER"


def _forget(service: Service, run: Run) -> None:
    for command in service.remove:
        run(command)  # one that is not known is already forgotten


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return 127, f"there is no {command[0]} on this system"
    except subprocess.TimeoutExpired:
        return 124, "no answer within a minute"
    return done.returncode, (done.stdout + done.stderr).strip()


def _first_line(said: str) -> str:
    return said.strip().splitlines()[0] if said.strip() else "it said nothing"
