"""`vcam service`: the files that start the camera at login, and what is done with them, on fakes of each system."""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from vcam.cli import main as cli
from vcam.cli import service
from vcam.cli.service import Service
from vcam.errors import VcamError

COMMAND = ("/home/a b/.venv/bin/python", "-m", "vcam", "run")


class System:
    """Answers commands as told, and writes them down."""

    def __init__(self, answers: dict[str, tuple[int, str]] | None = None) -> None:
        self.asked: list[str] = []
        self.answers = answers or {}

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        line = " ".join(command)
        self.asked.append(line)
        return next((answer for words, answer in self.answers.items() if words in line), (0, ""))


def services(folder: Path) -> list[Service]:
    return [
        service.linux_service(COMMAND, folder, folder / "ours"),
        service.mac_service(COMMAND, folder, 501, folder / "ours"),
        service.windows_service(COMMAND, folder / "ours", "PC\\me"),
    ]


def test_the_unit_quotes_what_systemd_would_read_otherwise() -> None:
    text = service.systemd_unit(["/a b/100%/$HOME/py", "-m", 'say "x"'], Path("/a b/100%"))
    assert 'ExecStart="/a b/100%%/$$HOME/py" "-m" "say \\"x\\""\n' in text
    assert "WorkingDirectory=/a b/100%%\n" in text
    assert "Restart=on-failure" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze to check the unit with")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    path = tmp_path / service.UNIT
    path.write_text(service.systemd_unit([sys.executable, "-P", "-m", "vcam", "run"], tmp_path))
    done = subprocess.run(["systemd-analyze", "--user", "verify", str(path)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if "Failed to initialize manager" in said or "XDG_RUNTIME_DIR" in said:
        done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
        said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert service.UNIT not in said, said


def test_the_agent_is_a_property_list() -> None:
    told = plistlib.loads(service.launchd_agent(COMMAND, Path("/ours")))
    assert told["ProgramArguments"] == list(COMMAND)
    assert told["RunAtLoad"] is True
    assert told["WorkingDirectory"] == str(Path("/ours"))
    assert told["KeepAlive"] == {"SuccessfulExit": False}


def test_the_task_is_xml_for_this_user_alone() -> None:
    text = service.logon_task([r"C:\A & B\pythonw.exe", "-m", "vcam", "run", "a b"], "PC\\me & you", Path("C:/A & B"))
    root = ET.fromstring(text.partition("\n")[2])
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    assert root.findtext(f".//{space}Exec/{space}Command") == r"C:\A & B\pythonw.exe"
    assert root.findtext(f".//{space}Exec/{space}Arguments") == '-m vcam run "a b"'
    assert root.findtext(f".//{space}Exec/{space}WorkingDirectory") == str(Path("C:/A & B"))
    assert {one.text for one in root.iter(f"{space}UserId")} == {"PC\\me & you"}
    assert root.findtext(f".//{space}RunLevel") == "LeastPrivilege"


@pytest.mark.parametrize("index", range(3), ids=["linux", "mac", "windows"])
def test_it_is_installed_installed_again_and_removed(tmp_path: Path, index: int) -> None:
    one, system = services(tmp_path)[index], System()
    service.install(one, system)
    assert one.path.read_bytes() == one.content
    assert (tmp_path / "ours").is_dir(), "where it is run must be there"
    assert system.asked == [" ".join(command) for command in one.install]
    system.asked.clear()
    service.install(one, system)
    assert system.asked == [" ".join(command) for command in (*one.remove, *one.install)]
    assert service.remove(one, system) is True
    assert not one.path.exists()
    assert service.remove(one, system) is False


@pytest.mark.parametrize(
    ("index", "answer", "running"),
    [
        (0, (0, "active\n"), True),
        (0, (3, "inactive\n"), False),
        (1, (0, "gui/501/x = {\n\tstate = running\n"), True),
        (1, (0, "\tstate = not running\n"), False),
        (2, (0, "TaskName: x\nStatus:    Running\n"), True),
        (2, (0, "Status:    Ready\n"), False),
    ],
)
def test_its_status(tmp_path: Path, index: int, answer: tuple[int, str], running: bool) -> None:
    one = services(tmp_path)[index]
    system = System({" ".join(one.ask): answer})
    assert service.status(one, system).installed is False
    service.install(one, System())
    told = service.status(one, system)
    assert (told.installed, told.running) == (True, running)


def test_a_refusal_names_the_command_and_the_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    """A unit was left behind that nothing starts, and `remove` then said that it is not installed."""
    one, system = services(tmp_path)[0], System({"enable": (1, "Failed to connect to bus\nmore")})
    with pytest.raises(VcamError, match=r"enable --now .* failed \(Failed to connect to bus\); nothing .*linger"):
        service.install(one, system)
    assert not one.path.exists()
    assert service.status(one, System()).installed is False


def test_a_system_without_the_program_is_told() -> None:
    assert service._run(["there-is-no-such-program"]) == (127, "there is no there-is-no-such-program on this system")
    assert service._run([sys.executable, "-c", "print('x'); exit(3)"]) == (3, "x")


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of Linux")
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    system = System({"is-active": (0, "active")})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(service, "_run", system)
    assert cli.main(["service", "status"]) == 0
    assert "is not installed" in capsys.readouterr().out
    assert cli.main(["service", "install", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["installed"], told["running"]) == (True, True)
    path = tmp_path / "systemd" / "user" / service.UNIT
    assert f'ExecStart="{sys.executable}" "-P" "-m" "vcam" "run"' in path.read_text()
    assert cli.main(["service", "status"]) == 0
    assert "runs" in capsys.readouterr().out
    assert cli.main(["service", "remove"]) == 0
    assert not path.exists()
