"""core.engine: what comes out when, what a look changes, what is remembered and what is not."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core import engine as engines
from core.algorithm import bank as banks
from core.algorithm.bank import Bank, Features, Reading
from core.algorithm.net import Picture
from core.engine import Engine
from core.errors import SettingsError
from core.progress import silent
from core.runtimes.choice import resolve
from core.runtimes.load import load
from core.runtimes.model import Model
from core.runtimes.stages import sample_update
from core.settings import BANK_RULES, BankPreset, EngineSettings, Guidance, Look, OnSwitch, Policy
from core.steadying import Steadying
from tests.support.model_folders import layout_once, make_folder, parts_of, replace_parts

SIZE = 64
real_load = functools.cache(load)  # a model keeps nothing of a stream, so engines may share it


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small nets on a busy machine are much quicker so
    monkeypatch.setattr("core.engine.load", real_load)
    monkeypatch.setattr("core.algorithm.unet.layout", layout_once)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("engine") / "model")


class Call(NamedTuple):
    """What one UNet call was given."""

    timesteps: list[int]
    text: Tensor
    fresh: list[bool]
    strength: list[float]
    threshold: list[float]


def watch(engine: Engine) -> list[Call]:
    """The UNet calls that the engine makes from now on."""
    calls: list[Call] = []
    net = parts_of(engine).net

    def watched(
        latents: Tensor, timesteps: Tensor, text: Tensor, bank: Bank, reading: Reading
    ) -> tuple[Tensor, Features]:
        fresh = [False] * len(latents) if reading.fresh is None else reading.fresh.tolist()
        rows = (fresh, reading.strength.tolist(), reading.threshold.tolist())
        calls.append(Call(timesteps.tolist(), text, *rows))
        return net(latents, timesteps, text, bank, reading)

    replace_parts(engine, net=watched)
    return calls


def picture(number: int, height: int = SIZE, width: int = SIZE) -> Picture:
    """A pattern that drifts from one picture to the next."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin((x + 3 * number) / 9), np.sin(y / 7 + number / 9), np.sin((x + y - number) / 11))
    return np.stack([(127.5 + 120 * wave).astype(np.uint8) for wave in waves], axis=-1)


def make(folder: Path, look: Look | None = None, **values: Any) -> Engine:
    given = {"model": str(folder), "width": SIZE, "height": SIZE, "steps": 1, "policy": Policy.FIFO, **values}
    return Engine(EngineSettings(**given), look or Look("ink", interval=1))


def run(engine: Engine, numbers: Any) -> list[Picture | None]:
    return [engine.translate(picture(number)) for number in numbers]


def alike(one: Picture | None, other: Picture | None) -> bool:
    """Whether there are two pictures, and they are the same."""
    return one is not None and other is not None and np.array_equal(one, other)


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def apart(one: Picture | None, other: Picture | None) -> float:
    """Mean absolute difference, grey levels."""
    assert one is not None
    assert other is not None
    return float(np.abs(one.astype(int) - other).mean())


# --------------------------------------------------------------------------------------------------- order and number


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_each_result_shows_the_picture_given_delay_calls_ago(folder: Path, steps: int) -> None:
    engine = make(folder, steps=steps, policy=Policy.OFF)
    assert engine.delay == steps - 1
    results = run(engine, range(6))
    assert results[: engine.delay] == [None] * engine.delay
    shown = [*results[engine.delay :], *engine.drain()]
    for number, result in enumerate(shown):
        alone = make(folder, steps=steps, policy=Policy.OFF)  # no bank: a picture's translation is its own
        run(alone, [number])
        (expected,) = alone.drain() if steps > 1 else run(alone, [number])
        assert apart(result, expected) < 0.01
    assert len(shown) == 6


@settings(max_examples=8)
@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 3), st.sampled_from(Policy))
def test_as_many_come_out_as_went_in(folder: Path, steps: int, frames: int, again: int, policy: Policy) -> None:
    engine = make(folder, steps=steps, policy=policy)
    first = [r for r in run(engine, range(frames)) if r is not None] + list(engine.drain())
    assert len(first) == frames
    assert list(engine.drain()) == []
    second = [r for r in run(engine, range(again)) if r is not None] + list(engine.drain())
    assert same(second, first[:again]) or again > frames  # drained, the stream starts anew


def test_a_drain_left_early_starts_the_stream_anew_too(folder: Path) -> None:
    engine = make(folder, steps=3)
    run(engine, range(4))
    flow = engine.drain()
    next(flow)
    assert isinstance(flow, Generator)
    flow.close()
    assert same(run(engine, range(4)), run(make(folder, steps=3), range(4)))


