"""A frame's memory is taken from the system once, and not anew for every frame."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from core.runtimes.allocation import keep_freed_memory

def faults():  # of a frame's worth of large and middling tensors
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (80, 20, 20, 50):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
given_back, said = faults(), keep_freed_memory()
for _ in range(8):  # until everything has found its place
    faults()
print(given_back, said, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library's own")
def test_what_is_freed_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given_back, said, kept = done.stdout.split()
    if said == "False":
        pytest.skip("this C library is not GNU's")
    assert int(given_back) > 10_000  # of 4 KiB: less where the pages are huge
    assert int(kept) < 100
