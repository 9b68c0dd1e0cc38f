"""The warm start: another runtime shows pictures while TensorRT's engine is built, which then takes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.models.description import ModelDescription
from core.plans import CachedPlan, Machine, PlanKey, PlanManifest, TensorRtState, Verdict
from core.runtimes import choice
from core.runtimes.choice import resolve
from core.runtimes.tensorrt import library, readiness
from core.settings import EngineSettings, Look, Lora, Runtime
from tests.support import fake_engine
from tests.support.fake_children import ScriptedChild
from tests.support.media_files import film
from vcam.cli.main import main
from vcam.frames import EngineFacts, Frame
from vcam.worker.factories import instead
from vcam.worker.messages import EncodePrompts, LoadingProgress
from vcam.worker.process import EngineReport
from vcam.worker.translator import EngineStarters, WorkerTranslator

WANTED = EngineSettings(model="fake", width=64, height=64, steps=1, runtime=Runtime.TENSORRT)


class Starting(ScriptedChild):
    """It is ready at its first step, and has a picture when the test says so."""

    def __init__(self, settings: EngineSettings, look: Look, facts: EngineFacts) -> None:
        super().__init__(settings, look)
        self.ready = False
        self.report = EngineReport(facts, LoadingProgress("building the TensorRT engine: 40 %", 0.4))
        self.shown: Frame | None = None

    def takes(self, settings: EngineSettings) -> bool:
        return False

    def step(self) -> Frame | None:
        self.ready = True
        return self.shown


def ladder(facts: EngineFacts) -> tuple[WorkerTranslator, list[Starting], list[Starting]]:
    """A translator, the engines that it started, and those that it had built."""
    started: list[Starting] = []
    built: list[Starting] = []

    def start(settings: EngineSettings, look: Look) -> Starting:
        started.append(Starting(settings, look, facts))
        return started[-1]

    def build(settings: EngineSettings, look: Look) -> Starting:
        built.append(Starting(settings, look, EngineFacts(runtime="tensorrt")))
        return built[-1]

    starters = EngineStarters(start, build, remove_unfinished=lambda: None)  # type: ignore[arg-type]
    translator = WorkerTranslator(WANTED, Look(), starters, sleep=lambda _: None)
    for _ in range(3):
        translator.translate(None)
    return translator, started, built


def test_the_engine_is_built_beside_and_takes_over_at_its_first_picture() -> None:
    translator, (first,), (beside,) = ladder(EngineFacts(to_build=True, note="running eager"))
    assert translator.state.text == "preparing fake: building the TensorRT engine: 40 %"
    closed_before = first.closed
    beside.shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is beside.shown
    assert (closed_before, first.closed) == (False, True)
    assert translator.state.facts == EngineFacts(runtime="tensorrt")


def test_another_look_does_not_stop_the_build() -> None:
    translator, (first,), (beside,) = ladder(EngineFacts(to_build=True))
    look = Look(prompt="ink")
    translator.use(WANTED, look, 400)
    translator.translate(None)
    assert not beside.closed
    assert (first.sent[-1], beside.sent[-1]) == ((look, 400), (look, 0))


def test_other_settings_stop_it() -> None:
    translator, started, (beside,) = ladder(EngineFacts(to_build=True))
    translator.use(replace(WANTED, steps=2), Look())
    translator.translate(None)
    assert beside.closed
    assert started[-1].settings.steps == 2


def test_every_engine_encodes_the_prompts_ahead() -> None:
    translator, started, built = ladder(EngineFacts(to_build=True))
    translator.prepare(["ink", "clay", "ink"])
    translator.translate(None)
    translator.use(replace(WANTED, steps=2), Look())
    translator.translate(None)
    assert [EncodePrompts(("ink", "clay")) in engine.sent for engine in (*started, *built)] == [True] * 3
    started[-1].shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    translator.translate(None)
    assert EncodePrompts(("ink", "clay")) in built[-1].sent
    assert len(built) == 2, "what was exchanged is built too"


def test_other_loras_do_not_stop_the_build_and_reach_what_is_built() -> None:
    translator, (first,), (beside,) = ladder(EngineFacts(to_build=True))
    first.takes = lambda settings: True  # type: ignore[method-assign]
    wanted = replace(WANTED, loras=(Lora("a.safetensors"),))
    translator.use(wanted, Look())
    translator.translate(None)
    assert (first.closed, beside.closed) == (False, False)
    assert first.settings == beside.settings == wanted


def test_the_engine_that_shows_dies_and_the_build_goes_on() -> None:
    translator, started, built = ladder(EngineFacts(to_build=True))
    started[0].failure = "crashed"
    translator.translate(None)
    assert not built[0].closed
    translator.retry()
    translator.translate(None)
    assert len(started) == 2
    assert len(built) == 1, "no second build"


def test_a_build_that_fails_is_told_and_the_picture_goes_on() -> None:
    translator, (first,), built = ladder(EngineFacts(to_build=True, runtime="eager", note="until it is built"))
    built[0].failure = "the disk is full"
    translator.translate(None)
    assert built[0].closed
    assert not first.closed
    assert translator.state.phase == "running"
    told = "the TensorRT engine was not built: the disk is full; running eager"
    assert translator.state.text == told
    translator.use(WANTED, Look(prompt="ink"))
    translator.translate(None)
    assert translator.state.text == told, "another look does not make it true again that it will be built"
    assert len(built) == 1, "what failed is not tried again and again"


@pytest.mark.parametrize(("runtime", "device"), [("eager", "cuda"), ("compiled", "cuda"), ("eager", "cpu")])
def test_what_ran_until_it_is_built_makes_room_where_it_is_not(runtime: str, device: str) -> None:
    facts = EngineFacts(to_build=True, runtime=runtime, device=device)
    translator, started, built = ladder(facts)
    started[0].settings = replace(WANTED, runtime=Runtime.AUTO)
    built[0].failure = "it is refused"
    translator.translate(None)
    stopgap = (runtime, device) == ("eager", "cuda")
    assert len(started) == 1 + stopgap, "the next best runtime, which auto did not take at first"
    assert not started[0].closed


def test_what_was_built_without_the_loras_is_not_shown_but_built_anew_with_them() -> None:
    translator, started, built = ladder(EngineFacts(to_build=True))
    beside = built[0]
    started[0].takes = lambda settings: True  # type: ignore[method-assign]
    wanted = replace(WANTED, loras=(Lora("a.safetensors"),))
    translator.use(wanted, Look())
    translator.translate(None)
    beside.settings = WANTED  # it refused them
    beside.shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is None, "a picture without the LoRAs, which show already"
    assert beside.closed
    assert not started[0].closed
    translator.translate(None)
    assert (len(built), built[-1].settings) == (2, wanted)
    built[-1].shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is built[-1].shown
    assert started[0].closed


def with_loras(path: str) -> EngineSettings:
    return replace(WANTED, loras=(Lora(path),))


def test_the_engine_of_other_loras_is_built_while_the_one_before_goes_on() -> None:
    """The library puts no weights into an engine: each set of LoRAs has its own."""
    translator, (first,), built = ladder(EngineFacts(runtime="tensorrt", builds_loras=True))
    translator.use(with_loras("a"), Look())
    translator.translate(None)
    (beside,) = built
    assert (beside.settings, first.settings, first.closed) == (with_loras("a"), WANTED, False)
    told = "preparing fake: building the TensorRT engine: 40 %; what you saw before goes on until it is there"
    assert translator.state.text.startswith(told)
    assert translator.state.changing
    beside.shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is beside.shown
    assert first.closed
    assert "preparing" not in translator.state.text


def test_other_loras_than_those_that_are_built_and_none_again_end_that_build() -> None:
    translator, started, built = ladder(EngineFacts(runtime="tensorrt", builds_loras=True))
    for wanted in (with_loras("a"), with_loras("b"), WANTED):
        translator.use(wanted, Look())
        translator.translate(None)
    assert [one.closed for one in built] == [True, True]
    assert not started[0].closed
    assert len(started) == 1
    assert not translator.state.changing


def test_loras_whose_engine_is_not_built_are_shown_by_the_next_best_runtime() -> None:
    translator, started, built = ladder(EngineFacts(runtime="tensorrt", builds_loras=True))
    translator.use(with_loras("a"), Look())
    translator.translate(None)
    built[0].failure = "the disk is full"
    translator.translate(None)
    assert built[0].closed
    assert (len(started), started[-1].settings, started[0].closed) == (2, with_loras("a"), False)
    started[-1].shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is started[-1].shown
    assert len(built) == 1, "and not tried again and again"


def test_where_the_one_before_dies_meanwhile_another_shows_and_the_build_goes_on() -> None:
    translator, started, built = ladder(EngineFacts(runtime="tensorrt", builds_loras=True))
    translator.use(with_loras("a"), Look())
    translator.translate(None)
    started[0].failure = "crashed"
    translator.translate(None)
    translator.retry()
    translator.translate(None)
    assert not built[0].closed
    assert (len(started), started[-1].settings) == (2, with_loras("a"))
    built[0].shown = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 1)
    assert translator.translate(None) is built[0].shown
    assert started[-1].closed


def test_where_nothing_can_be_built_the_reason_stays_in_the_status() -> None:
    translator, _, built = ladder(EngineFacts(note="TensorRT cannot be used here: no GPU; running eager"))
    assert built == []
    assert translator.state.text == "TensorRT cannot be used here: no GPU; running eager"


@pytest.mark.parametrize(("runtime", "said"), [(Runtime.TENSORRT, True), (Runtime.AUTO, False)])
def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, said: bool) -> None:
    monkeypatch.setenv(library.CHOICE, "none")
    asked = replace(WANTED, runtime=runtime)
    engine = fake_engine.make(replace(asked, runtime=Runtime.EAGER, device="cpu", dtype="float32"), Look(), 1, silent)
    note, to_build = instead(asked, engine)
    assert note.startswith("TensorRT cannot be used here: its library is not installed") is said
    assert not to_build


@pytest.mark.parametrize(
    ("state", "note", "to_build"),
    [
        ({"quick": True}, "there is no TensorRT engine yet; running eager until it is built", True),
        ({"quick": False}, "", False),
        (
            {"quick": True, "failed": "no"},
            "the TensorRT engine was not built: no; running eager; vcam engines b",
            False,
        ),
    ],
)
def test_auto_builds_where_it_takes_a_minute_and_was_not_refused(
    state: dict[str, object], note: str, to_build: bool
) -> None:
    asked = replace(WANTED, runtime=Runtime.AUTO)
    engine = fake_engine.make(replace(asked, runtime=Runtime.EAGER, device="cpu", dtype="float32"), Look(), 1, silent)
    key = PlanKey.of(Machine("1.7.1", "any", "8.9", "any", "tensorrt_rtx"), "0123", asked)
    engine.tensorrt = TensorRtState("", key, **state)  # type: ignore[arg-type]
    told = instead(asked, engine)
    assert told[0].startswith(note)
    assert (bool(told[0]), told[1]) == (bool(note), to_build)


def silent(text: str, fraction: float) -> None:
    pass


def test_translating_a_file_says_which_runtime_runs_instead(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.CHOICE, "none")
    command = ["translate", str(film(tmp_path / "in.mp4", 2)), str(tmp_path / "out.mp4"), "--engine-size", "64x64"]
    assert main([*command, "--runtime", "tensorrt"]) == 0
    assert "TensorRT cannot run this now: its library is not installed" in capfd.readouterr().err


def test_auto_takes_tensorrt_only_with_an_engine_that_was_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = [Verdict.UNVERIFIED]
    machine = Machine("10.16.1.11", "a GPU", "8.9", "580")
    key = PlanKey.of(machine, "0123", EngineSettings())

    def look(description: ModelDescription, settings: EngineSettings) -> TensorRtState:
        return TensorRtState("", key, CachedPlan(Path(), PlanManifest(key, "embedded", {}, verdict=verdict[0])))

    monkeypatch.setattr(choice, "find_spec", lambda name: object())  # Triton
    monkeypatch.setattr(readiness, "may_run", lambda device: True)
    monkeypatch.setattr(readiness, "look", look)
    gpu = EngineSettings(device="cuda", dtype="float16")
    assert resolve(gpu).runtime is Runtime.COMPILED
    assert resolve(replace(gpu, runtime=Runtime.TENSORRT)).runtime is Runtime.TENSORRT
    verdict[0] = Verdict.VERIFIED
    assert resolve(gpu).runtime is Runtime.TENSORRT