def test_a_drain_and_looks_work_inside_and_outside_of_inference_mode(folder: Path) -> None:
    engine = make(folder, steps=2)
    run(engine, range(2))
    for _ in engine.drain():
        assert not torch.is_inference_mode_enabled()
        engine.set_look(Look("clay"), frames=3)
    with torch.inference_mode():
        engine.set_look(Look("red"), frames=3)
        run(engine, range(2))
    engine.set_look(Look("blue"), frames=2)
    assert run(engine, range(3))[-1] is not None


def test_what_goes_in_and_comes_out_is_the_callers_own(folder: Path) -> None:
    engine, other = (make(folder, Look("ink", skip_difference=5)) for _ in range(2))
    given = picture(0)
    result = engine.translate(given)
    assert result is not None
    assert np.array_equal(given, picture(0))
    expected = result.copy()
    result[:], given[:] = 0, 255  # a badge is drawn, the buffer is used again
    again = engine.translate(picture(0))
    assert again is not None
    assert np.array_equal(again, expected)
    again[:] = 7
    assert alike(engine.translate(picture(0)), expected)
    assert alike(other.translate(picture(0)), expected)


# ---------------------------------------------------------------------------------------------------- seeds, engines


@pytest.mark.parametrize("policy", Policy)
def test_the_same_seed_gives_the_same_bytes_and_another_others(folder: Path, policy: Policy) -> None:
    first, again, other = (
        run(make(folder, Look("ink", seed=seed, interval=2), steps=2, policy=policy), range(5)) for seed in (7, 7, 8)
    )
    assert same(first[1:], again[1:])
    assert not same(first[1:], other[1:])


def test_two_engines_do_not_disturb_each_other(folder: Path) -> None:
    alone = [run(make(folder, steps=2), range(start, start + 4)) for start in (0, 50)]
    one, other = make(folder, steps=2), make(folder, steps=2)
    pairs = [(one.translate(picture(n)), other.translate(picture(n + 50))) for n in range(4)]
    assert same([a for a, _ in pairs][1:], alone[0][1:])
    assert same([b for _, b in pairs][1:], alone[1][1:])


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_two_streams_on_one_model_do_not_disturb_each_other(folder: Path, policy: Policy) -> None:
    ink, oil = Look("ink", interval=1), Look("oil", interval=1, seed=3)
    alone = [run(make(folder, look, steps=2, policy=policy), range(s, s + 4)) for look, s in ((ink, 0), (oil, 50))]
    one = make(folder, ink, steps=2, policy=policy)
    other = one.another(oil)
    pairs = [(one.translate(picture(n)), other.translate(picture(n + 50))) for n in range(4)]
    assert same([a for a, _ in pairs][1:], alone[0][1:])
    assert same([b for _, b in pairs][1:], alone[1][1:])
    one.forget()
    assert not same([other.translate(picture(54))], [run(make(folder, oil, steps=2, policy=policy), [54, 54])[1]])


def test_a_stream_for_which_there_is_no_memory_is_refused_before_it_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(folder)
    monkeypatch.setattr("core.models.host_memory.free_ram", lambda: engine.bank_bytes - 1)
    with pytest.raises(SettingsError, match=r"another stream of .* needs .* are free on cpu; take a smaller size"):
        engine.another(Look("oil"))


def test_policies_differ_and_say_what_their_bank_takes(folder: Path) -> None:
    results, sizes = {}, {}
    for policy, slots in ((Policy.OFF, 1), (Policy.FIFO, 1), (Policy.FIFO, 3), (Policy.MERGE, 3)):
        engine = make(folder, steps=2, policy=policy, slots=slots)
        results[policy, slots], sizes[policy, slots] = run(engine, range(6))[-1], engine.bank_bytes
        layout = engine._model.layout
        kept = slots if policy is Policy.FIFO else 1
        assert engine.bank_bytes == banks.bank_bytes(layout, 2, kept, torch.float32)
    assert sizes[Policy.OFF, 1] == 0 < sizes[Policy.FIFO, 1] == sizes[Policy.MERGE, 3] == sizes[Policy.FIFO, 3] / 3
    pictures = [result.tobytes() for result in results.values() if result is not None]
    assert len(set(pictures)) == 4


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_to_forget_is_to_start_anew(folder: Path, policy: Policy) -> None:
    engine = make(folder, policy=policy)
    run(engine, range(4))
    engine.forget()
    assert same(run(engine, range(4, 8)), run(make(folder, policy=policy), range(4, 8)))


