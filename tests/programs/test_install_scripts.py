"""The install scripts, with a stand-in for Python: what they set up, when they do it again, and what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.runtimes.tensorrt.library import RTX
from vcam.doctor.checks import OLDEST_DRIVERS

ROOT = Path(__file__).parents[2]
on_unix = pytest.mark.skipif(os.name == "nt", reason="the .sh scripts are for Unix")

# Stands in for python: writes down what it is asked, makes "environments" that hold itself.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    "-c import venv, ensurepip") exit "${NO_VENV:-0}" ;;
    "-c import sys; print"*) echo python3.11-venv ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip config list") echo "global.no-index" ;;
    "-m pip install"*"[tensorrt]") exit "${TENSORRT_FAILS:-0}" ;;
    "-m pip install"*" --target "*) [ -z "$PROVIDER_FAILS" ] && mkdir -p "${10}/onnxruntime" ;;
    "-m pip install"*) exit "${PIP_FAILS:-0}" ;;
    -) cat >/dev/null; echo "${LACKS:-}" ;;
    "-m mypy "*"--platform ${TYPES_FAIL:-nowhere}"*) echo "vcam/client.py: error of $TYPES_FAIL"; exit 1 ;;
    "-m pytest -m not slow"*) exit "${TESTS_FAIL:-0}" ;;
esac
"""


class Checkout:
    """A checkout with nothing but what the scripts need, at a path with spaces, and a python that plays along."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my camera"
        self.log = folder / "asked"
        self.python = folder / "python3"
        shutil.copytree(ROOT / "install_scripts", self.root / "install_scripts")
        for name in ("pyproject.toml", "constraints.txt", "constraints-providers.txt"):
            shutil.copy(ROOT / name, self.root / name)
        self.cards = folder / "cards"  # as the kernel lists them
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def start(self, *arguments: str, script: str = "run.sh", **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            [str(self.root / "install_scripts" / script), *arguments],
            cwd="/",
            env=os.environ
            | {"PYTHON": str(self.python), "LOG": str(self.log), "VCAM_CARDS": str(self.cards)}
            | environment,
            capture_output=True,
            text=True,
        )

    def card(self, maker: str) -> None:
        """Have a card of that maker."""
        (self.cards / "card0" / "device").mkdir(parents=True)
        (self.cards / "card0" / "device" / "vendor").write_text(f"{maker}\n")

    def asked(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.log.read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@on_unix
def test_a_first_start_installs_and_a_second_only_starts(checkout: Checkout) -> None:
    first = checkout.start("--profile", "ink")
    assert first.returncode == 0, first.stderr
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (1, 1)
    second = checkout.start("--profile", "two words")
    assert second.returncode == 0
    assert checkout.log.read_text().splitlines() == ["-c ", "-m vcam run --profile two words"]


@on_unix
def test_what_the_checks_need_is_enough_to_run(checkout: Checkout) -> None:
    assert checkout.start(script="test.sh").returncode == 0
    assert [checkout.asked(f"-m {check}") for check in ("ruff check", "ruff format", "mypy", "pytest")] == [1, 1, 3, 2]
    assert checkout.start("-k", "bank", script="test.sh").returncode == 0
    assert checkout.log.read_text().splitlines() == ["-c ", "-m pytest -k bank"]
    assert checkout.start().returncode == 0
    assert checkout.asked("-m pip") == 0


@on_unix
@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
@pytest.mark.parametrize("tests", [0, 3])
def test_what_mypy_has_against_any_system_is_shown_and_fails_the_checks(
    checkout: Checkout, system: str, tests: int
) -> None:
    done = checkout.start(script="test.sh", TYPES_FAIL=system, TESTS_FAIL=str(tests))
    assert done.returncode == (tests or 1)
    said = done.stdout.splitlines()
    assert said[said.index(f"mypy for {system}:") + 1] == f"vcam/client.py: error of {system}"
    assert [line for line in said if line.startswith("mypy for ")] == [
        f"mypy for {one}:" for one in ("linux", "win32", "darwin")
    ]
    assert checkout.asked("-m pytest") == 1, "what comes after is not begun"


@on_unix
def test_a_test_that_fails_fails_the_checks(checkout: Checkout) -> None:
    assert checkout.start(script="test.sh", TESTS_FAIL="3").returncode == 3


# Stands in for nvidia-smi: a card of the capability in CARD by the driver in DRIVER, or a driver that fails.
FAKE_SMI = """#!/bin/sh
[ -n "$CARD" ] || exit 9
case "$*" in
    "--query-gpu=compute_cap --format=csv,noheader") echo "$CARD" ;;
    "--query-gpu=driver_version --format=csv,noheader") printf '%s\\n%s\\n' "$DRIVER" "$DRIVER" ;;
    *) exit 2 ;;
