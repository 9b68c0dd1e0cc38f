"""core.models.stream_memory: what streams take, on a model that has loaded and on one that has not."""

from __future__ import annotations

import pytest

from core.errors import MemoryShort
from core.models import device_memory as memory
from core.models import host_memory as host
from core.models.resolved import Resolved
from core.models.stream_memory import check_stream, check_with_streams
from core.runtimes.choice import resolve
from core.settings import EngineSettings, Policy, Runtime


@pytest.fixture(scope="module")
def resolved() -> Resolved:
    settings = EngineSettings("embedded", 128, 96, 1, Policy.FIFO, runtime=Runtime.EAGER, device="cpu")
    return resolve(settings)


def test_so_many_streams_as_fit_beside_a_model_are_found_before_it_is_loaded(
    resolved: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = memory.need(resolved)
    each = check_with_streams(resolved, 2) - check_with_streams(resolved, 1)
    assert each >= need.bank
    assert check_with_streams(resolved, 4) == need.total + 4 * each
    assert check_with_streams(resolved, 4, copies=2) == 2 * check_with_streams(resolved, 4)
    monkeypatch.setattr(memory, "free", lambda device: need.total + 4 * each)
    check_with_streams(resolved, 4)
    with pytest.raises(MemoryShort, match=r"an engine with 5 streams, needs .* are free on cpu; --streams 4 fits"):
        check_with_streams(resolved, 5)
    with pytest.raises(MemoryShort, match=r"2 engines, each with 4 streams, needs .*; take a smaller --engine-size"):
        check_with_streams(resolved, 4, copies=2)


def test_so_many_streams_as_fit_on_a_loaded_model_are_told(resolved: Resolved, monkeypatch: pytest.MonkeyPatch) -> None:
    one = check_stream(resolved, 1000)
    assert check_stream(resolved, 1000, 3) == 3 * one
    monkeypatch.setattr(host, "free_ram", lambda: 3 * one)
    with pytest.raises(MemoryShort, match=r"4 streams of .* are free on cpu; take --streams 3 or a smaller size"):
        check_stream(resolved, 1000, 4)
    with pytest.raises(MemoryShort, match=r"another stream of .*; take a smaller size"):
        check_stream(resolved, 4000)