def detailed(tmp_path: Path, **values: Any) -> Engine:
    """An engine of a model with a detail stage, which shows the source that the frame got."""
    engine = make(make_folder(tmp_path / "own"), **values)
    count = engine.settings.steps
    state = engine._state
    tensors = state.tensors._replace(sources=torch.zeros(count, SIZE, SIZE, 3, dtype=torch.uint8))
    engine._state = state._replace(tensors=tensors)
    replace_parts(engine, decode=lambda latent, source: source.numpy().copy())
    return engine


@pytest.mark.parametrize("steps", [1, 2])
def test_a_film_is_not_steadied_by_the_film_before(tmp_path: Path, steps: int) -> None:
    engine, new = (detailed(tmp_path / name, steps=steps) for name in ("used", "new"))
    run(engine, range(4))
    list(engine.drain())
    found, expected = ([one.translate(picture(number) // 8) for number in range(3)] for one in (engine, new))
    assert same(found[steps - 1 :], expected[steps - 1 :])


@pytest.mark.parametrize(
    ("steps", "preset", "on_switch"),
    [(1, BankPreset.OWN, OnSwitch.DECAY), (2, BankPreset.OWN, OnSwitch.KEEP), (2, BankPreset.PAPER, OnSwitch.KEEP)],
)
def test_an_engine_that_starts_anew_with_another_look_is_like_a_new_one(
    folder: Path, steps: int, preset: BankPreset, on_switch: OnSwitch
) -> None:
    rules = BANK_RULES[preset]
    first = Look("ink", interval=1, on_switch=on_switch, steady=0.5)
    look = dataclasses.replace(first, prompt="neon")
    engine, new = make(folder, first, steps=steps, rules=rules), make(folder, look, steps=steps, rules=rules)
    run(engine, range(5))
    engine.set_look(first, 30)
    engine.set_look(dataclasses.replace(first, prompt="red"), 30)
    run(engine, range(3))
    list(engine.drain())
    engine.set_look(look)
    assert same(run(engine, range(4, 10))[steps - 1 :], run(new, range(4, 10))[steps - 1 :])


def test_to_forget_ends_a_decay_and_what_is_held(folder: Path) -> None:
    look = Look("ink", interval=1, on_switch=OnSwitch.DECAY, steady=0.5)
    engine = make(folder, look)
    run(engine, range(4))
    engine.set_look(dataclasses.replace(look, prompt="neon"))
    engine.forget()
    assert same(run(engine, range(4, 8)), run(make(folder, engine.look), range(4, 8)))


@pytest.mark.parametrize("preset", [BankPreset.OWN, BankPreset.PAPER])
def test_to_measure_its_stages_changes_no_bank(folder: Path, preset: BankPreset) -> None:
    values: dict[str, Any] = {"policy": Policy.MERGE, "rules": BANK_RULES[preset]}
    engine = make(folder, **values)
    run(engine, range(3))
    before = {name: ring.clone() for name, ring in engine._state.tensors.bank.items()}
    assert engine.stages(picture(9), repeats=1)["bank"] > 0
    assert all(torch.equal(ring, before[name]) for name, ring in engine._state.tensors.bank.items())
    groups = len(banks.merge_groups(engine._model.layout))
    merged = sample_update(engine._sampling, engine._state).merged
    assert groups > 1
    assert len(merged) == groups, "an interval of one, or the paper's rules: all groups in one frame"
    later = engine._sampling._replace(interval=4)
    assert len(sample_update(later, engine._state).merged) == (groups if preset is BankPreset.PAPER else 1)


@pytest.mark.parametrize("policy", Policy)
def test_memory_does_not_grow(folder: Path, policy: Policy) -> None:
    engine = make(folder, Look("ink", interval=2, skip_difference=0.5), steps=2, policy=policy, slots=2)

    def held() -> tuple[int, int]:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
        return len(tensors), sum(tensor.nbytes for tensor in tensors)

    run(engine, range(6))
    before = held()
    run(engine, range(6, 56))  # 50 frames
    assert held() == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_every_dtype_shows_about_the_same(folder: Path, dtype: str, policy: Policy) -> None:
    look = Look("ink", strength=0.4, interval=1, similarity_threshold=0.5)
    expected = run(make(folder, look, steps=2, policy=policy), range(4))[-1]
    assert apart(run(make(folder, look, steps=2, policy=policy, dtype=dtype), range(4))[-1], expected) < 6


@pytest.mark.parametrize(("height", "width"), [(64, 144), (112, 80), (208, 96)])
@pytest.mark.parametrize("policy", Policy)
def test_any_multiple_of_sixteen_is_a_size(folder: Path, height: int, width: int, policy: Policy) -> None:
    engine = make(folder, width=width, height=height, policy=policy)
    for number in range(2):
        result = engine.translate(picture(number, height, width))
        assert result is not None
        assert result.shape == (height, width, 3)
        assert result.dtype == np.uint8
        assert result.std() > 1


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE, 4), np.uint8),
        np.zeros((SIZE, SIZE + 16, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.float32),
        np.zeros((0, 0, 3), np.uint8),
        [[1, 2, 3]],
        None,
    ],
)
def test_a_picture_that_is_none_is_refused_and_changes_nothing(folder: Path, wrong: Any) -> None:
    engine, untroubled = make(folder, steps=2), make(folder, steps=2)
    run(engine, range(2))
    run(untroubled, range(2))
    with pytest.raises(ValueError, match=r"the picture is .* it must be .*uint8 \(64, 64, 3\)"):
        engine.translate(wrong)
    assert same(run(engine, [2, 3]), run(untroubled, [2, 3]))


