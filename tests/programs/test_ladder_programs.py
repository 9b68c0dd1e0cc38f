"""The whole ladder in the real programs: `vcam run` and its engines, `vcam engines`, with a stand-in for TensorRT."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.media_files import film
from tests.support.model_folders import make_folder
from tests.support.patience import PATIENCE_S, until
from tests.support.tensorrt_machine import Camera, TensorRtMachine
from tests.support.tensorrt_model import PLACES, lora_file, tiny_unet
from vcam.commands import ChangeEngine, SetPrompt, Status, Stop, UseProfile
from vcam.frames import Picture

# each starts several processes that import PyTorch, and most of them export a graph
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]
HALFWAY = "building the TensorRT engine: Building engine 50 %"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return make_folder(folder, description={"fusion": {"places": PLACES}}, unet=tiny_unet())


@pytest.fixture
def machine(tmp_path: Path, model: Path) -> TensorRtMachine:
    return TensorRtMachine(tmp_path, model)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, model: Path) -> TensorRtMachine:
    """A machine whose engine was built by the real command."""
    machine = TensorRtMachine(tmp_path_factory.mktemp("built"), model)
    done = machine.vcam("engines", "build", "--profile", "plain")
    assert done.returncode == 0, done.stderr
    return machine


@pytest.mark.parametrize("runtime", ["auto", "tensorrt"])
def test_the_whole_ladder(machine: TensorRtMachine, gate: Path, runtime: str) -> None:
    with halfway(machine, gate, runtime=runtime) as camera:
        assert camera.goes_on().runtime == "eager", "pictures at once"
        told = machine.vcam("status")
        assert HALFWAY in told.stdout, "vcam status tells how far the build is"
        assert len(camera.engines()) == 2
        gate.touch()
        climbed = camera.until(lambda s: s.runtime == "tensorrt")
        assert (climbed.state, climbed.notes, climbed.restarts) == ("running", (), 0)
        ends(camera, "tensorrt")
    (engine,) = machine.engine_folders()
    assert manifest_of(machine.engines / engine)["verdict"] == "verified"
    with Camera(machine, runtime=runtime) as camera:
        again = camera.until(lambda s: s.translated > 0)
        assert (again.runtime, again.notes) == ("tensorrt", ())
        ends(camera, "tensorrt")


@contextmanager
def halfway(
    machine: TensorRtMachine, gate: Path, source: str = "pattern", runtime: str = "tensorrt"
) -> Iterator[Camera]:
    """A camera whose engine is half built."""
    with Camera(machine, source=source, runtime=runtime, STAND_IN_GATE=str(gate)) as camera:
        camera.until(lambda s: s.translated > 2 and says(s.notes, HALFWAY))
        yield camera


def says(notes: tuple[str, ...], text: str) -> bool:
    return any(text in note for note in notes)


def ends(camera: Camera, runtime: str) -> None:
    """It has gone on with one engine, of that runtime; now it ends."""
    assert camera.goes_on().runtime == runtime
    assert len(camera.engines()) == 1
    camera.tell(Stop())
    assert camera.end()["runtime"] == runtime


# ---------------------------------------------------------------- what can go wrong with a build


def test_a_build_that_is_killed_is_told_and_the_picture_goes_on(machine: TensorRtMachine, gate: Path) -> None:
    with halfway(machine, gate, runtime="auto") as camera:
        camera.engines()[-1].kill()
        camera.until(lambda s: says(s.notes, "the TensorRT engine was not built: the engine was killed (SIGKILL)"))
        assert machine.engine_folders() == [], "what it had written is gone"
        ends(camera, "eager")


def test_a_graph_that_is_refused_is_told_and_the_picture_goes_on(machine: TensorRtMachine) -> None:
    with Camera(machine, runtime="auto", STAND_IN_FAULT="refused") as camera:
        told = "TensorRT for RTX 1.7.1.116 does not take the graph: In node 7: no importer registered for op: Conv"
        camera.until(lambda s: says(s.notes, told))
        assert machine.engine_folders() == []
        ends(camera, "eager")


@pytest.mark.parametrize("runtime", ["auto", "tensorrt"])
def test_a_wrong_engine_is_not_taken_and_not_built_again(machine: TensorRtMachine, runtime: str) -> None:
    with Camera(machine, runtime=runtime, STAND_IN_FAULT="wrong") as camera:
        camera.until(lambda s: says(s.notes, "tiny is wrong: worst of 12 frames 9"))
        ends(camera, "eager")
    with Camera(machine, runtime=runtime, STAND_IN_FAULT="wrong") as camera:
        again = camera.until(lambda s: s.translated > 2)
        assert says(again.notes, "the TensorRT engine is wrong: worst of 12 frames"), again.notes
        assert says(again.notes, "running eager; vcam engines build --again makes another")
        ends(camera, "eager")
    built = machine.vcam("engines", "build", "--profile", "plain")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["state"] == "verified"


@pytest.mark.skipif(sys.platform != "linux", reason="a disk of a few kilobytes, by mount namespaces")
def test_a_full_disk_is_told_and_the_picture_goes_on(machine: TensorRtMachine) -> None:
    machine.engines.mkdir()
    mounted = f"mount -t tmpfs -o size=64k tmpfs '{machine.engines}'"
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mounted} && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    with Camera(machine, before=small, runtime="auto") as camera:
        camera.until(lambda s: says(s.notes, "not built:") and says(s.notes, "MB are free there"))
        there = Path(f"/proc/{camera.process.pid}/root") / machine.engines.relative_to("/")
        assert not list(there.glob(".part-*"))
        ends(camera, "eager")


# ---------------------------------------------------------------- engines of no use


def spoil(engine: Path) -> None:
    data = bytearray((engine / "frame.engine").read_bytes())
    data[-100] ^= 255
    (engine / "frame.engine").write_bytes(data)


def test_an_engine_that_was_changed_on_the_disk_is_built_anew(machine: TensorRtMachine, built: TensorRtMachine) -> None:
    engine = machine.take_engine_of(built)
    spoil(engine)
    with Camera(machine, runtime="auto") as camera:  # which takes what is there, and builds nothing
        told = camera.until(lambda s: s.translated > 2)
        assert says(told.notes, "the TensorRT engine cannot be used: "), told.notes
        assert says(told.notes, "was changed since it was built, and is not loaded; vcam engines build makes it anew")
        ends(camera, "eager")
    with Camera(machine) as camera:
        told = camera.until(lambda s: s.runtime == "eager" and s.notes != ())
        assert told.state != "failed"
        camera.until(lambda s: s.runtime == "tensorrt")
        ends(camera, "tensorrt")
    assert machine.engine_folders() == [engine.name]


def test_an_engine_of_another_version_stays_and_one_for_this_is_built(
    machine: TensorRtMachine, built: TensorRtMachine
) -> None:
    machine.take_engine_of(built)
    with Camera(machine, STAND_IN_VERSION="1.8.0.12") as camera:
        assert camera.until(lambda s: s.translated > 2).runtime == "eager"
        camera.until(lambda s: s.runtime == "tensorrt")
        ends(camera, "tensorrt")
    assert len(machine.engine_folders()) == 2
    listed = json.loads(machine.vcam("engines", "list", STAND_IN_VERSION="1.8.0.12").stdout)["engines"]
    assert [one["state"] for one in listed] == ["verified", "unusable"]
    assert listed[1]["problem"] == "built for tensorrt 1.7.1.116, here 1.8.0.12"
    cleaned = json.loads(machine.vcam("engines", "clean", STAND_IN_VERSION="1.8.0.12").stdout)
    assert cleaned["removed"] == [listed[1]["engine"]]


@pytest.mark.parametrize("runtime", ["auto", "tensorrt"])
def test_a_verified_engine_is_taken_at_once(machine: TensorRtMachine, built: TensorRtMachine, runtime: str) -> None:
    engine = machine.take_engine_of(built)
    with Camera(machine, runtime=runtime) as camera:
        first = camera.until(lambda s: s.translated > 2)
        assert (first.runtime, first.notes) == ("tensorrt", ())
        ends(camera, "tensorrt")
    told = manifest_of(engine) | {"verdict": "unverified", "compared": ""}
    (engine / "manifest.json").write_text(json.dumps(told))
    with Camera(machine, runtime="auto") as camera:  # auto has what was not compared compared first, and builds nothing
        assert camera.until(lambda s: s.translated > 2).runtime == "eager"
        assert camera.until(lambda s: s.runtime == "tensorrt").notes == ()
        ends(camera, "tensorrt")
    assert machine.engine_folders() == [engine.name]
    assert (manifest_of(engine)["verdict"], manifest_of(engine)["built"]) == ("verified", told["built"])


# ---------------------------------------------------------------- what happens in the midst of a build


def test_sigterm_in_the_midst_of_a_build_leaves_nothing(machine: TensorRtMachine, gate: Path) -> None:
    with halfway(machine, gate) as camera:
        assert [name[:6] for name in machine.engine_folders()] == [".part-"]
        assert len(camera.engines()) == 2
        camera.process.send_signal(signal.SIGTERM)
        assert camera.end()["runtime"] == "eager"


def test_what_a_killed_daemon_has_left_is_removed_later(machine: TensorRtMachine, gate: Path) -> None:
    with halfway(machine, gate) as camera:
        engines = camera.engines()
        assert machine.vcam("engines", "clean", "--all").returncode == 0
        assert len(machine.engine_folders()) == 1, "a build that is at work stays"
        camera.process.kill()
        camera.process.wait()
        for engine in engines:
            engine.wait(PATIENCE_S)
    assert [name[:6] for name in machine.engine_folders()] == [".part-"]
    assert machine.vcam("engines", "clean").returncode == 0
    assert machine.engine_folders() == []


def test_another_look_or_lora_lets_the_build_go_on(machine: TensorRtMachine, gate: Path, tmp_path: Path) -> None:
    lora_file(machine.profiles / "one.safetensors")
    machine.profile("lora", 'steps = 1\nloras = [{ path = "one.safetensors", weight = 1.0 }]')
    still = film(tmp_path / "still.mp4", [np.arange(64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)] * 4)
    with halfway(machine, gate, source=str(still), runtime="auto") as camera:
        engines = camera.engines()
        plain = camera.picture()
        camera.tell(SetPrompt("blue clay"))
        camera.tell(UseProfile("lora"))
        camera.goes_on()
        with_lora = camera.picture()
        assert apart(plain, with_lora) > 5
        assert camera.engines() == engines, "neither stops the build"
        gate.touch()
        camera.until(lambda s: s.runtime == "tensorrt")
        camera.goes_on()
        assert apart(with_lora, camera.picture()) < 2, "the engine that took over has the LoRA"
        assert camera.engines() == engines[1:]
        camera.tell(UseProfile("plain"))
        camera.goes_on()
        assert apart(plain, camera.picture()) < 2
        camera.tell(UseProfile("lora"))
        camera.goes_on()
        assert apart(with_lora, camera.picture()) < 2
        assert camera.engines() == engines[1:], "LoRAs are refitted"
        ends(camera, "tensorrt")
    assert len(machine.engine_folders()) == 1


def test_the_engine_of_other_loras_is_built_while_the_one_before_goes_on(
    machine: TensorRtMachine, gate: Path, tmp_path: Path
) -> None:
    """Where the library puts no weights into an engine: no other runtime shows meanwhile, and nothing half changed."""
    lora_file(machine.profiles / "one.safetensors")
    machine.profile("lora", 'steps = 1\nloras = [{ path = "one.safetensors", weight = 1.0 }]')
    still = film(tmp_path / "still.mp4", [np.arange(64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)] * 4)
    gate.touch()
    faults = {"STAND_IN_GATE": str(gate), "STAND_IN_FAULT": "no-refit"}
    with Camera(machine, source=str(still), runtime="auto", **faults) as camera:
        camera.until(lambda s: s.runtime == "tensorrt")
        camera.goes_on()
        plain = camera.picture()
        gate.unlink()
        camera.tell(UseProfile("lora"))
        camera.until(lambda s: says(s.notes, f"{HALFWAY}; what you saw before goes on until it is there"))
        assert camera.goes_on().runtime == "tensorrt"
        assert apart(plain, camera.picture()) < 2
        shown: list[str] = []

        def is_there(status: Status) -> bool:
            shown.append(status.runtime)
            return not says(status.notes, "preparing")

        gate.touch()
        camera.until(is_there)
        camera.goes_on()  # what is told first is shown a moment later
        assert set(shown) == {"tensorrt"}
        assert apart(plain, camera.picture()) > 5, "with the LoRA"
        ends(camera, "tensorrt")
    assert len(machine.engine_folders()) == 2


def decoded(data: bytes) -> Picture:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture.astype(np.uint8, copy=False)


def apart(one: bytes, other: bytes) -> float:
    """Mean difference of two JPEGs, in grey levels."""
    pictures = [decoded(data).astype(int) for data in (one, other)]
    return float(np.abs(pictures[0] - pictures[1]).mean())


@pytest.mark.parametrize("change", ["a profile", "the engine's settings"])
def test_other_settings_end_the_build_and_have_their_own_engine_built(
    machine: TensorRtMachine, gate: Path, change: str
) -> None:
    machine.profile("two", "steps = 2")
    with halfway(machine, gate) as camera:
        builder = camera.engines()[-1]
        camera.tell(UseProfile("two") if change == "a profile" else ChangeEngine({"steps": 2}))
        builder.wait(PATIENCE_S)
        assert camera.goes_on().runtime == "eager"
        gate.touch()
        camera.until(lambda s: s.runtime == "tensorrt")
        ends(camera, "tensorrt")
    (engine,) = machine.engine_folders()
    assert manifest_of(machine.engines / engine)["key"]["steps"] == 2


def test_the_engine_that_shows_dies_in_the_midst_of_a_build(machine: TensorRtMachine, gate: Path) -> None:
    with halfway(machine, gate) as camera:
        shows, builder = camera.engines()
        shows.kill()
        camera.until(lambda s: s.restarts == 1 and s.state == "running")
        assert camera.goes_on().runtime == "eager"
        assert camera.engines()[0] == builder
        gate.touch()
        camera.until(lambda s: s.runtime == "tensorrt")
        assert camera.engines() == [builder]
        ends(camera, "tensorrt")


# ---------------------------------------------------------------- vcam engines


def test_every_command_of_vcam_engines(machine: TensorRtMachine, built: TensorRtMachine) -> None:
    engine = machine.take_engine_of(built)
    options = ("--profile", "plain")
    there = machine.vcam("engines", "build", *options)
    assert (there.returncode, json.loads(there.stdout)["built"]) == (0, manifest_of(engine)["built"])
    verified = machine.vcam("engines", "verify", *options, "--frames", "3")
    assert (verified.returncode, json.loads(verified.stdout)["state"]) == (0, "verified")
    assert "worst of 3 frames" in json.loads(verified.stdout)["compared"]
    wrong = machine.vcam("engines", "verify", *options, STAND_IN_FAULT="wrong")
    assert (wrong.returncode, json.loads(wrong.stdout)["state"]) == (1, "wrong")
    (listed,) = json.loads(machine.vcam("engines", "list").stdout)["engines"]
    assert (listed["engine"], listed["state"]) == (engine.name, "wrong")
    assert machine.vcam("engines", "verify", *options).returncode == 0, "it gets another chance"
    spoil(engine)
    changed = machine.vcam("engines", "verify", *options)
    assert changed.returncode == 1
    assert "was changed since it was built" in json.loads(changed.stdout)["problem"]
    again = machine.vcam("engines", "build", *options)
    assert (again.returncode, json.loads(again.stdout)["state"]) == (0, "verified")
    none = machine.vcam("engines", "verify", *options, "--steps", "3")
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr == "vcam: error: there is no TensorRT engine for these settings; vcam engines build makes it\n"
    assert json.loads(machine.vcam("engines", "clean").stdout)["removed"] == []
    cleaned = json.loads(machine.vcam("engines", "clean", "--all").stdout)
    assert cleaned["removed"] == [engine.name]
    assert cleaned["freed_bytes"] > 0
    assert list(machine.engines.iterdir()) == []


def manifest_of(engine: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((engine / "manifest.json").read_text())
    return told


def test_ctrl_c_ends_a_build_and_leaves_nothing(machine: TensorRtMachine, gate: Path, tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    with errors.open("w") as file:
        command = machine.command("engines", "build", "--profile", "plain")
        environment = machine.environment | {"STAND_IN_GATE": str(gate)}
        # a shell has what it starts in the background ignore Ctrl-C, and so would this
        heeding = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-c", heeding, *command]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True)
    until(lambda: HALFWAY in errors.read_text())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors.read_text()
    assert machine.engine_folders() == []


NO_LIBRARY = "its library is not installed (python -m pip install tensorrt-rtx onnx onnxscript)"
NO_GPU = "it needs an NVIDIA GPU, and PyTorch sees none"


@pytest.mark.parametrize(("library", "why"), [(False, NO_LIBRARY), (True, NO_GPU)])
def test_where_tensorrt_cannot_run_it_is_said(tmp_path: Path, model: Path, library: bool, why: str) -> None:
    machine = TensorRtMachine(tmp_path, model, library=library, gpu=False)
    for action in ("build", "verify"):
        done = machine.vcam("engines", action)
        assert (done.returncode, done.stdout) == (1, "")
        rest = "without it --runtime auto takes the next best runtime"
        said = why.replace("python -m pip", f"{sys.executable} -m pip")  # that program's own, to be copied
        assert done.stderr == f"vcam: error: TensorRT cannot be used here: {said}; {rest}\n"
    told = json.loads(machine.vcam("engines", "list").stdout)
    assert (told["tensorrt"], told["engines"]) == (why, [])
    assert machine.vcam("engines", "clean").returncode == 0
