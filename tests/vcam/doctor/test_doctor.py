"""`vcam doctor`: what each check makes of a fact, and how the facts are found in made-up machines."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.patience import PATIENCE_S, until
from vcam.cli import main as cli
from vcam.doctor import checks, machine
from vcam.doctor import examine as doctor
from vcam.doctor.checks import Finding, Loopback, Mark
from vcam.doctor.machine import KernelModule, ObsWebsocket, PackageReport

ROOT = Path(__file__).parents[3]
WELL = KernelModule(
    loaded=True, version="0.15.3", available=True, at_boot=True, options='card_label="StreamV2V Camera"'
)
LOADS = {"numpy": "", "torch": "", "onnxruntime": ""}


def marks(findings: list[Finding]) -> list[Mark]:
    return [one.mark for one in findings]


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("version", "bits", "mark"),
    [((3, 11, 0), 64, Mark.GOOD), ((3, 10, 9), 64, Mark.BAD), ((3, 12, 1), 32, Mark.BAD)],
)
def test_python(version: tuple[int, int, int], bits: int, mark: Mark) -> None:
    assert checks.check_python(version, bits).mark is mark


def test_packages_are_held_against_their_ranges() -> None:
    lines = [
        "numpy>=2,<3",
        "av>=14",
        "nothere>=1",
        "elsewhere>=1; sys_platform == 'plan9'",
        'pyvirtualcam>=0.13; extra == "camera"',
        'tensorrt>=10; platform_system != "x" and extra == "tensorrt"',
        'pytest>=99; extra == "dev"',
    ]
    versions = {"numpy": "2.4.0", "av": "13.1.0", "pytest": "8.0"}
    found = checks.check_packages(lines, versions.get, "/env/python")
    assert [one.name for one in found] == ["packages", "av", "nothere", "pyvirtualcam"]
    assert marks(found) == [Mark.GOOD, Mark.BAD, Mark.BAD, Mark.NOTE]
    assert found[0].found.startswith("1 of 4")
    assert found[1].found == "13.1.0, but >=14 is needed"
    assert found[1].remedy == '/env/python -m pip install "av>=14"'
    assert checks.check_packages([], versions.get, "python")[0].mark is Mark.NOTE


def test_our_own_requirements_are_found_and_met() -> None:
    lines = machine.requirements()
    assert any(line.startswith("numpy") for line in lines)
    assert any(line.startswith("pyvirtualcam") and "extra" in line for line in lines)
    found = checks.check_packages(lines, machine.installed_version, sys.executable)
    assert not [one for one in found if one.mark is Mark.BAD]


def test_loading_and_runtimes() -> None:
    assert checks.check_loading(PackageReport(LOADS)).mark is Mark.GOOD
    assert "status -4" in checks.check_loading(PackageReport({}, failure="status -4")).found
    assert "no libGL" in checks.check_loading(PackageReport({**LOADS, "cv2": "ImportError: no libGL"})).found
    assert checks.check_runtimes(PackageReport(LOADS, providers=("CPUExecutionProvider",))).found == "eager, onnx"
    card = PackageReport(LOADS, (("H100", 80 << 30),), "13.0", triton=True)
    assert checks.check_runtimes(card).found == "eager, compiled"
    assert checks.check_runtimes(PackageReport({"torch": "broken"}, card.devices, triton=True)).mark is Mark.BAD


@pytest.mark.parametrize(
    ("driver", "told", "mark", "words"),
    [
        (("H100", "580.1"), PackageReport(LOADS, (("H100", 80 << 30),), "13.0"), Mark.GOOD, "H100 (80 GiB), CUDA 13.0"),
        (None, PackageReport(LOADS), Mark.GOOD, "on the CPU"),
        (None, PackageReport(LOADS, mps=True), Mark.GOOD, "Metal"),
        (("", ""), PackageReport(LOADS), Mark.NOTE, "nvidia-smi does not answer"),
        (("RTX", "500"), PackageReport(LOADS), Mark.NOTE, "without CUDA"),
        (("RTX", "400"), PackageReport(LOADS, (), "13.0"), Mark.NOTE, "cannot use it"),
    ],
)
def test_gpu(driver: tuple[str, str] | None, told: PackageReport, mark: Mark, words: str) -> None:
    found = checks.check_gpu(driver, told, "linux")
    assert found.mark is mark
    assert words in found.found


def test_a_driver_that_is_too_old_for_what_is_installed_is_named() -> None:
    def remedy(driver: str, cuda: str) -> str:
        return checks.check_gpu(("RTX 3060", driver), PackageReport(LOADS, (), cuda), "linux").remedy

    assert remedy("576.88", "13.0") == "install NVIDIA's driver 580 or newer, then restart"
    assert remedy("576.88", "12.8") == remedy("[N/A]", "13.0") == "install a newer NVIDIA driver, then restart"
    told = checks.check_rtx_driver(("RTX 3060", "576.88"), "13")
    assert told is not None
    assert told.found == "TensorRT for RTX, built for CUDA 13, needs driver 580 or newer; this is 576.88"
    for fine in (None, ("", ""), ("RTX 3060", "580.65.06"), ("RTX 3060", "591")):
        assert checks.check_rtx_driver(fine, "13") is None
    assert checks.check_rtx_driver(("RTX 3060", "576.88"), "12") is None


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
def test_the_driver_is_asked_for_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 576.88'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        machine, "installed_version", lambda name: "1.7.1" if name == "tensorrt_rtx_cu13_libs" else None
    )
    driver = machine.nvidia_driver()
    assert driver == ("NVIDIA GeForce RTX 3060", "576.88")
    found = doctor._tensorrt(driver)
    assert (found.mark, found.remedy) == (Mark.NOTE, "install NVIDIA's driver 580 or newer, then restart")


@pytest.mark.parametrize(
    ("module", "kernel", "mark", "words"),
    [
        (WELL, (6, 12), Mark.GOOD, "0.15.3 is loaded"),
        (KernelModule(True, "0.12.7", True, True, WELL.options), (6, 1), Mark.GOOD, "0.12.7"),
        (KernelModule(True, "0.12.7", True, True, WELL.options), (6, 8), Mark.NOTE, "0.15.3 is advised"),
        (KernelModule(True, "0.15.3", True, False, WELL.options), (6, 8), Mark.NOTE, "not set up for the next start"),
        (KernelModule(True, "0.15.3", True, True, "video_nr=10"), (6, 8), Mark.NOTE, "not set up for the next start"),
        (KernelModule(False, "", True, False, ""), (6, 8), Mark.NOTE, "not loaded (Secure Boot"),
        (KernelModule(False, "", False, False, ""), (6, 8), Mark.NOTE, "not installed"),
    ],
)
def test_module(module: KernelModule, kernel: tuple[int, int], mark: Mark, words: str) -> None:
    found = checks.check_module(module, kernel, True, wanted=False)
    assert (found.mark, words in found.found) == (mark, True), found
    if not module.loaded:
        assert checks.check_module(module, kernel, None, wanted=True).mark is Mark.BAD


@pytest.mark.parametrize(
    ("devices", "runs", "mark", "words"),
    [
        ([Loopback("StreamV2V Camera", "/dev/video9", True, False)], False, Mark.GOOD, "/dev/video9"),
        ([Loopback("StreamV2V Camera", "/dev/video9", False, False)], False, Mark.BAD, "no permission"),
        ([Loopback("StreamV2V Camera", "/dev/video9", True, True)], False, Mark.BAD, "exclusive_caps"),
        ([Loopback("StreamV2V Camera", "/dev/video9", True, False, ("zoom (pid 7)",))], False, Mark.NOTE, "zoom"),
        ([Loopback("StreamV2V Camera", "/dev/video9", True, False, ("zoom (pid 7)",))], True, Mark.GOOD, "/dev/v"),
        ([Loopback("OBS Cam", "/dev/video9", True, False)], False, Mark.NOTE, "none is labelled"),
        ([], False, Mark.NOTE, "none is labelled"),
    ],
)
def test_loopback(devices: list[Loopback], runs: bool, mark: Mark, words: str) -> None:
    found = checks.check_loopback(devices, WELL, runs, wanted=False)
    assert found.mark is mark
    assert words in found.found
    assert bool(found.remedy) == (mark is not Mark.GOOD)


def test_what_the_configuration_asks_for_is_needed() -> None:
    assert checks.check_loopback([], WELL, False, wanted=True).mark is Mark.BAD
    assert checks.check_windows_camera([], True).mark is Mark.BAD
    assert checks.check_mac_camera("", True).mark is Mark.BAD


def test_other_systems_cameras() -> None:
    assert checks.check_windows_camera(["Logitech", "StreamV2V Camera"], False).mark is Mark.GOOD
    assert "OBS" in checks.check_windows_camera(["OBS Virtual Camera"], False).found
    assert checks.check_mac_camera("activated enabled", False).mark is Mark.GOOD
    assert checks.check_mac_camera("activated waiting for user", False).mark is Mark.NOTE


def test_secure_boot_matters_while_the_module_is_not_loaded() -> None:
    assert "mokutil" in checks.check_secure_boot(True, False).remedy
    assert (
        marks([checks.check_secure_boot(*one) for one in ((True, True), (False, False), (None, False))])
        == [Mark.GOOD] * 3
    )


def test_cameras() -> None:
    assert checks.check_cameras([]).mark is Mark.NOTE
    assert checks.check_cameras([("C920", "/dev/video0")]).found == "C920 (/dev/video0)"
    refused = checks.check_camera("C920", "/dev/video0", False, "camera", [])
    assert refused is not None
    assert (refused.mark, "usermod -aG camera" in refused.remedy) == (Mark.BAD, True)
    busy = checks.check_camera("C920", "/dev/video0", True, "video", ["zoom (pid 7)"])
    assert busy is not None
    assert busy.found == "in use by zoom (pid 7)"
    assert checks.check_camera("C920", "/dev/video0", True, "video", []) is None


def test_obs_port_files_disk_and_the_run() -> None:
    assert checks.check_obs(False, "127.0.0.1", 4455, ObsWebsocket(False)).mark is Mark.NOTE
    assert "Enable" in checks.check_obs(True, "127.0.0.1", 4455, ObsWebsocket(False)).remedy
    assert "not as OBS" in checks.check_obs(True, "127.0.0.1", 4455, ObsWebsocket(True)).found
    assert "with a password" in checks.check_obs(True, "127.0.0.1", 4455, ObsWebsocket(True, True, "5.5", True)).found
    assert marks([checks.check_port(8787, taken, ours) for taken, ours in ((False, None), (True, 8788))]) == [
        Mark.GOOD,
        Mark.GOOD,
    ]
    assert checks.check_port(8787, True, None).mark is Mark.NOTE
    assert checks.check_port(0, False, None).found == "the panel takes any free one"
    assert checks.check_files("profiles", Path("/p"), 0, ["ink.toml: look.strength is 7"]).mark is Mark.BAD
    assert checks.check_files("profiles", Path("/p"), 3, []).found == "3 valid"
    assert checks.check_disk({"/a": 50 << 30, "/b": 5 << 20}).mark is Mark.BAD
    assert checks.check_disk({"/a": 500 << 20, "/b": None}).mark is Mark.NOTE
    assert checks.check_disk({"/a": 50 << 30}).found == "50 GiB free"
    assert checks.check_running("failed", "the engine died").mark is Mark.BAD
    assert checks.check_running("", "").mark is Mark.GOOD


# -------------------------------------------------------------------------------------------------------------- facts


def weights(path: Path, cut: int = 0) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    path.write_bytes(whole[: len(whole) - cut])
    return path


def test_weights_that_were_cut_short_are_told(tmp_path: Path) -> None:
    assert machine.broken_weights(weights(tmp_path / "a.safetensors")) == ""
    assert "bytes of" in machine.broken_weights(weights(tmp_path / "a.safetensors", cut=1))
    (tmp_path / "a.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "no safetensors file" in machine.broken_weights(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert "0 bytes" in machine.broken_weights(tmp_path / "a.safetensors")


def test_a_models_files(tmp_path: Path) -> None:
    assert machine.broken_model(tmp_path) == ["there are no weights (*.safetensors)"]
    weights(tmp_path / "unet" / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "unet.onnx").touch()
    assert machine.broken_model(tmp_path) == ["config.json cannot be read (JSONDecodeError)", "unet.onnx is empty"]
    found = checks.check_model("embedded", tmp_path, machine.broken_model(tmp_path))
    assert found.mark is Mark.BAD
    assert checks.check_model("nowhere", None, ["no such folder"]).mark is Mark.BAD


def test_the_included_model_is_whole() -> None:
    assert doctor._model("embedded").mark is Mark.GOOD
    assert doctor._model("/nowhere").mark is Mark.BAD


def made(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_the_module_is_found_loaded_installed_or_not_at_all(tmp_path: Path) -> None:
    assert machine.loopback_module(tmp_path, "6.1") == KernelModule(False, "", False, False, "")
    made(tmp_path, {"lib/modules/6.1/updates/dkms/v4l2loopback.ko.xz": "x"})
    assert machine.loopback_module(tmp_path, "6.1") == KernelModule(False, "", True, False, "")
    made(
        tmp_path,
        {
            "sys/module/v4l2loopback/version": "0.12.7\n",
            "etc/modules-load.d/a.conf": "# comment\nv4l2loopback\n",
            "etc/modprobe.d/b.conf": 'options snd x=1\noptions v4l2loopback card_label="StreamV2V Camera"\n',
        },
    )
    assert machine.loopback_module(tmp_path, "6.1") == KernelModule(
        True, "0.12.7", True, True, 'card_label="StreamV2V Camera"'
    )


def test_secure_boot_is_the_last_byte(tmp_path: Path) -> None:
    assert machine.secure_boot(tmp_path) is None
    made(tmp_path, {"sys/firmware/efi/efivars/SecureBoot-8be4": b"\x06\0\0\0\x01"})
    assert machine.secure_boot(tmp_path) is True
    made(tmp_path, {"sys/firmware/efi/efivars/SecureBoot-8be4": b"\x06\0\0\0\x00"})
    assert machine.secure_boot(tmp_path) is False


class FakeRegistry:
    """winreg with two cameras, one of which has no name."""

    HKEY_CLASSES_ROOT = 1

    def __init__(self, cameras: list[str]) -> None:
        self.cameras = cameras

    @contextmanager
    def OpenKey(self, key: Any, name: str) -> Iterator[Any]:
        if not self.cameras:
            raise FileNotFoundError(name)
        yield name

    def QueryInfoKey(self, key: Any) -> tuple[int, int, int]:
        return len(self.cameras), 0, 0

    def EnumKey(self, key: Any, index: int) -> str:
        return str(index)

    def QueryValueEx(self, key: Any, name: str) -> tuple[str, int]:
        assert name == "FriendlyName"
        return self.cameras[int(key)], 1


def test_windows_cameras_are_read_from_the_registry() -> None:
    assert machine.directshow_names(FakeRegistry([])) == []
    assert machine.directshow_names(FakeRegistry(["C920", "StreamV2V Camera"])) == ["C920", "StreamV2V Camera"]


def test_the_mac_extension_is_read_from_its_list() -> None:
    line = (
        "*\t*\t2MMRE5MTB8\tcom.obsproject.obs-studio.mac-camera-extension (30.0/1)\tOBS Virtual Camera"
        "\t[activated enabled]"
    )
    assert machine.mac_camera_extension(lambda command: f"1 extension(s)\n{line}\n") == "activated enabled"
    assert machine.mac_camera_extension(lambda command: "0 extension(s)\n") == ""


@contextmanager
def websocket_server(hello: str) -> Iterator[int]:
    def greet(link: ServerConnection) -> None:
        link.send(hello)
        link.recv()

    server: Server = serve(greet, "127.0.0.1", 0, subprotocols=["obswebsocket.json"])  # type: ignore[list-item]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()


def test_obs_is_known_by_its_hello() -> None:
    hello = {"op": 0, "d": {"obsWebSocketVersion": "5.5.2", "rpcVersion": 1, "authentication": {"salt": "x"}}}
    with websocket_server(json.dumps(hello)) as port:
        assert machine.obs_websocket("127.0.0.1", port, PATIENCE_S) == ObsWebsocket(True, True, "5.5.2", True)
        assert machine.port_taken(port)
    with websocket_server("good day") as port:
        assert machine.obs_websocket("127.0.0.1", port, PATIENCE_S) == ObsWebsocket(True)


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it; not listening
        port = held.getsockname()[1]
        assert machine.obs_websocket("127.0.0.1", port, 0.2) == ObsWebsocket(False)
        assert not machine.port_taken(port)


def test_free_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    free = machine.free_bytes(tmp_path / "not" / "there")
    assert free is not None
    assert free > 0


# --------------------------------------------------------------------------------------------------------- the command


def test_the_text_has_a_line_for_each_and_one_for_the_remedy() -> None:
    findings = [checks.good("Python", "3.12"), checks.bad("disk", "5 MiB free at /", "delete what is not needed")]
    assert doctor.as_text(findings).splitlines() == [
        "✓ Python  3.12",
        "✗ disk    5 MiB free at /",
        "          -> delete what is not needed",
        "1 to mend: see ✗",
    ]
    assert "BAD disk" in doctor.as_text(findings, "cp1252")
    assert doctor.to_json(findings)["ok"] is False


@pytest.mark.parametrize(("harm", "status"), [("", 0), ("profile", 1)])
def test_the_command_ends_with_1_if_something_needed_is_broken(
    harm: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path))
    monkeypatch.setattr(machine, "load_packages", lambda: PackageReport(LOADS, providers=("CPUExecutionProvider",)))
    if harm:
        made(tmp_path, {"profiles/wild.toml": "name = 7\n"})
    assert cli.main(["doctor", "--json"]) == status
    printed = capsys.readouterr()
    assert " ..." not in printed.err, "it is for a person who waits, not for files and pipes"
    told = json.loads(printed.out.splitlines()[-1])
    assert told["ok"] is (status == 0)
    names = [one["name"] for one in told["findings"]]
    assert {"Python", "packages", "model", "virtual camera", "OBS", "port", "profiles", "disk"} <= set(names)
    if harm:
        (broken,) = (one for one in told["findings"] if one["mark"] == "bad")
        assert "wild.toml" in broken["found"]
        assert os.fspath(tmp_path) in broken["remedy"]


@pytest.fixture
def slow_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of the work, on a machine that goes on with what takes seconds only once that was said."""
    said: list[str] = []

    def after(words: str) -> None:
        until(lambda: any(words in one for one in said), lambda: f"{words!r} was not said before, but: {said}")

    def loads() -> PackageReport:
        after("loading the packages")
        return PackageReport(LOADS, providers=("CPUExecutionProvider",))

    def outlook(model: str) -> tuple[bool, str]:
        after("the memory that the model takes")
        return True, "it fits"

    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path))
    monkeypatch.setattr(machine, "load_packages", loads)
    monkeypatch.setattr(machine, "outlook", outlook)
    return said


def test_what_takes_seconds_is_said_before_it_is_done(slow_machine: list[str]) -> None:
    """It took 12 s without a word."""
    found = doctor.examine(slow_machine.append)
    assert [one.found for one in found if one.name == "memory"] == ["it fits"]
    assert slow_machine == [
        "looking at cameras, OBS, profiles and the disk",
        "loading the packages, as the camera would",
        "working out the memory that the model takes",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_person_at_a_terminal_reads_it_before_the_findings(tmp_path: Path) -> None:
    folders = {"VCAM_CONFIG_FOLDER": str(tmp_path), "VCAM_STATE_FOLDER": str(tmp_path)}
    terminal, theirs = os.openpty()
    command = [sys.executable, "-m", "vcam", "doctor"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | folders, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's word for the end of a terminal
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    process.wait(PATIENCE_S)
    lines = shown.decode().splitlines()
    at = [
        next(n for n, line in enumerate(lines) if words in line) for words in ("looking at", "loading", "working out")
    ]
    first_finding = next(n for n, line in enumerate(lines) if line[2:].startswith("Python"))
    assert at == sorted(at)
    assert at[-1] < first_finding
    assert all(lines[n].endswith(" ...") for n in at)