def test_a_call_that_fails_changes_nothing(folder: Path) -> None:
    engine, untroubled = make(folder, steps=2), make(folder, steps=2)
    run(engine, range(3))
    run(untroubled, range(3))
    whole = parts_of(engine)

    def fails(*given: object) -> tuple[Tensor, Features]:
        raise RuntimeError("out of memory")

    replace_parts(engine, net=fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.translate(picture(77))
    replace_parts(engine, **whole._asdict())
    assert same(run(engine, range(3, 6)), run(untroubled, range(3, 6)))


# -------------------------------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize(
    "look",
    [
        Look("clay", interval=1),
        Look("ink", strength=0.9, interval=1),
        Look("ink", seed=3, interval=1),
    ],
)
def test_a_look_acts_at_the_next_picture(folder: Path, look: Look) -> None:
    engine = make(folder, policy=Policy.OFF)
    run(engine, range(2))
    engine.set_look(look)
    assert engine.look == look
    expected = run(make(folder, look, policy=Policy.OFF), range(2, 4))
    assert same(run(engine, range(2, 4)), expected)
    assert not same(expected, run(make(folder, policy=Policy.OFF), range(2, 4)))


def test_a_bank_setting_of_the_look_acts_and_none_takes_the_models(folder: Path) -> None:
    engine = make(folder, Look("ink"))
    calls = watch(engine)
    run(engine, range(2))
    engine.set_look(Look("ink", fusion_strength=0.25, similarity_threshold=0.5))
    run(engine, [2])
    own = engine.resolved.description
    assert calls[0].fresh == [True]
    assert calls[0].threshold[0] > 1  # nothing is fused with a bank that is not there
    assert calls[1].strength + calls[1].threshold == pytest.approx([own.fusion_strength, own.similarity_threshold])
    assert calls[2].strength + calls[2].threshold == [0.25, 0.5]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_prompt_blends_over_so_many_frames(folder: Path, steps: int) -> None:
    engine = make(folder, steps=steps, policy=Policy.OFF)
    calls = watch(engine)
    ink, clay = engine._model.encoder("ink"), engine._model.encoder("clay")
    run(engine, range(2))
    engine.set_look(Look("clay"), frames=4)
    run(engine, range(2, 8))
    shares = [((call.text[:1] - ink).norm() / (clay - ink).norm()).item() for call in calls]
    assert shares == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1], abs=1e-6)
    assert all(call.text.shape[0] == steps for call in calls)
    assert torch.equal(calls[-1].text[:1], clay)


def test_a_look_set_on_the_way_goes_on_from_there(folder: Path) -> None:
    engine = make(folder, policy=Policy.OFF)
    calls = watch(engine)
    engine.set_look(Look("clay"), frames=4)
    run(engine, range(2))
    engine.set_look(Look("ink"), frames=2)
    run(engine, range(2))
    ink, clay = engine._model.encoder("ink"), engine._model.encoder("clay")
    # the frame that would have come next, three quarters of the way, is where the way back begins
    for call, share in zip(calls, (0.25, 0.5, 0.375, 0), strict=True):
        torch.testing.assert_close(call.text, torch.lerp(ink, clay, share))


@pytest.mark.parametrize("on_switch", OnSwitch)
def test_the_bank_on_a_switch(folder: Path, on_switch: OnSwitch) -> None:
    engine = make(folder, Look("ink", interval=100, fusion_strength=0.8))
    calls = watch(engine)
    run(engine, range(3))
    before = {name: ring.clone() for name, ring in engine._state.tensors.bank.items()}
    engine.set_look(Look("clay", on_switch=on_switch, interval=100, fusion_strength=0.8), frames=4)
    run(engine, range(3, 9))
    unchanged = all(torch.equal(ring, before[name]) for name, ring in engine._state.tensors.bank.items())
    after = calls[3:]
    assert [call.fresh for call in after] == [[on_switch is OnSwitch.FLUSH]] + [[False]] * 5
    assert unchanged == (on_switch is OnSwitch.KEEP)
    expected = [0.0, 0.2, 0.4, 0.6, 0.8, 0.8] if on_switch is OnSwitch.DECAY else [0.8] * 6
    assert [call.strength[0] for call in after] == pytest.approx(expected)


