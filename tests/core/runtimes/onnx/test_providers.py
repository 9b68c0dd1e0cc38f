"""Other makers' hardware: `auto` takes it once it was found right and quicker; OpenVINO's build is really run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch

from core import folders, verify
from core.algorithm.net import Picture
from core.engine import Engine
from core.errors import ModelError, SettingsError
from core.models.description import EMBEDDED, describe
from core.models.resolved import Resolved
from core.provider_trial import try_provider
from core.runtimes.choice import resolve
from core.runtimes.onnx import providers
from core.runtimes.onnx.providers import Placement, ProviderFinding
from core.settings import EngineSettings, Look, Provider, Runtime

CPU = EngineSettings(device="cpu")
MINE = Provider.OPENVINO
_ORDINARY = "CPUExecutionProvider"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a provider; what is found of it is kept in this folder."""
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(providers, "candidate", lambda: MINE)
    return tmp_path / "cache"


class Films:
    """What `film` shows, in the place of engines: a picture, and how long each frame took."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1, off: int = 1, error: BaseException | None = None
    ) -> None:
        self.seconds, self.off, self.error = seconds, off, error
        self.asked: list[tuple[Runtime, Provider]] = []
        monkeypatch.setattr(verify, "film", self)

    def __call__(self, resolved: Resolved, frames: int, seconds: list[float]) -> list[Picture]:
        settings = resolved.settings
        mine = settings.runtime is Runtime.ONNX and settings.provider is MINE
        self.asked.append((settings.runtime, settings.provider))
        if mine and self.error is not None:
            raise self.error
        seconds += [9.0] + [self.seconds if mine else 0.2] * (frames - 1)
        return [np.full((8, 8, 3), 100 + (self.off if mine else 0), np.uint8)] * frames


def found() -> ProviderFinding | None:
    return providers.recall(describe("embedded"), resolve(CPU).settings, MINE)


def tried() -> list[str]:
    heard: list[str] = []
    try_provider(CPU, lambda text, fraction: heard.append(text))
    return heard


def test_what_is_right_and_quicker_is_taken_and_tried_once(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    films = Films(monkeypatch)
    before = resolve(CPU)
    assert (before.settings.provider, before.runtime) == (Provider.CPU, Runtime.ONNX)
    assert before.why.endswith("openvino was not compared with eager yet")
    assert tried() == ["comparing openvino with eager, which is done once"]
    assert films.asked == [(Runtime.ONNX, MINE), (Runtime.EAGER, Provider.CPU), (Runtime.ONNX, Provider.CPU)]
    assert found() == ProviderFinding(True, "100 ms a frame, the CPU 200 ms; 48.1 dB from eager")
    after = resolve(CPU)
    assert after.settings.provider is MINE
    assert after.why.endswith("openvino: 100 ms a frame, the CPU 200 ms; 48.1 dB from eager")
    assert tried() == []
    # another size is another question, and another provider's answer is not asked for
    assert resolve(replace(CPU, width=320)).settings.provider is Provider.CPU
    assert resolve(replace(CPU, provider=Provider.CPU)).settings.provider is Provider.CPU
    assert resolve(replace(CPU, runtime=Runtime.EAGER)).settings.provider is Provider.CPU


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seconds": 0.3}, "300 ms a frame, the CPU 200 ms"),
        ({"off": 20}, "22.1 dB from eager, 30 dB needed"),
        ({"error": ModelError("the graph cannot be loaded")}, "the graph cannot be loaded"),
        ({"error": RuntimeError("driver:\n lost")}, "RuntimeError: driver: lost"),
    ],
)
def test_what_is_slower_or_wrong_or_does_not_run_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, kept: Path, given: dict[str, Any], told: str
) -> None:
    Films(monkeypatch, **given)
    tried()
    finding = found()
    assert finding is not None
    assert not finding.taken
    assert told in finding.told
    assert resolve(CPU).settings.provider is Provider.CPU
    assert told in resolve(CPU).why
    assert tried() == []


def die(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    """Have a trial leave what it leaves where its process is killed, or crashes."""
    left: list[bytes] = []

    def film(*_: object) -> list[Picture]:
        left.append((kept / "providers.json").read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "film", film)
    with pytest.raises(KeyboardInterrupt):
        tried()
    (kept / "providers.json").write_bytes(left[0])


def test_what_ends_the_program_twice_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    die(monkeypatch, kept)
    assert found() is None
    assert resolve(CPU).settings.provider is Provider.CPU
    die(monkeypatch, kept)
    assert found() == ProviderFinding(False, "the engine's process ended 2 times while it was tried")
    assert tried() == []


def test_one_death_is_forgotten_once_it_was_found_right(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    die(monkeypatch, kept)
    Films(monkeypatch)
    tried()
    finding = found()
    assert finding is not None
    assert finding.taken


def test_an_interrupted_trial_says_nothing_of_the_hardware(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    Films(monkeypatch, error=KeyboardInterrupt())
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tried()
    assert found() is None
    Films(monkeypatch)
    tried()
    finding = found()
    assert finding is not None
    assert finding.taken


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("no room"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        RuntimeError("std::bad_alloc"),
        ModelError("unet.onnx cannot be loaded: out of memory"),
        RuntimeError("CL_OUT_OF_RESOURCES: clEnqueue: Out of memory"),
        RuntimeError("Not enough memory resources are available to complete this operation"),
    ],
)
def test_that_memory_ran_out_is_not_remembered(monkeypatch: pytest.MonkeyPatch, kept: Path, error: Exception) -> None:
    Films(monkeypatch, error=error)
    for _ in range(3):
        assert "memory ran out" in tried()[-1]
    assert found() is None
    assert resolve(CPU).settings.provider is Provider.CPU


def test_an_eager_that_fails_does_not_keep_the_program_from_starting(
    monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    films = Films(monkeypatch)

    def film(resolved: Resolved, frames: int, seconds: list[float]) -> list[Picture]:
        if resolved.settings.runtime is Runtime.EAGER:
            raise RuntimeError("no kernel")
        return films(resolved, frames, seconds)

    monkeypatch.setattr(verify, "film", film)
    tried()
    assert found() == ProviderFinding(False, "RuntimeError: no kernel")


def test_where_nothing_can_be_kept_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    films = Films(monkeypatch)
    kept.write_text("a file in the folder's place")
    assert "openvino is not tried: what is found of it cannot be kept" in tried()[-1]
    assert films.asked == []


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_file_of_findings_that_cannot_be_read_is_written_anew(
    monkeypatch: pytest.MonkeyPatch, kept: Path, content: str
) -> None:
    Films(monkeypatch)
    kept.mkdir()
    (kept / "providers.json").write_text(content)
    tried()
    finding = found()
    assert finding is not None
    assert finding.taken


def test_without_another_makers_build_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(providers, "apart", lambda: None)
    monkeypatch.setattr(providers, "library", lambda *_: pytest.fail("ONNX Runtime was loaded"))
    if sys.platform != "darwin":
        assert providers.candidate() is None
        assert tried() == []


@pytest.mark.parametrize(
    ("system", "package", "have", "taken"),
    [
        ("win32", True, ["DmlExecutionProvider", _ORDINARY], Provider.DIRECTML),
        ("darwin", False, ["CoreMLExecutionProvider", _ORDINARY], Provider.COREML),
        ("linux", True, ["MIGraphXExecutionProvider", _ORDINARY], Provider.MIGRAPHX),
        ("linux", True, ["OpenVINOExecutionProvider", _ORDINARY], Provider.OPENVINO),
        ("linux", True, [_ORDINARY], None),
        ("linux", False, ["CoreMLExecutionProvider"], None),
    ],
)
def test_auto_takes_what_the_installed_build_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, package: bool, have: list[str], taken: Provider | None
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(providers, "apart", lambda: tmp_path if package else None)
    monkeypatch.setattr(providers, "library", lambda *_: SimpleNamespace(get_available_providers=lambda: have))
    assert providers.candidate() is taken


def test_a_provider_that_is_not_here_is_named_with_the_remedy() -> None:
    wanted = replace(CPU, provider=Provider.MIGRAPHX)
    assert resolve(wanted).runtime is Runtime.ONNX
    with pytest.raises(
        SettingsError, match=r"provider is migraphx.* has not \(it has .*cpu.*run\.sh --provider migraphx"
    ):
        Engine(wanted, Look())


class Part(NamedTuple):
    ep_name: str
    nodes: int

    def get_nodes(self) -> list[int]:
        return [0] * self.nodes


class Told(NamedTuple):
    parts: list[Part]

    def get_provider_graph_assignment_info(self) -> list[Part]:
        return self.parts


def test_nodes_that_fell_back_to_the_cpu_are_counted() -> None:
    sessions: list[Any] = [Told([Part("X", 7), Part(_ORDINARY, 2)]), Told([Part("X", 1), Part(_ORDINARY, 1)])]
    placed = providers.placement(Provider.DIRECTML, sessions)
    assert placed == Placement(Provider.DIRECTML, 11, 3)
    assert str(placed) == "directml, 3 of 11 nodes on the CPU"
    assert providers.placement(Provider.CPU, sessions) is None
    assert providers.placement(Provider.DIRECTML, [object()]) is None


def test_rows_in_one_call_on_known_sizes_show_what_the_cpu_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the place of other hardware: what differs is how it is asked."""
    options = providers.options
    monkeypatch.setitem(providers._NAMES, Provider.MIGRAPHX, _ORDINARY)
    monkeypatch.setattr(providers, "options", lambda *given: (options(*given)[0], [_ORDINARY]))
    scene = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    films = []
    for provider in (Provider.CPU, Provider.MIGRAPHX):
        engine = Engine(replace(CPU, width=128, height=96, provider=provider), Look("ink"))
        shown = [engine.translate(np.ascontiguousarray(scene[8:104, 3 * at : 3 * at + 128])) for at in range(5)]
        films.append([one for one in [*shown, *engine.drain()] if one is not None])
    if hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):  # from 1.24 on
        assert engine.provider.startswith("migraphx, ")
    assert len(films[0]) == len(films[1]) == 5
    assert min(map(verify.psnr, *films)) > 45
    assert films[0][-1].std() > 5


