"""vcam bench: the arithmetic, with a clock and an engine made for it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import SettingsError
from core.settings import EngineSettings, Look, Policy, Runtime
from tests.support.clock import Clock
from vcam.offline.bench import HEAD, WARM_UP_FRAMES, Instruments, ReportProgress, Row, bench, settings_to_measure, table


class FakeEngine:
    """Loads in 3 s, compiles in 5 s; the first three calls take 1 s each, then 10 ms, every tenth 30 ms."""

    def __init__(self, clock: Clock, settings: EngineSettings, told: ReportProgress) -> None:
        told("loading", 0.5)
        clock.now += 3
        told("compiling", 0.6)
        clock.now += 5
        self.clock, self.settings, self.calls = clock, settings, 0
        self.bank_bytes = 2**20

    def stages(self, picture: NDArray[np.uint8], /) -> dict[str, float]:
        return {"unet": 7.0}

    def translate(self, picture: NDArray[np.uint8], /) -> NDArray[np.uint8] | None:
        assert picture.shape == (self.settings.height, self.settings.width, 3)
        assert picture.dtype == np.uint8
        self.calls += 1
        self.clock.now += 1 if self.calls <= 3 else 0.03 if self.calls % 10 == 0 else 0.01
        return None if self.calls < self.settings.steps else picture


def test_warm_up_counts_apart() -> None:
    clock = Clock()
    heard: list[Row] = []
    settings = EngineSettings(steps=2, width=64, height=128, policy=Policy.MERGE, device="cpu")
    instruments = Instruments(
        engine=lambda settings, look, told: FakeEngine(clock, settings, told),
        flops=lambda settings: 2_000_000_000,
        peak=lambda device, dtype: 1e12,
        memory=lambda device: (300, 400),
    )
    report = bench([settings], Look(), frames=100, stages=True, instruments=instruments, clock=clock, each=heard.append)
    (row,) = report.rows
    assert heard == [row]
    assert (row.steps, row.bank, row.width, row.height, row.frames) == (2, "merge", 64, 128, 100)
    assert row.load_s == pytest.approx(3)
    assert row.compile_s == pytest.approx(5)
    assert (row.tflop, row.floor_ms, row.stages_ms) == (0.002, 2.0, {"unet": 7.0})
    assert row.floor_share == pytest.approx(0.2)
    assert (row.memory_bytes, row.device_bytes) == (300, 400)
    assert report.machine["peak_tflops_cpu_auto"] == 1
    assert row.warm_up_s == pytest.approx(3 + 0.01 * (WARM_UP_FRAMES + 1 - 3))
    assert row.fps == pytest.approx(100 / (90 * 0.01 + 10 * 0.03))
    assert row.p50_ms == pytest.approx(10)
    assert row.p95_ms == pytest.approx(30)
    assert (row.runtime, row.device) == (settings.runtime, "cpu")
    assert report.machine["cores"]
    assert report.machine["torch"]


def test_all_combinations_once() -> None:
    plain = EngineSettings(width=320, height=256)
    chosen = settings_to_measure(plain)
    assert len(chosen) == len(set(chosen)) == 9
    assert {(one.steps, one.policy) for one in chosen} == {(s, p) for s in (1, 2, 4) for p in Policy}
    assert {(one.width, one.height) for one in chosen} == {(320, 256)}
    assert len(settings_to_measure(plain, [1], [Policy.OFF], [(64, 64), (128, 64)])) == 2
    both = [Runtime.EAGER, Runtime.ONNX]
    some = settings_to_measure(plain, [1], [Policy.OFF, Policy.FIFO], None, [1, 4], both)
    assert [(one.policy, one.slots, one.runtime) for one in some] == [
        (policy, slots, runtime) for policy, slots in (("off", 1), ("fifo", 1), ("fifo", 4)) for runtime in both
    ]
    with pytest.raises(SettingsError, match="width is 65; it must be a multiple of 16"):
        settings_to_measure(plain, sizes=[(65, 64)])


def test_table_has_columns_under_their_heads() -> None:
    row = Row(2, "fifo", 256, 256, 40, 9.87, 101.2, 120.9, 1.0, 1.0, 5 * 2**20, "eager", "cpu", "float32")
    head, line = table([row]).split("\n")
    assert head == HEAD
    assert line == "256x256         2  fifo      9.9    101.2    120.9        5.0         -  eager cpu float32"
    assert line.index("eager") == head.index("run by")