def test_a_decay_at_once_takes_some_frames_and_the_same_prompt_none(folder: Path) -> None:
    engine = make(folder, Look("ink", fusion_strength=1.0))
    calls = watch(engine)
    run(engine, range(2))
    engine.set_look(Look("ink", on_switch=OnSwitch.DECAY, fusion_strength=1.0, seed=4))
    run(engine, range(2, 4))
    assert [call.strength for call in calls] == [[1.0]] * 4
    engine.set_look(Look("red", on_switch=OnSwitch.DECAY, fusion_strength=1.0))
    run(engine, range(4, 16))
    ways = [call.strength[0] for call in calls[4:]]
    assert ways[0] == 0
    assert ways == sorted(ways)
    assert ways[-1] == 1
    assert 0 < ways[1] < 1


def test_a_look_that_cannot_be_changes_nothing(folder: Path) -> None:
    engine, untroubled = make(folder, steps=4), make(folder, steps=4)
    run(engine, range(5))
    run(untroubled, range(5))
    before = engine.look
    with pytest.raises(SettingsError, match="guidance is 2, but the engine was built without"):
        engine.set_look(Look("clay", guidance=2, on_switch=OnSwitch.FLUSH))
    assert engine.look is before
    assert same(run(engine, range(5, 9)), run(untroubled, range(5, 9)))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_every_strength_that_is_promised_is_taken_at_every_number_of_steps(folder: Path, steps: int) -> None:
    engine = make(folder, Look("ink", strength=0.02), steps=steps)
    for strength in (0.02, 0.03, 0.05, 0.1, 0.5, 0.9, 1.0):
        engine.set_look(Look("ink", strength=strength))
        assert all(shown is not None and np.ptp(shown) > 0 for shown in run(engine, range(2 * steps))[steps:])


def test_an_engine_is_not_built_with_a_look_that_cannot_be(folder: Path) -> None:
    with pytest.raises(SettingsError, match="self-negative, onetime-negative or full"):
        make(folder, Look("ink", guidance=1.5))


@settings(max_examples=6)
@given(st.lists(st.tuples(st.floats(0.1, 1), st.integers(0, 3)), min_size=1, max_size=6))
def test_the_strength_may_change_at_every_picture(folder: Path, changes: list[tuple[float, int]]) -> None:
    engine = make(folder, steps=4)
    calls = watch(engine)
    for number, (strength, frames) in enumerate(changes):
        engine.set_look(Look("ink", strength=strength), frames=frames)
        engine.translate(picture(number))
        assert 1000 * strength - 1000 / 50 - 1 <= calls[-1].timesteps[0] <= 1000 * strength
    assert len(list(engine.drain())) == min(3, len(changes))


def test_prompts_are_encoded_ahead(folder: Path) -> None:
    engine = make(folder)
    asked: list[str] = []
    embed = engine._model.encoder._embed
    patch = pytest.MonkeyPatch()
    patch.setattr(engine._model.encoder, "_embed", lambda prompt: asked.append(prompt) or embed(prompt))  # type: ignore[func-returns-value]
    engine.prepare(["a neon person", "red neon"])
    assert asked == ["a neon person", "red neon"]
    engine.set_look(Look("red neon"))
    patch.undo()
    assert asked == ["a neon person", "red neon"]


def test_unknown_words(folder: Path) -> None:
    assert make(folder).unknown_words("a zebra talking") == ["zebra"]


# ----------------------------------------------------------------------------------------------------------- guidance


GUIDED = [Guidance.FULL, Guidance.SELF_NEGATIVE, Guidance.ONETIME_NEGATIVE]


@pytest.mark.parametrize("guidance", GUIDED)
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_guidance_acts_and_a_scale_of_one_is_none(folder: Path, guidance: Guidance, policy: Policy) -> None:
    values: dict[str, Any] = {"steps": 2, "policy": policy}
    plain = run(make(folder, **values), range(4))[-1]
    one = run(make(folder, guidance=guidance, **values), range(4))[-1]
    look = Look("ink", interval=1, guidance=1.5)
    more = run(make(folder, look, guidance=guidance, **values), range(4))[-1]
    assert apart(one, plain) < 0.05
    assert apart(more, plain) > 0.3


