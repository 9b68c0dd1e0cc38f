"""core.models.device_memory: what is predicted, compared with what is counted; what does not fit is refused with
what does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.engine import Engine
from core.errors import SettingsError
from core.models import device_memory as memory
from core.models import loading as models
from core.models.description import describe
from core.models.device_memory import Need
from core.runtimes.choice import resolve
from core.runtimes.load import expected, outlook
from core.settings import EngineSettings, Guidance, Look, Policy, Runtime
from tests.support.model_folders import as_given, load_model, make_folder, make_full_shapes
from vcam.doctor import checks
from vcam.doctor.checks import Mark

GB = 10**9


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_full_shapes(tmp_path_factory.mktemp("sd15") / "sd15")


def settings(folder: Path, **values: Any) -> EngineSettings:
    given = {"width": 64, "height": 64, "device": "cpu", "dtype": "float32", "runtime": Runtime.EAGER, **values}
    return EngineSettings(model=str(folder), **given)


def need(folder: Path, **values: Any) -> Need:
    return memory.need(as_given(settings(folder, **values)))


# ------------------------------------------------------------------------------------------------ what is predicted


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_are_those_of_the_files_in_the_engines_dtype(tiny: Path, dtype: str) -> None:
    numbers = 0
    for path in tiny.rglob("*.safetensors"):
        numbers += sum(tensor.numel() for tensor in load_file(path).values())
    assert need(tiny, dtype=dtype).weights == numbers * getattr(torch, dtype).itemsize


def test_of_plain_files_and_a_variant_only_what_is_loaded_counts(tiny: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file), file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert need(folder).weights == need(tiny).weights
    file.unlink()
    assert need(folder).weights == need(tiny).weights


@pytest.mark.parametrize(
    ("policy", "slots", "guidance"),
    [(Policy.OFF, 1, Guidance.NONE), (Policy.MERGE, 3, Guidance.NONE), (Policy.FIFO, 3, Guidance.FULL)],
)
def test_the_bank_is_the_engines_own(tiny: Path, policy: Policy, slots: int, guidance: Guidance) -> None:
    chosen = settings(tiny, steps=2, policy=policy, slots=slots, guidance=guidance)
    assert memory.need(as_given(chosen)).bank == Engine(chosen, Look("ink")).bank_bytes


def test_what_lives_at_once_is_counted() -> None:
    with torch.device("meta"), memory._Alive() as alive:
        one = torch.empty(100, dtype=torch.uint8)
        view = one[10:].view(9, 10)
        assert alive.now == 100
        both = torch.cat([one, one])  # 300 at once
        del one, view
        assert alive.now == 200
        both = both[:50].clone()
        assert alive.now == 50
    assert alive.peak == 300


def test_a_frame_takes_at_least_what_it_must_and_grows_as_it_should(sd15: Path) -> None:
    small, large = (need(sd15, width=size, height=size, steps=1, policy=Policy.OFF) for size in (256, 512))
    # at full size the first level's features alone are 64*64*320 numbers, and some are alive together
    assert large.work > 3 * 64 * 64 * 320 * 4
    assert 3.5 < large.work / small.work < 4.5
    four = need(sd15, width=512, height=512, steps=4, policy=Policy.OFF)
    assert 1.5 < four.work / large.work < 4.5
    merge, fifo = (need(sd15, width=512, height=512, steps=4, policy=policy) for policy in (Policy.MERGE, Policy.FIFO))
    assert merge.work > fifo.work > four.work + fifo.bank  # the features seen are as large as the bank


def test_an_attention_matrix_is_not_counted(sd15: Path) -> None:
    matrix = 8 * (64 * 64) ** 2 * 4  # of all heads, float32: no kernel of today makes it
    assert need(sd15, width=512, height=512, steps=1, policy=Policy.OFF).work < matrix


def test_the_bank_of_sd_15_is_as_the_paper_has_it(sd15: Path) -> None:
    """176 MiB of keys and values and 8 of outputs, four rows, one frame, float16."""
    found = need(sd15, width=512, height=512, steps=4, policy=Policy.MERGE, dtype="float16", device="cuda")
    assert found.bank / 2**20 == pytest.approx(184, abs=1)
    assert found.weights == pytest.approx(1.98 * GB, rel=0.01)


# --------------------------------------------------------------------------------------------------- what is refused


def test_a_card_of_8_gb_takes_the_default_and_more(sd15: Path) -> None:
    """The default of sd15-lcm, while the screen and others have a gigabyte."""
    own = describe("sd15-lcm")
    default = settings(
        sd15, width=own.width, height=own.height, steps=own.steps, policy=own.policy, dtype="float16", device="cuda"
    )
    assert memory.check(as_given(default), 7 * GB).total < 5 * GB
    assert memory.need(as_given(replace(default, width=768, height=768))).total < 7 * GB


@pytest.mark.parametrize(
    ("asked", "shape", "room"),
    [
        ((1280, 720), 16 / 9, 200_000_000),
        pytest.param((1024, 1024), 1.0, 125_000_000, marks=pytest.mark.slow),
        pytest.param((960, 1280), 0.75, 300_000_000, marks=pytest.mark.slow),
    ],
)
def test_what_does_not_fit_is_refused_with_the_largest_that_does(
    tiny: Path, asked: tuple[int, int], shape: float, room: int
) -> None:
    chosen = settings(tiny, width=asked[0], height=asked[1], steps=4, policy=Policy.FIFO)
    with pytest.raises(SettingsError, match=rf"at {asked[0]}x{asked[1]} with 4 steps needs .* GB are free on cpu"):
        memory.check(as_given(chosen), room)
    found = memory.largest(as_given(chosen), room)
    assert found is not None
    width, height = found
    assert width % 16 == height % 16 == 0
    assert width / height == pytest.approx(shape, rel=0.05)
    assert min(found) % 64 == 0 or min(found) < 256
    assert memory.need(as_given(replace(chosen, width=width, height=height))).total <= room
    step = 64 if min(found) >= 256 else 16
    larger = [round(side * (min(found) + step) / min(found) / 16) * 16 for side in found]
    assert memory.need(as_given(replace(chosen, width=larger[0], height=larger[1]))).total > room


@pytest.mark.parametrize("room", [0, 101_000_000])
def test_where_nothing_fits_that_is_said(tiny: Path, room: int) -> None:
    with pytest.raises(SettingsError, match="no size fits; take fewer steps, another model"):
        memory.check(as_given(settings(tiny, width=512, height=512)), room)


def test_nothing_is_loaded_that_does_not_fit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 110_000_000)
    monkeypatch.setattr(models, "part", None)
    with pytest.raises(SettingsError, match=r"the largest size that fits is \d+x\d+ \(--engine-size"):
        load_model(settings(tiny, width=1024, height=1024))
    with pytest.raises(TypeError):  # the small one is loaded
        load_model(settings(tiny))


def test_free_memory_is_told_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory.free("cpu") < 2**60
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GB if device.index == 1 else GB, 8 * GB))
    assert memory.free("cuda:1") == 5 * GB
    assert memory.free("cuda") == GB


def test_a_folder_that_cannot_be_worked_out_is_left_to_the_loader(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "model")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "block_out_channels": [3, 5]}))
    assert expected(as_given(settings(folder))) is None
    assert expected(as_given(settings(tiny))) is None  # it is small
    monkeypatch.setattr(memory, "free", lambda device: GB)
    assert expected(as_given(settings(tiny))) == need(tiny)
    assert expected(resolve(EngineSettings(device="cpu"))) is None  # on onnx


def test_the_doctors_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 3 * GB)
    assert outlook(str(tiny))[0]
    whole = need(tiny, width=512, height=512, steps=4, policy=Policy.MERGE).total
    monkeypatch.setattr(memory, "free", lambda device: whole - 1)
    fits, told = outlook(str(tiny))
    assert not fits
    assert "are free on cpu; the largest size that fits is 448x448" in told
    found = checks.check_memory(fits, told)
    assert (found.mark, found.found) == (Mark.BAD, told)
    assert checks.check_memory(True, "all is well").mark is Mark.GOOD
    assert checks.check_memory(None, "no torch").mark is Mark.NOTE
