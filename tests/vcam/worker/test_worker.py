"""The engine in a real child process with real shared memory: what it does, and every way it can fail."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.settings import EngineSettings, Look, Lora
from tests.support import patience
from tests.support.clock import Clock
from tests.support.fake_children import QUICK, SMALL, ScriptedChild, engine_pid, frame
from tests.support.fake_engine import FACTORY, GATE
from vcam.frames import Frame, Translation
from vcam.worker.limits import Activity, AwakeClock, Limits, why_hung
from vcam.worker.translator import EngineStarters, WorkerTranslator, engine_starters

Build = Callable[..., WorkerTranslator]


@pytest.fixture
def build() -> Iterator[Build]:
    made: list[WorkerTranslator] = []

    def make(
        settings: EngineSettings = SMALL,
        prompt: str = "",
        limits: Limits = QUICK,
        clock: Callable[[], float] = time.perf_counter,
    ) -> WorkerTranslator:
        """clock: by which an engine's silence is measured."""
        starters = engine_starters(FACTORY, limits=limits, clock=clock)
        made.append(WorkerTranslator(settings, Look(prompt=prompt), starters, limits=limits))
        return made[-1]

    before = _children()
    yield make
    for translator in made:
        translator.close()
    assert _children() == before, "a child was left behind"


def _children() -> set[int]:
    """Our engines; multiprocessing's resource tracker stays."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())}


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file without which an engine that is slow to start, or to fuse, does not go on."""
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))
    return tmp_path / "gate"


def until(
    translator: WorkerTranslator,
    done: Callable[[Translation | None], bool],
    first: int = 0,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Translation]:
    """Give frame after frame until `done` of what came back (or of None); all that came back."""
    results: list[Translation] = []
    numbers = itertools.count(first)

    def step() -> bool:
        index = next(numbers)
        result = translator.translate(frame(index, index % 200) if translator.ready else None)
        if result is not None:
            results.append(result)
        return done(result)

    patience.until(step, lambda: f"it did not happen; the state is {translator.state}", meanwhile=meanwhile)
    return results


def a_picture(result: Translation | None) -> bool:
    return result is not None


def the(number: int) -> Callable[[Translation | None], bool]:
    """Whether it is the picture of that number that came back."""
    shown = itertools.count(1)
    return lambda result: result is not None and next(shown) == number


def until_it_hangs(translator: WorkerTranslator) -> None:
    """Give an engine whose prompt is "hang" two pictures, and the third, over which it hangs."""
    until(translator, the(2))
    translator.translate(frame(2))
    assert not translator.ready


def test_pictures_come_back_translated_with_their_own_number_and_time(build: Build) -> None:
    translator = build()
    results = until(translator, lambda result: result is not None and result.index > 5)
    for result in results:
        assert result.picture.shape == (64, 64, 3)
        assert (result.picture == 255 - result.index % 200).all()
        assert result.captured_s == result.index / 10
    assert translator.state.phase == "running"
    assert translator.state.facts is not None
    assert translator.state.facts.bank_bytes == 1000
    assert translator.state.frame_s > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_a_translation_comes_with_the_frame_that_it_shows_however_many_are_in_flight(build: Build, steps: int) -> None:
    translator = build(replace(SMALL, steps=steps))
    for result in until(translator, the(6)):
        assert result.source.shape == (80, 100, 3), "uncut, as the camera gave it"
        assert (result.source == result.index % 200).all()
        assert (result.picture == 255 - result.index % 200).all()


def test_a_picture_that_failed_takes_no_other_ones_frame(build: Build) -> None:
    translator = build(replace(SMALL, steps=2), prompt="raise-once")
    for result in until(translator, the(6)):
        assert (result.source == result.index % 200).all()