@pytest.mark.parametrize("guidance", GUIDED)
def test_a_negative_prompt_acts_where_there_is_a_row_for_it(folder: Path, guidance: Guidance) -> None:
    looks = [Look("ink", negative, guidance=1.5) for negative in ("", "red neon")]
    results = [run(make(folder, look, steps=2, guidance=guidance), range(4)) for look in looks]
    assert same(results[0][1:], results[1][1:]) == (guidance is Guidance.SELF_NEGATIVE)


def test_a_negative_prompt_may_change_between_pictures(folder: Path) -> None:
    look = Look("ink", "red", guidance=1.5)
    engine = make(folder, look, guidance=Guidance.FULL, policy=Policy.OFF)
    run(engine, [0])
    engine.set_look(dataclasses.replace(look, negative_prompt="neon"))
    after = run(engine, [1])
    fresh = make(folder, engine.look, guidance=Guidance.FULL, policy=Policy.OFF)
    assert same(after, run(fresh, [1]))


# ------------------------------------------------------------------------------------------------- similar-frame skip


def stills(engine: Engine, count: int, number: int = 0) -> list[Picture | None]:
    return run(engine, [number] * count)


def test_a_picture_like_the_last_is_not_translated_again_but_for_the_limit(folder: Path) -> None:
    engine = make(folder, Look("ink", skip_difference=2, skip_limit=3))
    calls = watch(engine)
    worked = []
    for _ in range(9):
        engine.translate(picture(0))
        worked.append(len(calls))
    assert worked == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    engine.translate(picture(9))
    assert len(calls) == 4


@pytest.mark.parametrize("look", [Look("ink"), Look("ink", skip_difference=2, skip_limit=0)])
def test_without_skip_every_picture_is_translated(folder: Path, look: Look) -> None:
    engine = make(folder, look)
    calls = watch(engine)
    stills(engine, 4)
    assert len(calls) == 4


def test_small_changes_are_skipped_and_large_ones_are_not(folder: Path) -> None:
    engine = make(folder, Look("ink", skip_difference=2.0, skip_limit=1000))
    calls = watch(engine)
    base = np.full((SIZE, SIZE, 3), 100, np.uint8)
    for level in (100, 101, 99, 100, 102):
        engine.translate(np.full_like(base, level))
    assert len(calls) == 2  # 102 differs by two
    engine.translate(np.full_like(base, 101))
    engine.translate(np.full_like(base, 200))
    assert len(calls) == 3


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_what_is_shown_again_is_the_picture_that_stands_still(folder: Path, steps: int) -> None:
    engine = make(folder, Look("ink", skip_difference=1, skip_limit=1000), steps=steps, policy=Policy.OFF)
    run(engine, range(5))
    shown = stills(engine, 3 * steps, number=40)[-1]
    alone = make(folder, steps=steps, policy=Policy.OFF)
    expected = stills(alone, steps, number=40)[-1]
    assert apart(shown, expected) < 0.01


@pytest.mark.parametrize("frames", [0, 5])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_change_of_prompt_is_not_held_up_by_a_picture_that_stands_still(
    folder: Path, frames: int, steps: int
) -> None:
    look = Look("ink", skip_difference=1, skip_limit=1000)
    engine = make(folder, look, steps=steps, policy=Policy.OFF)
    stills(engine, 8)
    engine.set_look(dataclasses.replace(look, prompt="red neon"), frames=frames)
    shown = stills(engine, frames + 2 * steps)[-1]
    expected = stills(make(folder, Look("red neon"), steps=steps, policy=Policy.OFF), steps)[-1]
    assert apart(shown, expected) < 0.01


@pytest.mark.parametrize("steps", [1, 2])
def test_after_a_drain_nothing_old_is_shown_again(folder: Path, steps: int) -> None:
    engine = make(folder, Look("ink", skip_difference=5), steps=steps)
    calls = watch(engine)
    stills(engine, 6)
    list(engine.drain())
    done = len(calls)
    results = stills(engine, 1)
    assert len(calls) == done + 1
    assert (results[0] is None) == (steps > 1)


@settings(max_examples=8)
@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 3), st.integers(0, 3))
def test_skipping_loses_no_picture(folder: Path, numbers: list[int], steps: int, limit: int) -> None:
    engine = make(folder, Look("ink", skip_difference=1, skip_limit=limit), steps=steps)
    results = [r for r in run(engine, numbers) if r is not None]
    assert len(results) + len(list(engine.drain())) == len(numbers)


# ------------------------------------------------------------------------------------------------------ text to image


