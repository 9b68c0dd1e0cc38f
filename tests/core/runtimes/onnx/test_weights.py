"""core.runtimes.onnx.weights: a weight is what its file holds, in memory only while somebody has it."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.runtimes.onnx.weights import named, weights_of


def mappings(file: Path) -> int:
    """How many of this process's mappings are of that file."""
    return Path("/proc/self/maps").read_text().count(str(file))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16, torch.float64])
def test_weights_of_every_kind_are_what_their_file_holds(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stored = {"large": torch.randn(300, 200).to(dtype), "odd": torch.randn(3).to(dtype), "none": torch.zeros(0, 4)}
    stored |= {"convolution": torch.randn(100, 100, 3, 3).to(dtype), "scalar": torch.tensor(3.0).to(dtype)}
    save_file(stored, tmp_path / "model.safetensors")
    found = weights_of(tmp_path)
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        one = named(name, found)
        assert one.dtype == np.float32
        assert one.flags.c_contiguous
        assert np.array_equal(one, value.float().numpy()), name
    assert np.array_equal(named("large.T", found), stored["large"].float().numpy().T)
    assert np.array_equal(named("large.T:400x150", found), stored["large"].float().numpy().T.reshape(400, 150))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone says what a process maps")
def test_a_large_weight_is_mapped_as_long_as_it_is_wanted_and_no_other_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"one": torch.randn(300, 200), "other": torch.randn(300, 200), "small": torch.zeros(3)}, file)
    found = weights_of(tmp_path)
    assert mappings(file) == 2
    own = named("one", found)  # as it lies: no copy
    assert np.shares_memory(own, found["one"])
    del found["one"], own
    gc.collect()
    assert mappings(file) == 1
    own = found["other"]
    own[0] = 7  # ours alone: the file stays as it is
    assert not np.array_equal(named("other", weights_of(tmp_path)), own)
