"""The files of deploy/: what systemd and compose make of them, and whether they say what the program takes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vcam.cli.arguments import build_parser
from vcam.settings.config import SERVER_PORT

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "vcam-serve.service"
# of compose's specification (compose-spec), as far as these files need it
SERVICE_KEYS = {
    "build",
    "cap_drop",
    "command",
    "deploy",
    "environment",
    "image",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "shm_size",
    "tmpfs",
    "volumes",
}


def compose() -> dict[str, Any]:
    found = pytest.importorskip("yaml").safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile.serve").read_text(encoding="utf-8").replace("\\\n", " ")


def takes(command: list[str]) -> None:
    """The program knows these arguments."""
    build_parser().parse_args(command)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(encoding="utf-8"), flags=re.M)
    (tmp_path / UNIT.name).write_text(text.replace("User=vcam\n", "User=root\n"))  # who is not there on every machine
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    ours = [line for line in (ran.stdout + ran.stderr).splitlines() if UNIT.name in line]
    assert (ran.returncode, ours) == (0, [])


def test_the_units_program_takes_its_arguments_and_may_write_what_it_must() -> None:
    lines = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.M))
    program, *command = shlex.split(lines["ExecStart"])
    assert program.endswith("/vcam")
    takes(command)
    state = f"/var/lib/{lines['StateDirectory']}"
    assert all(place.startswith(state) for place in re.findall(r"(?:FOLDER|HOME)=(\S+)", lines["Environment"]))
    assert "HOME=" in lines["Environment"]


def test_compose_has_the_keys_of_its_specification_and_says_what_the_program_takes() -> None:
    found = compose()
    assert found.keys() <= {"services", "volumes", "networks", "name"}
    (service,) = found["services"].values()
    assert service.keys() <= SERVICE_KEYS
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    takes(["serve", *service["command"]])
    assert service["ports"] == [f"{SERVER_PORT}:{SERVER_PORT}"]
    mounts = dict(one.split(":") for one in service["volumes"])
    assert mounts.keys() <= found["volumes"].keys()
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert device.keys() <= {"capabilities", "count", "device_ids", "driver", "options"}


def test_what_the_container_keeps_lies_in_its_volume_and_the_rest_is_not_written() -> None:
    (service,) = compose()["services"].values()
    kept = [one.split(":")[1] for one in service["volumes"]]
    folders = dict(re.findall(r"(VCAM_\w+_FOLDER)=(\S+)", dockerfile()))
    assert folders.keys() == {"VCAM_STATE_FOLDER", "VCAM_MODELS_FOLDER"}  # certificate and clients; models
    assert all(place.startswith(f"{kept[0]}/") for place in folders.values())
    assert service["read_only"]


def test_the_container_copies_what_the_package_is_made_of() -> None:
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", dockerfile(), flags=re.M) for word in line.split()}
    assert all((DEPLOY.parent / word).exists() for word in copied)
    assert {"core", "vcam", "profiles", "pyproject.toml", "constraints.txt"} <= copied