def test_imagine_streams_pictures_that_follow_the_prompt(folder: Path) -> None:
    engine = make(folder, steps=2, policy=Policy.MERGE)
    calls = watch(engine)
    assert engine.imagine() is None
    still = [engine.imagine() for _ in range(3)]
    assert all(result is not None and result.shape == (SIZE, SIZE, 3) for result in still)
    assert calls[0].timesteps == [999, 499]  # all of the schedule, whatever the look's strength
    engine.set_look(Look("red neon"), frames=3)
    after = [engine.imagine() for _ in range(6)]
    assert apart(after[-1], still[-1]) > 0.5
    assert torch.equal(calls[-1].text[:1], engine._model.encoder("red neon"))


def test_imagine_without_wander_stands_still_and_with_it_moves_on(folder: Path) -> None:
    still = make(folder, policy=Policy.OFF)
    assert same([still.imagine()] * 2, [still.imagine(), still.imagine()])
    moving, again = (make(folder, Look("ink", wander=5), policy=Policy.OFF) for _ in range(2))
    frames = [moving.imagine() for _ in range(20)]
    assert alike(frames[0], make(folder, policy=Policy.OFF).imagine())
    assert len({frame.tobytes() for frame in frames if frame is not None}) == 20
    assert apart(frames[1], frames[0]) < apart(frames[-1], frames[0])
    assert same(frames, [again.imagine() for _ in range(20)])


def test_a_change_of_wander_does_not_jump(folder: Path) -> None:
    engine, other = (make(folder, Look("ink", wander=1), policy=Policy.OFF) for _ in range(2))
    for _ in range(30):
        engine.imagine()
        other.imagine()
    engine.set_look(Look("ink", wander=2))
    assert alike(engine.imagine(), other.imagine())


def test_pictures_may_be_imagined_after_others_were_translated(folder: Path) -> None:
    engine = make(folder, steps=2)
    run(engine, range(3))
    list(engine.drain())
    assert engine.imagine() is None
    assert engine.imagine() is not None


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.OFF])
def test_what_is_in_flight_is_not_shown_as_imagined_nor_the_other_way_round(folder: Path, policy: Policy) -> None:
    engine, imagining, translating = (make(folder, steps=3, policy=policy) for _ in range(3))
    run(engine, range(4))
    expected = [imagining.imagine() for _ in range(4)]
    found = [engine.imagine() for _ in range(4)]
    assert [picture is None for picture in found] == [True, True, False, False]
    assert same(found[2:], expected[2:])
    assert list(engine.drain()) == []
    found, expected = run(engine, range(4)), run(translating, range(4))
    assert [picture is None for picture in found] == [True, True, False, False]
    assert same(found[2:], expected[2:])


def test_a_model_that_only_translates_says_so(tmp_path: Path) -> None:
    only = make_folder(tmp_path / "model", description={"text_to_image": False, "name": "Mine"})
    with pytest.raises(SettingsError, match="'Mine' only translates"):
        make(only).imagine()


# ------------------------------------------------------------------------------------------------------- other models


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_the_folders_scheduler_decides(tmp_path: Path, prediction: str, spacing: str) -> None:
    folder = make_folder(tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text()), "prediction_type": prediction, "timestep_spacing": spacing}
    path.write_text(json.dumps(config))
    engine = make(folder, Look("ink", strength=0.5), steps=2)
    calls = watch(engine)
    assert run(engine, range(3))[-1] is not None
    assert engine._model.schedule.prediction == prediction
    assert calls[0].timesteps == ([499, 249] if spacing == "trailing" else [499, 259])


def test_a_kl_folder_is_translated(tmp_path: Path) -> None:
    engine = make(make_folder(tmp_path / "model", kl=True), steps=2)
    results = run(engine, range(4))[1:]
    assert apart(results[0], results[-1]) > 0.1


def test_nothing_of_the_engine_is_in_the_model(folder: Path) -> None:
    wanted = EngineSettings(model=str(folder), width=SIZE, height=SIZE, steps=1, policy=Policy.FIFO)
    model: Model = real_load(resolve(wanted), silent)
    before = {id(value) for value in vars(model).values()}
    run(make(folder), range(3))
    assert {id(value) for value in vars(model).values()} == before
    assert engines.Engine.__module__ == "core.engine"


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.MERGE])
def test_what_is_no_number_leaves_the_bank_again(folder: Path, policy: Policy, steps: int) -> None:
    engine = make(folder, Look("ink", interval=1), steps=steps, policy=policy)
    shown = [engine.translate(picture(index)) for index in range(steps + 1)]
    assert shown[-1] is not None
    assert shown[-1].any()
    with torch.inference_mode():
        for ring in engine._state.tensors.bank.values():
            ring.fill_(float("nan"))  # as an overflow of half precision leaves it
    after = [engine.translate(picture(index)) for index in range(3 * steps + 2)]
    assert not after[0].any()  # type: ignore[union-attr]
    assert all(one.any() for one in after[-2:])  # type: ignore[union-attr]
    assert all(ring.isfinite().all() for ring in engine._state.tensors.bank.values())