def test_a_translation_has_the_look_that_it_was_made_with(build: Build, gate: Path) -> None:
    translator = build()
    until(translator, a_picture)
    calm, strong = Look(strength=0.5), Look(strength=1.0)
    translator.use(SMALL, strong)
    until(translator, lambda result: result is not None and result.look == strong)
    # another engine is loaded for the next look: what the first one makes meanwhile is still of the strong one
    translator.use(replace(SMALL, model="slow-start"), calm)
    meanwhile = until(translator, lambda result: translator.state.changing and result is not None)
    assert {result.look for result in meanwhile} == {strong}
    gate.touch()
    until(translator, lambda result: result is not None and result.look == calm)


def test_a_result_is_the_receivers_own(build: Build) -> None:
    translator = build()
    first = until(translator, a_picture)[0]
    kept = first.picture.copy()
    until(translator, lambda result: result is not None and result.index > first.index + 3, first=50)
    assert (first.picture == kept).all()


def test_with_frames_in_flight_a_result_belongs_to_an_earlier_picture(build: Build) -> None:
    translator = build(replace(SMALL, steps=3))
    results = until(translator, lambda result: result is not None and result.index > 10)
    for result in results:
        assert (result.picture == 255 - result.index % 200).all()


def test_it_says_how_far_it_is_while_it_starts(build: Build, gate: Path) -> None:
    translator = build(replace(SMALL, model="slow-start"))
    seen: list[tuple[str, float | None]] = []

    def keep(result: Frame | None) -> Frame | None:
        seen.append((translator.state.phase, translator.state.progress))
        return result

    until(translator, lambda result: keep(result) is None and translator.state.text == "loading")
    gate.touch()
    until(translator, lambda result: keep(result) is not None)
    starting = [progress for phase, progress in seen if phase == "starting"]
    assert len(starting) > 1
    assert starting == sorted(starting, key=lambda progress: progress or 0)
    assert seen[-1] == ("running", None)