esac
"""


def with_smi(folder: Path) -> str:
    """PATH with the stand-in first."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(FAKE_SMI)
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@on_unix
@pytest.mark.parametrize("card", [*RTX.cards, "9.0", "6.1", ""])
def test_tensorrt_for_rtx_comes_with_a_card_that_it_is_made_for(checkout: Checkout, tmp_path: Path, card: str) -> None:
    fails = "1" if card == "8.6" else "0"
    path = with_smi(tmp_path / "programs")
    done = checkout.start(TENSORRT_FAILS=fails, CARD=card, DRIVER="580.65.06", PATH=path)
    assert done.returncode == 0, done.stderr
    installed = [line for line in checkout.log.read_text().splitlines() if line.startswith("-m pip install")]
    assert sum(line.endswith("[tensorrt]") for line in installed) == (card in RTX.cards), installed
    assert len(installed) == 1 + (card in RTX.cards)
    assert ("going on without it" in done.stderr) == (card == "8.6")


@on_unix
def test_tensorrt_for_rtx_waits_for_a_driver_that_can_run_it(checkout: Checkout, tmp_path: Path) -> None:
    path = with_smi(tmp_path / "programs")
    for _ in range(2):  # each start looks again
        done = checkout.start(CARD="8.9", DRIVER="576.88", PATH=path)
        assert done.returncode == 0
        assert "its driver is 576.88, and PyTorch and TensorRT for RTX need 580 or newer" in done.stderr
        assert not [line for line in checkout.log.read_text().splitlines() if line.endswith("[tensorrt]")]
    for times in (1, 0):  # and installs it once
        assert checkout.start(CARD="8.9", DRIVER="581.15", PATH=path).returncode == 0
        installed = [line for line in checkout.log.read_text().splitlines() if line.endswith("[tensorrt]")]
        assert len(installed) == times


def test_the_scripts_of_both_systems_know_the_cards_and_the_driver_that_the_program_knows() -> None:
    """Windows' needs PowerShell to be run; here it is parsed and read (test_camera_scripts.py)."""
    scripts = ROOT / "install_scripts"
    unix, windows = ((scripts / name).read_text(encoding="utf-8") for name in ("common.sh", "common.ps1"))
    assert " | ".join(f"*{card}*" for card in RTX.cards) in unix
    assert "$cards = " + ", ".join(f'"{card}"' for card in RTX.cards) in windows
    oldest = OLDEST_DRIVERS["13"]
    assert f"-ge {oldest} ]" in unix
    assert f"-lt {oldest})" in windows
    packages = (ROOT / "constraints-providers.txt").read_text(encoding="utf-8")
    for script, known in ((unix, ("openvino", "migraphx")), (windows, ("openvino", "directml"))):
        assert all(name in script and f"onnxruntime-{name}==" in packages for name in known)