# ----------------------------------------------------------------------------------------------- a bank that stays well


def test_a_bank_is_made_anew_softly_as_often_as_the_look_says(folder: Path) -> None:
    engine = make(folder, Look("ink", interval=1, fusion_strength=0.8, refresh=9))
    calls = watch(engine)
    run(engine, range(9))
    assert engine.refreshes == 1
    assert [call.fresh[0] for call in calls] == [True] + [False] * 8
    run(engine, range(9, 17))
    strengths = [call.strength[0] for call in calls[9:17]]
    assert strengths == pytest.approx([0.8 * done / 8 for done in range(8)])
    assert [call.fresh[0] for call in calls[9:17]] == [True] + [False] * 7
    run(engine, [17])
    assert engine.refreshes == 2, "so many pictures after the last one"
    still = make(folder, Look("ink", refresh=9), policy=Policy.OFF)
    run(still, range(10))
    assert still.refreshes == 0


@pytest.mark.parametrize(
    ("preset", "policy", "slots"),
    [
        (BankPreset.OWN, Policy.FIFO, 12),
        (BankPreset.OWN, Policy.MERGE, 1),
        (BankPreset.PAPER, Policy.MERGE, 1),
        (BankPreset.PAPER, Policy.FIFO, 3),
    ],
)
def test_nothing_of_the_old_bank_is_read_after_a_refresh(
    folder: Path, preset: BankPreset, policy: Policy, slots: int
) -> None:
    look, values = Look("ink", interval=1, refresh=10), {"policy": policy, "slots": slots, "rules": BANK_RULES[preset]}
    engine, other = make(folder, look, **values), make(folder, look, **values)
    run(engine, range(10))
    run(other, range(30, 40))
    assert engine.refreshes == other.refreshes == 1
    for one in (engine, other):
        one._steadying = Steadying()  # which is none of the bank
    assert same(run(engine, range(10, 18)), run(other, range(10, 18)))


def test_what_is_imagined_is_refreshed_and_recovers(folder: Path) -> None:
    engine = make(folder, Look("ink", interval=1, refresh=10))
    for _ in range(10):
        engine.imagine()
    assert engine.refreshes == 1
    with torch.inference_mode():
        for ring in (rings := engine._state.tensors.bank).values():
            ring.fill_(float("nan"))
        engine._state = engine._state._replace(frame_index=1)  # after its first frame
    assert rings
    shown = [engine.imagine() for _ in range(4)]
    assert shown[0] is not None
    assert not shown[0].any()
    assert shown[-1] is not None
    assert shown[-1].any()


def test_a_stream_that_drifts_is_refreshed_and_one_that_does_not_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.drift.EVERY", 1)
    for paler, expected in ((0.0, 0), (1.0, 1)):
        engine = make(folder, Look("ink", interval=1, steady=0.0))
        shown = iter(range(1000))

        def decode(latent: Tensor, source: Tensor, paler: float = paler, shown: Iterator[int] = shown) -> Picture:
            number = next(shown)
            far = 1 - paler * min(max(number - 20, 0) / 40, 0.6)
            return (127 + (picture(0) - 127.0) * far).astype(np.uint8)

        replace_parts(engine, decode=decode)
        run(engine, [0] * 75)  # what the camera sees stands
        assert engine.refreshes == expected


def test_flicker_is_taken_out_where_nothing_moves_and_not_while_the_look_changes(folder: Path) -> None:
    def flicker(steady: float | None, policy: Policy = Policy.FIFO) -> tuple[Engine, list[Picture | None]]:
        engine = make(folder, Look("ink", interval=1, steady=steady), policy=policy)
        shown = iter(range(1000))
        replace_parts(engine, decode=lambda latent, source: picture(0) // 2 + 40 * (next(shown) % 2))
        return engine, [engine.translate(picture(0)) for _ in range(6)]

    _, plain = flicker(0.0)
    assert apart(plain[4], plain[5]) == 40
    engine, steadied = flicker(None)  # 0.6 with our own bank
    assert apart(steadied[4], steadied[5]) < 17
    assert same(flicker(None, Policy.OFF)[1], plain)
    engine.set_look(dataclasses.replace(engine.look, strength=0.9))
    before, now = (engine.translate(picture(0)) for _ in range(2))
    assert same([before], [plain[0]])  # as it is
    assert apart(now, plain[1]) > 10  # and mixed again
    engine.forget()
    assert same([engine.translate(picture(0))], [plain[0]])