def test_the_build_apart_is_what_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "provider" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def disable_telemetry_events(): pass\n")
    script = (
        "import sys; sys.prefix = sys.argv[1]\n"
        "from core.runtimes.onnx import providers\n"
        "from core.settings import Provider\n"
        "print(providers.library(Provider(sys.argv[2])).__file__)\n"
    )
    for provider, apart in (("auto", True), ("openvino", True), ("cpu", False)):
        command = [sys.executable, "-c", script, str(tmp_path), provider]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert (Path(told).parent == package) == apart


REAL = """
import json, sys
import numpy as np, torch
from pathlib import Path
from core import folders
folders.cache = lambda: Path(sys.argv[1])
from core.engine import Engine
from core.provider_trial import try_provider
from core.runtimes.choice import resolve
from core.runtimes.onnx import providers
from core.settings import EngineSettings, Look, Provider, Runtime
from core.verify import film, psnr

settings = EngineSettings(model=sys.argv[2], width=128, height=128, device="cpu")
heard = []
try_provider(settings, lambda text, fraction: heard.append(text))
films = [film(resolve(EngineSettings(model=sys.argv[2], width=128, height=128, device="cpu", **one)), 6)
    for one in ({"provider": Provider.OPENVINO}, {"runtime": Runtime.EAGER})]
engine = Engine(EngineSettings(model=sys.argv[2], width=128, height=128, provider=Provider.OPENVINO), Look("ink"))
worst, why = min(map(psnr, *films)), resolve(settings).why
print(json.dumps({"heard": heard, "psnr": worst, "provider": engine.provider, "why": why}))
"""


@pytest.mark.openvino
def test_openvinos_build_is_right_on_this_cpu(tmp_path: Path) -> None:
    if providers.apart() is None:
        pytest.skip("it is not here: ./install_scripts/run.sh --provider openvino --help")
    command = [sys.executable, "-c", REAL, str(tmp_path), str(EMBEDDED)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["heard"] == ["comparing openvino with eager, which is done once"]
    assert told["psnr"] > 35
    assert "dB from eager" in told["why"]
    provider, nodes = told["provider"].split(", ")
    on_cpu, _, of, *_ = nodes.split()
    assert provider == "openvino"
    assert int(on_cpu) < 0.1 * int(of)
    assert int(of) > 1000
