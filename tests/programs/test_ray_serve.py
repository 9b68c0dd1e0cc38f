"""The engine server on a real Ray Serve: a replica that is killed costs its cameras a moment, the others nothing.

And nothing of it can be reached from another machine.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra serve")
def test_cameras_of_a_killed_replica_are_back_on_another(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.scale", "--kill", "--json", str(result)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(result.read_text())
    assert found["cameras hit"] >= 1
    assert found["cameras hit"] + found["cameras spared"] == 4
    assert math.isfinite(found["longest away, s"])
    assert found["ports open to others"] == 0  # the front is told 127.0.0.1 here