def test_a_look_acts_at_the_next_picture(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    translator.use(SMALL, Look(seed=7))
    result = until(translator, a_picture)[-1]
    assert (result.picture[..., 0] == (255 - result.index % 200 + 7) % 256).all()
    assert (result.picture[..., 1] == 255 - result.index % 200).all()


def test_a_look_that_the_engine_refuses_changes_nothing_and_is_told(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    pid = engine_pid(translator)
    translator.use(SMALL, Look(prompt="refuse"))
    until(translator, lambda result: "guidance is 2" in translator.state.text)
    until(translator, a_picture)
    assert engine_pid(translator) == pid


def test_killed_again_and_again_it_comes_back(build: Build) -> None:
    translator = build()
    for kill in range(5):
        until(translator, lambda result: result is not None and translator.state.text == "")  # it is well again
        os.kill(engine_pid(translator), signal.SIGKILL)
        until(translator, lambda result: translator.state.phase == "restarting")
        assert "killed (SIGKILL): out of memory?" in translator.state.text
        assert translator.state.restarts == kill + 1
    until(translator, a_picture)


def test_hanging_it_is_ended_and_started_again(build: Build) -> None:
    clock = Clock()
    translator = build(prompt="hang", limits=replace(QUICK, frame_s=2.0), clock=clock)
    until_it_hangs(translator)
    until(
        translator,
        lambda result: "has not answered for 2 s" in translator.state.text,
        meanwhile=lambda: clock.sleep(0.5),
    )
    assert translator.state.phase == "restarting"
    until(translator, a_picture)


def test_orders_that_nobody_reads_block_nothing(build: Build) -> None:
    clock = Clock()
    translator = build(prompt="hang", limits=replace(QUICK, frame_s=2.0), clock=clock)
    until_it_hangs(translator)
    for _ in range(10):  # a slider that is moved while the engine hangs: more than a pipe holds
        for seed in range(1000):
            translator.use(SMALL, Look(prompt="hang", seed=seed))
        translator.translate(None)
    assert (translator.state.phase, translator.state.restarts) == ("running", 0)
    until(
        translator,
        lambda result: "has not answered for 2 s" in translator.state.text,
        meanwhile=lambda: clock.sleep(0.5),
    )


def test_of_the_looks_asked_for_while_it_works_the_newest_acts(build: Build) -> None:
    translator = build(replace(SMALL, model="busy"))
    until(translator, a_picture)
    translator.translate(frame(100, 100))
    for seed in (5, 6, 7):
        translator.use(SMALL, Look(seed=seed))
    results = until(translator, lambda result: result is not None and apart(result)[0] == 7, first=101)
    assert {apart(result)[0] for result in results} <= {0, 7}


def test_hanging_at_the_first_picture_is_noticed_too(build: Build) -> None:
    translator = build(prompt="hang-at-once", limits=replace(QUICK, first_frame_s=0.05))
    until(translator, lambda result: "has not answered for 0.05 s" in translator.state.text)


def test_raising_at_every_picture_it_is_restarted_then_given_up_with_the_reason(build: Build) -> None:
    translator = build(prompt="raise", limits=replace(QUICK, tries=2, raises=3))
    until(translator, lambda result: translator.state.phase == "failed")
    text = "the engine fails at every picture: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert translator.state.text == text
    assert translator.state.restarts == 2
    assert not translator.ready
    translator.use(SMALL, Look())  # what the user asks for next deserves a fresh try
    until(translator, a_picture)


def test_raising_once_it_just_goes_on(build: Build) -> None:
    translator = build(prompt="raise-once")
    until(translator, lambda result: result is not None and result.index > 5)
    assert translator.state.restarts == 0


@pytest.mark.parametrize(
    ("model", "reason", "restarts"),
    [
        ("absent", "there is no model 'absent'; there are: fake", 1),
        ("broken", "RuntimeError: out of memory", 3),
        ("buggy", "ValueError: bug", 3),
        ("dies", "the engine ended by itself (exit status 7)", 3),
    ],
)
def test_an_engine_that_cannot_start_is_given_up_with_the_reason(
    build: Build, model: str, reason: str, restarts: int
) -> None:
    translator = build(replace(SMALL, model=model))
    until(translator, lambda result: translator.state.phase == "failed")
    assert translator.state.text == reason
    assert translator.state.restarts == restarts  # what cannot help is not tried again


def test_other_settings_build_another_engine_beside_and_swap_at_its_first_picture(build: Build, gate: Path) -> None:
    translator = build()
    until(translator, a_picture)
    first = engine_pid(translator)
    translator.use(replace(SMALL, width=96, model="slow-start"), Look())
    shown = itertools.count(1)  # the old one works on while the new one loads
    results = until(translator, lambda result: result is not None and next(shown) == 4)
    assert "loading" in translator.state.text or "starting" in translator.state.text
    gate.touch()
    results += until(translator, lambda result: result is not None and result.picture.shape[1] == 96)
    assert {result.picture.shape[1] for result in results[:-1]} == {64}
    assert engine_pid(translator) != first
    assert not psutil.pid_exists(first)


def apart(result: Frame) -> tuple[int, int]:
    """How much the fake's look has added to red, and its LoRAs to green."""
    red, green, blue = (int(level) for level in result.picture[0, 0])
    return (red - blue) % 256, (green - blue) % 256


def test_other_loras_are_taken_by_the_engine_there_is(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    first = engine_pid(translator)
    lora = Lora("a.safetensors", 0.5)
    translator.use(replace(SMALL, loras=(lora, lora)), Look(seed=7))
    until(translator, lambda r: r is not None and apart(r) == (7, 20))
    translator.use(SMALL, Look())
    until(translator, lambda r: r is not None and apart(r) == (0, 0))
    assert engine_pid(translator) == first
    # what it is built with has not been lost: back to the size, but with a LoRA, is another engine
    translator.use(replace(SMALL, width=96, loras=(lora,)), Look())
    until(translator, lambda r: r is not None and r.picture.shape[1] == 96)
    assert engine_pid(translator) != first


def test_an_engine_that_fuses_for_long_does_not_hang(build: Build, gate: Path) -> None:
    clock = Clock()
    translator = build(limits=replace(QUICK, frame_s=0.5), clock=clock)
    until(translator, a_picture)
    first = engine_pid(translator)
    translator.use(replace(SMALL, loras=(Lora("slow"),)), Look())
    translator.translate(frame(0))
    for _ in range(10):
        clock.sleep(0.5)
        translator.translate(None)
    assert (translator.state.phase, translator.state.restarts) == ("running", 0)
    gate.touch()
    until(translator, lambda r: r is not None and apart(r) == (0, 10))
    assert engine_pid(translator) == first
    assert translator.state.restarts == 0
    assert translator.state.frame_s < 0.5


def test_loras_that_the_engine_refuses_change_nothing_and_are_told(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    first = engine_pid(translator)
    translator.use(replace(SMALL, loras=(Lora("refuse"),)), Look())
    until(translator, lambda _: "no such file" in translator.state.text)
    translator.use(replace(SMALL, loras=(Lora("good"),)), Look())  # not mistaken for what it has
    until(translator, lambda r: r is not None and apart(r) == (0, 10))
    assert engine_pid(translator) == first


def test_settings_that_cannot_be_had_leave_the_engine_as_it_is(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    pid = engine_pid(translator)
    translator.use(replace(SMALL, model="absent"), Look())
    until(translator, lambda result: "not possible: there is no model 'absent'" in translator.state.text)
    until(translator, a_picture)
    assert engine_pid(translator) == pid


def test_going_back_before_the_other_is_ready_ends_the_other(build: Build, gate: Path) -> None:
    translator = build()
    until(translator, a_picture)
    pid = engine_pid(translator)
    translator.use(replace(SMALL, model="slow-start"), Look())
    until(translator, a_picture)
    translator.use(SMALL, Look(seed=3))
    until(translator, a_picture)
    assert len(_children()) == 1
    assert engine_pid(translator) == pid


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_in_the_terminal_does_not_end_the_engine(build: Build) -> None:
    translator = build()
    until(translator, a_picture)
    pid = engine_pid(translator)
    os.kill(pid, signal.SIGINT)
    until(translator, lambda result: result is not None and result.index > 30, first=20)
    assert engine_pid(translator) == pid
    assert translator.state.restarts == 0


@pytest.mark.parametrize("prompt", ["", "hang"])
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
def test_killed_the_parent_takes_child_and_memory_with_it(prompt: str) -> None:
    command = [sys.executable, "-m", "tests.support.worker_parent", prompt]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, memory = parent.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        parent.kill()
        parent.wait()
    patience.until(lambda: not psutil.pid_exists(int(pid)) and not Path("/dev/shm", memory).exists(), "left behind")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is a full disk")
def test_what_a_full_disk_does_not_take_costs_no_engine() -> None:
    command = [sys.executable, "-m", "tests.support.worker_parent", "talk"]
    with open("/dev/full", "wb") as full:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": full, "text": True}
        with subprocess.Popen(command, cwd=Path(__file__).parents[3], **streams) as parent:
            assert parent.stdout is not None
            pid, _ = parent.stdout.readline().split()
            parent.kill()
    patience.until(lambda: not psutil.pid_exists(int(pid)), "left behind")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
def test_no_shared_memory_is_left_behind(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def make(*args: Any, **kwargs: Any) -> SharedMemory:
        memory = SharedMemory(*args, **kwargs)
        names.append(memory.name)
        return memory

    monkeypatch.setattr("vcam.worker.shared_pictures.SharedMemory", make)
    translator = build()
    until(translator, a_picture)
    os.kill(engine_pid(translator), signal.SIGKILL)
    until(translator, lambda result: translator.state.restarts == 1 and result is not None)
    assert len(names) == 2  # the killed engine's and the next one's
    assert Path("/dev/shm", names[1]).exists()
    translator.close()
    assert not [name for name in names if Path("/dev/shm", name).exists()]


def test_back_off_doubles_up_to_its_limit() -> None:
    limits = Limits(first_wait_s=0.25, longest_wait_s=8)
    assert [limits.wait_s(n) for n in (1, 2, 3, 6, 7, 50)] == [0.25, 0.5, 1, 8, 8, 8]


# ------------------------------------------------------------- the supervisor's decisions, with children of no process


def test_the_waits_between_restarts_grow_until_it_is_given_up() -> None:
    clock = Clock()
    children: list[ScriptedChild] = []
    starts: list[float] = []

    def start(settings: EngineSettings, look: Look) -> ScriptedChild:
        children.append(ScriptedChild(settings, look))
        starts.append(clock.now)
        return children[-1]

    translator = WorkerTranslator(
        SMALL,
        Look(),
        EngineStarters(start, start),  # type: ignore[arg-type]
        limits=Limits(tries=5),
        clock=clock,
        sleep=clock.sleep,
    )
    while translator.state.phase != "failed":
        translator.translate(None)
        if children:
            children[-1].failure = "crashed"
        assert clock.now < 200
    waits = [round(b - a, 1) for a, b in itertools.pairwise(starts)]
    assert len(starts) == 5
    assert waits == sorted(waits)
    assert waits[-1] >= 2
    assert all(child.closed for child in children)
    translator.use(SMALL, Look(prompt="new"))
    translator.translate(None)
    assert children[-1].look.prompt == "new"


def test_pictures_in_between_make_it_start_counting_anew() -> None:
    children: list[ScriptedChild] = []

    def start(settings: EngineSettings, look: Look) -> ScriptedChild:
        children.append(ScriptedChild(settings, look))
        return children[-1]

    clock = Clock()
    translator = WorkerTranslator(
        SMALL,
        Look(),
        EngineStarters(start, start),  # type: ignore[arg-type]
        limits=Limits(tries=2),
        clock=clock,
        sleep=clock.sleep,
    )
    for _ in range(50):
        while not children or children[-1].closed:
            translator.translate(None)
        children[-1].activity = replace(children[-1].activity, pictures=9)
        translator.translate(None)
        children[-1].failure = "crashed"
        translator.translate(None)
    assert translator.state.phase == "restarting"
    assert translator.state.restarts == 50


def test_time_in_which_nobody_ran_is_no_silence_of_the_engine() -> None:
    now = [100.0]
    clock = AwakeClock(lambda: now[0])
    busy = Activity(heard_s=clock(), busy_since_s=clock(), loaded=True, pictures=5, frame_s=0.1)
    now[0] += 20.0  # the lid was closed, or SIGSTOP
    assert why_hung(busy, Limits(), clock()) == ""
    for _ in range(99):
        now[0] += 0.1
        assert why_hung(busy, Limits(), clock()) == ""
    for _ in range(3):
        now[0] += 0.1
        said = why_hung(busy, Limits(), clock())
    assert said == "the engine has not answered for 10 s"


@pytest.mark.parametrize(("limit", "words"), [(10.8311, "11 s"), (0.05, "0.05 s"), (300.0, "300 s")])
def test_a_silence_is_told_in_round_seconds(limit: float, words: str) -> None:
    busy = Activity(heard_s=0.0, busy_since_s=0.0, loaded=True, pictures=5)
    assert why_hung(busy, Limits(frame_s=limit), 1000.0) == f"the engine has not answered for {words}"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_stopped_and_continued_together_with_its_parent_the_engine_is_kept(build: Build) -> None:
    now = [0.0]
    limits = replace(QUICK, frame_s=10.0)
    starters = engine_starters(FACTORY, limits=limits, clock=lambda: time.perf_counter() + now[0])
    translator = WorkerTranslator(SMALL, Look(), starters, limits=limits)
    try:
        until(translator, a_picture)
        pid = engine_pid(translator)
        translator.translate(None)
        os.kill(pid, signal.SIGSTOP)
        while translator.ready:
            translator.translate(frame(50))  # it has a picture in hand, and does not answer
        now[0] += 20.0  # as if we had been stopped as well
        translator.translate(None)
        os.kill(pid, signal.SIGCONT)
        until(translator, a_picture, first=60)
        assert (engine_pid(translator), translator.state.restarts) == (pid, 0)
    finally:
        translator.close()
