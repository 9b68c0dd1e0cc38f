"""install_scripts/camera.sh on made-up systems: what it says, asks, does, does not do twice, and takes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "install_scripts" / "camera.sh"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the .sh scripts are for Unix")

KERNEL = "6.1.0-test"
# Stands in for every program that changes a system: writes down the call, and does what matters for the next look.
FAKE = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"$LOG"
case "$name $*" in
    "id -u") echo 0 ;;
    "id -un") echo me ;;
    "id -nG"*) cat "$CAMERA_ROOT/groups" ;;
    "uname -s") echo "${SYSTEM:-Linux}" ;;
    "uname -r") echo 6.1.0-test ;;
    "sw_vers"*) echo "${MAC:-14.5}" ;;
    "apt-get install"* | "dnf install"* | "pacman -S"*)
        mkdir -p "$CAMERA_ROOT/lib/modules/6.1.0-test" && touch "$CAMERA_ROOT/lib/modules/6.1.0-test/v4l2loopback.ko" ;;
    "modprobe -r"*)
        [ -z "$IN_USE" ] || exit 1
        rm -rf "$CAMERA_ROOT/sys/module/v4l2loopback" "$CAMERA_ROOT/sys/class/video4linux" ;;
    "modprobe v4l2loopback"*)
        [ -z "$REFUSED" ] || { echo "modprobe: ERROR: Key was rejected by service" >&2; exit 1; }
        mkdir -p "$CAMERA_ROOT/sys/module/v4l2loopback" "$CAMERA_ROOT/sys/class/video4linux/video0"
        echo "StreamV2V Camera" >"$CAMERA_ROOT/sys/class/video4linux/video0/name" ;;
    "usermod"*) echo video >>"$CAMERA_ROOT/groups" ;;
esac
"""
CHANGES = ("apt-get", "dnf", "pacman", "modprobe", "usermod", "gpasswd", "akmods", "depmod")