@on_unix
def test_a_driver_that_does_not_tell_its_version_is_taken(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.start(CARD="8.9", DRIVER="[N/A]", PATH=with_smi(tmp_path / "programs"))
    assert done.returncode == 0
    assert [line for line in checkout.log.read_text().splitlines() if line.endswith("[tensorrt]")]


@on_unix
@pytest.mark.parametrize("harm", ["cut short", "python gone"])
def test_a_damaged_environment_is_made_anew(checkout: Checkout, harm: str) -> None:
    checkout.start()
    environment = checkout.root / ".venv"
    (environment / "left over").touch()
    if harm == "cut short":
        (environment / ".installing").touch()
    else:
        (environment / "bin" / "python").unlink()
    assert checkout.start().returncode == 0
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (1, 1)
    assert not (environment / "left over").exists()


@on_unix
def test_a_failed_installation_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.start(PIP_FAILS="1")
    assert failed.returncode == 1
    assert "error: the installation did not finish" in failed.stderr
    assert checkout.asked("-m vcam") == 0
    assert checkout.start().returncode == 0
    assert checkout.asked("-m pip install") == 1


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux lists its cards in files")
PROVIDER = "-m pip install --quiet --disable-pip-version-check --retries 1 --no-deps --target"


@on_linux
@pytest.mark.parametrize(
    ("maker", "arguments", "package"),
    [
        ("0x8086", [], "onnxruntime-openvino"),
        ("0x1002", [], "onnxruntime-migraphx"),
        ("0x8086", ["--provider", "auto"], "onnxruntime-openvino"),
        ("0x1af4", ["--provider=openvino"], "onnxruntime-openvino"),
        ("0x8086", ["--provider", "cpu"], ""),
        ("0x8086", ["--provider", "coreml"], ""),
        ("0x1af4", [], ""),
    ],
)
def test_the_build_of_onnx_runtime_that_fits_the_card_is_installed_once_and_apart(
    checkout: Checkout, tmp_path: Path, maker: str, arguments: list[str], package: str
) -> None:
    checkout.card(maker)
    for times in (int(bool(package)), 0):
        started = checkout.start(*arguments, ROCM_PATH=str(tmp_path))
        assert started.returncode == 0, started.stderr
        asked = [line for line in checkout.log.read_text().splitlines() if line.startswith(PROVIDER)]
        assert len(asked) == times
        assert all(f"/.venv/provider {package}==" in line for line in asked)
        assert (checkout.root / ".venv" / "provider" / "onnxruntime").is_dir() == bool(package)
    assert checkout.log.read_text().splitlines()[-1] == " ".join(["-m vcam run", *arguments])


@on_linux
def test_a_build_that_cannot_be_installed_is_no_obstacle_unless_it_was_asked_for(checkout: Checkout) -> None:
    checkout.card("0x8086")
    started = checkout.start(PROVIDER_FAILS="1")
    assert started.returncode == 0
    assert "so the CPU does the work" in started.stderr
    assert checkout.asked("-m vcam run") == 1
    checkout.start(PROVIDER_FAILS="1")
    assert checkout.asked(PROVIDER) == 0  # it was tried
    asked = checkout.start("--provider", "openvino", PROVIDER_FAILS="1")
    assert asked.returncode == 1
    assert "error: onnxruntime-openvino==" in asked.stderr


@on_linux
def test_without_rocm_an_amd_card_gets_nothing(checkout: Checkout, tmp_path: Path) -> None:
    checkout.card("0x1002")
    assert checkout.start(ROCM_PATH=str(tmp_path / "none")).returncode == 0
    assert checkout.asked(PROVIDER) == 0


@on_unix
@pytest.mark.parametrize("change", ["new constraints", "moved"])
def test_a_changed_checkout_is_installed_again(checkout: Checkout, change: str) -> None:
    checkout.start()
    if change == "moved":
        checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    else:
        with (checkout.root / "constraints.txt").open("a") as constraints:
            constraints.write("six==1.17.0\n")
    assert checkout.start().returncode == 0
    assert (checkout.asked("-m venv"), checkout.asked("-m pip install")) == (0, 1)


@on_unix
@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"NO_VENV": "1"}, ["no venv module", "apt-get install python3.11-venv"]),
        pytest.param(
            {"LACKS": "libGL.so.1"},
            ["OpenCV needs libGL.so.1", "apt-get install libgl1"],
            marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these libraries"),
        ),
    ],
    ids=["venv", "libGL"],
)
def test_a_missing_system_part_is_named_before_anything_is_made(
    checkout: Checkout, lack: dict[str, str], words: list[str]
) -> None:
    refused = checkout.start(**lack)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert all(word in refused.stderr for word in words)
    assert not (checkout.root / ".venv").exists()


@on_unix
def test_no_python_is_said_with_the_remedy(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "cmp", "dirname", "uname"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    refused = checkout.start(PYTHON="", PATH=str(tools))
    assert refused.returncode == 1
    assert "no Python >= 3.11 found" in refused.stderr