class System:
    """A system's files below a folder, and fakes of the programs that would change it."""

    def __init__(self, folder: Path, distribution: str = "debian") -> None:
        self.root, self.log, programs = folder / "root", folder / "log", folder / "programs"
        for name in ("etc/modprobe.d", "etc/modules-load.d", f"lib/modules/{KERNEL}", f"usr/lib/modules/{KERNEL}"):
            (self.root / name).mkdir(parents=True)
        (self.root / "etc" / "os-release").write_text(f"ID={distribution}\n")
        (self.root / f"usr/lib/modules/{KERNEL}/pkgbase").write_text("linux-zen\n")
        (self.root / "groups").write_text("me\n")
        programs.mkdir()
        for name in (*CHANGES, "id", "uname", "sw_vers"):
            (programs / name).write_text(FAKE)
            (programs / name).chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def start(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        told = {"PATH": self.path, "LOG": str(self.log), "CAMERA_ROOT": str(self.root), "USER": "me", "SUDO_USER": ""}
        return subprocess.run(
            [str(SCRIPT), *arguments],
            env=os.environ | told | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def changes(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[0] in CHANGES]

    @property
    def options(self) -> Path:
        return self.root / "etc/modprobe.d/streamv2v-camera.conf"


@pytest.mark.parametrize(
    ("distribution", "call"),
    [
        ("debian", f"apt-get install -y v4l2loopback-dkms linux-headers-{KERNEL}"),
        ("ubuntu", f"apt-get install -y v4l2loopback-dkms linux-headers-{KERNEL}"),
        ("fedora", "dnf install -y akmod-v4l2loopback"),
        ("arch", "pacman -S --needed --noconfirm v4l2loopback-dkms linux-zen-headers"),
    ],
)
def test_it_sets_up_once_and_takes_everything_back(tmp_path: Path, distribution: str, call: str) -> None:
    system = System(tmp_path, distribution)
    first = system.start("--yes")
    assert first.returncode == 0, first.stderr
    changes = system.changes()
    assert call in changes
    assert "usermod -aG video me" in changes
    assert changes[-1] == "modprobe v4l2loopback exclusive_caps=1 card_label=StreamV2V Camera"
    assert 'options v4l2loopback exclusive_caps=1 card_label="StreamV2V Camera"\n' in system.options.read_text()
    at_boot = system.root / "etc/modules-load.d/streamv2v-camera.conf"
    assert at_boot.read_text() == "v4l2loopback\n"

    second = system.start("--yes")
    assert second.returncode == 0, second.stderr
    assert "needs nothing" in second.stderr
    assert system.changes() == []

    undone = system.start("--undo", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert not system.options.exists()
    assert not at_boot.exists()
    changes = system.changes()
    assert "gpasswd -d me video" in changes
    assert "modprobe -r v4l2loopback" in changes
    assert any(re.match(r"(apt-get remove|dnf remove|pacman -R) .*v4l2loopback", line) for line in changes)
    assert "Nothing is left" in system.start("--undo", "--yes").stderr


def test_what_was_there_before_is_not_taken_back(tmp_path: Path) -> None:
    system = System(tmp_path)
    (system.root / f"lib/modules/{KERNEL}/v4l2loopback.ko").touch()
    (system.root / "groups").write_text("me video\n")
    assert system.start("--yes").returncode == 0
    assert system.start("--undo", "--yes").returncode == 0
    assert system.changes() == ["modprobe -r v4l2loopback"]


def test_it_does_nothing_without_a_yes(tmp_path: Path) -> None:
    system = System(tmp_path)
    for arguments, status in (((), 1), (("--dry-run",), 0)):
        told = system.start(*arguments)
        assert told.returncode == status
        assert "install v4l2loopback-dkms" in told.stderr
        assert "put me in the group video" in told.stderr
        assert system.changes() == []
    assert not system.options.exists()


def test_a_half_done_set_up_is_finished_and_still_taken_back_whole(tmp_path: Path) -> None:
    system = System(tmp_path)
    failed = system.start("--yes", REFUSED="1")
    assert failed.returncode == 1
    assert system.start("--yes").returncode == 0
    assert not any(line.startswith("apt-get") for line in system.changes()), "it is installed already"
    system.start("--undo", "--yes")
    assert "apt-get remove -y v4l2loopback-dkms" in system.changes()


def test_options_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    system = System(tmp_path)
    other = system.root / "etc/modprobe.d/obs.conf"
    other.write_text('options v4l2loopback card_label="OBS Virtual Camera"\n')
    told = system.start("--yes")
    assert told.returncode == 1
    assert "obs.conf sets options of v4l2loopback already" in told.stderr
    assert system.changes() == []


def test_secure_boot_is_explained_where_the_kernel_refuses(tmp_path: Path) -> None:
    system = System(tmp_path)
    firmware = system.root / "sys/firmware/efi/efivars"
    firmware.mkdir(parents=True)
    (firmware / "SecureBoot-8be4df61").write_bytes(b"\6\0\0\0\1")
    told = system.start("--yes", REFUSED="1")
    assert told.returncode == 1
    assert "mokutil --import" in told.stderr
    assert "Enroll MOK" in told.stderr


def test_a_module_in_use_is_told(tmp_path: Path) -> None:
    system = System(tmp_path)
    (system.root / "sys/module/v4l2loopback").mkdir(parents=True)
    told = system.start("--yes", IN_USE="1")
    assert told.returncode == 1
    assert "is in use" in told.stderr


def test_an_unknown_distribution_is_told(tmp_path: Path) -> None:
    system = System(tmp_path, "plan9")
    assert "not known here" in system.start("--yes").stderr
    assert system.changes() == []


@pytest.mark.parametrize(("version", "status"), [("14.5", 0), ("12.7", 1)])
def test_macos_is_told_what_to_click(tmp_path: Path, version: str, status: int) -> None:
    told = System(tmp_path).start(SYSTEM="Darwin", MAC=version)
    assert told.returncode == status
    assert ("Start Virtual Camera" if status == 0 else "macOS 13") in told.stderr


def test_wrong_arguments(tmp_path: Path) -> None:
    system = System(tmp_path)
    assert system.start("--nonsense").returncode == 2
    told = system.start("--help")
    assert (told.returncode, "--undo" in told.stdout) == (0, True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.ps1")), ids=lambda path: path.name)
def test_the_scripts_of_windows_can_be_parsed(script: Path) -> None:
    """PowerShell itself is needed to run them; a grammar for editors finds what is no PowerShell at all."""
    tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter is not installed")
    powershell = pytest.importorskip("tree_sitter_powershell", reason="its grammar is not installed")
    parser = tree_sitter.Parser(tree_sitter.Language(powershell.language()))
    text = script.read_bytes()
    assert faults(parser.parse(text).root_node) == []
    assert faults(parser.parse(text + b"\nif (").root_node) != []


def faults(node: Any) -> list[str]:
    """Where a tree of the parser has what it could not read."""
    own = [f"line {node.start_point[0] + 1}: {node.text[:60]!r}"] if node.is_error or node.is_missing else []
    return own + [one for child in node.children for one in faults(child)]


def test_the_windows_twin_verifies_before_it_registers() -> None:
    text = (SCRIPT.parent / "camera.ps1").read_text(encoding="utf-8")
    assert len(set(re.findall(r'Sha256 = "([0-9a-f]{64})"', text))) == 2
    assert re.search(r'\$Commit = "[0-9a-f]{40}"', text)
    body = text[text.index("function Install-Camera") :]
    assert body.index("Save-Filters") < body.index("Invoke-Registrar")
